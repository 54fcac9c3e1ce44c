"""The paths of the scheduler that this one came from, for its clients (D-02): the same jobs under other words."""

from __future__ import annotations

import json
import re
from typing import Any, Final
from urllib.parse import parse_qs

import falcon
import msgspec

from cluster.gateway import messages
from cluster.gateway.jobs import Jobs, accepted, find
from cluster.gateway.messages import NewJobBody
from cluster.gateway.problems import Problem
from cluster.gateway.service import Service, idempotency_key, media_type, read_body
from cluster.records import JobState

# The states as they were called; "retrying" and the rest is in `detail` of GET /jobs/ID.
STATUS: Final = {
    JobState.CREATED: "QUEUED",
    JobState.RUNNING: "INPROGRESS",
    JobState.PAUSED: "INPROGRESS",
    JobState.SUSPENDED: "INPROGRESS",
    JobState.FINISHED: "COMPLETED",
}


class Create:
    """/schedule/create"""

    def __init__(self, jobs: Jobs, service: Service) -> None:
        self._jobs = jobs
        self._service = service

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Take a job from a form: id, inputList, variableJson, templateFunction."""
        if media_type(req) != "application/x-www-form-urlencoded":
            raise Problem(
                415, "no_form", "send a form: inputList, variableJson, templateFunction, and perhaps id"
            )
        try:
            text = read_body(req, self._service.options).decode()
            form = {
                name: found[-1]
                for name, found in parse_qs(text, keep_blank_values=True, max_num_fields=100).items()
            }
        except ValueError as error:
            raise Problem(400, "no_form", f"the body is no form: {error}") from None
        template = form.get("templateFunction")
        if not template:
            raise Problem(
                400,
                "invalid",
                "templateFunction is missing: the script to run for each input",
                path="templateFunction",
            )
        body = NewJobBody(
            template=template,
            variables=_variables(form.get("variableJson") or "{}"),
            inputs=[msgspec.Raw(json.dumps(one).encode()) for one in _inputs(form.get("inputList") or "")],
            id=_id(form.get("id")),
        )
        job, new = self._jobs.submit(body, idempotency_key(req))
        req.context.about = job.job_id
        accepted(resp, job, new)


def _variables(text: str) -> dict[str, Any]:
    try:
        found = messages.value_of(text.encode())
    except ValueError as error:
        raise Problem(400, "invalid", f"variableJson is no JSON: {error}", path="variableJson") from None
    if not isinstance(found, dict):
        raise Problem(
            400, "invalid", 'variableJson is an object, such as {"word": "foo"}', path="variableJson"
        )
    return found


def _inputs(text: str) -> list[Any]:
    """A JSON list; or texts between commas, or on lines."""
    if text.lstrip().startswith("["):
        try:
            found = messages.value_of(text.encode())
        except ValueError as error:
            raise Problem(400, "invalid", f"inputList is no JSON: {error}", path="inputList") from None
        if isinstance(found, list):
            return found
    return [one.strip() for one in re.split(r"[\n,]", text) if one.strip()]


def _id(text: str | None) -> str | None:
    if text and not re.fullmatch(r"[A-Za-z0-9_-]{8,64}", text):
        raise Problem(
            400,
            "invalid",
            f"an id has 8 to 64 letters, digits, - or _, such as a UUID, and not {text!r}",
            path="id",
        )
    return text or None


class Status:
    """/schedule/status"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A job, as it was called; of an id that is not known 404, and not an empty answer."""
        job_id = req.get_param("taskId")
        if not job_id:
            raise Problem(400, "invalid", "?taskId= is missing", path="taskId")
        job = find(self._service.store, job_id)
        resp.content_type = falcon.MEDIA_JSON
        resp.data = messages.encoded(
            {
                "id": job.job_id,
                "status": STATUS.get(job.state, job.state.value.upper()),
                "chunksToExecute": job.total,
                "chunksExecuted": job.done + job.failed,
            }
        )


class Ping:
    """/schedule/ping"""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Whether somebody is there."""
        resp.content_type = falcon.MEDIA_TEXT
        resp.text = "pong"


class NodeBeat:
    """/schedule/node-beat"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Whether a node's lease runs. Nodes renew it in the store themselves; from here it cannot be."""
        node = req.get_param("nodeId")
        if not node:
            raise Problem(400, "invalid", "?nodeId= is missing", path="nodeId")
        member = next((one for one in self._service.store.members() if one.node == node), None)
        if member is None:
            raise Problem(
                404,
                "no_node",
                f"no node {node!r} is in group {self._service.group!r}; GET /members lists them",
            )
        resp.content_type = falcon.MEDIA_JSON
        resp.data = messages.encoded({"nodeId": node, "state": member.state})
