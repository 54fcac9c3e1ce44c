"""Time: sleep and timeout. Both load gevent, whose loop keeps the timers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from weakref import ref

from tasklets._core import Wait, get_scheduler, getcurrent
from tasklets._errors import TaskletError, Timeout

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from weakref import ReferenceType

    from tasklets._core import tasklet


def monotonic() -> float:
    """Seconds of the clock that `sleep` and `timeout` follow: a virtual one inside `testing.virtual_clock()`."""
    reactor = get_scheduler().reactor
    return reactor.monotonic() if reactor is not None else time.monotonic()


def sleep(seconds: float) -> None:
    """Block the calling tasklet for `seconds`; the others run. With 0 or less it is one `schedule()`."""
    scheduler = get_scheduler()
    if seconds <= 0:
        scheduler.schedule(None)
        return
    wait = Wait(f"sleep({seconds:g})")
    wait.cancel = scheduler.get_reactor().call_later(seconds, wait.wake)
    wait.park()


class timeout:
    """Limit how long a block may wait: `with timeout(2.0): answer = channel.receive()`.

    When `seconds` are over, the wait in which the tasklet is then raises `Timeout`; if it is not waiting, its
    next wait does. A message that was received by then is not lost. A tasklet that computes without ever
    waiting is not interrupted. None sets no limit. While it may still end a tasklet's wait, `run()` does not
    return.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._tasklet: tasklet | None = None
        self._cancel: Callable[[], None] | None = None
        self._error: Timeout | None = None  # while the block lasts
        # Weak: its traceback leads to the block's frame, whose variables often hold this object.
        self._raises: ReferenceType[Timeout] | None = None
        self._expired = False

    def __enter__(self) -> timeout:
        if self._tasklet is not None:
            raise TaskletError(
                f"this timeout({self.seconds}) limits a block already; every block needs one of its own: "
                "with timeout(seconds): ..."
            )
        self._expired = False
        if self.seconds is not None:
            self._error = Timeout(f"not done within {self.seconds:g} s")
            self._raises = ref(self._error)
            self._tasklet = one = getcurrent()
            scheduler = one._scheduler
            self._cancel = scheduler.get_reactor().call_later(self.seconds, self._expire)
            if not one._special:
                scheduler.limits[self] = one
        return self

    def _expire(self) -> None:
        one, error = self._tasklet, self._error
        if one is None or error is None:
            return
        self._cancel = None
        self._expired = True
        one._scheduler.limits.pop(self, None)
        one._scheduler.alarm(one, error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        one, self._tasklet = self._tasklet, None
        mine, self._error = self._error, None
        if self._cancel is not None:
            self._cancel()
            self._cancel = None
        if one is not None and mine is not None:
            one._scheduler.limits.pop(self, None)
            one._scheduler.cancel_alarm(one, mine)

    def raised(self, error: BaseException) -> bool:
        """True when `error` is this limit's own Timeout, and not that of a block around it or inside."""
        return self._raises is not None and error is self._raises()

    @property
    def expired(self) -> bool:
        """True when the time was over before the block was."""
        return self._expired
