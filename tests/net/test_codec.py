"""The codec: what arrives is what freeze makes of what was sent (T-03), garbage is a RemoteProtocolError."""

import collections
import enum
import math
import tracemalloc
import types
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import given, settings, strategies as st

from net._codec import Codec, Description, Undecodable, send_head
from net._wire import ACK, BOMB, EXITED, FOUND, HELLO, ITEM, RAISE, SEND, SPAWN
from net.errors import NameNotFound, RemoteProtocolError
from tasklets import NotSendable, RemoteError, channel, freeze, message, messages, register

CID = b"0123456789abcdef"


@message(name="test_codec.Deposit")
class Deposit:
    account: str
    amount: Any


@message(name="test_codec.Empty")
class Empty:
    pass


@message(name="test_codec.Whole")
class Whole:
    part: Any

    def __post_init__(self) -> None:
        if self.part == "bad":
            raise ValueError("a bad part")


@register(name="test_codec.Colour")
class Colour(enum.StrEnum):
    RED = "red"


@register(name="test_codec.Flags")
class Flags(enum.IntFlag):
    A = 1
    B = 2


class Unregistered(enum.IntEnum):
    BIG = 1


class Node:
    """Describes channels and finds them again, as a node does."""

    def __init__(self) -> None:
        self.channels: dict[bytes, channel] = {}

    def export(self, chan: channel) -> Description:
        channel_id = len(self.channels).to_bytes(16, "big")
        self.channels[channel_id] = chan
        return (b"n" * 16, channel_id, chan.capacity, chan.name, ("tcp://127.0.0.1:1",), 3)

    def resolve(self, description: Description) -> channel:
        try:
            return self.channels[description[1]]
        except KeyError:
            raise NameNotFound("no such channel") from None


NODE = Node()
CODEC = Codec(NODE.export, NODE.resolve)


def there_and_back(value: Any, codec: Codec = CODEC) -> Any:
    [frame] = codec.decode(codec.encode((SEND, CID, value)))
    assert frame[:2] == (SEND, CID)
    return frame[2]


