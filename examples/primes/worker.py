"""A worker: offers itself, then computes one chunk after the other until it is told that there are no more.

It runs wherever it was placed, and cannot tell where that is.
"""

import os
from time import perf_counter

from examples.primes.arithmetic import primes_in
from examples.primes.messages import Join, Result
from tasklets import channel, sleep

# A computation holds up everything else in its process. So before each one there is a pause, however short, in
# which what was said so far leaves: that the chunk was taken, and the result of the one before.
PAUSE_SECONDS = 1e-6


def work(joins: channel, name: str) -> None:
    """Join the search behind `joins` under `name` and serve it until it closes our `chunks`. Blocks.

    Chunks come over a rendezvous channel: one is handed over when this worker is ready to begin it, and waits at
    the door until then. A result has room for itself, so the next chunk begins while it travels.
    """
    chunks, results = channel(0, f"chunks of {name}"), channel(1, f"results of {name}")
    joins.send(Join(name, os.getpid(), chunks, results))
    for chunk in chunks:
        sleep(PAUSE_SECONDS)
        started = perf_counter()
        primes = primes_in(chunk.lo, chunk.hi)
        results.send(Result(chunk.index, chunk.attempt, primes, perf_counter() - started))
    results.close()
