"""A peer that says anything, in any order: RemoteProtocolError at worst, bounded memory, and everybody else goes on."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import net
from net import _wire as wire
from net._codec import Codec
from net._protocol import Hello, Protocol
from net._session import Session
from net.addresses import parse_address
from net.testing import MemoryNetwork, memory_network
from tasklets import ChannelClosed, channel, sleep, timeout
from tests.net.fuzz_targets import Feed

STRANGE = b"nobody has this!"
HOME = parse_address("tcp://home:1")
MAX_HELD = 48 * 1024 * 1024  # bytes that one hostile session may make a node hold in these tests


def serve(inbox: channel, window: channel) -> None:
    with net.serve("tcp://home:1", inbox=inbox, window=window):
        sleep(1_000_000)


class Hostile:
    """A connection to home, at which a test says what goes over it. It reads nothing, unless it is told to."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.transport = network.connect(network.node("hostile"), HOME)
        self.closed = False
        self.codec = Codec(
            lambda one: (STRANGE, one.name.encode(), 0, None, (), 3), lambda described: channel()
        )
        self.session = Session(STRANGE, self.codec)
        self.protocol = Protocol(Hello(STRANGE, session=STRANGE), self.codec, self.session)
        self.heard: list[Any] = []
        self.transport.start(self.read, lambda: None)

    def read(self) -> None:
        buffer = memoryview(bytearray(65536))
        try:
            while size := self.transport.receive_into(buffer):
                self.heard += self.protocol.receive(buffer[:size])
            self.closed = True
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True

    def write(self, data: bytes) -> None:
        while data and not self.closed:
            try:
                data = data[self.transport.send(data) :]
            except BlockingIOError:
                sleep(0.01)
        sleep(0.05)

    def introduce(self) -> None:
        self.write(self.protocol.opening())
        self.say((wire.LOOKUP, 1, "inbox"), (wire.LOOKUP, 2, "window"))

    def say(self, *frames: Any) -> None:
        self.write(self.session.envelope([self.codec.encode(frame) for frame in frames]))


@contextmanager
def attacked() -> Iterator[tuple[MemoryNetwork, Hostile, channel, channel]]:
    """A home with two channels, a hostile peer; afterwards an honest one has to be served, and nothing may be left."""
    with memory_network(1, delay=(0.0001, 0.0002)) as network:
        home = network.node("home")
        home.accepts_spawn = False
        inbox, window = channel(name="inbox"), channel(8, "window")
        network.run_at("home", serve, inbox, window)
        sleep(0)
        hostile = Hostile(network)
        yield network, hostile, inbox, window
        hostile.transport.close()
        sleep(30)
        assert not home.links
        for where in (inbox, window):
            if not where.closing:
                while where.balance > 0:
                    with suppress(Exception):  # it may be an exception that was sent
                        where.receive()
                with network.at("honest"), timeout(10):
                    reference = net.connect(f"tcp://home:1/{where.name}")
                    sending = network.run_at("honest", reference.send, "honest")
                    assert where.receive() == "honest"
                    sleep(1)
                    assert not sending.alive


def give(where: channel) -> None:
    """Send to whoever asks for it; that is a peer which may end before it has taken it."""
    with suppress(net.PeerLost, ChannelClosed):
        where.send("for whom?")


def held_bytes(network: MemoryNetwork) -> int:
    """What home holds for its peers."""
    return sum(
        link._outbox_bytes
        + link.session.replay_bytes
        + link.incoming._active_bytes
        + sum(grant.waiting_bytes + wire.SMALL_BYTES * grant.used for grant in link.grants.values())
        for link in network.node("home").links
    )


# ---------------------------------------------------------------------------------------- any frames, any order

