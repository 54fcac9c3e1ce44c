"""Keep the events of a recording, within bounds of memory, and show them."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from time import perf_counter, time
from typing import TYPE_CHECKING

from tasklets.trace._events import Event

if TYPE_CHECKING:
    from tasklets.trace._document import Document
    from tasklets.trace._events import Crossing, Kind, Line, Message

MAX_EVENTS = 20_000  # 3 MB or so


class Recording:
    """What was recorded: `events` in their order. Shows itself as a diagram in notebooks, as a table by print()."""

    def __init__(self, limit: int = MAX_EVENTS) -> None:
        self.node = f"pid {os.getpid()}"  # what a merged picture calls this process
        self._events: deque[Event] = deque(maxlen=limit)
        self._crossings: deque[Crossing] = deque(maxlen=limit)
        self._total = 0
        self._wall = time()  # of the beginning, by two clocks
        self._began = perf_counter()

    @property
    def events(self) -> tuple[Event, ...]:
        """The events that were kept, oldest first."""
        return tuple(self._events)

    @property
    def dropped(self) -> int:
        """How many older events there was no room for."""
        return self._total - len(self._events)

    def __len__(self) -> int:
        return len(self._events)

    def __repr__(self) -> str:
        names = {event.line.number for event in self._events}
        older = f", {self.dropped} older ones dropped" if self.dropped else ""
        return f"<Recording events={len(self)} tasklets={len(names)}{older}>"

    def __str__(self) -> str:
        from tasklets.trace._table import as_text

        return as_text(repr(self), self.events)

    def svg(self, *, max_events: int = 800) -> str:
        """The space-time diagram: a line per tasklet, time running down, an arrow per message.

        Of more than `max_events` events the last are drawn.
        """
        return self._draw(max_events, standalone=True)

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_html_(self) -> str:
        return f'<div style="overflow:auto;max-height:640px">{self._draw(800, standalone=False)}</div>'

    def _draw(self, max_events: int, *, standalone: bool) -> str:
        from tasklets.trace._diagram import draw

        shown = self.events[-max_events:]
        return draw(shown, self._total - len(shown), standalone=standalone)

    def save(self, path: str | Path) -> None:
        """Write the diagram (.svg), a page with it (.html), or the data for Perfetto (.json).

        A .json can also be merged with those of other processes: `trace.merge`, `tasklets trace merge`.
        """
        from tasklets.trace import _export

        target = Path(path)
        if target.suffix == ".svg":
            text = self.svg()
        elif target.suffix == ".html":
            text = _export.page(repr(self), self._draw(2000, standalone=False), str(self))
        elif target.suffix == ".json":
            text = _export.chrome(self._document())
        else:
            raise ValueError(f"save() writes .svg, .html and .json, not {target.name!r}")
        target.write_text(text, encoding="utf-8")

    def _document(self) -> Document:
        """What is saved of it for others to merge."""
        from tasklets.trace._document import Document, this_clock

        return Document(
            self.node,
            os.getpid(),
            this_clock(),
            self._wall,
            self._began,
            self.dropped,
            self.events,
            tuple(self._crossings),
        )

    def now(self) -> float:
        """Seconds since the recording began."""
        return perf_counter() - self._began

    def _add(
        self,
        kind: Kind,
        line: Line,
        text: str = "",
        message: Message | None = None,
        at: float | None = None,
    ) -> None:
        self._total += 1
        self._events.append(Event(self.now() if at is None else at, kind, line, text, message))
