"""Gateways for the tests: within this process over a store in memory, and as processes."""

from __future__ import annotations

import itertools
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.message import Message
from typing import Any

import pytest
from falcon.testing import TestClient

from cluster.gateway.app import make_app
from cluster.gateway.options import Options
from cluster.gateway.service import Service
from cluster.gateway.uploads import Uploads
from cluster.stores import open_store
from cluster.testing import NodeProcess, Nodes, wait_for
from tests.cluster.conftest import freeze, shared_redis

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
_numbers = itertools.count()


class Local(TestClient):
    """A gateway's application without a server, and its service."""

    __test__ = False

    def __init__(self, options: Options, group: str) -> None:
        self.service = Service(f"memory:gateway-{next(_numbers)}", group, options)
        self.uploads = Uploads(self.service)
        super().__init__(make_app(self.service, self.uploads), headers={"Host": "localhost"})

    @property
    def store(self) -> Any:
        return self.service.store

    def post(self, path: str, body: Any, **headers: str) -> Any:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.simulate_post(path, body=json.dumps(body), headers={**JSON, **named})


@pytest.fixture
def make_local() -> Iterator[Callable[..., Local]]:
    with ExitStack() as made:

        def make(*, group: str = "default", **options: Any) -> Local:
            local = Local(Options(**{"rate": 0, "allow_shell": True, **options}), group)
            made.callback(local.service.close)
            return local

        yield make


@pytest.fixture
def local(make_local: Callable[..., Local]) -> Local:
    return make_local()


@dataclass
class Answer:
    status: int
    headers: Message
    data: bytes

    def json(self) -> Any:
        return json.loads(self.data)


def ask(
    url: str,
    body: Any = None,
    *,
    method: str = "",
    headers: dict[str, str] | None = None,
    timeout: float = 30,
) -> Answer:
    """Ask by HTTP. A body that is no bytes is JSON."""
    sent = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body, sent = json.dumps(body).encode(), {**JSON, **sent}
    request = urllib.request.Request(
        url, body, sent, method=method or ("POST" if body is not None else "GET")
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


class Gateway:
    """A gateway in a process of its own."""

    def __init__(self, node: NodeProcess) -> None:
        self.node = node
        found = wait_for(lambda: re.search(r"listens at (\S+)", node.output()) or not node.alive, 30)
        assert isinstance(found, re.Match), node.output()
        self.url = found[1]

    def get(self, path: str, **headers: str) -> Answer:
        return ask(self.url + path, headers={key.replace("_", "-"): value for key, value in headers.items()})

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return ask(
            self.url + path, body, headers={key.replace("_", "-"): value for key, value in headers.items()}
        )

    def delete(self, path: str) -> Answer:
        return ask(self.url + path, method="DELETE")

    def submit(self, **body: Any) -> str:
        answer = self.post("/jobs", body)
        assert answer.status == 202, answer
        return str(answer.json()["id"])

    def job(self, job_id: str) -> Any:
        return self.get(f"/jobs/{job_id}").json()

    def ended(self, job_id: str, timeout: float = 40) -> Any:
        """Wait for a job's end, by long polls; return it."""

        def look() -> Any:
            job = self.get(f"/jobs/{job_id}?wait=2").json()
            return job if job["ended"] else None

        return wait_for(look, timeout, f"the end of job {job_id}")

    def results(self, job_id: str) -> list[Any]:
        lines = self.get(f"/jobs/{job_id}/results", Accept="application/x-ndjson").data.splitlines()
        return [json.loads(line) for line in lines]


def start_gateway(nodes: Nodes, *options: str, **more: str) -> Gateway:
    return Gateway(nodes.start("gateway", "--port", "0", "--rate", "0", *options, **more))


@pytest.fixture
def gateway(nodes: Nodes) -> Gateway:
    return start_gateway(nodes, "--allow-shell")


@dataclass
class Shared:
    """A gateway, a coordinator and a worker that runs scripts, for tests that hurt none of them."""

    nodes: Nodes
    gateway: Gateway
    url: str
    group: str


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("shared")
    url = f"sqlite:///{folder}/work.db" if request.param == "sqlite" else shared_redis().url
    group = f"gateway-{next(_numbers)}"
    with Nodes(url, group, imports=["tests.cluster.ops", "tests.cluster.works"]) as nodes:
        nodes.coordinator()
        nodes.worker("--allow-shell")
        made = start_gateway(nodes, "--allow-shell")
        wait_for(lambda: made.get("/members").json()["slots"] == 2, 30)
        yield Shared(nodes, made, url, group)
    store = open_store(url, group)
    store.wipe()
    store.close()


@contextmanager
def frozen(node: NodeProcess) -> Iterator[None]:
    freeze(node)
    try:
        yield
    finally:
        node.thaw()
