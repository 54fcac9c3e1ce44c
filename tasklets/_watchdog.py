"""run(n): gives a tasklet n ticks without a switch, then takes it out of the line and goes back to the runner.

    interrupted = tasklets.stackless.run(1000)      # None, or the tasklet that used up its time: insert() lets it go on

How ticks are counted is the business of `_ticks` and `_tracer`.

The interpreter calls us within the tasklet that is to be interrupted, and takes no further events while it does. So
the switch to the runner goes through `sys.call_tracing`, which saves that state and restores it when the tasklet goes
on; otherwise nobody would be watched any more.

What is not interrupted: an atomic tasklet, one in a callback or under a switch_trap, a greenlet that is no tasklet, and
code that our own code called in the middle of something (a __del__, say). The wish is kept, and looked at again at the
next event. Calls into C are not interrupted.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from typing import TYPE_CHECKING

from greenlet import getcurrent as current_greenlet

from tasklets import _ticks, _tracer
from tasklets._frames import PACKAGE, is_of_core, outwards
from tasklets._ticks import EXACT_TICKS, Instructions, Meter, Monitor, Signal, Slice, counting, free_signal
from tasklets._tracer import Tracer
from tasklets._watch import change_watch, gate, watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from tasklets._core import Scheduler, tasklet


def run(scheduler: Scheduler, ticks: int, *, soft: bool = False, total: bool = False) -> tasklet | None:
    """`scheduler.run()` that interrupts a tasklet after `ticks`, and returns it.

    soft   no tasklet is torn away: when the time is over, the next one to run is the runner (returns None)
    total  the ticks are counted from now on, and not from each switch

    A run inside another one that counts does not count.
    """
    if get_ident() in counting:
        scheduler.run()
        return None
    dog = Watchdog(scheduler, ticks, soft, total)
    dog.start()
    try:
        scheduler.run()
    finally:
        dog.stop()
        interrupted, dog.interrupted = (
            dog.interrupted,
            None,
        )  # its own stack, which keeps `dog`, must not keep it
    return interrupted


class Watchdog:
    """One run(n) of one OS thread."""

    __slots__ = ("interrupted", "meter", "over", "runner", "scheduler", "soft", "ticks", "total")

    def __init__(self, scheduler: Scheduler, ticks: int, soft: bool, total: bool) -> None:
        self.scheduler = scheduler
        self.runner = scheduler.current
        self.ticks = ticks
        self.soft = soft
        self.total = total
        self.over = False
        self.interrupted: tasklet | None = None
        self.meter = _choose_meter(self)

    def start(self) -> None:
        with gate:
            counting[get_ident()] = self
            if len(counting) == 1:
                change_watch(switched=(*watch.switched, _switching))
        self.meter.start()

    def stop(self) -> None:
        self.over = True
        with gate:
            del counting[get_ident()]
            self.meter.stop()
            if not counting:
                others = tuple(each for each in watch.switched if each is not _switching)
                change_watch(switched=others)

    def switching(self, after: tasklet) -> None:
        """Before each switch of the thread."""
        if self.over or after is self.runner:
            return
        if not self.total:
            self.meter.restart()
        self.meter.prepare(_frames_of(after))

    def expire(self) -> None:
        """The time is over. Called again, sooner or later, until something has come of it."""
        if self.over:
            return
        if not self._may_interrupt():
            self.meter.put_off()
        elif self.soft:
            self._put_runner_next()
            self.meter.rest()
        else:
            sys.call_tracing(self._interrupt, ())

    def _may_interrupt(self) -> bool:
        scheduler = self.scheduler
        me = scheduler.current
        if me is None or me._atomic or scheduler.trap or not me._alive or me._special:
            return False
        if me in scheduler.runners or me._greenlet is not current_greenlet():
            return False
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code.co_filename in _COUNTING:
            frame = frame.f_back
        return _is_outside(frame)

    def _put_runner_next(self) -> None:
        """So that it runs when the current tasklet blocks, schedules or ends, or when whom that wakes does."""
        scheduler, runner = self.scheduler, self.runner
        me = scheduler.current
        if me is None or runner is None or runner.scheduled:
            return
        after = me._next
        runner._prev = me
        runner._next = after
        me._next = runner
        after._prev = runner
        scheduler.count += 1

    def _interrupt(self) -> None:
        """Pause the current tasklet, and switch to the runner. Returns when somebody lets the tasklet go on."""
        scheduler, runner = self.scheduler, self.runner
        if runner is not None:
            self.interrupted = scheduler.current
            if runner._next is None:
                scheduler.append(runner)
            scheduler.head = runner  # so that it is who goes on
            scheduler._pause()


def _frames_of(one: tasklet) -> Iterator[FrameType]:
    """Looked for only when somebody asks: not every meter does."""
    yield from outwards(one.frame)


def _switching(before: tasklet | None, after: tasklet) -> None:
    dog = counting.get(get_ident())
    if isinstance(dog, Watchdog):
        dog.switching(after)


def _is_outside(frame: FrameType | None) -> bool:
    """False in our own code, and when the scheduler may have called what `frame` belongs to in the middle of something.

    A compiled one has no frames; what it calls unexpectedly is a __del__.
    """
    if frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        return False
    while frame is not None:
        name = frame.f_code.co_name
        if name == "__del__" or (is_of_core(frame) and name not in _HARMLESS):
            return False
        frame = frame.f_back
    return True


_COUNTING = (__file__, _ticks.__file__, _tracer.__file__)
# These call functions of the user while all books are in order.
_HARMLESS = frozenset({"_work", "context_run", "send_sequence"})


def _choose_meter(dog: Watchdog) -> Meter:
    exact = dog.ticks <= EXACT_TICKS
    if Monitor.is_available():
        return Instructions(dog) if exact else Slice(dog)
    number = None if exact else free_signal()
    return Signal(dog, number) if number is not None else Tracer(dog)
