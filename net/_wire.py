"""The shape of what goes over the wire: preface, batches, frames, and the limit of each.

Every frame is a plain tuple `(type, field, ...)`, because one is made and checked for every message. What
the fields are stands in one table, `FRAMES`; the codec turns frames into bytes and back, the protocol
numbers them. docs/wire.md says it to the byte.
"""

import struct
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from net.errors import RemoteProtocolError

Frame = tuple[Any, ...]

PREFACE: Final = b"TSKL"  # the first bytes each way, before the version: tells us from a stray web browser
VERSION: Final = 1
ID_BYTES: Final = 16  # of a node or a channel: random: too many to guess, or to draw twice

# A frame up to here travels as one; a larger one in parts, between which others pass.
MAX_FRAME_BYTES: Final = 128 * 1024
PART_BYTES: Final = 64 * 1024
# One batch: the largest frame still fits, together with what queued up behind small ones. It is all that a peer can
# make us keep of what is not complete.
MAX_BATCH_BYTES: Final = 256 * 1024
# Before the HELLO nobody is known yet, so a stranger may occupy only this much.
MAX_HELLO_BYTES: Final = 16 * 1024
# Names of channels and functions, reasons: what a person would type or read in one line.
MAX_TEXT_CHARS: Final = 1024
MAX_ADDRESSES: Final = 16  # a machine's interfaces, and each costs an attempt to connect

# Messages of one node under way to one channel; measured: throughput levels off between 256 and 1024.
MAX_WINDOW: Final = 1024
# The same in bytes: a message may leave while those before it are fewer. Those of SMALL_BYTES and less are not counted:
# the window in messages holds them within the same bound. Measured: 64 KiB go 1.1 times as fast as with 1 MiB, and not
# faster with 2.
WINDOW_BYTES: Final = 1536 * 1024
SMALL_BYTES: Final = 1024

# What a reference is good for.
MAY_SEND: Final = 1  # and close
MAY_RECEIVE: Final = 2

BATCH: Final = struct.Struct(">IQQ")  # bytes after the first field, number of the batch, last batch received
NUMBER_BYTES: Final = 16  # of a batch's number and acknowledgement

HELLO: Final = 0
SEND: Final = 1
ACK: Final = 2
REJECT: Final = 3
RETRACT: Final = 4
DROPPED: Final = 5
RECEIVE: Final = 6
ITEM: Final = 7
RAISE: Final = 8
TAKEN: Final = 9
REFUSED: Final = 10
CANCEL: Final = 11
LOOKUP: Final = 12
FOUND: Final = 13
CLOSE: Final = 14
HOLD: Final = 15
RELEASE: Final = 16
SPAWN: Final = 17
STARTED: Final = 18
EXITED: Final = 19
KILL: Final = 20
GOODBYE: Final = 21
CLOSED: Final = 22
BOMB: Final = 23
LARGE: Final = 24
PART: Final = 25
WINDOW: Final = 26
OFFER: Final = 27
WANTED: Final = 28


def window_size(capacity: int) -> int:
    """How many messages of one node may be under way to a channel of this capacity.

    With capacity 0 each of them has a tasklet that waits until it is taken; those beyond wait at their own node.
    """
    return min(capacity or MAX_WINDOW, MAX_WINDOW)


class FrameType(NamedTuple):
    """A row of the table: the frame's name, and (name, kind) of each field, a kind being one of `KINDS`."""

    name: str
    fields: tuple[tuple[str, str], ...]


def _row(name: str, /, **fields: str) -> FrameType:
    return FrameType(name, tuple(fields.items()))


