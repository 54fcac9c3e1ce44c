"""A client in a process of its own, to be killed.

python -m tests.cluster.directives.leader URL MAP-ID FOLD-ID COUNT [lazy]
"""

from __future__ import annotations

import sys
import time

from cluster import Client
from cluster.directives import IndexedStream
from cluster.testing import FAST
from tests.cluster.directives import ops


def main(url: str, map_id: str, fold_id: str, count: str, lazy: str = "") -> None:
    """Start a map and a fold, read results of the map, and wait for the end of it all."""
    with Client(url, settings=FAST) as client:
        numbers = range(int(count))
        inputs = (lambda: iter(numbers)) if lazy else (lambda: numbers)
        handle = IndexedStream(inputs()).map(ops.map_noted).start(client, id=map_id, max_in_flight=100)
        folded = IndexedStream(numbers).map(ops.fold_noted).map(ops.text).fold(ops.Concat())
        folded.start(client, id=fold_id)
        for taken, _ in enumerate(handle.stream(), 1):
            print(taken, flush=True)
        time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
