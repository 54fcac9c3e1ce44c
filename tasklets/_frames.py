"""Python frames, without those of this package at the inner end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep

# Frames of these are there or not, depending on whether the core is compiled: nobody should see them.
_CORE = tuple(
    PACKAGE + name
    for name in (
        "_core.py",
        "_watch.py",
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


def outside_core(frame: FrameType | None) -> FrameType | None:
    """This frame, or the first further out that is none of the scheduler."""
    while frame is not None and is_of_core(frame):
        frame = frame.f_back
    return frame


def outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """From this frame to the outermost, without those of the scheduler."""
    while (frame := outside_core(frame)) is not None:
        yield frame
        frame = frame.f_back
