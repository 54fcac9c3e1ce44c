"""What a worker computes, and how a range is cut into pieces of work.

Nothing here knows of tasklets: plain functions of whole numbers. Every range is `[lo, hi)`: `lo` belongs to
it, `hi` does not.

    >>> primes_in(1, 20)
    (2, 3, 5, 7, 11, 13, 17, 19)
    >>> list(partition(1, 20, 8))
    [(1, 9), (9, 17), (17, 20)]
"""

from collections.abc import Iterator
from math import isqrt, log

# One chunk is this many trial divisions, give or take: 50 to 100 ms on a machine of today. Long against the
# round trip that fetches the next chunk (under 1 ms), short against the whole, because at the end every other
# worker waits for the last chunk.
DIVISIONS_PER_CHUNK = 1_200_000

# What a number costs that falls to the first test: the loop around it, in units of one division.
DIVISIONS_PER_NUMBER = 4


def is_prime(n: int) -> bool:
    """Say whether `n` is prime, by trial division up to its square root. Numbers below 2 are not."""
    if n < 4:
        return n > 1
    if n % 2 == 0:
        return False
    for divisor in range(3, isqrt(n) + 1, 2):  # noqa: SIM110 - all() with a generator takes twice the time
        if n % divisor == 0:
            return False
    return True


def primes_in(lo: int, hi: int) -> tuple[int, ...]:
    """Return the primes of `[lo, hi)` in rising order."""
    return tuple([n for n in range(max(lo, 2), hi) if is_prime(n)])


def partition(lo: int, hi: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut `[lo, hi)` into pieces of `size` numbers, the last one perhaps shorter; an empty range has none.

    The pieces are made as they are asked for, so a range may be far longer than memory holds.

    Raises ValueError when `hi < lo` or `size < 1`.
    """
    if hi < lo:
        raise ValueError(f"the range ends at {hi}, before it starts at {lo}; give the smaller number first")
    if size < 1:
        raise ValueError(f"a chunk of {size} numbers is no work; give 1 or more")
    return ((start, min(start + size, hi)) for start in range(lo, hi, size))


def divisions_near(n: int) -> float:
    """Return what a number near `n` costs by trial division, in units of one division.

    It takes about 0.56 * sqrt(n) / ln(n) divisions: the chance that nothing below d divides it is 0.56 / ln(d),
    and that is summed over the odd d up to sqrt(n).
    """
    n = max(n, 3)
    return DIVISIONS_PER_NUMBER + 0.56 * isqrt(n) / log(n)


def suitable_chunk(lo: int, hi: int) -> int:
    """Choose how many numbers of `[lo, hi)` make a chunk, by what the numbers in its middle cost."""
    return max(1, int(DIVISIONS_PER_CHUNK / divisions_near((lo + hi) // 2)))
