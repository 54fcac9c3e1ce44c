"""Large bytes in two pieces are the same on the wire."""

import msgpack
import pytest

from net._apart import APART_BYTES, HEAD_BYTES, Apart, read_head
from net._bulk import Incoming, Outgoing
from net._codec import Codec
from net._landing import Spare
from net._session import Limits
from net._wire import ACK, BOMB, ITEM, PART, SEND
from net.errors import RemoteProtocolError

CID = bytes(range(16))
CODEC = Codec(None, None)  # type: ignore[arg-type]  # no channels here
FRAMES = [
    (SEND, CID, bytes(APART_BYTES)),
    (SEND, CID, bytes((1 << 16) - 1)),
    (SEND, CID, bytes(1 << 16)),
    (ITEM, 7, bytes(APART_BYTES)),
    *(
        (ITEM, op, bytes(100_000))
        for op in (127, 128, 255, 256, 65535, 65536, (1 << 32) - 1, 1 << 32, (1 << 64) - 1)
    ),
    (PART, 3, b"x"),
    (PART, 300, bytes(255)),
    (PART, 70_000, bytes(256)),
]


@pytest.mark.parametrize(
    "frame", FRAMES, ids=lambda frame: f"{frame[0]}-{str(frame[1])[:12]}-{len(frame[2])}"
)
def test_the_pieces_are_the_bytes_that_the_codec_makes(frame: tuple[int, bytes | int, bytes]) -> None:
    apart = Apart.of(frame)
    packed = apart.head + apart.body
    assert packed == CODEC.encode(frame)
    assert len(apart) == len(packed)
    assert len(apart.head) < HEAD_BYTES
    assert CODEC.decode(memoryview(packed)) == [frame]


@pytest.mark.parametrize("frame", [each for each in FRAMES if len(each[2]) >= APART_BYTES])
def test_the_head_is_read_back(frame: tuple[int, bytes | int, bytes]) -> None:
    apart = Apart.of(frame)
    head = read_head(memoryview(apart.head + bytes(100)))
    assert head == (frame[0], frame[1], len(apart.head), len(frame[2]))


def test_what_is_of_another_shape_has_no_such_head() -> None:
    for other in (
        b"",
        bytes(100),
        Apart.of(FRAMES[0]).head[:20],
        CODEC.encode((SEND, CID, "x" * 10_000)),
        CODEC.encode((SEND, CID, (bytes(10_000),))),
        CODEC.encode((BOMB, CID, ("kind", "message " * 10, ""))),
        CODEC.encode((ACK, CID, 1)) + bytes(100),
        msgpack.packb([SEND, b"too short", bytes(10_000)]),
    ):
        assert read_head(other) is None, other[:40]


def test_large_bytes_with_something_behind_them_are_read_by_the_codec() -> None:
    frames = [(SEND, CID, bytes(10_000)), (ACK, CID, 1)]
    assert CODEC.decode(b"".join(map(CODEC.encode, frames))) == frames


def test_a_head_that_is_no_frame_of_the_table_breaks_the_protocol() -> None:
    with pytest.raises(RemoteProtocolError, match="op must be"):
        CODEC.decode(msgpack.packb([ITEM, CID, bytes(10_000)]))


@pytest.mark.parametrize("size", [131_072, 200_000, 1_000_003])
def test_large_bytes_are_put_together_without_their_head(size: int) -> None:
    value = bytes(range(256)) * (size // 256) + b"rest"
    out, into = Outgoing(), Incoming(Limits(), Spare())
    out.meet(Limits())
    _, stream, total, subject = out.add(Apart.of((SEND, CID, value)), CID)
    into.begin(stream, total, subject)
    whole = None
    while out.pending:
        _, number, data = out.next_part()
        whole = into.part(number, bytes(data))
        if room := into.take_room():
            out.granted(room)
    assert whole == (SEND, CID, value)
    assert out.pending_bytes == into._active_bytes == 0


def test_large_bytes_for_another_channel_than_announced_are_seen() -> None:
    """Who acts on it compares the frame with what was announced; the parts themselves are taken as they come."""
    apart = Apart.of((SEND, CID, bytes(200_000)))
    into = Incoming(Limits(), Spare())
    into.begin(0, len(apart), b"y" * 16)
    packed = apart.head + apart.body
    parts = [into.part(0, packed[at : at + 50_000]) for at in range(0, len(packed), 50_000)]
    assert parts[-1] == (SEND, CID, bytes(200_000))
