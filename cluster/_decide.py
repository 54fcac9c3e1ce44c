"""Who gets what, who wins, what happens next: pure functions of (state, event, now).

No clock, no I/O, no randomness but what is passed in. The loops around them are `worker` and `coordinator`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cluster.policy import Policy
from cluster.records import BUCKETS, Assignment, Member, Repair, Statistics, Survey, Task
from net import values

# ------------------------------------------------------------------------------------------------ a failed execution


@dataclass(frozen=True, slots=True)
class Failure:
    """An execution that raised, as its executor reports it."""

    kind: str
    message: str
    traceback_text: str = ""
    transient: bool = True
    after: float | None = None


def delay_after(failure: Failure, policy: Policy, attempts: int, draw: Callable[[], float]) -> float | None:
    """Seconds until the next attempt, or None for a dead letter. `attempts` are those that failed before."""
    if not failure.transient or attempts >= policy.retry.max:
        return None
    return policy.retry.delay(attempts + 1, draw) if failure.after is None else max(0.0, failure.after)


def failure_bytes(failure: Failure, task: Task, worker: str) -> bytes:
    """What is kept of a failure."""
    return values.dumps(
        {
            "kind": failure.kind,
            "message": failure.message,
            "traceback": failure.traceback_text,
            "task_id": task.task_id,
            "operation": task.op,
            "worker": worker,
            "attempts": task.attempts + 1,
        }
    )


# ------------------------------------------------------------------------------------------------ repairs


def winner(rows: Sequence[Assignment]) -> Assignment:
    """Of several holders of a task, the one that keeps it: who runs it, then the older fence, then by name (G-18)."""
    return min(rows, key=lambda row: (not row.running, row.fence, row.node))


def repairs(survey: Survey, unknown_error: bytes, deadline_error: bytes) -> list[Repair]:
    """What to do about what is out of order.

    Each repair is right by itself, so they may be carried out in any number, again, and cut off anywhere.
    """
    decided: list[Repair] = []
    revoked = {(row.task_id, row.node, row.fence) for row in survey.orphans}
    decided.extend(Repair("revoke", *key, reason="its task has ended") for key in sorted(revoked))
    for row in survey.expired:
        key = (row.task_id, row.node, row.fence)
        if key not in revoked:
            revoked.add(key)
            decided.append(Repair("revoke", *key, loss=True, reason="its worker is gone"))
    for rows in survey.duplicates:
        left = [row for row in rows if (row.task_id, row.node, row.fence) not in revoked]
        keeper = winner(left) if left else None
        decided.extend(
            Repair("revoke", row.task_id, row.node, row.fence, reason="duplicate")
            for row in left
            if row is not keeper
        )
    decided.extend(Repair("requeue", task_id) for task_id in survey.unassigned)
    decided.extend(
        Repair("kill", task_id, reason="deadline", payload=deadline_error) for task_id in survey.overdue
    )
    overdue = set(survey.overdue)
    decided.extend(
        Repair("kill", task_id, reason="unknown operation", payload=unknown_error)
        for task_id in survey.unserved
        if task_id not in overdue
    )
    # Last, so that the tasks of a member are revoked while its entry still says that it was there.
    decided.extend(Repair("expire", node=m.node, reason=m.incarnation) for m in survey.expired_members)
    return decided


# ------------------------------------------------------------------------------------------------ how many nodes


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many workers a group is to have, and how much work each is for."""

    least: int = 1
    most: int = 1
    slots: int = 1  # of a worker that would be started
    tasks_per_slot: float = 4.0  # a backlog of more tasks than this for each slot wants more workers
    queues: Sequence[str] = ()  # that such a worker serves; all, if not said
    patience: float = 5.0  # seconds: a backlog that has waited for longer wants a slot for each task


@dataclass(frozen=True, slots=True)
class Backlog:
    """What there is to do for workers that would be started."""

    ready: int = 0
    running: int = 0
    waits: float = 0.0  # seconds that a task has waited whose turn it is next

    @property
    def tasks(self) -> int:
        """How many tasks that are."""
        return self.ready + self.running


def backlog_of(
    members: Iterable[Member],
    statistics: Statistics,
    queues: Mapping[str, Mapping[str, int]],
    bounds: Bounds,
) -> Backlog:
    """What runs, and what waits in the queues that such workers serve and that are not paused."""
    served = [
        queue
        for queue in statistics.tasks
        if (not bounds.queues or queue in bounds.queues) and not queues.get(queue, {}).get("paused")
    ]
    return Backlog(
        ready=sum(statistics.count("ready", queue) for queue in served),
        running=sum(m.running for m in members if m.role == "worker" and m.state != "draining"),
        waits=max((statistics.oldest_ready.get(queue, 0.0) for queue in served), default=0.0),
    )


