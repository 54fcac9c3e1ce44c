"""The jobs of the Redis engine: its calls of that section of the contract."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from cluster._failpoints import fail_point
from cluster.records import Job, JobState, NewJob, NewSignal, NewTask, Result
from cluster.stores._packed import job_of, job_row, new_row, result_of, turn_row


class RedisJobs:
    """See `cluster.stores.base.Store`."""

    @abstractmethod
    def _call(self, call: str, /, **arguments: Any) -> Any:
        """Make a call of the script."""

    @abstractmethod
    def _page(self, call: str, limit: int, after: str, /, **wanted: Any) -> list[Any]:
        """Read rows of a call that goes on where it stopped."""

    @abstractmethod
    def declare_group(self) -> None:
        """Make the group known."""

    def start(self, job: NewJob, tasks: Sequence[NewTask] = ()) -> tuple[str, str]:
        job_id, outcome = self._call(
            "start",
            job=job_row(job),
            turn=turn_row(job),
            tasks=[new_row(replace(task, job_id=job.job_id)) for task in tasks],
        )
        fail_point("submit-committed")
        return job_id.decode(), outcome.decode()

    def close_job(self, job_id: str) -> bool:
        return bool(self._call("close_job", job_id=job_id))

    def feed(self, job_id: str) -> bool:
        return bool(self._call("feed", job_id=job_id))

    def signal(self, job_id: str, signal: NewSignal) -> str:
        return str(self._call("signal", job_id=job_id, signal=asdict(signal)).decode())

    def reply(self, job_id: str, signal_id: str) -> bytes | None:
        found = self._call("reply", job_id=job_id, signal_id=signal_id)
        return found[0] if found else None

    def change_job(self, job_id: str, state: JobState, *, by: str = "", reason: str = "") -> Job:
        return job_of(self._call("change_job", job_id=job_id, state=JobState(state), by=by, reason=reason))

    def delete_job(self, job_id: str) -> bool:
        return bool(self._call("delete_job", job_id=job_id))

    def job(self, job_id: str) -> Job | None:
        row = self._call("job", job_id=job_id)
        return job_of(row) if row else None

    def job_named(self, name: str) -> Job | None:
        row = self._call("job_named", folded=name.casefold())
        return job_of(row) if row else None

    def jobs(
        self,
        *,
        state: str | None = None,
        name: str | None = None,
        since: float | None = None,
        limit: int = 100,
        after: str = "",
    ) -> list[Job]:
        folded = None if name is None else name.casefold()
        rows = self._page("jobs", limit, after, state=state, folded=folded, since=since)
        return [job_of(row) for row in rows]

    def results(
        self, job_id: str, *, after: int = 0, limit: int = 1000, max_bytes: int = 8 << 20
    ) -> list[Result]:
        rows = self._call("results", job_id=job_id, after=after, limit=limit, max_bytes=max_bytes)
        return [result_of(row) for row in rows or ()]

    def results_at(
        self, job_id: str, low: int, high: int, *, limit: int = 1000, max_bytes: int = 8 << 20
    ) -> list[Result]:
        rows = self._call("results_at", job_id=job_id, low=low, high=high, limit=limit, max_bytes=max_bytes)
        return [result_of(row) for row in rows or ()]

    def acknowledge(self, job_id: str, seq: int, *, forget: bool = False) -> None:
        self._call("acknowledge", job_id=job_id, seq=seq, forget=forget)

    def checkpoint(
        self, node: str, task_id: str, fence: int, results: Sequence[Result], data: bytes | None = None
    ) -> bool:
        rows = [asdict(row) for row in results]
        return bool(
            self._call("checkpoint", node=node, task_id=task_id, fence=fence, results=rows, data=data)
        )
