"""A client in a process of its own, to be killed or interrupted: python -m ...leader WHAT URL ..."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import gevent

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


def lazy(client: Client, feed_lease: str, session_id: str, *run_ids: str) -> None:
    """Run maps that wait for their next input, beside two sessions, and wait to be killed."""
    client.settings = replace(client.settings, feed_lease=float(feed_lease))
    sessions = client.session(), client.session(id=session_id)

    def inputs() -> Iterator[int]:
        yield 1
        gevent.sleep(60)

    def take(run_id: str) -> None:
        for taken, _ in enumerate(IndexedStream(inputs()).map(ops.double).run(client, id=run_id), 1):
            print(taken, flush=True)

    gevent.joinall([gevent.spawn(take, run_id) for run_id in run_ids])
    print(sessions)


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
        {"start": start, "run": run, "lazy": lazy, "session": session}[what](client, *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
