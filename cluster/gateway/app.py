"""The WSGI application: which path is whose, what is checked before, and the line in the log after."""

from __future__ import annotations

import logging
from pathlib import Path
from time import monotonic
from typing import Any

import falcon

from cluster.gateway import again, events, group, jobs, legacy, messages, openapi, problems, tasks
from cluster.gateway.access import Access
from cluster.gateway.service import Service
from cluster.gateway.uploads import Uploads

log = logging.getLogger("cluster.gateway")

PAGE = Path(__file__).with_name("page")
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def make_app(service: Service, uploads: Uploads) -> falcon.App[Any, Any]:
    """Return the application over a service."""
    metrics = group.Metrics(service)
    app: falcon.App[Any, Any] = falcon.App(middleware=[_Log(metrics), Access(service.options)])
    app.req_options.strip_url_path_trailing_slash = True
    app.req_options.keep_blank_qs_values = True
    problems.install(app, service.options.retry_after)
    submitted = jobs.Jobs(service, uploads)
    feed = events.Feed(service)
    metrics.watchers.set_function(lambda: feed.watchers)
    routes: dict[str, object] = {
        "/jobs": submitted,
        "/jobs/{job_id}": jobs.OneJob(service),
        "/jobs/{job_id}/results": jobs.Results(service),
        "/jobs/{job_id}/signal": jobs.Signals(service),
        "/jobs/{job_id}/retry": again.Retry(service),
        "/tasks": tasks.Tasks(service),
        "/tasks/{task_id}": tasks.OneTask(service),
        "/tasks/{task_id}/replay": tasks.Replay(service),
        "/dead-letters": tasks.DeadLetters(service),
        "/members": group.Members(service),
        "/queues": group.Queues(service),
        "/queues/{name}": group.OneQueue(service),
        "/events": events.Events(service, feed),
        "/healthz": group.Healthz(service),
        "/metrics": metrics,
        "/openapi.json": _Document(service),
        "/schedule/create": legacy.Create(submitted, service),
        "/schedule/status": legacy.Status(service),
        "/schedule/ping": legacy.Ping(),
        "/schedule/node-beat": legacy.NodeBeat(service),
        "/": _File("index.html", "text/html; charset=utf-8"),
        "/page.js": _File("page.js", "text/javascript; charset=utf-8"),
        "/page.css": _File("page.css", "text/css; charset=utf-8"),
        "/icon.svg": _File("icon.svg", "image/svg+xml"),
    }
    for path, resource in routes.items():
        app.add_route(path, resource)
    return app


class _Log:
    """Falcon's middleware that is outermost: times requests, and writes a line about each."""

    def __init__(self, metrics: group.Metrics) -> None:
        self._metrics = metrics

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        req.context.began = monotonic()
        req.context.about = ""  # the job or the task that it is about
        for name, value in SECURITY.items():
            resp.set_header(name, value)

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool
    ) -> None:
        seconds = monotonic() - req.context.began
        status = resp.status_code
        self._metrics.count(req.method if resource else "?", req.uri_template or "?", status, seconds)
        about = f" about {_printable(req.context.about)}" if req.context.about else ""
        log.info(
            "%s %s %d %.1f ms from %s%s", req.method, _printable(req.path), status, 1e3 * seconds, req.remote_addr,
            about,
        )  # fmt: skip


def _printable(text: str) -> str:
    """A stranger's text, as part of a line."""
    return text[:200].encode("unicode_escape").decode()


class _Document:
    """/openapi.json"""

    def __init__(self, service: Service) -> None:
        self._data = messages.encoded(openapi.document(service.options))

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = falcon.MEDIA_JSON
        resp.data = self._data


class _File:
    """A file of the page."""

    def __init__(self, name: str, kind: str) -> None:
        self._path = PAGE / name
        self._kind = kind

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = self._kind
        resp.set_header("Cache-Control", "no-cache")
        resp.data = self._path.read_bytes()
