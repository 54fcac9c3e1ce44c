"""The master: hands out chunks, puts the results in order, and copes with workers that come, go and die.

    with open_place("processes:4") as place:
        for answer in find_primes(place, 1, 2_000_000):
            print(*answer.primes, sep="\\n")

One tasklet decides, the others only carry (crew.py). `lead` owns the backlog and gives each worker its chunks. It
waits for whichever comes first: a report of the others, the reader who takes the next answer, or the end of a lease.
Nothing here depends on where the workers are.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import Any

from examples.primes.algorithms import COSTS
from examples.primes.backlog import Answer, Backlog
from examples.primes.crew import SLOTS, Crew, Ended, Found, Gone, Joined, Leaves, Lives, Report, Worker
from examples.primes.guide import FixedSize, Guide
from examples.primes.messages import Chunk, Result
from examples.primes.spot_check import find_error
from examples.primes.worker import work
from net import PeerLost, Place
from tasklets import TaskletError, Timeout, channel, select
from tasklets.clock import monotonic

# The last chunks wait at nobody's door, because they would wait there while another worker is idle.
FREE_CHUNKS_PER_WORKER = 4

# So many chunks may be on their way for each worker. Two would do while chunks take equally long; the rest
# keeps the others at work while a lost chunk, which all later answers wait for, is done again.
WINDOW_PER_WORKER = 8

# A worker that is silent for longer is taken to hang. One that computes says twice a second that it lives.
LEASE_SECONDS = 5.0

# Workers may take so long to leave when the work is done. The place ends those that do not.
PARTING_SECONDS = 2.0


class WorkersLost(TaskletError):
    """Every worker died before the search was finished."""


def find_primes(
    place: Place,
    lo: int,
    hi: int,
    *,
    algorithm: str = "trial",
    chunk: int | None = None,
    window: int | None = None,
    ordered: bool = True,
    lease: float = LEASE_SECONDS,
    check: float = 0.0,
    joins: channel | None = None,
    notice: Callable[[str], None] = lambda text: None,
) -> Iterator[Answer]:
    """Search `[lo, hi)` with a worker on each node of `place`; yield each chunk's answer when it may leave.
    Blocks.

    The answers come in rising order, or in the order in which they were found with `ordered=False`. No more
    than `window` chunks are under way or waiting to be read. Without `chunk` the chunks are as large as is good.
    The chunks of a worker that dies, leaves, or is silent for longer than `lease` seconds, are done again by another;
    `notice` is told so in words. `check` percent of the numbers are tested by another method; a worker that is wrong
    gets no more work. More workers may join over `joins` at any time, and without any the search waits for one. When
    the last answer was read, the workers have been told to stop.

    Raises ValueError for a range, chunk or window that makes no sense, before anything is started;
    WorkersLost when no worker is left and none can join; RemoteError when the code of a worker failed.
    """
    guide = make_guide(lo, hi, chunk, place.size, algorithm)
    room = WINDOW_PER_WORKER * max(1, place.size) if window is None else window
    backlog = Backlog(guide.pieces(), window=room, ordered=ordered, lease=lease, algorithm=algorithm)
    return _Master(place, backlog, guide, joins, check, window is None, notice).answers()


def make_guide(lo: int, hi: int, chunk: int | None, workers: int, algorithm: str) -> Guide:
    """Choose how the range is cut. Raises ValueError for a range or chunk that makes no sense."""
    if chunk is not None or hi < lo:
        return FixedSize(lo, hi, 1 if chunk is None else chunk, workers=workers)
    return Guide(lo, hi, workers=workers, cost=COSTS[algorithm])


class _Master:
    """The tasklets of one search and the channels between them."""

    def __init__(
        self,
        place: Place,
        backlog: Backlog,
        guide: Guide,
        joins: channel | None,
        check: float,
        may_widen: bool,
        notice: Callable[[str], None],
    ) -> None:
        self._place = place
        self._backlog = backlog
        self._guide = guide
        self._open_joins = joins  # over which anybody may join
        self._check = check
        self._may_widen = may_widen  # the window, as workers join
        self._notice = notice
        self._crew = Crew()
        self._answers = channel(name="answers")  # from lead to the reader
        self._workers: list[Worker] = []  # that joined and neither left nor were lost
        self._spawned = 0  # whose end was not reported
        self._failure: Exception | None = None
        self._dice = Random(13)  # what is checked; the same in each run

    def answers(self) -> Iterator[Answer]:
        joins = self._place.channel(name="joins")
        try:
            for number in range(1, self._place.size + 1):
                name = f"worker {number}"
                self._crew.start(self._crew.watch, name, self._place.spawn(work, joins, name))
                self._spawned += 1
            self._crew.start(self._crew.register, joins)
            if self._open_joins is not None:
                self._crew.start(self._crew.register, self._open_joins)
            self._crew.start(self._lead)
            yield from self._answers
            if self._failure is not None:
                raise self._failure
        finally:
            self._crew.close()

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

    def _choose(self) -> Worker | None:
        plenty = self._backlog.has_more_than(FREE_CHUNKS_PER_WORKER * len(self._workers))
        room = SLOTS if plenty else 1
        able = [worker for worker in self._workers if len(worker.hand) < room and not worker.silent]
        return min(able, key=lambda worker: len(worker.hand), default=None)

    def _take_back(self, idle: Worker) -> Chunk | None:
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
        cases: list[Any] = [self._crew.reports]
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

    def _hear(self, report: Report) -> None:
        match report:
            case Joined(worker):
                self._workers.append(worker)
                self._count_workers()
                if self._open_joins is not None:
                    self._notice(f"{worker.name} has joined")
            case Found(worker, result):
                self._take_in(worker, result)
            case Lives(worker):
                self._hear_from(worker)
            case Leaves(worker):
                worker.box.close()
                self._lose(worker, "leaves")
            case Gone(worker, lost):
                self._lose(worker, "was lost" if lost else "has ended")
            case Ended(name, error):
                self._spawned -= 1
                self._consider_end(name, error)

    def _take_in(self, worker: Worker, result: Result) -> None:
        chunk = self._backlog.awaited(result)
        worker.hand.pop(result.index, None)
        if chunk is not None and worker in self._workers:
            if self._check and (
                error := find_error(chunk.lo, chunk.hi, result.primes, self._check, self._dice)
            ):
                worker.hand[chunk.index] = chunk  # to be done again with whatever else it has
                worker.box.close()
                self._lose(worker, f"is not to be trusted, {error}, and gets no more work")
                return
            self._backlog.record(result, worker.name, monotonic())
            self._guide.learn(chunk.lo, chunk.hi, result.seconds)
        self._hear_from(worker)

    def _hear_from(self, worker: Worker) -> None:
        """Note that a worker lives: the leases of what it has in hand begin anew."""
        if worker.silent and worker in self._workers:
            worker.silent = False
            self._notice(f"{worker.name} is back")
        for chunk in worker.hand.values():
            self._backlog.renew(chunk, monotonic())

    def _lose(self, worker: Worker, how: str) -> None:
        """Take back what a worker had in hand. It may be reported twice, and nothing is left for the second."""
        if worker in self._workers:
            self._workers.remove(worker)
            self._count_workers()
            again = [chunk for chunk in worker.hand.values() if self._backlog.give_back(chunk)]
            self._notice(f"{worker.name} {how}; {_words(again)} done again")
            self._consider_loss(worker.name.partition(" (")[0])

    def _count_workers(self) -> None:
        self._guide.workers = max(1, len(self._workers))
        if self._may_widen:
            self._backlog.window = max(self._backlog.window, WINDOW_PER_WORKER * len(self._workers))

    def _take_overdue(self) -> None:
        late = self._backlog.take_overdue(monotonic())
        for worker in self._workers:
            again = [chunk for chunk in late if worker.hand.get(chunk.index) == chunk]
            if again:
                worker.silent = True
                self._notice(f"{worker.name} has been silent for too long; {_words(again)} done again")

    def _consider_end(self, name: str, error: Exception | None) -> None:
        """Raise when a worker has failed, or nobody is left to go on."""
        if error is not None and not isinstance(error, PeerLost):
            raise error
        self._consider_loss(name)

    def _consider_loss(self, name: str) -> None:
        if self._workers or self._spawned or self._backlog.complete():
            return
        if self._open_joins is None:
            raise WorkersLost(
                f"every worker was lost, {name} as the last of {self._place.size}, before the end of the range; "
                "start the search again, with --on naming nodes that are up"
            )
        self._notice("no worker is left; waiting for one to join")

    def _part(self) -> None:
        """Tell the workers to stop, and wait until they have; but not for one that hangs. Blocks."""
        waiting = set(self._workers)
        for worker in waiting:
            worker.box.close()
        deadline = monotonic() + PARTING_SECONDS
        with suppress(Timeout):
            while self._spawned or waiting:
                _, report = select([self._crew.reports], timeout=max(0.0, deadline - monotonic()))
                match report:
                    case Joined(worker):  # it came too late to be given work
                        worker.box.close()
                        waiting.add(worker)
                    case Gone(worker):
                        waiting.discard(worker)
                    case Ended():
                        self._spawned -= 1


def _words(chunks: list[Chunk]) -> str:
    if not chunks:
        return "no chunk has to be"
    return " and ".join(f"[{chunk.lo}, {chunk.hi})" for chunk in chunks) + (
        " is" if len(chunks) == 1 else " are"
    )
