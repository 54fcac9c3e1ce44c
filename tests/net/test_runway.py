"""Several large messages in one read: each lands where it stays, and what was not expected is read all the same."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings, strategies as st

from net import _landing
from net._apart import Apart, Head
from net._protocol import Protocol, State
from net._runway import LAID_BYTES, MOST_SLOTS, Row, Runway
from net._session import Session
from net._wire import BATCH, GOODBYE, MAX_FRAME_BYTES, PART, SEND, Frame
from net.errors import RemoteProtocolError
from tests.net.test_protocol import CID, End, make_pair, make_protocol

OTHER_CID = b"fedcba9876543210"
RECEIVED_BYTES = 100_000
is_compiled = not _landing.__file__.endswith(".py")


def make_runway() -> Runway:
    return Runway(memoryview(bytearray(RECEIVED_BYTES)))


def large(session: Session, frame: Frame) -> bytes:
    return b"".join(session.envelope_apart(Apart.of(frame)))


def put(protocol: Protocol, data: bytes) -> tuple[list[Frame], bytes]:
    """Fill the rooms as one read does; returns the frames complete by then, and what found no room."""
    rooms = protocol.rooms()
    if rooms is None:
        return protocol.receive(data), b""
    size = 0
    for room in rooms:
        view = memoryview(room)
        count = min(len(view), len(data) - size)
        view[:count] = data[size : size + count]
        size += count
    return protocol.landed(size), data[size:]


def arrive(protocol: Protocol, data: bytes, piece: int) -> list[Frame]:
    """Bytes that come in pieces of this size."""
    frames: list[Frame] = []
    while data:
        taken, missed = put(protocol, data[:piece])
        frames += taken
        data = missed + data[piece:]
    return frames


def in_a_row(count: int, size: int, channel_id: bytes = CID) -> tuple[End, Protocol, list[Frame]]:
    """Two ends, between which so many large messages have gone, each in two pieces."""
    one, other = make_pair()
    ours = other.protocol
    ours._runway = make_runway()
    sent: list[Frame] = [(SEND, channel_id, bytes([number]) * size) for number in range(count)]
    assert arrive(ours, b"".join(large(one.session, frame) for frame in sent), size // 2 + 100) == sent
    return one, ours, sent


# Frames that follow each other: a size, how often, to which channel; 0 is a small frame, 1 two of them in a batch.
groups = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 9_000, 9_001, 40_000, 65_536, MAX_FRAME_BYTES - 100]),
        st.integers(1, 6),
        st.sampled_from([CID, OTHER_CID]),
    ),
    min_size=1,
    max_size=4,
)


def stream(sender: Protocol, wanted: list[tuple[int, int, bytes]]) -> tuple[bytes, list[Frame]]:
    session = sender.session
    assert session is not None
    whole, frames = sender.opening(), list[Frame]()
    for size, count, channel_id in wanted:
        for _ in range(count):
            number = len(frames) % 256
            if size > 1:
                frames.append((SEND, channel_id, bytes([number]) * size))
                whole += large(session, frames[-1])
            else:
                small: list[Frame] = [(SEND, channel_id, number + each) for each in range(size + 1)]
                frames += small
                whole += End(sender, session).say(*small)
    return whole, frames


# What comes at once, and on which of two connections.
pieces = st.lists(
    st.tuples(st.sampled_from([0, 1]), st.sampled_from([1, 19, 45, 5_000, 65_581, 100_000, 300_000])),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(groups, groups, pieces)
def test_two_connections_that_are_read_into_one_runway(
    one: list[tuple[int, int, bytes]], other: list[tuple[int, int, bytes]], several: list[tuple[int, int]]
) -> None:
    runway = make_runway()
    readers, expected, streams = list[Protocol](), list[Protocol](), list[bytes]()
    told, arrived = list[list[Frame]](), list[list[Frame]]()
    found: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for wanted in (one, other):
        whole, frames = stream(make_protocol("sender"), wanted)
        streams.append(whole)
        expected.append(make_protocol())
        told.append(expected[-1].receive(whole))
        assert told[-1][1:] == frames
        readers.append(make_protocol())
        readers[-1]._runway = runway
        arrived.append([])
    at = [0, 0]
    for which, count in (*several, *[(0, 70_000), (1, 70_000)] * 100):
        piece = streams[which][at[which] : at[which] + count]
        if not piece:
            continue
        taken, missed = put(readers[which], piece)
        at[which] += len(piece) - len(missed)
        sizes = readers[which].sizes
        found[which].update((len(arrived[which]) + index, size) for index, size in sizes.items())
        arrived[which] += taken
    assert at == list(map(len, streams))
    assert arrived == told
    assert list(found) == [each.sizes for each in expected]


def test_a_row_lands_where_it_stays() -> None:
    one, ours, _ = in_a_row(3, 40_000)
    rooms = ours.rooms()
    assert rooms is not None
    assert len(rooms) == 2 * (LAID_BYTES // 40_000) + 1
    places = [landing._memory for landing in ours._runway._landings]
    sent: list[Frame] = [(SEND, CID, bytes([number]) * 40_000) for number in range(3)]
    frames, missed = put(ours, b"".join(large(one.session, frame) for frame in sent))
    assert frames == sent
    assert not missed
    assert ours.sizes == {0: 40_025 - 2, 1: 40_025 - 2, 2: 40_025 - 2}
    if is_compiled:  # else Python makes the bytes of them
        for frame, place in zip(frames, places, strict=False):
            assert frame[2] is place


def test_who_sends_large_messages_of_different_sizes_is_expected_to_send_anything() -> None:
    one, ours, _ = in_a_row(1, 40_000)
    for size in (40_001, 40_000, 40_001, 40_000):
        frame: Frame = (SEND, CID, bytes(size))
        assert arrive(ours, large(one.session, frame), 30_000) == [frame]
        assert ours.rooms() is None


UNEXPECTED: dict[str, Frame] = {
    "a small one": (SEND, CID, "small"),
    "another size": (SEND, CID, bytes(40_001)),
    "another channel": (SEND, OTHER_CID, bytes(40_000)),
    "another type": (PART, 7, bytes(40_000)),
    "the end": (GOODBYE, ""),
}


@pytest.mark.parametrize("frame", UNEXPECTED.values(), ids=UNEXPECTED)
def test_what_was_not_expected_is_read_all_the_same(frame: Frame) -> None:
    one, ours, sent = in_a_row(2, 40_000)
    row = b"".join(large(one.session, each) for each in sent)
    more = large(one.session, frame) if type(frame[-1]) is bytes else one.say(frame)
    frames, missed = put(ours, row + more)
    assert not missed
    assert frames == [*sent, frame]
    assert ours.rooms() is None  # what was expected is not any more
    assert ours.state is (State.CLOSED if frame[0] == GOODBYE else State.OPEN)


def outcome(act: Callable[[], list[Frame]]) -> list[Frame] | str:
    try:
        return act()
    except RemoteProtocolError as error:
        return str(error)


@pytest.mark.parametrize("bit", [0x80, 0x01])
@pytest.mark.parametrize("position", range(45))
def test_garbage_on_the_runway_is_what_it_is_elsewhere(position: int, bit: int) -> None:
    one, ours, sent = in_a_row(2, 40_000)
    _, plain, _ = in_a_row(2, 40_000)
    data = bytearray(large(one.session, sent[0]) + large(one.session, sent[1]))
    data[position] ^= bit
    expected = outcome(lambda: plain.receive(bytes(data)))
    assert outcome(lambda: put(ours, bytes(data))[0]) == expected
    assert ours.state is plain.state
    if 4 <= position < 20:  # the numbers of the batch
        assert ours.state is State.ERROR


def test_a_batch_that_is_not_due_is_refused_on_the_runway() -> None:
    one, ours, sent = in_a_row(2, 40_000)
    large(one.session, sent[0])  # it never comes
    with pytest.raises(RemoteProtocolError, match="is due"):
        put(ours, large(one.session, sent[1]))


def test_a_cut_in_the_middle_of_a_row() -> None:
    one, ours, sent = in_a_row(2, 40_000)
    frames, _ = put(ours, (large(one.session, sent[0]) + large(one.session, sent[1]))[:-1])
    assert frames == sent[:1]
    assert ours.receive(b"") == []
    assert ours.state is State.CUT


@pytest.mark.parametrize("size", [8_192, 40_000, 65_536, MAX_FRAME_BYTES - 50])
def test_the_memory_of_a_runway_is_bounded(size: int) -> None:
    _, ours, _ = in_a_row(2, size)
    rooms = ours.rooms()
    assert rooms is not None
    assert len(rooms) <= 2 * MOST_SLOTS + 1
    assert sum(map(len, rooms[:-1])) <= max(LAID_BYTES, size) + 64 * MOST_SLOTS


def test_a_small_message_between_large_ones_ends_a_row() -> None:
    one, ours, _ = in_a_row(1, 40_000)
    for number in range(5):
        small: Frame = (SEND, CID, number)
        frame: Frame = (SEND, CID, bytes([number]) * 40_000)
        assert ours.receive(one.say(small)) == [small]
        assert arrive(ours, large(one.session, frame), 30_000) == [frame]
        assert ours.rooms() is None


def begin(number: int, start: bytes) -> tuple[int, bytes, Head]:
    return number, BATCH.pack(100, number, 0) + start, (SEND, CID, len(start), 9_000)


def test_rows_that_end_too_soon_are_believed_later_and_later() -> None:
    row = Row()
    number = 0
    believed = []
    for length in (5, 5, 9, 16, 40, 3):
        expected = 0
        for _ in range(length):
            number += 1
            if row.goes_on:
                expected += 1
                assert row.fits(begin(number, b"alike")[1])
                row.grow(number)
            else:
                row.add(*begin(number, b"alike"))
        believed.append(expected)
        number += 1
        if row.goes_on:
            assert not row.fits(begin(number, b"other")[1])
            row.end()
        else:
            row.add(*begin(number, b"other"))
    # Two make a row at first; then four, eight, sixteen; and two again after one of sixteen.
    assert believed == [3, 1, 1, 0, 38, 1]
