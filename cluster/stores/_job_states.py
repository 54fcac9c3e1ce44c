"""The states and turns of jobs, within a transaction of the SQLite engine.

A change of state that concerns many tasks reaches the first of them at once, and those that run all at once. The
job is marked as having leftovers then, and every claim and purge carries the change on. Until it has reached a task,
the claim that meets it does what is to be done, so no task of a job that is paused or has ended is ever given.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from cluster._failpoints import fail_point
from cluster.records import (
    JOB_ENDED,
    Job,
    JobState,
    Notify,
    Task,
    TaskState,
    Turn,
    TurnEnd,
)
from cluster.stores._inbox import Inboxes
from cluster.stores._tasks import LIVING

JOB: Final = (
    "id, cls, state, name, queue, description, created, updated, ended, by, reason, params, data, result, error, "
    "total, done, failed, closed, notify, fail_fast, ttl, meta, acknowledged, version, "
    "feed_ttl"
)
STEP: Final = 1000  # tasks that a change of a job's state reaches at once
_LIVING_OF_JOB: Final = "FROM task WHERE grp = ? AND job = ? AND counted > 0 AND ended IS NULL"
AT_REST: Final = (JobState.PAUSED, JobState.SUSPENDED)


class _Standing(NamedTuple):
    """What most steps need to know of a job."""

    state: JobState
    cls: str
    notify: Notify
    fail_fast: bool
    hidden: bool
    leftover: bool

    @property
    def ended(self) -> bool:
        return self.state in JOB_ENDED


class JobStates(Inboxes):
    """The steps that move a job and its turn, and have its tasks follow."""

    # -- reading

    def standing(self, job_id: str) -> _Standing | None:
        row = self.db.execute(
            "SELECT state, cls, notify, fail_fast, hidden, leftover FROM job WHERE grp = ? AND id = ?",
            (self.grp, job_id),
        ).fetchone()
        return _Standing(JobState(row[0]), row[1], Notify(row[2]), *row[3:]) if row else None

    def job(self, job_id: str) -> Job | None:
        found = self.jobs("id = ?", [job_id], "", 1)
        return found[0] if found else None

    def jobs(self, where: str, values: list[Any], order: str, limit: int) -> list[Job]:
        return [
            job_of(row)
            for row in self.db.execute(
                f"SELECT {JOB} FROM job JOIN job_body USING (grp, id) "  # noqa: S608  names and conditions of ours
                f"WHERE grp = ? AND hidden = 0 AND {where} {order} LIMIT ?",
                (self.grp, *values, limit),
            )
        ]

    # -- states

    def changed(self, job_id: str) -> None:
        self.topics.add(f"job:{job_id}")

    def set_state(self, job_id: str, old: JobState, new: JobState, by: str, reason: str) -> None:
        """Move a job between states in which it lives."""
        self.db.execute(
            "UPDATE job SET state = ?, by = ?, reason = ?, updated = ?, version = version + 1 "
            "WHERE grp = ? AND id = ?",
            (new, by, reason, self.now, self.grp, job_id),
        )
        self.note("job-state", job_id, by, f"{old} {new} {reason}")
        self.changed(job_id)
        self.carry_on(job_id, new, STEP)

    def end_job(
        self,
        job_id: str,
        state: JobState,
        *,
        by: str = "",
        reason: str = "",
        result: bytes | None = None,
        error: bytes | None = None,
        turn: TaskState = TaskState.CANCELLED,
    ) -> None:
        """End a living job, and its tasks; its turn, if it has not ended, gets this state."""
        old, cls = self.db.execute(
            "SELECT state, cls FROM job WHERE grp = ? AND id = ?", (self.grp, job_id)
        ).fetchone()
        self.db.execute(
            "UPDATE job SET state = ?, ended = ?, updated = ?, by = ?, reason = ?, forget_at = ? + ttl, "
            "fed_until = NULL, version = version + 1 WHERE grp = ? AND id = ?",
            (state, self.now, self.now, by, reason, self.now, self.grp, job_id),
        )
        self.db.execute(
            "UPDATE job_body SET result = coalesce(?, result), error = coalesce(?, error) WHERE grp = ? AND id = ?",
            (result, error, self.grp, job_id),
        )
        self.db.execute("DELETE FROM timer WHERE grp = ? AND job = ?", (self.grp, job_id))
        self.count(f"jobs_{state}")
        self.note("job-state", job_id, by, f"{old} {state} {reason}")
        self.changed(job_id)
        if cls and self.state(job_id) in LIVING:
            if turn == TaskState.CANCELLED:
                self.ring_holders(job_id)
            self.end(job_id, turn, by)
        self.carry_on(job_id, state, STEP)

    def carry_on(self, job_id: str, state: JobState, limit: int) -> int:
        """Let a change of a job's state reach so many more of its tasks; return how many it was."""
        if state in JOB_ENDED:
            running = self.db.execute(
                f"SELECT id {_LIVING_OF_JOB} AND state = 'assigned'", (self.grp, job_id)
            ).fetchall()
            for (task_id,) in running:
                self.ring_holders(task_id)
                self.note("cancel", task_id)
            # In the order of the states' names, which has the blocked ones before the heads that they wait for.
            waiting = self.db.execute(
                f"SELECT id, ordering_key {_LIVING_OF_JOB} AND state <> 'assigned' ORDER BY state LIMIT ?",
                (self.grp, job_id, limit),
            ).fetchall()
            # Nobody waits for those without a key, and their job is told nothing any more.
            self.db.executemany(
                "UPDATE task SET state = 'cancelled', ended = ? WHERE grp = ? AND id = ?",
                [(self.now, self.grp, task_id) for task_id, key in waiting if key is None],
            )
            for task_id in [i for i, key in waiting if key is not None] + [i for (i,) in running]:
                self.end(task_id, TaskState.CANCELLED)
            if waiting or running:
                self.topics.add("ended")
        else:
            old, new = ("ready", "held") if state in AT_REST else ("held", "ready")
            waiting = self.db.execute(
                f"SELECT id {_LIVING_OF_JOB} AND state = '{old}' ORDER BY rank LIMIT ?",
                (self.grp, job_id, limit),
            ).fetchall()
            self.db.executemany(
                "UPDATE task SET state = ?, ready_since = ? WHERE grp = ? AND id = ?",
                [(new, self.now, self.grp, task_id) for (task_id,) in waiting],
            )
            if waiting and new == "ready":
                self.topics.add("ready")
        self.db.execute(
            "UPDATE job SET leftover = ? WHERE grp = ? AND id = ?",
            (len(waiting) == limit, self.grp, job_id),
        )
        return len(waiting)

    def carry_on_all(self, limit: int) -> int:
        """The same for the jobs that have leftovers."""
        done = 0
        for job_id, state in self.db.execute(
            # By name: the planner takes the primary key, which every claim would pay for.
            "SELECT id, state FROM job INDEXED BY job_leftover WHERE grp = ? AND leftover = 1 LIMIT 20",
            (self.grp,),
        ).fetchall():
            if done < limit:
                done += self.carry_on(job_id, JobState(state), limit - done)
        return done

    def resuming(self) -> bool:
        """Whether some job is resumed, and the next claim will find more."""
        return (
            self.db.execute(
                "SELECT 1 FROM job INDEXED BY job_leftover WHERE grp = ? AND leftover = 1 AND state = 'running'",
                (self.grp,),
            ).fetchone()
            is not None
        )

    # -- turns

    def arrange_turn(self, job_id: str, *, over: bool = False) -> None:
        """Put a job's turn where it belongs: in the line when something is due for it, to rest when not.

        One that runs, or waits to be tried again, is left alone; `over`: it has just ended.
        """
        row = self.db.execute(
            "SELECT t.state, t.priority, j.state FROM task AS t JOIN job AS j ON j.grp = t.grp AND j.id = t.id "
            "WHERE t.grp = ? AND t.id = ? AND j.cls <> ''",
            (self.grp, job_id),
        ).fetchone()
        if row is None or (row[0] not in ("idle", "ready") and not over):
            return
        state, priority, of_job = row
        due = None if of_job == JobState.SUSPENDED else self.next_row(job_id)
        if due is not None and due <= self.now:
            if state != "ready":
                self.make_ready(job_id, priority)
            return
        if due is not None:
            self.topics.add("ready")  # a worker may sleep for longer
        self.db.execute(
            "UPDATE task SET state = 'idle', due = ? WHERE grp = ? AND id = ?", (due or 0.0, self.grp, job_id)
        )

    def admit(self, task_id: str, job_id: str) -> bool:
        job = self.standing(job_id)
        if job is None:
            return True
        if job.cls and task_id == job_id:
            if job.state == JobState.SUSPENDED:
                self.arrange_turn(job_id)
            return job.state != JobState.SUSPENDED
        if not self.counted(task_id):
            return True
        if job.ended:
            self.end(task_id, TaskState.CANCELLED)
            self.topics.add("ended")
        elif job.state in AT_REST:
            self.hold(task_id, job_id)
        return not job.ended and job.state not in AT_REST

    def turn_job(self, task: Task) -> Job | None:
        job = self.job(task.job_id) if task.task_id == task.job_id else None
        return job if job is not None and job.cls else None

    def turn_of(self, task: Task) -> Turn | None:
        job = self.turn_job(task)
        return None if job is None else Turn(job, self.take(task.job_id))

    def end_turn(self, task: Task, end: TurnEnd, fence: int, node: str) -> None:
        job_id = task.job_id
        job = self.standing(job_id)
        assert job is not None
        self.consume(job_id, end.consumed)
        self.answer(job_id, end.replies)
        self.set_timers(job_id, end.timers)
        fail_point("turn-half")
        self.db.execute("UPDATE job SET turns = turns + 1 WHERE grp = ? AND id = ?", (self.grp, job_id))
        if end.close:
            self.close(job_id)
        self.db.execute(
            "UPDATE job_body SET data = ?, result = coalesce(?, result), error = coalesce(?, error) "
            "WHERE grp = ? AND id = ?",
            (end.data, end.result, end.error, self.grp, job_id),
        )
        self.gather(job_id, node)
        self.count("turns")
        self.note("turn", job_id, node, f"{fence} {end.consumed}")
        state = end.state
        if state in (None, JobState.CREATED):
            state = JobState.RUNNING if job.state == JobState.CREATED else job.state
        if state in JOB_ENDED:
            self.end_job(job_id, state, by=node, reason=end.reason, turn=TaskState.DONE)
            return
        self.db.execute("DELETE FROM assignment WHERE grp = ? AND task_id = ?", (self.grp, job_id))
        self.db.execute(
            "UPDATE task SET attempts = 0, losses = 0 WHERE grp = ? AND id = ?", (self.grp, job_id)
        )
        if state is not None and state != job.state:
            self.set_state(job_id, job.state, state, node, end.reason)
        self.arrange_turn(job_id, over=True)

    def close(self, job_id: str) -> None:
        self.db.execute(
            "UPDATE job SET closed = 1, fed_until = NULL WHERE grp = ? AND id = ?", (self.grp, job_id)
        )

    # -- its tasks

    def counted(self, task_id: str) -> int:
        return int(
            self.db.execute(
                "SELECT counted FROM task WHERE grp = ? AND id = ?", (self.grp, task_id)
            ).fetchone()[0]
        )

    def hold(self, task_id: str, job_id: str) -> None:
        # While a job is resumed what comes is held too, so that it passes nothing that waits for that.
        job = self.standing(job_id)
        if job is not None and not job.ended and (job.state in AT_REST or job.leftover):
            self.db.execute("UPDATE task SET state = 'held' WHERE grp = ? AND id = ?", (self.grp, task_id))

    def fail_fast(self, job_id: str, error: bytes, by: str) -> None:
        job = self.standing(job_id)
        if job is not None and job.fail_fast and not job.ended:
            self.end_job(job_id, JobState.FAILED, by=by, reason="a task failed", error=error)

    def gather(self, job_id: str, by: str = "", **counts: int) -> None:
        """Note that a job's counts change, or that it may be complete; `settle_jobs` looks."""
        gathered = self._gathered.setdefault(job_id, {"total": 0, "done": 0, "failed": 0, "cancelled": 0})
        for name, count in counts.items():
            gathered[name] += count
        self._by[job_id] = by or self._by.get(job_id, "")


def job_of(row: tuple[Any, ...]) -> Job:
    values = list(row)
    values[2] = JobState(values[2])
    values[18] = bool(values[18])
    values[19] = Notify(values[19])
    values[20] = bool(values[20])
    return Job(*values)
