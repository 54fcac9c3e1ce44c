"""For tests of programs that use `cluster`: quick settings, real nodes with real faults, checks of the journal.

    with Client("memory:", workers=3, settings=FAST) as client: ...      everything in this process

    with Nodes("sqlite:///work.db", imports=["myops"]) as nodes:         real processes
        worker = nodes.worker()
        worker.kill()
        check_journal(client.events(limit=100_000))

    run = run_inline(Audit, {"shards": 20})                              a job class alone, without a store
    run.run_tasks(); assert run.state == "finished"

`Nodes(fail="worker-after-finish:3")` arms a fail point: the process kills itself when it passes it the third time.
FAIL_POINTS lists them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from cluster._inline_job import InlineJob as InlineJob, run_inline as run_inline
from cluster.records import Event
from cluster.settings import Settings

T = TypeVar("T")

# Periods short enough for tests, and long enough for a loaded machine.
FAST = Settings(
    heartbeat=0.2,
    member_ttl=1.0,
    task_lease=2.0,
    coordinator_lease=1.0,
    scan=0.2,
    coordinator_missing=0.5,
    coordinator_jitter=0.3,
    spawn_grace=8.0,
    backlog_wait=0.5,
    idle_retire=1.0,
    grace=2.0,
)

FAIL_POINTS = (
    "submit-first-row",
    "submit-committed",
    "worker-claimed",
    "worker-executed",
    "worker-before-finish",
    "finish-committed",
    "worker-after-finish",
    "worker-renewed",
    "coordinator-promoted",
    "coordinator-surveyed",
    "coordinator-repaired",
    "gateway-before-start",
    "gateway-started",
    "gateway-batch",
    "gateway-before-close",
    "gateway-closed",
)


def environ_of(settings: Settings) -> dict[str, str]:
    """The environment variables that give a process these settings."""
    return {f"CLUSTER_{name.upper()}": str(value) for name, value in asdict(settings).items()}


def wait_for(
    condition: Callable[[], T],
    timeout: float = 10.0,
    what: str = "",
    *,
    sleep: Callable[[float], object] = time.sleep,
) -> T:
    """Wait until a condition is true, and return what it is. Raises AssertionError.

    `sleep=gevent.sleep` lets nodes in this process run meanwhile; but gevent then reaps the children of all, so
    that the exit codes of real nodes are lost.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}; last seen: {value!r}")
        sleep(0.02)


class NodeProcess:
    """A worker or coordinator in a process of its own."""

    def __init__(self, command: list[str], environ: dict[str, str], folder: str | None, log: str) -> None:
        self.log = log
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ, cwd=folder,
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def name(self) -> str:
        """How it is called in its group."""
        words = self.process.args
        return str(words[list(words).index("--name") + 1])  # type: ignore[arg-type, index]

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        """SIGTERM: it drains."""
        self.process.send_signal(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def wait(self, timeout: float = 10.0) -> int:
        """Wait for its end; return the exit code."""
        return self.process.wait(timeout)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def output(self) -> str:
        """What it has printed."""
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()


class Nodes:
    """Real nodes of one group, ended together."""

    def __init__(
        self,
        store: str,
        group: str = "default",
        *,
        imports: Sequence[str] = (),
        folder: str | None = None,
        settings: Settings = FAST,
    ) -> None:
        self.store = store
        self.group = group
        self.imports = tuple(imports)
        self.folder = folder
        self.settings = settings
        self.nodes: list[NodeProcess] = []
        self._logs = tempfile.TemporaryDirectory(prefix="nodes-")
        self._count = 0

    def start(self, role: str, *options: str, fail: str = "", **environ: str) -> NodeProcess:
        """Start a node with options of `tasklets cluster ROLE`."""
        self._count += 1
        words = list(options)
        if "--name" not in words:
            words.extend(["--name", f"{role}-{self._count}"])
        command = [
            sys.executable,
            "-m",
            "cluster",
            role,
            "--store",
            self.store,
            "--group",
            self.group,
            *words,
        ]
        path = os.pathsep.join(filter(None, [self.folder, *map(os.path.abspath, sys.path)]))
        variables = {**os.environ, **environ_of(self.settings), "PYTHONPATH": path, **environ}
        variables.pop("CLUSTER_FAIL", None)
        if fail:
            variables["CLUSTER_FAIL"] = fail
        log = os.path.join(self._logs.name, f"{self._count}.log")
        node = NodeProcess(command, variables, self.folder, log)
        self.nodes.append(node)
        return node

    def worker(self, *options: str, slots: int = 2, **more: str) -> NodeProcess:
        """Start a worker."""
        imports = [word for module in self.imports for word in ("--import", module)]
        return self.start("worker", "--slots", str(slots), *imports, *options, **more)

    def coordinator(self, *options: str, **more: str) -> NodeProcess:
        """Start a coordinator."""
        return self.start("coordinator", *options, **more)

    def close(self) -> None:
        """End them all, and wait for their end."""
        for node in self.nodes:
            if node.alive:
                node.thaw()
                node.process.kill()
        for node in self.nodes:
            node.process.wait()
        self._logs.cleanup()

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ------------------------------------------------------------------------------------------------ the journal


def check_journal(events: Iterable[Event], *, task_ids: Iterable[str] = ()) -> dict[str, Any]:
    """Check what has to be true of every run, whatever was killed; return counts. Raises AssertionError.

    Every task was recorded as done or dead at most once (exactly once, for `task_ids`), and was assigned before;
    fences never come back; of one lock no two holders overlap.
    """
    events = list(events)
    ends: dict[str, int] = {}
    assigned: dict[str, int] = {}
    fences: set[int] = set()
    for event in events:
        if event.kind in ("done", "dead"):
            ends[event.subject] = ends.get(event.subject, 0) + 1
            assert event.kind == "dead" or event.subject in assigned, (
                f"{event.subject} ended and was never assigned"
            )
        elif event.kind == "replay":
            ends.pop(event.subject, None)
        elif event.kind == "assign":
            assigned[event.subject] = assigned.get(event.subject, 0) + 1
            fence = int(event.detail.rsplit(" ", 1)[1])
            assert fence not in fences, f"fence {fence} was given twice"
            fences.add(fence)
    twice = {task: count for task, count in ends.items() if count > 1}
    assert not twice, f"recorded more than once: {twice}"
    missing = [task for task in task_ids if task not in ends]
    assert not missing, f"never recorded: {missing[:10]} and {max(0, len(missing) - 10)} more"
    holders = lock_history(events, "coordinator")
    return {"recorded": len(ends), "executions": sum(assigned.values()), "leaders": len(holders)}


def lock_history(events: Iterable[Event], name: str) -> list[tuple[str, int]]:
    """Who held a lock, with which fence, one after the other. Raises AssertionError when fences do not grow."""
    found = [(e.by, int(e.detail)) for e in events if e.kind == "lock" and e.subject == name]
    fences = [fence for _, fence in found]
    assert fences == sorted(set(fences)), f"the fences of lock {name!r} do not grow: {fences}"
    return found


def all_events(store: Any) -> list[Event]:
    """The whole journal."""
    found: list[Event] = []
    while page := store.events(after=found[-1].seq if found else "", limit=1000):
        found.extend(page)
    return found
