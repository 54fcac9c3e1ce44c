"""How the ticks of a `run(n)` are counted, see `_watchdog`. A tick is a bytecode of code outside this package.

                 n <= EXACT_TICKS                      more
CPython >= 3.12  each instruction (sys.monitoring)     CPU time of the thread, TICKS_PER_SECOND; events are asked for
                                                       only when it is used up
CPython 3.11     each instruction (sys.settrace)       main thread: the same time, ended by a signal handler;
                                                       others: each instruction (they run 40 times slower)


The interpreter asks for events on the frames of running stacks only. Those of a tasklet that stands in a switch are
prepared one by one before it goes on: `Meter.prepare`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from _thread import get_ident, interrupt_main, start_new_thread
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from tasklets._frames import PACKAGE
from tasklets._watch import gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import CodeType, FrameType

_monitoring: Any = getattr(sys, "monitoring", None)  # CPython 3.12 and later

EXACT_TICKS = 100_000  # counting that many takes about 20 ms
TICKS_PER_SECOND = 20_000_000  # of a thread that computes: about what counting would give
RETRY = 0.002  # seconds after which the timer looks again after a slice that is over
PATIENCE = 20  # ticks until a tasklet that could not be interrupted is looked at again
LOOK_AGAIN = 0.05  # seconds after which the timer looks for slices that began meanwhile, at the latest


class Counted(Protocol):
    """What a meter knows of its watchdog."""

    ticks: int  # to be counted
    over: bool
    meter: Meter

    def expire(self) -> None:
        """They have been counted. Called within the tasklet, again and again until it is interrupted."""


counting: dict[int, Counted] = {}  # thread id -> what is counted there; changed under `gate`


class Meter:
    """How ticks are counted for one watchdog."""

    def __init__(self, dog: Counted) -> None:
        self.dog = dog

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def restart(self) -> None:
        """Count from 0 again."""

    def put_off(self) -> None:
        """The tasklet cannot be interrupted now. Ask again soon, but not at each event: it may take long."""

    def rest(self) -> None:
        """There is nothing left to count."""

    def prepare(self, frames: Iterable[FrameType]) -> None:
        """A stack with these frames, which may stand in a switch, is about to go on."""


class Monitor(Meter):
    """Events by sys.monitoring. They are asked for per process, and the callbacks look for the thread's watchdog."""

    tool: int | None = None

    def __init__(self, dog: Counted) -> None:
        super().__init__(dog)
        self.events = 0
        self.prepared: set[CodeType] = set()  # has the events by itself, not only by those of the process

    def want(self, events: int) -> None:
        """Ask for events, 0 for none any more."""
        self.events = events
        with gate:
            wanted = 0
            for dog in list(counting.values()):
                if isinstance(dog.meter, Monitor):
                    wanted |= dog.meter.events
            _monitoring.set_events(Monitor.tool, wanted)
        if not events:
            for code in self.prepared:
                _monitoring.set_local_events(Monitor.tool, code, 0)
            self.prepared.clear()

    def stop(self) -> None:
        self.want(0)

    def prepare(self, frames: Iterable[FrameType]) -> None:
        if not self.events:
            return
        for frame in frames:
            code = frame.f_code
            if code not in self.prepared and not code.co_filename.startswith(PACKAGE):
                self.prepared.add(code)
                _monitoring.set_local_events(Monitor.tool, code, self.events)

    @classmethod
    def is_available(cls) -> bool:
        """Take an id that nobody uses; it is kept for good."""
        if cls.tool is None and _monitoring is not None:
            for each in (4, 3):  # the others have a meaning
                if _monitoring.get_tool(each) is None:
                    _monitoring.use_tool_id(each, "tasklets")
                    cls.tool = each
                    break
            else:
                return False
            events = _monitoring.events
            _monitoring.register_callback(cls.tool, events.INSTRUCTION, _on_instruction)
            for event in (events.JUMP, events.PY_START, events.PY_RESUME, events.LINE):
                _monitoring.register_callback(cls.tool, event, _on_step)
        return cls.tool is not None


class Instructions(Monitor):
    """Counts each instruction."""

    def __init__(self, dog: Counted) -> None:
        super().__init__(dog)
        self.used = 0

    def start(self) -> None:
        self.want(_monitoring.events.INSTRUCTION)

    def restart(self) -> None:
        self.used = 0

    def put_off(self) -> None:
        self.used = max(0, self.dog.ticks - PATIENCE)

    def rest(self) -> None:
        self.want(0)


