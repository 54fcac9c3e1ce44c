"""Values that msgpack does not have and that have no parts, as its extensions: dates, decimals, enums and so on.

docs/wire.md has the table.
"""

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack

from net._wire import shorten
from net.errors import RemoteProtocolError
from tasklets.messages import MAX_NAME_BYTES, enum_names, enum_types

BIGINT: Final = 1
DATE: Final = 2
TIME: Final = 3
DATETIME: Final = 4
TIMEDELTA: Final = 5
DECIMAL: Final = 6
UUID_: Final = 7
ENUM: Final = 8

_ZONE_KEY_CHARS: Final = 100
_DATE: Final = struct.Struct(">HBB")
_TIME: Final = struct.Struct(">BBBIB")
_TIMEDELTA: Final = struct.Struct(">iII")
_OFFSET: Final = struct.Struct(">q")


class Meaningless(Exception):
    """Well formed, but means nothing here."""


def _encode_int(value: int) -> Any:
    return msgpack.ExtType(BIGINT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def encode_enum(member: Enum) -> Any:
    """Not in ENCODERS, since each enum is a type of its own."""
    known = enum_types.get(type(member))
    if known is None:
        raise TypeError("an enum that is not registered")
    # Flags combine to members without a name.
    text = str(int(member.value)) if isinstance(member, Flag) else member.name
    return msgpack.ExtType(ENUM, f"{known.name}\0{text}".encode())


def _encode_zone(zone: Any) -> bytes:
    if zone is None:
        return b""
    if zone is UTC:
        return b"U"
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]  # the documented way copy and pickle go
        return (
            b"O"
            + _OFFSET.pack(offset // timedelta(microseconds=1))
            + b"".join(part.encode() for part in name)
        )
    if type(zone) is ZoneInfo and zone.key is not None:
        return b"Z" + zone.key.encode()
    raise TypeError("a time zone without a name")


def _decode_zone(data: bytes) -> Any:
    if not data:
        return None
    kind, rest = data[:1], data[1:]
    if kind == b"U" and not rest:
        return UTC
    if kind == b"O":
        offset = timedelta(microseconds=_OFFSET.unpack(rest[:8])[0])
        return timezone(offset, str(rest[8:], "utf-8")) if len(rest) > 8 else timezone(offset)
    key = str(rest, "utf-8")
    if kind != b"Z" or not 0 < len(key) <= _ZONE_KEY_CHARS:
        raise RemoteProtocolError(f"malformed time zone: {shorten(data)}")
    try:
        return ZoneInfo(key)
    except Exception as failure:
        raise Meaningless(f"time zone {key!r} is not known here: {failure}") from failure


def _encode_date(value: date) -> Any:
    return msgpack.ExtType(DATE, _DATE.pack(value.year, value.month, value.day))


def _pack_time(value: datetime | time) -> bytes:
    return _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold) + _encode_zone(
        value.tzinfo
    )


def _encode_time(value: time) -> Any:
    return msgpack.ExtType(TIME, _pack_time(value))


def _encode_datetime(value: datetime) -> Any:
    return msgpack.ExtType(DATETIME, _DATE.pack(value.year, value.month, value.day) + _pack_time(value))


def _encode_timedelta(value: timedelta) -> Any:
    return msgpack.ExtType(TIMEDELTA, _TIMEDELTA.pack(value.days, value.seconds, value.microseconds))


def _decode_time(data: bytes) -> time:
    hour, minute, second, microsecond, fold = _TIME.unpack(data[: _TIME.size])
    return time(hour, minute, second, microsecond, _decode_zone(data[_TIME.size :]), fold=fold)


def _decode_datetime(data: bytes) -> datetime:
    moment = _decode_time(data[_DATE.size :])
    return datetime.combine(date(*_DATE.unpack(data[: _DATE.size])), moment)


def _decode_enum(data: bytes) -> Enum:
    name, separator, text = str(data, "utf-8").partition("\0")
    if not separator or len(data) > 4 * MAX_NAME_BYTES:
        raise RemoteProtocolError(f"malformed enum: {shorten(data)}")
    known = enum_names.get(name)
    if known is None:
        raise Meaningless(
            f"no enum is registered as {name!r} here; import the module that defines it on this side too"
        )
    try:
        return known.cls(int(text)) if issubclass(known.cls, Flag) else known.cls[text]
    except (KeyError, ValueError) as failure:
        raise Meaningless(
            f"enum {name!r} has no member {text!r} here; run the same release on both sides"
        ) from failure


# What a value of this type becomes.
ENCODERS: Final[dict[type, Callable[[Any], Any]]] = {
    int: _encode_int,  # msgpack asks only for those that 64 bits do not hold
    date: _encode_date,
    time: _encode_time,
    datetime: _encode_datetime,
    timedelta: _encode_timedelta,
    Decimal: lambda value: msgpack.ExtType(DECIMAL, str(value).encode()),
    UUID: lambda value: msgpack.ExtType(UUID_, value.bytes),
}
# What the payload of this extension means; raises Meaningless when that is nothing here.
DECODERS: Final[dict[int, Callable[[bytes], Any]]] = {
    BIGINT: lambda data: int.from_bytes(data, "big", signed=True),
    DATE: lambda data: date(*_DATE.unpack(data)),
    TIME: _decode_time,
    DATETIME: _decode_datetime,
    TIMEDELTA: lambda data: timedelta(*_TIMEDELTA.unpack(data)),
    DECIMAL: lambda data: Decimal(str(data, "ascii")),
    UUID_: lambda data: UUID(bytes=data),
    ENUM: _decode_enum,
}
