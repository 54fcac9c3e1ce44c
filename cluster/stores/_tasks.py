"""Tasks, within a transaction of the SQLite engine: in the line, given, ended."""

from __future__ import annotations

import heapq
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final

from cluster.errors import QueueFull
from cluster.records import (
    MAX_PRIORITY,
    PRIORITY_STEP,
    Claim,
    Ending,
    Finish,
    Job,
    NewTask,
    Result,
    Task,
    TaskState,
    Turn,
    TurnEnd,
)
from cluster.stores._keys import lane_of, split_lane, task_cancelled, worker_lost
from cluster.stores._members import Members

TASK: Final = (
    "id, queue, op, args, state, priority, created, due, attempts, losses, max_losses, step, data, partition_key, "
    "ordering_key, coalesce_key, deadline, job, meta, merged_into, ended, result, error, worker, idx, weight, recorded"
)
# What can still be ended by force, or be found too late.
LIVING: Final = ("scheduled", "blocked", "ready", "held", "idle", "assigned")


class Tasks(Members):
    """The steps that concern tasks, and what they need to be told of their jobs."""

    # -- what `Jobs` says

    @abstractmethod
    def enlist(self, new: NewTask) -> int | None:
        """Count a new task in its job; how much it counts, or None when the job takes no more."""

    @abstractmethod
    def hold(self, task_id: str, job_id: str) -> None:
        """Hold a task that has just become ready, if its job is paused."""

    @abstractmethod
    def admit(self, task_id: str, job_id: str) -> bool:
        """Whether a ready task may be given to a worker now. If not, it is in the line no more."""

    @abstractmethod
    def turn_of(self, task: Task) -> Turn | None:
        """What a task is given besides, if it is a turn."""

    @abstractmethod
    def turn_job(self, task: Task) -> Job | None:
        """The job of which this task is the turn."""

    @abstractmethod
    def end_turn(self, task: Task, end: TurnEnd, fence: int, node: str) -> None:
        """Carry out what came of a job's turn."""

    @abstractmethod
    def keep_results(self, task: Task, results: Sequence[Result]) -> bytes | None:
        """Keep results of a task in its job; the first error among them."""

    @abstractmethod
    def fail_fast(self, job_id: str, error: bytes, by: str) -> None:
        """Fail a job that does not go on after a failure."""

    @abstractmethod
    def account(self, task_id: str, state: TaskState, by: str, error: bytes | None) -> None:
        """Tell a job that one of its tasks has ended."""

    @abstractmethod
    def unaccount(self, task_id: str) -> bool:
        """Take that back, for a task that is to be tried again; False when its job has ended."""

    @abstractmethod
    def settle_jobs(self) -> None:
        """Write the counts that were gathered, and finish the jobs of which all tasks have ended."""

    # -- submitting

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
                "SELECT sum(n) FROM tally WHERE grp = ? AND queue = ? "
                "AND state IN ('scheduled', 'blocked', 'ready', 'held')",
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
                "SELECT id FROM task WHERE grp = ? AND queue = ? AND op = ? AND coalesce_key = ? AND job = ? "
                "AND state = 'scheduled' AND due > ? LIMIT 1",
                (self.grp, new.queue, new.op, new.coalesce_key, new.job_id, self.now),
            ).fetchone()
        counted = 0 if absorber or not new.job_id else self.enlist(new)
        if counted is None:
            return "ended"
        # Most tasks go straight into the line. A row that is moved on costs half as much again.
        at_once = not absorber and new.ordering_key is None and due <= self.now and not counted
        self.write(new, due, counted, absorber[0] if absorber else "", at_once=at_once)
        if absorber:
            self.db.execute(
                "INSERT INTO absorbed VALUES (?, ?, ?, ?)",
                (self.grp, absorber[0], self._drawn["#seq"], new.args),
            )
            self.count("merged")
            return "merged"
        self.count("submitted")
        if not at_once:
            self.settle(new.task_id, new.queue, new.ordering_key, due=due, priority=new.priority)
        return "new"

    def write(
        self, new: NewTask, due: float, counted: int, absorber: str = "", *, at_once: bool = False
    ) -> None:
        """Write the row: of a task that is ready, or `settle` moves it on from "blocked"; triggers count that."""
        rank = None
        if at_once:
            rank = self.new_rank(new.priority)
            self.topics.add("ready")
        self.db.execute(
            "INSERT INTO task (grp, id, queue, op, lane, state, priority, seq, created, due, deadline, ended, "
            "max_losses, partition_key, ordering_key, coalesce_key, merged_into, job, counted, idx, weight, meta, "
            "args, rank, ready_since) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.grp, new.task_id, new.queue, new.op, lane_of(new.queue, new.op, new.partition_key),
                "merged" if absorber else "ready" if at_once else "blocked", new.priority, self.draw("#seq"),
                self.now, due, None if new.deadline is None else self.now + new.deadline,
                self.now if absorber else None,
                new.max_losses, new.partition_key, new.ordering_key, new.coalesce_key,
                absorber, new.job_id, counted, new.index, new.weight, new.meta, b"" if absorber else new.args,
                rank, self.now if at_once else None,
            ),
        )  # fmt: skip

    def settle(
        self, task_id: str, queue: str, ordering_key: str | None, *, due: float, priority: int
    ) -> None:
        """Put a waiting task where it belongs: behind its key, on the schedule, or in the line."""
        if ordering_key is not None:
            head = self.db.execute(
                "SELECT 1 FROM task WHERE grp = ? AND queue = ? AND ordering_key = ? AND ordering_key IS NOT NULL "
                "AND state IN ('scheduled', 'ready', 'held', 'assigned') AND id <> ? LIMIT 1",
                (self.grp, queue, ordering_key, task_id),
            ).fetchone()
            if head:
                self.db.execute(
                    "UPDATE task SET state = 'blocked', due = ?, seq = ? WHERE grp = ? AND id = ?",
                    (due, self.draw("#seq"), self.grp, task_id),
                )
                return
        self.schedule(task_id, due, priority)

    def schedule(self, task_id: str, due: float, priority: int) -> None:
        if due > self.now:
            self.topics.add("ready")  # it has a date, which workers wait for
            self.db.execute(
                "UPDATE task SET state = 'scheduled', due = ? WHERE grp = ? AND id = ?",
                (due, self.grp, task_id),
            )
        else:
            self.make_ready(task_id, priority)

    def make_ready(self, task_id: str, priority: int) -> None:
        self.back_in_line(task_id, self.new_rank(priority))

    def new_rank(self, priority: int) -> int:
        """A place in the line, behind all of its priority."""
        return self.draw("#rank") - max(-MAX_PRIORITY, min(MAX_PRIORITY, priority)) * PRIORITY_STEP

    def back_in_line(self, task_id: str, rank: int | None = None) -> None:
        """Ready, at a new place, or at the old one when it was given to somebody and never done."""
        self.topics.add("ready")
        job, counted = self.db.execute(
            "UPDATE task SET state = 'ready', rank = coalesce(?, rank), ready_since = ? WHERE grp = ? AND id = ? "
            "RETURNING job, counted",
            (rank, self.now, self.grp, task_id),
        ).fetchone()
        if counted:
            self.hold(task_id, job)

    def promote(self, limit: int) -> int:
        """Make ready what has a date that has come: scheduled tasks, and turns of dormant jobs."""
        due: list[tuple[float, int, str, int]] = []
        for condition in ("state = 'scheduled'", "state = 'idle' AND due > 0"):
            due += self.db.execute(
                f"SELECT due, seq, id, priority FROM task WHERE grp = ? AND {condition} AND due <= ? "  # noqa: S608
                "ORDER BY due, seq LIMIT ?",
                (self.grp, self.now, limit),
            ).fetchall()
        due.sort()
        for _, _, task_id, priority in due[:limit]:
            self.make_ready(task_id, priority)
        return len(due[:limit])

    def next_due(self) -> float | None:
        (due,) = self.db.execute(
            "SELECT min(due) FROM (SELECT min(due) AS due FROM task WHERE grp = ? AND state = 'scheduled' "
            "UNION ALL SELECT min(due) FROM task WHERE grp = ? AND state = 'idle' AND due > 0)",
            (self.grp, self.grp),
        ).fetchone()
        return None if due is None else max(0.0, due - self.now)

    # -- giving

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

    def heads(
        self, queue: str, ops: frozenset[str], buckets: frozenset[str] | None, count: int
    ) -> list[tuple[str, str]]:
        """The tasks to be run next in one queue, and their jobs."""
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
                        "SELECT rank, id, job FROM task WHERE grp = ? AND lane = ? AND state = 'ready' "
                        "ORDER BY rank LIMIT ?",
                        (self.grp, lane, count),
                    ).fetchall()
                )
        return [(task_id, job) for _, task_id, job in heapq.merge(*lines)][:count]

    def give(self, task_id: str, node: str, incarnation: str, lease: float, by: str) -> Claim:
        fence = self.draw("#fence")
        row = self.db.execute(
            f"UPDATE task SET state = 'assigned', worker = ? WHERE grp = ? AND id = ? RETURNING {TASK}",  # noqa: S608
            (node, self.grp, task_id),
        ).fetchone()
        task = self.task_in(row)
        self.db.execute(
            "INSERT OR REPLACE INTO assignment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.grp, task_id, node, incarnation, fence, task.attempts + 1, self.now, self.now + lease,
                int(not by), by or node,
            ),
        )  # fmt: skip
        self.count("claimed")
        self.note("assign", task_id, by or node, f"{node} {fence}")
        return Claim(task, fence, self.turn_of(task))

    # -- ending

    def running(self, task_id: str, node: str, fence: int) -> Task | None:
        """The task, if this execution of it counts."""
        row = self.db.execute(
            f"SELECT {TASK} FROM task AS t WHERE grp = ? AND id = ? AND state = 'assigned' AND EXISTS ("  # noqa: S608
            "SELECT 1 FROM assignment WHERE grp = t.grp AND task_id = t.id AND node = ? AND fence = ?)",
            (self.grp, task_id, node, fence),
        ).fetchone()
        return self.task_in(row) if row else None

    def keep(self, task: Task, step: str | None, data: bytes | None) -> None:
        if step is not None or data is not None:
            self.db.execute(
                "UPDATE task SET step = ?, data = ? WHERE grp = ? AND id = ?",
                (
                    task.step if step is None else step, task.data if data is None else data, self.grp, task.task_id,
                ),
            )  # fmt: skip

    def finish(self, node: str, end: Finish) -> bool:
        task = self.running(end.task_id, node, end.fence)
        if task is None or (end.ending == Ending.TURN and self.turn_job(task) is None):
            self.count("stale_completions")
            self.note("stale", end.task_id, node, f"{end.ending} {end.fence}")
            return False
        key = (self.grp, end.task_id)
        self.keep(task, end.step, end.data)
        match end.ending:
            case Ending.DONE:
                failure = self.keep_results(task, end.results)
                self.end(end.task_id, TaskState.DONE, node, result=end.payload, before=task.state)
                self.count("completed")
                self.note("done", end.task_id, node, str(end.fence))
                if failure is not None:
                    self.fail_fast(task.job_id, failure, node)
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
                self.schedule(task.task_id, self.now + end.after, task.priority)  # the head of its key still
                self.count("failed" if end.failed else "continued")
                self.note(
                    "retry" if end.failed else "next", end.task_id, node, f"{end.fence} {end.after:.3f}"
                )
            case Ending.LOST:
                self.lose(task, node, end.fence, "the process that ran it died", node)
            case Ending.RELEASED:
                self.drop(task.task_id, node, end.fence, "released", node)
            case Ending.CANCELLED:
                error = end.payload or task_cancelled(end.task_id)
                self.end(end.task_id, TaskState.CANCELLED, node, error)
                self.note("cancel", end.task_id, node)
            case Ending.TURN:
                assert end.turn is not None
                self.end_turn(task, end.turn, end.fence, node)
        for child in end.children:
            self.insert(child)
        self.settle_jobs()
        return True

    def end(
        self,
        task_id: str,
        state: TaskState,
        by: str = "",
        error: bytes | None = None,
        *,
        result: bytes | None = None,
        before: str | None = None,
    ) -> None:
        """Move a task to a terminal state, its ordering key on to the next task, and tell its job.

        `before` is its state, where that is known.
        """
        if before is None:
            before = self.state(task_id)
        self.db.execute("DELETE FROM assignment WHERE grp = ? AND task_id = ?", (self.grp, task_id))
        queue, key, job = self.db.execute(
            "UPDATE task SET state = ?, ended = ?, result = coalesce(?, result) WHERE grp = ? AND id = ? "
            "RETURNING queue, ordering_key, job",
            (state, self.now, result, self.grp, task_id),
        ).fetchone()
        if key is not None and before != TaskState.BLOCKED:  # it was the head of its key
            following = self.db.execute(
                "SELECT id, due, priority FROM task WHERE grp = ? AND queue = ? AND ordering_key = ? "
                "AND state = 'blocked' ORDER BY seq LIMIT 1",
                (self.grp, queue, key),
            ).fetchone()
            if following:
                self.settle(following[0], queue, key, due=following[1], priority=following[2])
        if job:
            self.account(task_id, state, by, error)

    def cancel(self, task_id: str) -> bool:
        """End a task that has not ended; those who run it are to be told."""
        if self.state(task_id) not in LIVING:
            return False
        self.ring_holders(task_id)
        self.end(task_id, TaskState.CANCELLED, error=task_cancelled(task_id))
        self.note("cancel", task_id)
        self.topics.add("ended")
        return True

    def ring_holders(self, task_id: str) -> None:
        for (node,) in self.db.execute(
            "SELECT node FROM assignment WHERE grp = ? AND task_id = ?", (self.grp, task_id)
        ):
            self.topics.add(f"node:{node}")

    def replay(self, task_id: str) -> bool:
        task = self.task(task_id)
        if task is None or task.state != TaskState.DEAD or (task.job_id and not self.unaccount(task_id)):
            return False
        self.db.execute(
            "UPDATE task SET attempts = 0, losses = 0, ended = NULL, error = NULL, deadline = NULL "
            "WHERE grp = ? AND id = ?",
            (self.grp, task_id),
        )
        self.settle(task_id, task.queue, task.ordering_key, due=self.now, priority=task.priority)
        self.count("replayed")
        self.note("replay", task_id)
        return True

    def die(self, task_id: str, error: bytes, by: str) -> None:
        self.db.execute("UPDATE task SET error = ? WHERE grp = ? AND id = ?", (error, self.grp, task_id))
        self.end(task_id, TaskState.DEAD, by, error)
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
        return self.task_in(row) if row else None

    def task_in(self, row: tuple[Any, ...]) -> Task:
        """The task of a row, with the arguments of those that it has absorbed."""
        more: tuple[bytes, ...] = ()
        if row[15] is not None:  # it has a coalesce key, so it may have absorbed others
            more = tuple(
                args
                for (args,) in self.db.execute(
                    "SELECT args FROM absorbed WHERE grp = ? AND task_id = ? ORDER BY seq",
                    (self.grp, row[0]),
                )
            )
        return task_of(row, more)


def task_of(row: tuple[Any, ...], more: tuple[bytes, ...] = ()) -> Task:
    (
        task_id, queue, op, args, state, priority, created, due, attempts, losses, max_losses, step, data,
        partition_key, ordering_key, coalesce_key, deadline, job, meta, merged_into, ended, result, error, worker,
        index, weight, recorded,
    ) = row  # fmt: skip
    return Task(
        task_id=task_id, queue=queue, op=op, args=args, state=TaskState(state), priority=priority, created=created,
        due=due, attempts=attempts, losses=losses, max_losses=max_losses, step=step, data=data,
        partition_key=partition_key, ordering_key=ordering_key, coalesce_key=coalesce_key, deadline=deadline,
        job_id=job, meta=meta, more=more, merged_into=merged_into, ended=ended, result=result, error=error,
        worker=worker, index=index, weight=weight, recorded=recorded,
    )  # fmt: skip