def same(one: Any, other: Any) -> bool:
    """Equal, with equal types, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (one == other and math.copysign(1, one) == math.copysign(1, other)) or (
            one != one and other != other
        )
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, types.MappingProxyType):
        return same(tuple(one.items()), tuple(other.items()))
    if isinstance(one, RemoteError):
        return vars(one) == vars(other)
    if isinstance(one, BaseException):
        return same(one.args, other.args)
    if type(one) in messages.message_types:
        values_of = messages.message_types[type(one)].values_of
        return same(values_of(one), values_of(other))
    if isinstance(one, datetime | time):
        return one == other and one.fold == other.fold and same(one.tzinfo, other.tzinfo)
    if isinstance(one, timezone):
        return one == other and str(one) == str(other)
    return bool(one == other)


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = (value,)
    return value


TABLE: list[Any] = [
    None,
    True,
    2**63,
    2**64,
    -(2**63) - 1,
    10**400,
    -0.0,
    math.inf,
    "text",
    "lone \ud800 surrogate",
    b"bytes",
    bytearray(b"ab"),
    memoryview(b"abcd")[::2],
    [1, [2, ()]],
    {"a": {1: {(1, 2): None}}},
    collections.OrderedDict(a=1),
    types.MappingProxyType({"a": [1]}),
    {1, 2, (3, frozenset())},
    date(1, 1, 1),
    time(23, 59, 59, 999999, fold=1),
    time(1, tzinfo=timezone(timedelta(hours=-3), "there")),
    datetime(9999, 12, 31, 23, 59, 59, 999999),
    datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("UTC")),
    datetime(2024, 1, 1, tzinfo=UTC),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5, microseconds=1))),
    timedelta.min,
    timedelta.max,
    Decimal("-1.10E+7"),
    Decimal("NaN"),
    UUID(int=2**128 - 1),
    Colour.RED,
    Flags.A | Flags.B,
    Empty(),
    Deposit("acct-17", 125),
    Deposit("acct-17", [{Colour.RED: [Deposit("b", Empty())]}]),
    {Deposit("key", 1): Empty()},
    ValueError("bad", [1, {2}]),
    FileNotFoundError(2, "none", "a.txt"),
    ExceptionGroup("two", [KeyError(1), OSError(2, "x")]),
    RemoteError("Own", "text", "trace"),
    KeyboardInterrupt(),
    channel(3, "orders"),
    [channel(), {"reply": channel()}],
    nested(64),
    list(range(3000)),
    "x" * 100_000,
]


@pytest.mark.parametrize("value", TABLE, ids=[f"{i}-{type(value).__name__}" for i, value in enumerate(TABLE)])
def test_what_arrives_is_the_frozen_value_with_equal_types(value: Any) -> None:
    arrived, frozen = there_and_back(value), freeze(value)
    if isinstance(frozen, Decimal):
        assert str(arrived) == str(frozen)
    else:
        assert same(arrived, frozen), (arrived, frozen)


keys = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.binary()
    | st.dates()
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from([Colour.RED, Flags.A, Flags.A | Flags.B]),
    lambda part: (
        st.tuples(part, part)
        | st.frozensets(part, max_size=3)
        | st.builds(Deposit, st.text(max_size=3), part)
    ),
    max_leaves=4,
)
zones = (
    st.none() | st.just(UTC) | st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)))
)
values = st.recursive(
    keys
    | st.floats()
    | st.decimals(allow_nan=False)
    | st.datetimes(timezones=zones, allow_imaginary=True)
    | st.times(timezones=zones),
    lambda part: (
        st.lists(part, max_size=4)
        | st.lists(part, max_size=4).map(tuple)
        | st.dictionaries(keys, part, max_size=3)
        | st.sets(keys, max_size=3)
        | st.builds(Deposit, st.text(max_size=3), part)
        | st.builds(ValueError, part)
        | st.builds(RemoteError, st.text(), st.text(), st.text())
    ),
    max_leaves=12,
)


@given(values)
def test_any_value_arrives_as_freeze_makes_it(value: Any) -> None:
    assert same(there_and_back(value), freeze(value))


@given(values | st.just(nested(64)) | st.just(["\ud800"]))
def test_a_message_has_the_same_bytes_the_short_way(value: Any) -> None:
    assert CODEC.encode_send(send_head(CID), value) == CODEC.encode((SEND, CID, value))


@given(st.lists(values, min_size=1, max_size=4))
def test_frames_of_a_batch_keep_their_order(several: list[Any]) -> None:
    batch = b"".join(CODEC.encode((SEND, CID, value)) for value in several)
    assert same(tuple(frame[2] for frame in CODEC.decode(batch)), freeze(several))


def test_a_plain_message_is_what_msgpack_alone_would_send() -> None:
    frame = (SEND, CID, ("deposit", "acct-17", 125, 42))
    assert CODEC.encode(frame) == msgpack.packb(frame)


# --------------------------------------------------------------------------------------- at the sender


@pytest.mark.parametrize(
    ("frame", "path"),
    [
        ((SEND, CID, print), "value"),
        ((SEND, CID, Unregistered.BIG), "value"),
        ((SEND, CID, (1, 2, Deposit("a", Unregistered.BIG))), "value[2].amount"),
        ((SPAWN, 1, "m:f", (1, [print]), {}), "args[1][0]"),
        ((SPAWN, 1, "m:f", (), {"x": {2: print}}), "kwargs['x'][2]"),
        ((SEND, CID, nested(65)), "value" + "[0]" * 64),
        ((SEND, CID, [nested(64)]), "value" + "[0]" * 64),
        ((SEND, CID, {"k": nested(64)}), "value['k']" + "[0]" * 63),
    ],
    ids=lambda part: part if isinstance(part, str) else None,
)
def test_what_cannot_travel_is_refused_at_the_sender_with_its_path(frame: Any, path: str) -> None:
    with pytest.raises(NotSendable) as caught:
        CODEC.encode(frame)
    assert caught.value.path == path
    if frame[0] == SEND:
        with pytest.raises(NotSendable) as caught:
            CODEC.encode_send(send_head(CID), frame[2])
        assert caught.value.path == path
    assert there_and_back("still works") == "still works"


def test_a_value_that_contains_itself_is_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(NotSendable, match="perhaps it contains itself"):
        CODEC.encode((SEND, CID, cycle))


def test_the_channels_described_by_a_frame_are_listed_also_when_it_fails() -> None:
    reply = channel()
    CODEC.encode((SEND, CID, ("\ud800", reply)))
    assert CODEC.exported == [reply]
    with pytest.raises(NotSendable):
        CODEC.encode((SEND, CID, (reply, print)))
    assert CODEC.exported == []  # it was not described: freezing found the fault first
    CODEC.encode_send(send_head(CID), ("\ud800", reply))
    assert CODEC.exported == [reply]
    with pytest.raises(NotSendable):
        CODEC.encode_send(send_head(CID), (reply, print))
    assert CODEC.exported == []
    CODEC.encode((SEND, CID, reply))
    CODEC.encode((SEND, CID, 1))
    assert CODEC.exported == []


# ------------------------------------------------------------------------ well formed, but meaningless


def unregistered(value: Any, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Encode a value, then forget the classes, as if the other side had others."""
    data = CODEC.encode((SEND, CID, value))
    for table in (messages.message_names, messages.enum_names):
        for name in [name for name in table if name.startswith("test_codec.")]:
            monkeypatch.delitem(table, name)
    return data


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Deposit("a", 1), "'test_codec.Deposit'"),
        ([{"x": Deposit("a", Colour.RED)}], "test_codec."),
        ({Deposit("a", 1): 2, 3: 4}, "'test_codec.Deposit'"),
        ([Colour.RED, channel()], "no enum is registered as 'test_codec.Colour'"),
        (frozenset({Flags.A, Colour.RED}), "test_codec."),
    ],
    ids=["message", "nested", "key", "enum", "set"],
)
def test_an_unknown_class_makes_its_value_undecodable_and_nothing_else(
    value: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = unregistered(value, monkeypatch)
    ack = CODEC.encode((ACK, CID, 1))
    frames = CODEC.decode(ack + data + ack)
    assert frames[0] == frames[2] == (ACK, CID, 1)
    assert type(frames[1][2]) is Undecodable
    assert said in frames[1][2].reason
    assert "import the module that defines it" in frames[1][2].reason


def tagged(code: int, name: bytes, parts: Any) -> Any:
    return {msgpack.ExtType(code, name): parts}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (tagged(16, b"test_codec.Deposit", ["a"]), "came with 1 fields, but has 2"),
        (tagged(16, b"test_codec.Whole", ["bad"]), "refuses its fields: ValueError: a bad part"),
        (msgpack.ExtType(8, b"test_codec.Colour\0BLUE"), "has no member 'BLUE'"),
        (msgpack.ExtType(8, b"test_codec.Flags\0x"), "has no member 'x'"),
        (tagged(20, b"", [b"n" * 16, b"?" * 16, 0, None, [], 3]), "NameNotFound: no such channel"),
        (
            msgpack.ExtType(4, b"\x07\xe8\x01\x01\0\0\0\0\0\0\0\0ZNowhere/Land"),
            "time zone 'Nowhere/Land' is not known here",
        ),
    ],
    ids=["fields", "refused", "member", "flag", "channel", "zone"],
)
def test_a_value_that_means_nothing_here_is_undecodable(value: Any, said: str) -> None:
    [frame] = CODEC.decode(msgpack.packb((SEND, CID, [value])))
    assert said in frame[2].reason


