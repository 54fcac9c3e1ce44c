"""The records that a store keeps and the orders it takes: plain, read-only, the same for every engine.

Times are seconds of the store's clock. Arguments, results and errors are bytes here (see net.values).
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

SCHEMA: Final = 1  # of the records; a store that was made with another number is refused

# One level of priority overtakes up to so many tasks that became ready earlier; more it cannot, so nobody
# starves.
PRIORITY_STEP: Final = 1000
MAX_PRIORITY: Final = 1000
# Keys are hashed to so many buckets, and every bucket has one preferred member: enough that the shares of a
# dozen members differ by little, few enough that a claim can name the ones that it prefers.
BUCKETS: Final = 256


class TaskState(StrEnum):
    """Where a task is. The last four are terminal; only DEAD is ever left, by an explicit replay."""

    SCHEDULED = "scheduled"  # not before its time
    BLOCKED = "blocked"  # behind the head of its ordering key
    READY = "ready"
    ASSIGNED = "assigned"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"
    MERGED = "merged"  # absorbed by another task with the same coalesce key


WAITING: Final = (TaskState.SCHEDULED, TaskState.BLOCKED, TaskState.READY)
ENDED: Final = (TaskState.DONE, TaskState.DEAD, TaskState.CANCELLED, TaskState.MERGED)

_id_lock = threading.Lock()
_last_id = 0


def make_id() -> str:
    """Return a new id of 32 hex digits: unguessable, and sorted by the time when it was made (as UUIDv7)."""
    global _last_id
    with _id_lock:
        _last_id = max(_last_id + 1, time.time_ns() // 1000)
        stamp = _last_id
    return f"{stamp:016x}"[-14:] + os.urandom(9).hex()


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to be submitted."""

    op: str
    args: bytes
    queue: str = "default"
    task_id: str = field(default_factory=make_id)
    priority: int = 0
    delay: float = 0.0  # seconds from now until it may start
    not_before: float | None = None  # or the moment itself
    partition_key: str | None = None
    ordering_key: str | None = None
    coalesce_key: str | None = None
    deadline: float | None = None  # seconds from now; a task that has not ended by then is dead
    max_losses: int = 3  # how many workers it may take with it
    job_id: str = ""
    meta: bytes = b""  # handed back untouched


@dataclass(frozen=True, slots=True)
class Task:
    """A task as the store has it."""

    task_id: str
    queue: str
    op: str
    args: bytes
    state: TaskState
    priority: int = 0
    created: float = 0.0
    due: float = 0.0  # when it may start
    attempts: int = 0  # executions that failed
    losses: int = 0  # executions whose worker died
    max_losses: int = 3
    step: str = ""  # of the user's own state machine, durable
    data: bytes = b""  # what the operation keeps between its steps
    partition_key: str | None = None
    ordering_key: str | None = None
    coalesce_key: str | None = None
    deadline: float | None = None
    job_id: str = ""
    meta: bytes = b""
    more: tuple[bytes, ...] = ()  # arguments of the tasks that it absorbed
    merged_into: str = ""
    ended: float | None = None
    result: bytes | None = None
    error: bytes | None = None  # the last failure
    worker: str = ""  # who ran it last


@dataclass(frozen=True, slots=True)
class Claim:
    """A task that was given to a worker. The result counts only while the fence holds."""

    task: Task
    fence: int


class Ending(StrEnum):
    """What a worker says of an execution."""

    DONE = "done"  # `payload` is the result
    DEAD = "dead"  # `payload` is the error
    AGAIN = "again"  # `after` seconds later, with a new step, or as the next attempt
    LOST = "lost"  # the process that ran it died: a loss, and dead when there were too many
    RELEASED = "released"  # never started: back to where it was in the line
    CANCELLED = "cancelled"  # it obeyed a cancellation


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of one execution, as a worker reports it."""

    task_id: str
    fence: int
    ending: Ending
    payload: bytes = b""
    after: float = 0.0
    failed: bool = False  # AGAIN: counts as an attempt
    step: str | None = None  # AGAIN: None keeps the step
    data: bytes | None = None  # None keeps the data
    children: tuple[NewTask, ...] = ()  # become visible together with this end, or not at all


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who has which task. Keyed by both, so that doubles can exist, be seen, and be removed."""

    task_id: str
    node: str
    incarnation: str
    fence: int
    attempt: int
    since: float
    lease_until: float
    running: bool
    by: str  # the worker itself, or the coordinator that dealt it


@dataclass(frozen=True, slots=True)
class Member:
    """A node's leased entry in a group."""

    node: str
    incarnation: str
    role: str
    state: str = "up"  # joining | up | draining
    slots: int = 0
    running: int = 0
    host: str = ""
    pid: int = 0
    version: str = ""
    ops: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    spawn_id: str = ""
    joined: float = 0.0
    lease_until: float = 0.0
    idle_since: float = 0.0  # 0: busy


@dataclass(frozen=True, slots=True)
class Lock:
    """A named lock and who holds it. `fence` grows with every holder."""

    name: str
    holder: str
    fence: int
    lease_until: float


@dataclass(frozen=True, slots=True)
class Guard:
    """What a write is conditional on: that this lock is still held with this fence."""

    lock: str
    fence: int


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the bounded journal."""

    seq: str
    at: float
    kind: str
    subject: str
    by: str
    detail: str


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a heartbeat."""

    now: float
    held: tuple[tuple[str, int, bool], ...]  # task id, fence, whether it is marked as running
    state: str  # what the member is to be: a coordinator may have set it draining


@dataclass(frozen=True, slots=True)
class Survey:
    """What a scanner looks at: only what is out of order, and never more than so many of each."""

    now: float
    expired_members: tuple[Member, ...] = ()
    expired: tuple[Assignment, ...] = ()  # their lease, or their member, is gone
    orphans: tuple[Assignment, ...] = ()  # their task has ended, or does not exist
    duplicates: tuple[tuple[Assignment, ...], ...] = ()  # several holders of one task
    unassigned: tuple[str, ...] = ()  # tasks marked as assigned that nobody has
    overdue: tuple[str, ...] = ()  # past their deadline
    unserved: tuple[str, ...] = ()  # ready for too long with an operation that no member knows


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts: `tasks[queue][state]`, and what happened since the group was made."""

    tasks: dict[str, dict[str, int]]
    counters: dict[str, int]
    oldest_ready: dict[str, float] = field(default_factory=dict)

    def waiting(self, queue: str | None = None) -> int:
        """How many tasks wait to be run, in one queue or in all."""
        return sum(
            count
            for name, states in self.tasks.items()
            if queue is None or name == queue
            for state, count in states.items()
            if state in WAITING
        )

    def count(self, state: str, queue: str | None = None) -> int:
        """How many tasks are in a state, in one queue or in all."""
        return sum(s.get(state, 0) for name, s in self.tasks.items() if queue is None or name == queue)


@dataclass(frozen=True, slots=True)
class Repair:
    """One order of the coordinator: see `Store.repair`."""

    kind: str  # revoke | expire | requeue | kill
    task_id: str = ""
    node: str = ""
    fence: int = 0
    loss: bool = False  # revoke: the task lost its worker
    reason: str = ""
    payload: bytes = b""  # kill: the error of the dead letter
