"""Whatever a stranger sends to a node: one log line, its connection is closed, everybody else goes on (T8)."""

import logging
import os
import socket as sockets
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket

import net
from net import _sockets, _wire as wire
from net._bulk import Incoming
from net._codec import Codec
from net._landing import Spare
from net._protocol import Hello, Protocol
from net._session import Limits, Session
from net.node import get_node
from tasklets import channel
from tests.net.peers import PATIENCE, until

pytestmark = pytest.mark.real

FOREIGN_ID = bytes(range(wire.ID_BYTES))


@pytest.fixture
def inbox() -> channel:
    return channel(4, "inbox")


@pytest.fixture
def server(inbox: channel) -> Iterator[net.Server]:
    with net.serve("tcp://127.0.0.1:0", inbox=inbox) as server:
        yield server


class Stranger:
    """A connection to a server, at which a test says what goes over it."""

    def __init__(self, server: net.Server) -> None:
        host, port = server.address.removeprefix("tcp://").split(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(PATIENCE)
        self.codec = Codec(self._export, lambda description: channel())
        self.session = Session(os.urandom(16), self.codec)
        hello = Hello(FOREIGN_ID, name="stranger", session=self.session.session_id)
        self.protocol = Protocol(hello, self.codec, self.session)

    def _export(self, one: channel) -> Any:
        return (FOREIGN_ID, os.urandom(16), 0, None, (), 3)

    def __enter__(self) -> "Stranger":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def introduce(self) -> None:
        self.socket.sendall(self.protocol.opening())
        while not self.protocol.peer:
            self.protocol.receive(self.socket.recv(4096))

    def send(self, *frames: tuple[Any, ...]) -> None:
        self.socket.sendall(self.session.envelope([self.session.pack(frame) for frame in frames]))

    def receive(self) -> tuple[Any, ...]:
        while True:
            frames = self.protocol.receive(self.socket.recv(4096))
            if frames:
                return frames[0]

    def lookup(self, name: str) -> tuple[Any, ...]:
        self.send((wire.LOOKUP, 1, name))
        return self.receive()

    def wait_until_closed(self) -> None:
        try:
            while self.socket.recv(4096):
                pass
        except ConnectionResetError:
            pass


GARBAGE = {
    "a web browser": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zero bytes": bytes(100),
    "the version after ours": b"TSKL\x02",
    "a batch that never ends": b"TSKL\x01" + wire.BATCH.pack(0xFFFFFFFF, 0, 0),
    "an empty batch": b"TSKL\x01" + wire.BATCH.pack(16, 0, 0),
    "no msgpack": b"TSKL\x01" + wire.BATCH.pack(17, 0, 0) + b"\xc1",
    "a number": b"TSKL\x01" + wire.BATCH.pack(17, 0, 0) + b"\x07",
    "a greeting without content": b"TSKL\x01" + wire.BATCH.pack(19, 0, 0) + b"\x92\x00\x80",
    "no greeting first": b"TSKL\x01" + wire.BATCH.pack(20, 0, 0) + b"\x92\x15\xa1x",
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_gets_one_line_and_a_closed_connection(
    server: net.Server, inbox: channel, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    with Stranger(server) as good, Stranger(server) as bad, caplog.at_level(logging.WARNING, "net"):
        good.introduce()
        bad.socket.sendall(GARBAGE[kind])
        bad.wait_until_closed()
        assert good.lookup("inbox")[0] == wire.FOUND
    (record,) = caplog.records
    assert "its connection is closed" in record.getMessage()
    assert "\n" not in record.getMessage()
    until(lambda: not get_node().links)


BATCH = wire.BATCH.pack(16 + 2, 1, 0)  # its header: two bytes are to follow
FRAMES: dict[str, tuple[tuple[Any, ...], ...]] = {
    "an item nobody asked for is refused": ((wire.ITEM, 7, "gift"), (wire.LOOKUP, 1, "inbox")),
    "verdicts on nothing are ignored": (
        (wire.ACK, FOREIGN_ID, 1 << 62),
        (wire.REJECT, FOREIGN_ID, 1, ("ValueError", "x", "")),
        (wire.DROPPED, FOREIGN_ID, 1),
        (wire.RETRACT, FOREIGN_ID, 1),
        (wire.TAKEN, 1),
        (wire.REFUSED, 1),
        (wire.CANCEL, 1),
        (wire.EXITED, 1, None),
        (wire.STARTED, 1),
        (wire.KILL, 1),
        (wire.RAISE, 1, ("ValueError", "x", "")),
        (wire.CLOSE, FOREIGN_ID),
        (wire.CLOSED, FOREIGN_ID),
        (wire.HOLD, FOREIGN_ID),
        (wire.RELEASE, FOREIGN_ID, 1 << 62),
        (wire.LOOKUP, 1, "inbox"),
    ),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_about_nothing_do_no_harm(server: net.Server, kind: str) -> None:
    with Stranger(server) as stranger:
        stranger.introduce()
        stranger.send(*FRAMES[kind])
        answers = []
        while not answers or answers[-1][0] != wire.FOUND:
            answers += stranger.protocol.receive(stranger.socket.recv(4096))
        assert [frame[0] for frame in answers] in ([wire.FOUND], [wire.REFUSED, wire.FOUND])


def test_a_stream_that_ends_in_the_middle_of_a_batch_loses_nothing_else(
    server: net.Server, inbox: channel
) -> None:
    with Stranger(server) as good, Stranger(server) as bad:
        good.introduce()
        bad.introduce()
        bad.socket.sendall(BATCH + b"\x92")
        bad.socket.shutdown(sockets.SHUT_WR)
        bad.wait_until_closed()
        assert good.lookup("inbox")[0] == wire.FOUND


def test_a_batch_may_come_byte_by_byte(server: net.Server) -> None:
    with Stranger(server) as stranger:
        for byte in stranger.protocol.opening():
            stranger.socket.sendall(bytes([byte]))
            gevent.sleep(0)
        while not stranger.protocol.peer:
            stranger.protocol.receive(stranger.socket.recv(4096))
        assert stranger.lookup("inbox")[0] == wire.FOUND


def test_a_message_that_means_nothing_here_is_rejected_and_the_next_is_taken(
    server: net.Server, inbox: channel
) -> None:
    with Stranger(server) as stranger:
        stranger.introduce()
        stranger.lookup("inbox")
        inbox_id = get_node().id_of(inbox)
        good = stranger.session.pack((wire.SEND, inbox_id, "good"))
        # A map whose one key is the extension "message of class x", and its fields.
        bad = good.replace(b"\xa4good", b"\x81\xd4\x10x\x90")
        stranger.socket.sendall(stranger.session.envelope([bad, good]))
        kind, _, seqno, error = stranger.receive()
        assert (kind, seqno, error[0]) == (wire.REJECT, 1, "NotSendable")
        assert "no message class is registered as 'x' here" in error[1]
        assert inbox.receive() == "good"


def test_a_request_for_a_channel_that_is_not_known_is_answered(server: net.Server) -> None:
    with Stranger(server) as stranger:
        stranger.introduce()
        stranger.send((wire.RECEIVE, FOREIGN_ID, 5))
        kind, op, error = stranger.receive()
        assert (kind, op, error[0]) == (wire.RAISE, 5, "ChannelClosed")
        stranger.send((wire.SEND, FOREIGN_ID, "x"))
        assert stranger.receive()[:3] == (wire.REJECT, FOREIGN_ID, 1)


def test_a_channel_is_not_used_by_way_of_a_node_that_handed_it_on(server: net.Server, inbox: channel) -> None:
    with Stranger(server) as home, Stranger(server) as user:
        home.introduce()
        home.lookup("inbox")
        described = (FOREIGN_ID, bytes(16), 0, None, (), 3)
        home.codec._export = lambda one: described  # type: ignore[method-assign]
        home.send((wire.SEND, get_node().id_of(inbox), channel()))
        reference = inbox.receive()
        user.introduce()
        user.lookup("inbox")
        user.send((wire.RECEIVE, get_node().id_of(inbox), 1))
        until(lambda: inbox.balance < 0)
        inbox.send(reference)
        assert user.receive()[0] == wire.ITEM
        user.send((wire.TAKEN, 1), (wire.CLOSE, bytes(16)), (wire.SEND, bytes(16), "x"))
        assert user.receive()[:3] == (wire.REJECT, bytes(16), 1)
        user.send((wire.RECEIVE, bytes(16), 2))
        assert user.receive()[:2] == (wire.RAISE, 2)
        assert not reference.closing


def test_a_server_starts_no_functions(server: net.Server) -> None:
    with Stranger(server) as stranger:
        stranger.introduce()
        stranger.send((wire.SPAWN, 1, "os:getpid", (), {}))
        kind, _, error = stranger.receive()
        assert kind == wire.RAISE
        assert "starts nothing for others; start one that does with: tasklets node" in error[1]


@pytest.mark.parametrize(
    "kind", ["receive twice", "found no channel", "room for more than was sent", "more than the window"]
)
def test_who_breaks_the_rules_of_the_answers_is_closed(
    server: net.Server, inbox: channel, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    with Stranger(server) as stranger, caplog.at_level(logging.WARNING, "net"):
        stranger.introduce()
        stranger.lookup("inbox")
        if kind == "receive twice":
            stranger.send(*[(wire.RECEIVE, get_node().id_of(inbox), 5)] * 2)
        elif kind == "found no channel":
            stranger.send((wire.FOUND, 1, "text"))
        elif kind == "more than the window":
            stranger.send(*[(wire.SEND, get_node().id_of(inbox), "flood")] * (2 * inbox.capacity + 1))
        else:
            described = (FOREIGN_ID, bytes(16), 9, None, (), 3)
            stranger.codec._export = lambda one: described  # type: ignore[method-assign]
            stranger.send((wire.SEND, get_node().id_of(inbox), channel(9)))
            reference = inbox.receive()
            stranger.send((wire.ACK, bytes(16), 1 << 62))
            assert reference.capacity == 9
        stranger.wait_until_closed()
    (record,) = caplog.records
    assert "broke the protocol" in record.getMessage()


def test_who_does_not_introduce_itself_is_closed_in_time(
    server: net.Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_sockets, "CONNECT_SECONDS", 0.05)
    with Stranger(server) as silent, Stranger(server) as slow, caplog.at_level(logging.WARNING, "net"):
        slow.socket.sendall(b"TSK")
        silent.wait_until_closed()
        slow.wait_until_closed()
    assert [record.getMessage().split("did not")[1] for record in caplog.records] == [
        " introduce itself within 0.05 s, its connection is closed"
    ] * 2


def test_connections_beyond_the_limit_are_refused(
    server: net.Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_sockets, "MAX_CONNECTIONS", 1)
    with Stranger(server) as first, caplog.at_level(logging.WARNING, "net"):
        first.introduce()
        with Stranger(server) as second:
            second.wait_until_closed()
        assert first.lookup("inbox")[0] == wire.FOUND
    assert "more than 1 connections, one is refused" in caplog.text


def test_a_fault_in_our_own_code_closes_one_connection_and_is_told(
    server: net.Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(link: Any, frame: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(get_node().handlers, wire.CANCEL, fail)
    with Stranger(server) as unlucky, Stranger(server) as good, caplog.at_level(logging.WARNING, "net"):
        unlucky.introduce()
        good.introduce()
        unlucky.send((wire.CANCEL, 1))
        unlucky.wait_until_closed()
        assert good.lookup("inbox")[0] == wire.FOUND
    assert "ZeroDivisionError: a bug" in caplog.text


def test_ctrl_c_in_the_middle_of_a_frame_reaches_main_and_the_connection_goes_on(
    server: net.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(link: Any, frame: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(get_node().handlers, wire.CANCEL, interrupt)
    with Stranger(server) as stranger:
        stranger.introduce()
        stranger.send((wire.CANCEL, 1))
        with pytest.raises(KeyboardInterrupt):
            until(lambda: False)
        assert stranger.lookup("inbox")[0] == wire.FOUND


def test_a_slow_reader_holds_up_nobody_and_gets_everything(
    server: net.Server, inbox: channel
) -> None:  # T8.8
    big = bytes(3_000_000)
    with Stranger(server) as slow, Stranger(server) as quick:
        slow.introduce()
        quick.introduce()
        slow.lookup("inbox")
        for op in range(3):
            slow.send((wire.RECEIVE, get_node().id_of(inbox), op + 1))
        until(lambda: inbox.balance == -3)
        for _ in range(3):
            inbox.send(big)
        for _ in range(100):
            assert quick.lookup("inbox")[0] == wire.FOUND
        items: list[Any] = []
        parts = Incoming(Limits(), Spare())
        while len(items) < 3:
            for frame in slow.protocol.receive(slow.socket.recv(10_000)):
                if frame[0] == wire.LARGE:
                    parts.begin(*frame[1:])
                else:
                    whole = parts.part(*frame[1:])
                    if room := parts.take_room():
                        slow.send((wire.WINDOW, room))
                    items += [whole] if whole is not None else []
        assert all(frame[0] == wire.ITEM and frame[2] == big for frame in items)


def test_what_cannot_be_accepted_is_tried_again(
    server: net.Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_sockets, "ACCEPT_PAUSE_SECONDS", 0.01)
    (listener,) = get_node().listeners
    real = listener._socket

    class Exhausted:
        def accept(self) -> Any:
            listener._socket = real
            raise OSError(24, "Too many open files")

    listener._socket = Exhausted()  # type: ignore[assignment]
    with Stranger(server) as patient:
        patient.introduce()
    assert "a connection could not be accepted: [Errno 24] Too many open files" in caplog.text
