"""A worker: offers itself, then computes one chunk after the other until it is told that there are no more.

It runs wherever it was placed, and cannot tell where that is. While it computes it lets others run every few
milliseconds, so its process answers, and it says every BEAT_SECONDS that it lives (PRI-11).
"""

import os
from collections.abc import Callable
from time import perf_counter

from examples.primes.algorithms import ALGORITHMS
from examples.primes.messages import Chunk, Join, Leave, Progress, Result
from tasklets import channel, sleep, tasklet

BEAT_SECONDS = 0.5

# A computation holds up everything else in its process. So every COMPUTE_SECONDS there is a pause, in which what was
# said so far leaves, and what has come is heard: one round of the event loop, since the pause is over before the loop
# looks at it. With 1e-6 one in four was not yet over, and epoll then waits its least, 1 ms: 1.5 % of the whole search.
PAUSE_SECONDS = 1e-9
COMPUTE_SECONDS = 0.02


def work(joins: channel, name: str, leaving: Callable[[], bool] = lambda: False) -> None:
    """Join the search behind `joins` under `name`, and serve it until it closes our `chunks`. Blocks.

    Chunks come over a rendezvous channel: one is handed over when this worker is ready to begin it, and waits at
    the door until then. A result has room for itself, so the next chunk begins while it travels. When `leaving()`
    the worker leaves after the chunk in hand (PRI-07).
    """
    chunks, results = channel(0, f"chunks of {name}"), channel(2, f"results of {name}")
    joins.send(Join(name, os.getpid(), chunks, results))
    worker = _Worker(results, leaving)
    beats = tasklet(worker.beat)()
    try:
        for chunk in chunks:
            if not worker.has_left:  # what comes after the farewell was given to others
                worker.compute(chunk)
    finally:
        beats.kill()
    results.close()


class _Worker:
    def __init__(self, results: channel, leaving: Callable[[], bool]) -> None:
        self.has_left = False
        self._results = results
        self._leaving = leaving
        self._chunk: Chunk | None = None  # in hand
        self._found: list[int] = []  # its primes so far

    def compute(self, chunk: Chunk) -> None:
        """Search one chunk and send its result. Blocks."""
        self._chunk, self._found = chunk, []
        sleep(PAUSE_SECONDS)
        began = resumed = perf_counter()
        away = 0.0
        for primes in ALGORITHMS[chunk.algorithm](chunk.lo, chunk.hi):
            self._found += primes
            if (now := perf_counter()) - resumed > COMPUTE_SECONDS:
                sleep(PAUSE_SECONDS)
                resumed = perf_counter()
                away += resumed - now
        seconds = perf_counter() - began - away
        self._results.send(Result(chunk.index, chunk.attempt, tuple(self._found), seconds))
        self._chunk = None
        self._perhaps_leave()

    def beat(self) -> None:
        """Say again and again what is in hand; when nothing is, and it is time to, say farewell."""
        while not self.has_left:
            sleep(BEAT_SECONDS)
            if self._chunk is not None:
                self._results.send(Progress(self._chunk.index, self._chunk.attempt, len(self._found)))
            else:
                self._perhaps_leave()

    def _perhaps_leave(self) -> None:
        if self._leaving() and not self.has_left:
            self.has_left = True
            self._results.send(Leave())
