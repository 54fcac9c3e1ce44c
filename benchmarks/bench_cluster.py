"""What a durable task costs, on both engines, beside Celery, RQ and Dramatiq on the same Redis.

    python benchmarks/bench_cluster.py                     three rounds of 1000 tasks, about three minutes
    python benchmarks/bench_cluster.py --full --save       and claims with a million tasks waiting

Every system has two processes that run tasks. All are measured in one run, the rounds interleaved. Ours keeps its
defaults: results are stored, executions are fenced, every end is a transaction, nothing is claimed ahead. The others
keep theirs, with results ignored. "with prefetch" is ours with eight tasks claimed ahead of the free slots.
"""

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

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
    show_targets,
    spread,
)

sys.path.insert(0, str(ROOT))

import redis

from cluster.records import NewTask
from cluster.stores import Store, open_store
from tests.cluster.redis_server import RedisServer

PEERS = ("celery", "rq", "dramatiq")
OURS = ("cluster-sqlite", "cluster-redis", "cluster-redis-prefetch")
HERE = str(ROOT / "benchmarks")


class System:
    """One task queue with its workers running."""

    def __init__(self, name: str, server: RedisServer, folder: str) -> None:
        self.name = name
        self.server = server
        self.counters = redis.Redis(port=server.port)
        self.counters.flushall()
        os.environ.update(SYSTEM=name, REDIS_PORT=str(server.port))
        self.environ = {**os.environ, "PYTHONPATH": os.pathsep.join([HERE, str(ROOT)])}
        self.processes: list[subprocess.Popen[bytes]] = []
        self.folder = folder
        self._make()

    def _make(self) -> None:
        python = sys.executable
        if self.name.startswith("cluster"):
            from cluster import Client
            from cluster.tasks import make_task

            url = (
                self.server.url
                if "redis" in self.name
                else f"sqlite:///{self.folder}/{self.name}-{time.time()}.db"
            )
            self.client = Client(url, f"bench-{os.urandom(3).hex()}")
            self.client.store.declare_group()
            self.submit: Callable[[str], object] = lambda name: self.client.submit_all(
                [make_task(name, (), {})]
            )
            options = ["--prefetch", "8"] if self.name.endswith("prefetch") else []
            group = ["--store", url, "--group", self.client.store.group]
            self._start(
                [
                    python,
                    "-m",
                    "cluster",
                    "worker",
                    *group,
                    "--slots",
                    "2",
                    "--import",
                    "cluster_systems",
                    "--no-heal",
                    *options,
                ]
            )
            self._start([python, "-m", "cluster", "coordinator", *group])
            return
        try:
            __import__(self.name)
        except ImportError as error:
            raise Missing(str(error)) from None
        if self.name == "rq":
            import cluster_systems
            from rq import Queue

            queue = Queue(connection=redis.Redis.from_url(cluster_systems.URL))
            self.submit = lambda name: queue.enqueue(getattr(cluster_systems, name))
            for _ in range(2):
                self._start(
                    [
                        python,
                        "-m",
                        "rq.cli",
                        "worker",
                        "--url",
                        f"redis://127.0.0.1:{self.server.port}/1",
                        "--quiet",
                    ]
                )
            return
        sys.modules.pop("cluster_systems", None)
        import cluster_systems

        tasks: dict[str, Any] = {"count": cluster_systems.count_task, "stamp": cluster_systems.stamp_task}
        if self.name == "celery":
            self.submit = lambda name: tasks[name].delay()
            self._start([python, "-m", "celery", "-A", "cluster_systems", "worker", "-c", "2", "-l", "ERROR"])
        else:
            self.submit = lambda name: tasks[name].send()
            self._start([python, "-m", "dramatiq", "cluster_systems", "--processes", "2", "--threads", "1"])

    def _start(self, command: list[str]) -> None:
        self.processes.append(
            subprocess.Popen(
                command, env=self.environ, cwd=HERE, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )
        )  # fmt: skip

    def wait_done(self, count: int, patience: float = 60.0) -> None:
        deadline = time.monotonic() + patience
        while int(self.counters.get("done") or 0) < count:
            if time.monotonic() > deadline:
                raise Missing(f"{self.counters.get('done')} of {count} tasks within {patience:g} s")
            time.sleep(0.002)

    def idle_cpu(self, seconds: float) -> float:
        """The share of one core that all its processes use while nothing is to be done, in percent."""
        pids = [pid for process in self.processes for pid in family(process.pid)]
        before = cpu_seconds(pids)
        time.sleep(seconds)
        return 100 * (cpu_seconds(pids) - before) / seconds

    def close(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if self.name.startswith("cluster"):
            self.client.store.wipe()
            self.client.close()
        self.counters.close()


def measure(name: str, server: RedisServer, folder: str, tasks: int, idle_seconds: float) -> dict[str, float]:
    system = System(name, server, folder)
    try:
        system.submit("count")
        system.wait_done(1)
        system.submit("count")  # both processes are there
        system.wait_done(2)
        time.sleep(1.0)
        latencies = []
        for number in range(15):
            submitted = time.time()
            system.submit("stamp")
            while system.counters.llen("started") <= number:
                time.sleep(0.001)
            latencies.append(float(system.counters.lindex("started", number)) - submitted)
            time.sleep(0.05)
        system.counters.delete("done")
        begun = time.perf_counter()
        for _ in range(tasks):
            system.submit("count")
        submitted_in = time.perf_counter() - begun
        system.wait_done(tasks)
        done_in = time.perf_counter() - begun
        time.sleep(0.5)
        return {
            "submit/s": tasks / submitted_in,
            "tasks/s": tasks / done_in,
            "idle latency ms": 1000 * statistics.median(latencies),
            "idle CPU %": system.idle_cpu(idle_seconds),
        }
    finally:
        system.close()


# ------------------------------------------------------------------------------------------------ the store alone


def claim_cost(store: Store, waiting: int) -> tuple[float, float]:
    """Seconds per claim and end of one task with so many waiting, and bytes per waiting task."""
    from cluster.records import Ending, Finish, Member

    store.join(Member("w", "i", "worker", ops=("op",)), 3600)
    before = stored_bytes(store)
    for start in range(0, waiting, 5000):
        store.submit([NewTask("op", b"x" * 50) for _ in range(min(5000, waiting - start))])
    size = (stored_bytes(store) - before) / waiting
    times = []
    for _ in range(500):
        begun = time.perf_counter()
        (claim,), _ = store.claim("w", "i", 1, queues=["default"], ops=["op"], lease=60)
        store.finish("w", [Finish(claim.task.task_id, claim.fence, Ending.DONE)])
        times.append(time.perf_counter() - begun)
    return statistics.median(times), size  # Redis pauses now and then to rewrite its file


def stored_bytes(store: Any) -> int:
    if hasattr(store, "_redis"):
        return int(store._redis.info("memory")["used_memory"])
    return int(store._call(lambda t: t.db.execute("PRAGMA page_count").fetchone()[0]) * 4096)


def measure_claims(server: RedisServer, folder: str, sizes: list[int]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for engine in ("sqlite", "redis"):
        for size in sizes:
            url = server.url if engine == "redis" else f"sqlite:///{folder}/claims-{size}.db"
            store = open_store(url, f"claims-{size}")
            begun = time.perf_counter()
            seconds, per_task = claim_cost(store, size)
            filled = size / (time.perf_counter() - begun)
            found.setdefault(engine, {})[str(size)] = {
                "us per claim and end": round(1e6 * seconds, 1),
                "bytes per waiting task": round(per_task),
                "batched submits/s": round(filled),
            }
            store.wipe()
            store.close()
    return found


def main() -> None:
    parser = make_parser(__doc__, rounds=3)  # with --only no claims are measured
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--idle-seconds", type=float, default=3.0)
    parser.add_argument("--full", action="store_true", help="claims with a million tasks waiting too")
    options = parser.parse_args()
    systems = [name for name in (*OURS, *PEERS) if not options.only or name in options.only]
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in systems}
    missing: dict[str, str] = {}
    server = RedisServer()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(options.rounds):
                for name in rotated(systems, number):
                    if name in missing:
                        continue
                    try:
                        rows[name].append(measure(name, server, folder, options.tasks, options.idle_seconds))
                    except Missing as reason:
                        missing[name] = str(reason)
            sizes = [1000, 100_000, *([1_000_000] if options.full else [])]
            claims = {} if options.only else measure_claims(server, folder, sizes)
    finally:
        server.close()

    columns = ("submit/s", "tasks/s", "idle latency ms", "idle CPU %")
    print(f"{'':24}" + "".join(f"{column:>18}" for column in columns))
    for name, measured in rows.items():
        if measured:
            medians = [statistics.median(row[column] for row in measured) for column in columns]
            print(f"{name:24}" + "".join(f"{value:18.1f}" for value in medians))
    for name, reason in missing.items():
        print(f"{name}: not measured: {reason}")
    for engine, by_size in claims.items():
        for size, figures in by_size.items():
            print(f"{engine} with {size} waiting: " + ", ".join(f"{k} {v}" for k, v in figures.items()))

    def values(name: str, column: str) -> list[float]:
        return [row[column] for row in rows.get(name, [])]

    targets = []
    for peer in PEERS:
        for ours in ("cluster-sqlite", "cluster-redis"):
            speed = ratio(values(ours, "tasks/s"), values(peer, "tasks/s"))
            targets.append(Target(f"{ours}: tasks/s against {peer}", speed, 1.0, at_least=True))
            wait = ratio(values(ours, "idle latency ms"), values(peer, "idle latency ms"))
            targets.append(Target(f"{ours}: idle latency against {peer}", wait, 1.0, at_least=False))
    for ours in ("cluster-sqlite", "cluster-redis"):
        idle = values(ours, "idle CPU %")
        targets.append(
            Target(f"{ours}: idle CPU %", statistics.median(idle) if idle else None, 2.0, at_least=False)
        )
    for engine, by_size in claims.items():
        small, large = (
            by_size["1000"]["us per claim and end"],
            by_size[str(sizes[-1])]["us per claim and end"],
        )
        text = f"{engine}: a claim with {sizes[-1]} waiting against 1000"
        targets.append(Target(text, large / small, 2.0 if not options.full else 2.5, at_least=False))
    show_targets(targets)
    record = {
        "machine": machine(),
        "systems": {
            name: {column: spread([row[column] for row in measured]) for column in columns}
            for name, measured in rows.items()
            if measured
        },
        "missing": missing,
        "claims": claims,
        "targets": record_of(targets),
    }
    keep(record, options, "cluster")


if __name__ == "__main__":
    main()
