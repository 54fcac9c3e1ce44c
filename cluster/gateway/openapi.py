"""The document that describes the gateway, OpenAPI 3.1. The bodies are those of `messages`, which also reads them."""

from __future__ import annotations

from typing import Any

import msgspec

from cluster._identity import release
from cluster.gateway import jobs, messages, problems, tasks
from cluster.gateway.options import Options

_BODIES = (
    messages.NewJobBody, messages.NewTaskBody, messages.SignalBody, messages.ReplayBody, messages.QueueBody,
    messages.Accepted, messages.JobView, messages.JobList, messages.ResultView, messages.ResultList,
    messages.TaskView, messages.TaskList, messages.Count, messages.MemberList, messages.QueueView,
    messages.QueueList, messages.EventView, messages.EventList, messages.SignalReply, messages.Health,
    messages.ProblemView,
)  # fmt: skip


def document(options: Options) -> dict[str, Any]:
    """The whole document."""
    _, schemas = msgspec.json.schema_components(_BODIES, ref_template="#/components/schemas/{name}")
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "tasklets cluster gateway",
            "version": release(),
            "description": "Work that finishes although processes die, by HTTP. Times are seconds of the store.",
        },
        "paths": _paths(options),
        "components": {"schemas": schemas},
    }
    if options.tokens:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(name)}}


_PROBLEM = {problems.MEDIA_TYPE: {"schema": _ref("ProblemView")}}
_WRONG = {
    400: "something in the request is not as it should be",
    401: "a token is needed",
    403: "not allowed here",
    404: "there is no such thing",
    405: "the path does not take this method",
    409: "it clashes with what there is",
    413: "too large",
    415: "a body of another type",
    429: "too many requests",
    431: "headers that are too large",
    503: "the store is away or full, a queue is full, or the gateway ends: Retry-After says when to ask again",
}


def _call(
    summary: str,
    answers: dict[int, tuple[str, dict[str, Any]]],
    *,
    parameters: list[dict[str, Any]] | None = None,
    body: dict[str, Any] | None = None,
    wrong: tuple[int, ...] = (),
    security: bool = True,
) -> dict[str, Any]:
    found: dict[str, Any] = {"summary": summary, "responses": {}}
    if parameters:
        found["parameters"] = parameters
    if body:
        found["requestBody"] = {"required": True, "content": body}
    for status, (text, content) in answers.items():
        found["responses"][str(status)] = {"description": text, **({"content": content} if content else {})}
    for status in sorted({400, 401, 403, 429, 503, *wrong}):
        found["responses"][str(status)] = {"description": _WRONG[status], "content": _PROBLEM}
    if not security:
        found["security"] = []
    return found


def _query(name: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _path(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": text, "schema": {"type": "string"}}


def _integer(low: int, high: int, default: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high, "default": default}


_AFTER = _query("after", "those behind this one", {"type": "string"})
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A second submission with the same key is the first one, at whichever gateway.",
    "schema": {"type": "string", "minLength": 8, "maxLength": 200, "pattern": "^[!-~]*$"},
}
_SEEN = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The ETag of what is known.",
    "schema": {"type": "string", "pattern": '^"[0-9]{1,18}"$'},
}
_TEXT = {"text/plain": {"schema": {"type": "string"}}}
_NDJSON = {"application/x-ndjson": {"schema": {"type": "string"}}}


