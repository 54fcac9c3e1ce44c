"""Time made by hand: a reactor whose clock stands still while anybody can run."""

from __future__ import annotations

from contextlib import contextmanager
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, getcurrent as current_greenlet, greenlet

from tasklets._core import Wait, get_scheduler
from tasklets._errors import DeadlockError, TaskletError, TaskletExit
from tasklets.clock import timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasklets._core import Scheduler

MAX_ROUNDS = 100_000  # of a ring that does not come to rest; a second or so

_NO_IO = (
    "inside virtual_clock() and explore() there is no I/O: nothing of gevent, no sockets, no `net`. "
    "Test that part with the real clock, or put a channel where the socket is"
)


@contextmanager
def virtual_clock() -> Iterator[VirtualClock]:
    """Let time be made by hand in a block: `with virtual_clock() as clock: ...`.

    `sleep`, `timeout`, the timeouts of `select` and of actors, and the patience of nurseries follow this clock.
    It stands still while a tasklet can run. When all of them wait it jumps to the next timer, so that a test of
    hours takes no time; `clock.advance(seconds)` moves it by hand. Timers of the same instant fire in the order
    in which they were made.

    At the end of the block, tasklets that still wait for this clock are killed (TaskletExit). The real clock
    (`time.monotonic`, `time.time`) is not touched, and there is no I/O: gevent's waits raise TaskletError.
    Holds for the calling OS thread. Raises TaskletError when tasklets wait for real time already.
    """
    scheduler = get_scheduler()
    if scheduler.current is None:
        raise TaskletError("virtual_clock() is for tasklets and the main program, not for a gevent greenlet")
    if isinstance(scheduler.reactor, VirtualReactor):
        raise TaskletError("this thread has a virtual clock already (explore() brings its own)")
    if scheduler.waiting or scheduler.limits:
        raise TaskletError(
            "tasklets wait for real time or I/O already, and would wait for ever; start them inside the block"
        )
    reactor = VirtualReactor(scheduler)
    reactor.install()
    try:
        yield VirtualClock(reactor)
    finally:
        try:
            reactor.end_waiters()
        finally:
            reactor.remove()


def run_until_blocked() -> None:
    """Let the tasklets run until none but the calling one can. Blocks; a virtual clock stands still meanwhile.

    Raises what `schedule()` does (in main: the failure of a tasklet), and AssertionError when they never come
    to rest.
    """
    scheduler = get_scheduler()
    if scheduler.current is None:
        raise TaskletError("run_until_blocked() is for tasklets and the main program")
    for _ in range(MAX_ROUNDS):
        if scheduler.count <= 1:
            return
        scheduler.schedule(None)
    busy = scheduler.current.next
    raise AssertionError(
        f"the tasklets do not come to rest in {MAX_ROUNDS} rounds: {busy!r} and perhaps others run on and on"
    )


class VirtualClock:
    """What `virtual_clock()` gives: the time, and the hand that moves it."""

    def __init__(self, reactor: VirtualReactor) -> None:
        self._reactor = reactor

    def __repr__(self) -> str:
        return f"<VirtualClock now={self.now:g} timers={self._reactor.pending}>"

    @property
    def now(self) -> float:
        """Seconds since the beginning of the block."""
        return self._reactor.now

    def advance(self, seconds: float) -> None:
        """Move time on; who is to be woken on the way is woken at its time, and runs until it waits. Blocks.

        What can run already runs first. Returns when `seconds` are over and nobody else can run.
        """
        if seconds < 0:
            raise ValueError(f"time does not run backwards: advance({seconds!r})")
        reactor = self._reactor
        end = reactor.now + seconds
        run_until_blocked()
        while reactor.fire_next(end):
            run_until_blocked()
        reactor.now = max(reactor.now, end)


