"""Who waits on what: the report that a deadlock error carries, and that a program can ask for at any time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tasklets._core import all_tasklets, get_scheduler

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from tasklets._core import tasklet

MAX_LINES = 20  # of a report; a thousand blocked tasklets are mostly the same story

# How a file is named in reports; tasklets.jupyter names cells.
label_file: Callable[[str], str] = str

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def waiting() -> list[tasklet]:
    """Every tasklet of this OS thread that waits now.

    Searches the collector's lists, so that running tasklets pay nothing for it.
    """
    mine = get_scheduler()
    return [one for one in all_tasklets() if one._scheduler is mine and one.blocked]


def where(one: tasklet) -> str:
    """File and line at which a suspended tasklet stands, outside this package; empty when unknown."""
    frame: FrameType | None = one.frame
    while frame is not None and os.path.abspath(frame.f_code.co_filename).startswith(_HERE):
        frame = frame.f_back
    return (
        f"{label_file(frame.f_code.co_filename)}:{frame.f_lineno} in {frame.f_code.co_name}"
        if frame is not None
        else ""
    )


def report(headline: str, victim: tasklet | None = None) -> str:
    """A text of who waits on what and where, under a headline.

    `victim` is the tasklet that is about to hear it.
    """
    # Main last, however the collector's lists are sorted.
    others = sorted((one for one in waiting() if one is not victim), key=lambda one: one.is_main)
    lines = [headline]
    lines += [f"  {one.name or hex(id(one))} waits: {one.waits_for}{_at(one)}" for one in others[:MAX_LINES]]
    if len(others) > MAX_LINES:
        lines.append(f"  ... and {len(others) - MAX_LINES} more")
    return "\n".join(lines)


def _at(one: tasklet) -> str:
    place = where(one)
    return f", at {place}" if place else ""
