"""Messages and registered enums: what the decorator makes, and who owns a name."""

import dataclasses
import enum
import sys
import types

import pytest

from tasklets import message, messages, register


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in ("message_types", "message_names", "enum_types", "enum_names"):
        monkeypatch.setattr(messages, table, {})


def define(source: str, module: str, file: str | None = None, **names: object) -> dict[str, object]:
    """Run source as if it were a module's."""
    made = types.ModuleType(module)
    made.__dict__.update(message=message, register=register, enum=enum, **names)
    if file is not None:
        made.__file__ = file
    sys.modules[module] = made
    try:
        exec(source, made.__dict__)
    finally:
        if file is None:
            del sys.modules[module]
    return made.__dict__


DEPOSIT = "@message\nclass Deposit:\n    account: str\n    amount: int\n"


def test_a_message_is_a_frozen_slotted_dataclass() -> None:
    @message
    class Deposit:
        account: str
        amount: int = 0

    deposit = Deposit("a", amount=3)
    assert deposit == Deposit("a", 3)
    assert hash(deposit) == hash(Deposit("a", 3))
    assert repr(deposit).endswith("Deposit(account='a', amount=3)")
    assert not hasattr(deposit, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        deposit.amount = 4  # type: ignore[misc]


def test_the_name_is_the_qualified_name_without_locals() -> None:
    @message
    class Deposit:
        account: str

    function = "test_the_name_is_the_qualified_name_without_locals"
    assert messages.message_types[Deposit].name == f"{function}.Deposit"


def test_a_name_can_be_given() -> None:
    @message(name="bank.Deposit")
    class Deposit:
        account: str

    assert messages.message_names["bank.Deposit"].cls is Deposit


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 201, "a\nb"])
def test_a_name_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match="give name="):

        @message(name=name)
        class Deposit:
            account: str


def test_the_same_class_defined_again_replaces_the_first_and_both_can_be_sent() -> None:
    first = define(DEPOSIT, "cell")["Deposit"]
    second = define(DEPOSIT + "    note: str = ''\n", "cell")["Deposit"]
    assert messages.message_names["Deposit"].cls is second
    assert set(messages.message_types) == {first, second}


def test_a_script_that_is_also_imported_by_name_is_the_same_class(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("__main_stand_in__", "prog"):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))  # so that both go afterwards
    inner = "@message\nclass Part:\n    size: int\n@message\nclass Whole:\n    part: Part\n"
    define(inner, "__main_stand_in__", "/somewhere/prog.py")
    second = define(inner, "prog", "/somewhere/prog.py")
    assert messages.message_names["Whole"].cls is second["Whole"]


def test_another_class_of_the_same_name_and_other_fields_is_refused_with_both_shown() -> None:
    define(DEPOSIT, "bank")
    with pytest.raises(TypeError) as caught:
        define("@message\nclass Deposit:\n    place: str\n", "geology")
    text = str(caught.value)
    assert "bank.Deposit(account: str, amount: int)" in text
    assert "geology.Deposit(place: str)" in text
    assert 'name="geology.Deposit"' in text
    assert messages.message_names["Deposit"].cls.__module__ == "bank"


def test_another_class_with_the_same_fields_takes_the_name() -> None:
    define(DEPOSIT, "client")
    second = define(DEPOSIT, "server")["Deposit"]
    assert messages.message_names["Deposit"].cls is second


@pytest.mark.parametrize(
    "lines",
    [
        "    seen: int = dataclasses.field(init=False, default=0)\n",
        "    seed: dataclasses.InitVar[int]\n",
        "    def __init__(self, other: int): pass\n",
    ],
)
def test_a_class_that_its_fields_cannot_rebuild_is_refused(lines: str) -> None:
    with pytest.raises(TypeError, match="cannot be rebuilt from its fields"):
        define("@message\nclass Odd:\n" + lines, "odd", dataclasses=dataclasses)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_values_and_build_are_inverses(count: int) -> None:
    body = "".join(f"    f{number}: int\n" for number in range(count)) or "    pass\n"
    kind = messages.message_types[define("@message\nclass M:\n" + body, "m")["M"]]  # type: ignore[index]
    values = tuple(range(count))
    assert kind.values_of(kind.build(*values)) == values


def test_keyword_only_fields_are_rebuilt() -> None:
    source = "@message\nclass M:\n    a: int\n    _: dataclasses.KW_ONLY\n    b: int\n    c: int = 0\n"
    kind = messages.message_types[define(source, "m", dataclasses=dataclasses)["M"]]  # type: ignore[index]
    assert kind.values_of(kind.build(1, 2, 3)) == (1, 2, 3)


def test_a_message_can_extend_a_message() -> None:
    @message(name="t.Order")
    class Order:
        number: int

    @message(name="t.Urgent")
    class Urgent(Order):
        until: float

    assert messages.message_types[Urgent].fields == ("number", "until")


def test_an_enum_is_registered_by_call_or_as_a_decorator() -> None:
    @register
    class Colour(enum.Enum):
        RED = 1

    class Shape(enum.Enum):
        DISC = 1

    assert register(Shape, "t.Shape") is Shape

    @register(name="t.Size")
    class Size(enum.IntEnum):
        BIG = 1

    assert {kind.name for kind in messages.enum_types.values()} >= {"t.Shape", "t.Size"}
    assert Colour in messages.enum_types
    assert Size.BIG == 1


def test_another_enum_of_the_same_name_and_other_members_is_refused() -> None:
    register(enum.Enum("Colour", ["RED"], module="one"))
    with pytest.raises(TypeError, match=r"one\.Colour\(RED\) and two\.Colour\(RED, BLUE\)"):
        register(enum.Enum("Colour", ["RED", "BLUE"], module="two"))


def test_register_is_for_enums() -> None:
    with pytest.raises(TypeError, match=r"use @tasklets\.message"):
        register(int)  # type: ignore[call-overload]
