"""What the tasks of a job tell it, within a transaction of the SQLite engine: counts, results, rows of its inbox."""

from __future__ import annotations

from cluster.records import (
    JOB_ENDED,
    JobState,
    NewTask,
    Notify,
    TaskState,
)
from cluster.stores._job_states import JobStates


class JobCounts(JobStates):
    """The steps that follow from the coming and ending of a job's tasks."""

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

    def enlist(self, new: NewTask) -> int | None:
        job = self.standing(new.job_id)
        if job is None:
            return 0
        if job.ended:
            return None
        counted = 1 if new.index is None else new.weight
        self.gather(new.job_id, total=counted)
        return counted

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