def desired_workers(bounds: Bounds, backlog: Backlog) -> int:
    """The one answer to how many workers there should be.

    Short tasks are done before another worker would have started, so that a slot is for several of them. What has
    waited for long shows that these are not short.
    """
    tasks_per_slot = 1.0 if backlog.waits > bounds.patience else bounds.tasks_per_slot
    wanted = -(-backlog.tasks // max(1, int(bounds.slots * tasks_per_slot)))
    return max(bounds.least, min(bounds.most, wanted))


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about the number of workers."""

    spawn: int = 0
    retire: tuple[str, ...] = ()


def plan_workers(
    members: Iterable[Member], bounds: Bounds, backlog: Backlog, now: float, idle_retire: float
) -> Plan:
    """Start what is missing, those on their way counted; send away who is idle for long, the youngest first."""
    workers = [m for m in members if m.role == "worker" and m.state != "draining"]
    wanted = desired_workers(bounds, backlog)
    if len(workers) < wanted:
        return Plan(spawn=wanted - len(workers))
    idle = [
        m for m in workers if m.state == "up" and m.running == 0 and 0 < m.idle_since <= now - idle_retire
    ]
    surplus = len(workers) - wanted
    youngest_first = sorted(idle, key=lambda m: (-m.joined, m.node))
    return Plan(retire=tuple(m.node for m in youngest_first[:surplus]))


def spawn_pause(failures: int, base: float = 0.2, cap: float = 30.0) -> float:
    """Seconds to wait after so many starts in a row that failed (G-23)."""
    return 0.0 if failures <= 0 else min(cap, base * 2.0 ** min(failures - 1, 32))


def should_hand_over(leads: int, standbys: Iterable[int]) -> bool:
    """Whether a process that leads so many groups should leave one to a standby, given how many those lead (G-28).

    Only where that makes the numbers more even, so nothing goes to and fro.
    """
    return any(its + 1 < leads for its in standbys)


def lacks_coordinator(members: Iterable[Member]) -> bool:
    """True when nobody leads or is about to."""
    return not any(map(may_lead, members))


def may_lead(member: Member) -> bool:
    """True of a coordinator that leads, stands by, or is being started."""
    return member.role == "coordinator" and member.state != "draining"


# ------------------------------------------------------------------------------------------------ who gets what


def weight(node: str, thing: int | str) -> int:
    """How much a node prefers a thing: rendezvous hashing, so a node that leaves moves only what it had."""
    mixed = zlib.crc32(f"{thing}\0{node}".encode()) * 0x9E3779B1 & 0xFFFFFFFF
    mixed ^= mixed >> 15
    return mixed * 0x85EBCA77 & 0xFFFFFFFF


def preferred(thing: int | str, nodes: Iterable[str]) -> str:
    """The node that prefers a thing most."""
    return max(nodes, key=lambda node: (weight(node, thing), node))


def buckets_of(node: str, nodes: Sequence[str]) -> list[int]:
    """The buckets of partition keys that a node serves, of those that are there."""
    return [bucket for bucket in range(BUCKETS) if preferred(bucket, nodes) == node]


def share(total: int, index: int, count: int) -> range:
    """The index-th of `count` contiguous shares of 0..total-1; the first ones get one more (A-41)."""
    size, more = divmod(total, count)
    start = index * size + min(index, more)
    return range(start, start + size + (index < more))


def deal(members: Sequence[Member], held: Mapping[str, int], ready: int) -> dict[str, int]:
    """How many ready tasks to give to each worker: one at a time to whoever has most room (G-09)."""
    free = {m.node: m.slots - held.get(m.node, 0) for m in members if m.role == "worker" and m.state == "up"}
    dealt: dict[str, int] = {}
    for _ in range(ready):
        node = max(free, key=lambda name: (free[name], name), default=None)
        if node is None or free[node] <= 0:
            break
        free[node] -= 1
        dealt[node] = dealt.get(node, 0) + 1
    return dealt


class Turns:
    """Whose turn it is among queues with weights, smoothly: 4:2:1 gives a b a c a b a (A-22)."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        self.weights = dict(weights)
        self._credit = dict.fromkeys(weights, 0)

    def order(self) -> list[str]:
        """The queues, the one whose turn it is first."""
        return sorted(self.weights, key=lambda name: -(self._credit[name] + self.weights[name]))

    def served(self, name: str) -> None:
        """Note that a task of this queue was taken."""
        total = sum(self.weights.values())
        for other, its in self.weights.items():
            self._credit[other] = min(
                self._credit[other] + its, 4 * total
            )  # a queue without work saves up no claim
        self._credit[name] -= total


# ------------------------------------------------------------------------------------------------ why not


def why_waiting(
    task: Task, members: Sequence[Member], queues: Mapping[str, Mapping[str, int]], now: float, ahead: int
) -> str:
    """Say in a sentence why a task does not run."""
    workers = [m for m in members if m.role == "worker" and m.state == "up"]
    serving = [m for m in workers if task.queue in m.queues]
    knowing = [m for m in serving if task.op in m.ops]
    if task.state == "scheduled":
        again = f", after {task.attempts} failed attempts" if task.attempts else ""
        return f"its time comes in {max(0.0, task.due - now):.1f} s{again}"
    if task.state == "blocked":
        return f"another task with ordering key {task.ordering_key!r} is before it"
    if task.state == "assigned":
        return f"it runs on {task.worker}"
    if task.state == "held":
        return f"its job waits; let it go on with: tasklets cluster signal {task.job_id} resume"
    if task.state == "idle":
        wakes = f" until its time comes in {max(0.0, task.due - now):.1f} s" if task.due else ""
        return f"it is the turn of a job, and nothing is in the inbox{wakes}"
    if task.state != "ready":
        return f"it is {task.state}"
    if queues.get(task.queue, {}).get("paused"):
        return f"queue {task.queue!r} is paused; start it with: tasklets cluster config --resume {task.queue}"
    if not workers:
        return "there is no worker; start some with: tasklets cluster up"
    if not serving:
        return f"no worker serves queue {task.queue!r}; start one with: tasklets cluster worker --queue {task.queue}"
    if not knowing:
        return (
            f"no worker knows operation {task.op!r}; start one that imports its module: "
            "tasklets cluster worker --import ..."
        )
    busy = sum(m.running for m in knowing)
    slots = sum(m.slots for m in knowing)
    if busy >= slots:
        return f"all {slots} slots that could run it are busy, and {ahead} tasks of its queue are ready"
    return f"it is about to: {slots - busy} of {slots} slots are free"
