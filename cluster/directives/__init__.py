"""Map and fold over streams of values: said first, run anywhere, durable where there is a store.

    IndexedStream(range(1, 11)).map(fib).fold(Sum()).run(client)

`stream` says what is to be done, as one of the `plans`; `engines` chooses who does it: `durable` (a store and its
workers), or `driver` with one of the `crews` (places, futures, Dask, Ray), which keep nothing. `sizes`, `folding` and
`chunks` are what all share: how large a chunk is, which parts of a fold come next, and what a worker does with a chunk.
"""

from __future__ import annotations

from cluster.directives.monoids import BoundMonoid, check_monoid, monoid
from cluster.directives.plans import Options, Plan
from cluster.directives.results import Results, Skipped
from cluster.directives.stream import Directive, IndexedStream, Literal

__all__ = [
    "BoundMonoid",
    "Directive",
    "IndexedStream",
    "Literal",
    "Options",
    "Plan",
    "Results",
    "Skipped",
    "check_monoid",
    "monoid",
]
