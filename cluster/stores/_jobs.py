"""Jobs from outside, within a transaction of the SQLite engine: started, signalled, changed, forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cluster.records import (
    Job,
    JobState,
    NewJob,
    NewSignal,
    NewTask,
)
from cluster.stores import _refusals as refusals
from cluster.stores._inbox import restart_of
from cluster.stores._job_counts import JobCounts
from cluster.stores._job_states import AT_REST, STEP


class Jobs(JobCounts):
    """The steps that are calls of the contract."""

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
                self.put(
                    merged[0], "restart", new.job_id, body=new.params, by=new.by, once=restart_of(new.job_id)
                )
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
            "closed, notify, fail_fast, ttl, feed_ttl, fed_until) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?, ?, ?, ?, ?, ?)",
            (
                self.grp, new.job_id, new.cls, state, new.name, folded, new.queue, new.description, self.now,
                self.now, new.by, new.closed, new.notify, new.fail_fast, new.ttl, new.feed_ttl,
                None if new.closed or new.feed_ttl is None else self.now + new.feed_ttl,
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
        self.close(job_id)
        self.gather(job_id)
        return True

    def feed(self, job_id: str) -> bool:
        changed = self.db.execute(
            "UPDATE job SET fed_until = ? + feed_ttl WHERE grp = ? AND id = ? AND fed_until IS NOT NULL",
            (self.now, self.grp, job_id),
        )
        return changed.rowcount > 0

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
            self.end_job(job_id, state, by=signal.by, reason=signal.reason)
        else:
            self.arrange_turn(job_id)
            self.changed(job_id)
        return "taken"

    def change_job(self, job_id: str, state: JobState, by: str, reason: str) -> Job:
        job = self.standing(job_id)
        if job is None or job.hidden:
            raise refusals.job_missing(job_id, self.grp)
        if job.ended or state not in (JobState.RUNNING, *AT_REST, JobState.TERMINATED):
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

    # -- forgetting

    def purge_jobs(self, older_than: float, limit: int) -> int:
        """Forget jobs whose time is over, and old rows of the others; return how much was done, at most `limit`."""
        done = self.carry_on_all(limit)
        for job_id, ttl in self.db.execute(
            "SELECT id, feed_ttl FROM job WHERE grp = ? AND fed_until <= ? AND fed_until IS NOT NULL LIMIT ?",
            (self.grp, self.now, max(0, limit - done)),
        ).fetchall():
            self.end_job(job_id, JobState.TERMINATED, reason=f"nobody has fed it for {ttl:g} s")
            done += 1
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
