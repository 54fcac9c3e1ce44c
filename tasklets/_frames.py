"""The Python frames of a tasklet, without those of this package at the inner end."""

from __future__ import annotations

import os
import sys
from _thread import get_ident
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from tasklets._core import tasklet

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep

# Frames of these are there or not, depending on whether the core is compiled: nobody should see them.
_CORE = tuple(
    PACKAGE + name
    for name in (
        "_core.py",
        "_watched.py",
        "_watchdog.py",
        "_ticks.py",
        "_tracer.py",
        "_frames.py",
        "_tracing.py",
    )
)


def is_of_core(frame: FrameType) -> bool:
    """True for a frame of the scheduler itself."""
    return frame.f_code.co_filename.startswith(_CORE)


def innermost(one: tasklet) -> FrameType | None:
    """The innermost frame outside of the scheduler; None when the tasklet did not start or is dead."""
    frame: FrameType | None
    if one.is_current:
        frame = sys._getframe() if one.thread_id == get_ident() else sys._current_frames().get(one.thread_id)
    else:
        suspended = one._wake[0] if one._greenlet is None and one._wake is not None else one._greenlet
        frame = suspended.gr_frame if suspended is not None else None
    while frame is not None and is_of_core(frame):
        frame = frame.f_back
    return frame


def frames_of(one: tasklet) -> Iterator[FrameType]:
    """From the innermost to the outermost, without those of the scheduler."""
    frame = innermost(one)
    while frame is not None:
        if not is_of_core(frame):
            yield frame
        frame = frame.f_back
