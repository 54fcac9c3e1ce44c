"""Functions of the program itself, as of a notebook, in child processes."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from net import NotImportable
from net._delivery import PREFIX, Delivered, is_own, pack
from tasklets import run, schedule, tasklet
from tests.net import peers

PROMPT = """
from enum import Enum
from net import open_place
from tasklets import channel, message, register

@message
class Order:
    item: str
    count: int = 1
    def doubled(self):
        return Order(self.item, 2 * self.count)

@register
class Colour(Enum):
    RED = 1

factor = 10

def scale(number):
    return factor * number

def work(numbers, out):
    import os
    for number in numbers:
        out.send((scale(number), Order("bolt", number).doubled(), Colour.RED, os.getpid()))
    out.close()

def fail():
    raise ValueError("in a cell")
"""

USE = """
import os
with open_place(PLACE) as place:
    numbers, out = place.channel(4), place.channel(4)
    place.spawn(work, numbers, out)
    for number in (1, 2):
        numbers.send(number)
    numbers.close()
    for scaled, order, colour, pid in out:
        same = order == Order("bolt", order.count) and colour is Colour.RED
        print(scaled, order.item, order.count, same, pid == os.getpid())
"""


def run_prompt(*cells: str, env: dict[str, str] | None = None) -> tuple[str, str]:
    process = peers.start("-c", "\n".join(cells), env=env or {})
    return process.communicate(timeout=peers.PATIENCE)


@pytest.mark.real
def test_functions_and_messages_of_the_prompt_run_in_children() -> None:
    out, err = run_prompt(PROMPT, "PLACE = 'processes:2'", USE, "factor = 100", USE, "PLACE = 'here'", USE)
    assert err == ""
    assert out.splitlines() == [
        "10 bolt 2 True False",
        "20 bolt 4 True False",
        "100 bolt 2 True False",  # a cell that was changed counts
        "200 bolt 4 True False",
        "100 bolt 2 True True",
        "200 bolt 4 True True",
    ]


@pytest.mark.real
def test_a_failure_in_a_function_of_the_prompt_has_its_traceback() -> None:
    use = "with open_place('processes:1') as place: place.spawn(fail).join()"
    out, err = run_prompt(PROMPT, use)
    assert out == ""
    assert "ValueError: in a cell" in err
    assert "It happened in another process" in err


@pytest.mark.real
def test_without_cloudpickle_the_error_says_what_to_install() -> None:
    _, err = run_prompt("import sys; sys.modules['cloudpickle'] = None", PROMPT, "PLACE = 'processes:1'", USE)
    assert err.rstrip().endswith(
        "NotImportable: work is defined in the program itself, where child processes cannot import it; "
        'put it into a module, or install what hands it to them: pip install "tasklets[notebook]"'
    )


@pytest.mark.real
def test_what_cannot_be_copied_is_named() -> None:
    cell = (
        "held = channel()\ndef use(): held.send(1)\nwith open_place('processes:1') as place: place.spawn(use)"
    )
    _, err = run_prompt(PROMPT, cell)
    assert "use uses what cannot be copied to another process (<channel" in err
    assert "pass it as an argument" in err


@pytest.mark.real
def test_a_large_function_arrives_at_a_child_that_computes() -> None:
    cell = """
big = bytes(3_000_000)
def size(out): out.send(len(big))
def spin(out):
    out.send(None)
    import time
    end = time.monotonic() + 1.0
    while time.monotonic() < end: pass
with open_place('processes:1') as place:
    out = place.channel()
    place.spawn(spin, out)
    out.receive()
    place.spawn(size, out)
    print(out.receive())
"""
    assert run_prompt(PROMPT, cell) == ("3000000\n", "")


@pytest.mark.real
def test_a_host_is_handed_no_functions() -> None:
    with peers.node() as (_, address):
        _, err = run_prompt(PROMPT, f"PLACE = 'hosts:{address}'", USE)
    assert "work was defined at the prompt, where other machines cannot find it; put it into a module" in err


def defined_here() -> Callable[..., object]:
    def program(value: int) -> int:
        return value + os.getpid() * 0

    program.__module__, program.__qualname__ = "__main__", "program"
    return program


def test_only_functions_at_the_top_of_the_program_are_its_own() -> None:
    assert is_own(defined_here())
    assert not is_own(lambda: None)
    assert not is_own(os.getpid)
    assert not is_own(peers.close)


def test_a_function_that_arrives_late_is_waited_for() -> None:
    name, packed = pack(defined_here())
    assert name.startswith(PREFIX)
    calls: list[Any] = []
    delivered = Delivered(lambda function, *args: calls.append((function, args)))
    found: list[Any] = []
    tasklet(lambda: found.append(delivered.find(name)))()
    tasklet(lambda: found.append(delivered.find(name)))()
    schedule()
    assert not found
    delivered.take(name, packed)
    for function, args in calls:
        function(*args)
    run()
    assert found[0] is found[1]
    assert found[0](41) == 41


def test_what_cannot_be_made_in_the_child_is_told() -> None:
    delivered = Delivered(lambda function, *args: None)
    delivered.take("pickled:x", b"junk")
    with pytest.raises(NotImportable, match="cannot be made in the child process: UnpicklingError"):
        delivered.find("pickled:x")
