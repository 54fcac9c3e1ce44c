"""Who is told that a job has ended (D2): at least once, whatever dies, and only where the gateway may knock."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from cluster import Client
from cluster.gateway.options import Options
from cluster.gateway.server import CannotServe, Server
from cluster.gateway.webhooks import Webhooks
from cluster.testing import Nodes, wait_for
from tests.cluster.gateway.conftest import NDJSON, Local, ask, start_gateway

OPS = "tests.cluster.ops:"


class Receiver(HTTPServer):
    """Somebody who wants to know; answers as it is told to, in order, and 200 after that."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answers: list[int] = []
        self.heard: list[Any] = []


class _Taking(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.server.answers.pop(0) if self.server.answers else 200
        self.server.heard.append((answer, self.path, body))
        self.send_response(answer)
        if answer == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.heard.append(("GET", self.path, None))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.real
@pytest.mark.timeout(60)
def test_an_end_is_told_although_the_gateway_that_took_the_job_was_killed(
    nodes: Nodes, client: Client, receiver: Receiver
) -> None:
    """And again until it is taken; a redirection is not followed. Of two gateways only one tells it."""
    receiver.answers = [500, 302]
    doomed = start_gateway(nodes, "--webhook", receiver.url)
    body = {"operation": OPS + "nap", "inputs": [0], "webhook": receiver.url + "/ended"}
    job_id = doomed.submit(**body)
    lines = b"\n".join(json.dumps(line).encode() for line in ({**body, "inputs": None}, 0, 0))
    uploaded = ask(doomed.url + "/jobs", lines, headers=NDJSON).json()["id"]
    silent = doomed.submit(operation=OPS + "nap", inputs=[0])
    doomed.node.kill()
    for _ in range(2):
        start_gateway(nodes, "--webhook", receiver.url)
    client.attach_job(uploaded).terminate()
    nodes.worker()

    wait_for(lambda: [answer for answer, *_ in receiver.heard].count(200) == 2, 30)
    assert client.job(silent).state == "finished"
    assert sorted(answer for answer, *_ in receiver.heard) == [200, 200, 302, 500]
    assert {path for _, path, _ in receiver.heard} == {"/ended"}
    assert {body["id"]: body for answer, _, body in receiver.heard if answer == 200} == {
        job_id: {"id": job_id, "state": "finished", "url": f"/jobs/{job_id}"},
        uploaded: {"id": uploaded, "state": "terminated", "url": f"/jobs/{uploaded}"},
    }


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://127.0.0.1:9/x", 202),
        ("http://127.0.0.1:9", 202),
        ("https://CI.example.com/hook?a=b", 202),
        ("http://127.0.0.1:90/x", 403),
        ("http://127.0.0.1.evil.example:9/x", 403),
        ("https://127.0.0.1:9/", 403),
        ("http://127.0.0.1:9@evil.example/", 400),
        ("http://evil.example\\@127.0.0.1:9/", 400),
        ("http://127.0.0.1:99999/", 400),
        ("http:///x", 400),
        ("file:///etc/passwd", 400),
        ("http://127.0.0.1:9/ HTTP/1.1", 400),
    ],
)
def test_only_addresses_of_an_allowed_origin_are_taken(
    make_local: Callable[..., Local], url: str, status: int
) -> None:
    local = make_local(webhooks=("http://127.0.0.1:9", "https://ci.example.com:443"))
    answer = local.post("/jobs", {"operation": "a:b", "inputs": [], "webhook": url})
    assert answer.status_code == status, answer.json


def test_nobody_is_told_unless_the_gateway_was_started_so(local: Local) -> None:
    answer = local.post("/jobs", {"operation": "a:b", "inputs": [], "webhook": "http://127.0.0.1:9/x"})
    assert (answer.status_code, answer.json["code"]) == (403, "no_webhook")
    assert "--webhook http://127.0.0.1:9" in answer.json["detail"]


def test_an_origin_that_is_none_is_one_line() -> None:
    with pytest.raises(CannotServe, match=r"'ci\.example\.com' is no address"):
        Server("memory:", port=0, options=Options(webhooks=("ci.example.com",)))


def test_many_ends_are_told_by_one_and_none_of_an_origin_that_is_not_allowed_any_more(
    make_local: Callable[..., Local], receiver: Receiver
) -> None:
    local = make_local(webhooks=(receiver.url, "http://127.0.0.1:9"))
    for number in range(20):
        origin = receiver.url if number else "http://127.0.0.1:9"
        local.post("/jobs", {"operation": "a:b", "inputs": [], "webhook": f"{origin}/{number}"})
    local.service.options = replace(local.service.options, webhooks=(receiver.url,))
    one, other = Webhooks(local.service), Webhooks(local.service)

    assert [one.round(), other.round(), one.round(), one.round()] == [True, False, True, False]
    assert sorted(int(path[1:]) for _, path, _ in receiver.heard) == list(range(1, 20))
    one.close()
    other.round()
    assert len(receiver.heard) == 19