class _Timer:
    __slots__ = ("args", "function")

    def __init__(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.function: Callable[..., object] | None = function  # None: cancelled
        self.args = args

    def cancel(self) -> None:
        self.function = None
        self.args = ()


class VirtualReactor:
    """Stands in for `tasklets._reactor.Reactor`: timers and callbacks, and no gevent."""

    DeadlockError = DeadlockError

    def __init__(self, scheduler: Scheduler) -> None:
        self.now = 0.0
        self._scheduler = scheduler
        self._timers: list[tuple[float, int, _Timer]] = []
        self._numbers = count()  # timers of one instant keep their order
        self._armed = False
        self._before: Any = None  # the reactor that comes back at the end
        self.hub = greenlet(self._live, parent=scheduler._root)
        self.hub.switch(current_greenlet())

    def install(self) -> None:
        scheduler: Any = self._scheduler
        self._before = scheduler.reactor
        scheduler.reactor = self

    def remove(self) -> None:
        scheduler: Any = self._scheduler
        scheduler.reactor = self._before
        self.hub.parent = current_greenlet()
        self.hub.throw(GreenletExit)

    def close(self) -> None:
        """Its thread ends: so does the reactor that would have come back."""
        self.remove()
        if self._before is not None:
            self._before.close()

    @property
    def pending(self) -> int:
        """How many timers run."""
        return sum(timer.function is not None for _, _, timer in self._timers)

    @property
    def loop(self) -> Any:
        raise TaskletError(_NO_IO)

    def begin_io(self) -> None:
        raise TaskletError(_NO_IO)

    # -- what the scheduler calls ------------------------------------------------------------------------------

    def monotonic(self) -> float:
        return self.now

    def arm(self) -> None:
        self._armed = True

    def call_soon(self, function: Callable[..., object], *args: Any) -> Any:
        return self._add(self.now, function, args)

    def call_from_elsewhere(self, function: Callable[..., object], *args: Any) -> None:
        # Its one step is one of the heap in C, in which no other thread can come between.
        self.call_soon(function, *args)

    def call_later(self, seconds: float, function: Callable[..., object], *args: Any) -> Callable[[], None]:
        return self._add(self.now + max(0.0, seconds), function, args).cancel

    def is_loop_exit(self, error: BaseException) -> bool:
        return False

    def is_closed_timeout(self, error: BaseException) -> bool:
        return False

    # -- the loop ----------------------------------------------------------------------------------------------

    def _add(self, when: float, function: Callable[..., object], args: tuple[Any, ...]) -> _Timer:
        timer = _Timer(function, args)
        heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def fire_next(self, end: float) -> bool:
        """Move to the next instant that has a timer, not beyond `end`, and fire its timers."""
        timers = self._timers
        while timers and timers[0][2].function is None:
            heappop(timers)
        if not timers or timers[0][0] > end:
            return False
        self.now = max(self.now, timers[0][0])
        due = []
        while timers and timers[0][0] <= self.now:
            due.append(heappop(timers)[2])
        for timer in due:
            function, args = timer.function, timer.args
            if function is not None:
                timer.cancel()
                function(*args)
        return True

    def _live(self, begun_by: greenlet) -> None:
        begun_by.switch()
        while True:
            try:
                if self._armed:
                    self._armed = False
                    self._scheduler.turn()
                elif not self.fire_next(float("inf")):
                    self._scheduler._loop_is_empty()
            except GreenletExit:  # from `remove`
                raise
            except BaseException as error:  # noqa: BLE001  nobody is above us; main hears of it
                self._scheduler.fail_main(error)

    def end_waiters(self) -> None:
        """Kill the tasklets that wait for a timer of ours: nobody will wake them any more."""
        for _ in range(3):  # a `finally` may wait once more
            left = [timer for _, _, timer in sorted(self._timers) if timer.function is not None]
            if not left:
                return
            for timer in left:
                self._end_waiter(timer)
            run_until_blocked()

    def _end_waiter(self, timer: _Timer) -> None:
        owner = getattr(timer.function, "__self__", None)
        timer.cancel()
        if isinstance(owner, Wait):
            owner.fail(TaskletExit())
        elif isinstance(owner, timeout) and owner._tasklet is not None:
            limited = owner._tasklet
            if limited is not self._scheduler.current:
                limited._scheduler.limits.pop(owner, None)
                limited._scheduler.alarm(limited, TaskletExit())
