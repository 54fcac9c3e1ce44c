"""One end of a session: bytes in, frames out, however they are cut; RemoteProtocolError for what is wrong."""

import re
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings, strategies as st

from net._codec import Codec
from net._protocol import TRANSITIONS, Hello, Limits, Protocol, State
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
DOCUMENT = Path(__file__).parents[2] / "docs" / "wire.md"


def make_protocol(name: str = "ours", **options: Any) -> Protocol:
    def refuse(*_: Any) -> Any:
        raise LookupError("no channels here")

    return Protocol(Hello(name.encode().ljust(16, b"."), name=name, **options), Codec(refuse, refuse))


def make_pair(**options: Any) -> tuple[Protocol, Protocol]:
    """Two ends that have met; the options are of the second one's HELLO."""
    one, other = make_protocol("one"), make_protocol("other", **options)
    one.receive(other.opening())
    other.receive(one.opening())
    return one, other


def stream(values: list[Any]) -> bytes:
    """All bytes of a sender, each value in a batch of its own except that pairs share one."""
    sender = make_protocol("sender")
    parts = [sender.opening()]
    pairs = (values[start : start + 2] for start in range(0, len(values), 2))
    parts += [sender.envelope([sender.pack((SEND, CID, value)) for value in pair]) for pair in pairs]
    return b"".join(parts)


def batch(frames: list[Any], seq: int = 1) -> bytes:
    body = b"".join(map(msgpack.packb, frames))
    return BATCH.pack(8 + len(body), seq) + body


OPENING = PREFACE + bytes([VERSION])
FEATURES = {"node": CID, "versions": [1, 1]}


def test_the_hello_comes_first_and_fills_peer() -> None:
    ours, theirs = make_protocol(), make_protocol("theirs", addresses=("tcp://127.0.0.1:1",))
    assert ours.state is State.NEW
    [frame] = ours.receive(theirs.opening())
    assert frame[0] == HELLO
    assert ours.state is State.OPEN
    assert ours.peer == theirs.hello


def test_a_hello_survives_its_features() -> None:
    hello = Hello(CID, ("tcp://a:1", "tcp://b:2"), "bank", (1, 3), Limits(1000, 2000))
    [frame] = make_protocol().receive(OPENING + batch([(HELLO, hello.features())]))
    assert Hello.from_features(frame[1]) == hello


def test_features_of_newer_releases_are_ignored() -> None:
    ours = make_protocol()
    ours.receive(OPENING + batch([(HELLO, {**FEATURES, "compression": ["zstd"]})]))
    assert ours.peer == Hello(CID)


def test_frames_arrive_in_order_from_several_batches_at_once() -> None:
    one, other = make_pair()
    packed = [one.pack((SEND, CID, number)) for number in range(5)]
    data = one.envelope(packed[:2]) + one.envelope(packed[2:])
    assert [frame[2] for frame in other.receive(data)] == [0, 1, 2, 3, 4]
    assert other.receive(one.envelope([one.pack((ACK, CID, 5))])) == [(ACK, CID, 5)]


def test_nothing_to_send_is_no_bytes() -> None:
    assert make_protocol().envelope([]) == b""


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


@settings(max_examples=20)
@given(values)
def test_one_byte_at_a_time_gives_the_same_frames(several: list[Any]) -> None:
    whole = stream(several)
    ours = make_protocol()
    frames = [frame for byte in whole for frame in ours.receive(bytes([byte]))]
    assert frames == make_protocol().receive(whole)
    ours.receive(b"")
    assert ours.state is State.CLOSED


@given(values, st.data())
def test_a_stream_that_ends_inside_of_something_is_an_error(several: list[Any], data: st.DataObject) -> None:
    whole = stream(several)
    cut = data.draw(st.integers(1, len(whole) - 1))
    ours = make_protocol()
    frames = ours.receive(whole[:cut])
    complete = len(make_protocol().receive(whole[:cut]))
    assert len(frames) == complete
    boundaries = {len(stream(several[:count])) for count in range(0, len(several) + 1, 2)}
    if cut in boundaries:
        ours.receive(b"")
    else:
        with pytest.raises(RemoteProtocolError, match="in the middle of"):
            ours.receive(b"")


@given(st.binary(min_size=1, max_size=200))
def test_random_bytes_are_a_protocol_error_or_wait_for_more(data: bytes) -> None:
    for start in (b"", OPENING, OPENING + batch([(HELLO, FEATURES)])):
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