ids = st.sampled_from(["inbox", "window", "strange"])
small = st.integers(0, 5)
values = (
    st.none()
    | st.integers()
    | st.text(max_size=20)
    | st.binary(max_size=3000)
    | st.lists(st.integers(), max_size=3)
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "id": ids,
    "uint": small | st.integers(0, 2**64 - 1),
    "count": st.integers(1, 5) | st.integers(1, 2**64 - 1),
    "text": st.text(max_size=20),
    "value": values,
    "error": st.tuples(
        st.sampled_from(["ValueError", "PeerLost", "Odd"]), st.text(max_size=9), st.text(max_size=9)
    ),
    "error or nil": st.none(),
    "args": st.just(()),
    "kwargs": st.just({}),
    "map": st.just({"node": STRANGE}),
    "bytes": st.binary(min_size=1, max_size=3000),
    "subject": st.none() | ids | small,
}


@st.composite
def some_frames(draw: st.DrawFn) -> list[Any]:
    kinds = draw(st.lists(st.sampled_from(sorted(set(wire.FRAMES) - {wire.HELLO})), min_size=1, max_size=12))
    return [(kind, *(draw(FIELDS[field]) for _, field in wire.FRAMES[kind].fields)) for kind in kinds]


def with_ids(frame: Any, known: dict[str, bytes]) -> Any:
    fields = ["", *(kind for _, kind in wire.FRAMES[frame[0]].fields)]
    return tuple(
        known[value] if field in ("id", "subject") and isinstance(value, str) else value
        for field, value in zip(fields, frame, strict=True)
    )


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(some_frames(), min_size=1, max_size=6), st.data())
def test_valid_frames_in_any_order_do_no_harm(
    caplog: pytest.LogCaptureFixture, several: list[Any], data: st.DataObject
) -> None:
    caplog.clear()
    with attacked() as (network, hostile, inbox, window):
        hostile.introduce()
        home = network.node("home")
        known = {"inbox": home.id_of(inbox), "window": home.id_of(window), "strange": STRANGE}
        for batch in several:
            if data.draw(st.booleans()) and not inbox.closing:
                network.run_at("home", give, inbox)
            hostile.say(*(with_ids(frame, known) for frame in batch))
            assert held_bytes(network) < MAX_HELD
    assert [record.getMessage() for record in caplog.records if "fault" in record.getMessage()] == []


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(some_frames(), min_size=1, max_size=3), st.data())
def test_garbled_bytes_do_no_harm(
    caplog: pytest.LogCaptureFixture, several: list[Any], data: st.DataObject
) -> None:
    caplog.clear()
    with attacked() as (network, hostile, inbox, window):
        hostile.introduce()
        home = network.node("home")
        known = {"inbox": home.id_of(inbox), "window": home.id_of(window), "strange": STRANGE}
        stream = bytearray()
        for batch in several:
            stream += hostile.session.envelope(
                [hostile.codec.encode(with_ids(frame, known)) for frame in batch]
            )
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(stream) - 1))
            how = data.draw(st.sampled_from(["flip", "cut", "double"]))
            if how == "flip":
                stream[at] ^= data.draw(st.integers(1, 255))
            elif how == "cut" and len(stream) > 1:
                del stream[at : at + data.draw(st.integers(1, 20))]
            else:
                stream[at:at] = stream[at : at + 20]
            if not stream:
                break
        hostile.write(bytes(stream))
        assert held_bytes(network) < MAX_HELD
    assert [record.getMessage() for record in caplog.records if "fault" in record.getMessage()] == []


# ------------------------------------------------------------------------------------------- one limit after the other


def test_who_asks_and_does_not_read_is_given_up_before_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("net._link.MAX_UNREAD_BYTES", 1 << 20)
    with attacked() as (network, hostile, _inbox, _window):
        hostile.introduce()
        (link,) = network.node("home").links
        hostile.transport.start(lambda: None, lambda: None)  # reads no more
        op = 10
        while link.lost is None:
            assert held_bytes(network) < (1 << 20) + 8 * (1 << 20)
            hostile.say(*((wire.LOOKUP, op + each, "no such name " * 20) for each in range(500)))
            op += 500
        assert "does not read" in str(link.lost)


