"""A group on this machine for an example: a coordinator and some workers, started here and ended with the block.

    with open_group("examples.cluster.notify", workers=2) as group:
        group.client.submit(...)

What is started are the commands `tasklets cluster coordinator` and `tasklets cluster worker`; a program of yours finds
them running, and opens only the client. The store is a file that is gone afterwards, or what CLUSTER_STORE names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory

from cluster import Client

COMMAND = [sys.executable, "-m", "cluster"]
# So that an example need not wait long until a worker that was killed is missed. The defaults are meant for networks.
QUICK = ("heartbeat=0.3", "member_ttl=2", "task_lease=4", "scan=0.3", "coordinator_lease=2", "grace=2")


@dataclass(slots=True)
class Group:
    """A client, and the processes that work for it."""

    client: Client
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)


@contextmanager
def open_group(module: str, *, workers: int = 2) -> Iterator[Group]:
    """Start a group whose workers know the operations and jobs of `module`; end it with the block."""
    with TemporaryDirectory(prefix="example-") as folder:
        store = os.environ.get("CLUSTER_STORE") or f"sqlite:///{folder}/work.db"
        common = ["--store", store, *(word for setting in QUICK for word in ("--set", setting))]
        worker = [*COMMAND, "worker", *common, "--slots", "1", "--no-heal", "--import", module]
        quiet = subprocess.DEVNULL  # what a coordinator logs is not what the examples are about
        nodes = [subprocess.Popen([*COMMAND, "coordinator", *common], stderr=quiet)]
        try:
            nodes += [subprocess.Popen(worker) for _ in range(workers)]
            with Client(store) as client:
                yield Group(client, nodes[1:])
        finally:
            for node in nodes:
                node.terminate()
            for node in nodes:
                node.wait()
