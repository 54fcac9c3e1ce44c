"""Whatever a stranger sends instead of a handshake: one log line, its connection is closed, everybody else goes on."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket
from hypothesis import HealthCheck, given, settings, strategies as st

import net
from net import _handshake, _sockets
from net._gate import Refusals
from net._handshake import BANNER, HEADER, NONCE_BYTES, Handshake, derive_key
from net.certificates import make_authority, make_certificate
from net.node import get_node
from tasklets import channel
from tests.net.attackers import RIGHT, shaken
from tests.net.peers import PATIENCE, until

pytestmark = pytest.mark.real

SECRET = "the secret of this garbage"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    make_authority(folder)
    make_certificate(folder, "bank")
    return folder


@pytest.fixture(scope="module")
def inbox() -> channel:
    return channel(4, "inbox")


@pytest.fixture(scope="module", params=["secret", "tls"])
def server(request: pytest.FixtureRequest, inbox: channel, authority: Path) -> Iterator[net.Server]:
    files = (authority / name for name in ("ca.pem", "bank.pem", "bank.key"))
    how: dict[str, Any] = {"secret": SECRET} if request.param == "secret" else {"tls": net.Tls(*files)}
    with net.serve("tcp://127.0.0.1:0", inbox=inbox, **how) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_refused_before() -> None:
    get_node().gate.refusals = Refusals(get_node().reactor.loop)


def stranger(server: net.Server) -> socket.socket:
    host, port = server.address.removeprefix("tcp://").split(":")
    return socket.create_connection((host, int(port)), PATIENCE)


def until_closed(sock: socket.socket) -> bytes:
    """All that the node says until it closes."""
    said = b""
    try:
        while more := sock.recv(4096):
            said += more
    except ConnectionResetError:
        pass
    return said


FRAME = _handshake._frame
GARBAGE = {
    "a web browser": [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    "zero bytes": [bytes(100)],
    "a session": [b"TSKL\x01" + bytes(60)],
    "a banner": [_handshake.make_banner(3)],
    "a greeting of TLS": [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(508)],
    "an endless greeting of TLS": [b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(100_000)],
    "frames in the wrong order": [FRAME(3, bytes(32)) + FRAME(2, bytes(64))],
    "a wrong proof": [FRAME(2, bytes(64))],
    "a refusal": [FRAME(4, b"no thanks\n")],
    "a proof in pieces that ends early": [b"\x02", b"\x40", bytes(31)],
    "a megabyte": [os.urandom(1_000_000)],
    "nothing": [],
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_gets_one_line_and_a_closed_connection(
    server: net.Server, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "net"), stranger(server) as sock:
        try:
            for piece in GARBAGE[kind]:
                sock.sendall(piece)
                gevent.sleep(0.001)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was closed before all was said
        until_closed(sock)
        until(lambda: caplog.records)
    (record,) = caplog.records
    assert "is refused at" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert not get_node().links
    assert len(get_node().gate) == 0


def test_an_honest_handshake_may_come_byte_by_byte(inbox: channel) -> None:
    with net.serve("tcp://127.0.0.1:0", other=inbox, secret=SECRET) as server, stranger(server) as sock:
        assert sock.recv(BANNER.size) == _handshake.make_banner(_handshake.SECRET)
        handshake = Handshake(
            accepting=False, keys=[derive_key(SECRET.encode())], methods=1, nonce=os.urandom(NONCE_BYTES)
        )
        while handshake.wanted:
            for byte in handshake.receive(sock.recv(1)):
                sock.sendall(bytes([byte]))
                gevent.sleep(0)
        assert handshake.state is _handshake.State.ACCEPTED
        until(lambda: get_node().links)
    until(lambda: not get_node().links)


def test_who_proves_who_it_is_and_says_no_more_is_closed_in_time(
    inbox: channel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_sockets, "CONNECT_SECONDS", 0.05)
    with net.serve("tcp://127.0.0.1:0", other=inbox, secret=RIGHT.decode()) as server:
        sock, handshake, _ = shaken(int(server.address.rpartition(":")[2]), RIGHT)
        with sock:
            assert handshake.state is _handshake.State.ACCEPTED
            until_closed(sock)
    (record,) = caplog.records
    assert record.getMessage().endswith("it did not introduce itself within 0.05 s, its connection is closed")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(
        st.one_of(st.binary(max_size=60), st.sampled_from([FRAME(2, bytes(64)), FRAME(1, bytes(32))]))
    )
)
def test_no_bytes_let_anybody_in_and_an_honest_client_goes_on(
    server: net.Server, pieces: list[bytes]
) -> None:
    with stranger(server) as sock:
        try:
            for piece in pieces:
                sock.sendall(piece)
                gevent.sleep(0)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        said = until_closed(sock)
    assert HEADER.pack(_handshake.WELCOME, 32) not in said[BANNER.size + HEADER.size + NONCE_BYTES :]
    assert not get_node().links
    assert len(get_node().gate) == 0


@pytest.mark.parametrize("kind", ["silent", "half a header", "half of more"])
def test_who_takes_too_long_is_closed_in_time(
    server: net.Server, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (security,) = (listener.security for listener in get_node().listeners)
    assert security is not None
    more = b"\x16\x03\x01" if security.tls else b"\x02\x40"
    monkeypatch.setattr(_sockets, "CONNECT_SECONDS", 0.05)
    with stranger(server) as sock, caplog.at_level(logging.WARNING, "net"):
        sock.sendall({"silent": b"", "half a header": more[:1], "half of more": more}[kind])
        until_closed(sock)
    (record,) = caplog.records
    assert record.getMessage().endswith("it did not introduce itself within 0.05 s")


def test_a_stranger_that_reads_nothing_holds_up_nobody(server: net.Server) -> None:
    with stranger(server) as sock, stranger(server) as other:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        assert other.recv(BANNER.size).startswith(b"TSKA")


def test_a_client_is_told_no_lies_by_garbage(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of garbage gives a client one error and nothing else."""
    monkeypatch.setattr(_sockets, "HANDSHAKE_PAUSE_SECONDS", 0.001)
    files = (authority / name for name in ("ca.pem", "bank.pem", "bank.key"))
    tls = net.Tls(*files)
    for how in ({"secret": SECRET}, {"tls": tls}):
        methods = 1 if "secret" in how else 2
        for said in (
            b"",
            b"TSK",
            b"TSKA\x01",
            _handshake.make_banner(methods) + os.urandom(200),
            os.urandom(80),
        ):
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", 0))
                listener.listen()
                port = listener.getsockname()[1]
                serving = gevent.spawn(serve_all, listener, said)
                with pytest.raises((net.PeerUnreachable, net.AuthenticationError)):
                    net.connect(f"127.0.0.1:{port}/x", **how)  # type: ignore[arg-type]
                serving.kill()
    assert not get_node().links


def serve_all(listener: socket.socket, said: bytes) -> None:
    while True:
        serve_once(listener, said)


def test_a_client_that_was_cut_tries_again(inbox: channel) -> None:
    with net.serve("tcp://127.0.0.1:0", other=inbox, secret=SECRET) as server:
        port = int(server.address.rpartition(":")[2])
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            gevent.spawn(cut_then_pass_on, listener, port)
            assert net.connect(f"127.0.0.1:{listener.getsockname()[1]}/other", secret=SECRET) is inbox
            for link in list(get_node().links):
                link.close()


def cut_then_pass_on(listener: socket.socket, port: int) -> None:
    for _ in range(2):
        listener.accept()[0].close()
    near, _ = listener.accept()
    far = socket.create_connection(("127.0.0.1", port))
    copying = [gevent.spawn(copy, near, far), gevent.spawn(copy, far, near)]
    gevent.joinall(copying)


def copy(one: socket.socket, other: socket.socket) -> None:
    with one:
        try:
            while data := one.recv(4096):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def serve_once(listener: socket.socket, said: bytes) -> None:
    sock, _ = listener.accept()
    with sock:
        sock.sendall(said)
        sock.shutdown(socket.SHUT_WR)
        until_closed(sock)
