"""Time: sleep and timeout. Both load gevent, whose loop keeps the timers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasklets._core import Wait, get_scheduler, getcurrent
from tasklets._errors import Timeout

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from tasklets._core import tasklet


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
    waiting is not interrupted. None sets no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._tasklet: tasklet | None = None
        self._cancel: Callable[[], None] | None = None
        self._error: Timeout | None = None

    def __enter__(self) -> timeout:
        if self.seconds is not None:
            self._tasklet = getcurrent()
            self._error = Timeout(f"not done within {self.seconds:g} s")
            self._cancel = get_scheduler().get_reactor().call_later(self.seconds, self._expire)
        return self

    def _expire(self) -> None:
        self._cancel = None
        assert self._tasklet is not None
        assert self._error is not None
        self._tasklet._scheduler.alarm(self._tasklet, self._error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._cancel is not None:
            self._cancel()  # and it stays: `expired` is asked afterwards, too
        if self._tasklet is not None and self._tasklet._alarm is self._error:
            self._tasklet._alarm = None
        self._tasklet = None

    @property
    def expired(self) -> bool:
        """True when the time is over."""
        return self._error is not None and self._cancel is None
