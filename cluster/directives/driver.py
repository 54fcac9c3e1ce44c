"""Runs a plan with a crew, workers that keep nothing: cuts chunks, hands them out, does again what was lost, folds.

The crew does one thing: it is given chunks, which are bytes, and says what came of them. It may be the nodes of a
place, or whatever runs functions elsewhere: see `crews`. Everything else is decided here, in the tasklet that asks for
results, so nothing goes on unless somebody wants the next one (P3.8).
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from cluster import codecs
from cluster.directives import chunks
from cluster.directives.chunks import Program, Row
from cluster.directives.folding import Folding, Group
from cluster.directives.plans import Options, Plan
from cluster.directives.results import Results, outputs_of
from cluster.directives.sizes import Pace, in_flight
from cluster.errors import JobTimeout, WorkerLost, make_operation_error
from tasklets import freeze

MAX_LOSSES = 3  # workers that one chunk may take with it


@dataclass(frozen=True, slots=True)
class Done:
    """A chunk has ended."""

    number: int
    rows: tuple[Any, ...] = ()
    part: tuple[bytes, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """A chunk has failed for good."""

    number: int
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Lost:
    """These chunks will not end: whoever had them is gone."""

    numbers: tuple[int, ...]
    reason: str


class Crew(Protocol):
    """Workers that keep nothing."""

    @property
    def size(self) -> int:
        """How many chunks they run at a time."""

    @property
    def room(self) -> int:
        """How many more chunks they take now."""

    def give(self, number: int, chunk: bytes) -> None:
        """Let one of them do a chunk."""

    def wait(self, timeout: float | None) -> Done | Failed | Lost | None:
        """Wait until something has happened; None when nothing has within the time. Blocks."""

    def close(self) -> None:
        """Stop what they do. Nothing more happens then."""


@dataclass(eq=False, slots=True)
class _Work:
    """A chunk of inputs, or a group of values to be combined."""

    chunk: bytes
    first: int = 0  # index of its first input
    inputs: int = 0
    leaf: int = 0
    group: Group | None = None
    losses: int = 0


@dataclass(eq=False)
class Drive:
    """One run of a plan with a crew."""

    plan: Plan
    crew: Crew
    options: Options
    _pace: Pace = field(default_factory=Pace)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _out: dict[int, _Work] = field(default_factory=dict)  # given and not ended
    _again: deque[_Work] = field(default_factory=deque)  # lost, or to be combined
    _taken: int = 0  # inputs taken from the source
    _delivered: int = 0  # inputs whose results were handed on, or folded
    _leaves: int = 0
    _exhausted: bool = False

    def __post_init__(self) -> None:
        self._program = self.plan.program(self.options)
        self.many = self._program.many
        self._inputs = iter(self.plan.inputs)
        self._deadline = None if self.options.timeout is None else time.monotonic() + self.options.timeout
        self._folding = Folding(self.plan.fan_in)
        self._least = 1 if self.plan.steps else self.plan.fan_in  # to fold one value is no work

    # -- what an evaluation offers

    def results(self) -> Results:
        """The results of a map."""
        return Results(self._pairs(), self.crew.close, on_error=self._program.on_error)

    def value(self) -> Any:
        """The value of a fold. Blocks."""
        try:
            for work, done in self._ends():
                part = tuple(codecs.decode(one) for one in done.part)
                if work.group is None:
                    self._delivered += work.inputs
                    self._combine(self._folding.add(work.leaf, part))
                else:
                    self._combine(self._folding.combined(work.group.level, work.group.number, part))
            result = self._folding.result
            assert result is not None, "the inputs have ended, and every chunk of them"
            return result[0] if result else self.plan.empty
        finally:
            self.crew.close()

    def _pairs(self) -> Generator[tuple[int, Any], None, None]:
        for work, done in self._ends():
            for row in itertools.starmap(Row, done.rows):
                yield from self._pairs_of(work.first + row.offset, row)

    def _pairs_of(self, first: int, row: Row) -> Iterator[tuple[int, Any]]:
        found = outputs_of(
            first, row.size, row.value, failed=row.failed, many=self.many, on_error=self._program.on_error,
            default=self.options.default,
        )  # fmt: skip
        for index, outputs in found:
            self._delivered += 1  # before, since we are asked for the next when that was taken
            for one in outputs:
                yield index, one

    # -- the loop

    def _ends(self) -> Iterator[tuple[_Work, Done]]:
        """Hand out, wait, hand out ... and yield what has ended."""
        while True:
            self._hand_out()
            if not self._out:
                return
            self._check_deadline()
            event = self.crew.wait(self._seconds_left())
            match event:
                case Done():
                    work = self._out.pop(event.number)
                    if work.group is None:
                        made = sum(len(value) for _, _, value, _ in event.rows)
                        self._pace.learn(work.inputs, event.seconds, max(made, len(work.chunk)))
                    self._hand_out()  # before the results are looked at, which may take long
                    yield work, event
                case Failed():
                    raise make_operation_error(event.details)
                case Lost():
                    self._take_back(event)

    def _hand_out(self) -> None:
        while self.crew.room > 0:
            work = self._again.popleft() if self._again else self._next_chunk()
            if work is None:
                return
            number = next(self._numbers)
            self._out[number] = work
            self.crew.give(number, work.chunk)

    def _next_chunk(self) -> _Work | None:
        """Cut the next chunk off the inputs, if there are more and they may be taken now."""
        if self._exhausted:
            return None
        total, limit = self.plan.total, self.options.max_in_flight
        left = None if total is None else total - self._taken
        size = self.plan.chunk or max(self._least, self._pace.size(self.crew.size, left, limit))
        room = in_flight(limit, self.crew.size, size) - (self._taken - self._delivered)
        if room <= 0 or (limit is None and room < size and self._out):
            return None
        taken = tuple(itertools.islice(self._inputs, min(size, room)))
        if len(taken) < min(size, room):
            self._exhausted = True
        if not taken:
            self._close_fold()
            return None
        work = _Work(chunks.pack(self._program, taken), self._taken, len(taken), self._leaves)
        self._taken += len(taken)
        self._leaves += 1
        if self._exhausted:
            self._close_fold()
        if len(taken) > 1 or self.plan.steps:
            return work
        self._delivered += 1
        self._combine(self._folding.add(work.leaf, tuple(freeze(one) for one in taken)))  # P-13: no task
        return self._again.popleft() if self._again else None

    def _close_fold(self) -> None:
        if self.plan.fold is not None:
            self._combine(self._folding.close(self._leaves))

    def _combine(self, groups: list[Group]) -> None:
        program = Program(fold=self.plan.fold)
        self._again.extend(_Work(chunks.pack(program, group.values), group=group) for group in groups)

    def _take_back(self, lost: Lost) -> None:
        for number in lost.numbers:
            work = self._out.pop(number)
            work.losses += 1
            if work.losses >= MAX_LOSSES:
                raise make_operation_error(
                    {
                        "kind": WorkerLost.__name__, "operation": self._program.op, "attempts": work.losses,
                        "message": f"{work.losses} workers died that had inputs {work.first} to "
                        f"{work.first + work.inputs - 1}; the last: {lost.reason}",
                    }
                )  # fmt: skip
            self._again.append(work)
        if self.crew.size == 0:
            raise WorkerLost(f"no worker is left: {lost.reason}")

    def _seconds_left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _check_deadline(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise JobTimeout(
                f"not done within {self.options.timeout:g} s: of {self._taken} inputs that were taken, "
                f"{self._delivered} have results; what runs was stopped"
            )