FRAMES: Final[dict[int, FrameType]] = {
    HELLO: _row("HELLO", features="map"),
    SEND: _row("SEND", channel_id="id", value="value"),
    ACK: _row("ACK", channel_id="id", number="count"),
    REJECT: _row("REJECT", channel_id="id", seqno="count", error="error"),
    RETRACT: _row("RETRACT", channel_id="id", seqno="count"),
    DROPPED: _row("DROPPED", channel_id="id", seqno="count"),
    RECEIVE: _row("RECEIVE", channel_id="id", op="uint"),
    ITEM: _row("ITEM", op="uint", value="value"),
    RAISE: _row("RAISE", op="uint", error="error"),
    TAKEN: _row("TAKEN", op="uint"),
    REFUSED: _row("REFUSED", op="uint"),
    CANCEL: _row("CANCEL", op="uint"),
    LOOKUP: _row("LOOKUP", op="uint", name="text"),
    FOUND: _row("FOUND", op="uint", value="value"),
    CLOSE: _row("CLOSE", channel_id="id"),
    HOLD: _row("HOLD", channel_id="id"),
    RELEASE: _row("RELEASE", channel_id="id", count="count"),
    SPAWN: _row("SPAWN", op="uint", function="text", args="args", kwargs="kwargs"),
    STARTED: _row("STARTED", op="uint"),
    EXITED: _row("EXITED", op="uint", error="error or nil"),
    KILL: _row("KILL", op="uint"),
    GOODBYE: _row("GOODBYE", reason="text"),
    CLOSED: _row("CLOSED", channel_id="id"),
    BOMB: _row("BOMB", channel_id="id", error="error"),
    LARGE: _row("LARGE", stream="uint", size="count", subject="subject"),
    PART: _row("PART", stream="uint", data="bytes"),
    WINDOW: _row("WINDOW", count="count"),
    OFFER: _row("OFFER", channel_id="id", op="uint"),
    WANTED: _row("WANTED", op="uint"),
}


def check_frame(frame: Any) -> None:
    """Check a received frame against the table.

    Raises RemoteProtocolError naming the frame, the field and what is wrong with it.
    """
    if type(frame) is not tuple or not frame or type(frame[0]) is not int:
        raise RemoteProtocolError(f"a frame is an array that starts with its type, not {shorten(frame)}")
    row = FRAMES.get(frame[0])
    if row is None:
        raise RemoteProtocolError(
            f"frame type {frame[0]} is unknown; does the other side run a newer release?"
        )
    fields = row.fields
    if len(frame) != len(fields) + 1:
        raise RemoteProtocolError(f"a {row.name} frame has {len(fields)} fields, not {len(frame) - 1}")
    for (name, kind), value in zip(fields, frame[1:], strict=True):
        if not _CHECKS[kind](value):
            raise RemoteProtocolError(f"{row.name}.{name} must be {KINDS[kind]}, not {shorten(value)}")


def shorten(value: Any) -> str:
    """Return what a stranger's value looks like, short enough for a log line."""
    kind = type(value)
    if kind in (tuple, frozenset, MappingProxyType):
        return f"{kind.__name__} of {len(value)}"
    if kind in (bytes, str):
        return f"{kind.__name__} {value[:40]!r}" + (f"... of {len(value)}" if len(value) > 40 else "")
    if kind is int and value.bit_length() > 64:
        return f"int of {value.bit_length()} bits"
    return repr(value) if kind in (int, float, bool, type(None)) else kind.__name__


KINDS: Final[dict[str, str]] = {
    "id": f"{ID_BYTES} bytes",
    "uint": "an integer of 0 to 2**64-1",
    "count": "an integer of 1 to 2**64-1",
    "text": f"a text of at most {MAX_TEXT_CHARS} characters",
    "value": "a value",
    "error": "(kind, message, traceback) in texts, and perhaps one value more",
    "error or nil": "(kind, message, traceback) in texts, and perhaps one value more, or nil",
    "args": "an array",
    "kwargs": "a map with texts as keys",
    "map": "a map with texts as keys",
    "bytes": f"1 to {PART_BYTES} bytes",
    "subject": "a channel's id, an integer of 0 to 2**64-1, or nil",
}


def _is_error(value: Any) -> bool:
    return (
        type(value) is tuple
        and len(value) in (3, 4)
        and type(value[0]) is type(value[1]) is type(value[2]) is str
        and len(value[0]) <= MAX_TEXT_CHARS
    )


def _is_map(value: Any) -> bool:
    return type(value) is MappingProxyType and all(type(key) is str for key in value)


_CHECKS: Final[dict[str, Callable[[Any], bool]]] = {
    "id": lambda value: type(value) is bytes and len(value) == ID_BYTES,
    "uint": lambda value: type(value) is int and 0 <= value < 1 << 64,
    "count": lambda value: type(value) is int and 1 <= value < 1 << 64,
    "text": lambda value: type(value) is str and len(value) <= MAX_TEXT_CHARS,
    "value": lambda value: True,
    "error": _is_error,
    "error or nil": lambda value: value is None or _is_error(value),
    "args": lambda value: type(value) is tuple,
    "kwargs": _is_map,
    "map": _is_map,
    "bytes": lambda value: type(value) is bytes and 0 < len(value) <= PART_BYTES,
    "subject": lambda value: (
        value is None
        or (type(value) is bytes and len(value) == ID_BYTES)
        or (type(value) is int and 0 <= value < 1 << 64)
    ),
}
