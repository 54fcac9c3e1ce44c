"""Whether a worker's primes are prime: some of its numbers, tested by another method (PRI-13).

A test of one number takes microseconds whatever its size (Miller and Rabin's, certain below 3.3 * 10**24), so the
master can afford some for each chunk. A worker that is wrong somewhere is found soon, not at once.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random

LEAST = 8  # numbers tested of each chunk
BASES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)  # enough for 3_317_044_064_679_887_385_961_981


def find_error(lo: int, hi: int, primes: tuple[int, ...], percent: float, dice: Random) -> str | None:
    """Test `percent` of the numbers of a chunk, half of them from what is said to be prime.

    Returns what is wrong, in words, or None. Also None does not say that all is right.
    """
    if any(not lo <= n < hi for n in primes) or any(a >= b for a, b in pairwise(primes)):
        return f"it found primes outside of [{lo}, {hi}), or out of order"
    claimed = set(primes)
    count = max(LEAST, int((hi - lo) * percent / 200))
    samples = [dice.randrange(lo, hi) for _ in range(count)] + dice.choices(primes or (lo,), k=count)
    for n in samples:
        if is_probably_prime(n) != (n in claimed):
            return f"it says that {n} is {'' if n in claimed else 'not '}prime"
    return None


def is_probably_prime(n: int) -> bool:
    """Say whether `n` is prime; certain below 3.3 * 10**24, and wrong for hardly any number beyond."""
    if n < 2 or any(n % p == 0 for p in BASES):
        return n in BASES
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_may_be_prime(n, base, odd, twos) for base in BASES)


def _may_be_prime(n: int, base: int, odd: int, twos: int) -> bool:
    power = pow(base, odd, n)
    if power in (1, n - 1):
        return True
    for _ in range(twos - 1):
        power = power * power % n
        if power == n - 1:
            return True
    return False
