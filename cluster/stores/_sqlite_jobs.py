"""The jobs of the SQLite engine: its calls of that section of the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster._failpoints import fail_point
from cluster.records import Job, JobState, NewJob, NewSignal, NewTask, Result
from cluster.stores._sqlite_calls import Calls
from cluster.stores._transaction import Transaction


class SqliteJobs(Calls):
    """See `cluster.stores.base.Store`."""

    def start(self, job: NewJob, tasks: Sequence[NewTask] = ()) -> tuple[str, str]:
        outcome = self._call(lambda t: t.start(job, tasks))
        fail_point("submit-committed")
        return outcome

    def close_job(self, job_id: str) -> bool:
        return self._call(lambda t: t.close_job(job_id))

    def feed(self, job_id: str) -> bool:
        return self._call(lambda t: t.feed(job_id))

    def signal(self, job_id: str, signal: NewSignal) -> str:
        return self._call(lambda t: t.signal(job_id, signal))

    def reply(self, job_id: str, signal_id: str) -> bytes | None:
        return self._call(lambda t: t.reply(job_id, signal_id), writes=False)

    def change_job(self, job_id: str, state: JobState, *, by: str = "", reason: str = "") -> Job:
        return self._call(lambda t: t.change_job(job_id, JobState(state), by, reason))

    def delete_job(self, job_id: str) -> bool:
        return self._call(lambda t: t.delete_job(job_id))

    def job(self, job_id: str) -> Job | None:
        return self._call(lambda t: t.job(job_id), writes=False)

    def job_named(self, name: str) -> Job | None:
        def named(t: Transaction) -> Job | None:
            condition, values = "folded = ? AND folded <> ''", [name.casefold()]
            found = t.jobs(f"{condition} AND ended IS NULL", values, "", 1)
            found = found or t.jobs(condition, values, "ORDER BY created DESC", 1)
            return found[0] if found else None

        return self._call(named, writes=False)

    def jobs(
        self,
        *,
        state: str | None = None,
        name: str | None = None,
        since: float | None = None,
        limit: int = 100,
        after: str = "",
    ) -> list[Job]:
        where, values = "id > ?", list[Any]([after])
        if state is not None:
            where, values = f"{where} AND state = ?", [*values, state]
        if name is not None:
            where, values = f"{where} AND folded = ?", [*values, name.casefold()]
            if name:
                where += " AND folded <> ''"  # said too, so that SQLite takes the index of the names
        if since is not None:
            where, values = f"{where} AND created >= ?", [*values, since]
        return self._call(lambda t: t.jobs(where, values, "ORDER BY id", limit), writes=False)

    def results(
        self, job_id: str, *, after: int = 0, limit: int = 1000, max_bytes: int = 8 << 20
    ) -> list[Result]:
        return self._call(lambda t: t.results(job_id, after, limit, max_bytes), writes=False)

    def results_at(
        self, job_id: str, low: int, high: int, *, limit: int = 1000, max_bytes: int = 8 << 20
    ) -> list[Result]:
        return self._call(lambda t: t.results_at(job_id, low, high, limit, max_bytes), writes=False)

    def acknowledge(self, job_id: str, seq: int, *, forget: bool = False) -> None:
        self._call(lambda t: t.acknowledge(job_id, seq, forget))

    def checkpoint(
        self, node: str, task_id: str, fence: int, results: Sequence[Result], data: bytes | None = None
    ) -> bool:
        def checkpoint(t: Transaction) -> bool:
            task = t.running(task_id, node, fence)
            if task is None:
                return False
            t.keep(task, None, data)
            failure = t.keep_results(task, results)
            if failure is not None:
                t.fail_fast(task.job_id, failure, node)
            return True

        return self._call(checkpoint)
