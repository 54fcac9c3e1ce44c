"""Who works in chapters 12 to 15: a store in a temporary file, and processes that work for it.

    group = open_group("kitchen")
    group.start_workers("Ann", "Bob")
    group.client.submit(bake, "sponge").result(timeout=30)
    group.workers[group.busy()].kill()
    group.close()

It all ends with the notebook, in whatever way that ends: a small process of its own, the keeper, waits for that.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from tempfile import mkdtemp

from cluster import Client, Settings
from cluster.records import Event
from cluster.stores import Store, open_store
from cluster.testing import NodeProcess, Nodes, environ_of, wait_for
from easel import Picture, gantt

# So that one who was killed is missed within two seconds. The defaults are meant for networks.
QUICK = Settings(
    heartbeat=0.3, member_ttl=2.0, task_lease=4.0, scan=0.3, poll=0.3,
    coordinator_lease=2.0, coordinator_missing=1.0, coordinator_jitter=0.5, grace=2.0,
)  # fmt: skip


class Group:
    """A store, a client of it, and the processes that were started for it."""

    def __init__(self, module: str) -> None:
        self.folder = mkdtemp(prefix="tutorial-")
        self.store = f"sqlite:///{self.folder}/work.db"
        self.client = Client(self.store, settings=QUICK)
        self.nodes = Nodes(self.store, imports=[module] if module else [], settings=QUICK)
        self.workers: dict[str, NodeProcess] = {}
        self._keeper = subprocess.Popen(
            [sys.executable, __file__, self.store, self.folder], stdin=subprocess.PIPE, start_new_session=True
        )

    def start_workers(self, *names: str, options: Iterable[str] = ()) -> None:
        """Start workers, each with one slot, and one coordinator if there is none yet. They need a moment."""
        if not self.workers:
            self._told(self.nodes.coordinator())
        for name in names:
            self.workers[name] = self._told(self.nodes.worker("--name", name, "--no-heal", *options, slots=1))

    def busy(self) -> str:
        """Wait until some worker has something in hand, and return its name."""
        return wait_for(self.client.store.assignments, 60)[0].node

    def freeze(self, pid: int) -> None:
        """Let a process stand still, but not while it writes: the file would be locked for everybody."""
        while True:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.05)  # until it does
            with closing(sqlite3.connect(f"{self.folder}/work.db", timeout=1, isolation_level=None)) as file:
                try:
                    file.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    os.kill(pid, signal.SIGCONT)
                else:
                    return

    def start(self, role: str, *options: str) -> NodeProcess:
        """Start `tasklets cluster ROLE`, which stays."""
        return self._told(self.nodes.start(role, *options))

    def tell(self, *words: str) -> str:
        """Do what `tasklets cluster WORDS` does, for this group; return what it prints."""
        variables = {**os.environ, **environ_of(QUICK), "CLUSTER_STORE": self.store, "TMPDIR": self.folder}
        done = subprocess.run(
            [sys.executable, "-m", "cluster", *words],
            env=variables, cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    def _told(self, node: NodeProcess) -> NodeProcess:
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(f"{node.pid}\n".encode())
        self._keeper.stdin.flush()
        return node

    def close(self) -> None:
        """End all that works for it, and forget it."""
        self.nodes.close()
        end_members(self.client.store, {node.pid for node in self.nodes.nodes})
        self.client.close()
        self._keeper.kill()
        self._keeper.communicate()
        shutil.rmtree(self.folder)


def open_group(module: str = "") -> Group:
    """A store in a temporary file, whose workers will know the operations and jobs of `module`."""
    return Group(module)


def timeline(events: Iterable[Event], job_id: str, killed: Mapping[str, float] | None = None) -> Picture:
    """A picture of the journal from the start of a job on: who had what in hand, when the job was looked at, signals.

    `killed` says who was killed, and when by the store's clock: the journal knows only when that was noticed.
    """
    killed, events = killed or {}, list(events)
    number = next(n for n, event in enumerate(events) if event.kind == "job" and event.subject == job_id)
    since = next(event.at for event in events[number:] if event.kind == "assign")
    rows: dict[str, list[tuple[float, float]]] = {}
    marks: dict[str, dict[float, str]] = {name: {at - since: "killed"} for name, at in killed.items()}
    begun: dict[tuple[str, str], float] = {}
    for event in events:
        who = event.detail.split()[0] if event.kind in ("assign", "revoke") else event.by
        if event.kind == "assign" and event.at >= since:
            begun[event.subject, who] = event.at - since
        elif event.kind == "signal" and event.subject == job_id:
            rows["signals"] = []
            marks.setdefault("signals", {})[max(0.0, event.at - since)] = event.detail.split()[1]
        elif event.kind in ("done", "dead", "turn", "retry", "revoke") and (event.subject, who) in begun:
            end = killed[who] if event.kind == "revoke" and who in killed else event.at
            row = "the job" if event.subject == job_id else who
            rows.setdefault(row, []).append((begun.pop((event.subject, who)), end - since))
    kept = {
        name: rows[name] for name in sorted(rows, key=lambda name: (name not in ("signals", "the job"), name))
    }
    return gantt("who had what in hand, over the seconds", kept, marks)


def lives(events: Iterable[Event], now: float, killed: Mapping[str, float] | None = None) -> Picture:
    """A picture of the journal: who belonged to the group, from when to when, and who was killed."""
    killed, since, joined = killed or {}, None, dict[str, float]()
    rows: dict[str, list[tuple[float, float]]] = {}
    for event in events:
        since = event.at if since is None else since
        if event.kind == "join":
            joined[event.subject] = event.at - since
        elif event.kind in ("leave", "expire") and event.subject in joined:
            end = killed.get(event.subject, event.at) - since
            rows.setdefault(short(event.subject), []).append((joined.pop(event.subject), end))
    since = since or 0.0
    for node, at in joined.items():
        rows.setdefault(short(node), []).append((at, killed.get(node, now) - since))
    first = {name: (not name.startswith("coord"), spans[0][0]) for name, spans in rows.items()}
    marks = {short(name): {at - since: "killed"} for name, at in killed.items()}
    return gantt(
        "who was there, over the seconds",
        {name: rows[name] for name in sorted(rows, key=first.__getitem__)},
        marks,
    )


def short(node: str) -> str:
    """A node's name with four of its twelve digits."""
    return node[:-8] if node.count("-") == 1 and len(node) > 16 else node


# -- the keeper ----------------------------------------------------------------------------------------------


def end_members(store: Store, ended: Collection[int], patience: float = 10.0) -> None:
    """Let nobody start anybody any more, and kill who is there, and who still comes, but for those that have ended."""
    for key in ("bounds", "template:worker", "template:coordinator"):
        store.put(key, "")
    deadline = time.monotonic() + patience
    while (members := store.members()) and time.monotonic() < deadline:
        for member in members:
            if member.pid and member.pid not in ended:  # its number may be somebody else's by now
                with suppress(ProcessLookupError):
                    os.kill(member.pid, signal.SIGKILL)
                store.leave(member.node, member.incarnation, "the group is closed")
        time.sleep(0.05)


def keep(url: str, folder: str, pids: Collection[int]) -> None:
    """The notebook is gone: end what it has started."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    store = open_store(url)
    end_members(store, pids)
    store.close()
    shutil.rmtree(folder)


if __name__ == "__main__":
    started = {int(line) for line in sys.stdin}  # until the notebook ends
    keep(sys.argv[1], sys.argv[2], started)