def _on_instruction(code: CodeType, offset: int) -> Any:
    if code.co_filename.startswith(PACKAGE):
        return _monitoring.DISABLE
    dog = counting.get(get_ident())
    if dog is not None:
        meter = dog.meter
        if isinstance(meter, Instructions):  # else it is another thread that counts them
            meter.used += 1
            if meter.used > dog.ticks:  # not >=: with n = 1 nothing would ever get done
                dog.expire()
    return None


class Slice(Monitor):
    """Measures time, and asks for events when the time is over."""

    def __init__(self, dog: Counted) -> None:
        super().__init__(dog)
        self.clock = _clock_of_this_thread()
        self.began = 0.0
        self.seconds = dog.ticks / TICKS_PER_SECOND

    def start(self) -> None:
        self.began = self.clock()
        timer.start()

    def restart(self) -> None:
        self.began = self.clock()
        self.put_off()

    def put_off(self) -> None:
        if self.events:
            self.want(0)  # the timer will ask for them again

    def rest(self) -> None:
        self.seconds = inf
        self.put_off()

    def look(self) -> float:
        """From the timer: ask for events if the time is over. Returns after how many seconds to look again."""
        left = self.seconds_left()
        if left <= 0 and not self.events:
            events = _monitoring.events
            self.want(events.JUMP | events.PY_START | events.PY_RESUME | events.LINE)
        return max(left, RETRY)

    def seconds_left(self) -> float:
        return self.seconds - (self.clock() - self.began)


def _on_step(code: CodeType, *where: object) -> Any:
    if code.co_filename.startswith(PACKAGE):
        return _monitoring.DISABLE
    dog = counting.get(get_ident())
    if dog is not None and isinstance(dog.meter, Slice) and dog.meter.events:
        dog.expire()
    return None


def _clock_of_this_thread() -> Callable[[], float]:
    """Its CPU time, readable from other threads, where the system has that: who waits for a core uses up nothing."""
    try:
        clock = time.pthread_getcpuclockid(get_ident())
    except (AttributeError, OSError):
        return time.monotonic
    return lambda: time.clock_gettime(clock)


class _Timer:
    """A thread that looks after all slices, and ends when there are none."""

    def __init__(self) -> None:
        self.thread_id: int | None = None

    def start(self) -> None:
        with gate:
            if self.thread_id is None:
                try:
                    self.thread_id = start_new_thread(self._look, ())
                except RuntimeError:
                    pass  # the interpreter is about to end, and lets no thread begin: nobody is interrupted any more

    def _look(self) -> None:
        pause = 0.0
        while True:
            time.sleep(pause)
            pause = LOOK_AGAIN
            with gate:
                slices = [dog.meter for dog in counting.values() if isinstance(dog.meter, Slice)]
                if not slices:
                    self.thread_id = None
                    return
                for each in slices:
                    pause = min(pause, each.look())


timer = _Timer()


def _after_fork() -> None:
    """In the child only the thread that forked is left."""
    timer.thread_id = None
    for thread_id, dog in list(counting.items()):
        if thread_id != get_ident():
            del counting[thread_id]
        elif isinstance(dog.meter, Slice):
            dog.meter.clock = _clock_of_this_thread()
            dog.meter.start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Signal(Slice):
    """Measures time on the main thread, whose signal handler may switch. No signal is sent: it is only simulated."""

    def __init__(self, dog: Counted, number: int) -> None:
        super().__init__(dog)
        self.number = number

    def start(self) -> None:
        signal.signal(self.number, self._handle)
        super().start()

    def stop(self) -> None:
        signal.signal(self.number, signal.SIG_DFL)

    def prepare(self, frames: Iterable[FrameType]) -> None: ...

    def look(self) -> float:
        left = self.seconds_left()
        if left <= 0:
            interrupt_main(signal.Signals(self.number))
        return max(left, RETRY)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.seconds_left() <= 0:
            self.dog.expire()


def free_signal() -> int | None:
    """The number of one that this thread may handle, and that the program does not use."""
    if get_ident() == threading.main_thread().ident:
        for name in ("SIGVTALRM", "SIGPROF", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                return int(number)
    return None
