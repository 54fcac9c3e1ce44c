"""Large bytes stay apart: a frame whose last field they are is written as two pieces, and never copied into one.

    apart = Apart.of((SEND, channel_id, data))     # apart.head ends where the bytes begin
    head = read_head(batch)                        # on the other side: what stands before them

On the wire nothing differs: these are the bytes that net._codec makes of the frame. No socket, no tasklet.
"""

from struct import Struct
from typing import Any, Final, NamedTuple

import msgpack

from net._wire import ID_BYTES, ITEM, PART, SEND, Frame

# From here on: to copy fewer bytes takes no longer than to write two pieces.
APART_BYTES: Final = 8 * 1024
APART_KINDS: Final = frozenset({SEND, ITEM, PART})  # of frames
HEAD_BYTES: Final = 32  # more than any head has

_FRAME_OF_THREE: Final = 0x93
_BIN8, _BIN16, _BIN32 = 0xC4, 0xC5, 0xC6
_LENGTH16, _LENGTH32 = Struct(">BH"), Struct(">BI")
_ID_MARK: Final = bytes((_BIN8, ID_BYTES))
_OPENINGS: Final = {kind: bytes((_FRAME_OF_THREE, kind)) for kind in APART_KINDS}
_UINT_BYTES: Final = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}


class Apart:
    """A packed frame in two pieces. Its length is that of both."""

    __slots__ = ("body", "head", "size")

    def __init__(self, head: bytes, body: bytes | memoryview) -> None:
        self.head = head
        self.body = body
        self.size = len(head) + len(body)

    @classmethod
    def of(cls, frame: Frame) -> "Apart":
        """Pack a frame of APART_KINDS that ends with bytes."""
        kind, subject, body = frame
        size = len(body)
        if size >= 1 << 16:
            length = _LENGTH32.pack(_BIN32, size)
        elif size >= 1 << 8:
            length = _LENGTH16.pack(_BIN16, size)
        else:
            length = bytes((_BIN8, size))
        named = _ID_MARK + subject if subject.__class__ is bytes else msgpack.packb(subject)
        return cls(_OPENINGS[kind] + named + length, body)

    def __len__(self) -> int:
        return self.size


class Head(NamedTuple):
    """What stands before the bytes of such a frame. Not checked against the table of frames."""

    kind: int
    subject: bytes | int
    begin: int  # where the bytes begin
    size: int  # how many they are


def read_head(data: Any) -> Head | None:
    """Read the beginning of a packed frame; None when it is of another shape, or too short to tell."""
    if len(data) < HEAD_BYTES or data[0] != _FRAME_OF_THREE or data[1] not in APART_KINDS:
        return None
    mark = data[2]
    subject: bytes | int
    if mark == _BIN8 and data[3] == ID_BYTES:
        at = 4 + ID_BYTES
        subject = bytes(data[4:at])
    elif mark < 0x80:
        at, subject = 3, mark
    elif mark in _UINT_BYTES:
        at = 3 + _UINT_BYTES[mark]
        subject = int.from_bytes(data[3:at], "big")
    else:
        return None
    if data[at] not in (_BIN16, _BIN32):
        return None
    begin = at + (3 if data[at] == _BIN16 else 5)
    return Head(data[1], subject, begin, int.from_bytes(data[at + 1 : begin], "big"))
