"""What outlives a connection: nothing is lost, nothing comes twice, in order, wherever it is cut."""

from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from net._codec import Codec
from net._session import ACKNOWLEDGE_BYTES, REPLAY_BYTES, Session
from net._wire import ACK, MAX_BATCH_BYTES, SEND
from net.errors import LocalProtocolError, RemoteProtocolError
from net.testing import protocol_pair

CID = b"0123456789abcdef"


def numbers(frames: list[Any]) -> list[int]:
    return [frame[2] for frame in frames]


@settings(max_examples=200)
@given(st.data())
def test_every_frame_comes_once_in_order_wherever_the_connection_is_cut(data: st.DataObject) -> None:
    pair = protocol_pair()
    said = {id(pair.one): 0, id(pair.other): 0}
    for step in data.draw(st.lists(st.sampled_from("sSsSddda!"), max_size=60)):
        if step in "sS":
            end = pair.one if step == "s" else pair.other
            end.say((SEND, CID, said[id(end)]))
            said[id(end)] += 1
        elif step == "d":
            limits = st.none() | st.integers(0, 150)
            pair.deliver(data.draw(limits), data.draw(limits))
        elif step == "a":
            pair.one.acknowledge()
        else:
            pair.cut()
            pair.connect()
    pair.cut()
    pair.connect()
    pair.settle()
    assert numbers(pair.other.heard) == list(range(said[id(pair.one)]))
    assert numbers(pair.one.heard) == list(range(said[id(pair.other)]))


def test_what_is_acknowledged_is_not_kept() -> None:
    pair = protocol_pair()
    pair.settle()
    for number in range(3):
        pair.one.say((SEND, CID, number))
    assert pair.one.session.replay_bytes > 0
    pair.settle()
    pair.other.say((ACK, CID, 3))
    pair.settle()
    assert pair.one.session.replay_bytes == 0
    assert pair.one.session.acknowledged == 3


def test_who_receives_much_and_says_nothing_owes_an_acknowledgement() -> None:
    pair = protocol_pair()
    pair.settle()
    assert not pair.other.session.owes
    for _ in range(16):
        assert not pair.other.session.owes
        pair.one.say((SEND, CID, bytes(ACKNOWLEDGE_BYTES // 16)))
        pair.settle()
    assert pair.other.session.owes
    pair.other.acknowledge()
    assert not pair.other.session.owes
    pair.settle()
    assert pair.one.session.replay_bytes == 0
    assert pair.one.session.received == 0  # an acknowledgement has no number: nobody acknowledges it


def test_no_more_leaves_than_may_have_to_be_sent_again() -> None:
    session = Session(CID, Codec(None, None))  # type: ignore[arg-type]
    frame = session.pack((SEND, CID, bytes(100_000)))
    while session.has_room:
        session.envelope([frame])
    assert REPLAY_BYTES <= session.replay_bytes < REPLAY_BYTES + MAX_BATCH_BYTES
    session.acknowledge(session.sent)
    assert session.has_room


def test_a_stale_acknowledgement_means_nothing_and_a_false_one_is_a_fault() -> None:
    session = Session(CID, Codec(None, None))  # type: ignore[arg-type]
    frame = session.pack((ACK, CID, 1))
    for _ in range(3):
        session.envelope([frame])
    session.acknowledge(2)
    session.acknowledge(1)
    assert session.acknowledged == 2
    with pytest.raises(RemoteProtocolError, match="batch 4 was acknowledged, but 3 were sent"):
        session.acknowledge(4)
    with pytest.raises(RemoteProtocolError, match="it has 1 batches, but acknowledged 2"):
        session.resume(1)


@pytest.mark.parametrize("packed", [[], [bytes(MAX_BATCH_BYTES)]])
def test_a_batch_has_frames_and_a_limit(packed: list[bytes]) -> None:
    with pytest.raises(LocalProtocolError, match="are allowed"):
        Session(CID, Codec(None, None)).envelope(packed)  # type: ignore[arg-type]
