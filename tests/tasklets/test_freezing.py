"""freeze: what it makes of each kind of value, and what it says about the rest."""

import collections
import dataclasses
import enum
import threading
import types
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, strategies as st

from tasklets import NotSendable, RemoteError, channel, freeze, message, register
from tasklets.freezing import MAX_TRACEBACK_CHARS, describe_exception


@message(name="test_freezing.Order")
class Order:
    number: int
    items: Any = ()


@message(name="test_freezing.Strict")
class Strict:
    items: Any

    def __post_init__(self) -> None:
        if not isinstance(self.items, list):
            raise ValueError("items must be a list")


@register(name="test_freezing.Colour")
class Colour(enum.StrEnum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 1


class Point(NamedTuple):
    x: int
    y: list[int]


class Text(str):
    __slots__ = ()


class Whole(int):
    def __int__(self) -> int:
        return 7


@dataclasses.dataclass
class Plain:
    x: int = 0


class Gone(tzinfo):  # type: ignore[misc, unused-ignore]
    pass


class Mapped(collections.UserDict[Any, Any]):
    """A mapping that can be a key, although its frozen form cannot."""

    def __hash__(self) -> int:
        return 1


ATOMS = [
    None,
    True,
    0,
    -(10**40),
    1.5,
    "text",
    "\ud800",
    b"bytes",
    date(2024, 2, 29),
    time(12, 30, tzinfo=UTC),
    datetime(2024, 2, 29, 12, tzinfo=ZoneInfo("UTC")),
    datetime(2024, 2, 29, 12, tzinfo=timezone(timedelta(hours=1), "here")),
    timedelta(days=-1, microseconds=1),
    Decimal("1.10"),
    UUID(int=7),
    Colour.RED,
    Order(1),
    Order(1, ("a", ("b",))),
    channel(),
    (),
    ("deposit", "acct-17", 125, 42),
    (1, (2, (3,))),
    frozenset({1, (2, 3)}),
]


@pytest.mark.parametrize("value", ATOMS, ids=[f"{i}-{type(value).__name__}" for i, value in enumerate(ATOMS)])
def test_what_is_read_only_already_is_returned_as_it_is(value: Any) -> None:
    assert freeze(value) is value


@pytest.mark.parametrize(
    ("value", "frozen"),
    [
        ([1, [2, (3,)]], (1, (2, (3,)))),
        ((1, [2]), (1, (2,))),
        (Point(1, [2]), (1, (2,))),
        ({1, 2}, frozenset({1, 2})),
        (frozenset({Order(1)}), frozenset({Order(1)})),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[::2], b"ac"),
        ({"a": [1]}, types.MappingProxyType({"a": (1,)})),
        (collections.OrderedDict(a={1}), types.MappingProxyType({"a": frozenset({1})})),
        (collections.ChainMap({"a": 1}), types.MappingProxyType({"a": 1})),
        ({(1, 2): {3: 4}}, types.MappingProxyType({(1, 2): types.MappingProxyType({3: 4})})),
        (Order(1, [2, {3}]), Order(1, (2, frozenset({3})))),
        (Text("a"), "a"),
        (Whole(3), 3),
    ],
)
def test_the_rest_becomes_its_read_only_form(value: Any, frozen: Any) -> None:
    result = freeze(value)
    assert result == frozen
    assert type(result) is type(frozen)
    assert freeze(result) == result


def test_a_mapping_is_copied_so_that_its_owner_cannot_change_what_was_sent() -> None:
    owned = {"a": 1}
    frozen = freeze(types.MappingProxyType(owned))
    owned["a"] = 2
    assert frozen["a"] == 1


def test_frozen_parts_of_a_tuple_stay_the_same_objects() -> None:
    order = Order(1)
    assert freeze([order, [1]])[0] is order


class Unfrozen(Exception):
    def __str__(self) -> str:
        raise KeyError


