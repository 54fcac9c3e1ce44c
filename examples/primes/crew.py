"""The workers as the master sees them, and the tasklets that carry between it and them.

    register   receives the Join of each worker
    feed       one for each worker: hands over the chunks that lead put into the worker's box
    collect    one for each worker: takes the results from it
    watch      one for each worker that was spawned: waits for its end

Feed and collect talk over channels that live at the worker, so they are the ones that notice when it dies. What
they see they report over one channel, to lead (search.py), who decides. Nothing here depends on where workers are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from examples.primes.messages import Chunk, Join, Leave, Progress, Result
from net import PeerLost, Spawned
from tasklets import ChannelClosed, channel, tasklet

# One chunk in work, and one that waits at the worker's door, so that the worker need not wait for the next
# one while a message goes to the master and back: 1 to 2 ms of 60 on two busy cores.
SLOTS = 2


@dataclass(eq=False, slots=True)
class Worker:
    """A worker as lead sees it."""

    name: str
    box: channel = field(default_factory=lambda: channel(SLOTS))  # chunks, from lead to feed
    hand: dict[int, Chunk] = field(default_factory=dict)  # index -> what it was given and has not answered
    silent: bool = False  # its lease ran out, and it has not been heard since


@dataclass(frozen=True, slots=True)
class Joined:
    """A worker offers itself."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class Found:
    """A worker has finished a chunk."""

    worker: Worker
    result: Result


@dataclass(frozen=True, slots=True)
class Lives:
    """A worker says that it is computing."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class Leaves:
    """A worker wants no more chunks."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class Gone:
    """A worker has ended, or was lost: what it had in hand is to be done by others."""

    worker: Worker
    lost: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """A tasklet that was spawned as a worker has ended."""

    name: str
    error: Exception | None


Report = Joined | Found | Lives | Leaves | Gone | Ended


class Crew:
    """The carriers of one search; each is a tasklet, ended by `close`."""

    def __init__(self) -> None:
        self.reports = channel(name="reports")
        self._tasklets: list[tasklet] = []

    def start(self, func: Callable[..., None], *args: Any) -> None:
        """Start a tasklet that ends with the search."""
        self._tasklets = [one for one in self._tasklets if one.alive]
        self._tasklets.append(tasklet(func)(*args))

    def close(self) -> None:
        """End all tasklets."""
        for one in self._tasklets:
            one.kill()

    def register(self, joins: channel) -> None:
        """Take in workers for ever."""
        for join in joins:
            if isinstance(join, Join) and isinstance(join.name, str):
                worker = Worker(f"{join.name} (process {join.pid})")
                self.start(self._feed, join, worker)
                self.start(self._collect, join, worker)
                self.reports.send(Joined(worker))

    def watch(self, name: str, spawned: Spawned) -> None:
        """Wait for the end of a worker that was spawned."""
        error = None
        try:
            spawned.join()
        except Exception as failed:  # noqa: BLE001 - reported to lead, which decides
            error = failed
        self.reports.send(Ended(name, error))

    def _feed(self, join: Join, worker: Worker) -> None:
        try:
            for chunk in worker.box:
                join.chunks.send(chunk)
            join.chunks.close()  # tells the worker to stop
        except ChannelClosed:
            pass  # it would not be told to stop; collect hears what becomes of it
        except PeerLost:
            self.reports.send(Gone(worker, lost=True))

    def _collect(self, join: Join, worker: Worker) -> None:
        try:
            for said in join.results:
                match said:
                    case Result():
                        self.reports.send(Found(worker, said))
                    case Progress():
                        self.reports.send(Lives(worker))
                    case Leave():
                        self.reports.send(Leaves(worker))
            self.reports.send(Gone(worker, lost=False))
        except PeerLost:
            self.reports.send(Gone(worker, lost=True))