def test_an_exception_this_python_does_not_know_is_a_remote_error() -> None:
    [frame] = CODEC.decode(msgpack.packb((SEND, CID, tagged(18, b"FutureError", ["x", 1]))))
    assert (type(frame[2]), frame[2].kind, frame[2].message) == (RemoteError, "FutureError", "x, 1")


def test_data_cannot_be_an_exception_that_ends_a_process() -> None:
    [frame] = CODEC.decode(msgpack.packb((SEND, CID, tagged(18, b"SystemExit", [1]))))
    assert type(frame[2]) is RemoteError


def test_each_field_that_holds_values_can_be_undecodable() -> None:
    bad = tagged(16, b"nobody", [])
    frames = CODEC.decode(
        b"".join(
            map(
                msgpack.packb,
                [
                    (ITEM, 1, bad),
                    (FOUND, 1, bad),
                    (SPAWN, 1, "m:f", [bad], {}),
                    (SPAWN, 1, "m:f", [], {"k": bad}),
                    (RAISE, 1, ["kind", "text", "trace", bad]),
                    (BOMB, CID, ["kind", "text", "trace", bad]),
                    (EXITED, 1, ["kind", "text", "trace", bad]),
                ],
            )
        )
    )
    assert [type(frame[2]) for frame in frames[:2]] == [Undecodable] * 2
    assert [type(frame[3]) for frame in frames[2:4]] == [Undecodable] * 2
    assert [frame[2] for frame in frames[4:]] == [("kind", "text", "trace")] * 3


# --------------------------------------------------------------------------------------------- garbage

