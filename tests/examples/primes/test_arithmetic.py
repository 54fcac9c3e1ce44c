"""The plain part of the prime search: what is prime, and how a range is cut (PRI-01, PRI-02)."""

import pytest
from hypothesis import given, strategies as st

from examples.primes.arithmetic import DIVISIONS_PER_CHUNK, is_prime, partition, primes_in, suitable_chunk

SMALL = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47]


def sieve(hi: int) -> list[int]:
    """The primes below `hi` by another method, to compare with."""
    marks = [False, False] + [True] * (hi - 2)
    for n in range(2, hi):
        if marks[n]:
            for multiple in range(n * n, hi, n):
                marks[multiple] = False
    return [n for n, mark in enumerate(marks) if mark]


def test_pri01_numbers_below_50_are_told_apart() -> None:
    assert [n for n in range(-10, 50) if is_prime(n)] == SMALL


@pytest.mark.parametrize("n", [-7, -2, -1, 0, 1, 4, 9, 25, 49, 121, 561, 997 * 997, 2**32 + 1])
def test_pri01_these_are_not_prime(n: int) -> None:
    assert not is_prime(n)


@pytest.mark.parametrize("n", [2, 3, 99991, 999_983, 2**31 - 1, 10**12 + 39])
def test_pri01_these_are_prime(n: int) -> None:
    assert is_prime(n)


@pytest.mark.parametrize(
    ("lo", "hi", "primes"),
    [
        (0, 0, ()),
        (7, 7, ()),
        (7, 8, (7,)),  # a single number; lo belongs to the range
        (8, 9, ()),
        (0, 3, (2,)),
        (2, 3, (2,)),
        (3, 5, (3,)),  # hi does not
        (-10, 6, (2, 3, 5)),
        (-10, -1, ()),
        (24, 29, ()),
        (24, 30, (29,)),
    ],
)
def test_pri01_a_range_has_its_start_and_not_its_end(lo: int, hi: int, primes: tuple[int, ...]) -> None:
    assert primes_in(lo, hi) == primes


def test_pri01_counts_are_the_known_ones() -> None:
    primes = primes_in(1, 100_000)
    assert (len(primes), primes[-1]) == (9592, 99991)
    assert sum(1 for prime in primes if prime < 10_000) == 1229


def test_pri01_another_method_finds_the_same_primes() -> None:
    assert list(primes_in(-3, 20_000)) == sieve(20_000)


@given(lo=st.integers(-(10**20), 10**20), length=st.integers(0, 500), size=st.integers(1, 600))
def test_pri02_chunks_partition_the_range_exactly(lo: int, length: int, size: int) -> None:
    pieces = list(partition(lo, lo + length, size))
    assert [n for start, end in pieces for n in range(start, end)] == list(range(lo, lo + length))
    assert all(end - start == size for start, end in pieces[:-1])
    assert all(1 <= end - start <= size for start, end in pieces)


def test_pri02_the_last_chunk_may_be_short() -> None:
    assert list(partition(1, 20, 8)) == [(1, 9), (9, 17), (17, 20)]


def test_pri02_a_chunk_larger_than_the_range_is_the_range() -> None:
    assert list(partition(5, 9, 1000)) == [(5, 9)]


def test_pri02_an_endless_looking_range_is_cut_as_it_is_asked_for() -> None:
    assert next(partition(0, 10**30, 10)) == (0, 10)


def test_pri01_a_range_that_ends_before_it_starts_is_an_error() -> None:
    with pytest.raises(ValueError, match="ends at 3, before it starts at 10; give the smaller number first"):
        partition(10, 3, 5)


@pytest.mark.parametrize("size", [0, -1])
def test_pri02_a_chunk_without_numbers_is_an_error(size: int) -> None:
    with pytest.raises(ValueError, match="give 1 or more"):
        partition(1, 10, size)


@given(lo=st.integers(-(10**6), 10**30), length=st.integers(0, 10**12))
def test_pri02_the_chosen_chunk_holds_at_least_one_number(lo: int, length: int) -> None:
    assert suitable_chunk(lo, lo + length) >= 1


@pytest.mark.parametrize("lo", [1_000, 1_000_000, 100_000_000])
def test_pri04_the_chosen_chunk_costs_what_was_intended(lo: int) -> None:
    divisions = 0
    size = suitable_chunk(lo, lo)
    step = max(1, size // 2000)  # a sample is enough
    for n in range(lo, lo + size, step):
        divisions += step * (4 + sum(1 for _ in tried_divisors(n)))
    assert 0.5 < divisions / DIVISIONS_PER_CHUNK < 2


def tried_divisors(n: int):  # type: ignore[no-untyped-def]
    divisor = 2
    while divisor * divisor <= n:
        yield divisor
        if n % divisor == 0:
            return
        divisor += 1 if divisor == 2 else 2
