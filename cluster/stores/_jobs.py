"""Jobs, within a transaction of the SQLite engine: their states, turns and counts, and what their tasks tell them.

The inbox and the results are in `_inbox`.

A change of state that concerns many tasks reaches the first of them at once, and those that run all at once. The
job is marked as having leftovers then, and every claim and purge carries the change on. Until it has reached a task,
the claim that meets it does what is to be done, so no task of a job that is paused or has ended is ever given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from cluster.records import (
    JOB_ENDED,
    Job,
    JobState,
    NewJob,
    NewSignal,
    NewTask,
    Notify,
    Task,
    TaskState,
    Turn,
    TurnEnd,
)
from cluster.stores import _refusals as refusals
from cluster.stores._inbox import Inboxes
from cluster.stores._tasks import LIVING

JOB: Final = (
    "id, cls, state, name, queue, description, created, updated, ended, by, reason, params, data, result, error, "
    "total, done, failed, closed, notify, fail_fast, ttl, meta, acknowledged, version"
)
STEP: Final = 1000  # tasks that a change of a job's state reaches at once
_LIVING_OF_JOB: Final = "FROM task WHERE grp = ? AND job = ? AND counted > 0 AND ended IS NULL"
_AT_REST: Final = (JobState.PAUSED, JobState.SUSPENDED)


class _Standing(NamedTuple):
    """What most steps need to know of a job."""

    state: JobState
    cls: str
    notify: Notify
    fail_fast: bool
    hidden: bool

    @property
    def ended(self) -> bool:
        return self.state in JOB_ENDED


class Jobs(Inboxes):
    """The steps that concern jobs."""

    # -- reading

    def standing(self, job_id: str) -> _Standing | None:
        row = self.db.execute(
            "SELECT state, cls, notify, fail_fast, hidden FROM job WHERE grp = ? AND id = ?",
            (self.grp, job_id),
        ).fetchone()
        return _Standing(JobState(row[0]), row[1], Notify(row[2]), row[3], row[4]) if row else None

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

    # -- starting

    def start(self, new: NewJob, tasks: Sequence[NewTask]) -> tuple[str, str]:
        before = self.standing(new.job_id)
        if before is not None and not before.hidden:
            return new.job_id, "known"
        if before is not None or (new.cls and self.state(new.job_id) is not None):
            raise refusals.id_taken(new.job_id, by_job=before is not None)
        merged = self.restarted(new.job_id)
        folded = new.name.casefold()
        if merged is None and folded:
            merged = self.db.execute(
                "SELECT id, cls FROM job WHERE grp = ? AND folded = ? AND folded <> '' AND ended IS NULL",
                (self.grp, folded),
            ).fetchone()
            if merged is not None and merged[1]:
                self.put(merged[0], "restart", new.job_id, body=new.params, by=new.by, once=new.job_id)
                self.arrange_turn(merged[0])
                self.changed(merged[0])
        if merged is not None:
            return merged[0], "merged"
        tasks = [replace(task, job_id=new.job_id) for task in tasks]
        self.check_room(tasks)
        self.declare()
        state = JobState.CREATED if new.cls else JobState.RUNNING
        self.db.execute(
            "INSERT INTO job (grp, id, cls, state, name, folded, queue, description, created, updated, by, reason, "
            "closed, notify, fail_fast, ttl) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?, ?, ?, ?)",
            (
                self.grp, new.job_id, new.cls, state, new.name, folded, new.queue, new.description, self.now,
                self.now, new.by, new.closed, new.notify, new.fail_fast, new.ttl,
            ),
        )  # fmt: skip
        self.db.execute(
            "INSERT INTO job_body VALUES (?, ?, ?, x'', NULL, NULL, ?)",
            (self.grp, new.job_id, new.params, new.meta),
        )
        self.count("jobs")
        self.note("job", new.job_id, new.by, new.cls)
        if new.cls:
            self.put(new.job_id, "start", new.job_id, body=new.params, by=new.by)
            turn = NewTask(
                new.cls,
                b"",
                new.queue,
                new.job_id,
                new.priority,
                max_losses=new.max_losses,
                job_id=new.job_id,
            )
            self.write(turn, self.now, 0)
            self.make_ready(new.job_id, new.priority)
        for task in tasks:
            self.insert(task)
        self.gather(new.job_id, new.by)
        self.settle_jobs()
        return new.job_id, "new"

    def close_job(self, job_id: str) -> bool:
        job = self.standing(job_id)
        if job is None or job.ended:
            return False
        self.db.execute("UPDATE job SET closed = 1 WHERE grp = ? AND id = ?", (self.grp, job_id))
        self.gather(job_id)
        return True

    # -- from outside

    def signal(self, job_id: str, signal: NewSignal) -> str:
        job = self.standing(job_id)
        if job is None or job.hidden:
            return "missing"
        if self.taken(job_id, signal.signal_id):
            return "known"
        if job.ended:
            return "ended"
        obeyed = not job.cls and signal.kind in ("cancel", "finish")
        self.put(
            job_id,
            signal.kind,
            signal.signal_id,
            name=signal.name,
            body=signal.body,
            by=signal.by,
            once=signal.signal_id,
            consumed=obeyed,
        )
        self.count("signals")
        self.note("signal", job_id, signal.by, f"{signal.kind} {signal.name} {signal.signal_id}")
        if obeyed:
            state = JobState.CANCELLED if signal.kind == "cancel" else JobState.FINISHED
            self.end_job(job_id, state, by=signal.by, reason=signal.name)
        else:
            self.arrange_turn(job_id)
            self.changed(job_id)
        return "taken"

    def change_job(self, job_id: str, state: JobState, by: str, reason: str) -> Job:
        job = self.standing(job_id)
        if job is None or job.hidden:
            raise refusals.job_missing(job_id, self.grp)
        if job.ended or state not in (JobState.RUNNING, *_AT_REST, JobState.TERMINATED):
            raise refusals.illegal_change(job_id, job.state, state)
        if state == JobState.TERMINATED:
            self.end_job(job_id, state, by=by, reason=reason)
        elif state != job.state and (job.state, state) != (JobState.CREATED, JobState.RUNNING):
            self.set_state(job_id, job.state, state, by, reason)
            self.arrange_turn(job_id)
        found = self.job(job_id)
        assert found is not None
        return found

    def delete_job(self, job_id: str) -> bool:
        job = self.standing(job_id)
        if job is None or job.hidden:
            return False
        if not job.ended:
            self.end_job(job_id, JobState.TERMINATED, reason="deleted")
        self.db.execute(
            "UPDATE job SET hidden = 1, folded = '', forget_at = ? WHERE grp = ? AND id = ?",
            (self.now, self.grp, job_id),
        )
        self.note("job-deleted", job_id)
        self.changed(job_id)
        self.forget(job_id, 2 * STEP)  # `purge` removes the rest of a large one
        return True

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
            "version = version + 1 WHERE grp = ? AND id = ?",
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
                f"SELECT id {_LIVING_OF_JOB} AND state <> 'assigned' ORDER BY state LIMIT ?",
                (self.grp, job_id, limit),
            ).fetchall()
            for (task_id,) in (*waiting, *running):
                self.end(task_id, TaskState.CANCELLED)
            if waiting or running:
                self.topics.add("ended")
        else:
            old, new = ("ready", "held") if state in _AT_REST else ("held", "ready")
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

    def admit(self, task: Task) -> tuple[bool, Turn | None]:
        job = self.standing(task.job_id)
        if job is None:
            return True, None
        if job.cls and task.task_id == task.job_id:
            if job.state == JobState.SUSPENDED:
                self.arrange_turn(task.job_id)
                return False, None
            return True, self.turn_of(task)
        if not self.counted(task.task_id):
            return True, None
        if job.ended:
            self.end(task.task_id, TaskState.CANCELLED)
            self.topics.add("ended")
        elif job.state in _AT_REST:
            self.hold(task.task_id, task.job_id)
        return not job.ended and job.state not in _AT_REST, None

    def turn_job(self, task: Task) -> Job | None:
        job = self.job(task.job_id) if task.task_id == task.job_id else None
        return job if job is not None and job.cls else None

    def turn_of(self, task: Task) -> Turn | None:
        """What a task is given besides, if it is a turn."""
        job = self.turn_job(task)
        return None if job is None else Turn(job, self.take(task.job_id))

    def end_turn(self, task: Task, end: TurnEnd, fence: int, node: str) -> None:
        job_id = task.job_id
        job = self.standing(job_id)
        assert job is not None
        self.consume(job_id, end.consumed)
        self.answer(job_id, end.replies)
        self.set_timers(job_id, end.timers)
        self.db.execute(
            "UPDATE job SET turns = turns + 1, closed = max(closed, ?) WHERE grp = ? AND id = ?",
            (end.close, self.grp, job_id),
        )
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

    # -- what its tasks tell

    def gather(self, job_id: str, by: str = "", **counts: int) -> None:
        """Note that a job's counts change, or that it may be complete; `settle_jobs` looks."""
        gathered = self._gathered.setdefault(job_id, {"total": 0, "done": 0, "failed": 0, "cancelled": 0})
        for name, count in counts.items():
            gathered[name] += count
        self._by[job_id] = by or self._by.get(job_id, "")

    def settle_jobs(self) -> None:
        while self._gathered:
            job_id, counts = self._gathered.popitem()
            row = self.db.execute(
                "UPDATE job SET total = total + ?, done = done + ?, failed = failed + ?, cancelled = cancelled + ?, "
                "told = CASE WHEN ? > 0 THEN 0 ELSE told END, updated = ?, version = version + 1 "
                "WHERE grp = ? AND id = ? "
                "RETURNING state, cls, notify, told, turns, closed AND total = done + failed + cancelled",
                (*counts.values(), counts["total"], self.now, self.grp, job_id),
            ).fetchone()
            if row is None:
                continue
            self.changed(job_id)
            state, cls, notify, told, turns, complete = row
            if state in JOB_ENDED or not complete:
                continue
            if not cls:
                self.end_job(job_id, JobState.FINISHED, by=self._by.get(job_id, ""))
            elif notify == Notify.LAST and not told and turns:
                # Not before its first turn, which may spawn the tasks that are meant.
                self.db.execute("UPDATE job SET told = 1 WHERE grp = ? AND id = ?", (self.grp, job_id))
                self.put(job_id, "all-ended", "")
                self.arrange_turn(job_id)

    def flush(self) -> None:
        self.settle_jobs()
        super().flush()

    def counted(self, task_id: str) -> int:
        return int(
            self.db.execute(
                "SELECT counted FROM task WHERE grp = ? AND id = ?", (self.grp, task_id)
            ).fetchone()[0]
        )

    def enlist(self, new: NewTask) -> int | None:
        job = self.standing(new.job_id)
        if job is None:
            return 0
        if job.ended:
            return None
        counted = 1 if new.index is None else new.weight
        self.gather(new.job_id, total=counted)
        return counted

    def hold(self, task_id: str, job_id: str) -> None:
        job = self.standing(job_id)
        if job is not None and job.state in _AT_REST:
            self.db.execute("UPDATE task SET state = 'held' WHERE grp = ? AND id = ?", (self.grp, task_id))

    def fail_fast(self, job_id: str, error: bytes, by: str) -> None:
        job = self.standing(job_id)
        if job is not None and job.fail_fast and not job.ended:
            self.end_job(job_id, JobState.FAILED, by=by, reason="a task failed", error=error)

    def account(self, task_id: str, state: TaskState, by: str, error: bytes | None) -> None:
        job_id, counted, recorded, unwell, op, index, weight, meta, result, failure = self.db.execute(
            "SELECT job, counted, recorded, unwell, op, idx, weight, meta, result, error FROM task "
            "WHERE grp = ? AND id = ?",
            (self.grp, task_id),
        ).fetchone()
        job = self.standing(job_id)
        if job is None or job.ended:
            return
        if job.cls and task_id == job_id:  # a turn that ended in another way than by the job's end
            ended = JobState.TERMINATED if state == TaskState.CANCELLED else JobState.FAILED
            self.end_job(job_id, ended, by=by, reason=f"its turn is {state}", error=error)
            return
        if not counted:
            return
        good = recorded - unwell
        match state:
            case TaskState.DONE:
                self.gather(job_id, by, done=counted - unwell, failed=unwell)
            case TaskState.DEAD:
                self.gather(job_id, by, done=good, failed=counted - good)
            case _:
                self.gather(job_id, by, done=good, failed=unwell, cancelled=counted - recorded)
        if index is not None and state != TaskState.DONE:
            self.fill_results(job_id, task_id, index, weight, error or failure or b"")
        if job.cls and job.notify == Notify.EACH:
            body = result if state == TaskState.DONE else error or failure
            self.put(
                job_id,
                "ended",
                task_id,
                name=op,
                body=body or b"",
                state=state,
                index=index,
                weight=weight,
                meta=meta,
            )
            self.arrange_turn(job_id)
        if state == TaskState.DEAD:
            self.fail_fast(job_id, error or b"", by)

    def unaccount(self, task_id: str) -> bool:
        job_id, counted, recorded, unwell = self.db.execute(
            "SELECT job, counted, recorded, unwell FROM task WHERE grp = ? AND id = ?", (self.grp, task_id)
        ).fetchone()
        job = self.standing(job_id)
        if job is None or (not counted and task_id != job_id):
            return True
        if job.ended:
            return False
        good = recorded - unwell
        self.gather(job_id, done=-good, failed=good - counted)
        self.db.execute(
            "DELETE FROM result WHERE grp = ? AND job = ? AND failed AND task_id = ?",
            (self.grp, job_id, task_id),
        )
        self.db.execute(
            "UPDATE task SET recorded = ?, unwell = 0 WHERE grp = ? AND id = ?", (good, self.grp, task_id)
        )
        return True

    # -- forgetting

    def purge_jobs(self, older_than: float, limit: int) -> int:
        """Forget jobs whose time is over, and old rows of the others; return how much was done, at most `limit`."""
        done = self.carry_on_all(limit)
        gone = self.db.execute(
            "SELECT id FROM (SELECT id FROM job WHERE grp = ? AND forget_at <= ? AND forget_at IS NOT NULL LIMIT ?) "
            "UNION ALL SELECT id FROM (SELECT id FROM job WHERE grp = ? AND ended < ? AND ended IS NOT NULL "
            "AND forget_at IS NULL LIMIT ?)",
            (self.grp, self.now, limit, self.grp, self.now - older_than, limit),
        ).fetchall()
        for (job_id,) in gone:
            if done < limit:
                done += self.forget(job_id, limit - done)
        return done + self.purge_inboxes(older_than, max(0, limit - done))

    def forget(self, job_id: str, limit: int) -> int:
        """Remove so much of an ended job; when it is less than the limit, it is gone."""
        done = self.carry_on(job_id, JobState.TERMINATED, limit)
        for table, condition in (
            ("task", "job = ? AND job <> '' AND (counted > 0 OR id = job)"),
            ("result", "job = ?"),
            ("inbox", "job = ?"),
        ):
            if done < limit:
                done += self.db.execute(
                    f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE grp = ? AND {condition} "  # noqa: S608
                    "LIMIT ?)",
                    (self.grp, job_id, limit - done),
                ).rowcount
        if done < limit:
            for table in ("job", "job_body"):
                self.db.execute(f"DELETE FROM {table} WHERE grp = ? AND id = ?", (self.grp, job_id))  # noqa: S608
            done += 1
        return done


def job_of(row: tuple[Any, ...]) -> Job:
    values = list(row)
    values[2] = JobState(values[2])
    values[18] = bool(values[18])
    values[19] = Notify(values[19])
    values[20] = bool(values[20])
    return Job(*values)
