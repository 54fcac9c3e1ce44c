"""A worker: offers itself, then computes one chunk after the other until it is told that there are no more.

It runs wherever it was placed, and cannot tell where that is.
"""

import os
from time import perf_counter

from examples.primes.arithmetic import primes_in
from examples.primes.messages import Join, Result
from tasklets import channel


def work(joins: channel, name: str) -> None:
    """Join the search behind `joins` under `name` and serve it until it closes our `chunks`. Blocks.

    Both channels are rendezvous channels: a chunk is handed over only when this worker is ready to begin it,
    so a chunk is never stuck behind a slow one while another worker is idle.
    """
    chunks, results = channel(name=f"chunks of {name}"), channel(name=f"results of {name}")
    joins.send(Join(name, os.getpid(), chunks, results))
    for chunk in chunks:
        started = perf_counter()
        primes = primes_in(chunk.lo, chunk.hi)
        results.send(Result(chunk.index, chunk.attempt, primes, perf_counter() - started))
