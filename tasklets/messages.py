"""Messages: read-only records that can travel, each known by a name on both sides.

    @message
    class Deposit:
        account: str
        amount: int

    @register
    class Currency(Enum):
        EURO = "EUR"

A class path never travels, only the name given here: the other process looks the name up among its own
classes. So both sides need a class of that name with the same fields; they need not be the same file.
What may be inside a message is `freezing`'s subject, its bytes are `net`'s.
"""

import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import Enum
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform, overload

T = TypeVar("T")
E = TypeVar("E", bound=type[Enum])

MAX_NAME_BYTES = 200  # a name goes with every message: one byte of length, and enough for any class


@dataclass(frozen=True, slots=True, eq=False)
class MessageType:
    """What is known of a registered message class."""

    name: str
    cls: type
    fields: tuple[str, ...]
    values_of: Callable[[Any], tuple[Any, ...]]  # instance -> its fields' values, in order
    build: Callable[..., Any]  # the inverse: build(*values); runs __post_init__, so a class can refuse values
    signature: str  # for people, and to tell two classes of one name apart


@dataclass(frozen=True, slots=True, eq=False)
class EnumType:
    """What is known of a registered enum."""

    name: str
    cls: type[Enum]
    signature: str


# Looked up by class when sent, by name when received. A class that was defined anew (a notebook cell run
# twice) stays in the first, because instances of it may still be around; only the newest is in the second.
message_types: dict[type, MessageType] = {}
message_names: dict[str, MessageType] = {}
enum_types: dict[type, EnumType] = {}
enum_names: dict[str, EnumType] = {}


@overload
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def message(cls: type[T], /) -> type[T]: ...
@overload
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def message(*, name: str | None = None) -> Callable[[type[T]], type[T]]: ...
def message(
    cls: type[T] | None = None, /, *, name: str | None = None
) -> type[T] | Callable[[type[T]], type[T]]:
    """Make a class a message: a frozen, slotted dataclass, registered by name so that it can travel.

    The name is the class's own (`Deposit`, `Bank.Deposit` when nested) unless `name` gives another. Defining
    the same class again replaces it.

    Raises TypeError when another class with other fields has the name already, or when the fields alone do
    not rebuild an instance.
    """
    if cls is not None:
        return _make_message(cls, None)
    return lambda decorated: _make_message(decorated, name)


@overload
def register(enum_class: E, name: str | None = None) -> E: ...
@overload
def register(enum_class: None = None, name: str | None = None) -> Callable[[E], E]: ...
def register(enum_class: E | None = None, name: str | None = None) -> E | Callable[[E], E]:
    """Make an Enum travel, by its name and its members' names: `register(Colour)`, or `@register`.

    Raises TypeError when another enum with other members has the name already, or when it is no Enum.
    """
    if enum_class is None:
        return lambda decorated: register(decorated, name)
    if not issubclass(enum_class, Enum):
        raise TypeError(
            f"register() is for Enum classes, not {enum_class!r}; use @tasklets.message for others"
        )
    name = _checked_name(enum_class, name)
    signature = f"{enum_class.__module__}.{enum_class.__qualname__}({', '.join(enum_class.__members__)})"
    known = enum_names.get(name)
    if known is not None:
        same_layout = tuple(known.cls.__members__) == tuple(enum_class.__members__)
        _check_same(name, known, enum_class, same_layout, signature)
    enum_types[enum_class] = enum_names[name] = EnumType(name, enum_class, signature)
    return enum_class


def _make_message(cls: type[T], name: str | None) -> type[T]:
    name = _checked_name(cls, name)
    made = dataclass(frozen=True, slots=True)(cls)
    register_made(made, name)
    return made


def register_made(made: type, name: str) -> None:
    """Register a class that is a frozen dataclass already: made just now, or copied from another process."""
    parts = fields(made)
    names = tuple(part.name for part in parts)
    if sorted(_parameters(made)) != sorted(names):
        raise TypeError(
            f"message {made.__qualname__} cannot be rebuilt from its fields {names}: its constructor wants "
            f"{_parameters(made)}; let each field be a parameter, and compute the rest in a property"
        )
    shown = ", ".join(f"{part.name}: {_annotation(part.type)}" for part in parts)
    kind = MessageType(
        name=name,
        cls=made,
        fields=names,
        values_of=_reader(names),
        build=_by_keyword(made, names) if any(part.kw_only for part in parts) else made,
        signature=f"{made.__module__}.{made.__qualname__}({shown})",
    )
    known = message_names.get(name)
    if known is not None:
        _check_same(name, known, made, _layout(known.cls) == _layout(made), kind.signature)
    message_types[made] = message_names[name] = kind


def _reader(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    if not names:
        return lambda instance: ()
    only = attrgetter(names[0])
    return lambda instance: (only(instance),)


def _by_keyword(cls: type, names: tuple[str, ...]) -> Callable[..., Any]:
    return lambda *values: cls(**dict(zip(names, values, strict=True)))


def _checked_name(cls: type, name: str | None) -> str:
    if name is None:
        name = cls.__qualname__.replace("<locals>.", "")
    if not 0 < len(name.encode("utf-8", "replace")) <= MAX_NAME_BYTES or not name.isprintable():
        raise TypeError(
            f"{name!r} cannot be the name of {cls.__module__}.{cls.__qualname__}: "
            f"give name= a printable text of 1 to {MAX_NAME_BYTES} bytes"
        )
    return name


def _parameters(cls: type) -> list[str]:
    return list(inspect.signature(cls).parameters)


def _check_same(
    name: str, known: MessageType | EnumType, cls: type, same_layout: bool, signature: str
) -> None:
    if not same_layout and not _same_origin(known.cls, cls):
        raise TypeError(
            f"two different classes want to travel as {name!r}: {known.signature} and {signature}; "
            f'give one of them another name, for example name="{cls.__module__}.{cls.__qualname__}"'
        )


def _same_origin(one: type, other: type) -> bool:
    """Say whether two classes are the same lines: a cell run twice, or a script that is also imported."""
    if one.__qualname__ != other.__qualname__:
        return False
    return one.__module__ == other.__module__ or _source(one) == _source(other) is not None


def _source(cls: type) -> str | None:
    path = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return os.path.realpath(path) if path else None


def _layout(cls: type) -> list[tuple[str, str]]:
    return [(part.name, _annotation(part.type)) for part in fields(cls)]


def _annotation(kind: Any) -> str:
    return kind if isinstance(kind, str) else inspect.formatannotation(kind)
