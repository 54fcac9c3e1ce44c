"""/jobs: submit, look, wait, signal, forget; and the results."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, cast

import falcon
from msgspec.structs import replace

from cluster.errors import JobNotFound
from cluster.gateway import messages, submitting, views
from cluster.gateway.messages import (
    Accepted,
    JobList,
    NewJobBody,
    ResultList,
    ResultView,
    SignalBody,
    SignalReply,
)
from cluster.gateway.problems import Problem
from cluster.gateway.service import (
    Service,
    flag,
    idempotency_key,
    integer,
    media_type,
    need_json,
    next_page,
    number,
    one_of,
    read_body,
)
from cluster.gateway.submitting import Wanted
from cluster.gateway.uploads import Uploads
from cluster.jobs import new_job
from cluster.records import JOB_ENDED, Job, JobState, make_id
from cluster.signals import BY_NAME, Reply, Signal
from cluster.stores import Store

NDJSON: Final = "application/x-ndjson"
MOST_LISTED: Final = 1000
MOST_RESULTS: Final = 10_000
PAGE_BYTES: Final = 16 << 20
STATES: Final = tuple(state.value for state in JobState)
_CURSOR: Final = re.compile(r"([0-9]{1,15})\.([0-9]{1,16})")
_KEPT: Final = ("name", "queue", "priority", "description", "by", "fail_fast", "ttl", "meta")


class Jobs:
    """/jobs"""

    def __init__(self, service: Service, uploads: Uploads) -> None:
        self._service = service
        self._uploads = uploads

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A page of jobs (A-34)."""
        limit = integer(req, "limit", 100, 1, MOST_LISTED)
        since = number(req, "since", -1.0, 0, 1e12) if req.get_param("since") else None
        jobs = self._service.store.jobs(
            state=one_of(req, "state", STATES),
            name=req.get_param("name") or None,
            since=since,
            limit=limit,
            after=req.get_param("after") or "",
        )
        more = next_page(req, "after", jobs[-1].job_id) if len(jobs) == limit else None
        messages.answer(resp, JobList(jobs=[views.job_view(job) for job in jobs], next=more))

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Take a job (D-01): JSON, or lines of JSON whose first is the job and the others are its inputs."""
        if media_type(req) == NDJSON:
            job, new = self._uploads.take(req)
        else:
            need_json(req)
            body = messages.decoded(read_body(req, self._service.options), NewJobBody)
            job, new = self.submit(body, idempotency_key(req))
        req.context.about = job.job_id
        accepted(resp, job, new)

    def submit(self, body: NewJobBody, key: str | None) -> tuple[Job, bool]:
        """Store a job with all its shards, or nothing; returns it, and whether it is new."""
        service = self._service
        wanted = submitting.wanted(body, service.options, key, service.group)
        service.check_group()
        if body.class_ is not None:
            return start_class(service.store, wanted)
        inputs = [bytes(line) for line in body.inputs or ()]
        if body.args is None and body.inputs is None:
            raise Problem(
                400, "invalid", "there are no inputs: a list, which may be empty; or args for one call"
            )
        if len(inputs) > service.options.max_inputs:
            raise Problem(
                413, "too_many", f"a job has at most {service.options.max_inputs} inputs; make several jobs"
            )
        if body.args is not None:
            tasks = [submitting.make_call(wanted)]
        else:
            # Checked before the store is asked for anything: what is wrong is told also when that is away.
            for index, line in enumerate(inputs):
                wanted.check_input(line, index)
            shards = submitting.shards_of(service.store, wanted)
            tasks = list(submitting.make_shards(wanted, inputs, len(inputs), shards))
        return submitting.start(service.store, wanted.job, tasks)


def start_class(store: Store, wanted: Wanted) -> tuple[Job, bool]:
    """Start a job with a class; one that lives with its name is told to go on (`on_restart`)."""
    job = new_job(
        wanted.body.class_ or "",
        wanted.body.params,
        id=wanted.job.job_id,
        **{name: getattr(wanted.job, name) for name in _KEPT},
    )
    job_id, how = store.start(job)
    there = store.job(job_id)
    if there is None:
        raise JobNotFound(f"job {job_id} was deleted while it was submitted")
    if how == "known":
        submitting.check_same(there, job)
    return there, how == "new"


def accepted(resp: falcon.Response, job: Job, new: bool) -> None:
    """Answer a submission: 202 for what was taken, 200 for what was there before."""
    url = f"/jobs/{job.job_id}"
    resp.set_header("Location", url)
    messages.answer(resp, Accepted(id=job.job_id, state=job.state.value, url=url), 202 if new else 200)


class OneJob:
    """/jobs/ID"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response, job_id: str) -> None:
        """A job; with `?wait=5` when it changes, or has changed from what If-None-Match says (D-05)."""
        req.context.about = job_id
        store = self._service.store
        wait = number(req, "wait", 0.0, 0, self._service.options.max_wait)
        job = find(store, job_id)
        known = etags(req)
        seen = known or {etag(job)}
        if wait and etag(job) in seen and job.state not in JOB_ENDED:

            def changed() -> Job | None:
                now = find(store, job_id)
                return now if etag(now) not in seen else None

            job = self._service.wait_for(f"job:{job_id}", changed, wait) or find(store, job_id)
        resp.set_header("ETag", etag(job))
        resp.set_header("Cache-Control", "no-cache")
        if etag(job) in known:
            resp.status = 304
            return
        messages.answer(resp, views.job_view(job, views.why(store, job)))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, job_id: str) -> None:
        """End a job and forget it, with its tasks and results (A-31, D-24)."""
        req.context.about = job_id
        if not self._service.store.delete_job(job_id):
            raise _missing(self._service.store, job_id)
        resp.status = 204


