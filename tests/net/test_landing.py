"""Large bytes lend their memory to the next ones, and nobody who still holds them sees that (net._landing)."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

import net
from net import _landing
from net._landing import MOST_SPARE, SPARE_BYTES, Spare
from net.node import get_node
from tasklets import channel
from tests.net.peers import until

is_compiled = not _landing.__file__.endswith(".py")


def land(spare: Spare, size: int, filling: int) -> bytes:
    landing = spare.landing(size)
    landing.add(bytes([filling]) * size)
    data = landing.take()
    spare.keep(data)
    return data


def test_memory_that_nobody_holds_any_more_is_used_again() -> None:
    spare = Spare()
    first = land(spare, SPARE_BYTES, 1)
    where = id(first)
    del first
    second = land(spare, SPARE_BYTES, 2)
    if is_compiled:  # else it depends on the allocator
        assert id(second) == where
    assert second == b"\2" * SPARE_BYTES


HOLDERS: dict[str, Callable[[bytes], object]] = {
    "itself": lambda data: data,
    "a view": memoryview,
    "a message": lambda data: (data,),
    "a key": lambda data: {data: 1},
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_what_somebody_holds_never_changes(hold: Callable[[bytes], object]) -> None:
    spare = Spare()
    held = [hold(land(spare, SPARE_BYTES, filling)) for filling in range(6)]
    for filling, each in enumerate(held):
        assert each == hold(bytes([filling]) * SPARE_BYTES)


@given(st.lists(st.tuples(st.integers(0, 255), st.sampled_from([0, 1]), st.integers(0, 5)), max_size=20))
def test_held_and_dropped_as_it_comes(steps: list[tuple[int, int, int]]) -> None:
    spare, held = Spare(), dict[int, tuple[int, bytes]]()
    for filling, more, place in steps:
        held[place] = (filling, land(spare, SPARE_BYTES + more, filling))
        assert len(spare) <= MOST_SPARE
        for told, data in held.values():
            assert data[0] == data[-1] == told


def test_bytes_in_used_memory_have_their_own_hash() -> None:
    spare = Spare()
    hash(land(spare, SPARE_BYTES, 1))
    data = land(spare, SPARE_BYTES, 2)
    assert hash(data) == hash(b"\2" * SPARE_BYTES)


def test_a_landing_without_end_gives_its_memory_back() -> None:
    spare = Spare()
    land(spare, SPARE_BYTES, 1)
    landing = spare.landing(SPARE_BYTES)  # the connection ends in the middle of it
    landing.add(b"half")
    del landing
    assert not len(spare) or not is_compiled
    assert land(spare, SPARE_BYTES, 3) == b"\3" * SPARE_BYTES


def test_nothing_is_kept_when_none_come_any_more() -> None:
    spare = Spare()
    land(spare, SPARE_BYTES, 1)
    assert spare.tidy() is is_compiled  # one has come since
    assert not spare.tidy()
    assert not len(spare)


def test_small_ones_are_not_kept() -> None:
    spare = Spare()
    land(spare, SPARE_BYTES - 1, 1)
    assert not len(spare)


@pytest.mark.real
def test_large_messages_over_a_connection_stay_what_they_were() -> None:
    """A receiver that keeps some of them and drops others (T-03)."""
    draw = random.Random(7)
    inbox: channel = channel(2)
    with net.open_place("processes:1") as place:
        place.spawn(send_all, inbox, 24)
        kept: dict[int, bytes] = {}
        for number in range(24):
            data = inbox.receive()
            assert data == content(number)
            if draw.random() < 0.5:
                kept[number] = data
            elif kept:
                kept.pop(draw.choice(list(kept)))
            del data
        assert kept
        assert all(data == content(number) for number, data in kept.items())
        if is_compiled:
            assert len(get_node().spare)
        until(lambda: not len(get_node().spare), "the memory to be given back")


def content(number: int) -> bytes:
    return bytes([number]) * (SPARE_BYTES + 100 * (number % 2))


def send_all(inbox: channel, count: int) -> None:
    for number in range(count):
        inbox.send(content(number))
