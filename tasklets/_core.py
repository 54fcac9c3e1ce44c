"""The core: Scheduler, tasklet and channel. The one module that may be compiled.

Nothing reaches into its private parts but this package and `net`. `_core.pxd` has the types that Cython needs; what is
written here has to mean the same with and without it.

Theory of operation
-------------------
Every OS thread has one Scheduler with a *ring* of runnable tasklets. `head` is the tasklet whose turn it is,
and normally the running one. "The end of the line" is the place just before the head. A tasklet that blocks
leaves the ring and switches straight to the next one; no scheduler greenlet stands between them. The rules
for who runs next are Stackless's:

1. A new, woken or inserted tasklet goes to the end of the line.
2. A channel action that finds a partner waiting either goes on (the partner joins the end) or lets the
   partner run now (it takes the actor's turn, and the actor becomes the last in line). `channel.preference`
   says which.
3. When the ring is empty the innermost `run()` returns, unless a tasklet waits for a timer, for I/O or for
   another process.

Tasklets run in *workers*, greenlets that outlive them. A worker whose tasklet ended takes the next unstarted
one itself, or waits in `idle`. New workers are begun by one shallow *starter* greenlet: greenlets begun from
inside a blocked one would nest their C stacks, and a chain of a few thousand would crash.

gevent comes in only when somebody sleeps or does I/O. Its *hub* greenlet runs the event loop; from our side:

- `current is None` exactly while the hub, or a gevent greenlet it runs, is in control. Every way to the hub
  sets it.
- gevent calls `switch_out` on a greenlet that is about to wait in the hub, and `switch`/`throw` on it when
  the wait is over. Workers (and the thread's main greenlet, by instance attributes) answer these by leaving
  the ring and by joining the end of its line.
- While the ring has members, one callback of the loop (`Reactor.turn`) lends the hub's turn to them. A busy
  ring visits the hub every HUB_PERIOD, so that I/O is served although no tasklet ever blocks.
- A gevent greenlet may use channels. It is no member of the ring ("foreign"): its line is the loop's own.

While several OS threads have schedulers, and while somebody watches switches or actions (see `Watch`), `_watching` is
true, and what has to be done differently is done by `_watched`, whose docstring has the theory.

A paused tasklet that nobody refers to is ended by the interpreter's counting of references, as in Stackless. So
whatever stands on the stack of a tasklet that is leaving the ring (`_pause`) must not refer to it.

Ctrl-C may raise KeyboardInterrupt wherever the interpreter enters a Python function or returns from a C
function, in our own code too. So steps that belong together stand together without a call in between, the
turn is passed on in the statement before the switch, and who is resumed by an exception that did not come
by `tempval` puts the books right first (`Scheduler._regain`).
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from _thread import get_ident
from collections import deque
from contextvars import Context, copy_context
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet, getweakrefcount, ref

from greenlet import GreenletExit, getcurrent as current_greenlet, greenlet

from tasklets import _tracing, _watched
from tasklets._errors import ChannelClosed, DeadlockError, InternalError, TaskletError, TaskletExit
from tasklets._frames import outside_core, outwards
from tasklets._threads import end_all, kill_orphan, run_first
from tasklets._watch import change_watch, followers, gate, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import cython  # the name by which Cython knows it; never imported

    from tasklets._reactor import Reactor
else:
    from tasklets import _cython as cython

# The C methods: workers override both names, and the core must never go through the overrides.
_throw = greenlet.throw
_switch_with = greenlet.switch  # with what it is to return there
if cython.compiled:
    PyGreenlet_Import()  # type: ignore[name-defined] # noqa: F821  `_switch` is greenlet's C function
    tasklets_keep_chunks()  # type: ignore[name-defined] # noqa: F821
else:
    _switch = greenlet.switch

MAX_IDLE_WORKERS = 1024  # 1024 x ~6 KB; more finished workers than this are let go
GIVE_BACK_WORKERS = 16 * 1024  # let go, after which their memory goes back to the system: 45 MB
HUB_CHECK_SWITCHES = 64  # a clock reading costs ~40 ns, so while switches are quick only every 64th looks
HUB_PERIOD = 0.001  # seconds a busy ring may keep the event loop waiting
_SHOWN = ("switch_out", "switch", "throw")  # what gevent calls on a greenlet
OTHERS_CHECK = 0.5  # seconds after which a thread that waits for other threads looks whether these still live
NO_HUB = 2**29  # switches before somebody looks whether there is an event loop now; a large cheap int

DEADLOCK = "Deadlock: the last runnable tasklet cannot be blocked."
BLOCK, ATOMIC = 1, 2  # bits of tasklet._traps

NOT_CALLABLE = "tasklet function must be a callable or None"
BLOCK_TRAP = "this tasklet does not like to be blocked."
CLOSED = "Send/receive operation on a closed channel"


class bomb:
    """Carries an exception to the place where it is to be raised."""

    __slots__ = ("value",)

    value: Any  # the exception

    def __init__(self, type: Any = None, value: Any = None, traceback: Any = None) -> None:
        """Given an exception, or the type, value and traceback of one, or these three in a tuple."""
        if value is None and isinstance(type, BaseException):
            self.value = type
        elif type is not None:
            given = type if isinstance(type, tuple) else (type, value, traceback)
            self.value = _make_exception(*given)
        else:
            self.value = None  # an empty one, as Stackless makes it

    @property
    def type(self) -> type[BaseException] | None:
        return type(self.value) if self.value is not None else None

    @property
    def traceback(self) -> Any:
        return self.value.__traceback__ if self.value is not None else None

    def __repr__(self) -> str:
        return f"<bomb {self.value!r}>"


class Entry:
    """One place in the queue of a channel: somebody who waits to send (`tempval` is the message) or to receive.

    Usually that is a tasklet. What is not, a gevent greenlet, a case of a select, a request from another process, is
    `_special`: it is asked to `take`.
    """

    __slots__ = ("_next", "_prev", "_special", "tempval")

    _next: Any  # the neighbours
    _prev: Any
    _special: bool
    tempval: Any

    def __init__(self) -> None:
        self._next = self._prev = self.tempval = None
        self._special = True

    def take(self, value: Any) -> tasklet | None:
        """Complete this entry, which has just left its queue.

        A waiting receiver is given `value`; a waiting sender is told that its message was taken. Return the tasklet
        to run, or None when its waking is no business of this ring.
        """
        raise NotImplementedError

    @property
    def waiter(self) -> tasklet | None:
        """The tasklet that waits here, if it is one of this process."""
        return None


class Observer(Protocol):
    """Who wants to know that a channel was closed."""

    def channel_closed(self) -> None: ...


class Wait:
    """One wait of one tasklet for something that is no channel: a timer, an answer from another process.

    Make it, hand it to whoever will call `wake` or `fail`, then `park`. The first of wake, fail and an
    interruption of the tasklet (kill, timeout) counts; later ones are ignored. On interruption `cancel()` is
    called.
    """

    __slots__ = ("_outcome", "cancel", "outside", "tasklet", "what")

    def __init__(
        self, what: str, cancel: Callable[[], object] | None = None, *, outside: bool = True
    ) -> None:
        self.what = what
        self.cancel = cancel
        self.outside = (
            outside  # it can end though no tasklet of this thread does anything: run() waits for it
        )
        self.tasklet: tasklet | None = None
        self._outcome: tuple[Any] | None = None

    def park(self) -> Any:
        """Block until `wake(value)`, and return the value; raise what `fail` or an interruption brings."""
        if self._outcome is None:
            return get_scheduler().park(self)
        value, self._outcome = self._outcome[0], (None,)
        try:
            return _defuse(value)
        finally:
            del value

    def wake(self, value: object = None) -> None:
        """End the wait. Never blocks; harmless when the wait is over."""
        if self._outcome is not None:
            return
        waiter = self.tasklet
        if waiter is not None and waiter._waiting is self:
            self._outcome = (None,)  # the value is the waiter's alone, and is not kept alive by its wait
            waiter._scheduler.end_wait(waiter, value)
        else:
            self._outcome = (value,)

    def fail(self, error: BaseException) -> None:
        """End the wait with an exception. Never blocks."""
        self.wake(bomb(error))

    def adopt(self, one: tasklet) -> None:
        """Take over a tasklet that was just taken out of a channel's queue: it goes on waiting, for this."""
        self.tasklet = one
        one._waiting = self
        if self.outside and not one._special:
            one._scheduler.waiting += 1

    @property
    def over(self) -> bool:
        """True when it was woken, failed or interrupted."""
        return self._outcome is not None

    def _interrupted(self) -> None:
        self._outcome = (None,)
        if self.cancel is not None:
            self.cancel()


_IN_HUB = Wait("I/O")  # marks a tasklet that waits inside gevent


def _defuse(value: Any) -> Any:
    if type(value) is bomb:
        try:
            raise value.value
        finally:
            del value  # else the exception, its traceback, this frame and the bomb would keep each other
    return value


