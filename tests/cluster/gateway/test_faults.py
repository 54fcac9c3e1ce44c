"""What a gateway does when it is killed, frozen, told to end, or its store is away (D-03, D-04, D-06, X2)."""

from __future__ import annotations

import http.client
import json
import os
import socket
import sqlite3
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket as cooperative

from cluster import Client, SubmitError, operation
from cluster.gateway.options import Options
from cluster.gateway.server import Server, _Handler
from cluster.settings import Settings
from cluster.testing import FAST, Nodes, wait_for
from net.certificates import make_authority, make_certificate
from tests.cluster.conftest import lines
from tests.cluster.gateway.conftest import NDJSON, Gateway, ask, frozen, start_gateway
from tests.cluster.proxy import Proxy
from tests.cluster.redis_server import RedisServer

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]
OPS = "tests.cluster.ops:"
HEAD = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
JOB = {"operation": OPS + "nap", "inputs": [0] * 6, "id": "the-one-job"}
HASTY = replace(
    FAST, store_patience=0.5
)  # a store that is away is waited for so long, where 2 s are the default


# -- the store is away (D-04)


def test_a_stopped_redis_is_503_and_then_there_is_one_job(own_redis: RedisServer) -> None:
    with Nodes(own_redis.url, settings=HASTY) as nodes:
        gateway = start_gateway(nodes)
        assert gateway.get("/healthz").status == 200
        own_redis.kill()
        began = time.monotonic()
        answers = [gateway.post("/jobs", JOB), gateway.get("/jobs"), gateway.get("/healthz")]
        took = time.monotonic() - began
        own_redis.start()
        wait_for(lambda: gateway.get("/healthz").status == 200, 20)

        for answer in answers:
            assert (answer.status, answer.json()["code"]) == (503, "store_away")
            assert int(answer.headers["Retry-After"]) > 0
        assert took < 30  # half a second for each, on a machine with nothing else to do
        assert [gateway.post("/jobs", JOB).status for _ in range(2)] == [202, 200]
        assert [job["id"] for job in gateway.get("/jobs").json()["jobs"]] == ["the-one-job"]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_locked_file_is_503(nodes: Nodes) -> None:
    nodes.settings = HASTY
    gateway = start_gateway(nodes)
    assert gateway.get("/healthz").status == 200
    with closing(sqlite3.connect(nodes.store.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        refused = gateway.post("/jobs", JOB)
        other.execute("ROLLBACK")

    assert (refused.status, refused.json()["code"]) == (503, "store_away")
    assert gateway.post("/jobs", JOB).status == 202


def test_a_gateway_may_start_before_its_store(own_redis: RedisServer) -> None:
    own_redis.kill()
    with Nodes(own_redis.url, settings=HASTY) as nodes:
        gateway = start_gateway(nodes)
        away = gateway.get("/jobs")
        metrics = gateway.get("/metrics")
        own_redis.start()

        assert away.status == 503
        assert 'tasklets_store_up{group="default"} 0.0' in metrics.data.decode()
        wait_for(lambda: gateway.get("/jobs").status == 200, 20)


def test_a_full_redis_is_503(own_redis: RedisServer) -> None:
    import redis

    with Nodes(own_redis.url) as nodes, redis.Redis(port=own_redis.port) as plain:
        gateway = start_gateway(nodes)
        assert gateway.get("/healthz").status == 200
        plain.config_set("maxmemory", 1)
        full = gateway.post("/jobs", JOB)
        plain.config_set("maxmemory", 0)

        assert (full.status, full.json()["code"]) == (503, "store_full")
        assert gateway.post("/jobs", JOB).status == 202


def test_a_cut_between_gateway_and_store_is_503_as_long_as_it_lasts(own_redis: RedisServer) -> None:
    """X2: link cut."""
    proxy = Proxy(own_redis.port)
    with Nodes(proxy.url, settings=HASTY) as nodes:
        gateway = start_gateway(nodes)
        assert gateway.get("/jobs").status == 200
        proxy.cut()
        assert gateway.get("/jobs").status == 503
        proxy.mend()
        wait_for(lambda: gateway.get("/jobs").status == 200, 20)
    proxy.close()


QUICK = Settings(store_patience=0.05)


@operation(name="tests:nothing")
def nothing() -> None:
    """Is never run."""


def test_a_client_submits_again_until_the_store_is_back(own_redis: RedisServer) -> None:
    """D-04: exactly one job exists, and one task."""
    with Client(own_redis.url, settings=QUICK) as client:
        client.store.now()
        own_redis.kill()
        starting = gevent.spawn(client.start, "a:b", id="the-one-job")
        submitting = gevent.spawn(client.with_options(id="the-one-task").submit, nothing)
        gevent.sleep(0.5)
        assert not starting.ready()
        own_redis.start()

        assert starting.get(timeout=60).job_id == "the-one-job"
        assert submitting.get(timeout=60).task_id == "the-one-task"
        assert [job.job_id for job in client.jobs()] == ["the-one-job"]
        assert {task.task_id for task in client.store.tasks()} == {"the-one-job", "the-one-task"}


def test_a_client_gives_up_after_its_attempts(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster import _attempts

    pauses: list[float] = []
    monkeypatch.setattr(_attempts.gevent, "sleep", lambda seconds: pauses.append(seconds))
    with Client(own_redis.url, settings=QUICK) as client:
        attempts: list[int] = []

        def away(*_: Any, **__: Any) -> Any:
            from cluster import StoreUnavailable

            attempts.append(1)
            raise StoreUnavailable("it is away")

        monkeypatch.setattr(client.store, "submit", away)
        monkeypatch.setattr(client.store, "start", away)
        with pytest.raises(SubmitError, match=r"10 attempts.*submitting the same id again is safe") as caught:
            client.submit(nothing)
        assert (len(attempts), caught.value.attempts) == (10, 10)
        with pytest.raises(SubmitError, match="job"):
            client.start("a:b")
    assert len(pauses) == 18
    for number, pause in enumerate(pauses[:9]):
        least = min(2.5, 0.1 * 2**number)
        assert least <= pause <= 2 * least
    assert len(set(pauses)) == 18, "jitter"


# -- killed while it submits (D-06)


FULL = os.environ.get("TASKLETS_FULL") == "1"
SUBMITS = [("sqlite", "gateway-before-start"), ("sqlite", "submit-committed"), ("redis", "submit-committed")]
MORE_SUBMITS = [
    ("sqlite", "gateway-started"),
    ("redis", "gateway-before-start"),
    ("redis", "gateway-started"),
]
UPLOADS = [("sqlite", "gateway-batch:1"), ("sqlite", "gateway-before-close"), ("redis", "gateway-batch:1")]
MORE_UPLOADS = [
    (engine, point)
    for engine in ("sqlite", "redis")
    for point in ("gateway-started", "gateway-batch:2", "gateway-closed")
]


@pytest.mark.parametrize(("url", "point"), [*SUBMITS, *(MORE_SUBMITS if FULL else ())], indirect=["url"])
def test_a_gateway_killed_while_it_submits_leaves_a_job_or_none(
    nodes: Nodes, journal: Path, point: str
) -> None:
    doomed = start_gateway(nodes, fail=point)
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(doomed.url + "/jobs", JOB)
    doomed.node.wait()
    gateway = start_gateway(nodes)
    there = gateway.get("/jobs/the-one-job")
    nodes.worker()

    assert there.status == (404 if point == "gateway-before-start" else 200)
    if there.status == 200:
        assert gateway.ended("the-one-job")["done"] == 6
    assert gateway.post("/jobs", JOB).status == (202 if there.status == 404 else 200)
    assert gateway.ended("the-one-job")["done"] == 6
    assert len(lines(journal, "start")) == 6


UPLOAD = b"\n".join(
    [b'{"operation": "tests.cluster.ops:nap", "shards": 1200, "id": "the-one-job"}', *[b"0"] * 1300]
)


def upload(gateway: Gateway) -> Any:
    return ask(gateway.url + "/jobs", UPLOAD, headers=NDJSON)


@pytest.mark.parametrize(("url", "point"), [*UPLOADS, *(MORE_UPLOADS if FULL else ())], indirect=["url"])
def test_an_upload_whose_gateway_is_killed_is_completed_by_another(nodes: Nodes, point: str) -> None:
    doomed = start_gateway(nodes, fail=point)
    with pytest.raises((OSError, http.client.HTTPException)):
        upload(doomed)
    doomed.node.wait()
    gateway = start_gateway(nodes)

    assert upload(gateway).status == 200
    job = gateway.job("the-one-job")
    assert (job["total"], job["closed"]) == (1300, True)


def test_an_upload_that_nobody_completes_is_ended_by_the_next_gateway(nodes: Nodes) -> None:
    nodes.settings = replace(FAST, heartbeat=0.1)  # 30 of them without a line, and it has broken off
    doomed = start_gateway(nodes, fail="gateway-batch:1")
    with pytest.raises((OSError, http.client.HTTPException)):
        upload(doomed)
    doomed.node.wait()
    gateway = start_gateway(nodes)
    assert gateway.job("the-one-job")["detail"] in ("more inputs are on their way", "no members: no worker is there; "
                                                    "start some with: tasklets cluster up")  # fmt: skip
    wait_for(lambda: gateway.job("the-one-job")["state"] == "terminated", 40)
    assert gateway.job("the-one-job")["reason"] == "its upload broke off"


# -- told to end, frozen

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def half_sent(gateway: Gateway) -> socket.socket:
    """A connection with a request whose body is on its way, and waited for at the other end."""
    host, _, port = gateway.url.removeprefix("http://").rpartition(":")
    connection = socket.create_connection((host, int(port)), 30)
    body = json.dumps(JOB).encode()
    expect = b"Expect: 100-continue\r\n"  # who reads it says so
    connection.sendall(HEAD + expect + b"Content-Length: %d\r\n\r\n" % len(body) + body[:10])
    assert connection.recv(len(CONTINUE), socket.MSG_WAITALL) == CONTINUE
    return connection


def refuses(connection: socket.socket) -> bool:
    """Whether its other end takes no new connections any more."""
    try:
        socket.create_connection(connection.getpeername(), 5).close()
    except OSError:
        return True
    return False


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_sigterm_lets_requests_finish(gateway: Gateway) -> None:
    """X2: drains. A long poll and a stream end at once, a submission is taken, no new connection is."""
    job_id = gateway.submit(operation=OPS + "nap", inputs=[0])
    tag = gateway.get(f"/jobs/{job_id}").headers["ETag"]
    polled: list[Any] = []

    def poll() -> None:
        polled.append(gateway.get(f"/jobs/{job_id}?wait=60", If_None_Match=tag))

    poller = threading.Thread(target=poll)
    poller.start()
    stream = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=30)
    stream.request("GET", "/events", headers={"Accept": "text/event-stream"})
    events = stream.getresponse()
    events.readline()
    with half_sent(gateway) as connection:
        began = time.monotonic()
        gateway.node.terminate()
        poller.join(20)
        assert polled[0].status == 304
        while events.readline():
            pass
        assert refuses(connection)
        assert gateway.node.alive
        connection.sendall(json.dumps(JOB).encode()[10:])
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 202 ")
    stream.close()
    assert gateway.node.wait(20) == 0
    assert time.monotonic() - began < 40


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_request_that_does_not_end_does_not_hold_it_up(nodes: Nodes) -> None:
    nodes.settings = replace(FAST, grace=0.5)
    gateway = start_gateway(nodes)
    with half_sent(gateway):
        gateway.node.terminate()
        assert gateway.node.wait(20) == 0
    assert "1 requests did not end" in gateway.node.output()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_second_sigterm_ends_it_at_once(nodes: Nodes) -> None:
    nodes.settings = Settings(grace=100.0)
    gateway = start_gateway(nodes)
    with half_sent(gateway) as connection:
        gateway.node.terminate()
        wait_for(lambda: refuses(connection))  # two at the same time would be one
        gateway.node.terminate()
        assert gateway.node.wait(20) == 0


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_frozen_gateway_works_again(gateway: Gateway, nodes: Nodes) -> None:
    """X2: SIGSTOP for longer than any lease: requests time out, then work; another one answers meanwhile."""
    other = start_gateway(nodes)
    with frozen(gateway.node):
        with pytest.raises(OSError):  # noqa: PT011  a timeout, of whatever kind
            ask(gateway.url + "/jobs", timeout=3 * FAST.coordinator_lease)
        assert other.get("/jobs").status == 200
    assert gateway.get("/jobs").status == 200


# -- clients that misbehave


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Servers within this process, over a store in memory."""
    started: list[Server] = []

    def start(**options: Any) -> Server:
        server = Server("memory:", port=0, options=Options(rate=0, grace=0.5, **options))
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.close()


def connect(server: Server) -> Any:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return cooperative.create_connection((host, int(port)), timeout=20)


def all_of(connection: Any) -> bytes:
    data = b""
    with suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            data += chunk
    return data


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /jobs HT", b"GET /jobs HTTP/1.1\r\nHost: local", HEAD + b"Content-Length: 100\r\n\r\n{"],
)
def test_who_says_nothing_is_hung_up(serve: Callable[..., Server], sent: bytes) -> None:
    server = serve(idle=0.3)
    with closing(connect(server)) as slow, closing(connect(server)) as other:
        slow.sendall(sent)
        other.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b" 200 OK" in all_of(other)
        answer = all_of(slow)
    assert answer == b"" or b" 408 " in answer or b" 400 " in answer


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        HEAD + b"Content-Length: -5\r\n\r\n",
        HEAD + b"Content-Length: x\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffffffffff\r\n",
    ],
)
def test_garbage_is_answered_or_hung_up_and_others_go_on(serve: Callable[..., Server], sent: bytes) -> None:
    server = serve(idle=0.5)
    with closing(connect(server)) as strange:
        with suppress(OSError):
            strange.sendall(sent)
        answer = all_of(strange)
    with closing(connect(server)) as other:
        other.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b" 200 OK" in all_of(other)
    assert b" 200 " not in answer
    assert b" 500 " not in answer


def test_a_body_that_breaks_off_leaves_nothing(serve: Callable[..., Server]) -> None:
    server = serve()
    for kind in (b"application/json", b"application/x-ndjson"):
        head = (
            b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: 100000\r\n\r\n"
            % kind
        )
        with closing(connect(server)) as connection:
            connection.sendall(head + b'{"operation": "a:b", "inputs": []}\n1\n2\n')
            gevent.sleep(0.1)
    gevent.sleep(0.1)
    assert server.service.store.jobs() == []


def test_an_answer_to_a_body_that_is_too_large_is_heard(serve: Callable[..., Server]) -> None:
    """413, although the client is still sending; and not all of it is read."""
    server = serve(max_body=1000)
    with closing(connect(server)) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000000000\r\n\r\n" + b" " * 500_000)
        assert b" 413 " in connection.recv(65536)
        with suppress(OSError):
            for _ in range(500):
                connection.sendall(b" " * 1_000_000)
            raise AssertionError("half a gigabyte was read")


def test_it_speaks_tls(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    tls = make_certificate(tmp_path, "gateway")
    certificate, key = str(tls.certificate), str(tls.key)
    with Nodes(f"sqlite:///{tmp_path}/work.db") as nodes:
        gateway = start_gateway(nodes, "--tls-cert", certificate, "--tls-key", key)
        context = ssl.create_default_context(cafile=str(authority))
        with urllib.request.urlopen(gateway.url + "/healthz", context=context, timeout=20) as answer:
            assert gateway.url.startswith("https://")
            assert json.load(answer)["status"] == "ok"
        host, _, port = gateway.url.removeprefix("https://").rpartition(":")
        for sent in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01garbage"):
            with closing(socket.create_connection((host, int(port)), 20)) as plain:
                plain.sendall(sent)
                with suppress(ConnectionResetError):
                    while plain.recv(65536):
                        pass
        with urllib.request.urlopen(gateway.url + "/healthz", context=context, timeout=20) as answer:
            assert answer.status == 200
        assert "Traceback" not in gateway.node.output()


def test_a_handshake_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    make_authority(tmp_path)
    tls = make_certificate(tmp_path, "gateway")
    options = Options(rate=0, idle=0.3)
    pair = (str(tls.certificate), str(tls.key))
    with Server("memory:", port=0, options=options, tls=pair) as server:
        host, _, port = server.url.removeprefix("https://").rpartition(":")
        with closing(cooperative.create_connection((host, int(port)), timeout=20)) as silent:
            assert silent.recv(100) == b""


def test_too_many_watchers_are_sent_elsewhere(serve: Callable[..., Server]) -> None:
    server = serve(max_watchers=2)
    ask_for = b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
    with closing(connect(server)) as one, closing(connect(server)) as two, closing(connect(server)) as three:
        for connection in (one, two):
            connection.sendall(ask_for)
            assert b" 200 OK" in connection.recv(65536)
        three.sendall(ask_for)
        answer = three.recv(65536)
    assert b" 503 " in answer
    assert b"retry-after: 30" in answer.lower()


def test_connections_have_a_limit(serve: Callable[..., Server]) -> None:
    server = serve(max_connections=3)
    held = [connect(server) for _ in range(3)]
    gevent.sleep(0.1)
    with closing(connect(server)) as waiting:
        waiting.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        with pytest.raises(OSError), gevent.Timeout(0.3, TimeoutError()):  # noqa: PT011
            waiting.recv(100)
        for connection in held:
            connection.close()
        assert b" 200 OK" in all_of(waiting)


def test_requests_come_one_after_the_other_on_one_connection(serve: Callable[..., Server]) -> None:
    server = serve()
    with closing(connect(server)) as connection:
        body = json.dumps({"operation": "a:b", "inputs": [1]}).encode()
        request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
        for _ in range(3):
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(65536)
            assert b" 202 Accepted" in answer
    assert len(server.service.store.jobs()) == 3


def test_no_answer_waits_for_an_acknowledgement(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Head and body are two sends: with Nagle's algorithm, the second one waits 40 ms for the client's system."""
    options: list[int] = []
    answer = _Handler.run_application

    def look(self: Any) -> None:
        options.append(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        answer(self)

    monkeypatch.setattr(_Handler, "run_application", look)
    with closing(connect(serve())) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b" 200 OK" in all_of(connection)
    assert len(options) == 1
    assert options[0]
