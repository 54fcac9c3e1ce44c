"""What map and fold cost, durable and not, beside multiprocessing, concurrent.futures, Dask and Ray.

    python benchmarks/bench_directives.py                  five rounds, some minutes
    python benchmarks/bench_directives.py --save

Everybody has two processes, which are up and have the functions when the time begins. Everybody gives all results
back to the process that asked, which checks them. `sqlite` and `redis` are ours with a store: inputs and results are
on disk (or in the server), and the job finishes whoever is killed; `processes` is ours without one. The others are
used as their manuals say for such work: chunked maps where they have them (`Pool.map`, `dask.bag`, Ray's own `Pool`),
one task for each expensive input in Dask and Ray. `ray by hand` is Ray with as few chunks as a `Pool` would make, cut
and put together by the program.

Seconds by the clock mean little on a machine that has much else to do, above all beside Ray, whose processes are a
group of their own for the scheduler. Those of computing, of all processes of a system together, do.
"""

import contextlib
import functools
import operator
import os
import statistics
import subprocess
import sys
import tempfile
from argparse import SUPPRESS
from collections.abc import Callable, Iterator
from time import perf_counter, sleep
from typing import Any, NamedTuple

from measuring import (
    ROOT,
    Missing,
    Target,
    cpu_seconds,
    family,
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

PROCESSES = 2
PARTS = 4 * PROCESSES  # what multiprocessing.Pool cuts a map into, by default
OURS = ("sqlite", "redis", "processes")
PROGRAMS = ("map cheap", "map expensive", "fold")


class Sizes(NamedTuple):
    cheap: int
    expensive: int


class Ways(NamedTuple):
    """How a system does the three programs."""

    map_cheap: Callable[[range], list[int]]
    map_expensive: Callable[[range], list[int]]
    fold: Callable[[range], int]


def parts_of(values: range) -> list[range]:
    size = -(-len(values) // PARTS)
    return [values[start : start + size] for start in range(0, len(values), size)]


# ------------------------------------------------------------------------------------------------ ours


def of_directives(where: Any) -> Ways:
    from directive_operations import Sum, cheap_operation, expensive_operation

    from cluster.directives import IndexedStream

    return Ways(
        lambda values: IndexedStream(values).map(cheap_operation).run(where).values_sorted(),
        lambda values: IndexedStream(values).map(expensive_operation).run(where).values_sorted(),
        lambda values: IndexedStream(values).map(cheap_operation).fold(Sum()).run(where),
    )


@contextlib.contextmanager
def with_processes() -> Iterator[Ways]:
    from net import open_place

    with open_place(f"processes:{PROCESSES}") as place:
        yield of_directives(place)


@contextlib.contextmanager
def with_store(url: str) -> Iterator[Ways]:
    from cluster import Client

    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([HERE, str(ROOT)])}
    roles = (
        ["worker", "--slots", str(PROCESSES), "--import", "directive_operations", "--no-heal"],
        ["coordinator"],
    )
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "cluster", *role, "--store", url],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for role in roles
    ]
    try:
        with Client(url) as client:
            while not any(member.ops for member in client.members()):
                sleep(0.05)
            yield of_directives(client)
    finally:
        for node in nodes:
            node.kill()
            node.wait()


@contextlib.contextmanager
def with_sqlite() -> Iterator[Ways]:
    with tempfile.TemporaryDirectory() as folder, with_store(f"sqlite:///{folder}/work.db") as ways:
        yield ways


@contextlib.contextmanager
def with_redis() -> Iterator[Ways]:
    from tests.cluster.redis_server import RedisServer

    server = RedisServer()
    try:
        with with_store(server.url) as ways:
            yield ways
    finally:
        server.close()


# ------------------------------------------------------------------------------------------------ the others