@pytest.mark.parametrize("name", ["inbox", "window"])
@pytest.mark.parametrize("size", [10, 100_000])
def test_who_sends_beyond_the_window_is_closed_and_has_filled_no_memory(
    name: str, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    with attacked() as (network, hostile, inbox, window), caplog.at_level(logging.WARNING, "net"):
        hostile.introduce()
        home = network.node("home")
        (link,) = home.links
        target = home.id_of(inbox if name == "inbox" else window)
        for _ in range(3000):
            hostile.say((wire.SEND, target, bytes(size)))
            assert held_bytes(network) < 4 * wire.WINDOW_BYTES
            if link.lost is not None:
                break
        assert "are allowed" in str(link.lost) or "it has to wait" in str(link.lost)


@pytest.mark.parametrize("name", ["inbox", "window"])
@pytest.mark.parametrize("size", [10, 100_000])
def test_who_sends_behind_a_large_message_that_never_ends_is_closed_too(name: str, size: int) -> None:
    with attacked() as (network, hostile, inbox, window):
        hostile.introduce()
        home = network.node("home")
        (link,) = home.links
        target = home.id_of(inbox if name == "inbox" else window)
        hostile.say((wire.LARGE, 0, 1 << 20, target))
        for _ in range(3000):
            hostile.say((wire.SEND, target, bytes(size)))
            if link.lost is not None:
                break
        assert "are allowed" in str(link.lost) or "it has to wait" in str(link.lost)


@pytest.mark.parametrize("name", ["inbox", "window"])
def test_large_messages_behind_one_that_never_ends_are_bounded(name: str) -> None:
    with attacked() as (network, hostile, inbox, window):
        hostile.introduce()
        home = network.node("home")
        (link,) = home.links
        target = home.id_of(inbox if name == "inbox" else window)
        hostile.say((wire.LARGE, 0, 1 << 20, target))
        for stream in range(1, 100):
            say_large(hostile, stream, target)
            assert held_bytes(network) < 4 * wire.WINDOW_BYTES
            if link.lost is not None:
                break
        assert "are allowed" in str(link.lost) or "it has to wait" in str(link.lost)


def test_large_messages_for_nobody_are_not_kept() -> None:
    with attacked() as (network, hostile, _inbox, _window):
        hostile.introduce()
        home = network.node("home")
        (link,) = home.links
        hostile.say((wire.LARGE, 0, 1 << 20, STRANGE))
        for stream in range(1, 20):
            say_large(hostile, stream, STRANGE)
        assert home.dead_letters == 19
        assert link.lost is None


def test_two_large_frames_about_one_spawned_function_are_refused() -> None:
    with attacked() as (network, hostile, _inbox, _window):
        hostile.introduce()
        (link,) = network.node("home").links
        hostile.say((wire.LARGE, 0, 1 << 20, 7), (wire.LARGE, 1, 1 << 20, 7))
        assert "LARGE 1 is about 7, which another one was about" in str(link.lost)


def say_large(hostile: Hostile, stream: int, target: bytes) -> None:
    """Send a large message, all of it."""
    data = hostile.codec.encode((wire.SEND, target, bytes(3 * wire.PART_BYTES)))
    hostile.say((wire.LARGE, stream, len(data), target))
    for begin in range(0, len(data), wire.PART_BYTES):
        hostile.say((wire.PART, stream, data[begin : begin + wire.PART_BYTES]))


def test_frames_behind_a_large_one_that_never_ends_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("net._bulk.MAX_DEFERRED", 100)
    with attacked() as (network, hostile, inbox, _window):
        hostile.introduce()
        (link,) = network.node("home").links
        target = network.node("home").id_of(inbox)
        hostile.say((wire.LARGE, 0, 1 << 20, target), *((wire.OFFER, target, op) for op in range(100)))
        assert link.lost is None
        hostile.say((wire.OFFER, target, 100))
        assert "more than 100 frames behind large ones" in str(link.lost)


def test_statuses_that_nobody_reads_are_bounded() -> None:
    with attacked() as (network, hostile, _inbox, _window):
        hostile.introduce()
        (link,) = network.node("home").links
        hostile.say(*((wire.LOOKUP, op, "net.status") for op in range(10, 200)))
        assert len(link.grants) == 2 + 64
        assert link.lost is None


def test_who_is_connected_to_cannot_make_us_wait_where_nobody_can_connect_again() -> None:
    """Found by tests.net.fuzz: the session of a socket pair waited, and tried to connect to nowhere."""
    with memory_network(1) as network:
        home = network.node("home")
        feed = Feed()
        link = home.adopt_transport(feed, "a socket pair", opens=True)
        codec = Codec(lambda one: (STRANGE, STRANGE, 0, None, (), 3), lambda described: channel())
        hello = Hello(STRANGE, session=link.session.session_id, patience_ms=1 << 62)
        feed.data = Protocol(hello, codec, Session(STRANGE, codec)).opening()
        home.call_soon(feed.on_readable)
        sleep(0.1)
        assert (link.state, link.patience) == ("open", 0.0)
        feed.ended = True
        home.call_soon(feed.on_readable)
        sleep(0.1)
        assert link.state == "lost"


LARGE_FAULTS = {
    "too large": [(wire.LARGE, 0, 1 << 40, None)],
    "out of order": [(wire.LARGE, 1, 1000, None)],
    "not announced": [(wire.PART, 0, b"x")],
    "more than announced": [(wire.LARGE, 0, 3, None), (wire.PART, 0, b"four")],
    "complete before": [(wire.LARGE, 0, 1, None), (wire.PART, 0, b"\xc0"), (wire.PART, 0, b"\xc0")],
    "no frame": [(wire.LARGE, 0, 1, None), (wire.PART, 0, b"\xc0")],
    "too large together": [
        *[(wire.LARGE, stream, 40 << 20, None) for stream in range(2)],
        *[(wire.PART, stream, b"begun") for stream in range(2)],
    ],
    "another subject": [
        (wire.LARGE, 0, 20, b"0123456789abcdef"),
        (wire.PART, 0, b"\x93\x01\xc4\x10" + STRANGE[:15] + b"\x01"),
    ],
    "a small kind": [
        (wire.LARGE, 0, 2 + 3, None),
        (wire.PART, 0, b"\x92\x09\x01"),
        (wire.PART, 0, b"\x01\x01"),
    ],
    "window of what was not sent": [(wire.WINDOW, 1)],
}


@pytest.mark.parametrize("kind", LARGE_FAULTS)
def test_faults_in_large_frames_end_the_session(kind: str) -> None:
    with attacked() as (network, hostile, _inbox, _window):
        hostile.introduce()
        (link,) = network.node("home").links
        hostile.say(*LARGE_FAULTS[kind])
        assert "broke the protocol" in str(link.lost)


def test_parts_beyond_the_window_end_the_session() -> None:
    with attacked() as (network, hostile, _inbox, _window):
        hostile.introduce()
        (link,) = network.node("home").links
        for stream in range(600):
            hostile.say((wire.LARGE, stream, 64 << 20, None))
        while link.lost is None:
            hostile.say((wire.PART, 0, bytes(wire.PART_BYTES)), (wire.PART, 1, bytes(wire.PART_BYTES)))
            assert held_bytes(network) < (64 << 20) + (1 << 20)
        assert "have begun" in str(link.lost)


def test_a_session_is_not_taken_over_by_another_node() -> None:
    with attacked() as (network, hostile, _inbox, _window):
        hostile.introduce()
        (link,) = network.node("home").links
        thief = Hostile(network)
        thief.protocol.hello = Hello(b"another node....", session=STRANGE, resumes=True)
        thief.write(thief.protocol.opening())
        assert thief.closed
        assert link.lost is None
        assert link._transport is not None
        thief.transport.close()


def test_who_asks_for_large_messages_and_refuses_them_unread_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("net._link.MAX_UNREAD_BYTES", 3_000_000)
    with attacked() as (network, hostile, inbox, _window):
        hostile.introduce()
        home = network.node("home")
        (link,) = home.links
        hostile.transport.start(lambda: None, lambda: None)  # reads no more
        network.run_at("home", give_large, inbox)
        for op in range(10, 30):
            if link.lost is None:
                hostile.say((wire.RECEIVE, home.id_of(inbox), op))
                hostile.say((wire.REFUSED, op))
                assert link.unread_bytes < 5_000_000
        assert "refuses them" in str(link.lost)


def give_large(where: channel) -> None:
    with suppress(net.PeerLost):
        where.send(bytes(1_000_000))
