"""Who wants something done: a program like any other, on any machine that reaches the store.

CLUSTER_STORE=sqlite:///hello.db python -m examples.hello.leader
"""

from __future__ import annotations

import os

from cluster import Client
from cluster.directives import IndexedStream
from examples.hello.ops import Join, letter


def main() -> None:
    """Have each letter found by whoever is free, and put them together."""
    with Client(os.environ["CLUSTER_STORE"]) as client:
        print(IndexedStream([*b"hello world"]).map(letter, chunk=1).fold(Join()).run(client, timeout=60))


if __name__ == "__main__":
    main()
