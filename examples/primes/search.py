"""The master: hands out chunks, puts the results in order, and copes with workers that die.

    with open_place("processes:4") as place:
        for answer in find_primes(place, 1, 2_000_000):
            print(*answer.primes, sep="\\n")

One tasklet decides, the others only carry:

    register   receives the Join of each worker
    feed       one for each worker: hands over the chunks that lead put into the worker's box
    collect    one for each worker: takes the results from it
    watch      one for each worker: waits for its end
    lead       owns the backlog and gives each worker its chunks. It waits for whichever comes first: a
               report of the others, the reader who takes the next answer, or the end of a lease

Feed and collect talk over channels that live at the worker, so they are the ones that notice when it dies.
Nothing here depends on where the workers are.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from examples.primes.arithmetic import partition, suitable_chunk
from examples.primes.backlog import Answer, Backlog
from examples.primes.messages import Chunk, Join, Result
from examples.primes.worker import work
from net import PeerLost, Place, Spawned
from tasklets import TaskletError, Timeout, channel, select, tasklet

# One chunk in work, and one that waits at the worker's door, so that the worker need not wait for the next
# one while a message goes to the master and back: 1 to 2 ms of 60 on two busy cores.
SLOTS = 2

# The last chunks wait at nobody's door, because they would wait there while another worker is idle.
FREE_CHUNKS_PER_WORKER = 4

# So many chunks may be on their way for each worker. Two would do while chunks take equally long; the rest
# keeps the others at work while a lost chunk, which all later answers wait for, is done again.
WINDOW_PER_WORKER = 8

# A worker that is silent for longer is taken to hang. Chunks are made to take 0.1 s.
LEASE_SECONDS = 60.0

# Workers may take so long to leave when the work is done. The place ends those that do not.
PARTING_SECONDS = 2.0


class WorkersLost(TaskletError):
    """Every worker died before the search was finished."""


def find_primes(
    place: Place,
    lo: int,
    hi: int,
    *,
    chunk: int | None = None,
    window: int | None = None,
    ordered: bool = True,
    lease: float = LEASE_SECONDS,
    notice: Callable[[str], None] = lambda text: None,
) -> Iterator[Answer]:
    """Search `[lo, hi)` with a worker on each node of `place`; yield each chunk's answer when it may leave.
    Blocks.

    The answers come in rising order, or in the order in which they were found with `ordered=False`. No more
    than `window` chunks are under way or waiting to be read. The chunks of a worker that dies, or is silent
    for longer than `lease` seconds, are done again by another; `notice` is told so in words. When the last
    answer was read, the workers have been told to stop.

    Raises ValueError for a range, chunk or window that makes no sense, before anything is started;
    WorkersLost when no worker is left; RemoteError when the code of a worker failed.
    """
    pieces = partition(lo, hi, suitable_chunk(lo, hi) if chunk is None else chunk)
    room = WINDOW_PER_WORKER * place.size if window is None else window
    backlog = Backlog(pieces, window=room, ordered=ordered, lease=lease)
    return _Master(place, backlog, notice).answers()


@dataclass(eq=False, slots=True)
class _Worker:
    """A worker as lead sees it."""

    name: str
    box: channel = field(default_factory=lambda: channel(SLOTS))  # chunks, from lead to feed
    hand: dict[int, Chunk] = field(default_factory=dict)  # index -> what it was given and has not answered
    silent: bool = False  # its lease ran out, and it has not answered since


@dataclass(frozen=True, slots=True)
class _Joined:
    worker: _Worker


@dataclass(frozen=True, slots=True)
class _Found:
    worker: _Worker
    result: Result


@dataclass(frozen=True, slots=True)
class _Lost:
    worker: _Worker


@dataclass(frozen=True, slots=True)
class _Ended:
    name: str
    error: Exception | None


class _Master:
    """The tasklets of one search and the channels between them."""

    def __init__(self, place: Place, backlog: Backlog, notice: Callable[[str], None]) -> None:
        self._place = place
        self._backlog = backlog
        self._notice = notice
        self._reports = channel(name="reports")  # to lead
        self._answers = channel(name="answers")  # from lead to the reader
        self._workers: list[_Worker] = []  # that joined and were not lost
        self._spawned = 0  # whose end was not reported
        self._failure: Exception | None = None
        self._tasklets: list[tasklet] = []

    def answers(self) -> Iterator[Answer]:
        joins = self._place.channel(name="joins")
        try:
            for number in range(1, self._place.size + 1):
                name = f"worker {number}"
                self._start(self._watch, name, self._place.spawn(work, joins, name))
                self._spawned += 1
            self._start(self._register, joins)
            self._start(self._lead)
            yield from self._answers
            if self._failure is not None:
                raise self._failure
        finally:
            for one in self._tasklets:
                one.kill()

    def _start(self, func: Callable[..., None], *args: Any) -> None:
        self._tasklets.append(tasklet(func)(*args))

    # -- those that carry ------------------------------------------------------------------------------------

    def _register(self, joins: channel) -> None:
        for join in joins:
            worker = _Worker(f"{join.name} (process {join.pid})")
            self._start(self._feed, join, worker)
            self._start(self._collect, join, worker)
            self._reports.send(_Joined(worker))

    def _feed(self, join: Join, worker: _Worker) -> None:
        try:
            for chunk in worker.box:
                join.chunks.send(chunk)
            join.chunks.close()  # tells the worker to stop
        except PeerLost:
            self._reports.send(_Lost(worker))

    def _collect(self, join: Join, worker: _Worker) -> None:
        try:
            for result in join.results:
                self._reports.send(_Found(worker, result))
        except PeerLost:
            self._reports.send(_Lost(worker))

    def _watch(self, name: str, spawned: Spawned) -> None:
        error = None
        try:
            spawned.join()
        except Exception as failed:  # noqa: BLE001 - reported to lead, which decides
            error = failed
        self._reports.send(_Ended(name, error))

    # -- the one that decides --------------------------------------------------------------------------------

    def _lead(self) -> None:
        try:
            while not self._backlog.finished():
                self._assign()
                self._wait()
            self._part()
        except Exception as failed:  # noqa: BLE001 - raised by answers(), at the reader
            self._failure = failed
        self._answers.close()

    def _assign(self) -> None:
        """Give chunks to workers that have room, the least busy first. Never blocks: a box holds SLOTS."""
        while (worker := self._choose()) and (chunk := self._backlog.next_chunk() or self._take_back(worker)):
            self._backlog.hand_out(chunk, monotonic())
            worker.hand[chunk.index] = chunk
            worker.box.send(chunk)

    def _choose(self) -> _Worker | None:
        plenty = self._backlog.has_more_than(FREE_CHUNKS_PER_WORKER * len(self._workers))
        room = SLOTS if plenty else 1
        able = [worker for worker in self._workers if len(worker.hand) < room and not worker.silent]
        return min(able, key=lambda worker: len(worker.hand), default=None)

    def _take_back(self, idle: _Worker) -> Chunk | None:
        """Return a chunk for a worker with nothing to do when all are given out: one that waits at a door.

        Its worker may begin it all the same; that costs nobody time, as nothing else is left to do.
        """
        if not idle.hand and not self._backlog.has_more_than(0):
            for busy in self._workers:
                if len(busy.hand) > 1 and self._backlog.give_back(busy.hand.popitem()[1]):
                    return self._backlog.next_chunk()
        return None

    def _wait(self) -> None:
        """Let one thing happen: a report, an answer taken by the reader, or the end of a lease. Blocks."""
        cases: list[Any] = [self._reports]
        if (answer := self._backlog.next_answer()) is not None:
            cases.append((self._answers, answer))
        deadline = self._backlog.next_deadline()
        try:
            index, report = select(
                cases, timeout=None if deadline is None else max(0.0, deadline - monotonic())
            )
        except Timeout:
            self._take_overdue()
            return
        if index == 0:
            self._hear(report)
        else:
            self._backlog.emit()

    def _hear(self, report: _Joined | _Found | _Lost | _Ended) -> None:
        match report:
            case _Joined(worker):
                self._workers.append(worker)
            case _Found(worker, result):
                worker.silent = False
                worker.hand.pop(result.index, None)
                self._backlog.record(result, worker.name)
                for chunk in worker.hand.values():
                    self._backlog.renew(chunk, monotonic())
            case _Lost(worker):
                self._lose(worker)
            case _Ended(name, error):
                self._spawned -= 1
                self._consider_end(name, error)

    def _lose(self, worker: _Worker) -> None:
        """Take back what a dead worker had in hand. It is reported twice, and nothing is left for the second."""
        if worker in self._workers:
            self._workers.remove(worker)
            again = [chunk for chunk in worker.hand.values() if self._backlog.give_back(chunk)]
            self._notice(f"{worker.name} was lost; {_words(again)} done again")

    def _take_overdue(self) -> None:
        late = self._backlog.take_overdue(monotonic())
        for worker in self._workers:
            again = [chunk for chunk in late if worker.hand.get(chunk.index) == chunk]
            if again:
                worker.silent = True
                self._notice(f"{worker.name} has been silent for too long; {_words(again)} done again")

    def _consider_end(self, name: str, error: Exception | None) -> None:
        """Raise when the search cannot go on without the worker that ended."""
        if error is not None and not isinstance(error, PeerLost):
            raise error
        if not self._spawned and not self._backlog.complete():
            raise WorkersLost(
                f"every worker was lost, {name} as the last of {self._place.size}, before the end of the range; "
                "start the search again, with --on naming nodes that are up"
            )

    def _part(self) -> None:
        """Tell the workers to stop, and wait until they have; but not for one that hangs. Blocks."""
        for worker in self._workers:
            worker.box.close()
        deadline = monotonic() + PARTING_SECONDS
        with suppress(Timeout):
            while self._spawned:
                _, report = select([self._reports], timeout=max(0.0, deadline - monotonic()))
                match report:
                    case _Joined(worker):  # it came too late to be given work
                        worker.box.close()
                    case _Ended():
                        self._spawned -= 1


def _words(chunks: list[Chunk]) -> str:
    if not chunks:
        return "no chunk has to be"
    return " and ".join(f"[{chunk.lo}, {chunk.hi})" for chunk in chunks) + (
        " is" if len(chunks) == 1 else " are"
    )
