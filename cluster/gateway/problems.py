"""What a client is told when something is wrong: RFC 9457 problem documents, with what to do in `detail`.

{"status": 404, "title": "Not Found", "code": "no_job", "detail": "no job 'x' in group 'default'; GET /jobs lists them"}

`code` is for programs and stays; `detail` is for people.
"""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any

import falcon

from cluster.errors import (
    InvalidArguments,
    JobNotFound,
    JobStateError,
    QueueFull,
    StoreFull,
    StoreUnavailable,
    TaskNotFound,
    UnknownGroup,
)

log = logging.getLogger("cluster.gateway")

MEDIA_TYPE = "application/problem+json"
# What the package raises, and what that is in HTTP.
STATUSES: dict[type[Exception], tuple[int, str]] = {
    InvalidArguments: (400, "invalid"),
    TaskNotFound: (404, "no_task"),
    JobNotFound: (404, "no_job"),
    UnknownGroup: (404, "no_group"),
    JobStateError: (409, "job_state"),
    QueueFull: (503, "queue_full"),
    StoreFull: (503, "store_full"),
    StoreUnavailable: (503, "store_away"),
}


class Problem(falcon.HTTPError):
    """An answer that says what is wrong. `more` are fields of the document."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(status, title=HTTPStatus(status).phrase, description=detail, headers=headers)
        self.code_word = code
        self.more = more


def document(error: falcon.HTTPError) -> dict[str, Any]:
    """The fields of a problem document."""
    status = error.status_code
    known = isinstance(error, Problem)
    return {
        "status": status,
        "title": HTTPStatus(status).phrase,
        "code": error.code_word if known else HTTPStatus(status).name.lower(),  # type: ignore[attr-defined]
        "detail": error.description or _GENERAL.get(status, HTTPStatus(status).description),
        **(error.more if known else {}),  # type: ignore[attr-defined]
    }


_GENERAL = {
    404: "there is nothing at this path; GET /openapi.json says what there is",
    405: "this path does not take this method; the header Allow says which ones it takes",
}


def install(app: falcon.App[Any, Any], retry_after: int) -> None:
    """Let an application answer with such documents, whatever is raised in it."""

    def serialize(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
        resp.content_type = MEDIA_TYPE
        resp.data = json.dumps(document(error)).encode()

    def known(req: falcon.Request, resp: falcon.Response, error: Exception, params: Any) -> None:
        status, code = next(STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES)
        headers = {"Retry-After": str(retry_after)} if status == 503 else None
        more: dict[str, Any] = {}
        if isinstance(error, JobStateError):
            more["job_state"] = error.job_state
        if name := getattr(error, "name", None):  # of a missing variable
            more["variable"] = str(name)
        raise Problem(status, code, str(error), headers=headers, **more)

    def unknown(req: falcon.Request, resp: falcon.Response, error: Exception, params: Any) -> None:
        log.error("%s %s failed", req.method, req.path, exc_info=error)
        raise Problem(
            500,
            "internal",
            f"the gateway failed ({type(error).__name__}); its log says where. Please report it.",
        )

    app.set_error_serializer(serialize)
    app.add_error_handler(Exception, unknown)
    app.add_error_handler(falcon.HTTPError, _pass_on)
    app.add_error_handler(falcon.HTTPStatus, _pass_on)
    for cls in STATUSES:
        app.add_error_handler(cls, known)


def _pass_on(req: falcon.Request, resp: falcon.Response, error: Exception, params: Any) -> None:
    raise error
