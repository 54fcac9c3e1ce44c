"""The master: hands out chunks, puts the results in order, and copes with workers that die.

    with open_place("processes:4") as place:
        for answer in find_primes(place, 1, 2_000_000):
            print(*answer.primes, sep="\\n")

Four kinds of tasklets, and one that decides:

    register   receives the Join of each worker and starts a clerk for it
    clerk      one for each worker: fetches a chunk, hands it over, waits for the result
    watch      one for each worker: waits for its end
    lead       owns the backlog; the others only send it reports. In one `select` it hears a report, gives
               the next chunk to a clerk, or gives the next answer to the reader, whichever can happen first

A clerk talks to channels that live at its worker, therefore it is the one that notices when the worker dies.
Nothing here depends on where the workers are.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

from examples.primes.arithmetic import partition, suitable_chunk
from examples.primes.backlog import Answer, Backlog
from examples.primes.messages import Chunk, Join, Result
from examples.primes.worker import work
from net import PeerLost, Place, Spawned
from tasklets import TaskletError, Timeout, channel, select, tasklet

# Each worker may be this many chunks ahead of the first unfinished one. Two would do while chunks take
# equally long; the rest keeps the others at work while one chunk is done for the second time.
WINDOW_PER_WORKER = 8

LEASE_SECONDS = (
    60.0  # a worker that keeps a chunk for longer is taken to hang; chunks are made to take about 0.1 s
)
PARTING_SECONDS = (
    2.0  # how long workers may take to leave when the work is done; the place ends those that do not
)


class WorkersLost(TaskletError):
    """Every worker died before the search was finished."""


@dataclass(frozen=True, slots=True)
class _Done:
    worker: str
    result: Result


@dataclass(frozen=True, slots=True)
class _Returned:
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class _Gone:
    worker: str
    error: Exception | None


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
    than `window` chunks are under way or waiting to be read. A chunk whose worker dies, or keeps it for
    longer than `lease` seconds, is done again by another; `notice` is told so in words. When the last answer
    was read, the workers have been told to stop.

    Raises ValueError for a range, chunk or window that makes no sense, before anything is started;
    WorkersLost when no worker is left; RemoteError when the code of a worker failed.
    """
    pieces = partition(lo, hi, suitable_chunk(lo, hi) if chunk is None else chunk)
    room = WINDOW_PER_WORKER * place.size if window is None else window
    backlog = Backlog(pieces, window=room, ordered=ordered, lease=lease)
    return _Master(place, backlog, notice).answers()


class _Master:
    """The tasklets of one search and the channels between them."""

    def __init__(self, place: Place, backlog: Backlog, notice: Callable[[str], None]) -> None:
        self._place = place
        self._backlog = backlog
        self._notice = notice
        self._todo = channel(name="todo")  # chunks, from lead to the clerks
        self._reports = channel(name="reports")  # from clerks and watchers to lead
        self._answers = channel(name="answers")  # from lead to the reader
        self._present = 0  # workers whose end was not reported
        self._failure: Exception | None = None
        self._tasklets: list[Any] = []

    def answers(self) -> Iterator[Answer]:
        joins = self._place.channel(name="joins")
        try:
            for number in range(1, self._place.size + 1):
                name = f"worker {number}"
                self._start(self._watch, name, self._place.spawn(work, joins, name))
                self._present += 1
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

    def _register(self, joins: channel) -> None:
        for join in joins:
            self._start(self._clerk, join)

    def _clerk(self, join: Join) -> None:
        worker = f"{join.name} (process {join.pid})"
        chunk = None
        try:
            for chunk in self._todo:
                join.chunks.send(chunk)
                result = join.results.receive()
                chunk = None
                self._reports.send(_Done(worker, result))
            join.chunks.close()  # tells the worker to stop
        except PeerLost:
            if chunk is not None:
                self._reports.send(_Returned(chunk))

    def _watch(self, worker: str, spawned: Spawned) -> None:
        error = None
        try:
            spawned.join()
        except Exception as failed:  # noqa: BLE001 - reported to lead, which decides
            error = failed
        self._reports.send(_Gone(worker, error))

    def _lead(self) -> None:
        try:
            while not self._backlog.finished():
                self._step()
            self._todo.close()
            self._part()
        except Exception as failed:  # noqa: BLE001 - raised by answers(), at the reader
            self._failure = failed
        self._answers.close()

    def _step(self) -> None:
        """Let one thing happen: a report, a chunk handed out, an answer read, a lease run out. Blocks."""
        cases: list[Any] = [self._reports]
        then: list[Callable[[Any], None]] = [self._hear]
        if (chunk := self._backlog.next_chunk()) is not None:
            cases.append((self._todo, chunk))
            then.append(lambda _: self._backlog.hand_out(chunk, monotonic()))
        if (answer := self._backlog.next_answer()) is not None:
            cases.append((self._answers, answer))
            then.append(lambda _: self._backlog.emit())
        deadline = self._backlog.next_deadline()
        try:
            index, value = select(
                cases, timeout=None if deadline is None else max(0.0, deadline - monotonic())
            )
        except Timeout:
            for late in self._backlog.take_overdue(monotonic()):
                self._notice(f"{_words(late)} is overdue; another worker does it again")
        else:
            then[index](value)

    def _hear(self, report: _Done | _Returned | _Gone) -> None:
        match report:
            case _Done(worker, result):
                self._backlog.record(result, worker)
            case _Returned(chunk):
                if self._backlog.give_back(chunk):
                    self._notice(f"{_words(chunk)} lost its worker; another does it again")
            case _Gone(worker, error):
                self._present -= 1
                if error is not None and not isinstance(error, PeerLost):
                    raise error
                self._notice(f"{worker} was lost: {error}")
                if not self._present and not self._backlog.complete():
                    raise WorkersLost(
                        f"every worker was lost ({self._place.size} of {self._place.size}) before the end of "
                        "the range; start the search again, with --on naming nodes that are up"
                    )

    def _part(self) -> None:
        """Wait until the workers have left, but not for one that hangs. Blocks."""
        deadline = monotonic() + PARTING_SECONDS
        with suppress(Timeout):
            while self._present:
                _, report = select([self._reports], timeout=max(0.0, deadline - monotonic()))
                if isinstance(report, _Gone):
                    self._present -= 1


def _words(chunk: Chunk) -> str:
    return f"chunk {chunk.index} [{chunk.lo}, {chunk.hi})"