DEEP = b"\x93\x01\xc4\x10" + CID + b"\x91" * 65 + b"\x01"
MALFORMED = {
    "reserved byte": b"\xc1",
    "cut": CODEC.encode((SEND, CID, "text"))[:-1],
    "array without end": b"\xdd\xff\xff\xff\xff",
    "arrays without end": b"\xdd\x00\x00\x0f\xff" * 800,
    "many arrays without end": b"\xdd\x00\xff\xff\xff" * 200_000,
    "map without end": b"\xdf\xff\xff\xff\xff",
    "text without end": b"\xdb\xff\xff\xff\xff",
    "extension without end": b"\xc9\xff\xff\xff\xff\x01",
    "65 levels": DEEP,
    "65 levels of maps": b"\x93\x01\xc4\x10" + CID + b"\x81\x01" * 65 + b"\x01",
    "65 levels in a large frame": msgpack.packb((SEND, CID, [b"x" * 5000, nested(64)])),
    "65 levels of messages": msgpack.packb((SEND, CID, 0))[:-1]
    + msgpack.packb(tagged(16, b"test_codec.Whole", [0]))[:-1] * 65
    + b"\x00",
    "1000 levels": b"\x91" * 1000 + b"\x01",
    "100000 levels": b"\x91" * 100_000 + b"\x01",
    "no frame": msgpack.packb(7),
    "frame without type": msgpack.packb([]),
    "type is a text": msgpack.packb(["SEND", CID, 1]),
    "type is true": msgpack.packb([True, CID, 1]),
    "type is a float": msgpack.packb([1.0, CID, 1]),
    "type is unknown": msgpack.packb([99, CID, 1]),
    "fields missing": msgpack.packb([SEND, CID]),
    "id too short": msgpack.packb([SEND, b"short", 1]),
    "id is a text": msgpack.packb([SEND, "0123456789abcdef", 1]),
    "map key is a map": msgpack.packb((SEND, CID, 0))[:-1] + b"\x81\x80\x01",
    "text is not UTF-8": msgpack.packb((SEND, CID, 0))[:-1] + b"\xa1\xff",
    "meaningless HELLO": msgpack.packb((HELLO, {"x": tagged(16, b"nobody", [])})),
}
BAD_VALUES: dict[str, Any] = {
    "unknown extension": msgpack.ExtType(77, b""),
    "unknown msgpack extension": msgpack.ExtType(15, b"x"),
    "date": msgpack.ExtType(2, b"\0\0\0\0"),
    "short date": msgpack.ExtType(2, b"\0"),
    "time": msgpack.ExtType(3, b"\xff" * 8),
    "datetime": msgpack.ExtType(4, b""),
    "zone": msgpack.ExtType(3, b"\0" * 8 + b"Q"),
    "long zone": msgpack.ExtType(3, b"\0" * 8 + b"Z" + b"x" * 101),
    "offset": msgpack.ExtType(3, b"\0" * 8 + b"O" + b"\x7f" * 8),
    "timedelta": msgpack.ExtType(5, b"\x7f" * 12),
    "decimal": msgpack.ExtType(6, b"one"),
    "uuid": msgpack.ExtType(7, b"short"),
    "enum": msgpack.ExtType(8, b"no separator"),
    "bare tag": msgpack.ExtType(16, b"test_codec.Deposit"),
    "tag as a value": {1: msgpack.ExtType(17, b"")},
    "tag beside another key": {msgpack.ExtType(17, b""): [], 1: 2},
    "tag without array": tagged(17, b"", 3),
    "long name": tagged(16, b"x" * 201, []),
    "no name": tagged(18, b"", []),
    "name is not UTF-8": tagged(16, b"\xff", []),
    "payload where none belongs": tagged(17, b"x", []),
    "unhashable part": tagged(17, b"", [{}]),
    "remote error": tagged(19, b"", ["kind", 1, "trace"]),
    "channel": tagged(20, b"", [b"n" * 16, b"short", 0, None, [], 3]),
    "channel fields": tagged(20, b"", []),
    "channel addresses": tagged(20, b"", [CID, CID, 0, None, ["x"] * 17]),
}
MALFORMED |= {name: msgpack.packb((SEND, CID, value)) for name, value in BAD_VALUES.items()}


@pytest.mark.parametrize("batch", MALFORMED.values(), ids=MALFORMED)
def test_malformed_batches_are_protocol_errors_and_leave_the_codec_working(batch: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        CODEC.decode(batch)
    assert there_and_back("still works") == "still works"


@pytest.mark.parametrize("name", ["arrays without end", "many arrays without end", "100000 levels"])
def test_what_headers_promise_takes_no_memory(name: str) -> None:
    tracemalloc.start()
    with pytest.raises(RemoteProtocolError):
        CODEC.decode(MALFORMED[name])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000_000


@given(st.binary(max_size=200))
def test_random_bytes_are_frames_or_a_protocol_error(data: bytes) -> None:
    try:
        CODEC.decode(data)
    except RemoteProtocolError:
        pass


@settings(max_examples=300)
@given(st.lists(values, min_size=1, max_size=3), st.data())
def test_mutated_batches_are_frames_or_a_protocol_error(several: list[Any], data: st.DataObject) -> None:
    batch = bytearray(b"".join(CODEC.encode((SEND, CID, value)) for value in several))
    for _ in range(data.draw(st.integers(1, 3))):
        batch[data.draw(st.integers(0, len(batch) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(batch)))
    for garbled in (batch, batch[:cut]):
        try:
            CODEC.decode(garbled)
        except RemoteProtocolError:
            pass
