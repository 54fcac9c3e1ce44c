"""What a process calls itself: as a node of a group, and as who asks for something."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from cluster.records import Member
from cluster.settings import Settings
from cluster.stores import Store, open_store


def release() -> str:
    """The version of this program, for the members' list."""
    try:
        return version("tasklets")
    except PackageNotFoundError:
        return "unknown"


def new_name(prefix: str = "") -> str:
    """A name that no other node has: host, pid, and something random for those that share a pid."""
    return f"{prefix}{socket.gethostname()}-{os.getpid()}-{os.urandom(2).hex()}"


def whoami() -> str:
    """Who does something to a job: user@program@host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container without a name for the number
        user = str(os.getuid())
    program = os.path.basename(sys.argv[0] if sys.argv and sys.argv[0] else "python")
    return f"{user}@{program}@{socket.gethostname()}"


def new_incarnation() -> str:
    """A life of a node: one that comes back after its lease has run out is another one."""
    return os.urandom(8).hex()


def new_member(
    name: str,
    role: str,
    *,
    slots: int = 0,
    queues: Sequence[str] = (),
    labels: Sequence[str] = (),
    spawn_id: str = "",
) -> Member:
    """The entry of this process."""
    return Member(
        name, new_incarnation(), role, slots=slots, host=socket.gethostname(), pid=os.getpid(), version=release(),
        queues=tuple(queues), labels=tuple(labels), spawn_id=spawn_id,
    )  # fmt: skip


def opened(store: str | Store, group: str, settings: Settings) -> Store:
    """The store that a url names, or the one that is open already."""
    return open_store(store, group, patience=settings.store_patience) if isinstance(store, str) else store
