"""How the primes of a range are found. Every algorithm gives the same answer; they differ in speed.

    for primes in ALGORITHMS["sieve"](1, 1_000_000): ...

Each is a generator that yields the primes in rising order, some at a time, and at least some dozen times a second
(an empty tuple when there are none): whoever computes can let others run in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from math import isqrt
from typing import Any

from examples.primes.arithmetic import divisions_near, is_prime, primes_in

Algorithm = Callable[[int, int], Iterator[tuple[int, ...]]]

DIVISIONS_PER_STEP = 200_000  # some 10 ms
SIEVE_STEP = 2**18  # numbers; a flag for each stays in the processor's cache
MOST_BASE = 10_000_000  # primes up to the root are kept; beyond, trial division needs less memory
WHEEL = (4, 2, 4, 2, 4, 6, 2, 6)  # from 7 on, the steps between numbers that 2, 3 and 5 do not divide


class NoNumpy(Exception):
    """numpy is not installed where a worker needs it."""


def trial(lo: int, hi: int) -> Iterator[tuple[int, ...]]:
    """Divide each number by the odd ones up to its root."""
    lo = max(lo, 2)
    while lo < hi:
        divisions = isqrt(lo) // 2 + 1
        if divisions > DIVISIONS_PER_STEP:
            yield from _patiently(lo)
            lo += 1
            continue
        # The average number falls to a small divisor; at worst all are prime, and this step is ten times as long.
        step = min(hi, lo + max(1, 10 * DIVISIONS_PER_STEP // (divisions + 40)))
        yield primes_in(lo, step)
        lo = step


def wheel(lo: int, hi: int) -> Iterator[tuple[int, ...]]:
    """Divide only by what 2, 3 and 5 do not divide: 8 divisors of 30 instead of 15."""
    lo = max(lo, 2)
    while lo < hi:
        if isqrt(lo) > 2 * DIVISIONS_PER_STEP:
            yield from _patiently(lo)
            lo += 1
            continue
        step = min(hi, lo + max(1, 10 * DIVISIONS_PER_STEP // (isqrt(lo) // 3 + 40)))
        yield tuple([n for n in range(lo, step) if _falls_to_no_spoke(n)])
        lo = step


def sieve(lo: int, hi: int) -> Iterator[tuple[int, ...]]:
    """Strike out the multiples of the primes up to the root, in steps that fit the cache."""
    for start, stop in _steps(lo, hi):
        if isqrt(stop) > MOST_BASE:
            yield from trial(start, stop)
            continue
        flags = bytearray(b"\x01") * (stop - start)
        for p in _base(isqrt(stop)):
            first = max(p * p, -(-start // p) * p)
            flags[first - start :: p] = bytes(len(range(first, stop, p)))
        yield tuple([n for n, flag in enumerate(flags, start) if flag])


def sieve_with_numpy(lo: int, hi: int) -> Iterator[tuple[int, ...]]:
    """Do the same with numpy. Raises NoNumpy."""
    np = load_numpy()
    for start, stop in _steps(lo, hi):
        if isqrt(stop) > MOST_BASE:
            yield from trial(start, stop)
            continue
        flags = np.ones(stop - start, dtype=bool)
        for p in _base(isqrt(stop)):
            flags[max(p * p, -(-start // p) * p) - start :: p] = False
        yield tuple([start + offset for offset in np.flatnonzero(flags).tolist()])


ALGORITHMS: dict[str, Algorithm] = {
    "trial": trial,
    "wheel": wheel,
    "sieve": sieve,
    "numpy": sieve_with_numpy,
}

# algorithm -> what a number near n costs, in units of its own; how long a unit takes is learned (guide.py)
COSTS: dict[str, Callable[[int], float]] = {
    "trial": divisions_near,
    "wheel": divisions_near,
    "sieve": lambda n: 1.0,
    "numpy": lambda n: 1.0,
}
SECONDS_PER_UNIT = 1e-7  # a guess to begin with


def load_numpy() -> Any:
    """Return numpy. Raises NoNumpy."""
    try:
        import numpy
    except ImportError as error:
        raise NoNumpy(
            "this algorithm needs numpy on every worker; pip install 'tasklets[numpy]', or choose --algorithm sieve"
        ) from error
    return numpy


def _steps(lo: int, hi: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + SIEVE_STEP, hi)) for start in range(max(lo, 2), hi, SIEVE_STEP))


def _base(limit: int) -> tuple[int, ...]:
    """Return the primes up to `limit`, and some more: a worker is asked for much the same again and again."""
    return _primes_below(1 << limit.bit_length())


@lru_cache(2)
def _primes_below(limit: int) -> tuple[int, ...]:
    flags = bytearray(b"\x01") * limit
    flags[:2] = b"\0\0"
    for p in range(2, isqrt(limit) + 1):
        if flags[p]:
            flags[p * p :: p] = bytes(len(range(p * p, limit, p)))
    return tuple([n for n, flag in enumerate(flags) if flag])


def _falls_to_no_spoke(n: int) -> bool:
    if n < 49:
        return is_prime(n)
    if not (n % 2 and n % 3 and n % 5):
        return False
    divisor, root = 7, isqrt(n)
    while divisor <= root:
        for step in WHEEL:
            if n % divisor == 0:
                return divisor == n
            divisor += step
    return True


def _patiently(n: int) -> Iterator[tuple[int, ...]]:
    """Say whether one large number is prime, with a pause after each DIVISIONS_PER_STEP divisions."""
    root = isqrt(n)
    if n % 2 == 0:
        yield ()
        return
    for start in range(3, root + 1, 2 * DIVISIONS_PER_STEP):
        for divisor in range(start, min(start + 2 * DIVISIONS_PER_STEP, root + 1), 2):
            if n % divisor == 0:
                yield ()
                return
        yield ()
    yield (n,)
