"""Large bytes stay apart: a frame whose last field they are is written as two pieces, and never copied into one.

    apart = Apart.of((SEND, channel_id, data))     # apart.head ends where the bytes begin
    head = head_of(batch, len(batch))              # on the other side: what stands before them

On the wire nothing differs: these are the bytes that net._codec makes of the frame. No socket, no tasklet.
"""

from struct import Struct
from typing import Any, Final

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
_SMALL: Final = [bytes((number,)) for number in range(0x80)]  # as msgpack has them
_UINT_BYTES: Final = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}


# What stands before the bytes of such a frame: its kind, its subject, where the bytes begin, and how many they are. Not
# checked against the table of frames.
Head = tuple[int, bytes | int, int, int]


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
        if type(subject) is bytes:
            named = _ID_MARK + subject
        else:
            named = _SMALL[subject] if subject < 0x80 else msgpack.packb(subject)
        return cls.behind(_OPENINGS[kind] + named, body)

    @classmethod
    def behind(cls, start: bytes, body: bytes | memoryview) -> "Apart":
        """The same for a frame of which all is packed but these bytes."""
        size = len(body)
        if size >= 1 << 16:
            length = _LENGTH32.pack(_BIN32, size)
        elif size >= 1 << 8:
            length = _LENGTH16.pack(_BIN16, size)
        else:
            length = bytes((_BIN8, size))
        return cls(start + length, body)

    def __len__(self) -> int:
        return self.size


def read_head(data: Any) -> Head | None:
    """Read the beginning of a packed frame; None when it is of another shape, or too short to tell."""
    if len(data) < HEAD_BYTES:
        return None
    start = bytes(data[:HEAD_BYTES])
    kind, mark = start[1], start[2]
    if start[0] != _FRAME_OF_THREE or kind not in APART_KINDS:
        return None
    subject: bytes | int
    if mark == _BIN8 and start[3] == ID_BYTES:
        at = 4 + ID_BYTES
        subject = start[4:at]
    elif mark < 0x80:
        at, subject = 3, mark
    elif mark in _UINT_BYTES:
        at = 3 + _UINT_BYTES[mark]
        subject = int.from_bytes(start[3:at], "big")
    else:
        return None
    if start[at] == _BIN16:
        return kind, subject, at + 3, start[at + 1] << 8 | start[at + 2]
    if start[at] == _BIN32:
        return kind, subject, at + 5, int.from_bytes(start[at + 1 : at + 5], "big")
    return None


def head_of(data: Any, size: int) -> Head | None:
    """The same of a frame of so many bytes, of which these are the first. None, too, when anything stands behind the
    large bytes.
    """
    head = read_head(data)
    return head if head is not None and head[2] + head[3] == size else None
