"""/tasks and /dead-letters."""

from __future__ import annotations

from typing import Final

import falcon

from cluster import _decide
from cluster.errors import InvalidArguments, TaskNotFound
from cluster.gateway import messages, submitting, views
from cluster.gateway.jobs import MOST_LISTED
from cluster.gateway.messages import Accepted, Count, NewTaskBody, ReplayBody, TaskList
from cluster.gateway.problems import Problem
from cluster.gateway.service import (
    Service,
    idempotency_key,
    integer,
    need_json,
    next_page,
    number,
    one_of,
    read_body,
)
from cluster.records import ENDED, Task, TaskState, make_id
from cluster.stores import Store
from cluster.tasks import make_task

STATES: Final = tuple(state.value for state in TaskState)


class Tasks:
    """/tasks"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A page of tasks."""
        limit = integer(req, "limit", 100, 1, MOST_LISTED)
        found = self._service.store.tasks(
            state=one_of(req, "state", STATES),
            queue=req.get_param("queue") or None,
            job_id=req.get_param("job") or None,
            limit=limit,
            after=req.get_param("after") or "",
        )
        more = next_page(req, "after", found[-1].task_id) if len(found) == limit else None
        messages.answer(resp, TaskList(tasks=[views.task_view(task) for task in found], next=more))

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Take a task. An id, or an Idempotency-Key, is taken once."""
        need_json(req)
        body = messages.decoded(read_body(req, self._service.options), NewTaskBody)
        submitting.check_name(body.operation)
        key = idempotency_key(req)
        task_id = body.id or (submitting.derived_id("task", self._service.group, key) if key else make_id())
        task = make_task(
            body.operation, tuple(body.args), body.kwargs, id=task_id, queue=body.queue, priority=body.priority,
            delay=body.delay, deadline=body.deadline, partition_key=body.partition_key,
            ordering_key=body.ordering_key, coalesce_key=body.coalesce_key,
        )  # fmt: skip
        most = self._service.options.max_payload
        if len(task.args) > most:
            raise InvalidArguments(
                f"the arguments have {len(task.args)} bytes, and {most} are allowed; put the data where the "
                "workers can read it, and pass its address"
            )
        req.context.about = task_id
        store = self._service.store
        self._service.check_group()
        said = store.submit([task])[0]
        there = find(store, task_id)
        if said == "known" and (there.op, there.args) != (task.op, task.args):
            raise Problem(
                409, "other_task",
                f"there is a task {task_id} already, and it is another one; a key, or an id, is for one submission",
            )  # fmt: skip
        url = f"/tasks/{task_id}"
        resp.set_header("Location", url)
        taken = Accepted(id=task_id, state=there.state.value, url=url)
        messages.answer(resp, taken, 200 if said == "known" else 202)


class OneTask:
    """/tasks/ID"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response, task_id: str) -> None:
        """A task; with `?wait=5` when it has ended."""
        req.context.about = task_id
        store = self._service.store
        wait = number(req, "wait", 0.0, 0, self._service.options.max_wait)
        task = find(store, task_id)
        if wait and task.state not in ENDED:

            def ended() -> Task | None:
                now = find(store, task_id)
                return now if now.state in ENDED else None

            task = self._service.wait_for(f"ended:{task_id}", ended, wait) or find(store, task_id)
        messages.answer(resp, views.task_view(task, self._why(store, task)))

    def _why(self, store: Store, task: Task) -> str:
        if task.state in ENDED:
            return ""
        ready = store.statistics().count("ready", task.queue)
        return _decide.why_waiting(task, store.members(), store.queues(), store.now(), ready)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, task_id: str) -> None:
        """Cancel a task."""
        req.context.about = task_id
        store = self._service.store
        if not store.cancel(task_id):
            task = find(store, task_id)
            raise Problem(409, "ended", f"task {task_id} is {task.state} already, and stays so")
        resp.status = 204


class Replay:
    """/tasks/ID/replay"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_post(self, req: falcon.Request, resp: falcon.Response, task_id: str) -> None:
        """Make one dead letter ready again."""
        req.context.about = task_id
        store = self._service.store
        if not store.replay([task_id]):
            task = find(store, task_id)
            raise Problem(409, "not_dead", f"task {task_id} is no dead letter; it is {task.state}")
        messages.answer(resp, Count(count=1))


class DeadLetters:
    """/dead-letters"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A page of what failed for good."""
        limit = integer(req, "limit", 100, 1, MOST_LISTED)
        store = self._service.store
        found = store.tasks(state="dead", limit=limit, after=req.get_param("after") or "")
        more = next_page(req, "after", found[-1].task_id) if len(found) == limit else None
        messages.answer(resp, TaskList(tasks=[views.task_view(task) for task in found], next=more))

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Make dead letters ready again: those that are named, or all."""
        need_json(req)
        body = messages.decoded(read_body(req, self._service.options), ReplayBody)
        if bool(body.tasks) == body.all:
            raise Problem(400, "invalid", 'name the tasks, or say {"all": true}')
        store = self._service.store
        if not body.all:
            messages.answer(resp, Count(count=store.replay(body.tasks)))
            return
        count, after = 0, ""
        while page := store.tasks(state="dead", limit=100, after=after):
            after = page[-1].task_id
            count += store.replay([task.task_id for task in page])
        messages.answer(resp, Count(count=count))


def find(store: Store, task_id: str) -> Task:
    """Read a task. Raises TaskNotFound."""
    task = store.task(task_id)
    if task is None:
        raise TaskNotFound(f"no task {task_id!r} is in group {store.group!r}; GET /tasks lists them")
    return task