def _paths(options: Options) -> dict[str, Any]:
    job, task = _path("job_id", "a job's id"), _path("task_id", "a task's id")
    wait = _query(
        "wait", "seconds to wait for a change", {"type": "number", "minimum": 0, "maximum": options.max_wait}
    )
    listed = _query("limit", "how many", _integer(1, jobs.MOST_LISTED, 100))
    job_states = {"type": "string", "enum": list(jobs.STATES)}
    task_states = {"type": "string", "enum": list(tasks.STATES)}
    accepted = {
        202: ("taken", _json("Accepted")),
        200: ("it was there before", _json("Accepted")),
    }
    return {
        "/jobs": {
            "get": _call(
                "List jobs, by id.",
                {200: ("a page", _json("JobList"))},
                parameters=[
                    _query("state", "in this state", job_states),
                    _query("name", "with this name", {"type": "string"}),
                    _query("since", "created then or later", {"type": "number", "minimum": 0, "maximum": 1e12}),
                    listed,
                    _AFTER,
                ],
            ),
            "post": _call(
                "Submit a job.",
                accepted,
                parameters=[_KEY],
                body={**_json("NewJobBody"), "application/x-ndjson": {
                    "schema": {"type": "string", "description": "The first line is a job without inputs; each "
                               "other line is one input, as JSON. Lists of any length are streamed."}}},
                wrong=(404, 409, 413, 415),
            ),
        },
        "/jobs/{job_id}": {
            "get": _call(
                "Look at a job, or wait for a change.",
                {200: ("the job", _json("JobView")), 304: ("it is as If-None-Match says", {})},
                parameters=[job, wait, _SEEN],
                wrong=(404,),
            ),
            "delete": _call(
                "End a job, and forget it with its tasks and results.", {204: ("it is gone", {})},
                parameters=[job], wrong=(404,),
            ),
        },
        "/jobs/{job_id}/results": {
            "get": _call(
                "Read results, by index; with Accept: application/x-ndjson all of them.",
                {200: ("results", {**_json("ResultList"), **_NDJSON})},
                parameters=[
                    job,
                    _query("from", "the first index", _integer(0, 2**53, 0)),
                    _query("limit", "how many inputs", _integer(1, jobs.MOST_RESULTS, 1000)),
                    _query("follow", "of lines: as they come, until the job has ended", {"type": "boolean"}),
                    _query(
                        "after",
                        "of lines that are followed: those behind the one with this cursor",
                        {"type": "string", "pattern": "^[0-9]{1,15}[.][0-9]{1,16}$"},
                    ),
                ],
                wrong=(404,),
            )
        },
        "/jobs/{job_id}/signal": {
            "post": _call(
                "Give a job a signal.",
                {200: ("the answer", _json("SignalReply")), 202: ("no answer yet", _json("SignalReply"))},
                parameters=[job],
                body=_json("SignalBody"),
                wrong=(404, 409, 413, 415),
            )
        },
        "/jobs/{job_id}/retry": {
            "post": _call(
                "Submit the inputs that failed, as a job of their own.", accepted, parameters=[job, _KEY],
                wrong=(404, 409, 413),
            )
        },
        "/tasks": {
            "get": _call(
                "List tasks, by id.",
                {200: ("a page", _json("TaskList"))},
                parameters=[
                    _query("state", "in this state", task_states),
                    _query("queue", "of this queue", {"type": "string"}),
                    _query("job", "of this job", {"type": "string"}),
                    listed,
                    _AFTER,
                ],
            ),
            "post": _call(
                "Submit one call of an operation.", accepted, parameters=[_KEY], body=_json("NewTaskBody"),
                wrong=(409, 413, 415),
            ),
        },
        "/tasks/{task_id}": {
            "get": _call(
                "Look at a task, or wait for its end.", {200: ("the task", _json("TaskView"))},
                parameters=[task, wait], wrong=(404,),
            ),
            "delete": _call("Cancel a task.", {204: ("it is cancelled", {})}, parameters=[task], wrong=(404, 409)),
        },
        "/tasks/{task_id}/replay": {
            "post": _call(
                "Make a dead letter ready again.", {200: ("it is", _json("Count"))}, parameters=[task], wrong=(404, 409)
            )
        },
        "/dead-letters": {
            "get": _call(
                "List what failed for good.", {200: ("a page", _json("TaskList"))}, parameters=[listed, _AFTER]
            ),
            "post": _call(
                "Make dead letters ready again.", {200: ("how many were", _json("Count"))}, body=_json("ReplayBody"),
                wrong=(413, 415),
            ),
        },
        "/members": {"get": _call("List the nodes.", {200: ("the nodes", _json("MemberList"))})},
        "/queues": {"get": _call("List the queues.", {200: ("the queues", _json("QueueList"))})},
        "/queues/{name}": {
            "patch": _call(
                "Pause a queue, go on with it, limit it.", {200: ("the queue", _json("QueueView"))},
                parameters=[_path("name", "a queue")], body=_json("QueueBody"), wrong=(413, 415),
            )
        },
        "/events": {
            "get": _call(
                "Read the journal; with Accept: text/event-stream as it is written, and what the group looks like.",
                {200: ("events", {**_json("EventList"), "text/event-stream": {"schema": {"type": "string"}}})},
                parameters=[
                    _AFTER,
                    _query("limit", "how many", _integer(1, 1000, 100)),
                    _query("backlog", "of a stream: how many old ones first", _integer(0, 1000, 100)),
                ],
            )
        },
        "/healthz": {"get": _call("Whether this gateway can do its work.", {200: ("it can", _json("Health"))})},
        "/metrics": {"get": _call("Counts, in Prometheus' text format.", {200: ("counts", _TEXT)})},
        "/openapi.json": {
            "get": _call(
                "This document.", {200: ("the document", {"application/json": {"schema": {"type": "object"}}})}
            )
        },
    }  # fmt: skip
