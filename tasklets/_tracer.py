"""Counts instructions by a trace function: on CPython 3.11, and where no id for sys.monitoring is free."""

from __future__ import annotations

import sys
from _thread import get_ident
from typing import TYPE_CHECKING, Any

from tasklets._frames import PACKAGE
from tasklets._ticks import PATIENCE, Counted, Meter, counting

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

_settrace, _gettrace = sys.settrace, sys.gettrace  # `tasklets.stackless.install` replaces them in `sys`
_setprofile, _getprofile = sys.setprofile, sys.getprofile


def get_trace() -> Any:
    """The trace function of the running tasklet, without ours."""
    found = _gettrace()
    return found.below if isinstance(found, Tracer) else found


def set_trace(function: Any) -> None:
    """Set the trace function of the running tasklet, and keep ours when there is one."""
    counted = counting.get(get_ident())
    if counted is not None and not counted.over and isinstance(counted.meter, Tracer):
        counted.meter.below = function
        function = counted.meter
    _settrace(function)


class Tracer(Meter):
    """Counts each instruction, by a trace function.

    The trace function that the thread has already (a debugger's) hears what it would hear without us.
    """

    def __init__(self, dog: Counted) -> None:
        super().__init__(dog)
        self.used = 0
        self.below: Any = None  # the trace function of the running tasklet, if it has one of its own

    def start(self) -> None:
        self.below = _gettrace()
        _settrace(self)

    def stop(self) -> None:
        _settrace(self.below)

    def restart(self) -> None:
        self.used = 0

    def put_off(self) -> None:
        self.used = max(0, self.dog.ticks - PATIENCE)

    def rest(self) -> None:
        self.used = -sys.maxsize

    def prepare(self, frames: Iterable[FrameType]) -> None:
        if _gettrace() is not self:  # an exception that was thrown into a tasklet has ended it
            _settrace(self)
        for frame in frames:
            if not frame.f_code.co_filename.startswith(PACKAGE):
                self._follow(frame, frame.f_trace)

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        """The trace function of the thread: a function has been entered."""
        local = self.below(frame, event, arg) if self.below is not None else None
        if frame.f_code.co_filename.startswith(PACKAGE):
            return local
        return self._follow(frame, local)

    def _follow(self, frame: FrameType, local: Any) -> Any:
        if isinstance(local, _Steps):
            if local.meter is self:
                return local
            local = local.local
        frame.f_trace = steps = _Steps(self, local, frame.f_trace_opcodes)
        frame.f_trace_opcodes = True
        return steps

    def step(self) -> None:
        self.used += 1
        if self.used > self.dog.ticks:
            try:
                self.dog.expire()
            except BaseException:
                # What leaves a trace function ends it. Start it again when a function is entered or left; by now
                # it may be that of another run().
                counted = counting.get(get_ident())
                if counted is not None and isinstance(counted.meter, Tracer) and _getprofile() is None:
                    _setprofile(counted.meter._start_again)
                raise

    def _start_again(self, frame: FrameType, event: str, arg: Any) -> None:
        _setprofile(None)
        if not self.dog.over and _gettrace() is None:
            _settrace(self)
            outer: FrameType | None = frame
            while outer is not None:
                if not outer.f_code.co_filename.startswith(PACKAGE):
                    self._follow(outer, outer.f_trace)
                outer = outer.f_back


class _Steps:
    """The trace function of one frame: counts, and tells the one that was there before."""

    __slots__ = ("local", "meter", "opcodes")

    def __init__(self, meter: Tracer, local: Any, opcodes: bool) -> None:
        self.meter = meter
        self.local = local
        self.opcodes = opcodes

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if self.local is not None and (event != "opcode" or self.opcodes):
            self.local = self.local(frame, event, arg) or self.local
        meter = self.meter
        if meter.dog.over:
            frame.f_trace_opcodes = self.opcodes
            return self.local
        if event == "opcode":
            meter.step()
        return frame.f_trace  # another watchdog may have put its own here, while this call stood in a switch
