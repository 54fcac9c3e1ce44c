"""What a task costs by HTTP, through `tasklets cluster gateway`, beside the Python client on the same store.

    python benchmarks/bench_gateway.py                     five rounds on both engines, about a minute
    python benchmarks/bench_gateway.py --save

Everybody asks one thing at a time: `http` over one connection that is kept, `python` with a `Client`. The nodes are up
when the time begins, and are the same for all: a worker with two slots, a coordinator, a gateway. The gateway is a
process more, on the same cores, so it cannot be the faster one; the question is what the way through it adds.
"""

import argparse
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from time import perf_counter, sleep
from typing import Any, NamedTuple

from measuring import (
    ROOT,
    Target,
    keep,
    machine,
    make_parser,
    ratio,
    record_of,
    rotated,
    run_apart,
    show_targets,
    spread,
    tell,
)

HERE = str(ROOT / "benchmarks")
sys.path[:0] = [HERE, str(ROOT)]

ENGINES = ("sqlite", "redis")
FORMS = ("python", "http")
COLUMNS = (
    "submit/s",
    "submit p99",
    "round trip",
    "round trip p99",
    "look",
    "look p99",
)  # the others are milliseconds


class Way(NamedTuple):
    """How to submit a task, to wait for its end, and to look at it."""

    submit: Callable[[], str]
    wait: Callable[[str], object]
    look: Callable[[str], object]


# ------------------------------------------------------------------------------------------------ the two ways


@contextlib.contextmanager
def with_python(store: str, address: str) -> Iterator[Way]:
    from directive_operations import cheap_operation

    from cluster import Client

    with Client(store) as client:
        yield Way(
            lambda: client.submit(cheap_operation, 1).task_id,
            lambda task_id: client.attach(task_id).wait(30),
            client.task,
        )


@contextlib.contextmanager
def with_http(store: str, address: str) -> Iterator[Way]:
    connection = http.client.HTTPConnection(address, timeout=60)
    body = json.dumps({"operation": "bench:cheap", "args": [1]})

    def ask(method: str, path: str, body: str | None = None) -> Any:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        data = answer.read()
        assert answer.status in (200, 202), data
        assert not answer.will_close, "the connection is to be kept"
        return json.loads(data)

    def wait(task_id: str) -> None:
        while ask("GET", f"/tasks/{task_id}?wait=30")["ended"] is None:
            pass

    yield Way(
        lambda: str(ask("POST", "/tasks", body)["id"]), wait, lambda task_id: ask("GET", f"/tasks/{task_id}")
    )
    connection.close()


WAYS = {"python": with_python, "http": with_http}


def measure(form: str, store: str, address: str, tasks: int) -> dict[str, float]:
    with WAYS[form](store, address) as way:
        for _ in range(10):
            way.wait(way.submit())  # everything is opened, and has imported what it needs
        begun = perf_counter()
        submits = [timed(way.submit) for _ in range(tasks)]
        submitted_in = perf_counter() - begun
        for task_id, _ in submits:
            way.wait(task_id)
        trips = [timed(lambda: way.wait(way.submit())) for _ in range(tasks // 2)]
        last = submits[-1][0]
        looks = [timed(lambda: way.look(last)) for _ in range(tasks)]
    return {
        "submit/s": tasks / submitted_in,
        "submit p99": quantile(submits, 0.99),
        "round trip": quantile(trips, 0.5),
        "round trip p99": quantile(trips, 0.99),
        "look": quantile(looks, 0.5),
        "look p99": quantile(looks, 0.99),
    }


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    begun = perf_counter()
    found = call()
    return found, perf_counter() - begun


def quantile(measured: list[tuple[Any, float]], share: float) -> float:
    """So many of the times, in milliseconds, are no longer."""
    return 1000 * sorted(seconds for _, seconds in measured)[int(share * len(measured))]


# ------------------------------------------------------------------------------------------------ the nodes


@contextlib.contextmanager
def running(store: str) -> Iterator[str]:
    """The nodes of a group; yields the gateway's address."""
    from cluster.stores import open_store

    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([HERE, str(ROOT)]), "PYTHONUNBUFFERED": "1"}
    roles = (
        ["worker", "--slots", "2", "--import", "directive_operations", "--no-heal"],
        ["coordinator"],
        ["gateway", "--port", "0", "--rate", "0"],
    )
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "cluster", *role, "--store", store],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if role[0] == "gateway" else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for role in roles
    ]
    said = nodes[-1].stdout
    assert said is not None
    try:
        probe = open_store(store)
        while not any(member.ops for member in probe.members()):
            sleep(0.05)
        probe.close()
        yield next(line for line in said if "listens at" in line).partition("http://")[2].split()[0]
    finally:
        for node in nodes:
            node.kill()
            node.wait()
        said.close()


def main() -> None:
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument("--tasks", type=int, default=400, help="in each round; half as many round trips")
    parser.add_argument("--one", nargs=3, metavar=("FORM", "STORE", "ADDRESS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tasks < 2 or options.rounds < 1 or not set(options.only or ENGINES) <= set(ENGINES):
        parser.error(f"nothing is measured so; give at least 1 round and 2 tasks, and systems of {ENGINES}")
    if options.one:
        tell(lambda: measure(*options.one, options.tasks))
        return

    from tests.cluster.redis_server import RedisServer

    engines = [engine for engine in ENGINES if not options.only or engine in options.only]
    forms = [f"{engine} {form}" for engine in engines for form in FORMS]
    rows: dict[str, list[dict[str, float]]] = {form: [] for form in forms}
    with contextlib.ExitStack() as stack:
        stores, addresses = {}, {}
        for engine in engines:
            if engine == "redis":
                server = RedisServer()
                stack.callback(server.close)
                stores[engine] = server.url
            else:
                stores[engine] = f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/work.db"
            addresses[engine] = stack.enter_context(running(stores[engine]))
        for number in range(options.rounds):
            for name in rotated(forms, number):
                engine, form = name.split()
                where = (stores[engine], addresses[engine], "--tasks", str(options.tasks))
                rows[name].append(run_apart(__file__, "--one", form, *where))

    def values(name: str, column: str) -> list[float]:
        return [row[column] for row in rows.get(name, [])]

    print(f"{'':16}" + "".join(f"{column:>16}" for column in COLUMNS))
    for name in forms:
        print(f"{name:16}" + "".join(f"{statistics.median(values(name, one)):16.2f}" for one in COLUMNS))
    targets = []
    for engine in engines:
        ours, theirs = f"{engine} http", f"{engine} python"
        # A head and a body that are sent apart cost 40 ms, unless TCP_NODELAY is set: half of that is no noise.
        look = statistics.median(values(ours, "look"))
        targets.append(Target(f"{ours}: ms of a look", look, 20.0, at_least=False))
        slow = statistics.median(values(ours, "submit p99"))
        targets.append(
            Target(f"{ours}: ms until 99 of 100 submits are answered", slow, 100.0, at_least=False)
        )
        speed = ratio(values(ours, "submit/s"), values(theirs, "submit/s"))
        targets.append(Target(f"{ours}: submit/s against {theirs}", speed, 0.25, at_least=True))
        trip = ratio(values(ours, "round trip"), values(theirs, "round trip"))
        targets.append(Target(f"{ours}: round trip against {theirs}", trip, 3.0, at_least=False))
    show_targets(targets)
    record = {
        "tasks": options.tasks,
        "machine": machine(),
        "forms": {name: {one: spread(values(name, one)) for one in COLUMNS} for name in forms},
        "targets": record_of(targets),
    }
    keep(record, options, "gateway")


if __name__ == "__main__":
    main()
