"""Crews: the nodes of a place, and whatever runs functions elsewhere and gives futures for them."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event as Flag

from cluster import codecs
from cluster._failures import described
from cluster.context import Context
from cluster.directives import chunks
from cluster.directives.driver import Done, Failed, Lost
from cluster.errors import WorkerLost
from net import PeerLost, open_place
from tasklets import ChannelClosed, Timeout, channel, select, sleep, tasklet

if TYPE_CHECKING:
    from concurrent.futures import Future

    from net import Place, Spawned

MAX_ROW_BYTES = 16 << 20  # of results in one message
AT_A_TIME = 2  # chunks that one worker has: one is run, one waits at its door
LOOK_SECONDS = 1.0  # a longer wait is made of such ones, so it is never taken for a deadlock


def work_on(number: int, chunk: bytes, pause: Callable[[float], object] = time.sleep) -> tuple[Any, ...]:
    """Do a chunk where we are; return what came of it as plain values.

    Raises KeyboardInterrupt, TaskletExit and the like only.
    """
    begun = time.perf_counter()
    try:
        program, inputs = chunks.unpack(codecs.decode(chunk))
        around = chunks.Surroundings(
            Context.local(),
            may_import=True,
            interruptible=True,
            max_bytes=MAX_ROW_BYTES,
            sleep=pause,
        )
        made = chunks.run_chunk(program, inputs, around)
        rows = tuple(tuple(row) for row in made.rows)
        part = tuple(codecs.encode(one) for one in made.part)
    except chunks.InputFailed as failed:
        return ("failed", number, _plain(failed.details))
    except Exception as error:  # noqa: BLE001  an unknown operation, a part that cannot travel: the chunk's failure
        return ("failed", number, _plain(described(error, None)))
    return ("done", number, rows, part, time.perf_counter() - begun)


def _plain(details: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in details.items() if isinstance(value, str | int)}


def _event(told: tuple[Any, ...]) -> Done | Failed:
    return Failed(told[1], dict(told[2])) if told[0] == "failed" else Done(*told[1:])


# ------------------------------------------------------------------------------------------------ the nodes of a place


def serve(given: channel, told: channel) -> None:
    """A worker of a place: do one chunk after the other until there are no more. Blocks."""
    for number, chunk in given:
        told.send(work_on(number, chunk, sleep))
        sleep(0)  # others of this process: its connection above all


@dataclass(eq=False, slots=True)
class _Worker:
    given: channel
    spawned: Spawned | None = None
    has: dict[int, None] = field(default_factory=dict)  # numbers of the chunks, in order
    gone: bool = False


class PlaceCrew:
    """One worker on each node of a place. A place that was given as text is opened for this, and closed with it."""

    def __init__(self, place: Place | str) -> None:
        self._own = isinstance(place, str)
        self._place: Place = open_place(place) if isinstance(place, str) else place
        count = max(1, len(self._place.nodes))
        self._told: channel = self._place.channel(AT_A_TIME * count, "results of a directive")
        self._gone = channel(count, "workers of a directive that are gone")
        self._closed = False
        self._workers: list[_Worker] = []
        try:
            for _ in range(count):
                worker = _Worker(self._place.channel(AT_A_TIME, "chunks of a directive"))
                worker.spawned = self._place.spawn(serve, worker.given, self._told)
                self._workers.append(worker)
                tasklet(self._watch)(worker)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        return sum(not worker.gone for worker in self._workers)

    @property
    def room(self) -> int:
        return sum(AT_A_TIME - len(worker.has) for worker in self._workers if not worker.gone)

    def give(self, number: int, chunk: bytes) -> None:
        worker = min((one for one in self._workers if not one.gone), key=lambda one: len(one.has))
        worker.has[number] = None
        worker.given.send((number, chunk))

    def wait(self, timeout: float | None) -> Done | Failed | Lost | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LOOK_SECONDS if deadline is None else min(LOOK_SECONDS, deadline - time.monotonic())
            try:
                which, what = select([self._told, self._gone], timeout=max(0.0, left))
            except Timeout:
                if deadline is not None and time.monotonic() >= deadline:
                    return None
                continue
            if which == 1:
                worker, reason = what
                worker.gone = True
                return Lost(tuple(worker.has), reason)
            event = _event(what)
            for worker in self._workers:
                if event.number in worker.has:
                    del worker.has[event.number]
                    return event
            # of a worker that was given up, whose chunk somebody else has by now

    def _watch(self, worker: _Worker) -> None:
        assert worker.spawned is not None
        try:
            worker.spawned.join()
            reason = "it has ended"
        except (PeerLost, ChannelClosed) as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001  it could not begin; whoever waits is told
            reason = f"{type(error).__name__}: {error}"
        if not self._closed:
            self._gone.send((worker, reason))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for worker in self._workers:
            worker.given.close()
            if worker.spawned is not None:
                worker.spawned.kill()
        if self._own:
            self._place.close()


# ------------------------------------------------------------------------------------------------ futures


class FuturesCrew:
    """Whatever runs functions elsewhere: `submit(function, *args)` gives a `concurrent.futures.Future`."""

    def __init__(self, submit: Callable[..., Future[Any]], size: int) -> None:
        self._size = size
        self._submit = submit
        self._out: dict[int, Future[Any]] = {}
        self._ended: deque[int] = deque()  # filled by threads of others, which then ring
        self._flag = Flag()
        self._bell = gevent.get_hub().loop.async_()  # the one thing of a loop that another thread may touch
        self._bell.start(self._flag.set)

    @property
    def size(self) -> int:
        return self._size

    @property
    def room(self) -> int:
        return AT_A_TIME * self.size - len(self._out)

    def give(self, number: int, chunk: bytes) -> None:
        try:
            future = self._submit(work_on, number, chunk)
        except RuntimeError as error:  # it is broken, or shut down
            raise WorkerLost(f"the pool takes no more work: {error}") from error
        self._out[number] = future
        future.add_done_callback(functools.partial(self._tell, number))

    def _tell(self, number: int, _: object) -> None:
        self._ended.append(number)
        self._bell.send()

    def wait(self, timeout: float | None) -> Done | Failed | Lost | None:
        while not self._ended:
            self._flag.clear()
            if not self._ended and not self._flag.wait(timeout):
                return None
        number = self._ended.popleft()
        try:
            return _event(self._out.pop(number).result())
        except Exception as error:  # noqa: BLE001  its worker died, or its pool
            return Lost((number,), f"{type(error).__name__}: {error}")

    def close(self) -> None:
        out, self._out = self._out, {}
        for future in out.values():
            future.cancel()
        self._bell.stop()


def dask_crew(client: Any) -> FuturesCrew:
    """A crew of the threads of a Dask cluster's workers, which have to be able to import the operations' modules."""
    threads = sum(client.nthreads().values())
    if not threads:
        raise WorkerLost(f"the Dask cluster of {client!r} has no workers")
    return FuturesCrew(client.get_executor(pure=False).submit, threads)


def ray_crew(ray: Any) -> FuturesCrew:
    """A crew of the processors of a Ray cluster that `ray.init` connected to."""
    remote = ray.remote(work_on)
    cores = int(ray.cluster_resources().get("CPU", 1))
    return FuturesCrew(lambda _, number, chunk: remote.remote(number, chunk).future(), cores)
