"""freeze: the deep read-only form of a value, which is also what arrives when the value travels.

    freeze(["deposit", {"account": 17}])  ==  ("deposit", MappingProxyType({"account": 17}))

One rule for a value that stays in the process and for one that leaves it, so that a program means the same
wherever its parts run. What may travel is a closed list; everything else is NotSendable, with the path to the
offending part. Bytes are not made here: see `net`.
"""

import builtins
import sys
import traceback
import types
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from operator import is_
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from tasklets._errors import NotSendable, RemoteError
from tasklets.messages import MAX_NAME_BYTES, MessageType, enum_types, message_types

# Containers in containers: more than data needs, few enough to walk without a care for the stack, and the end
# of a value that contains itself.
MAX_DEPTH = 64
# A traceback is for people to read. Its innermost lines come last, so the end is kept.
MAX_TRACEBACK_CHARS = 20_000

# Those that travel as themselves. KeyboardInterrupt and the like do not: data must not end a process.
builtin_exceptions: dict[str, type[Exception]] = {
    name: cls
    for name, cls in vars(builtins).items()
    if isinstance(cls, type) and issubclass(cls, Exception) and cls.__name__ == name
}

# Exact types that are read-only through and through. Subclasses are not: they may carry anything.
ATOMS = frozenset({type(None), bool, int, float, str, bytes, date, timedelta, Decimal, UUID})


def freeze(value: Any) -> Any:
    """Return the deep read-only form of a value; the value itself where it is read-only already.

    Lists become tuples, sets frozensets, mappings read-only copies; messages and registered enums stay what
    they are, channels are passed by reference, and an exception becomes a fresh one without traceback (a
    RemoteError unless its class is a builtin one).

    Raises NotSendable, with the path to the part, for whatever has no read-only form.
    """
    kind = type(value)
    if kind in ATOMS:
        return value
    # The usual message, a flat tuple or a flat message, without the calls that the general way takes.
    if kind is tuple:
        parts = value
    elif kind in message_types:
        parts = message_types[kind].values_of(value)
    else:
        return freeze_named(value, "value")
    for part in parts:
        if type(part) not in ATOMS:
            return freeze_named(value, "value")
    return value


def freeze_named(value: Any, root: str) -> Any:
    """Do what `freeze` does, with another word for the whole value in the error's path."""
    try:
        return _freeze(value, 0)
    except _Refused as refused:
        parts = refused.parts[::-1]
        path = root + "".join(parts)
        shown = path if len(parts) <= 12 else root + "".join(parts[:6]) + " ... " + "".join(parts[-2:])
        raise NotSendable(f"{shown}: {refused.reason}", path) from refused.__cause__


def describe_exception(exc: BaseException) -> tuple[str, str, str]:
    """Return (kind, message, traceback_text) of an exception, as text that can go anywhere. Never raises."""
    if isinstance(exc, RemoteError):
        return str(exc.kind), str(exc.message), str(exc.traceback_text)
    try:
        message = str(exc)
    except Exception as failure:  # noqa: BLE001  a broken __str__ must not hide the failure it is about
        message = f"(its text is not available: str() raised {type(failure).__name__})"
    try:
        text = "".join(traceback.format_exception(exc)) if exc.__traceback__ is not None else ""
    except Exception as failure:  # noqa: BLE001  as above
        text = f"(its traceback is not available: formatting raised {type(failure).__name__})\n"
    if len(text) > MAX_TRACEBACK_CHARS:
        cut = len(text) - MAX_TRACEBACK_CHARS
        text = f"... {cut} characters left out ...\n{text[cut:]}"
    if len(message) > MAX_TRACEBACK_CHARS:
        cut = len(message) - MAX_TRACEBACK_CHARS
        message = f"{message[:MAX_TRACEBACK_CHARS]} ... {cut} characters left out"
    return type(exc).__name__[:MAX_NAME_BYTES], message, text


def exception_args(exc: BaseException) -> tuple[Any, ...]:
    """Return the arguments that make an equal exception again."""
    # OSError hides its file name from .args, and only its own __reduce__ tells it.
    args: tuple[Any, ...] = exc.args
    if isinstance(exc, OSError):
        args = exc.__reduce__()[1]  # type: ignore[assignment]  # typed as str | tuple; here it is a tuple
    return args


