"""A client in a process of its own, to be killed or interrupted: python -m ...leader WHAT URL ..."""

from __future__ import annotations

import sys
import time

from cluster import Client
from cluster.directives import IndexedStream
from cluster.testing import FAST
from tests.cluster.directives import ops


def start(client: Client, map_id: str, fold_id: str, count: str, lazy: str = "") -> None:
    """Start a map and a fold, which workers do by turns, read results of the map, and wait for the end of it all."""
    numbers = range(int(count))
    inputs = iter(numbers) if lazy else numbers
    folded = IndexedStream(numbers).map(ops.fold_noted).map(ops.text).fold(ops.Concat())
    folded.start(client, id=fold_id, queue="folds")
    handle = IndexedStream(inputs).map(ops.map_noted).start(client, id=map_id, max_in_flight=100)
    for taken, _ in enumerate(handle.stream(), 1):
        print(taken, flush=True)
    time.sleep(60)


def run(client: Client, map_id: str, how: str) -> None:
    """Run a map, and end in the middle of it."""
    results = IndexedStream(range(2000)).map(ops.slow_noted, chunk=1).run(client, id=map_id)
    for taken, _ in enumerate(results, 1):
        print(taken, flush=True)
        if how == "exit" and taken == 10:
            sys.exit(3)
        if how == "raise" and taken == 10:
            raise RuntimeError("the program is wrong")


def session(client: Client, session_id: str) -> None:
    """Send to a session, receive some results, and wait to be killed."""
    opened = client.session(id=session_id)
    for x in range(20):
        opened.sender.send(ops.double, x)
    for _ in range(5):
        print(*opened.receiver.receive(30), flush=True)
    time.sleep(60)


def main(what: str, url: str, *arguments: str) -> None:
    with Client(url, settings=FAST) as client:
        {"start": start, "run": run, "session": session}[what](client, *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
