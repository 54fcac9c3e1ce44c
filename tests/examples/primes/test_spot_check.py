"""A worker that is wrong is found (PRI-13)."""

import re
from random import Random

import pytest
from hypothesis import given, strategies as st

from examples.primes.arithmetic import is_prime, primes_in
from examples.primes.spot_check import find_error, is_probably_prime


@given(n=st.integers(-100, 10**6))
def test_the_other_method_agrees_with_trial_division(n: int) -> None:
    assert is_probably_prime(n) == is_prime(n)


@pytest.mark.parametrize("n", [3215031751, 3474749660383, 341550071728321, 3825123056546413051])
def test_pseudoprimes_do_not_fool_it(n: int) -> None:
    assert not is_probably_prime(n)


def test_large_primes_are_prime() -> None:
    assert is_probably_prime(2**89 - 1)
    assert not is_probably_prime((2**61 - 1) * (2**31 - 1))


@given(lo=st.integers(-20, 10**5), length=st.integers(1, 2000), seed=st.integers(0, 10))
def test_pri13_what_is_right_is_never_found_wrong(lo: int, length: int, seed: int) -> None:
    assert find_error(lo, lo + length, primes_in(lo, lo + length), 1.0, Random(seed)) is None


@pytest.mark.parametrize(
    ("primes", "error"),
    [
        ((), "is not prime"),
        (tuple(range(101, 200, 2)), "is prime"),
        ((*primes_in(100, 200), 211), r"outside of \[100, 200\)"),
        ((103, 101), "out of order"),
    ],
)
def test_pri13_what_is_grossly_wrong_is_found_at_once(primes: tuple[int, ...], error: str) -> None:

    found = find_error(100, 200, primes, 50.0, Random(1))
    assert found is not None
    assert re.search(error, found)


def test_pri13_one_wrong_prime_in_each_chunk_is_found_soon() -> None:
    dice = Random(1)
    chunks = 0
    while find_error(0, 10_000, (*primes_in(0, 9_990), 9_999), 1.0, dice) is None:
        chunks += 1
    assert chunks < 200
