"""The books of the search: which chunks are to do, out, or back, and what may be emitted next.

No tasklet, no channel and no clock in here: time comes in as an argument, so every order of events can be
tried in a test.

    chunk handed out -> result recorded -> answer emitted
         ^      |
         +------+   given back (its worker died) or overdue (its lease ran out): again, as the next attempt

Two promises. Each chunk is recorded once: a result counts only when it comes from the attempt that is out
now. And no more than `window` chunks are between handing out and emission, so a slow chunk or a slow reader
holds the others back instead of filling the memory.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count

from examples.primes.messages import Chunk, Result


@dataclass(frozen=True, slots=True)
class Answer:
    """A recorded chunk: the primes of `[lo, hi)`, and who found them in which attempt."""

    index: int
    lo: int
    hi: int
    primes: tuple[int, ...]
    worker: str
    attempt: int
    seconds: float  # of computing
    at: float = 0.0  # when it was recorded


class Backlog:
    """The state of every chunk between its making and its emission.

    `pieces` are the ranges in order. With `ordered=True` the answers leave in the order of the pieces, else
    in the order in which they came. A chunk that is out for longer than `lease` seconds is overdue; each
    further attempt may take twice as long, so that a chunk that only needs its time does come to an end.
    """

    def __init__(
        self,
        pieces: Iterable[tuple[int, int]],
        *,
        window: int,
        ordered: bool = True,
        lease: float = 60.0,
        algorithm: str = "trial",
    ) -> None:
        if window < 1:
            raise ValueError(f"a window of {window} chunks lets nothing through; give 1 or more")
        self._new = (
            Chunk(index, lo, hi, 1, algorithm) for index, (lo, hi) in zip(count(), pieces, strict=False)
        )
        self._again: list[tuple[int, Chunk]] = []  # a heap by index: chunks that came back without a result
        self._drawn: deque[Chunk] = deque()  # from `_new`, to be handed out for the first time
        self._out: dict[int, tuple[Chunk, float]] = {}  # index -> the attempt that counts, its deadline
        self._kept: dict[int, Answer] = {}  # index -> recorded, waiting for the chunks before it
        self._ready: deque[Answer] = deque()  # to be emitted, in this order
        self.window = window
        self._ordered = ordered
        self._lease = lease
        self._taken = 0  # chunks that were handed out at least once
        self._emitted = 0
        self._in_order = 0  # the index that the ordered answers have reached
        self.has_more_than(0)

    def __repr__(self) -> str:
        waiting = len(self._kept) + len(self._ready)
        state = f"again={len(self._again)} out={len(self._out)} waiting={waiting} emitted={self._emitted}"
        return f"<Backlog {state}>"

    def next_chunk(self) -> Chunk | None:
        """Return what is to be handed out next, or None: nothing is left, or the window is full."""
        if self._again:
            return self._again[0][1]
        if self._drawn and self._taken - self._emitted < self.window:
            return self._drawn[0]
        return None

    def has_more_than(self, count: int) -> bool:
        """Say whether more than `count` chunks were not handed out yet."""
        while len(self._drawn) <= count and (chunk := next(self._new, None)) is not None:
            self._drawn.append(chunk)
        return len(self._drawn) > count

    def hand_out(self, chunk: Chunk, now: float) -> None:
        """Note that `chunk`, the one `next_chunk` named, went to a worker."""
        if self._again and self._again[0][1] == chunk:
            heappop(self._again)
        elif self._drawn and self._drawn[0] == chunk:
            self._drawn.popleft()
            self._taken += 1
            self.has_more_than(0)
        else:
            raise ValueError(
                f"{chunk} is not the next chunk, {self.next_chunk()} is; hand out what next_chunk() names"
            )
        self._out[chunk.index] = (chunk, self._deadline(chunk, now))

    def renew(self, chunk: Chunk, now: float) -> None:
        """Begin the lease of `chunk` anew: its worker has shown that it lives."""
        if self._counts(chunk):
            self._out[chunk.index] = (chunk, self._deadline(chunk, now))

    def give_back(self, chunk: Chunk) -> bool:
        """Put `chunk` to the front, as its next attempt. False when this attempt does not count any more."""
        if not self._counts(chunk):
            return False
        del self._out[chunk.index]
        heappush(self._again, (chunk.index, replace(chunk, attempt=chunk.attempt + 1)))
        return True

    def take_overdue(self, now: float) -> list[Chunk]:
        """Give back every chunk whose lease ran out, and return them. Their late results will not count."""
        late = [chunk for chunk, deadline in self._out.values() if deadline <= now]
        for chunk in late:
            self.give_back(chunk)
        return late

    def next_deadline(self) -> float | None:
        """Return when the next lease runs out, or None when no chunk is out."""
        return min((deadline for _, deadline in self._out.values()), default=None)

    def awaited(self, result: Result) -> Chunk | None:
        """Return the chunk that this is the result of, or None when its attempt does not count any more."""
        return self._out[result.index][0] if self._counts(result) else None

    def record(self, result: Result, worker: str, now: float = 0.0) -> bool:
        """Take in a result. False when its attempt does not count any more: then it is dropped."""
        if not self._counts(result):
            return False
        chunk, _ = self._out.pop(result.index)
        answer = Answer(
            chunk.index, chunk.lo, chunk.hi, result.primes, worker, result.attempt, result.seconds, now
        )
        if self._ordered:
            self._kept[answer.index] = answer
            while self._in_order in self._kept:
                self._ready.append(self._kept.pop(self._in_order))
                self._in_order += 1
        else:
            self._ready.append(answer)
        return True

    def next_answer(self) -> Answer | None:
        """Return what is to be emitted next, or None: the chunk that has to come first is not back yet."""
        return self._ready[0] if self._ready else None

    def emit(self) -> None:
        """Note that the answer `next_answer` named has left."""
        self._ready.popleft()
        self._emitted += 1

    def complete(self) -> bool:
        """Say whether every chunk was recorded, so that no worker is needed any more."""
        return not self._drawn and not self._again and not self._out

    def finished(self) -> bool:
        """Say whether every chunk was recorded and emitted."""
        return not self._drawn and self._taken == self._emitted

    def _counts(self, attempt: Chunk | Result) -> bool:
        out = self._out.get(attempt.index)
        return out is not None and out[0].attempt == attempt.attempt

    def _deadline(self, chunk: Chunk, now: float) -> float:
        return now + self._lease * 2.0 ** (chunk.attempt - 1)
