"""The trace and profile functions of each tasklet. CPython has one of each per OS thread.

They are taken away when a tasklet is switched out, kept here, and set again when it goes on; a new tasklet has none.
That costs something at each switch, so it is done only while somebody has used the attributes `trace_function` and
`profile_function` of a tasklet, or, in compatibility mode, `sys.settrace` and `sys.setprofile` (see `watch.tracing`).

They do not hear of the frames of this package, which a compiled core does not have.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tasklets._frames import PACKAGE
from tasklets._tracer import get_trace, set_trace
from tasklets._watch import change_watch, gate, watch

if TYPE_CHECKING:
    from types import FrameType

_set_profile, _get_profile = sys.setprofile, sys.getprofile  # `install` replaces them in `sys`

# Those of tasklets that do not run: [trace, profile]. Nothing of a tasklet is looked at here.
_kept: WeakKeyDictionary[object, list[Any]] = WeakKeyDictionary()
_threads: set[int] = set()  # those whose running tasklet may have some

TRACE, PROFILE = 0, 1


class _Quiet:
    """A trace or profile function, without the frames of this package."""

    __slots__ = ("function",)

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename.startswith(PACKAGE):
            return None
        return self.function(frame, event, arg)


def _wrapped(function: Any) -> Any:
    return _Quiet(function) if function is not None and not isinstance(function, _Quiet) else function


def _unwrapped(function: Any) -> Any:
    return function.function if isinstance(function, _Quiet) else function


def gettrace() -> Any:
    """`sys.gettrace`."""
    return _unwrapped(get_trace())


def getprofile() -> Any:
    """`sys.getprofile`."""
    return _unwrapped(_get_profile())


def get(one: object, which: int, runs_here: bool) -> Any:
    """The trace or profile function of a tasklet. `runs_here`: it is the running one of this OS thread."""
    if runs_here:
        return getprofile() if which else gettrace()
    kept = _kept.get(one)
    return _unwrapped(kept[which]) if kept is not None else None


def put(one: object, which: int, function: Any, runs_here: bool) -> None:
    """Set the trace or profile function of a tasklet that is alive."""
    if runs_here:
        (setprofile if which else settrace)(function)
        return
    kept = _kept.setdefault(one, [None, None])
    kept[which] = _wrapped(function)
    if kept == [None, None]:
        del _kept[one]
    _begin()


def settrace(function: Any) -> None:
    """`sys.settrace` for the current tasklet alone."""
    _begin()
    set_trace(_wrapped(function))


def setprofile(function: Any) -> None:
    """`sys.setprofile` for the current tasklet alone."""
    _begin()
    _set_profile(_wrapped(function))


def suspend(one: object | None) -> None:
    """A tasklet is about to be switched out: keep its functions. None: it has ended, and needs them no more."""
    trace, profile = get_trace(), _get_profile()
    if trace is None and profile is None:
        if not _kept:
            _end()
        return
    if trace is not None:
        set_trace(None)
    if profile is not None:
        _set_profile(None)
    if one is not None:
        _kept[one] = [trace, profile]


def resume(one: object | None) -> None:
    """A tasklet goes on, or starts: set its functions again."""
    kept = _kept.pop(one, None) if one is not None else None
    if kept is not None:
        trace, profile = kept
        if profile is not None:
            _set_profile(profile)
        if trace is not None:
            set_trace(trace)


def renew() -> None:
    """After a switch. On CPython 3.11 each stack has its own flag that says whether there is anything to call."""
    if sys.version_info < (3, 12):
        trace, profile = get_trace(), _get_profile()
        if profile is not None:
            _set_profile(profile)
        if trace is not None:
            set_trace(trace)


def _begin() -> None:
    with gate:
        _threads.add(get_ident())
        if not watch.tracing:
            change_watch(tracing=True)


def _end() -> None:
    """This thread has no such function any more."""
    with gate:
        _threads.discard(get_ident())
        if not _threads and watch.tracing:
            change_watch(tracing=False)