FAULTS = {
    "a web browser": (b"GET / HTTP/1.1\r\n", "does not speak this protocol.*right port"),
    "another version": (PREFACE + b"\x02", "speaks version 2 of the protocol, we speak 1"),
    "no hello first": (OPENING + batch([(ACK, CID, 1)]), "frame is not allowed in state new"),
    "two hellos": (
        OPENING + batch([(HELLO, FEATURES), (HELLO, FEATURES)]),
        "hello is not allowed in state open",
    ),
    "too large": (OPENING + BATCH.pack(MAX_HELLO_BYTES + 1, 1), f"a batch of {MAX_HELLO_BYTES + 1} bytes"),
    "empty batch": (OPENING + BATCH.pack(8, 1), "a batch of 8 bytes; 9 to"),
    "no room for its number": (OPENING + BATCH.pack(0, 1), "a batch of 0 bytes"),
    "wrong number": (OPENING + batch([(HELLO, FEATURES)], seq=2), "starts with frame 2, but frame 1 is due"),
    "frame twice": (
        OPENING + batch([(HELLO, FEATURES)]) + batch([(ACK, CID, 1)], seq=1),
        "starts with frame 1, but frame 2 is due",
    ),
    "after goodbye": (
        OPENING + batch([(HELLO, FEATURES), (GOODBYE, ""), (ACK, CID, 1)]),
        "frame is not allowed in state closed",
    ),
    "hello before goodbye": (OPENING + batch([(GOODBYE, "")]), "goodbye is not allowed in state new"),
    "versions": (OPENING + batch([(HELLO, {**FEATURES, "versions": [2, 3]})]), "speaks versions 2 to 3"),
    "node": (OPENING + batch([(HELLO, {**FEATURES, "node": b"x"})]), "'node' must be 16 bytes"),
    "no node": (OPENING + batch([(HELLO, {})]), "'node' must be 16 bytes, not None"),
    "addresses": (OPENING + batch([(HELLO, {**FEATURES, "addresses": ["x"] * 17})]), "'addresses' must be"),
    "name": (OPENING + batch([(HELLO, {**FEATURES, "name": 1})]), "'name' must be"),
    "limits": (OPENING + batch([(HELLO, {**FEATURES, "limits": [1]})]), "'limits' must be a map"),
    "limit": (OPENING + batch([(HELLO, {**FEATURES, "limits": {"frame": 0}})]), "'limits' must be sizes"),
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
    with pytest.raises(LocalProtocolError, match="failed before"):
        ours.pack((ACK, CID, 1))
    with pytest.raises(LocalProtocolError, match="failed before"):
        ours.envelope([b"x"])


def test_a_stranger_is_recognised_by_the_first_wrong_byte() -> None:
    with pytest.raises(RemoteProtocolError, match="right port"):
        make_protocol().receive(b"G")


def test_the_length_is_checked_before_anything_is_kept() -> None:
    one, other = make_pair()
    limit = MAX_BATCH_BYTES
    assert other.receive(BATCH.pack(limit, 2)) == []
    with pytest.raises(RemoteProtocolError, match=f"9 to {limit} are allowed"):
        one.receive(BATCH.pack(limit + 1, 2))


def test_the_end_of_the_stream_closes_and_may_be_said_again() -> None:
    ours = make_protocol()
    assert ours.receive(b"") == []
    assert ours.receive(b"") == []
    assert ours.state is State.CLOSED
    with pytest.raises(RemoteProtocolError, match="after the end"):
        ours.receive(b"x")


def test_after_a_goodbye_we_may_still_answer_what_came_before_it() -> None:
    one, other = make_pair()
    frames = other.receive(one.envelope([one.pack((SEND, CID, 1)), one.pack((GOODBYE, "done"))]))
    assert [frame[0] for frame in frames] == [SEND, GOODBYE]
    assert other.state is State.CLOSED
    assert one.receive(other.envelope([other.pack((ACK, CID, 1))])) == [(ACK, CID, 1)]


def test_a_message_of_the_largest_size_passes_and_one_byte_more_is_refused_at_the_sender() -> None:
    one, other = make_pair()
    room = MAX_FRAME_BYTES - len(one.pack((SEND, CID, b"x" * 2**16))) + 2**16
    [frame] = other.receive(one.envelope([one.pack((SEND, CID, bytes(room)))]))
    assert len(frame[2]) == room
    with pytest.raises(
        NotSendable, match=f"{MAX_FRAME_BYTES + 1} bytes is over the limit of {MAX_FRAME_BYTES}"
    ):
        one.pack((SEND, CID, bytes(room + 1)))
    with pytest.raises(NotSendable) as caught:
        one.pack((SPAWN, 1, "m:f", (), {"k": bytes(MAX_FRAME_BYTES)}))
    assert caught.value.path == "kwargs"


def test_the_limits_of_the_other_side_are_kept() -> None:
    one, other = make_pair(limits=Limits(max_frame_bytes=100, max_batch_bytes=200))
    with pytest.raises(NotSendable, match="over the limit of 100 bytes"):
        one.pack((SEND, CID, b"x" * 100))
    packed = [one.pack((SEND, CID, b"x" * 60)) for _ in range(10)]
    assert len(other.receive(one.envelope(packed))) == 10


def test_many_frames_are_cut_into_batches_that_are_allowed() -> None:
    one, other = make_pair()
    packed = [one.pack((SEND, CID, bytes(9_000_000))) for _ in range(3)]
    assert [len(frame[2]) for frame in other.receive(one.envelope(packed))] == [9_000_000] * 3


def test_opening_comes_once() -> None:
    ours = make_protocol()
    ours.opening()
    with pytest.raises(LocalProtocolError, match="comes first and once"):
        ours.opening()


def test_the_repr_shows_state_peer_and_counts() -> None:
    one, _ = make_pair()
    assert repr(one) == "<Protocol open with 'other' sent=1 received=1>"


def test_a_channel_that_cannot_be_described_is_an_error_of_the_node() -> None:
    with pytest.raises(LookupError, match="no channels here"):
        make_protocol().pack((SEND, CID, channel()))


def test_the_document_draws_the_transitions_of_the_table() -> None:
    text = DOCUMENT.read_text()
    for (state, event), target in TRANSITIONS.items():
        assert f"| {state.value} | {event} | {target.value} |" in text


def test_the_worked_example_of_the_document_is_what_we_send() -> None:
    block = re.search(r"```hex\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert block
    lines = [line.split("#")[0] for line in block[1].splitlines()]
    ours = Protocol(Hello(bytes(range(16)), ("tcp://a:1",), "atm"), Codec(None, None))  # type: ignore[arg-type]
    sent = ours.opening() + ours.envelope([ours.pack((SEND, CID, ("deposit", "acct-17", 125, 42)))])
    assert bytes.fromhex("".join(lines)).hex(" ") == sent.hex(" ")
