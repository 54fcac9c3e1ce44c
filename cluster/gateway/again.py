"""/jobs/ID/retry: the inputs that failed, once more, as a job of their own (D2)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import falcon

from cluster import codecs, shell
from cluster.directives import chunks
from cluster.gateway import messages, submitting
from cluster.gateway.jobs import accepted, find
from cluster.gateway.messages import NewJobBody
from cluster.gateway.problems import Problem
from cluster.gateway.service import Service, idempotency_key
from cluster.gateway.submitting import Wanted
from cluster.records import JOB_ENDED, Job, NewJob, Task, make_id
from cluster.stores import Store


class Retry:
    """/jobs/ID/retry"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_post(self, req: falcon.Request, resp: falcon.Response, job_id: str) -> None:
        """Submit what failed of a job that has ended. Its inputs are numbered anew, in their order."""
        service = self._service
        old = find(service.store, job_id)
        if old.state not in JOB_ENDED:
            raise Problem(
                409,
                "not_ended",
                f"job {job_id} is {old.state}; wait for its end: ?wait=5",
                job_state=old.state,
            )
        if old.cls or "what" not in submitting.of_meta(old.meta):
            raise Problem(
                409, "no_inputs", f"job {job_id} was not submitted here with inputs, so none can be again"
            )
        lines, op, program = self._failed(old)
        key = idempotency_key(req)
        meta = submitting.of_meta(old.meta)
        meta["fingerprint"] = f"failed of {job_id}"
        job = NewJob(
            job_id=submitting.derived_id("job", service.group, key) if key else make_id(),
            queue=old.queue,
            description=f"what failed of {job_id}",
            by="gateway",
            fail_fast=old.fail_fast,
            ttl=old.ttl,
            closed=True,
            meta=json.dumps(meta).encode(),
        )
        body = NewJobBody(queue=old.queue)
        wanted = Wanted(body, job, op, program)
        shards = submitting.shards_of(service.store, wanted)
        there, new = submitting.start(
            service.store, job, list(submitting.make_shards(wanted, lines, len(lines), shards))
        )
        req.context.about = f"{there.job_id}, of {job_id}"
        accepted(resp, there, new)

    def _failed(self, job: Job) -> tuple[list[bytes], str, dict[str, Any] | None]:
        """The inputs that failed, as JSON, and what is to be done with them."""
        store = self._service.store
        failed = set(_failed_of(store, job.job_id))
        lines: dict[int, bytes] = {}
        op, program, size = "", None, 0
        for task in _tasks_of(store, job.job_id):
            if task.index is None or failed.isdisjoint(range(task.index, task.index + task.weight)):
                continue
            op, program, inputs = _read(task)
            for index, value in enumerate(inputs, task.index):
                if index in failed:
                    lines[index] = messages.encoded(value)
                    size += len(lines[index])
            if size > self._service.options.max_body:
                raise Problem(
                    413,
                    "too_large",
                    f"what failed of job {job.job_id} has more than {size} bytes; submit it anew",
                )
        if not lines:
            raise Problem(
                409, "none_failed", f"no input of job {job.job_id} failed, or its tasks are forgotten already"
            )
        return [lines[index] for index in sorted(lines)], op, program


def _failed_of(store: Store, job_id: str) -> Iterator[int]:
    after = 0
    while rows := store.results(job_id, after=after):
        after = rows[-1].seq
        for row in rows:
            if row.failed:
                yield from range(row.index, row.index + row.count)


def _tasks_of(store: Store, job_id: str) -> Iterator[Task]:
    after = ""
    while page := store.tasks(job_id=job_id, after=after, limit=100):
        after = page[-1].task_id
        yield from page


def _read(task: Task) -> tuple[str, dict[str, Any] | None, Any]:
    call = codecs.decode(task.args)
    if task.op == shell.OPERATION:
        program, inputs = call[0]
        return task.op, dict(program), inputs
    if chunks.is_chunk(call):
        return task.op, None, chunks.unpack(call)[1]
    raise Problem(409, "no_inputs", f"job {task.job_id} is one call; submit it anew")