class tasklet(Entry):
    """A microthread. `tasklet(function)(*args, **kwargs)` creates one and puts it at the end of the line.

    It runs when its turn comes, until it blocks, calls `schedule()` or ends. An exception that leaves it
    reaches the caller of `run()` (the innermost one), or the main tasklet, at once. Belongs to the OS thread
    that created it.
    """

    __slots__ = (
        "__weakref__",
        "_alarm",  # exception to raise at the next blocking point, or None
        "_alive",
        "_atomic",
        "_call",  # (args, kwargs) until started
        "_channel",  # the channel it is blocked on
        "_context",
        "_greenlet",  # None: not started, dead, or to be entered with _wake
        "_ignore_nesting",
        "_later_alarms",  # those for the blocking points after that, or None
        "_scheduler",
        "_traps",  # why it must not block: the sum of BLOCK and ATOMIC
        "_waiting",  # the Wait it is parked in
        "_wake",  # (greenlet, exception or None, args) with which gevent wants it resumed; foreign: the callback
        "name",
    )

    _alarm: BaseException | None
    _later_alarms: list[BaseException] | None
    _alive: bool
    _atomic: bool
    _call: tuple[tuple[Any, ...], dict[str, Any] | None] | None
    _channel: channel | None
    _context: Context | None
    _greenlet: Any
    _ignore_nesting: bool
    _scheduler: Scheduler
    _traps: int
    _waiting: Wait | None
    _wake: Any
    name: str

    # Cython's __new__: a subclass may have an __init__ of its own, as Stackless programs do. See `_new_tasklet`.
    def __cinit__(self) -> None:
        self._scheduler = get_scheduler()
        self._alarm = self._later_alarms = self._call = self._channel = self._context = self._greenlet = None
        self._next = self._prev = self._waiting = self._wake = self.tempval = None
        self._alive = self._special = self._atomic = self._ignore_nesting = False
        self._traps = 0
        self.name = ""

    def __init__(
        self,
        func: Callable[..., object] | None = None,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        if func is not None or args is not None or kwargs is not None:
            self.bind(func, args, kwargs)

    def __del__(self) -> None:
        # Nobody refers to it, so it is paused.
        scheduler = self._scheduler
        if (
            self._alive
            and self._greenlet is not None
            and not self._special
            and not self.is_main
            and scheduler.thread_id != -1
        ):
            if scheduler is not get_scheduler():
                scheduler.post(scheduler.end_forgotten, self)
            elif self._greenlet is current_greenlet():  # it is leaving just now, see _pause
                scheduler.inbox.append((scheduler.end_forgotten, (self,)))
                scheduler._switches_left = 0
            else:
                scheduler.end_forgotten(self)

    # -- life ------------------------------------------------------------------------------------------------

    def bind(
        self,
        func: Callable[..., object] | None = None,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> tasklet:
        """Give the tasklet its function, and with `args` or `kwargs` its arguments: it is alive then, but
        paused until `insert()`.
        """
        if func is not None and not callable(func):
            raise wording.misuse(NOT_CALLABLE, f", not {func!r}.", TypeError)
        if args is not None and not isinstance(args, tuple):
            raise TypeError(
                f"args is a tuple or None, not {type(args).__name__}: bind(f, (1, 2)), or bind(f)(1, 2)"
            )
        if kwargs is not None and not isinstance(kwargs, dict):
            raise TypeError(
                f"kwargs is a dict or None, not {type(kwargs).__name__}: bind(f, (), {{'key': 1}})"
            )
        if self.is_current:
            raise wording.misuse("can't (re)bind the current tasklet")
        if self.scheduled:
            raise wording.misuse("tasklet is scheduled")
        if self._greenlet is not None or self._wake is not None:
            raise wording.misuse("tasklet has C state on its stack")
        if func is None and args is None and kwargs is None:
            self.tempval = self._call = self._context = None
            self._alive = False
            return self
        if func is not None:
            self.tempval = func
            self._alive = False  # it may have been given arguments before
            self._call = None
            self._context = _running_context() if wording.shares_contexts else None
            self.name = getattr(func, "__qualname__", None) or repr(func)
        if args is not None or kwargs is not None:
            if self.tempval is None:
                raise wording.misuse("the tasklet was not bound to a function")
            self._make_alive(args or (), dict(kwargs or {}))
        return self

    def __call__(self, /, *args: Any, **kwargs: Any) -> tasklet:
        """Give the bound function its arguments, and join the end of the line."""
        if self._alive:
            raise wording.misuse("tasklet is alive")
        if self.tempval is None:
            raise wording.misuse("the tasklet was not bound to a function")
        self._check_thread_lives()
        self._make_alive(args, kwargs)
        self._scheduler.wake(self)
        return self

    def setup(self, /, *args: Any, **kwargs: Any) -> tasklet:
        """The same as calling it."""
        return self(*args, **kwargs)

    def _make_alive(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._call = (args, kwargs or None)
        if self._context is None:
            self._context = copy_context()  # its own: what it sets, nobody else sees
        self._alive = True

    def insert(self) -> tasklet:
        """Join the end of the line, unless already in it."""
        self._check_runnable()
        if self._next is None:
            self._scheduler.wake(self)
        return self

    def remove(self) -> tasklet:
        """Leave the line: the tasklet is paused until `insert()` or `run()`."""
        if self.blocked:
            raise wording.misuse("You cannot remove a blocked tasklet.")
        if self.is_current:
            raise wording.misuse("The current tasklet cannot be removed.")
        if self._is_elsewhere():
            self._check_thread_lives()
            self._scheduler.post(self._scheduler.remove_later, self)
        elif self._next is not None:
            self._scheduler.unlink(self)
        return self

    def run(self) -> Any:
        """Run it now; the caller keeps its place in the line. One of another OS thread is the next to run there."""
        if self._is_elsewhere():
            self._run_elsewhere()
            return None
        self._check_runnable()
        return self._scheduler.run_now(self)

    def _run_elsewhere(self) -> None:
        if self._scheduler.thread_id == -1:
            raise wording.misuse("tasklet has no thread")
        self.insert()
        self._scheduler.post(run_first, self)

    def switch(self) -> Any:
        """Run it now; the caller leaves the line (paused) until somebody inserts it."""
        if self._is_elsewhere():
            raise wording.misuse("can't switch to a different thread.")
        self._check_runnable()
        return self._scheduler.run_now(self, leave=True)

    def _check_runnable(self) -> None:
        if self.blocked:
            raise wording.misuse("You cannot run a blocked tasklet")
        self._check_thread_lives()
        if not self.alive:
            raise wording.misuse("You cannot run an unbound(dead) tasklet")
        if self._special:
            raise RuntimeError(f"{self!r} belongs to gevent, which runs it; use kill(), throw() or a channel")

    def _is_elsewhere(self) -> bool:
        return self._scheduler is not get_scheduler()

    def _check_thread_lives(self) -> None:
        if self._scheduler.thread_id == -1:
            raise wording.misuse("Target thread isn't initialized")

    def _check_thread(self) -> None:
        if self._is_elsewhere():
            raise TaskletError(
                f"{self.name or 'this tasklet'!r} belongs to another OS thread, and only code of that thread may "
                "do this to it"
            )

    def kill(self, pending: bool = False) -> None:
        """Raise TaskletExit in it: now, or (pending) when its turn comes. A tasklet that never ran just ends.

        It leaves the channel it waits on at once; its `finally` clauses run. Does nothing to a dead tasklet.
        In a tasklet of another OS thread it is raised when that thread comes to it; the caller goes on.
        """
        self._throw(
            wording.suicide() if self.is_current and not self._is_elsewhere() else TaskletExit(), pending
        )

    def throw(self, exc: Any, val: Any = None, tb: Any = None, pending: bool = False) -> None:
        """Raise an exception in it, given as to the `raise` statement."""
        self._throw(_make_exception(exc, val, tb), pending)

    def _throw(self, error: BaseException, pending: bool) -> None:
        try:
            if not self._is_elsewhere():
                self._scheduler.throw_into(self, error, pending)
            elif self._scheduler.thread_id == -1:
                if not isinstance(error, TaskletExit):
                    raise wording.misuse("tasklet has no thread")
                kill_orphan(self)
            elif self.alive:
                self._scheduler.post(self._scheduler.throw_later, self, error)
            elif not isinstance(error, TaskletExit):
                raise wording.misuse("You cannot throw to a dead tasklet")
        finally:
            del error

    def raise_exception(self, cls: type[BaseException], *args: Any) -> None:
        """`throw(cls(*args))`."""
        self.throw(cls(*args))

    # -- state -----------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """True from `setup` to its end."""
        if self._special:
            return self._greenlet is not None and not self._greenlet.dead
        return self._alive and self._scheduler.thread_id != -1

    @property
    def blocked(self) -> bool:
        """True while it waits: on a channel, for a timer, for I/O."""
        return self._channel is not None or self._waiting is not None

    @property
    def scheduled(self) -> bool:
        """True while it is in line or blocked."""
        return self._next is not None or self.blocked

    @property
    def paused(self) -> bool:
        """True while it is alive, and neither in line nor blocked: somebody has to `insert()` it."""
        return self.alive and not self._special and not self.scheduled

    @property
    def is_current(self) -> bool:
        return self._scheduler.current is self

    @property
    def is_main(self) -> bool:
        return self._scheduler.main is self

    @property
    def next(self) -> tasklet | None:
        """Its neighbour in the line, or in the queue of the channel it is blocked on."""
        found = self._next
        return found if isinstance(found, tasklet) else None

    @property
    def prev(self) -> tasklet | None:
        found = self._prev
        return found if isinstance(found, tasklet) else None

    @property
    def waits_for(self) -> str:
        """In words, what it waits for; empty when it does not."""
        if self._channel is not None:
            verb = "receive from" if self._channel.balance < 0 else "send to"
            return f"{verb} {self._channel!r}"
        return self._waiting.what if self._waiting is not None else ""

    @property
    def frame(self) -> Any:
        """The innermost Python frame of a tasklet, for the running one its caller's; None when it did not
        start or is dead.
        """
        if not self.is_current:
            suspended = self._suspended()
            return outside_core(suspended.gr_frame) if suspended is not None else None
        here = self.thread_id == get_ident()
        return outside_core(sys._getframe() if here else sys._current_frames().get(self.thread_id))

    @property
    def thread_id(self) -> int:
        """The `threading.get_ident()` of its OS thread; -1 when that has ended."""
        return self._scheduler.thread_id

    @property
    def recursion_depth(self) -> int:
        """How many Python calls are on its stack."""
        return sum(1 for _ in outwards(self.frame))

    @property
    def trace_function(self) -> Any:
        """The trace function (see `sys.settrace`) of this tasklet alone."""
        return _tracing.get(self, _tracing.TRACE, self._runs_here())

    @trace_function.setter
    def trace_function(self, function: Any) -> None:
        self._set_tracing(_tracing.TRACE, function)

    @property
    def profile_function(self) -> Any:
        """The profile function (see `sys.setprofile`) of this tasklet alone."""
        return _tracing.get(self, _tracing.PROFILE, self._runs_here())

    @profile_function.setter
    def profile_function(self, function: Any) -> None:
        self._set_tracing(_tracing.PROFILE, function)

    def _set_tracing(self, which: int, function: Any) -> None:
        if not self.alive:
            raise RuntimeError("tasklet is not alive")
        _tracing.put(self, which, function, self._runs_here())

    def _runs_here(self) -> bool:
        return self.is_current and self.thread_id == get_ident()

    @property
    def nesting_level(self) -> int:
        """1 when it has started (its C stack is part of it then), else 0."""
        return int(self._has_begun and not self.is_main)

    @property
    def cstate(self) -> None:
        """Stackless's picture of a C stack. There is none here."""
        return None

    @property
    def restorable(self) -> bool:
        """True when it can be pickled: it did not start yet."""
        return not self._has_begun

    @property
    def _has_begun(self) -> bool:
        return self._greenlet is not None or self._wake is not None or (self._alive and self._call is None)

    @property
    def atomic(self) -> bool:
        """True while a `run(n)` must not interrupt it."""
        return self._atomic

    @property
    def ignore_nesting(self) -> bool:
        """What `set_ignore_nesting` set. Nesting never keeps a `run(n)` from interrupting here."""
        return self._ignore_nesting

    def set_atomic(self, flag: int, /) -> bool:
        """Set the flag `atomic`, return the old one. An atomic tasklet must not block (but see `stackless.install`)."""
        self._atomic, old = _as_flag(flag), self._atomic
        self._traps = self._traps & BLOCK | (ATOMIC if self._atomic and wording.atomic_refuses else 0)
        return old

    @property
    def block_trap(self) -> bool:
        """While True, an action that would have to wait raises RuntimeError."""
        return bool(self._traps & BLOCK)

    @block_trap.setter
    def block_trap(self, flag: int) -> None:
        self._traps = self._traps & ATOMIC | (BLOCK if _as_flag(flag) else 0)

    def set_ignore_nesting(self, flag: int, /) -> bool:
        """Set the flag `ignore_nesting`, return the old one."""
        self._ignore_nesting, old = _as_flag(flag), self._ignore_nesting
        return old

    # -- context variables -----------------------------------------------------------------------------------

    def set_context(self, context: Context, /) -> tasklet:
        """Let it run in this context (of context variables) from now on."""
        if not isinstance(context, Context):
            raise TypeError(f"a contextvars.Context is required, not {type(context).__name__}")
        if self.is_current:
            raise RuntimeError(
                "the current tasklet cannot change its context; run a function in it: context.run(f)"
            )
        self._check_thread()
        suspended = self._suspended()
        if suspended is not None and suspended.gr_frame is not None:  # else nobody could use the context
            if self._context is not None and suspended.gr_context is not self._context:
                raise RuntimeError(
                    "it is inside of Context.run(), which will bring back the context it had before"
                )
            suspended.gr_context = context
        self._context = context
        return self

    def _get_context(self) -> Context:
        if self.is_current and self._scheduler is get_scheduler():
            return _running_context()
        suspended = self._suspended()
        found = self._context
        if suspended is not None and suspended.gr_frame is not None:
            found = suspended.gr_context
        if found is None:
            found = copy_context() if suspended is None else Context()
            self.set_context(found)
        return found

    def _suspended(self) -> Any:
        """Its greenlet, when it has one, wherever it waits."""
        return self._wake[0] if self._greenlet is None and self._wake is not None else self._greenlet

    def context_run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function in the context of this tasklet, and return its result."""
        if self.is_current:
            return function(*args, **kwargs)
        return self._get_context().run(function, *args, **kwargs)

    @property
    def context_id(self) -> int:
        """The `id()` of its context."""
        return id(self._get_context())

    # -- as an entry of a queue ------------------------------------------------------------------------------

    def take(self, value: Any) -> None:
        """A gevent greenlet has its turn from the loop, not in the ring."""
        self._channel = None
        self.tempval = value
        self._scheduler.wake_foreign(self)

    @property
    def waiter(self) -> tasklet | None:
        return self

    # -- what gevent calls on its greenlet, see Scheduler._show_to_gevent ------------------------------------

    def _switch_from_hub(self, *args: Any) -> Any:
        if self._scheduler.current is not None:
            return _switch_with(self._greenlet, *args)
        return self._scheduler.wake_from_hub(self, args)

    def _throw_from_hub(self, *args: Any) -> Any:
        if self._scheduler.current is not None:
            return _throw(self._greenlet, *args)
        return self._scheduler.throw_from_hub(self, args)

    # -- threads and pickles ---------------------------------------------------------------------------------

    def bind_thread(self, thread_id: int = -1) -> None:
        """Move a tasklet that did not start to the calling OS thread, or to that of the given id."""
        if thread_id < -1:
            raise OverflowError("can't convert negative int to unsigned")
        if self._next is not None and not self.blocked:
            raise wording.misuse("can't (re)bind a runnable tasklet")
        if self._has_begun:
            raise wording.misuse("tasklet has C state on its stack")
        if thread_id in (-1, threading.get_ident()):
            self._scheduler = get_scheduler()
            return
        found = [each for each in living_schedulers() if each.thread_id == thread_id]
        if not found:
            raise ValueError("bad thread")
        self._scheduler = found[0]

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._has_begun:
            raise TypeError(
                f"cannot pickle {self!r}: it has started, and its stack cannot leave this process. "
                "Keep what is to be saved in an object, and make a new tasklet from it"
            )
        state = (
            self.tempval,
            self._call,
            self.block_trap,
            self._atomic,
            self._ignore_nesting,
            getattr(self, "__dict__", None),
        )
        return _make_unpickled, (type(self),), state

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        function, call, self.block_trap, atomic, self._ignore_nesting, attributes = state
        self.set_atomic(atomic)
        if attributes:
            self.__dict__.update(attributes)
        if function is not None:
            self.bind(function, *(call or ()))

    def __repr__(self) -> str:
        if self.is_current:
            state = "current"
        elif self.blocked:
            state = f"waits: {self.waits_for}"
        elif self._next is not None:
            state = "scheduled"
        elif self.alive:
            state = "of gevent" if self._special else "paused"
        else:
            state = "dead" if self.tempval is None else "bound"
        return f"<tasklet {self.name or hex(id(self))!r} {state}>"


def _make_unpickled(cls: type[tasklet]) -> tasklet:
    return cls.__new__(cls)


def _new_tasklet(cls: type[tasklet], *args: Any, **kwargs: Any) -> tasklet:
    one = object.__new__(cls)
    one.__cinit__()
    return one


if not cython.compiled:
    tasklet.__new__ = staticmethod(_new_tasklet)  # type: ignore[assignment]


def _as_flag(value: Any) -> bool:
    if not isinstance(value, int):
        raise TypeError(f"a flag is an int or a bool, not {type(value).__name__}")
    return bool(value)


def _running_context() -> Context:
    here = current_greenlet()
    if here.gr_context is None:
        here.gr_context = Context()
    found = here.gr_context
    assert found is not None
    return found


def _make_exception(exc: Any, val: Any = None, tb: Any = None) -> BaseException:
    if isinstance(exc, type) and issubclass(exc, BaseException):
        if isinstance(val, exc):
            made: BaseException = val
        elif val is None:
            made = exc()
        else:
            made = exc(*val) if isinstance(val, tuple) else exc(val)
    elif isinstance(exc, BaseException):
        if val is not None:
            raise TypeError("instance exception may not have a separate value")
        made = exc
    else:
        raise TypeError(f"exceptions must be classes, or instances, not {type(exc).__name__}")
    return made.with_traceback(tb) if tb is not None else made


class channel:
    """Passes messages between tasklets.

    With `capacity` 0 a send returns when a receiver has taken the message (and the other way round); with
    capacity n, when there is room for it among n waiting messages. Waiting tasklets are served first come,
    first served. With `copy` every value sent is replaced by `freeze(value)`, so that nothing is shared by
    sender and receiver, just as if a network were between them.
    """

    __slots__ = (
        "__weakref__",
        "_balance",  # > 0: so many entries of the queue want to send; < 0: to receive
        "_buffer",  # messages that have no receiver yet; None with capacity 0
        "_first",  # the queue of waiting entries, linked by _next and _prev
        "_freeze",
        "_last",
        "_observer",  # told when the channel is closed: the package `net` keeps its exported form here
        "_preference",
        "_schedule_all",
        "capacity",
        "closing",
        "name",
    )

    def __init__(self, capacity: int = 0, name: str | None = None, *, copy: bool = False) -> None:
        if not isinstance(capacity, int) or capacity < 0:
            raise ValueError(
                f"capacity is the number of messages that may wait: an int >= 0, not {capacity!r}"
            )
        self.capacity = capacity
        self.name = name
        self.closing = False
        self._schedule_all = False
        self._preference = -1
        self._balance = 0
        self._first: Any = None
        self._last: Any = None
        self._buffer: deque[Any] | None = deque() if capacity else None
        self._observer: Observer | None = None
        self._freeze: Callable[[Any], Any] | None = None
        if copy:
            from tasklets.freezing import freeze

            self._freeze = freeze

    # -- sending and receiving -------------------------------------------------------------------------------

    # The usual cases only, so that compiled methods need little of the stack, which is copied at each switch. Whatever
    # is not usual is done by `_watched`, in the same order.

    def send(self, value: Any, /) -> None:
        """Send a message. Blocks until it is taken (capacity 0), or until there is room for it.

        Raises ChannelClosed when the channel is closed and nobody waits for the message.
        """
        if self._freeze is not None and type(value) is not bomb:
            value = self._freeze(value)
        scheduler = _thread.scheduler
        me = scheduler.current
        if me is None or _watching:
            _watched.send(get_scheduler(), self, value)
        elif self._balance < 0:
            if self._first._special:
                _watched.send(scheduler, self, value)
                return
            partner = self._first
            if partner._scheduler is not scheduler:
                raise self._of_two_threads()
            # This is _shift, here and in `receive` without the call.
            after = self._first = partner._next
            if after is None:
                self._last = None
            else:
                after._prev = partner._next = None
            self._balance += 1
            partner._channel = None
            partner.tempval = value
            scheduler.meet(self, me, partner, self._preference == -1)
        elif self._buffer is not None and len(self._buffer) < self.capacity and not self.closing:
            self._buffer.append(value)
            if scheduler.alone:
                scheduler.may_yield()
        else:
            if me._traps or self.closing:
                self._refuse_to_block(me, "send to")
            me.tempval = value
            scheduler.block(me, self, 1)

    def receive(self) -> Any:
        """Take the next message. Blocks until there is one.

        Raises ChannelClosed when the channel is closed and no message waits, and whatever exception was sent
        instead of a message.
        """
        scheduler = _thread.scheduler
        me = scheduler.current
        if me is None or _watching:
            return _watched.receive(get_scheduler(), self)
        if self._buffer:
            value = self._buffer.popleft()
            if self._balance > 0:
                self._refill()
            if scheduler.alone:
                scheduler.may_yield()
        elif self._balance > 0:
            if self._first._special:
                return _watched.receive(scheduler, self)
            partner = self._first
            if partner._scheduler is not scheduler:
                raise self._of_two_threads()
            value = partner.tempval
            after = self._first = partner._next
            if after is None:
                self._last = None
            else:
                after._prev = partner._next = None
            self._balance -= 1
            partner._channel = partner.tempval = None
            scheduler.meet(self, me, partner, self._preference == 1)
        else:
            if me._traps or self.closing:
                self._refuse_to_block(me, "receive from")
            me.tempval = None
            return scheduler.block(me, self, -1)
        if type(value) is bomb:
            me.tempval, value = value, None
            return scheduler._result(me)
        return value

    def _refill(self) -> None:
        """Room was made in the buffer: the first waiting sender's message moves in, and the sender goes
        on.
        """
        assert self._buffer is not None
        entry = self._shift()
        self._buffer.append(entry.tempval)
        complete(entry, None)

    def send_exception(self, cls: type[BaseException], *args: Any) -> None:
        """Make the receiver raise `cls(*args)`. Blocks like `send`."""
        if not (isinstance(cls, type) and issubclass(cls, BaseException)):
            raise TypeError(f"send_exception wants an exception class, not {cls!r}")
        self.send(bomb(cls(*args)))

    def send_throw(self, exc: Any, val: Any = None, tb: Any = None) -> None:
        """Make the receiver raise an exception given as to the `raise` statement; its traceback is kept."""
        self.send(bomb(_make_exception(exc, val, tb)))

    def send_sequence(self, items: Iterable[Any], /) -> int:
        """Send each item; return how many there were."""
        count = 0
        for item in items:
            self.send(item)
            count += 1
        return count

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self.closing and self.balance <= 0:
            raise StopIteration
        try:
            return self.receive()
        except ChannelClosed as error:
            if error.channel is not self:
                raise  # sent as a message, or the failure of a tasklet that main has to hear of
            raise StopIteration from None

    # -- closing ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let no new message wait. Those that wait are still received; who waits to receive gets ChannelClosed.

        Waking the receivers is where we differ from Stackless, which leaves them waiting for ever.
        """
        if self.closing:
            return
        with gate:
            self.closing = True
            while self._balance < 0:
                self._fail_first(ChannelClosed(self._closed_text("receive from"), self))
            if self._observer is not None:
                self._observer.channel_closed()

    def _fail_first(self, error: BaseException) -> None:
        """Make the first waiting receiver raise `error`."""
        complete(self._shift(), bomb(error))

    def open(self) -> None:
        """Undo `close()`."""
        self.closing = False

    @property
    def closed(self) -> bool:
        """True when it is closing and no message is left in it."""
        return self.closing and self.balance == 0

    # -- state -----------------------------------------------------------------------------------------------

    @property
    def balance(self) -> int:
        """How many messages wait (> 0; senders that wait counted in), or minus the number of waiting
        receivers.
        """
        return self._balance + len(self._buffer) if self._buffer is not None else self._balance

    @property
    def queue(self) -> tasklet | None:
        """The first tasklet that waits."""
        first = self._first
        return first.waiter if first is not None else None

    @property
    def preference(self) -> int:
        """Who runs when both sides have met: -1 the receiver (the default), 1 the sender, 0 whoever acted."""
        return self._preference

    @preference.setter
    def preference(self, value: int) -> None:
        if not isinstance(value, int):
            raise TypeError("preference must be -1, 0 or 1")
        self._preference = max(-1, min(1, value))

    @property
    def schedule_all(self) -> int:
        """1: whoever finds a partner lets all others run first, whatever the preference. 0 by default."""
        return int(self._schedule_all)

    @schedule_all.setter
    def schedule_all(self, value: int) -> None:
        self._schedule_all = _as_flag(value)

    def __reduce_ex__(self, protocol: Any) -> Any:
        known_elsewhere = (
            self._observer is not None or type(self)._receive_is_ready is not channel._receive_is_ready
        )
        if self._balance or self._freeze is not None or known_elsewhere:
            raise TypeError(
                f"cannot pickle {self!r}: tasklets wait in it, or it is known to other processes. "
                "Pickle it while nobody waits, or send it over a channel of `net`"
            )
        state = (
            self._preference,
            self._schedule_all,
            self.closing,
            tuple(self._buffer or ()),
            getattr(self, "__dict__", None),
        )
        return type(self), (self.capacity, self.name), state

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._preference, self._schedule_all, self.closing, messages, attributes = state
        if self._buffer is not None:
            self._buffer.extend(messages)
        if attributes:
            self.__dict__.update(attributes)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "closing" if self.closing else "open"
        label = repr(self.name) if self.name else hex(id(self))
        return f"<channel {label} balance={self.balance} {state}>"

    # -- the queue -------------------------------------------------------------------------------------------

    def _push(self, entry: Any, direction: int) -> None:
        last = self._last
        entry._prev = last
        entry._next = None
        if last is None:
            self._first = entry
        else:
            last._next = entry
        self._last = entry
        self._balance += direction

    def _unshift(self, entry: Any, direction: int) -> None:
        first = self._first
        entry._prev = None
        entry._next = first
        if first is None:
            self._last = entry
        else:
            first._prev = entry
        self._first = entry
        self._balance += direction

    def _shift(self) -> Any:
        entry = self._first
        after = entry._next
        self._first = after
        if after is None:
            self._last = None
        else:
            after._prev = None
            entry._next = None
        self._balance += 1 if self._balance < 0 else -1
        return entry

    def _discard(self, entry: Any) -> None:
        """Take an entry out of the middle of the queue."""
        before, after = entry._prev, entry._next
        if before is None:
            self._first = after
        else:
            before._next = after
        if after is None:
            self._last = before
        else:
            after._prev = before
        entry._next = entry._prev = None
        self._balance += 1 if self._balance < 0 else -1

    # -- what select needs (a reference to a channel elsewhere has its own) ----------------------------------

    def _receive_is_ready(self) -> bool:
        return bool(self._buffer) or self._balance > 0 or self.closing

    def _send_is_ready(self) -> bool:
        return (
            self._balance < 0
            or self.closing
            or (self._buffer is not None and len(self._buffer) < self.capacity)
        )

    def _enter_case(self, case: Any) -> None:
        self._push(case, 1 if case.sending else -1)
        case.queued = True

    def _leave_case(self, case: Any) -> None:
        if case.queued:
            case.queued = False
            self._discard(case)

    def _refuse_to_block(self, me: tasklet, verb: str) -> None:
        if me._traps:
            raise wording.block_trap(f"{verb} {self!r}", me)
        raise ChannelClosed(self._closed_text(verb), self)

    def _closed_text(self, verb: str) -> str:
        return f"{CLOSED}: cannot {verb} {self!r}; look at .closing first, or iterate over it"

    def _of_two_threads(self) -> TaskletError:
        return TaskletError(
            f"somebody of another OS thread waits in {self!r}, in a way that cannot be ended from this thread: by a "
            "select, as a gevent greenlet, or its thread has ended. Let a tasklet wait there, by send() or receive()"
        )


def complete(entry: Any, value: Any) -> None:
    """End the wait of an entry that has just left its queue: it gets `value`, None for a sender. Never blocks."""
    if entry._special:
        partner = entry.take(value)
        if partner is not None:
            partner._scheduler.wake(partner)
    else:
        entry._channel = None
        entry.tempval = value
        entry._scheduler.wake(entry)


class Wording:
    """Makes the errors whose text Stackless fixed: here to the letter, and with its rules where ours differ.

    What the package uses, unless `tasklets.stackless` is installed, says also what to do instead: see `_advice`.
    """

    atomic_refuses = False  # an atomic tasklet may not block
    shares_contexts = True  # a tasklet gets the very context of who binds it, and not a copy

    def deadlock(self, text: str, victim: tasklet | None, kind: type[Exception] = DeadlockError) -> Exception:
        return RuntimeError(text) if kind is DeadlockError else kind(text)

    def block_trap(self, wish: str, victim: tasklet) -> Exception:
        return self.misuse(BLOCK_TRAP)

    def misuse(self, text: str, detail: str = "", kind: type[Exception] = RuntimeError) -> Exception:
        return kind(text)

    def suicide(self) -> TaskletExit:
        return TaskletExit()


wording = Wording()

CURRENT: Any = object()  # stands for the current tasklet where that is the default
_CURRENT: Any = CURRENT  # compiled, a C variable

_gevent_is_there = False  # it has been imported: it has to find its hooks on the greenlets of tasklets

# True while a field of `watch` is set, and while several threads have schedulers: then `_watched` has to be asked.
_watching = False


def _follow_watch(wanted: bool) -> None:
    global _watching
    if wanted and not _watching:
        for each in living_schedulers():
            each.last_run = each.current
    _watching = wanted


followers.append(_follow_watch)


def is_watching() -> bool:
    """True while `_watched` is asked at every switch and action."""
    return _watching


def welcome_gevent() -> None:
    """gevent is being imported: from now on, let it find its hooks on the greenlet of every tasklet."""
    global _gevent_is_there
    _gevent_is_there = True
    for one in all_tasklets():
        scheduler = getattr(one, "_scheduler", None)
        if scheduler is not None:
            scheduler._show_to_gevent(one)


def all_tasklets() -> list[tasklet]:
    """Those of all OS threads, as the collector knows them: a list of our own would cost every tasklet something."""
    # Not isinstance: it asks proxies for their __class__, and dead ones raise.
    return [each for each in gc.get_objects() if issubclass(type(each), tasklet)]


class Scheduler:
    """The ring of one OS thread, and the ways in and out of it. The module docstring has the theory."""

    __slots__ = (
        "__weakref__",
        "_clock_seen",
        "_failure",
        "_hub_visit",
        "_last_blocked",
        "_retired",
        "_root",
        "_starter",
        "_successor",
        "_switches_left",
        "_target",
        "alone",
        "asleep",
        "bell",
        "count",
        "current",
        "endings",
        "head",
        "idle",
        "inbox",
        "last_run",
        "limits",
        "main",
        "quiet",
        "reactor",
        "runners",
        "sources",
        "thread_id",
        "threadblock",
        "trap",
        "waiting",
        "workers",
    )

    def __init__(self, *, alone: bool = False) -> None:
        # It draws who goes on, and has nothing to do with other threads: that of `tasklets.testing.explore`.
        self.alone = alone
        # The running tasklet; None while the event loop is in control. Any: most of the code here knows which it is.
        self.current: Any = None
        self.head: tasklet | None = None
        self.count = 0  # members of the ring
        self.waiting = 0  # tasklets of this thread that wait for a timer or for I/O
        # Asked when the ring is empty: may something from outside (another process) still wake a tasklet that
        # waits on a channel?
        self.sources: list[Callable[[], bool]] = []
        # Called when this thread ends, while its event loop is still there; not for the main thread, see atexit.
        self.endings: list[Callable[[], object]] = []
        self.runners: list[tasklet] = []  # who called run(), outermost first
        self.limits: dict[object, tasklet] = {}  # timeouts that are running -> whose wait they will end
        self.idle: list[greenlet] = []
        self.workers = 0  # greenlets that have begun and not ended, the idle ones included
        self.reactor: Reactor | None = None
        self._retired = 0  # workers that were let go since memory was last given back
        self._successor: tuple[tasklet | None] | None = (
            None  # a worker that retires tells the starter whom to run
        )
        self._failure: BaseException | None = None  # what has just left the current tasklet
        self._target: tasklet | None = None  # whom switch_to_target() switches to
        self._switches_left = NO_HUB
        self._clock_seen = 0.0  # when the clock was last read
        self._hub_visit = 0.0  # when the event loop last had its turn
        self._last_blocked: tasklet | None = None
        self.thread_id = threading.get_ident()  # -1 when the thread has ended
        self.threadblock = False  # run() waits for other threads too: Stackless's flag
        self.trap = 0  # switch_trap: while not 0, no switch is allowed
        self.quiet = False  # a callback runs, which may neither switch nor use a channel
        self.last_run: tasklet | None = None  # who ran last; only a watched scheduler keeps it up to date
        # What other threads want done here; looked at when _switches_left is 0, and when the ring is empty.
        self.inbox: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.bell: threading.Event | None = (
            None  # ends the sleep of a thread that has an empty ring and no hub
        )
        self.asleep = False  # nothing happens in this thread until another one sends something
        here = current_greenlet()
        root = here
        while root.parent is not None:
            root = root.parent
        _enter_thread(self)
        main = self.main = tasklet()
        main.name = "main"
        main._alive = True
        main._greenlet = self._root = root
        # What gevent calls; see `_show_to_gevent`.
        root.switch_out = self.leave_to_hub  # type: ignore[attr-defined]
        root.switch = self._switch_main  # type: ignore[method-assign]
        root.throw = self._throw_main  # type: ignore[method-assign]
        if here is root:
            self.append(main)
            self.current = main
        else:  # begun by a gevent greenlet: main waits in the hub
            main._waiting = _IN_HUB
            self.waiting = 1
            self.get_reactor()
        self._starter = greenlet(self._start_workers, parent=root)
        _switch_with(self._starter, here)

        if not alone:
            with gate:
                was_watching = _watching
                _schedulers.add(self)
                self.last_run = self.current
                change_watch(threads=len({each.thread_id for each in living_schedulers()}))
            if _watching and not was_watching:
                _watched.wait_until_others_are_outside([o for o in living_schedulers() if o is not self])
            if watch.switched:
                _watched.announce_birth(self)

    # -- the ring --------------------------------------------------------------------------------------------

    def append(self, one: tasklet) -> None:
        """Put at the end of the line."""
        if _watching and not self.alone:
            _watched.append(self, one)
        else:
            self.link(one)

    def link(self, one: tasklet) -> None:
        head = self.head
        if head is None:
            one._next = one._prev = one
            self.head = one
        else:
            last = head._prev
            one._prev = last
            one._next = head
            last._next = one
            head._prev = one
        self.count += 1

    def unlink(self, one: tasklet) -> None:
        after = one._next
        if after is one:
            self.head = None
        else:
            before = one._prev
            before._next = after
            after._prev = before
            if self.head is one:
                self.head = after
        one._next = one._prev = None
        self.count -= 1

    def wake(self, one: tasklet) -> None:
        """Put at the end of the line, and see to it that the ring gets a turn if the hub is in control."""
        self.append(one)
        if _watching and self is not get_scheduler():
            self.notice()
        elif self.current is None and self.reactor is not None:
            self.reactor.arm()

    # -- switching -------------------------------------------------------------------------------------------

    def switch_to(self, target: tasklet) -> None:
        """Give the turn to `target`, which is in the ring. Returns when the calling greenlet is resumed."""
        self._target = target
        self.switch_to_target()

    def switch_to_target(self) -> None:
        """Give the turn to `_target`. As an argument it would be kept alive by whoever is suspended here for long."""
        target: Any = self._target
        self._target = None
        if _watching and not self.alone:
            _watched.announce(self, target)
        worker = target._greenlet
        if worker is None:
            if target._wake is not None:  # it waits inside gevent, whose calls want their result
                worker, error, args = target._wake
                target._greenlet = worker
                target._wake = None
                self.head = self.current = target
                target = None
                if error is not None:
                    _throw(worker, error)
                else:
                    _switch_with(worker, *args)
                return
            worker = self.idle.pop() if self.idle else self._starter
        self.head = self.current = target
        target = None
        _switch(worker)
        if _watching:
            _watched.come_back()

    def give_way(self) -> None:
        """Let others run; the current tasklet has left the ring.

        Returns when it is resumed. Raises DeadlockError when nobody ever could.
        """
        following = self.head
        if following is None:
            following = self._when_empty(self.current)
        if following is None or (following is not self.current and self._hub_is_due()):
            self._enter_hub()
        elif following is not self.current:
            following = None
            self._target = self.head  # another thread may have wished for another one, see `drain`
            self.switch_to_target()

    def _regain(self, me: tasklet) -> None:
        """The exception that is being handled came out of a switch or of our own code: `me` runs, whatever the books
        say.
        """
        if me.blocked:
            self._unblock(me)
        # The collector ends a greenlet in the middle of somebody else's turn.
        if not me._special and not isinstance(sys.exc_info()[1], GreenletExit):
            if me._next is None:
                self.append(me)
            self.head = self.current = me

    def _pause(self) -> Any:
        """Leave the ring, and return what the current tasklet is resumed with.

        Nothing here may refer to it: it is ended when nobody else does.
        """
        me: Any = ref(self.current)
        if _gevent_is_there:
            self._hide_from_gevent(self.current)
        try:
            self.unlink(self.current)
            self.give_way()
        except BaseException:
            if me() is not None:
                self._regain(me())
            raise
        finally:
            if _gevent_is_there and me() is not None:
                self._show_to_gevent(me())
        if self.inbox:
            self.drain()
        return self._result(self.current)

    def end_forgotten(self, one: tasklet) -> None:
        """Nobody refers to a paused tasklet any more: let it clean up, here and now.

        It is in no ring then, so it can neither wait nor let others run; it can send to who waits already.
        """
        worker = one._greenlet
        before = self.current
        one._special = one.block_trap = True
        worker.parent = current_greenlet()
        self.current = one
        try:
            _throw(worker, TaskletExit)
        finally:
            self.current = before
            if before is None and self.head is not None:
                self.get_reactor().arm()

    def _when_empty(self, me: tasklet | None) -> tasklet | None:
        """Who goes on when the ring is empty: a tasklet (put into the ring), or None for the event loop.

        `me` just blocked; None: it ended.
        """
        if self.inbox:
            self.drain()
            if self.head is not None:
                return self.head
        runner = self.runners[-1] if self.runners else None
        if runner is not None and not self._may_go_on():
            if self.threadblock:
                if self.reactor is None:
                    if self._sleep():
                        return self.head
                elif self._others_may_wake():
                    self._last_blocked = me
                    return None
            self.append(runner)
            return runner
        if runner is None and self.main.paused:
            self.append(self.main)
            return self.main
        if self.reactor is not None:
            self._last_blocked = me
            return None
        if self._sleep():
            return self.head
        if me is None:
            self._interrupt(self.main, self._main_is_stuck())
            return self.main
        raise wording.deadlock(DEADLOCK, me)

    def _may_go_on(self) -> bool:
        """With an empty ring: will time, I/O or another process make a tasklet runnable?"""
        return (
            self.waiting > 0
            or any(one.blocked for one in self.limits.values())
            or any(source() for source in self.sources)
        )

    def _main_is_stuck(self) -> Exception:
        stuck = self.main._channel
        verb = (
            "sending without a receiver"
            if stuck is not None and stuck._balance > 0
            else "receiving without a sender"
        )
        return wording.deadlock(f"the main tasklet is {verb} available.", self.main)

    def _result(self, me: tasklet) -> Any:
        value = me.tempval
        me.tempval = None
        if type(value) is bomb:
            try:
                raise value.value
            finally:
                del value  # see _defuse
        return value

    def block(self, me: tasklet, where: channel, direction: int) -> Any:
        """Queue `me` (its tempval is ready) on a channel, and return what the partner hands over."""
        if me._alarm is not None:
            self.check_alarm(me)
        following = me._next
        if following is not None:
            # This is unlink and _push, without the calls: for speed, and so that Ctrl-C finds both done or none.
            if following is me:
                following = self.head = None
            else:
                before = me._prev
                before._next = self.head = following
                following._prev = before
            self.count -= 1
        me._channel = where
        me._next = None
        last = me._prev = where._last
        where._last = me
        if last is None:
            where._first = me
        else:
            last._next = me
        where._balance += direction
        self._switches_left -= 1
        is_resumed = False
        # Not `except`: compiled, a `finally` costs nothing as long as nothing is raised.
        try:
            if following is None or self._switches_left <= 0:
                self.wait_in(me)
            else:
                worker = following._greenlet
                if worker is None:
                    self._target, following = following, None
                    self.switch_to_target()
                else:
                    self.head = self.current = following
                    following = None  # who is suspended here for long keeps nobody alive
                    _switch(worker)
            is_resumed = True
        finally:
            if not is_resumed:  # a deadlock, Ctrl-C, gevent.kill of a foreign greenlet, the collector
                self._regain(me)
        value = me.tempval
        if type(value) is bomb:
            del value
            return self._result(me)
        me.tempval = None
        return value

    def refuse_if_trapped(self) -> None:
        if self.trap:
            raise wording.misuse("switch_trap")

    def refuse_if_quiet(self) -> None:
        if self.quiet:
            raise wording.misuse("a callback cannot use channels")

    def may_yield(self) -> None:
        """After an action that found room, or a message, and so met nobody. A place to draw, see `alone`."""

    def meet(self, where: channel, me: tasklet, partner: tasklet, partner_first: bool) -> None:
        """After a channel action with a partner that waited: decide who goes on."""
        if me._special:
            self.wake(partner)
        elif where._schedule_all:
            self.append(partner)
            self.schedule(None)
        elif partner_first:
            # It takes my place: right behind me, and I become the last in line.
            after = me._next
            partner._prev = me
            partner._next = after
            me._next = partner
            after._prev = partner
            self.count += 1
            worker = partner._greenlet
            if worker is None or _watching:
                self.switch_to(partner)
            else:
                self.head = self.current = partner
                _switch(worker)
            if me.tempval is not None:
                self._result(me)
        else:
            head = self.head  # me: the end of the line is just before it
            last = partner._prev = me._prev
            partner._next = head
            last._next = me._prev = partner
            self.count += 1

    def wait_in(self, me: tasklet) -> None:
        """`me` has been entered wherever it is to wait: let others run until it is resumed."""
        if me._special:
            self._wait_as_foreign(me)
        else:
            self.give_way()

    def park(self, wait: Wait) -> Any:
        """Block the current tasklet until `wait` is over."""
        self.refuse_if_trapped()
        me = self.current or self.adopt()
        try:
            self.check_alarm(me)
            if me._traps:
                raise wording.block_trap(wait.what, me)
            if me._next is not None:
                self.unlink(me)
            wait.adopt(me)
            self.wait_in(me)
        except BaseException:
            if me._waiting is not wait and not wait.over:
                wait._interrupted()  # it never came to wait; a timer or a case of a select is to be withdrawn
            self._regain(me)
            raise
        return self._result(me)

    def end_wait(self, one: tasklet, value: Any) -> None:
        wait = one._waiting
        one._waiting = None
        one.tempval = value
        if one._special:
            self.wake_foreign(one)
        else:
            if wait is not None and wait.outside:
                self.waiting -= 1
            self.wake(one)

    def schedule(self, retval: Any) -> Any:
        """Let every other runnable tasklet run once."""
        me = self.current
        if me is None or me._special or self.trap:
            if self._schedule_specially():
                return (self.current or self.adopt()) if retval is _CURRENT else retval
            me = self.current
        if me._alarm is not None:
            self.check_alarm(me)
        me.tempval = me if retval is _CURRENT else retval
        self._switches_left -= 1
        due = self._switches_left <= 0 and self._look_at_hub()
        following = me._next
        is_resumed = False
        try:
            if due:
                self.head = following
                self._enter_hub()
            elif following is not me:
                worker = following._greenlet
                if worker is None or _watching:
                    self.switch_to(following)
                else:
                    self.head = self.current = following
                    _switch(worker)
            is_resumed = True
        finally:
            if not is_resumed:
                self._regain(me)
        return self._result(me)

    def _schedule_specially(self) -> bool:
        """schedule() of somebody who is in no ring, or with a switch_trap set. Returns True when it has been done."""
        if self.trap and (self.count > 1 or self.quiet):
            self.refuse_if_trapped()
        me = self.current or self.adopt()
        if me._special:
            self.check_alarm(me)
            if me._traps:
                raise wording.block_trap("for its turn", me)
            self.wake_foreign(me)
            self._wait_as_foreign(me)
        return bool(me._special)

    def schedule_remove(self, retval: Any) -> Any:
        """Leave the ring, paused."""
        self.refuse_if_trapped()
        if self.current is None or self.current._special:
            raise RuntimeError(
                "a gevent greenlet is in no ring, so it cannot be removed from one; use gevent's own waiting"
            )
        self.current.tempval = self.current if retval is _CURRENT else retval
        return self._pause()

    def run_now(self, target: tasklet, leave: bool = False) -> Any:
        if self.current is None or self.current._special:
            raise RuntimeError(f"{target!r}.run() works from a tasklet; from a gevent greenlet use insert()")
        if target is self.current:
            return None
        self.refuse_if_trapped()
        if target._next is None:
            self.append(target)
        if leave:
            self.head = target  # so that it is who goes on
            return self._pause()
        me = self.current
        self.switch_to(target)
        return self._result(me)

    def run(self) -> None:
        """Let the tasklets run until none is runnable and none waits for a timer, I/O or another process.

        Raises the exception that leaves a tasklet, at once; the others stay in line for the next run().
        """
        if self.trap and (self.count > 1 or self.quiet):
            self.refuse_if_trapped()
        me = self.current
        if me is None or me._special:
            raise RuntimeError(
                "run() is for tasklets and the main program, not for a gevent greenlet: there the tasklets run anyway"
            )
        try:
            # Everything runs on behalf of main, also a tasklet that called run() while main waited elsewhere.
            self.runners.insert(0 if me is self.main else len(self.runners), me)
            self._pause()
        finally:
            if me in self.runners:  # else an outer run() that returned first has ended this one already
                depth = self.runners.index(me)
                for above in self.runners[depth + 1 :]:
                    if above.paused:
                        self.append(above)
                del self.runners[depth:]

    # -- other threads ---------------------------------------------------------------------------------------

    def _others_may_wake(self) -> bool:
        """May a tasklet of another OS thread, or one that is still to come, put somebody into this ring?

        A daemon thread counts when it has used tasklets: many only serve some library.
        """
        if self.alone:
            return False
        with gate:
            self.asleep = True
            known = {each.thread_id: each for each in living_schedulers()}
            for thread in threading.enumerate():
                other = known.get(thread.ident or 0)
                if other is self or not thread.is_alive():
                    continue
                if other is None:
                    if not thread.daemon:
                        return True
                elif not other.asleep or other.head is not None or other.inbox:
                    return True
            self.asleep = False
            return False

    def _sleep(self) -> bool:
        """Let the thread sleep until another one puts a tasklet into its ring. False: that will never happen."""
        bell = self.bell
        if bell is None:
            bell = self.bell = threading.Event()
        try:
            while True:
                bell.clear()
                self.drain()
                if self.head is not None:
                    return True
                if not self._others_may_wake():
                    self.drain()
                    return self.head is not None  # the last one may have done something before it ended
                bell.wait(OTHERS_CHECK)
        finally:
            self.asleep = False

    def notice(self) -> None:
        """From another thread: something has been put into the ring, or into the inbox."""
        self._switches_left = 0
        if self.bell is not None:
            self.bell.set()
        if self.reactor is not None:
            self.reactor.arm_from_elsewhere()

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """From another thread: let this one call a function, soon."""
        self.inbox.append((function, args))
        self.notice()

    def drain(self) -> None:
        """Do what other threads want done."""
        while self.inbox:
            function, args = self.inbox.popleft()
            function(*args)

    def remove_later(self, one: tasklet) -> None:
        if one._next is not None and not one.blocked and one is not self.current and one is not self.head:
            self.unlink(one)

    def throw_later(self, one: tasklet, error: BaseException) -> None:
        if one is self.current and not one.blocked:
            self.alarm(one, error)  # raised at its next blocking point
        elif one.alive:
            self._interrupt(one, error)

    # -- interrupting ----------------------------------------------------------------------------------------

    def _unblock(self, one: tasklet) -> None:
        if one._channel is not None:
            with gate:
                where = one._channel
                if where is not None:  # else another thread has just served it
                    where._discard(one)
                    one._channel = None
        elif one._waiting is not None:
            wait = one._waiting
            one._waiting = None
            if wait.outside and not one._special:
                self.waiting -= 1
            if wait is not _IN_HUB:
                wait._interrupted()

    def _interrupt(self, one: tasklet, error: BaseException) -> None:
        """Make `one` raise `error` when it next runs, wherever it is now; it is in the ring afterwards."""
        in_hub = one._waiting is _IN_HUB
        self._unblock(one)
        if one._special:
            if isinstance(error, TaskletExit):  # gevent takes any other SystemExit for the end of the program
                error = GreenletExit()
            self.get_reactor().call_soon(_throw_unless_dead, one._greenlet, error)
            return
        if in_hub or one._wake is not None:
            suspended = one._wake[0] if one._wake is not None else one._greenlet
            assert suspended is not None
            one._wake = (suspended, error, ())
            one._greenlet = None
        else:
            one.tempval = bomb(error)
        if one._next is None:
            self.wake(one)

    def throw_into(self, target: tasklet, error: BaseException, pending: bool) -> None:
        me = self.current
        if target is me or (target._special and target._greenlet is current_greenlet()):
            try:
                raise error
            finally:
                del error
        if not target.alive:
            if not isinstance(error, TaskletExit):
                raise wording.misuse("You cannot throw to a dead tasklet")
            if not target._special:
                target.bind(None)
            return
        if not pending:
            self.refuse_if_trapped()
        self._interrupt(target, error)
        if not pending and me is not None and not me._special and not target._special:
            self.switch_to(target)
            self._result(me)

    def alarm(self, one: tasklet, error: BaseException) -> None:
        """Interrupt a wait of `one` with `error`.

        If it has what it waited for already, that is not lost: `error` comes at its next wait.
        """
        # A gevent greenlet that waits, but for nothing of ours, waits inside gevent.
        if one.blocked or (one._special and one._wake is None):
            self._interrupt(one, error)
        elif one._alive:
            if one._alarm is None:
                one._alarm = error
            else:
                one._later_alarms = [*(one._later_alarms or ()), error]

    def cancel_alarm(self, one: tasklet, error: BaseException) -> None:
        """Take back an alarm that has not been raised yet."""
        if one._later_alarms is not None:
            one._later_alarms = [other for other in one._later_alarms if other is not error] or None
        if one._alarm is error:
            self._next_alarm(one)

    def _next_alarm(self, one: tasklet) -> None:
        later = one._later_alarms
        one._alarm = later[0] if later is not None else None
        one._later_alarms = later[1:] or None if later is not None else None

    def check_alarm(self, me: tasklet) -> None:
        error = me._alarm
        while error is not None:
            self._next_alarm(me)
            if self.reactor is None or not self.reactor.is_closed_timeout(error):
                try:
                    raise error
                finally:
                    del error  # see _defuse
            error = me._alarm

    def let_go(self) -> None:
        """The thread ends: end the greenlets that hold no tasklet, and free its root."""
        here = current_greenlet()
        for each in (*self.idle, self._starter):
            each.parent = here
            _throw(each, GreenletExit)
        self.idle.clear()
        for name in _SHOWN:
            self._root.__dict__.pop(name, None)

    # -- workers ---------------------------------------------------------------------------------------------

    def _start_workers(self, first: greenlet) -> None:
        """The life of the starter: begin a worker whenever somebody switches here.

        Workers are its children, so a worker that returns comes here too. It has left word in `_successor`.
        """
        _switch(first)
        while True:
            try:
                successor, self._successor = self._successor, None
                if successor is None:
                    self.workers += 1
                    _switch(greenlet(self._work))
                    continue
                self._retired += 1
                if cython.compiled and self._retired >= GIVE_BACK_WORKERS:
                    self._retired = 0
                    tasklets_give_back()  # type: ignore[name-defined] # noqa: F821
                if successor[0] is None:
                    self._enter_hub()
                else:
                    self._target, successor = successor[0], None
                    self.switch_to_target()
            except GreenletExit:  # from let_go
                raise
            except BaseException as error:  # noqa: BLE001  Ctrl-C here or in _work, outside of any tasklet
                ended = self.current
                if ended is not None and not (ended._alive and ended._greenlet and not ended._greenlet.dead):
                    self._end(ended)  # the exception kept its worker from doing that
                self.idle = [worker for worker in self.idle if not worker.dead]
                self._successor = (self._report_failure(error),)

    def _work(self) -> None:
        """The life of a worker: run the current tasklet, then the next one.

        This is at the bottom of every tasklet's stack, which is copied at each switch, so nothing else is done here.
        """
        if cython.compiled:
            tasklets_begin_small()  # type: ignore[name-defined] # noqa: F821
        goes_on = True
        while goes_on:
            try:
                function, args, kwargs = self._begin()
                if kwargs is None:
                    function(*args)
                else:
                    function(*args, **kwargs)
            except BaseException:  # noqa: BLE001  handed to whoever is responsible, see _report_failure
                self._failure = self._judge()
            # The frames of an exception still lead here, so what is left in the variables would live as long as it.
            function = args = kwargs = None
            goes_on = self._take_next()

    def _take_next(self) -> bool:
        """The current tasklet has ended, by `_failure` or well: make the next unstarted one current, or wait for one.

        Returns False when this worker is to end.
        """
        worker = current_greenlet()
        failure, self._failure = self._failure, None
        if self._end(self.current):
            self.workers -= 1
            if failure is not None:
                raise failure
            return False
        target = self._after_end(failure)
        failure = None
        if target is not None and _watching and not self.alone:
            _watched.announce(self, target)
        # Somebody keeps data by greenlet: gevent.local does. The next tasklet must not find the data of this one.
        has_data = _gevent_is_there and getweakrefcount(worker) > 0
        if target is not None and target._greenlet is None and target._wake is None and not has_data:
            self.head = self.current = target
            return True
        if has_data or len(self.idle) >= MAX_IDLE_WORKERS:
            self._successor = (target,)
            self.workers -= 1
            return False
        self.idle.append(worker)
        if target is None:
            self._enter_hub()
        else:
            self._target, target = target, None  # an idle worker keeps nobody alive
            self.switch_to_target()
        return True

    def _begin(self) -> tuple[Any, Any, Any]:
        """Let the current tasklet begin on this worker. Returns what is to be called."""
        worker = current_greenlet()
        me = self.current
        me._greenlet = worker
        if _gevent_is_there:
            self._show_to_gevent(me)
        function = me.tempval
        me.tempval = None
        if type(function) is bomb:
            raise function.value
        worker.gr_context = me._context
        args, kwargs = me._call
        me._call = None
        if _watching:
            _watched.begin(me)
        return function, args, kwargs

    def _judge(self) -> BaseException | None:
        """What has just come out of the current tasklet: somebody has to hear of it, or nobody (None)."""
        error: Any = sys.exc_info()[1]
        if isinstance(error, TaskletExit):
            return None
        if isinstance(error, GreenletExit):
            if self.current is None or self.current._greenlet is not current_greenlet():
                raise error  # somebody else's turn: the end of the thread, or of the interpreter
            return None
        error.__traceback__ = error.__traceback__.tb_next  # it shall not show the worker's frame
        return _handled(error) if watch.failed is not None else error

    def _end(self, one: tasklet) -> bool:
        """A tasklet has ended. Returns True when it was a forgotten one: `end_forgotten` waits for that."""
        if one._greenlet is not None:
            if _gevent_is_there:
                self._hide_from_gevent(one)
            one._greenlet.gr_context = None
        one._alive = False
        one._greenlet = one._call = one._context = one._alarm = one._later_alarms = one.tempval = None
        if one._next is not None:
            self.unlink(one)
        return bool(one._special)

    def _after_end(self, failure: BaseException | None) -> tasklet | None:
        """A tasklet ended: who goes on? None means the event loop."""
        if failure is not None:
            return self._report_failure(failure)
        if self.head is None:
            return self._when_empty(None)
        return None if self._hub_is_due() else self.head

    def _report_failure(self, failure: BaseException) -> tasklet:
        """Hand an exception that left a tasklet to the innermost run(), or to main, which goes on at once."""
        runner = self.runners[-1] if self.runners else self.main
        self._interrupt(runner, failure)
        return runner

    def fail_main(self, failure: BaseException) -> None:
        """From the hub: an exception that no tasklet here can handle goes where a tasklet's failure would go.

        Never blocks.
        """
        self._report_failure(failure)

    # -- gevent ----------------------------------------------------------------------------------------------

    def get_reactor(self) -> Reactor:
        """The bridge to gevent's event loop, which is loaded now at the latest."""
        if self.reactor is None:
            from tasklets._reactor import Reactor

            self.reactor = Reactor(self.turn, self.main._greenlet)
            self._switches_left = 1
            if self.current is None and self.head is not None:
                self.reactor.arm()
        return self.reactor

    def _show_to_gevent(self, one: tasklet) -> None:
        """gevent finds here what it calls on the greenlets that it suspends and resumes.

        By attributes of the instance: for subclasses of greenlet every switch is 5 to 15 % slower.
        """
        worker = one._greenlet
        if worker is not None and worker is not self._root and not one._special:
            worker.switch_out = self.leave_to_hub
            worker.switch = one._switch_from_hub
            worker.throw = one._throw_from_hub

    def _hide_from_gevent(self, one: tasklet) -> None:
        worker = one._greenlet
        if worker is not None and worker is not self._root and not one._special:
            for name in _SHOWN:
                worker.__dict__.pop(name, None)

    def _hub_is_due(self) -> bool:
        self._switches_left -= 1
        return self._switches_left <= 0 and self._look_at_hub()

    def _look_at_hub(self) -> bool:
        """Has the event loop been waiting for its turn? Also does what other threads want done."""
        if self.reactor is None:
            self._switches_left = NO_HUB
            self.drain()
            return False
        now = monotonic()
        # Tasklets that compute long between their switches are looked at after each of them.
        self._switches_left = HUB_CHECK_SWITCHES if now - self._clock_seen < HUB_PERIOD else 1
        self._clock_seen = now
        self.drain()
        return now - self._hub_visit > HUB_PERIOD

    def _enter_hub(self) -> None:
        """Give control to the event loop. Returns when the calling greenlet is resumed."""
        reactor = self.reactor
        assert reactor is not None
        self._hub_visit = monotonic()
        if self.head is not None:
            reactor.arm()
        if _watching:
            _watched.leave(self.current)
        self.current = None
        _switch(reactor.hub)
        if _watching:
            _watched.come_back()

    def turn(self) -> None:
        """Called by the event loop: lend the hub's turn to the ring."""
        self.asleep = False
        if self.inbox:
            self.drain()
        if self.current is None and self.head is not None:
            self._last_blocked = None
            self._target = self.head
            self.switch_to_target()

    def reconsider(self) -> None:
        """From the event loop: one of `sources` may have run dry; a run() that waited for it alone
        returns.
        """
        idle = self.current is None and self.head is None and self.runners
        if idle and self._when_empty(self._last_blocked) is not None:
            self.get_reactor().arm()

    def leave_to_hub(self) -> None:
        """gevent is about to switch the current tasklet out: it leaves the ring until gevent wants it
        back.
        """
        me = self.current
        if me is None:
            return
        if me._special:
            raise wording.block_trap("for I/O", me)
        reactor = self.get_reactor()
        reactor.begin_io()
        self.check_alarm(me)
        if me._traps:
            raise wording.block_trap("for I/O", me)
        try:
            self.unlink(me)
            me._waiting = _IN_HUB
            self.waiting += 1
            self._hub_visit = monotonic()
            if self.head is not None:
                reactor.arm()
            self.current = None
            if _watching:
                _watched.leave(me)
        except BaseException:
            self._regain(me)
            raise

    def wake_from_hub(self, one: tasklet, args: tuple[Any, ...]) -> None:
        """gevent wants a waiting tasklet back, with the result of its wait."""
        if one._waiting is not _IN_HUB:
            return  # interrupted meanwhile
        one._waiting = None
        self.waiting -= 1
        assert one._greenlet is not None
        one._wake = (one._greenlet, None, args)
        one._greenlet = None
        self.wake(one)
        if current_greenlet() is self.get_reactor().hub:
            # Now, since gevent counts on that: its semaphores and queues wake the next one as long as the first has not
            # taken what there is. And straight back: others may be waiting for their events.
            self._hub_visit = 0.0
            self._switches_left = 0
            self.switch_to(one)

    def throw_from_hub(self, one: tasklet, args: tuple[Any, ...]) -> None:
        self.alarm(one, _make_exception(*(*(args or (GreenletExit,)), None, None)[:3]))

    def _switch_main(self, *args: Any) -> Any:
        if self.current is None:
            return self.wake_from_hub(self.main, args)
        return _switch_with(self._root, *args)

    def _throw_main(self, *args: Any) -> Any:
        if self.current is not None:
            return _throw(self._root, *args)
        error = _make_exception(*(*(args or (GreenletExit,)), None, None)[:3])
        if self.get_reactor().is_loop_exit(error):
            self._loop_is_empty()
        elif isinstance(error, (KeyboardInterrupt, SystemExit)):  # nothing may hold it up
            self.switch_to(self._report_failure(error))
        else:
            self.alarm(self.main, error)
        return None

    def _loop_is_empty(self) -> None:
        """The event loop has nothing left to wait for: whoever waits, waits for ever, or for another thread."""
        others = self._others_may_wake()
        if self.head is not None or self.inbox:
            self.turn()
            return
        if others:
            self.get_reactor().call_later(OTHERS_CHECK, self.turn)
            return
        if self.threadblock and self.runners and not self._may_go_on():
            self.append(self.runners[-1])
            self.turn()
            return
        last, self._last_blocked = self._last_blocked, None
        loop_exit = self.get_reactor().DeadlockError
        if self.main._waiting is _IN_HUB:
            text = "Deadlock: the main tasklet waits inside gevent, and no timer or I/O is left to wait for."
            self._interrupt(self.main, wording.deadlock(text, self.main, loop_exit))
        elif self.runners:
            text = "Deadlock: no timer or I/O is left to wait for."
            self._interrupt(self.runners[-1], wording.deadlock(text, None, loop_exit))
        elif last is not None and (last.blocked or last.paused):
            self._interrupt(last, wording.deadlock(DEADLOCK, last))
        else:
            self._interrupt(self.main, self._main_is_stuck())
        self.turn()

    def adopt(self) -> tasklet:
        """The tasklet that stands for the gevent greenlet that is running."""
        here = current_greenlet()
        reactor = self.get_reactor()
        if here is reactor.hub:
            raise RuntimeError(
                "a callback of the event loop cannot wait; start a tasklet and let it do the waiting"
            )
        known = here.__dict__.get("_tasklet")
        if known is None:
            known = tasklet()
            known.name = f"greenlet {getattr(here, 'name', '') or hex(id(here))}"
            known._alive = True
            known._greenlet = here
            known._special = True
            here.__dict__["_tasklet"] = known
        if not isinstance(known, tasklet):
            raise InternalError(f"{here!r} carries a foreign _tasklet attribute: {known!r}")
        return known

    def wake_foreign(self, one: tasklet) -> None:
        if one._wake is None:
            one._wake = self.get_reactor().call_soon(_switch_with, one._greenlet)

    def _wait_as_foreign(self, me: tasklet) -> None:
        try:
            self._enter_hub()
        finally:
            # gevent may have resumed it first (a kill, gevent.Timeout): being resumed twice, it would
            # come back too early from whatever it waits for next.
            callback, me._wake = me._wake, None
            if callback is not None:
                callback.stop()


def _handled(failure: BaseException) -> BaseException | None:
    """Give an exception that leaves the current tasklet to the error handler; what that raises counts instead."""
    handler = watch.failed
    assert handler is not None
    try:
        handler(type(failure), failure, failure.__traceback__)
    except TaskletExit:
        return None
    except BaseException as error:  # noqa: BLE001  it goes where the failure would have gone
        return error
    return None


def _throw_unless_dead(target: greenlet, error: BaseException) -> None:
    if not target.dead:  # else the error would go to its parent, the hub
        _throw(target, error)


# Stands for the scheduler of a thread that has none yet.
_UNBORN = Scheduler.__new__(Scheduler)
_UNBORN.current = None
_UNBORN.alone = False


class _ThreadState(threading.local):
    scheduler: Scheduler = _UNBORN
    end: _ThreadEnd


class _ThreadEnd:
    """Deleted with the thread-local data, on the thread that ends: the last moment its greenlets can be ended.

    Suspended greenlets keep what is on their stacks for ever, the scheduler for one. An event loop keeps two file
    descriptors open until it is told to give them back.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self._process_id = os.getpid()

    def __del__(self) -> None:
        scheduler = self.scheduler
        # Whoever looks at all objects just now, holds this one and lets it go on another thread.
        is_here = scheduler.thread_id == get_ident()
        # The child of a fork has not the other threads, and what they have open is not its own.
        is_ours = is_here or self._process_id == os.getpid()
        has_tasklets = scheduler.workers > len(scheduler.idle) or scheduler.count > 1
        if is_ours and (has_tasklets or scheduler.endings or scheduler.reactor is not None):
            if is_here and not cython.compiled:
                setattr(_thread, "scheduler", scheduler)  # noqa: B010  it was deleted with everything else
            end_all(scheduler, all_tasklets if has_tasklets else list)
            if is_here and not cython.compiled:
                delattr(_thread, "scheduler")
        scheduler.thread_id = -1
        with gate:
            change_watch(threads=len({each.thread_id for each in living_schedulers()}))
        if is_here:
            scheduler.let_go()
            if cython.compiled:
                forget_scheduler(scheduler)  # type: ignore[name-defined] # noqa: F821


_thread = _ThreadState()
_schedulers: WeakSet[Scheduler] = WeakSet()  # of all threads; guarded by `gate`
if cython.compiled:
    name_unborn(_UNBORN)  # type: ignore[name-defined] # noqa: F821


def _enter_thread(scheduler: Scheduler) -> None:
    """Let it be the scheduler of the calling OS thread."""
    setattr(_thread, "scheduler", scheduler)  # noqa: B010  compiled, `_thread.scheduler` is the compiler's own storage
    if cython.compiled:
        remember_scheduler(scheduler)  # type: ignore[name-defined] # noqa: F821
    if threading.current_thread() is not threading.main_thread():
        _thread.end = _ThreadEnd(scheduler)


def living_schedulers() -> list[Scheduler]:
    """Those of all OS threads that have not ended."""
    with gate:
        return [each for each in _schedulers if each.thread_id != -1]


def get_scheduler() -> Scheduler:
    """The scheduler of the calling OS thread."""
    scheduler = _thread.scheduler
    return scheduler if scheduler is not _UNBORN else Scheduler()


def getcurrent() -> tasklet:
    """The tasklet that is running (main counts as one)."""
    scheduler = get_scheduler()
    return scheduler.current or scheduler.adopt()


def getmain() -> tasklet:
    """The main tasklet of this OS thread: its own flow of control."""
    return get_scheduler().main


def switch_trap(change: int = 0) -> int:
    """Add to a counter of this OS thread; while it is not 0, a switch raises RuntimeError instead. Returns the old
    value.
    """
    scheduler = get_scheduler()
    old, new = scheduler.trap, scheduler.trap + change
    scheduler.trap = new
    if bool(old) != bool(new):
        change_watch(traps=watch.traps + (1 if new else -1))
    return old


def getruncount() -> int:
    """How many tasklets are in line, the running one included."""
    return get_scheduler().count


def schedule(retval: Any = _CURRENT) -> Any:
    """Let every other runnable tasklet run once. Returns `retval` (by default the current tasklet)."""
    scheduler = _thread.scheduler
    return (scheduler if scheduler is not _UNBORN else get_scheduler()).schedule(retval)


def schedule_remove(retval: Any = _CURRENT) -> Any:
    """Leave the line: paused until somebody inserts or runs the calling tasklet.

    Returns its `tempval`, by default `retval`.
    """
    return get_scheduler().schedule_remove(retval)


def run() -> None:
    """Let the tasklets run. Blocks until none is runnable and none waits for a timer, for I/O or for another process.

    Raises the exception that leaves a tasklet, at once; the others stay in line for the next `run()`.
    Tasklets that are blocked on channels for good do not keep it: it returns, and they stay blocked.
    """
    get_scheduler().run()


if cython.compiled:
    source_digest = made_of.decode()  # type: ignore[name-defined] # noqa: F821  what `_which_form` looks for
    # The names by which the package shows them; extension types get theirs here or never.
    name_type(bomb, b"tasklets.bomb")  # type: ignore[name-defined] # noqa: F821
    name_type(channel, b"tasklets.channel")  # type: ignore[name-defined] # noqa: F821
    name_type(tasklet, b"tasklets.tasklet")  # type: ignore[name-defined] # noqa: F821
