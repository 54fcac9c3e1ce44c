"""Sizes of chunks: they add up, they are few, the last ones are small, and they follow the measured pace."""

from __future__ import annotations

from math import log

from hypothesis import given, strategies as st

from cluster.directives import sizes
from cluster.directives.sizes import Pace, even, guided, in_flight


@given(st.integers(0, 200_000), st.integers(0, 64))
def test_guided_chunks_partition_the_inputs_and_are_few(total: int, slots: int) -> None:
    """PRI-02, P2: 10^6 cheap inputs are not 10^6 tasks."""
    cut = list(guided(total, slots))
    assert sum(cut) == total
    assert all(1 <= size <= sizes.MOST for size in cut)
    assert cut == sorted(cut, reverse=True)
    slots = max(1, slots)
    assert len(cut) <= total / sizes.MOST + 2 * sizes.SHARES * slots * (1 + log(sizes.PARTS))
    if cut:  # nobody waits for a large one at the end
        assert cut[-1] <= max(1, total // (sizes.PARTS * slots))


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_even_chunks_partition_the_inputs(total: int, size: int) -> None:
    cut = list(even(total, size))
    assert sum(cut) == total
    assert all(one == size for one in cut[:-1])


@given(st.floats(1e-7, 100.0), st.integers(1, 64), st.integers(1, 10**6), st.integers(1, 1000))
def test_size_follows_the_pace(seconds: float, slots: int, left: int, limit: int) -> None:
    """PRI-05: a chunk takes about CHUNK_SECONDS, less towards the end, and never more than may be on its way."""
    pace = Pace()
    assert pace.size(slots) == 1  # nothing is known
    for _ in range(8):
        size = pace.size(slots)
        pace.learn(size, size * seconds)
    size = pace.size(slots)
    assert size == 1 or size * seconds <= 1.01 * sizes.CHUNK_SECONDS
    if 1e-5 < seconds < sizes.CHUNK_SECONDS / 2:
        assert size * seconds > 0.4 * sizes.CHUNK_SECONDS
    least = int(sizes.LEAST_SECONDS / pace.seconds_per_input)
    assert pace.size(slots, left) <= max(1, least, left // (sizes.SHARES * slots))
    assert pace.size(slots, None, limit) <= max(1, limit // (sizes.CHUNKS_PER_SLOT * slots))


@given(st.integers(1, 10**8))
def test_a_chunk_is_never_larger_than_a_message(size_bytes: int) -> None:
    pace = Pace()
    for _ in range(6):
        size = pace.size(1)
        pace.learn(size, 1e-9, size * size_bytes)
        assert size == 1 or size * size_bytes <= sizes.MOST_BYTES


def test_one_quick_input_does_not_say_that_all_are() -> None:
    pace = Pace()
    pace.learn(1, 0.0)
    assert pace.size(1) == sizes.GROWTH


@given(st.integers(1, 64), st.integers(1, 10_000))
def test_what_may_be_in_flight(slots: int, size: int) -> None:
    """P-15."""
    assert in_flight(17, slots, size) == 17
    assert in_flight(None, slots, size) >= max(sizes.LEAST_IN_FLIGHT, sizes.CHUNKS_PER_SLOT * slots * size)
