"""The same small concurrent programs in each of the systems that bench_tasklets.py compares.

Every function runs one program of the given size and returns (seconds, operations); `memory` returns (bytes,
tasklets). Preparations are left out of the seconds where they are no part of the question.

What is compared is the same program, not the same number of instructions. `greenlet` is the bare minimum: it
knows at every point whom to switch to, and makes as many switches as a rendezvous does (one per message in
ping-pong and ring, two per message where a producer and a consumer take turns). asyncio has no channel that
waits for the receiver, so its queue has room for one; SimpleQueue has room for any number.
"""

import gc
from collections.abc import Callable
from time import perf_counter
from typing import Any

from measuring import Missing, resident_bytes

Sample = tuple[float, int]
Programs = dict[str, Callable[[int], Sample]]

RING = 1000
BATCH = 100  # tasklets begun before the first of them runs, in `spawn`


def sieve_messages(limit: int) -> int:
    """How many messages are received when the primes below `limit` are sieved through a chain of filters."""
    primes: list[int] = []
    count = 0
    for number in range(2, limit):
        for place, prime in enumerate(primes, 1):
            if number % prime == 0:
                count += place
                break
        else:
            primes.append(number)
            count += len(primes)
    return count + len(primes) + 1  # the end goes through everybody, too


# ------------------------------------------------------------------------------------------------- greenlet


