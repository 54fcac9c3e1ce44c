"""The records that a store keeps and the orders it takes: plain, read-only, the same for every engine.

Times are seconds of the store's clock. Arguments, results and errors are bytes here (see net.values).
"""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from cluster.errors import InvalidArguments

SCHEMA: Final = 3  # of the records; a store that was made with another number is refused

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
    HELD = "held"  # its job is paused
    IDLE = "idle"  # a job's turn while nothing is due in its inbox; costs nothing, and is not waiting
    ASSIGNED = "assigned"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"
    MERGED = "merged"  # absorbed by another task with the same coalesce key


WAITING: Final = (TaskState.SCHEDULED, TaskState.BLOCKED, TaskState.READY, TaskState.HELD)
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


# Ids, names and keys become parts of a store's keys, with control characters between them, so none may hold any: two
# things would become one. A lone surrogate can be stored by nobody. The records refuse both, so no engine meets them.
_UNFIT: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check_names(**names: str | None) -> None:
    """Refuse what is no text, or holds a control character. Raises InvalidArguments."""
    try:
        fit = not _UNFIT.search("".join(filter(None, names.values())))
    except TypeError:
        fit = False
    if fit:
        return
    for what, name in names.items():
        if name is not None and (not isinstance(name, str) or _UNFIT.search(name)):
            raise InvalidArguments(
                f"{what} is {name!r}, and has to be a text without control characters: stores put these between names"
            )


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
    index: int | None = None  # of its first input; then its job keeps its results by index
    weight: int = 1  # how many inputs it stands for: the job's indices [index, index + weight)

    def __post_init__(self) -> None:
        check_names(
            task_id=self.task_id,
            op=self.op,
            queue=self.queue,
            job_id=self.job_id,
            partition_key=self.partition_key,
            ordering_key=self.ordering_key,
            coalesce_key=self.coalesce_key,
        )


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
    index: int | None = None
    weight: int = 1
    recorded: int = 0  # how many of its inputs have results by now
    more: tuple[bytes, ...] = ()  # arguments of the tasks that it absorbed
    merged_into: str = ""
    ended: float | None = None
    result: bytes | None = None
    error: bytes | None = None  # the last failure
    worker: str = ""  # who ran it last


# ------------------------------------------------------------------------------------------------ jobs


class JobState(StrEnum):
    """Where a job is. The last four are terminal and never change."""

    CREATED = "created"  # its first turn has not ended
    RUNNING = "running"
    PAUSED = "paused"  # its tasks wait; signals are answered
    SUSPENDED = "suspended"  # its tasks and its inbox wait
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"  # it was asked to end, and could clean up
    TERMINATED = "terminated"  # it was ended without a word of its own


JOB_ENDED: Final = (JobState.FINISHED, JobState.FAILED, JobState.CANCELLED, JobState.TERMINATED)


class Notify(StrEnum):
    """When the end of a job's task puts a row into its inbox."""

    EACH = "each"  # each end
    LAST = (
        "last"  # once: when the job is closed and all of its tasks have ended; anew if more came after that
    )
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be started. Without a class it has no turns: it counts its tasks and keeps their results."""

    cls: str = ""  # the operation that runs its turns
    params: bytes = b""
    job_id: str = field(default_factory=make_id)
    name: str = ""  # of living jobs only one has it; compared without regard to case
    queue: str = "default"  # of its turns
    priority: int = 1  # of its turns
    description: str = ""
    by: str = ""  # user@program@host
    notify: Notify = Notify.EACH
    fail_fast: bool = False  # the first task that is dead, or result that is failed, fails the job
    closed: bool = False  # no tasks come but from its own turns and tasks
    ttl: float | None = None  # seconds that it is kept after its end; None: the store's retention
    meta: bytes = b""  # handed back untouched
    max_losses: int = 3  # of one turn
    feed_ttl: float | None = None  # seconds: while it is not closed, nobody may stop feeding it for so long

    def __post_init__(self) -> None:
        check_names(job_id=self.job_id, cls=self.cls, name=self.name, queue=self.queue)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the store has it. The counts are of inputs: a task without an index is one."""

    job_id: str
    cls: str
    state: JobState
    name: str = ""
    queue: str = "default"
    description: str = ""
    created: float = 0.0
    updated: float = 0.0
    ended: float | None = None
    by: str = ""  # who made the last change of its state
    reason: str = ""  # what was said about it
    params: bytes = b""
    data: bytes = b""  # what its turns keep
    result: bytes | None = None
    error: bytes | None = None
    total: int = 0
    done: int = 0
    failed: int = 0
    closed: bool = False
    notify: Notify = Notify.EACH
    fail_fast: bool = False
    ttl: float | None = None
    meta: bytes = b""
    acknowledged: int = 0  # the results up to this sequence number were taken by their reader
    version: int = 0  # grows with every change
    feed_ttl: float | None = None


