"""The search in a store: every chunk that was searched is kept, whoever dies (PRI-10).

    python -m examples.primes 1 2000000 --on processes:2 --store sqlite:///primes.db

The chunks are the inputs of a directive, stored before the first one is searched. Whoever runs the command for the same
range again finds them: what was searched is read, the rest is done. The workers are the store's and not ours, so more
of them may help, from anywhere:

    tasklets cluster worker --store sqlite:///primes.db --import examples.primes.durable
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING

import gevent

from cluster import Client, Finalize, operation
from cluster.directives import IndexedStream
from cluster.records import JobState
from cluster.settings import read_settings
from examples.primes.algorithms import ALGORITHMS
from examples.primes.backlog import Answer
from examples.primes.search import WorkersLost, make_guide
from net import PeerLost, Spawned
from tasklets import channel, tasklet
from tasklets.clock import monotonic

if TYPE_CHECKING:
    from cluster import Context
    from cluster.directives.durable import Handle
    from net import Place

MODULE = "examples.primes.durable"

Found = tuple[tuple[int, ...], float, str, int]  # primes, seconds of computing, by whom, in which attempt


@operation
def search(ctx: Context, piece: tuple[int, int, str]) -> Found:
    """Search one chunk."""
    lo, hi, algorithm = piece
    began = perf_counter()
    primes: list[int] = []
    for some in ALGORITHMS[algorithm](lo, hi):
        primes += some
        ctx.check()
    return tuple(primes), perf_counter() - began, ctx.worker, ctx.attempt


def find_durably(
    url: str,
    place: Place,
    lo: int,
    hi: int,
    *,
    algorithm: str = "trial",
    chunk: int | None = None,
    ordered: bool = True,
    notice: Callable[[str], None] = lambda text: None,
) -> Iterator[Answer]:
    """Search `[lo, hi)` with the workers of the store at `url`, and one more on each node of `place`. Blocks.

    Yields each chunk's answer, in rising order unless told otherwise; what an earlier run has found comes at once.
    `notice` is told in words what happens to workers.

    Raises ValueError for a range or chunk that makes no sense; OperationError when a chunk cannot be searched;
    WorkersLost when every node of the place is gone.
    """
    pieces = list(make_guide(lo, hi, chunk, place.size, algorithm).pieces())
    if not pieces:
        return
    with Client(url, settings=read_settings()) as client:
        handle = _begin(client, pieces, algorithm, chunk)
        before = handle.record()
        if before.done:
            notice(f"{before.done} of {before.total} chunks were searched before")
        wanted = 0 if before.ended else place.size
        if not (wanted or before.ended):
            notice(f"waiting for workers: tasklets cluster worker --store {url} --import {MODULE}")
        answers = _read(handle, pieces, [place.spawn(serve_store, url) for _ in range(wanted)], notice)
        yield from _in_order(answers) if ordered else answers


def _begin(client: Client, pieces: list[tuple[int, int]], algorithm: str, chunk: int | None) -> Handle:
    """Start the directive, or find it started: the id says what it searches."""
    job_id = f"primes {pieces[0][0]} to {pieces[-1][1]} by {algorithm}, chunks of {chunk or 'about 0.1 s'}"
    plan = IndexedStream([(lo, hi, algorithm) for lo, hi in pieces]).map(search, chunk=1)
    handle: Handle = plan.start(client, id=job_id)
    if handle.state in (JobState.FAILED, JobState.CANCELLED, JobState.TERMINATED):
        client.signal(job_id, Finalize())  # it ended badly; this is another try
        handle = plan.start(client, id=job_id)
    return handle


def _read(
    handle: Handle, pieces: list[tuple[int, int]], workers: list[Spawned], notice: Callable[[str], None]
) -> Iterator[Answer]:
    """Yield answers as they come. Two kinds of tasklets wait: one for results, one for the end of each worker."""
    news = channel(name="answers and mishaps")

    def read() -> None:
        try:
            for index, (primes, seconds, worker, attempt) in handle.stream():
                news.send(Answer(index, *pieces[index], primes, worker, attempt, seconds, monotonic()))
            news.send(None)
        except Exception as error:  # noqa: BLE001 - raised where the answers are read
            news.send(error)

    def watch(worker: Spawned) -> None:
        try:
            worker.join()
        except Exception as error:  # noqa: BLE001 - as above
            news.send(error)

    waiting = [tasklet(read)(), *[tasklet(watch)(worker) for worker in workers]]
    left = len(workers)
    try:
        while (said := news.receive()) is not None:
            if isinstance(said, Answer):
                yield said
                continue
            left -= 1
            if not isinstance(said, PeerLost):
                raise said
            if not left:
                raise WorkersLost(
                    "every worker was lost; what was searched is kept, so start the search again"
                )
            notice("a worker was lost; what it had in hand is done by others")
    finally:
        for one in waiting:
            one.kill()
        for worker in workers:
            worker.kill()


def serve_store(url: str) -> None:
    """Be a worker of the store at `url`, and look after the others, until our place ends. Blocks."""
    from cluster import Coordinator, Worker

    settings = read_settings()
    worker = Worker(url, imports=[MODULE], slots=1, settings=settings)
    coordinator = Coordinator(url, settings=settings)  # one leads, the others stand by
    running = [gevent.spawn(worker.run), gevent.spawn(coordinator.run)]
    try:
        gevent.joinall(running, raise_error=True)
    finally:
        worker.stop()
        coordinator.stop()
        gevent.joinall(running)


def _in_order(answers: Iterable[Answer]) -> Iterator[Answer]:
    waiting: dict[int, Answer] = {}
    due = 0
    for answer in answers:
        waiting[answer.index] = answer
        while due in waiting:
            yield waiting.pop(due)
            due += 1
