"""Events as text: a line per event, turns left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasklets.trace._events import Event

MAX_ROWS = 500
TURNS = ("run", "yield")  # who had the turn is seen from who did something


def as_text(headline: str, events: Iterable[Event]) -> str:
    rows = [event for event in events if event.kind not in TURNS]
    hidden = len(rows) - MAX_ROWS
    lines = [headline]
    if hidden > 0:
        rows = rows[hidden:]
        lines.append(f"... {hidden} earlier ones")
    width = max((len(event.line.label) for event in rows), default=0)
    return "\n".join(lines + [_row(event, width) for event in rows])


def _row(event: Event, width: int) -> str:
    return f"{event.time * 1e3:12.3f} ms  {event.line.label:{width}}  {event.describe()}"