@dataclass(frozen=True, slots=True)
class Inbox:
    """A row of a job's inbox. Rows are applied in the order of `seq`, each once."""

    seq: int
    kind: str  # start | restart | signal | cancel | finish | timer | ended (a task) | all-ended
    row_id: (
        str  # of a signal: its id, which is taken once; of a timer: its name; of an ended task: the task's id
    )
    name: str = ""  # of a signal: its type; of an ended task: the operation
    body: bytes = b""  # of a signal and a timer: its contents; of an ended task: its result or error
    state: str = ""  # of an ended task: done | dead | cancelled
    index: int | None = None  # of an ended task
    weight: int = 1
    meta: bytes = b""  # of an ended task: its own
    by: str = ""  # of a signal: who sent it
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Turn:
    """What a job's turn is given: the job, and what has come for it since the last."""

    job: Job
    inbox: tuple[Inbox, ...]


@dataclass(frozen=True, slots=True)
class Timer:
    """A row to be put into the job's own inbox after so many seconds. A timer of the same name is replaced."""

    name: str
    after: float | None  # None removes it
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """What came of a turn. All of it happens, or nothing."""

    consumed: int  # the rows up to this sequence number are done with
    data: bytes
    state: JobState | None = None  # a new state; an end cancels all tasks of the job
    reason: str = ""
    result: bytes | None = None
    error: bytes | None = None
    replies: tuple[tuple[str, bytes], ...] = ()  # signal id, what it is answered
    timers: tuple[Timer, ...] = ()
    close: bool = False


@dataclass(frozen=True, slots=True)
class NewSignal:
    """A signal to be put into a job's inbox. A job takes a signal id once, however often it is sent."""

    kind: str = "signal"  # signal | cancel | finish
    name: str = ""
    body: bytes = b""
    signal_id: str = field(default_factory=make_id)
    by: str = ""
    reason: str = ""  # cancel and finish: what is said about it, which `body` has too, for the job's class

    def __post_init__(self) -> None:
        check_names(signal_id=self.signal_id, name=self.name)


@dataclass(frozen=True, slots=True)
class Result:
    """The results of the inputs [index, index + count) of a job: a packed list of them, or one error for all."""

    index: int
    count: int
    value: bytes
    failed: bool = False
    seq: int = 0  # in order of arrival; drawn by the store
    task_id: str = ""


# ------------------------------------------------------------------------------------------------ executions


@dataclass(frozen=True, slots=True)
class Claim:
    """A task that was given to a worker. The result counts only while the fence holds."""

    task: Task
    fence: int
    turn: Turn | None = None  # when the task is a job's turn


class Ending(StrEnum):
    """What a worker says of an execution."""

    DONE = "done"  # `payload` is the result
    DEAD = "dead"  # `payload` is the error
    AGAIN = "again"  # `after` seconds later, with a new step, or as the next attempt
    LOST = "lost"  # the process that ran it died: a loss, and dead when there were too many
    RELEASED = "released"  # never started: back to where it was in the line
    CANCELLED = "cancelled"  # it obeyed a cancellation
    TURN = "turn"  # of a job's turn: `turn` says what came of it


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
    results: tuple[
        Result, ...
    ] = ()  # DONE, of a task with an index: results of the inputs that have none yet
    turn: TurnEnd | None = None  # TURN

    def __post_init__(self) -> None:
        if (self.ending == Ending.TURN) != (self.turn is not None):
            raise ValueError(
                f"the end of {self.task_id} is {str(self.ending)!r} with{'' if self.turn else 'out'} a TurnEnd; "
                "Ending.TURN, and no other, has one: Finish(..., Ending.TURN, turn=TurnEnd(...))"
            )


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

    def __post_init__(self) -> None:
        check_names(
            node=self.node,
            ops="".join(self.ops),
            queues="".join(self.queues),
            labels="".join(self.labels),
        )


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