@contextlib.contextmanager
def with_pool() -> Iterator[Ways]:
    from multiprocessing import Pool

    from directive_operations import cheap, expensive, fold_part

    with Pool(PROCESSES) as pool:
        yield Ways(
            lambda values: pool.map(cheap, values),
            lambda values: pool.map(expensive, values),
            lambda values: functools.reduce(operator.add, pool.map(fold_part, parts_of(values), chunksize=1)),
        )


@contextlib.contextmanager
def with_futures() -> Iterator[Ways]:
    from concurrent.futures import ProcessPoolExecutor

    from directive_operations import cheap, expensive, fold_part

    with ProcessPoolExecutor(PROCESSES) as pool:
        yield Ways(
            lambda values: list(pool.map(cheap, values, chunksize=len(values) // PARTS + 1)),
            lambda values: list(pool.map(expensive, values)),
            lambda values: functools.reduce(operator.add, pool.map(fold_part, parts_of(values))),
        )


@contextlib.contextmanager
def with_dask() -> Iterator[Ways]:
    try:
        import dask.bag
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise Missing(str(error)) from None
    from directive_operations import cheap, expensive

    with (
        LocalCluster(
            n_workers=PROCESSES, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):

        def bag(values: range) -> Any:
            return dask.bag.from_sequence(values, npartitions=PARTS)

        yield Ways(
            lambda values: list(bag(values).map(cheap).compute()),
            lambda values: list(client.gather(client.map(expensive, values))),
            lambda values: int(bag(values).map(cheap).fold(operator.add).compute()),
        )


@contextlib.contextmanager
def with_ray(ways: Callable[[Any], Ways]) -> Iterator[Ways]:
    try:
        import ray
    except ImportError as error:
        raise Missing(str(error)) from None
    paths = os.pathsep.join([HERE, str(ROOT)])
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  15 if not set, with which it would lose on a busy machine
    ray.init(
        num_cpus=PROCESSES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    try:
        yield ways(ray)
    finally:
        ray.shutdown()


def with_ray_pool(ray: Any) -> Ways:
    from directive_operations import cheap, expensive
    from ray.util.multiprocessing import Pool

    pool, one = Pool(PROCESSES), ray.remote(expensive)
    return Ways(
        lambda values: list(pool.map(cheap, values)),
        lambda values: list(ray.get([one.remote(x) for x in values])),
        lambda values: functools.reduce(operator.add, pool.map(cheap, values)),
    )


def with_ray_by_hand(ray: Any) -> Ways:
    from directive_operations import cheap_all, expensive, fold_part

    mapped, one, folded = ray.remote(cheap_all), ray.remote(expensive), ray.remote(fold_part)
    return Ways(
        lambda values: [
            x for part in ray.get([mapped.remote(one) for one in parts_of(values)]) for x in part
        ],
        lambda values: list(ray.get([one.remote(x) for x in values])),
        lambda values: functools.reduce(
            operator.add, ray.get([folded.remote(part) for part in parts_of(values)])
        ),
    )


SYSTEMS: dict[str, Callable[[], contextlib.AbstractContextManager[Ways]]] = {
    "sqlite": with_sqlite,
    "redis": with_redis,
    "processes": with_processes,
    "pool": with_pool,
    "futures": with_futures,
    "dask": with_dask,
    "ray": lambda: with_ray(with_ray_pool),
    "ray by hand": lambda: with_ray(with_ray_by_hand),
}


# ------------------------------------------------------------------------------------------------ one measurement


def measure(name: str, sizes: Sizes) -> dict[str, tuple[float, float]]:
    """Seconds of each program, in this process; see `timed`."""
    from directive_operations import cheap, expensive

    cheap_inputs, expensive_inputs = range(sizes.cheap), range(sizes.expensive)
    with SYSTEMS[name]() as ways:
        small = range(16 * PROCESSES)
        for way in ways:
            way(small)  # everybody is up, and has imported what it needs
        mapped, cheap_took = timed(ways.map_cheap, cheap_inputs)
        dear, expensive_took = timed(ways.map_expensive, expensive_inputs)
        folded, fold_took = timed(ways.fold, cheap_inputs)
    assert mapped == [cheap(x) for x in cheap_inputs]
    assert dear[-1] == expensive(expensive_inputs[-1])
    assert len(dear) == len(expensive_inputs)
    assert folded == sum(mapped)
    return {"map cheap": cheap_took, "map expensive": expensive_took, "fold": fold_took}


def timed(way: Callable[[range], Any], inputs: range) -> tuple[Any, tuple[float, float]]:
    """What it gives, and how many seconds it took: by the clock, and of computing by all its processes together."""
    before = {pid: cpu_seconds([pid]) for pid in family(os.getpid())}
    begun = perf_counter()
    result = way(inputs)
    seconds = perf_counter() - begun
    # Some are new by now: Dask replaces workers that do not answer in time.
    computed = sum(cpu_seconds([pid]) - before.get(pid, 0.0) for pid in family(os.getpid()))
    return result, (seconds, computed)


def main() -> None:
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument("--cheap", type=int, default=100_000, help="inputs of the cheap map and of the fold")
    parser.add_argument("--expensive", type=int, default=1000, help="inputs of the expensive map")
    parser.add_argument("--one", help=SUPPRESS)
    options = parser.parse_args()
    sizes = Sizes(options.cheap, options.expensive)
    if options.one:
        tell(lambda: measure(options.one, sizes))
        return

    systems = [name for name in SYSTEMS if not options.only or name in options.only]
    rows: dict[str, list[dict[str, tuple[float, float]]]] = {name: [] for name in systems}
    missing: dict[str, str] = {}
    arguments = ("--cheap", str(sizes.cheap), "--expensive", str(sizes.expensive))
    for number in range(options.rounds):
        for name in rotated(systems, number):
            if name in missing:
                continue
            try:
                rows[name].append(run_apart(__file__, "--one", name, *arguments, patience=300))
            except Missing as reason:
                missing[name] = str(reason)

    def values(name: str, program: str, which: int = 0) -> list[float]:
        return [row[program][which] for row in rows.get(name, [])]

    for which, what in enumerate(("seconds", "of computing")):
        print(f"{what:14}" + "".join(f"{program:>18}" for program in PROGRAMS))
        for name in systems:
            if rows[name]:
                medians = [statistics.median(values(name, program, which)) for program in PROGRAMS]
                print(f"{name:14}" + "".join(f"{value:18.3f}" for value in medians))
    for name, reason in missing.items():
        print(f"{name}: not measured: {reason}")

    targets = [
        Target(
            f"{ours}: seconds of {program} against {peer}",
            ratio(values(ours, program), values(peer, program)),
            1.0,
            at_least=False,
        )
        for ours in OURS
        for peer in ("dask", "ray", "ray by hand")
        for program in PROGRAMS
    ]
    targets += [
        Target(
            f"{ours}: computing of {program} against {peer}",
            ratio(values(ours, program, 1), values(peer, program, 1)),
            1.0,
            at_least=False,
        )
        for ours in OURS
        for peer in ("dask", "ray")
        for program in PROGRAMS
    ]
    targets += [
        Target(
            f"{ours}: seconds of map expensive against pool",
            ratio(values(ours, "map expensive"), values("pool", "map expensive")),
            1.1,
            at_least=False,
        )
        for ours in OURS
    ]
    show_targets(targets)
    record = {
        "machine": machine(),
        "inputs": sizes._asdict(),
        "processes": PROCESSES,
        "systems": {
            name: {
                program: {
                    "seconds": spread(values(name, program)),
                    "of computing": spread(values(name, program, 1)),
                }
                for program in PROGRAMS
            }
            for name in systems
            if rows[name]
        },
        "missing": missing,
        "targets": record_of(targets),
    }
    keep(record, options, "directives")


if __name__ == "__main__":
    main()
