"""The client's side of jobs: start them, signal them, wait for them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster import codecs
from cluster._attempts import submitted_with_room
from cluster._identity import whoami
from cluster._task_handle import TaskClient
from cluster._watch import Watch
from cluster.errors import (
    InvalidArguments,
    JobCancelled,
    JobNotFound,
    JobStateError,
    JobTimeout,
    OperationError,
    ResultTimeout,
    make_operation_error,
)
from cluster.jobs import new_job, split_data
from cluster.records import JOB_ENDED, Job, JobState, NewJob, NewTask, Result
from cluster.signals import CHANGES, Cancel, Finalize, Reply, Terminate, to_send, unpacked_reply
from net import values

if TYPE_CHECKING:
    from collections.abc import Sequence
    from weakref import WeakSet

    from cluster import jobs

log = logging.getLogger("cluster")


@dataclass(frozen=True, slots=True)
class JobResult:
    """What one input of a job came to: a value, or an error."""

    index: int
    value: Any = None
    error: OperationError | None = None
    seq: int = 0  # in order of arrival; read on after it with `results(after=seq)`


class Progress(NamedTuple):
    """How far a job is: inputs that are done, that have failed, and that there are by now."""

    done: int
    failed: int
    total: int


class JobHandle:
    """A job, wherever it is."""

    def __init__(self, client: JobClient, job_id: str, started: str = "") -> None:
        self._client = client
        self.job_id = job_id
        self.started = (
            started  # by `start`: "new"; "known": the id was there; "merged": one of this name lives
        )

    def __repr__(self) -> str:
        return f"<JobHandle {self.job_id}>"

    def result(self, timeout: float | None = None) -> Any:
        """Wait for what the job finished with. Blocks.

        Raises ResultTimeout, OperationError when it failed, JobCancelled when it was cancelled or terminated,
        JobNotFound.
        """
        job = self.wait(timeout)
        if job.state == JobState.FINISHED:
            return codecs.decode(job.result) if job.result else None
        if job.state == JobState.FAILED:
            failure = dict(values.loads(job.error)) if job.error else {}
            raise make_operation_error({"task_id": job.job_id, "operation": job.cls, **failure})
        raise JobCancelled(
            f"job {self.job_id} ({job.cls}) was {job.state}{f': {job.reason}' if job.reason else ''}",
            job_state=job.state.value,
        )

    def result_or_terminate(self, timeout: float | None = None) -> Any:
        """Wait for the result, and end the job if that does not come, or the caller is interrupted. Blocks.

        Raises JobTimeout, and what `result` raises.
        """
        try:
            return self.result(timeout)
        except ResultTimeout as error:
            self.terminate(f"not finished within {timeout:g} s")
            raise JobTimeout(f"{error}; it was terminated") from None
        except Exception:
            raise  # it has ended, or nothing is known of it
        except BaseException:  # Ctrl-C, a killed tasklet, somebody's gevent.Timeout
            self.terminate("its client was interrupted")
            raise

    def wait(self, timeout: float | None = None) -> Job:
        """Wait until the job has ended, and return its record. Blocks. Raises ResultTimeout, JobNotFound."""
        for job in self._changes(timeout):
            if job.state in JOB_ENDED:
                return job
        job = self.record()
        raise ResultTimeout(
            f"job {self.job_id} ({job.cls}) has not ended within {timeout:g} s; it is {job.state}, and {job.done} of "
            f"{job.total} have ended. See: tasklets cluster job {self.job_id}"
        )

    def _changes(self, timeout: float | None) -> Iterator[Job]:
        """The job's record, now and whenever it may have changed, until the time is over."""
        yield self.record()
        with Watch(self._client.store, f"job:{self.job_id}", timeout) as watch:
            while watch.wait():
                yield self.record()

    def results(self, *, after: int = 0, timeout: float | None = None) -> Iterator[JobResult]:
        """Yield results of inputs (tasks with an index) as they come, until the job has ended. Blocks.

        Those that arrived after the one with `seq` `after`; several may share a `seq`, so begin after it only when all
        of them were read. Raises ResultTimeout when none comes for `timeout` seconds, JobNotFound.
        """
        store = self._client.store
        with Watch(store, f"job:{self.job_id}", timeout) as watch:
            while True:
                ended = self.record().state in JOB_ENDED  # looked at first: nothing comes after the end
                page = store.results(self.job_id, after=after)
                for row in page:
                    after = row.seq
                    yield from unpacked_results(row)
                if page:
                    watch.begin_anew()
                elif ended:
                    return
                elif not watch.wait():
                    raise ResultTimeout(f"job {self.job_id} had no new result within {timeout:g} s")

    def record(self) -> Job:
        """The job as the store has it. Raises JobNotFound."""
        return self._client.job(self.job_id)

    @property
    def state(self) -> str:
        """Where it is now."""
        return self.record().state.value

    @property
    def data(self) -> dict[str, Any]:
        """What the job keeps, as of its last turn."""
        return split_data(self.record().data)[0]

    def progress(self) -> Progress:
        """How far it is."""
        job = self.record()
        return Progress(job.done, job.failed, job.total)

    def signal(self, signal: Any, *, timeout: float | None = 1.0, id: str | None = None) -> Reply:
        """Signal it; see `Client.signal`."""
        return self._client.signal(self.job_id, signal, timeout=timeout, id=id)

    def cancel(self, reason: str = "", *, timeout: float | None = 1.0) -> Reply:
        """Ask it to end; it may clean up first."""
        return self.signal(Cancel(reason), timeout=timeout)

    def terminate(self, reason: str = "") -> Reply:
        """End it at once, and kill what runs of it."""
        return self.signal(Terminate(reason))

    def abort(self, reason: str = "aborted", *, grace: float | None = None) -> Job:
        """Cancel it, and terminate it if it has not ended within the grace (the settings' `grace`). Blocks."""
        seconds = self._client.settings.grace if grace is None else grace
        if seconds > 0:
            self.cancel(reason, timeout=0)
        return self.wait_or_terminate(seconds, reason)

    def wait_or_terminate(self, timeout: float, reason: str = "") -> Job:
        """Wait until it has ended, and terminate it if it has not within the time. Blocks."""
        if timeout > 0:
            try:
                return self.wait(timeout)
            except ResultTimeout:
                pass
        self.terminate(reason)
        return self.record()

    def close(self) -> bool:
        """Say that no more tasks come from outside. False: it has ended."""
        return self._client.store.close_job(self.job_id)


