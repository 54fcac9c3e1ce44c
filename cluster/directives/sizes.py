"""How large the next chunk of inputs is to be, and how many inputs may be on their way: pure arithmetic.

A chunk is a contiguous range of inputs that one task carries. It should take long against what a task costs, and
short against the whole, because at the end every other worker waits for the last one.

- Where results are seen before the next chunk is cut, the time per input is learned from them (`Pace`).
- Where everything is cut at once, because it is to be stored before anything runs, sizes fall with what is left
  (`guided`): whatever an input costs, there are few chunks, and the last ones are small against the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

CHUNK_SECONDS: Final = 0.1  # long against 1 to 3 ms, which a task costs in a store
LEAST_SECONDS: Final = 0.01  # towards the end
PARTS: Final = (
    64  # of what a slot has to do, the last chunk is one: so much longer than needed it may take, at worst
)
SHARES: Final = 4  # a chunk is at most a fourth of what each slot still has before it
MOST: Final = 10_000  # inputs of one chunk: what is lost with a worker
MOST_BYTES: Final = 4 << 20  # of the inputs of one, and of their results: what is a message
GROWTH: Final = 8  # times what was the largest so far: one quick input does not say that all are
WEIGHT: Final = 0.3  # of the newest chunk in what is known of the pace
LEAST_IN_FLIGHT: Final = 10
CHUNKS_PER_SLOT: Final = 2  # on their way: one is run, one waits at the door


def guided(total: int, slots: int, most: int = MOST) -> Iterator[int]:
    """Cut `total` inputs into chunks of falling sizes, which add up to it. They are some dozens for each slot."""
    left = total
    least = max(1, total // (PARTS * max(1, slots)))
    while left > 0:
        size = min(most, left, max(least, left // (SHARES * max(1, slots))))
        yield size
        left -= size


def even(total: int, size: int) -> Iterator[int]:
    """Cut `total` inputs into chunks of one size; the last one may be shorter."""
    for start in range(0, total, size):
        yield min(size, total - start)


class Pace:
    """How long an input takes, learned from chunks that have ended."""

    def __init__(self) -> None:
        self.seconds_per_input = 0.0
        self.bytes_per_input = 0.0  # of an input, or of its result
        self._largest = 0

    def __repr__(self) -> str:
        return f"<Pace {self.seconds_per_input:.3g} s per input>"

    def learn(self, inputs: int, seconds: float, size_bytes: int = 0) -> None:
        """Take in that so many inputs took so long on one slot, and were so large, or their results."""
        if inputs < 1:
            return
        newest = max(0.0, seconds) / inputs
        known = self._largest > 0
        self.seconds_per_input += (newest - self.seconds_per_input) * (WEIGHT if known else 1.0)
        self._largest = max(self._largest, inputs)
        self.bytes_per_input = max(self.bytes_per_input * (1 - WEIGHT), size_bytes / inputs)

    def size(self, slots: int, left: int | None = None, limit: int | None = None) -> int:
        """How many inputs the next chunk is to have, if so many are left, and so many at most may be on their way."""
        size = MOST if self._largest == 0 else min(MOST, GROWTH * self._largest)
        if self._largest == 0:
            size = 1
        elif self.seconds_per_input > 0.0:
            size = min(size, int(CHUNK_SECONDS / self.seconds_per_input))
        if self.bytes_per_input > 0.0:
            size = min(size, int(MOST_BYTES / self.bytes_per_input))
        if left is not None:
            share = left // (SHARES * max(1, slots))
            if self.seconds_per_input > 0.0:
                share = max(share, int(LEAST_SECONDS / self.seconds_per_input))
            size = min(size, share)
        if limit is not None:
            size = min(size, limit // (CHUNKS_PER_SLOT * max(1, slots)))
        return max(1, size)


def in_flight(limit: int | None, slots: int, size: int) -> int:
    """How many inputs may be taken and not be delivered yet."""
    return limit if limit is not None else max(LEAST_IN_FLIGHT, CHUNKS_PER_SLOT * max(1, slots) * size)