class Signals:
    """/jobs/ID/signal"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_post(self, req: falcon.Request, resp: falcon.Response, job_id: str) -> None:
        """Give a job a signal, and wait for the answer (A-30, D-25)."""
        req.context.about = job_id
        need_json(req)
        body = messages.decoded(read_body(req, self._service.options), SignalBody)
        reply = self.give(job_id, body, min(body.wait, self._service.options.max_wait))
        if reply.status == "not_found":
            raise _missing(self._service.store, job_id)
        job = reply.job or self._service.store.job(job_id)
        view = views.job_view(job) if job is not None else None
        shown = SignalReply(
            status=reply.status,
            value=messages.plain(reply.value),
            error=messages.plain(reply.error),
            id=reply.signal_id,
            job=view,
        )
        messages.answer(resp, shown, 202 if reply.status == "timeout" else 200)

    def give(self, job_id: str, body: SignalBody, wait: float) -> Reply:
        """Give a signal, and wait for the answer."""
        client = self._service.client
        name = body.type.lower()
        if name == "finalize":
            raise Problem(400, "invalid", f"to forget a job: DELETE /jobs/{job_id}")
        known = BY_NAME.get(name)
        text = "" if body.body is None else str(body.body)
        signal: Any = Signal(body.type, body.body) if known is None else cast(Any, known)(text)
        signal_id = body.id or make_id()
        reply = client.signal(job_id, signal, timeout=0, id=signal_id)
        if reply.status != "timeout":
            return reply

        def answered() -> Reply | None:
            said = client.reply(job_id, signal_id)
            job = self._service.store.job(job_id)
            if said is not None or job is None:
                return said or Reply(status="not_found")
            return Reply(status="ended", signal_id=signal_id, job=job) if job.state in JOB_ENDED else None

        return self._service.wait_for(f"job:{job_id}", answered, wait) or reply


class Results:
    """/jobs/ID/results"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response, job_id: str) -> None:
        """Results by index; as lines of JSON all there are, or with `?follow=true` as they come (D-17)."""
        req.context.about = job_id
        store = self._service.store
        low = integer(req, "from", 0, 0, 2**53)
        limit = integer(req, "limit", 1000, 1, MOST_RESULTS)
        follow, behind = flag(req, "follow"), _place(req.get_param("after") or "")
        job = find(store, job_id)
        if NDJSON in (req.accept or ""):
            resp.content_type = NDJSON
            resp.stream = self._follow(job_id, low, behind) if follow else self._lines(job_id, low)
            return
        found: list[ResultView] = []
        end = min(low + limit, job.total)
        size, reached = 0, low
        for row, shown in _by_index(store, job_id, low, end):
            found.extend(shown)
            size += len(row)
            reached = shown[-1].index + 1 if shown else reached
            if size > PAGE_BYTES:
                end = reached
                break
        more = next_page(req, "from", str(end)) if end < job.total else None
        complete = job.state in JOB_ENDED
        messages.answer(resp, ResultList(results=found, total=job.total, complete=complete, next=more))

    def _lines(self, job_id: str, low: int) -> Iterator[bytes]:
        for _, shown in _by_index(self._service.store, job_id, low, 2**62):
            yield b"".join(messages.encoded(one) + b"\n" for one in shown)

    def _follow(self, job_id: str, low: int, behind: _Place) -> Iterator[bytes]:
        """In the order of their arrival, until the job has ended: those from the index `low` on, behind a place."""
        service = self._service
        after = behind[0] - 1  # of the row at that place some may have been sent, and others not
        with service.listening(f"job:{job_id}") as wait:
            while True:
                job = service.store.job(job_id)
                ended = job is None or job.state in JOB_ENDED  # looked at before the results
                while rows := service.store.results(job_id, after=after):
                    after = rows[-1].seq
                    for row in rows:
                        yield b"".join(
                            messages.encoded(replace(one, cursor=f"{row.seq}.{one.index}")) + b"\n"
                            for one in views.result_views(row)
                            if one.index >= low and (row.seq, one.index) > behind
                        )
                if ended or service.draining:
                    return
                wait(service.options.poll)


# Where somebody stands who follows: the number of a row, by arrival, and the last index of it that was sent.
_Place = tuple[int, int]


def _place(cursor: str) -> _Place:
    """The place of a cursor that we gave. Raises Problem."""
    if not cursor:
        return (1, -1)
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise Problem(400, "invalid", f"?after= is the cursor of a line, and not {cursor!r}", path="after")
    return int(found[1]), int(found[2])


def _by_index(store: Store, job_id: str, low: int, high: int) -> Iterator[tuple[bytes, list[ResultView]]]:
    while low < high:
        rows = store.results_at(job_id, low, high)
        for row in rows:
            yield row.value, [one for one in views.result_views(row) if low <= one.index < high]
        if not rows:
            return
        low = rows[-1].index + rows[-1].count


def find(store: Store, job_id: str) -> Job:
    """Read a job. Raises Problem."""
    job = store.job(job_id)
    if job is None:
        raise _missing(store, job_id)
    return job


def _missing(store: Store, job_id: str) -> Problem:
    return Problem(
        404, "no_job",
        f"no job {job_id!r} is in group {store.group!r}: there was none, or it was deleted, or its time to live is "
        "over; GET /jobs lists them",
    )  # fmt: skip


def etag(job: Job) -> str:
    """What changes with a job."""
    return f'"{job.version}"'


def etags(req: falcon.Request) -> set[str]:
    """What the client has seen."""
    header = req.get_header("If-None-Match") or ""
    return {tag.strip().removeprefix("W/") for tag in header.split(",") if tag.strip()}