def greenlet_programs() -> Programs:
    from greenlet import getcurrent, greenlet

    def ping_pong(size: int) -> Sample:
        def ping() -> None:
            for _ in range(size // 2):
                answering.switch(1)

        def pong(_: int) -> None:
            while True:
                asking.switch(1)

        asking, answering = greenlet(ping), greenlet(pong)
        begun = perf_counter()
        asking.switch()
        return perf_counter() - begun, size

    def producer_consumer(size: int) -> Sample:
        def produce() -> None:
            for number in range(size):
                consumer.switch(number)

        def consume() -> None:
            for _ in range(size):
                producer.switch()

        producer, consumer = greenlet(produce), greenlet(consume)
        begun = perf_counter()
        consumer.switch()
        return perf_counter() - begun, size

    def yields(size: int, members: int) -> Sample:
        main = getcurrent()

        def work(place: int) -> None:
            main.switch()
            following = ring[(place + 1) % members]
            for _ in range(laps):
                following.switch()
            main.switch()

        laps = max(1, size // members)
        ring = [greenlet(work) for _ in range(members)]
        for place, one in enumerate(ring):
            one.switch(place)
        begun = perf_counter()
        ring[0].switch()
        return perf_counter() - begun, laps * members

    def spawn(size: int) -> Sample:
        def nothing() -> None:
            pass

        begun = perf_counter()
        for _ in range(max(1, size // BATCH)):
            batch = [greenlet(nothing) for _ in range(BATCH)]
            for one in batch:
                one.switch()
        return perf_counter() - begun, max(1, size // BATCH) * BATCH

    def ring(size: int) -> Sample:
        return yields(size, RING)  # a message and a turn are the same thing here

    def sieve(limit: int) -> Sample:
        def count(asker: greenlet) -> None:
            for number in range(2, limit):
                asker = asker.switch(number)
            asker.switch(None)

        def strain(prime: int, source: greenlet) -> Callable[[greenlet], None]:
            def run(asker: greenlet) -> None:
                me = getcurrent()
                while True:
                    number = source.switch(me)
                    if number is None:
                        asker.switch(None)
                    elif number % prime:
                        asker = asker.switch(number)

            return run

        def collect() -> None:
            me = getcurrent()
            source = greenlet(count)
            while (prime := source.switch(me)) is not None:
                source = greenlet(strain(prime, source))

        begun = perf_counter()
        greenlet(collect).switch()
        return perf_counter() - begun, sieve_messages(limit)

    def memory(size: int) -> Sample:
        main = getcurrent()

        def wait() -> None:
            main.switch()

        def begin() -> Any:
            one = greenlet(wait)
            one.switch()
            return one

        return grown(lambda: [begin() for _ in range(size)], size)

    return {
        "ping-pong": ping_pong,
        "producer-consumer": producer_consumer,
        "yield-2": lambda size: yields(size, 2),
        "yield-1000": lambda size: yields(size, RING),
        "spawn": spawn,
        "ring": ring,
        "sieve": sieve,
        "memory": memory,
    }


def grown(build: Callable[[], object], size: int) -> Sample:
    """Measure by how much this process grows while `build` makes `size` of something."""
    gc.collect()
    before = resident_bytes()
    kept = build()
    after = resident_bytes()
    del kept
    return after - before, size


# ------------------------------------------------------------------------------------------------- tasklets


def tasklet_programs(core: str) -> Programs:
    from tasklets import channel, run, schedule, tasklet

    if core_in_use() != core:
        raise Missing("no compiled core is built here" if core == "compiled" else "the core is compiled only")

    def ping_pong(size: int) -> Sample:
        def ping() -> None:
            for _ in range(size // 2):
                there.send(1)
                back.receive()

        def pong() -> None:
            for _ in range(size // 2):
                there.receive()
                back.send(1)

        there, back = channel(), channel()
        return timed_run((ping, pong), size)

    def producer_consumer(size: int) -> Sample:
        def produce() -> None:
            for number in range(size):
                goods.send(number)

        def consume() -> None:
            for _ in range(size):
                goods.receive()

        goods = channel()
        return timed_run((produce, consume), size)

    def yields(size: int, members: int) -> Sample:
        def work() -> None:
            for _ in range(laps + 1):
                schedule()

        laps = max(1, size // members)
        for _ in range(members):
            tasklet(work)()
        schedule()
        return timed_run((), laps * members)

    def timed_run(functions: Any, operations: int) -> Sample:
        for function in functions:
            tasklet(function)()
        begun = perf_counter()
        run()
        return perf_counter() - begun, operations

    def spawn(size: int) -> Sample:
        def nothing() -> None:
            pass

        begun = perf_counter()
        for _ in range(max(1, size // BATCH)):
            for _ in range(BATCH):
                tasklet(nothing)()
            run()
        return perf_counter() - begun, max(1, size // BATCH) * BATCH

    def ring(size: int) -> Sample:
        def pass_on(inward: Any, outward: Any) -> None:
            for _ in range(laps):
                outward.send(inward.receive())

        laps = max(1, size // RING)
        channels = [channel() for _ in range(RING)]
        for place in range(1, RING):
            tasklet(pass_on)(channels[place - 1], channels[place])
        run()
        begun = perf_counter()
        for _ in range(laps):
            channels[0].send(1)
            channels[-1].receive()
        return perf_counter() - begun, laps * RING

    def sieve(limit: int) -> Sample:
        def count(out: Any) -> None:
            for number in range(2, limit):
                out.send(number)
            out.send(None)

        def strain(prime: int, numbers: Any, out: Any) -> None:
            while (number := numbers.receive()) is not None:
                if number % prime:
                    out.send(number)
            out.send(None)

        def collect() -> None:
            numbers = channel()
            tasklet(count)(numbers)
            while (prime := numbers.receive()) is not None:
                out = channel()
                tasklet(strain)(prime, numbers, out)
                numbers = out

        return timed_run((collect,), sieve_messages(limit))

    def memory(size: int) -> Sample:
        def wait() -> None:
            never.receive()

        def build() -> None:
            for _ in range(size):
                tasklet(wait)()
            run()

        never = channel()
        return grown(build, size)

    return {
        "ping-pong": ping_pong,
        "producer-consumer": producer_consumer,
        "yield-2": lambda size: yields(size, 2),
        "yield-1000": lambda size: yields(size, RING),
        "spawn": spawn,
        "ring": ring,
        "sieve": sieve,
        "memory": memory,
    }


def core_in_use() -> str:
    """Which form of the core this interpreter has loaded."""
    import tasklets._core

    return "pure" if str(tasklets._core.__file__).endswith(".py") else "compiled"


# ------------------------------------------------------------------------------------------ gevent and goless


def gevent_programs() -> Programs:
    try:
        import gevent
        from gevent.queue import Channel
    except ImportError as error:
        raise Missing(error) from error

    def join(begun: float, greenlets: list[Any]) -> float:
        gevent.joinall(greenlets, raise_error=True)
        return perf_counter() - begun

    def start(function: Any, *args: Any) -> None:
        gevent.spawn(function, *args)

    programs = greenlet_like(Channel, "put", "get", start, lambda: gevent.sleep(0))

    def spawn(size: int) -> Sample:
        def nothing() -> None:
            pass

        begun = perf_counter()
        for _ in range(max(1, size // BATCH)):
            join(begun, [gevent.spawn(nothing) for _ in range(BATCH)])
        return perf_counter() - begun, max(1, size // BATCH) * BATCH

    return {**programs, "spawn": spawn}


def goless_programs() -> Programs:
    try:
        import goless
    except ImportError as error:
        raise Missing(error) from error
    except Exception as error:  # goless looks at the interpreter while it is imported, and may not know it
        raise Missing(f"cannot be imported: {type(error).__name__}: {error}") from error

    return greenlet_like(goless.chan, "send", "recv", goless.go, goless.backends.current.yield_)


def greenlet_like(make: Any, send: str, receive: str, start: Any, give_way: Any) -> Programs:
    """The programs for systems with channels, whose main program waits by receiving."""

    def finish(begun: float, done: Any, operations: int, count: int = 1) -> Sample:
        take = getattr(done, receive)
        for _ in range(count):
            take()
        return perf_counter() - begun, operations

    def ping_pong(size: int) -> Sample:
        def ping() -> None:
            put, get = getattr(there, send), getattr(back, receive)
            for _ in range(size // 2):
                put(1)
                get()
            getattr(done, send)(1)

        def pong() -> None:
            put, get = getattr(back, send), getattr(there, receive)
            for _ in range(size // 2):
                get()
                put(1)

        there, back, done = make(), make(), make()
        begun = perf_counter()
        start(ping)
        start(pong)
        return finish(begun, done, size)

    def producer_consumer(size: int) -> Sample:
        def produce() -> None:
            put = getattr(goods, send)
            for number in range(size):
                put(number)

        def consume() -> None:
            get = getattr(goods, receive)
            for _ in range(size):
                get()
            getattr(done, send)(1)

        goods, done = make(), make()
        begun = perf_counter()
        start(produce)
        start(consume)
        return finish(begun, done, size)

    def yields(size: int, members: int) -> Sample:
        def work() -> None:
            for _ in range(laps + 1):
                give_way()
            getattr(done, send)(1)

        laps = max(1, size // members)
        done = make()
        for _ in range(members):
            start(work)
        give_way()
        return finish(perf_counter(), done, laps * members, members)

    def spawn(size: int) -> Sample:
        def last() -> None:
            getattr(done, send)(1)

        def nothing() -> None:
            pass

        done = make()
        begun = perf_counter()
        for _ in range(max(1, size // BATCH)):
            for _ in range(BATCH - 1):
                start(nothing)
            start(last)
            getattr(done, receive)()
        return perf_counter() - begun, max(1, size // BATCH) * BATCH

    def ring(size: int) -> Sample:
        def pass_on(inward: Any, outward: Any) -> None:
            put, get = getattr(outward, send), getattr(inward, receive)
            for _ in range(laps):
                put(get())

        laps = max(1, size // RING)
        channels = [make() for _ in range(RING)]
        for place in range(1, RING):
            start(pass_on, channels[place - 1], channels[place])
        give_way()
        put, get = getattr(channels[0], send), getattr(channels[-1], receive)
        begun = perf_counter()
        for _ in range(laps):
            put(1)
            get()
        return perf_counter() - begun, laps * RING

    def sieve(limit: int) -> Sample:
        def count(out: Any) -> None:
            put = getattr(out, send)
            for number in range(2, limit):
                put(number)
            put(None)

        def strain(prime: int, numbers: Any, out: Any) -> None:
            put, get = getattr(out, send), getattr(numbers, receive)
            while (number := get()) is not None:
                if number % prime:
                    put(number)
            put(None)

        begun = perf_counter()
        numbers = make()
        start(count, numbers)
        while (prime := getattr(numbers, receive)()) is not None:
            out = make()
            start(strain, prime, numbers, out)
            numbers = out
        return perf_counter() - begun, sieve_messages(limit)

    def memory(size: int) -> Sample:
        def wait() -> None:
            getattr(never, receive)()

        def build() -> None:
            for _ in range(size):
                start(wait)
            give_way()

        never = make()
        return grown(build, size)

    return {
        "ping-pong": ping_pong,
        "producer-consumer": producer_consumer,
        "yield-2": lambda size: yields(size, 2),
        "yield-1000": lambda size: yields(size, RING),
        "spawn": spawn,
        "ring": ring,
        "sieve": sieve,
        "memory": memory,
    }


# -------------------------------------------------------------------------------------------------- asyncio


def asyncio_programs() -> Programs:
    import asyncio

    def make() -> Any:
        return asyncio.Queue(1)

    async def together(coroutines: Any, operations: int) -> Sample:
        begun = perf_counter()
        await asyncio.gather(*coroutines)
        return perf_counter() - begun, operations

    async def ping_pong(size: int) -> Sample:
        async def ping() -> None:
            for _ in range(size // 2):
                await there.put(1)
                await back.get()

        async def pong() -> None:
            for _ in range(size // 2):
                await there.get()
                await back.put(1)

        there, back = make(), make()
        return await together((ping(), pong()), size)

    async def producer_consumer(size: int) -> Sample:
        async def produce() -> None:
            for number in range(size):
                await goods.put(number)

        async def consume() -> None:
            for _ in range(size):
                await goods.get()

        goods = make()
        return await together((produce(), consume()), size)

    async def yields(size: int, members: int) -> Sample:
        async def work() -> None:
            for _ in range(laps + 1):
                await asyncio.sleep(0)

        laps = max(1, size // members)
        tasks = [asyncio.create_task(work()) for _ in range(members)]
        await asyncio.sleep(0)
        return await together(tasks, laps * members)

    async def spawn(size: int) -> Sample:
        async def nothing() -> None:
            pass

        begun = perf_counter()
        for _ in range(max(1, size // BATCH)):
            await asyncio.gather(*[asyncio.create_task(nothing()) for _ in range(BATCH)])
        return perf_counter() - begun, max(1, size // BATCH) * BATCH

    async def ring(size: int) -> Sample:
        async def pass_on(inward: Any, outward: Any) -> None:
            for _ in range(laps):
                await outward.put(await inward.get())

        laps = max(1, size // RING)
        queues = [make() for _ in range(RING)]
        members = [asyncio.create_task(pass_on(queues[place - 1], queues[place])) for place in range(1, RING)]
        await asyncio.sleep(0)
        begun = perf_counter()
        for _ in range(laps):
            await queues[0].put(1)
            await queues[-1].get()
        seconds = perf_counter() - begun
        await asyncio.gather(*members)
        return seconds, laps * RING

    async def sieve(limit: int) -> Sample:
        async def count(out: Any) -> None:
            for number in range(2, limit):
                await out.put(number)
            await out.put(None)

        async def strain(prime: int, numbers: Any, out: Any) -> None:
            while (number := await numbers.get()) is not None:
                if number % prime:
                    await out.put(number)
            await out.put(None)

        begun = perf_counter()
        numbers = make()
        tasks = [asyncio.create_task(count(numbers))]
        while (prime := await numbers.get()) is not None:
            out = make()
            tasks.append(asyncio.create_task(strain(prime, numbers, out)))
            numbers = out
        return perf_counter() - begun, sieve_messages(limit)

    async def memory(size: int) -> Sample:
        never = make()
        gc.collect()
        before = resident_bytes()
        tasks = [asyncio.create_task(never.get()) for _ in range(size)]
        await asyncio.sleep(0)
        grown_by = resident_bytes() - before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return grown_by, size

    async def yields_2(size: int) -> Sample:
        return await yields(size, 2)

    async def yields_1000(size: int) -> Sample:
        return await yields(size, RING)

    def apart(program: Any) -> Callable[[int], Sample]:
        return lambda size: asyncio.run(program(size))

    programs = {
        "ping-pong": ping_pong,
        "producer-consumer": producer_consumer,
        "yield-2": yields_2,
        "yield-1000": yields_1000,
        "spawn": spawn,
        "ring": ring,
        "sieve": sieve,
        "memory": memory,
    }
    return {name: apart(program) for name, program in programs.items()}


# -------------------------------------------------------------------------------------------------- threads


def thread_programs() -> Programs:
    from queue import SimpleQueue
    from threading import Thread

    def together(functions: Any, operations: int) -> Sample:
        threads = [Thread(target=function) for function in functions]
        begun = perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return perf_counter() - begun, operations

    def ping_pong(size: int) -> Sample:
        def ping() -> None:
            for _ in range(size // 2):
                there.put(1)
                back.get()

        def pong() -> None:
            for _ in range(size // 2):
                there.get()
                back.put(1)

        there: SimpleQueue[int] = SimpleQueue()
        back: SimpleQueue[int] = SimpleQueue()
        return together((ping, pong), size)

    def producer_consumer(size: int) -> Sample:
        def produce() -> None:
            for number in range(size):
                goods.put(number)

        def consume() -> None:
            for _ in range(size):
                goods.get()

        goods: SimpleQueue[int] = SimpleQueue()
        return together((produce, consume), size)

    def spawn(size: int) -> Sample:
        def nothing() -> None:
            pass

        rounds = max(1, size // BATCH)
        return sum(together([nothing] * BATCH, 0)[0] for _ in range(rounds)), rounds * BATCH

    def memory(size: int) -> Sample:
        threads: list[Thread] = []

        def build() -> None:
            for _ in range(size):
                threads.append(Thread(target=never.get))
                threads[-1].start()

        never: SimpleQueue[int] = SimpleQueue()
        sample = grown(build, size)
        for _ in threads:
            never.put(1)
        for thread in threads:
            thread.join()
        return sample

    return {
        "ping-pong": ping_pong,
        "producer-consumer": producer_consumer,
        "spawn": spawn,
        "memory": memory,
    }


SYSTEMS: dict[str, Callable[[], Programs]] = {
    "greenlet": greenlet_programs,
    "compiled": lambda: tasklet_programs("compiled"),
    "pure": lambda: tasklet_programs("pure"),
    "gevent": gevent_programs,
    "asyncio": asyncio_programs,
    "goless": goless_programs,
    "threads": thread_programs,
}
