"""asyncio beside tasklets: values, failures and interruptions cross both ways, and no message is lost."""

# ruff: noqa: PT012  what raises is the end of a block, and a block has a body

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from tasklets import (
    ChannelClosed,
    TaskletError,
    TaskletExit,
    Timeout,
    aio,
    channel,
    getcurrent,
    nursery,
    run,
    schedule,
    sleep,
    tasklet,
    timeout,
)


@pytest.fixture
def portal() -> Iterator[aio.LoopThread]:
    with aio.portal() as opened:
        yield opened
    assert not [thread for thread in threading.enumerate() if thread.name == "asyncio beside tasklets"]


async def give(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def fail(error: BaseException) -> None:
    raise error


def test_the_example_of_the_module_runs() -> None:
    assert aio.__doc__ is not None
    example = textwrap.dedent(aio.__doc__.split("\n\n", 1)[1].split("Two threads:")[0])
    exec(compile(example, "the docstring of tasklets.aio", "exec"), {})


def test_importing_tasklets_loads_no_asyncio() -> None:
    code = "import sys, tasklets; print('asyncio' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "False"


# -- tasklets that use asyncio -------------------------------------------------------------------------------


def test_run_returns_what_the_coroutine_returns(portal: aio.Portal) -> None:
    assert portal.run(give(7)) == 7
    assert portal.run(give(None)) is None


def test_run_raises_what_the_coroutine_raises(portal: aio.Portal) -> None:
    error = KeyError("broken")
    with pytest.raises(KeyError) as caught:
        portal.run(fail(error))
    assert caught.value is error
    assert caught.traceback[-1].name == "fail"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_sys_exit_in_a_coroutine_reaches_the_tasklet_and_spares_the_loop(
    portal: aio.Portal, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught:
        portal.run(fail(error))
    assert caught.value is error
    assert portal.run(give(1)) == 1


def test_run_blocks_only_the_tasklet_that_calls_it(portal: aio.Portal) -> None:
    log: list[str] = []
    opened = threading.Event()

    async def wait() -> str:
        while not opened.is_set():
            await asyncio.sleep(0.001)
        return "waited"

    def other() -> None:
        log.append("other")
        opened.set()

    with nursery() as home:
        home.start(other)
        log.append(portal.run(wait()))
    assert log == ["other", "waited"]


def test_many_tasklets_wait_for_one_loop_at_a_time(portal: aio.Portal) -> None:
    async def meet(barrier: list[int]) -> None:
        barrier.append(1)
        while len(barrier) < 20:
            await asyncio.sleep(0)

    barrier: list[int] = []
    with nursery() as home:
        for _ in range(20):
            home.start(portal.run, meet(barrier))
    assert len(barrier) == 20


def test_run_of_the_scheduler_waits_for_coroutines(portal: aio.Portal) -> None:
    results: list[int] = []
    tasklet(lambda: results.append(portal.run(give(1))))()
    run()
    assert results == [1]


def test_a_gevent_greenlet_may_run_coroutines(portal: aio.Portal) -> None:
    assert gevent.spawn(portal.run, give(5)).get() == 5


class Patient:
    """A coroutine that waits for ever and tells how that ended."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.end: str | None = None

    async def wait(self) -> None:
        self.begun.set()
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)
            self.end = "cancelled"
            raise

    def kill_when_begun(self, one: tasklet) -> None:
        while not self.begun.is_set():
            sleep(0.001)
        one.kill(pending=True)


def run_out(limit: timeout, begun: threading.Event) -> None:
    """Let the time be over, as soon as a coroutine has begun."""
    while not begun.is_set():
        sleep(0.001)
    assert limit._cancel is not None
    limit._cancel()
    limit._expire()


def test_a_timeout_cancels_the_task_and_waits_for_its_end(portal: aio.Portal) -> None:
    patient = Patient()
    with nursery() as home, pytest.raises(Timeout), timeout(1000) as limit:
        home.start(run_out, limit, patient.begun)
        portal.run(patient.wait())
    assert patient.end == "cancelled"


def test_a_timeout_before_the_coroutine_begins_cancels_it_too(portal: aio.Portal) -> None:
    async def never() -> None:
        raise AssertionError

    held, released = threading.Event(), threading.Event()
    portal._to_asyncio(lambda: (held.set(), released.wait()))
    begun = threading.Event()
    begun.set()
    with nursery() as home:
        home.start(lambda: (schedule(), schedule(), released.set()))
        with pytest.raises(Timeout), timeout(1000) as limit:
            home.start(run_out, limit, begun)
            portal.run(never())


def test_a_kill_cancels_the_task_and_waits_for_its_end(portal: aio.Portal) -> None:
    patient = Patient()
    with nursery() as home:
        child = home.start(portal.run, patient.wait())
        patient.kill_when_begun(child)
        child.join()
        assert patient.end == "cancelled"


def test_a_gevent_kill_cancels_the_task(portal: aio.Portal) -> None:
    patient = Patient()
    greenlet = gevent.spawn(portal.run, patient.wait())
    while not patient.begun.is_set():
        sleep(0.001)
    greenlet.kill()
    assert patient.end == "cancelled"


def test_a_failure_while_being_cancelled_is_raised(portal: aio.Portal) -> None:
    begun = threading.Event()

    async def stubborn() -> None:
        begun.set()
        try:
            await asyncio.sleep(1000)
        finally:
            raise OSError("in finally")

    with nursery() as home, pytest.raises(OSError, match="in finally"), timeout(1000) as limit:
        home.start(run_out, limit, begun)
        portal.run(stubborn())


@pytest.mark.parametrize("waits_again", [True, False])
def test_a_result_that_comes_despite_the_timeout_counts_and_the_timeout_comes_next(
    portal: aio.Portal, waits_again: bool
) -> None:
    begun = threading.Event()

    async def late() -> str:
        begun.set()
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            pass
        return "late"

    results = []
    with nursery() as home:
        try:
            with timeout(1000) as limit:
                home.start(run_out, limit, begun)
                results.append(portal.run(late()))
                if waits_again:
                    schedule()
        except Timeout:
            results.append("timeout")
        schedule()
    assert results == (["late", "timeout"] if waits_again else ["late"])


def test_a_second_interruption_does_not_wait_for_the_cancelled_task(portal: aio.Portal) -> None:
    begun, released = threading.Event(), threading.Event()

    async def deaf() -> None:
        begun.set()
        while not released.is_set():
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                pass

    with nursery() as home:
        child = home.start(portal.run, deaf())
        while not begun.is_set():
            sleep(0.001)
        child.kill()
        assert not child.ended
        child.kill()
        assert child.ended
        released.set()


def test_a_coroutine_that_cancels_itself_is_an_error_that_says_so(portal: aio.Portal) -> None:
    with pytest.raises(TaskletError, match="fail was cancelled by asyncio"):
        portal.run(fail(asyncio.CancelledError()))


def test_a_coroutine_sees_the_context_of_its_tasklet(portal: aio.Portal) -> None:
    from contextvars import ContextVar

    request: ContextVar[str] = ContextVar("request", default="none")

    async def read() -> tuple[str, str]:
        return request.get(), await portal.call(request.get)

    def child() -> tuple[str, str]:
        request.set("r17")
        return portal.run(read())

    with nursery() as home:
        assert home.start(child).result() == ("r17", "r17")
    assert portal.run(read()) == ("none", "none")


# -- asyncio that uses channels ------------------------------------------------------------------------------


def test_coroutines_send_and_receive_in_order(portal: aio.Portal) -> None:
    async def double() -> None:
        async for number in portal.messages(numbers):
            await portal.send(doubled, 2 * number)
        doubled.close()

    numbers: channel = channel()
    doubled: channel = channel(2)
    with nursery() as home:
        home.start(lambda: (numbers.send_sequence(range(100)), numbers.close()))
        home.start(portal.run, double())
        assert list(doubled) == [2 * number for number in range(100)]


def test_send_to_a_rendezvous_waits_for_the_receiver(portal: aio.Portal) -> None:
    log: list[str] = []

    async def send() -> None:
        await portal.send(orders, 1)
        log.append("sent")

    orders: channel = channel()
    with nursery() as home:
        home.start(portal.run, send())
        while not orders.balance:
            sleep(0.001)
        log.append("receiving")
        orders.receive()
    assert log == ["receiving", "sent"]


def test_what_a_channel_raises_is_raised_in_the_coroutine(portal: aio.Portal) -> None:
    async def receive() -> Any:
        return await portal.receive(orders)

    orders: channel = channel(3)
    orders.send_exception(KeyError, "sent")
    with pytest.raises(KeyError, match="sent"):
        portal.run(receive())
    orders.close()
    with pytest.raises(ChannelClosed):
        portal.run(receive())


def test_call_runs_a_function_in_a_tasklet_of_its_own(portal: aio.Portal) -> None:
    async def ask() -> Any:
        return await portal.call(lambda *args, **kwargs: (sleep(0.001), args, kwargs, getcurrent()), 1, two=2)

    _, args, kwargs, one = portal.run(ask())
    assert (args, kwargs) == ((1,), {"two": 2})
    assert one is not getcurrent()
    assert one.name.startswith("asyncio task Task-")


def test_cancelling_withdraws_the_operation(portal: aio.Portal) -> None:
    async def give_up(wait: Callable[[], Any]) -> None:
        task = asyncio.create_task(wait())
        while not orders.balance:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    orders: channel = channel()
    portal.run(give_up(lambda: portal.receive(orders)))
    assert orders.balance == 0
    portal.run(give_up(lambda: portal.send(orders, 1)))
    assert orders.balance == 0


def test_cancelling_before_the_operation_begins_withdraws_it(portal: aio.Portal) -> None:
    async def give_up_at_once() -> None:
        task = asyncio.create_task(portal.receive(orders))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    orders: channel = channel()
    for _ in range(20):
        portal.run(give_up_at_once())
        assert orders.balance == 0


@pytest.mark.parametrize("room", [0, 1])
def test_a_message_taken_before_the_cancellation_is_delivered_and_that_comes_next(
    portal: aio.Portal, room: int
) -> None:
    standing, taken = threading.Event(), threading.Event()
    received: list[Any] = []

    async def consume() -> None:
        received.append(await portal.receive(orders))
        await asyncio.sleep(1000)
        received.append("never")

    async def cancel_too_late() -> None:
        task = asyncio.create_task(consume())
        while orders.balance != -1:
            await asyncio.sleep(0.001)
        standing.set()
        taken.wait()  # the loop stands still, so the message is under way, and nobody has seen it
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    def produce() -> None:
        while not standing.is_set():
            sleep(0.001)
        orders.send("precious")
        schedule()
        taken.set()

    orders: channel = channel(room)
    with nursery() as home:
        home.start(produce)
        portal.run(cancel_too_late())
    assert received == ["precious"]


def test_a_message_that_comes_with_the_end_of_an_asyncio_timeout_is_delivered_without_more(
    portal: aio.Portal,
) -> None:
    taken = threading.Event()

    async def consume() -> Any:
        async with asyncio.timeout(1000) as limit:
            asyncio.get_running_loop().call_soon(hold_up, limit)
            message = await portal.receive(orders)
        await asyncio.sleep(0.001)  # a cancellation left behind would come here
        return message

    def hold_up(limit: asyncio.Timeout) -> None:
        taken.wait()
        limit.reschedule(0)

    def produce() -> None:
        orders.send("precious")
        schedule()
        taken.set()

    orders: channel = channel()
    with nursery() as home:
        home.start(produce)
        assert portal.run(consume()) == "precious"


def test_no_message_is_lost_or_doubled_by_many_cancellations(portal: aio.Portal) -> None:
    async def consume_with_timeouts() -> list[int]:
        got: list[int] = []
        pause = 0.0
        while len(got) < 300:
            pause = (pause + 0.00003) % 0.0006
            try:
                got.append(await asyncio.wait_for(portal.receive(numbers), pause))
            except TimeoutError:
                pass
        return got

    def produce() -> None:
        for number in range(300):
            numbers.send(number)
            sleep(0.0002 * (number % 3))

    numbers: channel = channel()
    with nursery() as home:
        home.start(produce)
        assert portal.run(consume_with_timeouts()) == list(range(300))


def test_cancelling_a_call_ends_its_tasklet(portal: aio.Portal) -> None:
    ended: list[str] = []

    def work() -> None:
        try:
            channel(name="nothing").receive()
        finally:
            schedule()
            ended.append("tasklet")

    async def cancel() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(portal.call(work), 0.01)
        ended.append("coroutine")

    portal.run(cancel())
    assert ended == ["tasklet", "coroutine"]


@pytest.mark.parametrize("started", [False, True])
def test_a_coroutine_hears_when_its_tasklet_is_killed(portal: aio.Portal, started: bool) -> None:
    async def call() -> None:
        await portal.call(channel(name="nothing").receive)

    def kill() -> None:
        while not portal._home.children:
            sleep(0.0005)
        if started:
            schedule()
        portal._home.kill()

    with nursery() as home:
        home.start(kill)
        with pytest.raises(TaskletError, match="was killed"):
            portal.run(call())


def test_taskletexit_raised_by_a_function_does_not_end_the_loop(portal: aio.Portal) -> None:
    def leave() -> None:
        raise TaskletExit

    async def call() -> None:
        await portal.call(leave)

    with pytest.raises(TaskletError, match="was killed"):
        portal.run(call())
    assert portal.run(give(2)) == 2


# -- the portal's own life -----------------------------------------------------------------------------------


def test_leaving_the_block_cancels_what_still_runs_and_waits_for_it() -> None:
    patient = Patient()

    async def leave_behind() -> None:
        tasks.append(asyncio.create_task(patient.wait()))
        tasks.append(asyncio.create_task(portal.receive(orders)))
        while not (patient.begun.is_set() and orders.balance):
            await asyncio.sleep(0.001)

    tasks: list[asyncio.Task[Any]] = []
    orders: channel = channel()
    with aio.portal() as portal:
        portal.run(leave_behind())
    assert patient.end == "cancelled"
    assert all(task.cancelled() for task in tasks)
    assert orders.balance == 0


def test_the_failure_of_the_block_is_raised_when_the_thread_has_ended() -> None:
    with pytest.raises(ValueError, match="mine"), aio.portal() as portal:
        portal.run(give(1))
        raise ValueError("mine")
    assert not portal._thread.is_alive()


def test_tasklets_that_wait_when_the_portal_closes_hear_of_it() -> None:
    patient = Patient()
    with nursery() as home:
        with aio.portal() as portal:
            child = home.start(pytest.raises, TaskletError, portal.run, patient.wait())
            while not patient.begun.is_set():
                sleep(0.001)
        assert "was cancelled by asyncio" in str(child.result())


def test_a_kill_while_the_block_is_ending_waits_for_the_thread() -> None:
    patient = Patient()

    async def leave_behind() -> None:
        task = asyncio.create_task(patient.wait())
        await asyncio.sleep(0.001)
        assert not task.done()

    def owner() -> None:
        with aio.portal() as portal:
            portals.append(portal)
            portal.run(leave_behind())

    portals: list[aio.LoopThread] = []
    with nursery() as home:
        child = home.start(owner)
        while not (portals and patient.begun.is_set() and not portals[0]._is_open):
            schedule()
        child.kill()
        child.join()
        assert patient.end == "cancelled"
        assert not portals[0]._thread.is_alive()


def test_wrong_calls_show_the_right_one() -> None:
    async def inside() -> None:
        with pytest.raises(TaskletError, match="await the other one"):
            portal.run(give(1))

    async def elsewhere() -> None:
        with pytest.raises(TaskletError, match="coroutines of its own loop"):
            await portal.receive(channel())

    with aio.portal() as portal:
        with pytest.raises(TypeError, match=r"portal.run\(fetch\(url\)\)     # right"):
            portal.run(give)  # type: ignore[arg-type]
        portal.run(inside())
        asyncio.run(elsewhere())
    with pytest.raises(TaskletError, match="inside its block"):
        portal.run(give(1))
    asyncio.run(elsewhere())


def test_nothing_is_left_of_a_portal() -> None:
    class Value:
        pass

    def use() -> list[weakref.ref[Any]]:
        async def echo(value: Value) -> None:
            await portal.send(mailbox, value)

        value = Value()
        mailbox: channel = channel(1)
        with aio.portal() as portal:
            portal.run(echo(value))
            assert mailbox.receive() is value
        return [weakref.ref(value), weakref.ref(portal), weakref.ref(portal._loop)]

    gone = use()
    gc.collect()
    assert [each() for each in gone] == [None, None, None]


# -- tasklets beside asyncio's main thread -------------------------------------------------------------------


def in_asyncio(main: Callable[[aio.TaskletThread], Any]) -> Any:
    async def whole() -> Any:
        async with aio.serve_tasklets() as portal:
            return await main(portal)

    return asyncio.run(whole())


def test_tasklets_run_in_a_thread_beside_a_running_loop() -> None:
    async def main(portal: aio.TaskletThread) -> list[Any]:
        def keep_house() -> int:
            with nursery() as home:
                home.start(lambda: numbers.send_sequence(range(5)))
                home.start(portal.run, give(None))
            numbers.close()
            return threading.get_ident()

        numbers: channel = channel()
        keeper = asyncio.create_task(portal.call(keep_house))
        got = [number async for number in portal.messages(numbers)]
        return [got, await keeper != threading.get_ident()]

    assert in_asyncio(main) == [[0, 1, 2, 3, 4], True]
    assert not [thread for thread in threading.enumerate() if thread.name == "tasklets beside asyncio"]


def test_a_web_handler_may_be_cancelled_while_it_waits_for_a_tasklet() -> None:
    async def main(portal: aio.TaskletThread) -> Any:
        orders: channel = channel()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(portal.receive(orders), 0.005)
        sender = asyncio.create_task(portal.send(orders, 1))
        return await portal.receive(orders), await sender

    assert in_asyncio(main) == (1, None)


def test_start_and_stop_do_without_a_block() -> None:
    async def cells() -> Any:
        portal = await aio.serve_tasklets().start()
        waiting = asyncio.create_task(portal.call(sleep, 1000))
        answer = await portal.call(pow, 2, 5)
        await portal.stop()
        with pytest.raises(TaskletError, match="was killed"):
            await waiting
        return answer

    assert asyncio.run(cells()) == 32


def test_a_failure_that_nobody_waits_for_ends_the_thread_and_is_raised_at_the_end() -> None:
    async def main(portal: aio.TaskletThread) -> None:
        def careless() -> None:
            tasklet(lambda: {}["nobody waits"])()
            sleep(1000)

        with pytest.raises(TaskletError):
            await portal.call(careless)
        while portal._is_open:
            await asyncio.sleep(0.001)
        with pytest.raises(TaskletError):
            await portal.call(pow, 2, 5)

    with pytest.raises(KeyError, match="nobody waits"):
        in_asyncio(main)
