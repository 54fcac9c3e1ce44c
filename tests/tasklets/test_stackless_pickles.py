"""Section 10 of Stackless's behaviour: what can be pickled here."""

import pickle
from types import ModuleType
from typing import Any

import pytest

from tasklets import stackless

log: list[object] = []


def work(*args: object, **kwargs: object) -> None:
    log.append((args, kwargs))


class Named(stackless.tasklet):
    """A subclass with an attribute."""


def copied(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


@pytest.fixture(autouse=True)
def empty_log() -> None:
    log.clear()


def test_an_unbound_and_a_bound_tasklet(s: ModuleType) -> None:
    assert copied(s.tasklet()).tempval is None
    one = copied(s.tasklet(work))
    assert (one.tempval, one.alive) == (work, False)
    one(1)
    s.run()
    assert log == [((1,), {})]


def test_one_that_has_its_arguments_and_flags(s: ModuleType) -> None:
    one = s.tasklet(work).bind(None, (1,), {"k": 2})
    one.block_trap = True
    one.set_atomic(True)
    one.set_ignore_nesting(True)
    other = copied(one)
    assert (other.alive, other.paused, other.scheduled) == (True, True, False)
    assert (other.block_trap, other.atomic, other.ignore_nesting) == (True, True, True)
    other.run()
    assert log == [((1,), {"k": 2})]


def test_one_that_is_in_line_arrives_paused_where_it_did_not_start(s: ModuleType) -> None:
    one = s.tasklet(work)(1)
    other = copied(one)
    one.remove()
    other.insert()
    s.run()
    assert log == [((1,), {})]


def test_a_subclass_keeps_its_attributes(s: ModuleType) -> None:
    one = Named(work)
    one.label = "n"  # type: ignore[attr-defined]
    other = copied(one)
    assert (type(other), other.label) == (Named, "n")


def test_a_started_one_cannot_be_pickled_and_says_so(s: ModuleType) -> None:
    one = s.tasklet(s.schedule_remove)(None)
    assert one.restorable
    one.run()
    assert not one.restorable
    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(one)
    with pytest.raises(TypeError):
        pickle.dumps(s.main)


def test_a_channel_that_nobody_waits_in(s: ModuleType) -> None:
    orders = s.channel()
    orders.preference, orders.schedule_all = 1, 1
    orders.close()
    other = copied(orders)
    assert (other.preference, other.schedule_all, other.closing, other.balance) == (1, 1, True, 0)
    assert type(other) is s.channel


def test_a_channel_with_a_queue_cannot_be_pickled(s: ModuleType) -> None:
    orders = s.channel()
    s.tasklet(orders.receive)()
    s.run()
    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(orders)


def test_the_pattern_for_checkpoints(s: ModuleType) -> None:
    state = {"done": 0}

    def steps() -> None:
        while state["done"] < 4:
            state["done"] += 1
            s.schedule_remove(None)

    one = s.tasklet(steps)()
    one.run()
    one.run()
    saved = pickle.dumps(state)
    one.kill()
    state = pickle.loads(saved)
    s.tasklet(steps)().run()
    assert state["done"] == 3
