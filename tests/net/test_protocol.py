"""One end of a session: bytes in, frames out, however they are cut; RemoteProtocolError for what is wrong."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import pytest
from hypothesis import given, settings, strategies as st

from net._apart import APART_BYTES, Apart
from net._codec import Codec
from net._protocol import TRANSITIONS, Hello, Protocol, State
from net._session import Limits, Session
from net._wire import (
    ACK,
    BATCH,
    GOODBYE,
    HELLO,
    MAX_BATCH_BYTES,
    MAX_FRAME_BYTES,
    MAX_HELLO_BYTES,
    PREFACE,
    SEND,
    SPAWN,
    VERSION,
)
from net.errors import LocalProtocolError, RemoteProtocolError
from tasklets import NotSendable, channel

CID = b"0123456789abcdef"
SID = b"session........."
DOCUMENT = Path(__file__).parents[2] / "docs" / "wire.md"


def codec() -> Codec:
    def refuse(*_: Any) -> Any:
        raise LookupError("no channels here")

    return Codec(refuse, refuse)


def make_protocol(name: str = "ours", **options: Any) -> Protocol:
    """The end that opens."""
    hello = Hello(name.encode().ljust(16, b"."), name=name, session=SID, **options)
    return Protocol(hello, codec(), Session(SID, codec()))


class End(NamedTuple):
    protocol: Protocol
    session: Session

    def say(self, *frames: Any) -> bytes:
        return self.session.envelope([self.session.pack(frame) for frame in frames])


def make_pair(**options: Any) -> tuple[End, End]:
    """Two ends that have met; the options are of the second one's HELLO."""
    one = make_protocol("one")
    other = Protocol(Hello(b"other...........", name="other"), codec())
    other.receive(one.opening())
    session = Session(SID, codec())
    one.receive(other.join(session, replace(other.hello, session=SID, **options)))
    assert one.session is not None
    return End(one, one.session), End(other, session)


def stream(values: list[Any]) -> bytes:
    """All bytes of who opens, each value in a batch of its own except that pairs share one."""
    sender = make_protocol("sender")
    end = End(sender, sender.session)  # type: ignore[arg-type]
    pairs = (values[start : start + 2] for start in range(0, len(values), 2))
    return sender.opening() + b"".join(end.say(*[(SEND, CID, value) for value in pair]) for pair in pairs)


def batch(frames: list[Any], number: int = 0, acknowledged: int = 0) -> bytes:
    body = b"".join(map(msgpack.packb, frames))
    return BATCH.pack(16 + len(body), number, acknowledged) + body


OPENING = PREFACE + bytes([VERSION])
FEATURES = {"node": CID, "versions": [1, 1], "session": SID}
MET = OPENING + batch([(HELLO, FEATURES)])


def test_the_hello_comes_first_and_fills_peer() -> None:
    ours, theirs = make_protocol(), make_protocol("theirs", addresses=("tcp://127.0.0.1:1",))
    assert ours.state is State.NEW
    [frame] = ours.receive(theirs.opening())
    assert frame[0] == HELLO
    assert ours.state is State.OPEN
    assert ours.peer == theirs.hello


def test_a_hello_survives_its_features() -> None:
    hello = Hello(
        CID, ("tcp://a:1",), "bank", (1, 3), Limits(1 << 20, 1 << 19), SID, True, 7, 1500, 90, "pulse"
    )
    [frame] = make_protocol().receive(OPENING + batch([(HELLO, hello.features())]))
    assert Hello.from_features(frame[1]) == hello


def test_features_of_newer_releases_are_ignored() -> None:
    ours = make_protocol()
    ours.receive(OPENING + batch([(HELLO, {**FEATURES, "compression": ["zstd"]})]))
    assert ours.peer == Hello(CID, session=SID)


def test_frames_arrive_in_order_from_several_batches_at_once() -> None:
    one, other = make_pair()
    data = one.say((SEND, CID, 0), (SEND, CID, 1)) + one.say((SEND, CID, 2))
    assert [frame[2] for frame in other.protocol.receive(data)] == [0, 1, 2]
    assert other.protocol.receive(one.say((ACK, CID, 5))) == [(ACK, CID, 5)]