class JobClient(TaskClient):
    """What a client can do with jobs, and with tasks of them."""

    evaluations: WeakSet[Any]  # directives that end with the client, by their `cancel(reason)`

    def start(
        self,
        what: type[jobs.Job] | str,
        params: Any = None,
        *,
        name: str | None = None,
        id: str | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> JobHandle:
        """Start a job of a class, or of the name of one ("module:Class"), and return at once.

        With a `name` that a living job has, that one is told (`on_restart`) and returned; with an `id` that is known
        nothing happens. Options are the fields of `cluster.records.NewJob`: `description`, `queue`, `priority`, `ttl`,
        `notify`, `fail_fast`, `meta`, `by`. `timeout` is for room in a full queue.

        Raises InvalidArguments, QueueFull, SubmitError, StoreFull.
        """
        options.setdefault("by", whoami())
        return self.start_job(new_job(what, params, id=id, name=name, **options), timeout=timeout)

    def start_job(
        self, job: NewJob, tasks: Sequence[NewTask] = (), *, timeout: float | None = None
    ) -> JobHandle:
        """Start a job from its record, with its first tasks: all of it, or nothing. Raises what `start` raises."""
        for what, data in (
            (f"the parameters of job {job.cls}", job.params),
            *((t.op, t.args) for t in tasks),
        ):
            self._check_size(what, data)
        started = submitted_with_room(
            self.store,
            f"job {job.job_id}",
            self.settings.submit_attempts,
            lambda: self.store.start(job, tasks),
            wanted=lambda _: len(tasks) + 1,
            timeout=timeout,
        )
        handle = JobHandle(self, *started)
        log.debug("job %s (%s) was started: %s", handle.job_id, job.cls, handle.started)
        return handle

    def run(
        self, what: type[jobs.Job] | str, params: Any = None, *, timeout: float | None = None, **options: Any
    ) -> Any:
        """Start a job and wait for its result; if that does not come in time, or we are interrupted, the job is ended.

        Raises JobTimeout, and what `start` and `JobHandle.result` raise. Blocks.
        """
        return self.start(what, params, **options).result_or_terminate(timeout)

    def signal(self, job: str, signal: Any, *, timeout: float | None = 1.0, id: str | None = None) -> Reply:
        """Send a signal to a job, by its id or its name, and wait for the reply. Blocks.

        A job takes a signal `id` once, however often it is sent, and answers the same. A `timeout` of 0 does not wait,
        None waits for ever. What became of it is the reply's `status`: see `Reply`.

        Raises InvalidArguments for what is no signal, JobStateError for a change that the job's state does not allow.
        """
        change = CHANGES.get(type(signal))
        if isinstance(signal, Finalize):
            found = self._find(job)
            if found is None or not self.store.delete_job(found.job_id):
                return Reply(status="not_found")
            return Reply(job=found)
        if change is not None:
            return self._change(job, change, signal.reason)
        return self._deliver(job, signal, timeout, id)

    def _change(self, job: str, state: JobState, reason: str) -> Reply:
        found = self._find(job)
        if found is None:
            return Reply(status="not_found")
        try:
            return Reply(job=self.store.change_job(found.job_id, state, by=whoami(), reason=reason))
        except JobNotFound:
            return Reply(status="not_found")
        except JobStateError as error:
            if error.job_state not in JOB_ENDED:
                raise
            return Reply(status="ended", job=self.store.job(found.job_id))

    def _deliver(self, job: str, signal: Any, timeout: float | None, signal_id: str | None) -> Reply:
        new = to_send(signal, signal_id=signal_id, by=whoami())
        self._check_size(f"the signal {new.name}", new.body)
        job_id, taken = job, self.store.signal(job, new)
        if taken == "missing":
            named = self.store.job_named(job)
            if named is not None:
                job_id, taken = named.job_id, self.store.signal(named.job_id, new)
        log.debug("job %s: signal %s (%s) was sent: %s", job_id, new.name, new.signal_id, taken)
        if taken == "missing":
            return Reply(status="not_found", signal_id=new.signal_id)
        with Watch(self.store, f"job:{job_id}", timeout) as watch:
            while True:
                record = self.store.job(job_id)
                reply = self.reply(job_id, new.signal_id)
                if reply is not None:
                    return reply
                if record is None:
                    return Reply(status="not_found", signal_id=new.signal_id)
                if record.state in JOB_ENDED:
                    # A job without a class obeys at once, and says nothing.
                    obeyed = not record.cls and taken == "taken" and new.kind != "signal"
                    return Reply(status="ok" if obeyed else "ended", signal_id=new.signal_id, job=record)
                if not record.cls:
                    return Reply(status="unknown", signal_id=new.signal_id, job=record)
                if not watch.wait():
                    return Reply(status="timeout", signal_id=new.signal_id, job=record)

    def reply(self, job_id: str, signal_id: str) -> Reply | None:
        """What a signal was answered, however long ago; None when it was not, or the job is forgotten."""
        data = self.store.reply(job_id, signal_id)
        return None if data is None else unpacked_reply(data, signal_id, self.store.job(job_id))

    def job(self, job: str) -> Job:
        """Read a job, by its id or its name. Raises JobNotFound."""
        found = self._find(job)
        if found is None:
            raise JobNotFound(
                f"{self.store.url} has no job {job!r} in group {self.store.group!r}; it never had, it was finalized, "
                "or its time to live is over. See: tasklets cluster jobs"
            )
        return found

    def jobs(
        self,
        *,
        state: str | None = None,
        name: str | None = None,
        since: float | None = None,
        limit: int = 100,
        after: str = "",
    ) -> list[Job]:
        """Read jobs by id, which is by age; those after the id `after`. `since` is a time of the store."""
        if state is not None and state not in list(JobState):
            raise InvalidArguments(f"{state!r} is no state of a job; those are: {', '.join(JobState)}")
        return self.store.jobs(state=state, name=name, since=since, limit=limit, after=after)

    def attach_job(self, job: str) -> JobHandle:
        """A handle on a job that somebody started, by its id or its name. Raises JobNotFound."""
        return JobHandle(self, self.job(job).job_id)

    def _find(self, job: str) -> Job | None:
        return self.store.job(job) or self.store.job_named(job)


def unpacked_results(row: Result) -> Iterator[JobResult]:
    """The results in a row of them."""
    if row.failed:
        error = make_operation_error({"task_id": row.task_id, **dict(values.loads(row.value))})
        for index in range(row.index, row.index + row.count):
            yield JobResult(index, error=error, seq=row.seq)
    else:
        for offset, value in enumerate(codecs.decode(row.value)):
            yield JobResult(row.index + offset, value, seq=row.seq)