class _Refused(Exception):
    """A part that cannot travel. It collects the path on its way out, so what can travel builds none."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.parts: list[str] = []  # innermost first


def _freeze(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind in ATOMS:
        return value
    if depth >= MAX_DEPTH:
        raise _Refused(
            f"nested more than {MAX_DEPTH} levels deep; perhaps it contains itself? Send something flatter, "
            "such as ids instead of the things themselves"
        )
    freezer = _FREEZERS.get(kind)
    if freezer is not None:
        return freezer(value, depth)
    message_type = message_types.get(kind)
    if message_type is not None:
        return _freeze_message(value, message_type, depth)
    return _freeze_other(value, depth)


def _freeze_sequence(value: Any, depth: int) -> tuple[Any, ...]:
    for item in value:
        if type(item) not in ATOMS:
            break
    else:
        return value if type(value) is tuple else tuple(value)
    frozen: list[Any] = []
    try:
        for item in value:
            frozen.append(item if type(item) in ATOMS else _freeze(item, depth + 1))  # noqa: PERF401  its length is the index in the error
    except _Refused as refused:
        refused.parts.append(f"[{len(frozen)}]")
        raise
    return value if type(value) is tuple and all(map(is_, frozen, value)) else tuple(frozen)


def _freeze_message(value: Any, kind: MessageType, depth: int) -> Any:
    values = kind.values_of(value)
    for item in values:
        if type(item) not in ATOMS:
            break
    else:
        return value
    frozen: list[Any] = []
    try:
        for item in values:
            frozen.append(_freeze(item, depth + 1))  # noqa: PERF401  its length tells the field in the error
    except _Refused as refused:
        refused.parts.append(f".{kind.fields[len(frozen)]}")
        raise
    if all(map(is_, frozen, values)):
        return value
    try:
        return kind.build(*frozen)
    except Exception as failure:
        raise _Refused(
            f"message {kind.name} refuses its own fields as they would arrive (a list as a tuple): "
            f"{type(failure).__name__}: {failure}; accept that form in its __post_init__"
        ) from failure


def _freeze_mapping(value: Mapping[Any, Any], depth: int) -> Mapping[Any, Any]:
    frozen: dict[Any, Any] = {}
    for key, item in value.items():
        try:
            frozen_key = _freeze(key, depth + 1)
            frozen_item = item if type(item) in ATOMS else _freeze(item, depth + 1)
        except _Refused as refused:
            refused.parts.append(f"[{_short(key)}]")
            raise
        _hash(frozen_key, key)
        frozen[frozen_key] = frozen_item
    return types.MappingProxyType(frozen)


def _freeze_set(value: Any, depth: int) -> frozenset[Any]:
    for item in value:
        if type(item) not in ATOMS:
            break
    else:
        return value if type(value) is frozenset else frozenset(value)
    frozen = []
    same = type(value) is frozenset
    for item in value:
        try:
            frozen_item = _freeze(item, depth + 1)
        except _Refused as refused:
            refused.parts.append(f"{{{_short(item)}}}")
            raise
        _hash(frozen_item, item)
        same = same and frozen_item is item
        frozen.append(frozen_item)
    return value if same else frozenset(frozen)


def _hash(frozen: Any, value: Any) -> None:
    try:
        hash(frozen)
    except TypeError as failure:
        raise _Refused(
            f"{_short(value)} would arrive as a {type(frozen).__name__}, which cannot be a key or in a set; "
            "use a tuple or a text"
        ) from failure


def _freeze_moment(value: Any, depth: int) -> Any:
    zone = value.tzinfo
    if zone is None or type(zone) is timezone or (type(zone) is ZoneInfo and zone.key is not None):
        return value
    raise _Refused(
        f"a time zone of type {type(zone).__name__} cannot travel; use datetime.timezone, "
        "or zoneinfo.ZoneInfo with a key"
    )


def _freeze_exception(value: BaseException, depth: int) -> Exception:
    cls = type(value)
    if cls is builtin_exceptions.get(cls.__name__):
        try:
            fresh = cls(*_freeze(exception_args(value), depth + 1))
        except Exception:  # noqa: BLE001  arguments that cannot travel must not hide the failure itself
            pass
        else:
            if isinstance(fresh, Exception):
                return fresh
    return RemoteError(*describe_exception(value))


def _freeze_other(value: Any, depth: int) -> Any:
    """Take what no exact type decides (channels, enums, exceptions, subclasses), or refuse it."""
    core = sys.modules.get("tasklets._core")  # no import: a channel exists only when the core does
    if core is not None and isinstance(value, core.channel):
        return value
    if isinstance(value, Enum):
        if type(value) in enum_types:
            return value
        raise _Refused(
            f"{_short(value)} is of an enum that is not registered; "
            f"write tasklets.register({type(value).__name__})"
        )
    if isinstance(value, BaseException):
        return _freeze_exception(value, depth)
    for base, plain in _PLAIN:
        if isinstance(value, base):
            return plain(value)
    for base, freezer in _BASES:
        if isinstance(value, base):
            return freezer(value, depth)
    raise _Refused(f"{_noun(value)} cannot travel; {_advice(value)}")


_FREEZERS: dict[type, Callable[[Any, int], Any]] = {
    tuple: _freeze_sequence,
    list: _freeze_sequence,
    dict: _freeze_mapping,
    types.MappingProxyType: _freeze_mapping,  # copied too: somebody may hold the dict behind it
    frozenset: _freeze_set,
    set: _freeze_set,
    datetime: _freeze_moment,
    time: _freeze_moment,
    bytearray: lambda value, depth: bytes(value),
    memoryview: lambda value, depth: value.tobytes(),
}
_PLAIN: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
    ((bytes, bytearray), lambda value: bytes(memoryview(value))),
)
_BASES: tuple[tuple[Any, Callable[[Any, int], Any]], ...] = (
    ((tuple, list), _freeze_sequence),
    ((set, frozenset), _freeze_set),
    (Mapping, _freeze_mapping),
)


def _noun(value: Any) -> str:
    kind = type(value)
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
        return f"a function ({getattr(value, '__qualname__', '?')})"
    where = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{_short(value)} (of type {where}{kind.__qualname__})"


def _advice(value: Any) -> str:
    kind = type(value)
    if callable(value):
        return "send what it needs to know, and let the other side have the code"
    if hasattr(kind, "__dataclass_fields__") or any(base in message_types for base in kind.__mro__):
        return f"decorate {kind.__qualname__} with @tasklets.message"
    if hasattr(kind, "tolist"):
        return "send value.tolist() or value.tobytes()"
    if hasattr(kind, "__next__") or hasattr(kind, "__await__"):
        return "send what it yields, as a tuple or one by one over a channel"
    if kind.__name__ == "tasklet":
        return "send a channel on which it can be reached"
    if isinstance(value, (date, time, timedelta, Decimal, UUID)):
        return "send one of its plain base class"
    return "send plain values, or make its class a message with @tasklets.message"


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  a broken __repr__ must not hide the error it is for
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else text[:57] + "..."
