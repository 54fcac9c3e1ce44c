"""How large the next chunk is to be: guided by what chunks have taken so far, and by how much is left.

A chunk should take CHUNK_SECONDS: long against the round trip that fetches the next one, short against the whole,
because at the end every other worker waits for the last chunk. How many numbers that are, nobody knows before:
it depends on the algorithm, the machine, and on the numbers. So the first chunks are small, and each result says
more. Towards the end the chunks get smaller: each takes a part of what is left, so that all end together (PRI-05).
"""

from __future__ import annotations

from collections.abc import Iterator

from examples.primes.arithmetic import partition, suitable_chunk

CHUNK_SECONDS = 0.1
LEAST_SECONDS = 0.01  # at the end; below that the round trip would count
SHARES = 3  # a chunk is at most a third of what each worker still has before it
FIRST_PART = 0.2  # of a suitable chunk: how large the first ones are
WEIGHT = 0.3  # of the newest result


class Guide:
    """Chooses sizes of chunks. `seconds_per_number` is what it has learned so far."""

    def __init__(self, lo: int, hi: int, *, workers: int = 1) -> None:
        self.workers = max(1, workers)
        self._lo = lo
        self._hi = hi
        self._learned = False
        # A guess, for an algorithm that divides; what sieves is a hundred times as fast, and soon found to be.
        self.seconds_per_number = CHUNK_SECONDS / suitable_chunk(lo, hi) / FIRST_PART

    def __repr__(self) -> str:
        return f"<Guide {self.seconds_per_number:.3g} s per number, {self.workers} workers>"

    def learn(self, numbers: int, seconds: float) -> None:
        """Take in that `numbers` have taken `seconds` to search."""
        newest = max(seconds, 1e-9) / numbers
        if self._learned:
            self.seconds_per_number += WEIGHT * (newest - self.seconds_per_number)
        else:
            self.seconds_per_number, self._learned = newest, True

    def size(self, left: int) -> int:
        """Return how many numbers the next chunk is to have when `left` were not handed out yet."""
        usual = CHUNK_SECONDS / self.seconds_per_number
        least = LEAST_SECONDS / self.seconds_per_number
        return max(1, int(min(usual, max(least, left / (SHARES * self.workers)))))

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Cut the range, each piece as it is asked for."""
        start = self._lo
        while start < self._hi:
            stop = min(start + self.size(self._hi - start), self._hi)
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
