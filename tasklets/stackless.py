"""Stackless Python's module, for programs that were written for it.

    python -m tasklets.stackless program.py arguments...

runs an old program unchanged. Inside a program of today:

    import tasklets.stackless
    tasklets.stackless.install()    # from now on `import stackless` works, in this whole process

`install()` is process-wide: it also puts TaskletExit among the builtins, and lets deadlocks and block_trap raise
Stackless's own errors, without the report of who waits on what. `docs/divergence.md` lists what differs.
"""

from __future__ import annotations

import builtins
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tasklets import _core, _tracing
from tasklets._core import (
    bomb as bomb,
    getcurrent as getcurrent,
    getmain as getmain,
    getruncount as getruncount,
    schedule as schedule,
    schedule_remove as schedule_remove,
    switch_trap as switch_trap,
    tasklet as tasklet,
)
from tasklets._errors import TaskletExit as TaskletExit
from tasklets._ticks import timer
from tasklets._watch import change_watch, watch

if TYPE_CHECKING:
    from collections.abc import Callable

    current: tasklet
    main: tasklet
    runcount: int
    threads: list[int]
    stackless: ModuleType

__all__ = [
    "atomic",
    "bomb",
    "channel",
    "enable_softswitch",
    "get_channel_callback",
    "get_schedule_callback",
    "get_thread_info",
    "getcurrent",
    "getcurrentid",
    "getdebug",
    "getmain",
    "getruncount",
    "getthreads",
    "getuncollectables",
    "run",
    "schedule",
    "schedule_remove",
    "set_channel_callback",
    "set_error_handler",
    "set_schedule_callback",
    "stackless",
    "switch_trap",
    "tasklet",
]


class channel(_core.channel):
    """A channel whose errors are Stackless's, and whose `close()` wakes nobody."""

    __slots__ = ()

    def close(self) -> None:
        """Let nobody wait any more from now on. Who waits already goes on waiting."""
        self.closing = True
        if self._observer is not None:
            self._observer.channel_closed()

    def _refuse_to_block(self, me: tasklet, verb: str) -> None:
        if me._traps:
            raise _core.wording.block_trap(f"{verb} {self!r}", me)
        raise ValueError(_core.CLOSED)


class atomic:
    """Let no `run(n)` interrupt the block: `with atomic(): ...`."""

    def __enter__(self) -> None:
        self._tasklet = getcurrent()
        self._before = self._tasklet.set_atomic(True)

    def __exit__(self, *error: object) -> None:
        self._tasklet.set_atomic(self._before)


# -- running -------------------------------------------------------------------------------------------------------


def run(
    timeout: int = 0,
    threadblock: bool = False,
    soft: bool = False,
    ignore_nesting: bool = False,
    totaltimeout: bool = False,
) -> tasklet | None:
    """Let the tasklets run. Blocks until none is runnable, and none waits for a timer or for I/O.

    With `threadblock` it also waits while another OS thread may still wake one of them.

    A `timeout` greater than 0 interrupts a tasklet that runs for so many ticks (about a bytecode each) without a
    switch: it is taken out of the line and returned, and `insert()` lets it go on. With `soft` it is not torn away:
    the runner goes on, and returns None, when the tasklet next blocks, schedules or ends. With `totaltimeout` the ticks
    count from now on, and not from each switch. `ignore_nesting` changes nothing: see `docs/divergence.md`.
    """
    if not isinstance(timeout, int):
        raise TypeError(f"an integer is required (got type {type(timeout).__name__})")
    scheduler = _core.get_scheduler()
    before, scheduler.threadblock = scheduler.threadblock, bool(threadblock)
    try:
        if timeout > 0:
            from tasklets import _watchdog

            return _watchdog.run(scheduler, timeout, soft=bool(soft), total=bool(totaltimeout))
        scheduler.run()
    finally:
        scheduler.threadblock = before
    return None


def enable_softswitch(flag: Any) -> bool:
    """There is only hard switching: always False, whatever is asked for."""
    return False


# -- asking --------------------------------------------------------------------------------------------------------


def getcurrentid() -> int:
    """A number of the current tasklet that no other living one has; of a main tasklet, that of its thread."""
    one = getcurrent()
    return one.thread_id if one.is_main else id(one)


def getthreads() -> list[int]:
    """The ids of all threads, the main thread first."""
    first = threading.main_thread().ident
    ids = [each for each in sys._current_frames() if each != timer.thread_id]
    return sorted(ids, key=lambda each: each != first)