def test_sizes_are_told_of_frames_that_are_not_small() -> None:
    one, other = make_pair()
    data = one.say((SEND, CID, 0), (SEND, CID, bytes(2000))) + one.say((SEND, CID, bytes(3000)))
    other.protocol.receive(data)
    assert {index: size // 1000 for index, size in other.protocol.sizes.items()} == {1: 2, 2: 3}
    other.protocol.receive(one.say((SEND, CID, 0)))
    assert other.protocol.sizes == {}


values = st.lists(
    st.none() | st.integers() | st.text() | st.binary(max_size=300) | st.lists(st.integers(), max_size=5),
    max_size=5,
)


@given(values, st.data())
def test_any_cut_of_the_stream_gives_the_same_frames(several: list[Any], data: st.DataObject) -> None:
    whole = stream(several)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    ours = make_protocol()
    frames: list[Any] = []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        if start < end:
            frames += ours.receive(whole[start:end])
    assert frames == make_protocol().receive(whole)


large = st.integers(1, MAX_FRAME_BYTES - 100).map(
    lambda size: (b"0123456789abcdef" * (size // 16 + 1))[:size]
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.none() | large | large.map(lambda data: ("beside", data)), min_size=1, max_size=4), st.data()
)
def test_bytes_may_come_straight_to_where_they_stay(several: list[Any], data: st.DataObject) -> None:
    """Whoever reads may put them into the first of the `rooms`, as many as it takes."""
    sender = make_protocol("sender")
    assert sender.session is not None
    whole = sender.opening()
    for value in several:
        if isinstance(value, bytes) and len(value) >= APART_BYTES:
            whole += b"".join(sender.session.envelope_apart(Apart.of((SEND, CID, value))))
        else:
            whole += End(sender, sender.session).say((SEND, CID, value))
    expected = make_protocol()
    frames = expected.receive(whole)
    sizes = expected.sizes
    ours = make_protocol()
    arrived: list[Any] = []
    found: dict[int, int] = {}
    at = 0
    while at < len(whole):
        count = data.draw(st.sampled_from([1, 19, 52, 4096, 65_536, 100_000]))
        piece = whole[at : at + count]
        rooms = ours.rooms()
        if rooms is not None and data.draw(st.booleans()):
            piece = piece[: len(rooms[0])]
            rooms[0][: len(piece)] = piece
            taken = ours.landed(len(piece))
        else:
            taken = ours.receive(piece)
        at += len(piece)
        found.update((len(arrived) + index, size) for index, size in ours.sizes.items())
        arrived += taken
    assert arrived == frames
    assert found == sizes
    assert ours._landing is None


def test_a_small_message_that_comes_in_pieces_stays_small() -> None:
    """Its bytes are not counted on the other side (WINDOW_BYTES), so they must not be here."""
    one, other = make_pair()
    data = one.say((SEND, CID, bytes(500)))
    assert other.protocol.receive(data[:100]) == []
    assert other.protocol.receive(data[100:]) == [(SEND, CID, bytes(500))]
    assert other.protocol.sizes == {}


def test_no_more_than_a_batch_is_kept_of_what_is_not_complete() -> None:
    one, other = make_pair()
    data = one.say((SEND, CID, bytes(60_000)), (SEND, CID, bytes(60_000)))
    assert other.protocol.receive(data[:-1]) == []
    rooms = other.protocol.rooms()
    assert rooms is not None
    assert len(rooms[0]) == 1
    assert [len(frame[2]) for frame in other.protocol.receive(data[-1:])] == [60_000, 60_000]
    other.protocol.receive(one.say((SEND, CID, bytes(60_000)))[:1000])
    other.protocol.receive(b"")  # a cut: the rest comes over the next connection
    assert other.protocol.rooms() is None


@settings(max_examples=20)
@given(values)
def test_one_byte_at_a_time_gives_the_same_frames(several: list[Any]) -> None:
    whole = stream(several)
    ours = make_protocol()
    frames = [frame for byte in whole for frame in ours.receive(bytes([byte]))]
    assert frames == make_protocol().receive(whole)
    ours.receive(b"")
    assert ours.state is State.CUT


@given(values, st.data())
def test_a_cut_in_the_middle_of_a_batch_gives_the_batches_before(
    several: list[Any], data: st.DataObject
) -> None:
    whole = stream(several)
    cut = data.draw(st.integers(1, len(whole) - 1))
    ours = make_protocol()
    frames = ours.receive(whole[:cut])
    assert frames == make_protocol().receive(whole)[: len(frames)]
    ours.receive(b"")
    assert ours.state is State.CUT
    with pytest.raises(RemoteProtocolError, match="after the end"):
        ours.receive(b"x")


@given(st.binary(min_size=1, max_size=200))
def test_random_bytes_are_a_protocol_error_or_wait_for_more(data: bytes) -> None:
    for start in (b"", OPENING, MET):
        try:
            make_protocol().receive(start + data)
        except RemoteProtocolError:
            pass


@given(values, st.data())
def test_mutated_streams_are_frames_or_a_protocol_error(several: list[Any], data: st.DataObject) -> None:
    garbled = bytearray(stream(several))
    garbled[data.draw(st.integers(0, len(garbled) - 1))] ^= data.draw(st.integers(1, 255))
    ours = make_protocol()
    try:
        ours.receive(garbled)
        ours.receive(b"")
    except RemoteProtocolError:
        assert ours.state is State.ERROR


def hello(**changes: Any) -> bytes:
    return OPENING + batch([(HELLO, {**FEATURES, **changes})])


FAULTS = {
    "a web browser": (b"GET / HTTP/1.1\r\n", "does not speak this protocol.*right port"),
    "another version": (PREFACE + b"\x02", "speaks version 2 of the protocol, we speak 1"),
    "no hello first": (OPENING + batch([(ACK, CID, 1)]), "first batch holds one frame, a HELLO"),
    "a hello with a number": (
        OPENING + batch([(HELLO, FEATURES)], 1),
        "first batch holds one frame, a HELLO",
    ),
    "two hellos": (OPENING + batch([(HELLO, FEATURES), (HELLO, FEATURES)]), "first batch holds one frame"),
    "a hello later": (MET + batch([(HELLO, FEATURES)], 1), "hello is not allowed in state open"),
    "too large": (OPENING + BATCH.pack(MAX_HELLO_BYTES + 1, 0, 0), f"a batch of {MAX_HELLO_BYTES + 1} bytes"),
    "no room for its number": (OPENING + BATCH.pack(0, 1, 0), "a batch of 0 bytes; 16 to"),
    "no frames": (MET + batch([], 1), "batch 1 has no frames"),
    "frames without a number": (MET + batch([(ACK, CID, 1)]), "with frames, but without a number"),
    "wrong number": (MET + batch([(ACK, CID, 1)], 2), "batch 2 came, but batch 1 is due"),
    "batch twice": (MET + 2 * batch([(ACK, CID, 1)], 1), "batch 1 came, but batch 2 is due"),
    "acknowledged what was not sent": (MET + batch([], 0, 1), "batch 1 was acknowledged, but 0 were sent"),
    "the same in passing": (MET + batch([(ACK, CID, 1)], 1, 9), "batch 9 was acknowledged, but 0 were sent"),
    "after goodbye": (MET + batch([(GOODBYE, ""), (ACK, CID, 1)], 1), "frame is not allowed in state closed"),
    "versions": (hello(versions=[2, 3]), "speaks versions 2 to 3"),
    "node": (hello(node=b"x"), "'node' must be 16 bytes"),
    "no node": (OPENING + batch([(HELLO, {})]), "'node' must be 16 bytes, not None"),
    "addresses": (hello(addresses=["x"] * 17), "'addresses' must be"),
    "name": (hello(name=1), "'name' must be"),
    "limits": (hello(limits=[1]), "'limits' must be a map"),
    "limit": (hello(limits={"message": 0}), "'limits' must be sizes of 262144 bytes or more"),
    "session": (hello(session=b"x"), "'session' must be"),
    "resumes": (hello(resumes=1), "'resumes' must be"),
    "received": (hello(received=-1), "'received' must be"),
    "patience": (hello(patience=1.5), "'patience' must be"),
    "silence": (hello(silence=0), "'silence' must be"),
    "purpose": (hello(purpose="fun"), "'purpose' must be"),
}


@pytest.mark.parametrize(("data", "said"), FAULTS.values(), ids=FAULTS)
def test_each_fault_is_named_whole_or_byte_by_byte_and_ends_the_session(data: bytes, said: str) -> None:
    ours, slow = make_protocol(), make_protocol()
    with pytest.raises(RemoteProtocolError, match=said):
        ours.receive(data)
    with pytest.raises(RemoteProtocolError, match=said):
        [slow.receive(bytes([byte])) for byte in data]
    assert ours.state is slow.state is State.ERROR
    with pytest.raises(RemoteProtocolError, match="failed before"):
        ours.receive(b"x")


def test_a_stranger_is_recognised_by_the_first_wrong_byte() -> None:
    with pytest.raises(RemoteProtocolError, match="right port"):
        make_protocol().receive(b"G")


def test_the_length_is_checked_before_anything_is_kept() -> None:
    one, other = make_pair()
    limit = MAX_BATCH_BYTES
    assert other.protocol.receive(BATCH.pack(limit, 1, 0)) == []
    with pytest.raises(RemoteProtocolError, match=f"16 to {limit} are allowed"):
        one.protocol.receive(BATCH.pack(limit + 1, 1, 0))


def test_nothing_may_follow_a_hello_before_it_is_answered() -> None:
    other = Protocol(Hello(CID), codec())
    with pytest.raises(RemoteProtocolError, match="before its HELLO was answered"):
        other.receive(stream([1]))


def test_the_end_of_the_stream_may_be_said_again() -> None:
    ours = make_protocol()
    assert ours.receive(b"") == []
    assert ours.receive(b"") == []
    assert ours.state is State.CUT


def test_after_a_goodbye_we_may_still_answer_what_came_before_it() -> None:
    one, other = make_pair()
    frames = other.protocol.receive(one.say((SEND, CID, 1), (GOODBYE, "done")))
    assert [frame[0] for frame in frames] == [SEND, GOODBYE]
    assert other.protocol.state is State.CLOSED
    assert one.protocol.receive(other.say((ACK, CID, 1))) == [(ACK, CID, 1)]


def test_the_limit_of_the_other_side_is_kept() -> None:
    one, _ = make_pair(limits=Limits(max_message_bytes=300_000))
    with pytest.raises(NotSendable, match="over the limit of 300000 bytes at the other side"):
        one.session.pack((SEND, CID, bytes(300_000)))
    with pytest.raises(NotSendable) as caught:
        one.session.pack((SPAWN, 1, "m:f", (), {"k": bytes(300_000)}))
    assert caught.value.path == "kwargs"
    assert one.session.pack((SEND, CID, bytes(299_000)))


def test_opening_comes_once() -> None:
    ours = make_protocol()
    ours.opening()
    with pytest.raises(LocalProtocolError, match="comes first and once"):
        ours.opening()


def test_the_repr_shows_state_peer_and_counts() -> None:
    one, _ = make_pair()
    one.say((ACK, CID, 1))
    shown = "<Session 73657373 sent=1 acknowledged=0 received=0>"
    assert repr(one.protocol) == f"<Protocol open with 'other' {shown}>"


def test_a_channel_that_cannot_be_described_is_an_error_of_the_node() -> None:
    with pytest.raises(LookupError, match="no channels here"):
        make_pair()[0].session.pack((SEND, CID, channel()))


def test_the_document_draws_the_transitions_of_the_table() -> None:
    text = DOCUMENT.read_text()
    for (state, event), target in TRANSITIONS.items():
        assert f"| {state.value} | {event} | {target.value} |" in text


def test_the_worked_example_of_the_document_is_what_we_send() -> None:
    block = re.search(r"```hex\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert block
    lines = [line.split("#")[0] for line in block[1].splitlines()]
    session = Session(bytes(range(16, 32)), codec())
    hello = Hello(bytes(range(16)), ("tcp://a:1",), "atm", session=session.session_id, patience_ms=10_000)
    ours = Protocol(hello, codec(), session)
    sent = ours.opening() + session.envelope([session.pack((SEND, CID, ("deposit", "acct-17", 125, 42)))])
    assert bytes.fromhex("".join(lines)).hex(" ") == sent.hex(" ")
