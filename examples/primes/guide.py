"""How large the next chunk is to be: guided by what chunks have taken so far, and by how much is left.

A chunk should take CHUNK_SECONDS: long against the round trip that fetches the next one, short against the whole,
because at the end every other worker waits for the last chunk. How many numbers that are, nobody knows before:
it depends on the algorithm, the machine, and on the numbers. So the first chunks are small, and each result says
more. Towards the end the chunks get smaller: each takes a part of what is left, so that all end together (PRI-05).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from examples.primes.algorithms import SECONDS_PER_UNIT
from examples.primes.arithmetic import divisions_near, partition

CHUNK_SECONDS = 0.1
LEAST_SECONDS = 0.01  # at the end; below that the round trip would count
SHARES = 3  # a chunk is at most a third of what each worker still has before it
WEIGHT = 0.3  # of the newest result


class Guide:
    """Chooses sizes of chunks. `cost` says what a number near n costs, in units whose length is learned."""

    def __init__(
        self, lo: int, hi: int, *, workers: int = 1, cost: Callable[[int], float] = divisions_near
    ) -> None:
        self.workers = max(1, workers)
        self.seconds_per_unit = SECONDS_PER_UNIT
        self._lo = lo
        self._hi = hi
        self._cost = cost
        self._learned = False

    def __repr__(self) -> str:
        return f"<Guide {self.seconds_per_unit:.3g} s per unit, {self.workers} workers>"

    def learn(self, lo: int, hi: int, seconds: float) -> None:
        """Take in that `[lo, hi)` has taken `seconds` to search."""
        newest = max(seconds, 1e-9) / (self._cost((lo + hi) // 2) * (hi - lo))
        if self._learned:
            self.seconds_per_unit += WEIGHT * (newest - self.seconds_per_unit)
        else:
            self.seconds_per_unit, self._learned = newest, True

    def size(self, start: int) -> int:
        """Return how many numbers the chunk that begins at `start` is to have."""
        seconds_per_number = self._cost(start) * self.seconds_per_unit
        usual, least = CHUNK_SECONDS / seconds_per_number, LEAST_SECONDS / seconds_per_number
        share = (self._hi - start) / (SHARES * self.workers)
        return max(1, int(min(usual, max(least, share))))

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Cut the range, each piece as it is asked for."""
        start = self._lo
        while start < self._hi:
            stop = min(start + self.size(start), self._hi)
            yield start, stop
            start = stop


class FixedSize(Guide):
    """Cuts pieces of a size that was asked for, and learns nothing from how long they take."""

    def __init__(self, lo: int, hi: int, size: int, *, workers: int = 1) -> None:
        self._pieces = partition(lo, hi, size)  # raises ValueError
        super().__init__(lo, hi, workers=workers)

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Cut the range into equal pieces."""
        return self._pieces