def get_thread_info(id: int = -1, flags: int = 0) -> tuple[tasklet, tasklet | None, int]:
    """`(main, current, runcount)` of the thread of that id; -1: of the calling one."""
    if id == -1:
        found = _core.get_scheduler()
    else:
        known = [each for each in _core.living_schedulers() if each.thread_id == id]
        if not known:
            raise RuntimeError("Thread id not found")
        found = known[0]
    return found.main, found.current, found.count


def getdebug() -> bool:
    """There is no debug build: False."""
    return False


def getuncollectables() -> list[object]:
    """Nothing is uncollectable any more: an empty list."""
    return []


# -- callbacks -----------------------------------------------------------------------------------------------------

_schedule_callback: Callable[[tasklet | None, tasklet], object] | None = None
_announce: Callable[..., None] | None = None  # what calls it
_channel_callback: Callable[[_core.channel, tasklet, int, int], object] | None = None


def set_schedule_callback(callback: Callable[[tasklet | None, tasklet], object] | None) -> Any:
    """Let `callback(previous, next)` be called before each switch. Returns the one before."""
    global _schedule_callback, _announce
    _check_callable(callback)
    old, _schedule_callback = _schedule_callback, callback
    announce = _prev_alive(callback) if callback is not None else None
    change_watch(switched=_replaced(watch.switched, _announce, announce))
    _announce = announce
    return old


def _prev_alive(callback: Callable[[tasklet | None, tasklet], object]) -> Callable[..., None]:
    """In Stackless the end of a tasklet comes after the callback for its last switch."""

    def announce(before: tasklet | None, after: tasklet) -> None:
        has_ended = before is not None and not before._alive
        try:
            if before is not None:
                before._alive = True
            callback(before, after)
        finally:
            if before is not None and has_ended:
                before._alive = False

    return announce


def get_schedule_callback() -> Any:
    """What `set_schedule_callback` set."""
    return _schedule_callback


def set_channel_callback(callback: Callable[[_core.channel, tasklet, int, int], object] | None) -> Any:
    """Let `callback(channel, tasklet, sending, willblock)` be called before each action. Returns the one before.

    What it raises comes out of the action, which does not happen then.
    """
    global _channel_callback
    _check_callable(callback)
    old, _channel_callback = _channel_callback, callback
    change_watch(acting=_replaced(watch.acting, old, callback))
    return old


def get_channel_callback() -> Any:
    """What `set_channel_callback` set."""
    return _channel_callback


def set_error_handler(callback: Callable[..., object] | None = None) -> Any:
    """Let `callback(type, value, traceback)` hear of exceptions that leave tasklets, in these, instead of `run()`.

    Returns the one before.
    """
    _check_callable(callback)
    old = watch.failed
    change_watch(failed=callback)
    return old


def _check_callable(callback: object) -> None:
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a callable or None, not {type(callback).__name__}")


def _replaced(them: tuple[Any, ...], old: Any, new: Any) -> tuple[Any, ...]:
    """The callbacks with one of them replaced. The others belong to `tasklets.trace` and the like."""
    return tuple(each for each in them if each is not old) + ((new,) if new is not None else ())


# -- the module ----------------------------------------------------------------------------------------------------


class _Stackless(ModuleType):
    """Module attributes that are computed at each access, and cannot be assigned."""

    current = property(lambda self: getcurrent())
    main = property(lambda self: getmain())
    runcount = property(lambda self: getruncount())
    debug = property(lambda self: getdebug())
    threads = property(lambda self: getthreads())
    uncollectables = property(lambda self: getuncollectables())
    stackless = property(lambda self: self)
    pickle_flags = property(lambda self: 0)


def install() -> None:
    """Make `import stackless` work, and errors be Stackless's, in this whole process."""
    sys.modules["stackless"] = sys.modules[__name__]
    builtins.TaskletExit = TaskletExit  # type: ignore[attr-defined]
    _core.wording = _core.Wording()
    sys.settrace, sys.gettrace = _tracing.settrace, _tracing.gettrace
    sys.setprofile, sys.getprofile = _tracing.setprofile, _tracing.getprofile


if __name__ == "__main__":  # a second copy of this module, which only starts the program
    from tasklets import stackless as imported
    from tasklets._old_program import main as run_program

    run_program(imported.install)
else:
    sys.modules[__name__].__class__ = _Stackless
