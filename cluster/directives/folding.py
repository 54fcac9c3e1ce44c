"""A parallel fold as a tree: which parts are to be combined next. Pure: no clock, no store, no user code.

    folding = Folding(fan_in=2)
    folding.add(0, ("a",)); folding.add(1, ("b",))      -> [Group(level=1, number=0, values=("a", "b"))]
    folding.combined(1, 0, ("ab",)); folding.close(2)
    folding.result                                      -> ("ab",)

Leaves are numbered 0, 1, 2 ... in the order of the inputs they stand for; each is a part: `(value,)`, or `()` when
none of its inputs survived (P3.2: so gaps do not matter). The tree's shape depends on the number of leaves only and
not on who arrives when: only neighbours are combined, in their order, so an associative operation need not be
commutative; the depth is logarithmic (P3.3); and nothing waits for a slow leaf but its own ancestors (P-14). It may be
closed, which says how many leaves there are, before or after they have come (P3.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

Part: TypeAlias = tuple[Any, ...]  # (value,), or () for nothing

FAN_IN: Final = 8


class Group(NamedTuple):
    """Neighbouring values that are to be combined; what comes of it is `combined(level, number, part)`."""

    level: int
    number: int
    values: tuple[Any, ...]


class Folding:
    """See above."""

    def __init__(self, fan_in: int = FAN_IN) -> None:
        if fan_in < 2:
            raise ValueError(f"at least 2 values are combined at a time, not {fan_in}")
        self.fan_in = fan_in
        self.leaves: int | None = None  # not known yet
        self.result: Part | None = None  # () when nothing survived
        self._waiting: dict[tuple[int, int], Part] = {}  # (level, number) -> what waits for its neighbours

    def __repr__(self) -> str:
        total = "?" if self.leaves is None else self.leaves
        return f"<Folding {total} leaves, {len(self._waiting)} parts wait>"

    def add(self, number: int, part: Part) -> list[Group]:
        """A leaf has come; return what can be combined now."""
        return self.combined(0, number, part)

    def combined(self, level: int, number: int, part: Part) -> list[Group]:
        """What a group was combined to has come; return what can be combined now."""
        while True:
            self._waiting[level, number] = tuple(part)
            if self._is_top(level):
                self.result = self._waiting.pop((level, number))
                return []
            siblings = self._siblings(level, number // self.fan_in)
            if siblings is None or any((level, one) not in self._waiting for one in siblings):
                return []
            values = tuple(value for one in siblings for value in self._waiting.pop((level, one)))
            level, number = level + 1, number // self.fan_in
            if len(values) > 1:
                return [Group(level, number, values)]
            part = values  # one is what it is, and nothing stays nothing

    def close(self, leaves: int) -> list[Group]:
        """There are so many leaves; return what can be combined now."""
        self.leaves = leaves
        if leaves == 0:
            self.result = ()
            return []
        groups: list[Group] = []
        for level, number in sorted(self._waiting):
            part = self._waiting.get((level, number))
            if part is not None:
                groups += self.combined(level, number, part)
        return groups

    def _width(self, level: int) -> int | None:
        if self.leaves is None:
            return None
        width = self.leaves
        for _ in range(level):
            width = -(-width // self.fan_in)
        return width

    def _is_top(self, level: int) -> bool:
        return self._width(level) == 1

    def _siblings(self, level: int, parent: int) -> range | None:
        """The numbers of all parts that are combined to one of the next level."""
        first = parent * self.fan_in
        width = self._width(level)
        last = first + self.fan_in
        return range(first, last if width is None else min(last, width))

    # -- to be kept between the turns of a job

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        waiting = [(level, number, part) for (level, number), part in self._waiting.items()]
        return {"fan_in": self.fan_in, "leaves": self.leaves, "result": self.result, "waiting": waiting}

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Folding:
        """The folding that was dumped."""
        made = cls(state["fan_in"])
        made.leaves = state["leaves"]
        result = state["result"]
        made.result = None if result is None else tuple(result)
        waiting: Iterable[tuple[int, int, Part]] = state["waiting"]
        made._waiting = {(level, number): tuple(part) for level, number, part in waiting}
        return made
