"""One transaction of the SQLite engine: the steps that its calls are made of."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from cluster.errors import LeaseLost, QueueFull, StoreError
from cluster.records import (
    MAX_PRIORITY,
    PRIORITY_STEP,
    Assignment,
    Claim,
    Ending,
    Finish,
    Guard,
    Lock,
    Member,
    NewTask,
    Repair,
    Survey,
    Task,
    TaskState,
)
from cluster.stores._keys import lane_of, split_lane, worker_lost

TASK: Final = (
    "id, queue, op, args, state, priority, created, due, attempts, losses, max_losses, step, data, partition_key, "
    "ordering_key, coalesce_key, deadline, job, meta, merged_into, ended, result, error, worker"
)
_ASSIGNMENT: Final = "task_id, node, incarnation, fence, attempt, since, lease_until, running, by"
_MEMBER: Final = (
    "node, incarnation, role, state, slots, running, host, pid, version, ops, queues, labels, spawn_id, joined, "
    "lease_until, idle_since"
)


class Turn:
    """One transaction: what the calls above are made of."""

    def __init__(self, db: sqlite3.Connection, grp: str, now: float) -> None:
        self.db = db
        self.grp = grp
        self.now = now
        self.readied = False  # a task became ready, or has a date: workers should hear of it
        self._drawn: dict[str, int] = {}  # "#name" -> its new value
        self._counts: dict[str, int] = {}  # name -> to be added
        self._events: list[tuple[str, float, str, str, str, str]] = []

    def flush(self) -> None:
        """Write what was gathered, just before the end."""
        if self._drawn:
            self.db.executemany(
                "INSERT OR REPLACE INTO counter VALUES (?, ?, ?)",
                [(self.grp, n, v) for n, v in self._drawn.items()],
            )
        if self._counts:
            self.db.executemany(
                "INSERT INTO counter VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
                [(self.grp, n, v) for n, v in self._counts.items()],
            )
        if self._events:
            self.db.executemany(
                "INSERT INTO event (grp, at, kind, subject, by, detail) VALUES (?, ?, ?, ?, ?, ?)",
                self._events,
            )

    def draw(self, name: str) -> int:
        value = self._drawn.get(name)
        if value is None:
            row = self.db.execute(
                "SELECT value FROM counter WHERE grp = ? AND name = ?", (self.grp, name)
            ).fetchone()
            value = row[0] if row else 0
        self._drawn[name] = value + 1
        return value + 1

    def count(self, name: str, by: int = 1) -> None:
        self._counts[name] = self._counts.get(name, 0) + by

    def note(self, kind: str, subject: str, by: str = "", detail: str = "") -> None:
        self._events.append((self.grp, self.now, kind, subject, by, detail))

    def declare(self) -> None:
        self.db.execute("INSERT OR IGNORE INTO grp VALUES (?)", (self.grp,))

    # -- what a call is conditional on

    def check(self, guard: Guard | None) -> None:
        if guard is None:
            return
        held = self.lock(guard.lock)
        if held is None or held.fence != guard.fence or held.lease_until <= self.now:
            who = (
                "nobody"
                if held is None or held.lease_until <= self.now
                else f"{held.holder} (fence {held.fence})"
            )
            raise LeaseLost(f"the lock {guard.lock!r} with fence {guard.fence} is lost: {who} holds it now")

    def check_member(self, node: str, incarnation: str) -> str:
        row = self.db.execute(
            "SELECT incarnation, lease_until, state FROM member WHERE grp = ? AND node = ?", (self.grp, node)
        ).fetchone()
        if row is None or row[0] != incarnation or row[1] <= self.now:
            raise LeaseLost(
                f"{node} is no member of group {self.grp!r} any more: its lease ran out; join again"
            )
        return str(row[2])

    def lock(self, name: str) -> Lock | None:
        row = self.db.execute(
            "SELECT name, holder, fence, lease_until FROM lock WHERE grp = ? AND name = ?", (self.grp, name)
        ).fetchone()
        return Lock(*row) if row else None

    # -- tasks

    def check_room(self, tasks: Sequence[NewTask]) -> None:
        coming: dict[str, int] = {}
        for task in tasks:
            coming[task.queue] = coming.get(task.queue, 0) + 1
        for queue, count in coming.items():
            row = self.db.execute(
                "SELECT max_waiting FROM queue WHERE grp = ? AND name = ?", (self.grp, queue)
            ).fetchone()
            if row is None or not row[0]:
                continue
            waiting = self.db.execute(
                "SELECT sum(n) FROM tally WHERE grp = ? AND queue = ? AND state IN ('scheduled', 'blocked', 'ready')",
                (self.grp, queue),
            ).fetchone()[0]
            room = max(0, row[0] - (waiting or 0))
            if count > room:
                # Those that are here already take no room: a repeated submission must succeed.
                known = sum(self.state(task.task_id) is not None for task in tasks if task.queue == queue)
                if count - known > room:
                    raise QueueFull(
                        f"queue {queue!r} takes {room} more tasks and not {count}: {waiting} wait, "
                        f"its limit is {row[0]}",
                        queue=queue,
                        room=room,
                    )

    def state(self, task_id: str) -> str | None:
        row = self.db.execute(
            "SELECT state FROM task WHERE grp = ? AND id = ?", (self.grp, task_id)
        ).fetchone()
        return row[0] if row else None

    def insert(self, new: NewTask) -> str:
        if self.state(new.task_id) is not None:
            self.count("duplicates")
            return "known"
        due = max(self.now, new.not_before if new.not_before is not None else self.now + new.delay)
        absorber = None
        if new.coalesce_key is not None:
            absorber = self.db.execute(
                "SELECT id FROM task WHERE grp = ? AND queue = ? AND op = ? AND coalesce_key = ? "
                "AND state = 'scheduled' AND due > ? LIMIT 1",
                (self.grp, new.queue, new.op, new.coalesce_key, self.now),
            ).fetchone()
        state = "merged" if absorber else "blocked"  # `settle` moves it on, and the triggers count that
        self.db.execute(
            "INSERT INTO task (grp, id, queue, op, lane, state, priority, seq, created, due, deadline, ended, "
            "max_losses, partition_key, ordering_key, coalesce_key, merged_into, job, meta, args) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.grp, new.task_id, new.queue, new.op, lane_of(new.queue, new.op, new.partition_key), state,
                new.priority, self.draw("#seq"), self.now, due,
                None if new.deadline is None else self.now + new.deadline, self.now if absorber else None,
                new.max_losses, new.partition_key, new.ordering_key, new.coalesce_key,
                absorber[0] if absorber else "", new.job_id, new.meta, b"" if absorber else new.args,
            ),
        )  # fmt: skip
        if absorber:
            self.db.execute(
                "INSERT INTO absorbed VALUES (?, ?, ?, ?)",
                (self.grp, absorber[0], self._drawn["#seq"], new.args),
            )
            self.count("merged")
            return "merged"
        self.count("submitted")
        self.settle(new.task_id, new.queue, new.ordering_key, due=due, priority=new.priority)
        return "new"

    def settle(
        self, task_id: str, queue: str, ordering_key: str | None, *, due: float, priority: int
    ) -> None:
        """Put a waiting task where it belongs: behind its key, on the schedule, or in the line."""
        if ordering_key is not None:
            head = self.db.execute(
                "SELECT 1 FROM task WHERE grp = ? AND queue = ? AND ordering_key = ? AND ordering_key IS NOT NULL "
                "AND state IN ('scheduled', 'ready', 'assigned') AND id <> ? LIMIT 1",
                (self.grp, queue, ordering_key, task_id),
            ).fetchone()
            if head:
                self.db.execute(
                    "UPDATE task SET state = 'blocked', due = ?, seq = ? WHERE grp = ? AND id = ?",
                    (due, self.draw("#seq"), self.grp, task_id),
                )
                return
        if due > self.now:
            self.readied = True
            self.db.execute(
                "UPDATE task SET state = 'scheduled', due = ? WHERE grp = ? AND id = ?",
                (due, self.grp, task_id),
            )
        else:
            self.make_ready(task_id, priority)

    def make_ready(self, task_id: str, priority: int) -> None:
        self.readied = True
        rank = self.draw("#rank") - max(-MAX_PRIORITY, min(MAX_PRIORITY, priority)) * PRIORITY_STEP
        self.db.execute(
            "UPDATE task SET state = 'ready', rank = ?, ready_since = ? WHERE grp = ? AND id = ?",
            (rank, self.now, self.grp, task_id),
        )

    def back_in_line(self, task_id: str) -> None:
        """Ready again, at the old place: it was given to somebody and never done."""
        self.readied = True
        self.db.execute("UPDATE task SET state = 'ready' WHERE grp = ? AND id = ?", (self.grp, task_id))

    def promote(self, limit: int) -> int:
        rows = self.db.execute(
            "SELECT id, priority FROM task WHERE grp = ? AND state = 'scheduled' AND due <= ? "
            "ORDER BY due, seq LIMIT ?",
            (self.grp, self.now, limit),
        ).fetchall()
        for task_id, priority in rows:
            self.make_ready(task_id, priority)
        return len(rows)

    def next_due(self) -> float | None:
        row = self.db.execute(
            "SELECT min(due) FROM task WHERE grp = ? AND state = 'scheduled'", (self.grp,)
        ).fetchone()
        return None if row[0] is None else max(0.0, row[0] - self.now)

    def lanes(self, prefix: str) -> list[str]:
        """The lines that somebody waits in. One step of an index for each, however long they are."""
        found: list[str] = []
        lane = prefix
        while True:
            row = self.db.execute(
                "SELECT min(lane) FROM task WHERE grp = ? AND state = 'ready' AND lane > ?", (self.grp, lane)
            ).fetchone()
            if row[0] is None or not row[0].startswith(prefix):
                return found
            lane = row[0]
            found.append(lane)

    def heads(self, queue: str, ops: frozenset[str], buckets: frozenset[str] | None, count: int) -> list[str]:
        """The tasks to be run next in one queue."""
        paused = self.db.execute(
            "SELECT paused FROM queue WHERE grp = ? AND name = ?", (self.grp, queue)
        ).fetchone()
        if paused and paused[0]:
            return []
        lines = []
        for lane in self.lanes(f"{queue}\x1f"):
            _, op, bucket = split_lane(lane)
            if op in ops and (not bucket or buckets is None or bucket in buckets):
                lines.append(
                    self.db.execute(
                        "SELECT rank, id FROM task WHERE grp = ? AND lane = ? AND state = 'ready' "
                        "ORDER BY rank LIMIT ?",
                        (self.grp, lane, count),
                    ).fetchall()
                )
        return [task_id for _, task_id in heapq.merge(*lines)][:count]

    def give(self, task_id: str, node: str, incarnation: str, lease: float, by: str) -> Claim:
        fence = self.draw("#fence")
        self.db.execute(
            "UPDATE task SET state = 'assigned', worker = ? WHERE grp = ? AND id = ?",
            (node, self.grp, task_id),
        )
        task = self.task(task_id)
        assert task is not None
        self.db.execute(
            "INSERT OR REPLACE INTO assignment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.grp, task_id, node, incarnation, fence, task.attempts + 1, self.now, self.now + lease,
                int(not by), by or node,
            ),
        )  # fmt: skip
        self.count("claimed")
        self.note("assign", task_id, by or node, f"{node} {fence}")
        return Claim(task, fence)

    def finish(self, node: str, end: Finish) -> bool:
        held = self.db.execute(
            "SELECT 1 FROM assignment WHERE grp = ? AND task_id = ? AND node = ? AND fence = ?",
            (self.grp, end.task_id, node, end.fence),
        ).fetchone()
        task = self.task(end.task_id) if held else None
        if task is None or task.state != TaskState.ASSIGNED:
            self.count("stale_completions")
            self.note("stale", end.task_id, node, f"{end.ending} {end.fence}")
            return False
        key = (self.grp, end.task_id)
        if end.step is not None or end.data is not None:
            self.db.execute(
                "UPDATE task SET step = ?, data = ? WHERE grp = ? AND id = ?",
                (
                    task.step if end.step is None else end.step,
                    task.data if end.data is None else end.data,
                    *key,
                ),
            )
        match end.ending:
            case Ending.DONE:
                self.db.execute("UPDATE task SET result = ? WHERE grp = ? AND id = ?", (end.payload, *key))
                self.end(end.task_id, TaskState.DONE)
                self.count("completed")
                self.note("done", end.task_id, node, str(end.fence))
            case Ending.DEAD:
                attempts = task.attempts + 1
                self.db.execute("UPDATE task SET attempts = ? WHERE grp = ? AND id = ?", (attempts, *key))
                self.die(end.task_id, end.payload, node)
            case Ending.AGAIN:
                self.db.execute("DELETE FROM assignment WHERE grp = ? AND task_id = ?", key)
                if end.failed:
                    self.db.execute(
                        "UPDATE task SET attempts = attempts + 1, error = ? WHERE grp = ? AND id = ?",
                        (end.payload, *key),
                    )
                elif end.step is not None:  # the next step has all its attempts before it
                    self.db.execute("UPDATE task SET attempts = 0 WHERE grp = ? AND id = ?", key)
                self.again(task, self.now + end.after)
                self.count("failed" if end.failed else "continued")
                self.note(
                    "retry" if end.failed else "next", end.task_id, node, f"{end.fence} {end.after:.3f}"
                )
            case Ending.LOST:
                self.lose(task, node, end.fence, "the process that ran it died", node)
            case Ending.RELEASED:
                self.drop(task.task_id, node, end.fence, "released", node)
            case Ending.CANCELLED:
                self.end(end.task_id, TaskState.CANCELLED)
                self.note("cancel", end.task_id, node)
        for child in end.children:
            self.insert(child)
        return True

    def again(self, task: Task, due: float) -> None:
        """Schedule the task's next execution. It keeps the head of its ordering key."""
        if due > self.now:
            self.readied = True
            self.db.execute(
                "UPDATE task SET state = 'scheduled', due = ? WHERE grp = ? AND id = ?",
                (due, self.grp, task.task_id),
            )
        else:
            self.make_ready(task.task_id, task.priority)

    def end(self, task_id: str, state: TaskState) -> None:
        """Move a task to a terminal state, and its ordering key on to the next task."""
        before = self.state(task_id)
        self.db.execute("DELETE FROM assignment WHERE grp = ? AND task_id = ?", (self.grp, task_id))
        queue, key = self.db.execute(
            "UPDATE task SET state = ?, ended = ? WHERE grp = ? AND id = ? RETURNING queue, ordering_key",
            (state, self.now, self.grp, task_id),
        ).fetchone()
        if key is not None and before != TaskState.BLOCKED:  # it was the head of its key
            following = self.db.execute(
                "SELECT id, due, priority FROM task WHERE grp = ? AND queue = ? AND ordering_key = ? "
                "AND state = 'blocked' ORDER BY seq LIMIT 1",
                (self.grp, queue, key),
            ).fetchone()
            if following:
                self.settle(following[0], queue, key, due=following[1], priority=following[2])

    def die(self, task_id: str, error: bytes, by: str) -> None:
        self.db.execute("UPDATE task SET error = ? WHERE grp = ? AND id = ?", (error, self.grp, task_id))
        self.end(task_id, TaskState.DEAD)
        self.count("dead")
        self.note("dead", task_id, by)

    def drop(self, task_id: str, node: str, fence: int, reason: str, by: str) -> bool:
        """Remove an assignment; True when the task has none left, and is ready again."""
        gone = self.db.execute(
            "DELETE FROM assignment WHERE grp = ? AND task_id = ? AND node = ? AND fence = ?",
            (self.grp, task_id, node, fence),
        ).rowcount
        if not gone:
            return False
        self.note("revoke", task_id, by, f"{node} {fence} {reason}")
        others = self.db.execute(
            "SELECT 1 FROM assignment WHERE grp = ? AND task_id = ? LIMIT 1", (self.grp, task_id)
        ).fetchone()
        if others or self.state(task_id) != TaskState.ASSIGNED:
            return False
        self.back_in_line(task_id)
        return True

    def lose(self, task: Task, node: str, fence: int, reason: str, by: str) -> bool:
        """Remove an assignment whose worker died with the task."""
        if not self.drop(task.task_id, node, fence, reason, by):
            return False
        losses = task.losses + 1
        self.count("lost")
        self.note("lost", task.task_id, node, reason)
        self.db.execute(
            "UPDATE task SET losses = ? WHERE grp = ? AND id = ?", (losses, self.grp, task.task_id)
        )
        if losses >= task.max_losses:
            self.die(task.task_id, worker_lost(task, losses, node, reason), by)
        return True

    def give_back(self, node: str, reason: str) -> None:
        """A member is gone, in good order: what it has is ready again."""
        for row in self.assignments("node = ?", node):
            self.drop(row.task_id, node, row.fence, reason, node)

    def task(self, task_id: str, whole: bool = False) -> Task | None:
        row = self.db.execute(
            f"SELECT {TASK} FROM task WHERE grp = ? AND id = ?",  # noqa: S608  names of ours
            (self.grp, task_id),
        ).fetchone()
        if row is None:
            return None
        more: tuple[bytes, ...] = ()
        if row[15] is not None:  # it has a coalesce key, so it may have absorbed others
            more = tuple(
                args
                for (args,) in self.db.execute(
                    "SELECT args FROM absorbed WHERE grp = ? AND task_id = ? ORDER BY seq",
                    (self.grp, task_id),
                )
            )
        return task_of(row, more)

    # -- members and assignments

    def members(self) -> list[Member]:
        return [
            member_of(row)
            for row in self.db.execute(
                f"SELECT {_MEMBER} FROM member WHERE grp = ? AND lease_until > ? ORDER BY joined, node",  # noqa: S608
                (self.grp, self.now),
            )
        ]

    def put_member(
        self, m: Member, ttl: float, *, joined: float | None = None, state: str | None = None
    ) -> None:
        self.db.execute(
            "INSERT OR REPLACE INTO member VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.grp, m.node, m.incarnation, m.role, state or m.state, m.slots, m.running, m.host, m.pid, m.version,
                "\n".join(m.ops), "\n".join(m.queues), "\n".join(m.labels), m.spawn_id,
                m.joined if joined is None else joined, self.now + ttl, m.idle_since,
            ),
        )  # fmt: skip

    def assignments(self, where: str, value: Any) -> list[Assignment]:
        return [
            assignment_of(row)
            for row in self.db.execute(
                f"SELECT {_ASSIGNMENT} FROM assignment WHERE grp = ? AND {where}",  # noqa: S608  conditions of ours
                (self.grp, value),
            )
        ]

    # -- the scanner

    def survey(self, limit: int, unknown_after: float) -> Survey:
        here = (self.grp, limit)
        expired_members = tuple(
            member_of(row)
            for row in self.db.execute(
                f"SELECT {_MEMBER} FROM member WHERE grp = ? AND lease_until <= ? LIMIT ?",  # noqa: S608
                (self.grp, self.now, limit),
            )
        )
        expired = tuple(
            assignment_of(row)
            for row in self.db.execute(
                f"SELECT {_ASSIGNMENT} FROM assignment AS a WHERE grp = ? AND (lease_until <= ? OR NOT EXISTS ("  # noqa: S608
                "SELECT 1 FROM member AS m WHERE m.grp = a.grp AND m.node = a.node AND m.incarnation = a.incarnation "
                "AND m.lease_until > ?)) LIMIT ?",
                (self.grp, self.now, self.now, limit),
            )
        )
        orphans = tuple(
            assignment_of(row)
            for row in self.db.execute(
                f"SELECT {_ASSIGNMENT} FROM assignment AS a WHERE grp = ? AND NOT EXISTS ("  # noqa: S608
                "SELECT 1 FROM task WHERE task.grp = a.grp AND task.id = a.task_id AND state = 'assigned') LIMIT ?",
                here,
            )
        )
        doubled = self.db.execute(
            "SELECT task_id FROM assignment WHERE grp = ? GROUP BY task_id HAVING count(*) > 1 LIMIT ?", here
        ).fetchall()
        unassigned = self.db.execute(
            "SELECT id FROM task AS t WHERE grp = ? AND state = 'assigned' AND NOT EXISTS ("
            "SELECT 1 FROM assignment AS a WHERE a.grp = t.grp AND a.task_id = t.id) LIMIT ?",
            here,
        ).fetchall()
        overdue = self.db.execute(
            "SELECT id FROM task WHERE grp = ? AND deadline IS NOT NULL AND ended IS NULL AND deadline <= ? LIMIT ?",
            (self.grp, self.now, limit),
        ).fetchall()
        return Survey(
            self.now,
            expired_members,
            expired,
            orphans,
            tuple(tuple(self.assignments("task_id = ?", task_id)) for (task_id,) in doubled),
            tuple(i for (i,) in unassigned),
            tuple(i for (i,) in overdue),
            tuple(self.unserved(limit, unknown_after)),
        )

    def unserved(self, limit: int, unknown_after: float) -> list[str]:
        known = {op for member in self.members() for op in member.ops}
        if not known:
            return []  # nobody is there at all: the work is kept
        found: list[str] = []
        for lane in self.lanes(""):
            if split_lane(lane)[1] not in known:
                found.extend(
                    i
                    for (i,) in self.db.execute(
                        "SELECT id FROM task WHERE grp = ? AND lane = ? AND state = 'ready' AND ready_since < ? "
                        "ORDER BY rank LIMIT ?",
                        (self.grp, lane, self.now - unknown_after, limit - len(found)),
                    )
                )
        return found

    def repair(self, one: Repair, by: str) -> bool:
        if one.kind == "expire":
            gone = self.db.execute(
                "DELETE FROM member WHERE grp = ? AND node = ? AND incarnation = ? AND lease_until <= ?",
                (self.grp, one.node, one.reason, self.now),
            ).rowcount
            if gone:
                self.note("expire", one.node, by)
            return bool(gone)
        if one.kind == "revoke":
            task = self.task(one.task_id)
            if one.loss and task is not None:
                return self.lose(task, one.node, one.fence, one.reason, by)
            before = len(self._events)
            self.drop(one.task_id, one.node, one.fence, one.reason, by)
            return len(self._events) > before
        state = self.state(one.task_id)
        if one.kind == "requeue":
            rows = self.db.execute(
                "SELECT 1 FROM assignment WHERE grp = ? AND task_id = ? LIMIT 1", (self.grp, one.task_id)
            ).fetchone()
            if state != TaskState.ASSIGNED or rows:
                return False
            self.back_in_line(one.task_id)
            self.count("requeued")
            self.note("requeue", one.task_id, by)
            return True
        if one.kind == "kill":
            if state not in ("scheduled", "blocked", "ready", "assigned"):
                return False
            self.die(one.task_id, one.payload, by)
            return True
        raise StoreError(f"{one.kind!r} is no repair")


