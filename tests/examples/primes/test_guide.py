"""Chunks as large as is good: guided by what was seen, and smaller towards the end (PRI-02, PRI-04, PRI-05)."""

from itertools import islice

from hypothesis import given, strategies as st

from examples.primes.guide import CHUNK_SECONDS, LEAST_SECONDS, FixedSize, Guide
from examples.primes.search import make_guide


@given(
    lo=st.integers(-(10**6), 10**12),
    length=st.integers(0, 10**6),
    workers=st.integers(1, 20),
    seconds=st.lists(st.floats(0, 10), max_size=5),
)
def test_pri02_guided_chunks_partition_the_range_exactly(
    lo: int, length: int, workers: int, seconds: list[float]
) -> None:
    guide = Guide(lo, lo + length, workers=workers)
    reached, taken = lo, iter(seconds)
    for start, stop in islice(guide.pieces(), 300):
        assert start == reached < stop <= lo + length
        reached = stop
        guide.learn(start, stop, next(taken, 0.1))
    if sum(1 for _ in islice(guide.pieces(), 300)) < 300:
        assert reached == lo + length


def test_pri05_chunks_shrink_towards_the_end_and_never_grow_again() -> None:
    guide = Guide(0, 1_000_000, workers=2, cost=lambda n: 1.0)
    guide.learn(0, 1000, 0.001)  # a microsecond each: the whole takes a second
    sizes = [stop - start for start, stop in guide.pieces()]
    assert sizes[:4] == [100_000] * 4
    assert sizes[4:-1] == sorted(sizes[4:-1], reverse=True)
    assert sizes[-2] <= 2 * LEAST_SECONDS * 1e6


def test_pri05_more_workers_make_smaller_last_chunks() -> None:
    few, many = (Guide(0, 1_000_000, workers=workers, cost=lambda n: 1.0) for workers in (1, 10))
    for guide in (few, many):
        guide.learn(0, 1000, 0.001)
    assert few.size(500_000) > many.size(500_000)


def test_pri04_sizes_follow_what_chunks_really_take() -> None:
    guide = Guide(0, 10**9, cost=lambda n: 1.0)
    guide.learn(0, 1000, 1.0)
    assert guide.size(0) == 1000 * CHUNK_SECONDS
    for _ in range(40):
        guide.learn(0, 1000, 0.001)  # the machine has become a thousand times as fast
    assert 0.9 < guide.size(0) / (1_000_000 * CHUNK_SECONDS) <= 1.01


def test_pri05_later_numbers_cost_more_so_there_are_fewer_in_a_chunk() -> None:
    guide = Guide(0, 10**9)
    assert guide.size(1000) > 2 * guide.size(10**7)


def test_a_size_that_was_asked_for_is_kept() -> None:
    guide = make_guide(0, 100, 30, 2, "trial")
    assert isinstance(guide, FixedSize)
    assert list(guide.pieces()) == [(0, 30), (30, 60), (60, 90), (90, 100)]
