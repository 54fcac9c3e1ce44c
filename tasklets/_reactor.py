"""The bridge to gevent's event loop.

The one module here that imports gevent, and only when a tasklet first sleeps or does I/O.
"""

from __future__ import annotations

from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from gevent import GreenletExit, Timeout, get_hub, timeout as gevent_timeout
from gevent._hub_local import set_hub
from gevent.exceptions import HubDestroyed, LoopExit
from greenlet import error as GreenletError

from tasklets import _errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenlet import greenlet


class DeadlockError(_errors.DeadlockError, LoopExit):
    """Ours, and still what gevent's own code catches when its loop has nothing left to wait for."""


DeadlockError.__module__ = "tasklets"


class Reactor:
    """The hub of one OS thread, seen from its scheduler."""

    DeadlockError = DeadlockError
    monotonic = staticmethod(monotonic)  # a virtual clock has its own

    def __init__(self, lend_turn: Callable[[], object], root: greenlet | None) -> None:
        """`lend_turn` gives the ring the hub's turn; `root` is the thread's main greenlet."""
        self.hub = get_hub()
        self.loop = self.hub.loop
        self._lend_turn = lend_turn
        self._armed = False
        # Ctrl-C while everybody waits is no fault of the loop: main hears of it, and nothing is to be
        # printed.
        self.hub.NOT_ERROR = (*self.hub.NOT_ERROR, KeyboardInterrupt)
        # The hub throws into its parent what concerns the whole program. If it was made inside a tasklet,
        # that is not main.
        if root is not None and self.hub.parent is not root:
            self.hub.parent = root

    def arm(self) -> None:
        """Make the loop give the ring a turn soon."""
        if not self._armed:
            self.loop.run_callback(self._turn)
            self._armed = True  # after it: Ctrl-C between the two costs an idle turn, not the turn

    def arm_from_elsewhere(self) -> None:
        """The same, from another OS thread."""
        self.call_from_elsewhere(self._turn)

    def call_from_elsewhere(self, function: Callable[..., object], *args: Any) -> None:
        """From another OS thread: let the loop call a function, unless it has ended with its thread."""
        with suppress(ValueError):  # what gevent says of a loop that is no more
            self.loop.run_callback_threadsafe(function, *args)

    def _turn(self) -> None:
        self._armed = False
        self._lend_turn()

    def call_soon(self, function: Callable[..., object], *args: Any) -> Any:
        """Let the loop call a function in its next round; returns the callback, which has a `stop()`."""
        return self.loop.run_callback(function, *args)

    def call_later(self, seconds: float, function: Callable[..., object], *args: Any) -> Callable[[], None]:
        """Let the loop call a function after `seconds`; returns what cancels it."""
        timer = self.loop.timer(max(0.0, seconds))
        # gevent's clock stands still while tasklets compute; update=True measures from now.
        timer.start(self._fire, timer, function, args, update=True)

        def cancel() -> None:
            timer.stop()
            timer.close()

        return cancel

    def _fire(self, timer: Any, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        timer.stop()
        timer.close()
        function(*args)

    def close(self) -> None:
        """On a thread that ends: give back what its event loop holds of the system."""
        hub: Any = self.hub
        loop = hub.loop
        pool = getattr(hub, "_threadpool", None)  # asked by their public names, both would be made
        resolver = getattr(hub, "_resolver", None)
        # What gevent keeps in thread-local data may be gone already. What is put there now stays for ever.
        if loop is not None and pool is None and resolver is None:
            with suppress(LoopExit, GreenletError):  # the latter when greenlet has let go of the thread
                hub.throw(HubDestroyed(True))
            hub.loop = None
            loop.destroy()
        elif loop is not None and (pool is None or not pool.task_queue.unfinished_tasks):
            set_hub(hub)  # else it would make another one, to wait for its pool
            hub.destroy(destroy_loop=True)
        # else somebody has done that, or a thread of the pool will still call the loop
        if hub.loop is None and not hub.dead:
            with suppress(GreenletError):
                hub.throw(GreenletExit)  # it stands where it told us so, and would for ever

    def begin_io(self) -> None:
        """A tasklet is about to wait inside gevent. A virtual clock refuses that."""

    def is_loop_exit(self, error: BaseException) -> bool:
        """True when the loop says that nothing is left that could happen."""
        return isinstance(error, LoopExit)

    def is_closed_timeout(self, error: BaseException) -> bool:
        """True for a gevent.Timeout whose `with` block was left before it could be raised."""
        fake = getattr(gevent_timeout, "_FakeTimer", None)
        return isinstance(error, Timeout) and error.seconds is not None and error.timer is fake
