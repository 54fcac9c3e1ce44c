"""Records of the store, as messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import UNSET

from cluster import codecs, shell
from cluster.gateway import submitting
from cluster.gateway.messages import JobView, ResultView, TaskView, plain
from cluster.records import Job, JobState, Member, Result, Task
from cluster.stores import Store
from net import values


def job_view(job: Job, detail: str = "") -> JobView:
    """A job as it is shown."""
    return JobView(
        id=job.job_id,
        state=job.state.value,
        name=job.name,
        class_=job.cls,
        operation=str(submitting.of_meta(job.meta).get("what", "")) or job.cls,
        queue=job.queue,
        description=job.description,
        total=job.total,
        done=job.done,
        failed=job.failed,
        closed=job.closed,
        created=job.created,
        started=None if job.state == JobState.CREATED else job.created,
        updated=job.updated,
        ended=job.ended,
        by=job.by,
        reason=job.reason,
        detail=detail,
        result=_decoded(job.result),
        error=error_of(job.error),
        version=job.version,
        url=f"/jobs/{job.job_id}",
        results=f"/jobs/{job.job_id}/results",
    )


def why(store: Store, job: Job) -> str:
    """Why a job does not go on, in a sentence; empty when it does, or has ended."""
    if job.state == JobState.PAUSED:
        return "it is paused: its tasks wait until it is resumed"
    if job.state == JobState.SUSPENDED:
        return "it is suspended: its tasks and its signals wait until it is resumed"
    if job.ended is not None:
        return ""
    waiting = {
        state: store.tasks(job_id=job.job_id, state=state, limit=1)
        for state in ("ready", "assigned", "scheduled")
    }
    if waiting["assigned"]:
        return ""
    first = next((tasks[0] for tasks in waiting.values() if tasks), None)
    if first is None:
        return "" if job.closed or job.cls else "more inputs are on their way"
    return _why(first, store.members(), store.queues())


def _why(task: Task, members: Sequence[Member], queues: dict[str, dict[str, int]]) -> str:
    workers = [m for m in members if m.role == "worker"]
    serving = [m for m in workers if m.state == "up" and task.queue in m.queues]
    if not workers:
        return "no members: no worker is there; start some with: tasklets cluster up"
    if not serving:
        return f"no members: no worker serves queue {task.queue!r}"
    if not any(task.op in m.ops for m in serving):
        if task.op == shell.OPERATION:
            return "no worker runs templates; start some with: tasklets cluster worker --allow-shell"
        return f"no worker of queue {task.queue!r} knows operation {task.op}; start one with --import"
    if queues.get(task.queue, {}).get("paused"):
        return f"queue {task.queue!r} is paused"
    if task.attempts or task.losses:
        error = error_of(task.error)
        last = f": {error['kind']}: {error['message']}" if error else ""
        return f"retrying: {task.attempts} attempts failed, {task.losses} workers were lost{last}"
    return ""


def task_view(task: Task, detail: str = "") -> TaskView:
    """A task as it is shown."""
    return TaskView(
        id=task.task_id,
        operation=task.op,
        queue=task.queue,
        state=task.state.value,
        priority=task.priority,
        attempts=task.attempts,
        losses=task.losses,
        step=task.step,
        worker=task.worker,
        job=task.job_id,
        index=task.index,
        weight=task.weight,
        recorded=task.recorded,
        created=task.created,
        due=task.due,
        ended=task.ended,
        result=_decoded(task.result),
        error=error_of(task.error),
        detail=detail,
        url=f"/tasks/{task.task_id}",
    )


def result_views(row: Result) -> Iterator[ResultView]:
    """The results of each input that a row has."""
    if row.failed:
        error = dict(error_of(row.value) or {})
        value = error.pop("output", UNSET)
        for index in range(row.index, row.index + row.count):
            yield ResultView(index=index, value=value, error=error)
        return
    found = _decoded(row.value)
    if not isinstance(found, list) or len(found) != row.count:  # of a codec that is not known here
        found = [found] * row.count
    for index, value in enumerate(found, row.index):
        yield ResultView(index=index, value=value)


def error_of(data: bytes | None) -> dict[str, Any] | None:
    """A failure that was kept."""
    if not data:
        return None
    try:
        found = plain(values.loads(data))
    except Exception as error:  # noqa: BLE001  whatever is in there, the rest is shown
        return {"kind": "Unreadable", "message": str(error)}
    return found if isinstance(found, dict) else {"kind": "Error", "message": str(found)}


def _decoded(data: bytes | None) -> Any:
    if data is None or data == b"":
        return None
    try:
        return plain(codecs.decode(data))
    except Exception as error:  # noqa: BLE001  a codec, or a class, that only the submitter has
        return {"unreadable": f"{len(data)} bytes, which mean nothing here: {error}"}