def task_of(row: tuple[Any, ...], more: tuple[bytes, ...] = ()) -> Task:
    (
        task_id, queue, op, args, state, priority, created, due, attempts, losses, max_losses, step, data,
        partition_key, ordering_key, coalesce_key, deadline, job, meta, merged_into, ended, result, error, worker,
    ) = row  # fmt: skip
    return Task(
        task_id=task_id, queue=queue, op=op, args=args, state=TaskState(state), priority=priority, created=created,
        due=due, attempts=attempts, losses=losses, max_losses=max_losses, step=step, data=data,
        partition_key=partition_key, ordering_key=ordering_key, coalesce_key=coalesce_key, deadline=deadline,
        job_id=job, meta=meta, more=more, merged_into=merged_into, ended=ended, result=result, error=error,
        worker=worker,
    )  # fmt: skip


def assignment_of(row: tuple[Any, ...]) -> Assignment:
    task_id, node, incarnation, fence, attempt, since, lease_until, running, by = row
    return Assignment(task_id, node, incarnation, fence, attempt, since, lease_until, bool(running), by)


def member_of(row: tuple[Any, ...]) -> Member:
    values = list(row)
    for index in (9, 10, 11):
        values[index] = tuple(values[index].split("\n")) if values[index] else ()
    return Member(*values)
