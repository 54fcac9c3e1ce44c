"""How inputs are cut into shards (D-09, D-20), and each row of D3: what the origin's splitter did with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from cluster._shards import SHARDS_PER_SLOT, shards_for, split


def covered(shards: list[tuple[int, int]]) -> list[int]:
    return [index for low, high in shards for index in range(low, high)]


@pytest.mark.parametrize("total", range(21))
@pytest.mark.parametrize("workers", range(1, 7))
def test_every_input_is_in_exactly_one_shard(total: int, workers: int) -> None:
    shards = list(split(total, workers))

    assert covered(shards) == list(range(total))
    assert len(shards) == min(total, workers)
    sizes = [high - low for low, high in shards]
    assert not sizes or (min(sizes) >= 1 and max(sizes) - min(sizes) <= 1)


@given(st.integers(0, 100_000), st.integers(0, 1000))
def test_shards_are_contiguous_none_empty_and_alike(total: int, wanted: int) -> None:
    shards = list(split(total, wanted))

    assert [low for low, _ in shards] == [0, *(high for _, high in shards)][: len(shards)]
    assert (shards[-1][1] if shards else 0) == total
    assert all(0 < high - low <= -(-total // len(shards)) for low, high in shards)


def test_ten_inputs_for_three_are_four_three_three() -> None:
    assert [high - low for low, high in split(10, 3)] == [4, 3, 3]


@pytest.mark.parametrize(
    ("total", "shards", "origin_did"),
    [
        (10, 2, "shards 5 and 4, input 9 lost"),
        (10, 4, "2, 2, 4, 1: bounds doubled each time, input 9 lost"),
        (100, 4, "3 shards 25, 25, 49, input 99 lost"),
        (10, 1, "an exception after the first shard"),
        (1, 1, "an exception after the first shard"),
        (3, 4, "an endless loop of empty shards"),
        (10, 0, "a division by zero"),
    ],
)
def test_what_the_origin_lost_is_there(total: int, shards: int, origin_did: str) -> None:
    """D3."""
    cut = list(split(total, shards))

    assert covered(cut) == list(range(total)), origin_did
    assert len(cut) == min(total, max(1, shards)), origin_did


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(
    "cost",
    [lambda n: n + 1, lambda n: (n + 1) ** 2, lambda n: 1000 - n, lambda n: 20 if n == 999 else 1],
    ids=["line", "square", "falling", "one"],
)
def test_no_slot_has_much_more_than_its_share(slots: int, cost: Callable[[int], float]) -> None:
    """D-20: inputs of unequal cost, in shards that are pulled by whoever is free: at most 1.5 times the mean."""
    loads = [0.0] * slots
    for low, high in split(1000, shards_for(slots)):
        loads[loads.index(min(loads))] += sum(map(cost, range(low, high)))

    assert max(loads) <= 1.5 * sum(loads) / slots


def test_there_are_several_shards_for_each_slot() -> None:
    """D-20: the last ones to end are short beside the whole; without a slot there is still a plan (D-11)."""
    assert shards_for(3) == 3 * SHARDS_PER_SLOT == 12
    assert shards_for(0) == SHARDS_PER_SLOT