@pytest.mark.parametrize(
    ("exception", "args"),
    [
        (ValueError("bad", [1]), ("bad", (1,))),
        (KeyError("x"), ("x",)),
        (FileNotFoundError(2, "none", "a.txt"), (2, "none")),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"), ("utf-8", b"\xff", 0, 1, "why")),
        (StopIteration(3), (3,)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_builtin_exception_becomes_a_fresh_one_without_traceback(exception: Exception, args: Any) -> None:
    try:
        raise exception
    except Exception as caught:
        frozen = freeze(caught)
    assert type(frozen) is type(exception)
    assert frozen is not exception
    assert frozen.args == args
    assert frozen.__traceback__ is None
    assert getattr(frozen, "filename", None) == getattr(exception, "filename", None)


def test_a_group_of_exceptions_freezes_its_parts() -> None:
    class Own(Exception):
        pass

    frozen = freeze(ExceptionGroup("two", [ValueError([1]), Own("x")]))
    assert frozen.exceptions[0].args == ((1,),)
    assert isinstance(frozen.exceptions[1], RemoteError)
    assert frozen.exceptions[1].kind == "Own"


@pytest.mark.parametrize(
    "exception", [Unfrozen(), KeyboardInterrupt(), ValueError(print), SystemExit(1)], ids=repr
)
def test_any_other_exception_becomes_a_remote_error(exception: BaseException) -> None:
    frozen = freeze(exception)
    assert type(frozen) is RemoteError
    assert frozen.kind == type(exception).__name__


def test_a_remote_error_stays_one() -> None:
    frozen = freeze(RemoteError("Own", "text", "trace"))
    assert (frozen.kind, frozen.message, frozen.traceback_text) == ("Own", "text", "trace")


def test_the_description_of_an_exception_has_its_traceback_and_its_cause() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise RuntimeError("outer") from inner
    except RuntimeError as caught:
        kind, text, trace = describe_exception(caught)
    assert (kind, text) == ("RuntimeError", "outer")
    assert "inner" in trace
    assert "direct cause" in trace
    assert trace.rstrip().endswith("RuntimeError: outer")


def test_a_long_traceback_keeps_its_end() -> None:
    try:
        raise ValueError("x" * 2 * MAX_TRACEBACK_CHARS + "the end")
    except ValueError as caught:
        _, text, trace = describe_exception(caught)
    assert len(text) < MAX_TRACEBACK_CHARS + 100
    assert len(trace) < MAX_TRACEBACK_CHARS + 100
    assert trace.rstrip().endswith("the end")


class NoRepr:
    def __repr__(self) -> str:
        raise ValueError


NOT_SENDABLE = [
    ({"items": [0, 1, 2, {"owner": print}]}, "value['items'][3]['owner']", "a function (print)"),
    (Order(1, [print]), "value.items[0]", "a function"),
    ((1, {2: {print}}), "value[1][2]{<built-in function print>}", "a function"),
    (int, "value", "the class int"),
    (threading.Lock(), "value", "send plain values"),
    (Plain(), "value", "decorate Plain with @tasklets.message"),
    ([Size.BIG], "value[0]", "write tasklets.register(Size)"),
    (iter([1]), "value", "send what it yields"),
    (NoRepr(), "value", "<NoRepr>"),
    (1j, "value", "1j (of type complex)"),
    (datetime(2024, 1, 1, tzinfo=Gone()), "value", "a time zone of type Gone"),
    ({Mapped(): 1}, "value", "cannot be a key"),
    ({Mapped()}, "value", "cannot be a key"),
    (Strict([1]), "value", "items must be a list"),
    ({"k": {(1, print): 2}}, "value['k'][(1, <built-in function print>)][1]", "a function"),
]


@pytest.mark.parametrize(
    ("value", "path", "said"),
    NOT_SENDABLE,
    ids=[f"{i}-{said}" for i, (_, _, said) in enumerate(NOT_SENDABLE)],
)
def test_what_cannot_travel_is_named_with_its_path_and_what_to_do(value: Any, path: str, said: str) -> None:
    with pytest.raises(NotSendable) as caught:
        freeze(value)
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def test_sixty_four_levels_are_allowed_and_no_more() -> None:
    freeze(nested(64))
    with pytest.raises(NotSendable, match="more than 64 levels"):
        freeze(nested(65))


@pytest.mark.parametrize("make", [lambda: [], lambda: {}], ids=["list", "dict"])
def test_a_value_that_contains_itself_is_refused_with_a_short_message(make: Any) -> None:
    cycle = make()
    if isinstance(cycle, list):
        cycle.append(cycle)
    else:
        cycle["me"] = cycle
    with pytest.raises(NotSendable, match="perhaps it contains itself") as caught:
        freeze(cycle)
    assert len(str(caught.value)) < 300


hashable = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.just(Colour.RED),
    lambda part: st.tuples(part, part) | st.frozensets(part, max_size=3),
    max_leaves=4,
)
values = st.recursive(
    hashable | st.floats(allow_nan=False),
    lambda part: (
        st.lists(part, max_size=4)
        | st.dictionaries(hashable, part, max_size=3)
        | st.builds(Order, st.integers(), part)
        | st.lists(part, max_size=3).map(tuple)
        | st.sets(hashable, max_size=3)
    ),
    max_leaves=12,
)


@given(values)
def test_freeze_is_idempotent(value: Any) -> None:
    once = freeze(value)
    twice = freeze(once)
    assert twice == once
    assert repr(twice) == repr(once)
