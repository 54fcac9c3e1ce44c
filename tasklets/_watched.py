"""What switches and channel actions do in addition while somebody watches, or several OS threads have schedulers.

`_core` asks here while `_core._watching` is true, so that nobody pays for it otherwise. Each switch is announced before
it happens, and refused while a switch_trap is set; each action is announced too. `_watch.gate` protects the queues of
all channels: who acts first changes queue and ring under it, and then switches. A tasklet of another thread is put into
the ring of that thread, which is woken if it sleeps; everything else that is wanted of it is posted to its inbox.
"""

from __future__ import annotations

import sys
from os.path import dirname
from time import sleep
from typing import TYPE_CHECKING, Any

from tasklets import _tracing
from tasklets._watch import gate, watch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasklets._core import Scheduler, channel, tasklet

_HERE = dirname(__file__)


# -- switches --------------------------------------------------------------------------------------------------------


def announce(scheduler: Scheduler, target: tasklet) -> None:
    """`target` is about to run: tell who wants to know."""
    if scheduler.last_run is not target:
        _tell(scheduler, target)
    if watch.tracing:
        leave(scheduler.current)
        if target._greenlet is not None or target._wake is not None:  # a new one does so in `begin`
            _tracing.resume(target)


def announce_birth(scheduler: Scheduler) -> None:
    """The main tasklet of a thread has come to be."""
    scheduler.last_run = None
    _tell(scheduler, scheduler.main)


def _tell(scheduler: Scheduler, target: tasklet) -> None:
    before = scheduler.last_run
    scheduler.last_run = target
    current = scheduler.current
    scheduler.current = before if before is not None else target  # also when the event loop is in control
    for callback in watch.switched:
        scheduler.trap += 1  # nothing may switch, or use a channel, in a callback
        scheduler.quiet = True
        try:
            callback(before, target)
        except Exception:  # noqa: BLE001  the switch goes on, as in Stackless
            sys.unraisablehook(_Unraisable(callback))  # type: ignore[arg-type]
        finally:
            scheduler.trap -= 1
            scheduler.quiet = False
    scheduler.current = current


def leave(one: tasklet | None) -> None:
    """A tasklet is about to be switched out, or has ended."""
    if watch.tracing:
        _tracing.suspend(one if one is not None and one._alive else None)


def begin(one: tasklet) -> None:
    """A tasklet is about to call its function."""
    if watch.tracing:
        _tracing.resume(one)


def come_back() -> None:
    """A tasklet has been switched to."""
    if watch.tracing:
        _tracing.renew()


class _Unraisable:
    """What sys.unraisablehook wants, for the exception that is being handled."""

    def __init__(self, culprit: object) -> None:
        self.exc_type: Any
        self.exc_value: Any
        self.exc_traceback: Any
        self.exc_type, self.exc_value, self.exc_traceback = sys.exc_info()
        self.err_msg = "Exception ignored in a schedule callback"
        self.object = culprit


def append(scheduler: Scheduler, one: tasklet) -> None:
    """Put at the end of the line, unless another thread has just done that."""
    with gate:
        if one._next is None and not one.blocked:
            scheduler.link(one)


# -- actions ---------------------------------------------------------------------------------------------------------


def send(scheduler: Scheduler, where: channel, value: Any) -> None:
    has_room = where._buffer is not None and not where.closing and len(where._buffer) < where.capacity
    value = _begin_action(
        scheduler, where, value, 1, where._balance >= 0 and not has_room, where._preference == -1
    )
    me = scheduler.current or scheduler.adopt()
    entry = None
    with gate:
        if where._balance < 0:
            entry = _take_first(where, scheduler)
            if not entry._special:
                entry.tempval = value
        elif where._send_is_ready() and not where.closing:
            assert where._buffer is not None
            where._buffer.append(value)
            has_room = True
        else:
            has_room = False
    if entry is not None:
        partner = entry.take(value) if entry._special else entry
        if partner is not None:
            meet(scheduler, where, me, partner, where._preference == -1)
    elif has_room:
        if scheduler.alone:
            scheduler.may_yield()
    else:
        if me._traps or where.closing:
            where._refuse_to_block(me, "send to")
        me.tempval = value
        block(scheduler, me, where, 1)


def receive(scheduler: Scheduler, where: channel) -> Any:
    will_block = where._balance <= 0 and not where._buffer
    _begin_action(scheduler, where, None, 0, will_block, where._preference == 1 and not where._buffer)
    me = scheduler.current or scheduler.adopt()
    value = entry = None
    with gate:
        was_there = bool(where._buffer)
        if was_there:
            assert where._buffer is not None
            value = where._buffer.popleft()
            if where._balance > 0:
                where._refill()
        elif where._balance > 0:
            entry = _take_first(where, scheduler)
            value = entry.tempval
            if not entry._special:
                entry.tempval = None
    if entry is not None:
        partner = entry.take(None) if entry._special else entry
        if partner is not None:
            meet(scheduler, where, me, partner, where._preference == 1)
    elif was_there:
        if scheduler.alone:
            scheduler.may_yield()
    else:
        if me._traps or where.closing:
            where._refuse_to_block(me, "receive from")
        me.tempval = None
        return block(scheduler, me, where, -1)
    del entry
    me.tempval, value = value, None
    return scheduler._result(me)


def _begin_action(
    scheduler: Scheduler, where: channel, value: Any, sending: int, will_block: bool, partner_first: bool
) -> Any:
    me = scheduler.current or scheduler.adopt()
    scheduler.refuse_if_quiet()
    if scheduler.trap and not will_block and (partner_first or where._schedule_all):
        entry = where._first
        if entry is not None and not entry._special and not me._special:
            scheduler.refuse_if_trapped()
    if watch.acting:
        me.tempval = value
        scheduler.quiet = True
        try:
            for callback in watch.acting:
                callback(where, me, sending, int(will_block))
        finally:
            scheduler.quiet = False
            value, me.tempval = me.tempval, None
    return value


def _take_first(where: channel, scheduler: Scheduler) -> Any:
    """Take the first entry out of the queue, unless it is something that only its own thread may end."""
    entry: Any = where._first
    # That of entries of `net` is the thread of their node: a channel that is known elsewhere is to be used there.
    owner: Any = getattr(entry, "_scheduler", None) or getattr(entry, "owner", scheduler)
    if owner is not scheduler and (entry._special or owner.thread_id == -1):
        raise where._of_two_threads()
    where._shift()
    if not entry._special:
        entry._channel = None
    return entry


def meet(scheduler: Scheduler, where: channel, me: tasklet, partner: tasklet, partner_first: bool) -> None:
    """After an action with a partner that waited: put it into its ring, and decide who goes on."""
    if partner._scheduler is scheduler:
        scheduler.meet(where, me, partner, partner_first)
    else:
        partner._scheduler.wake(partner)


def block(scheduler: Scheduler, me: tasklet, where: channel, direction: int) -> Any:
    """Queue `me` on a channel, unless another thread was quicker."""
    if scheduler.alone and not me._special:
        return scheduler.block(me, where, direction)
    if me is not scheduler.main or me._next is not me:  # else it is a deadlock, and no switch
        scheduler.refuse_if_trapped()
    if me._alarm is not None:
        scheduler.check_alarm(me)
    with gate:
        ready = where._receive_is_ready() if direction < 0 else where._send_is_ready()
        if not ready:
            if me._next is not None:
                scheduler.unlink(me)
            me._channel = where
            where._push(me, direction)
    if ready:
        value, me.tempval = me.tempval, None
        return where.receive() if direction < 0 else where.send(value)
    try:
        scheduler.wait_in(me)
    except BaseException:
        scheduler._regain(me)
        raise
    return scheduler._result(me)


def wait_until_others_are_outside(others: Iterable[Scheduler]) -> None:
    """The second thread with a scheduler has come: wait until the first one is in no method of the core any more.

    It may have been stopped at the entry of `block`, say, and would go on there as if nobody else could have changed
    the channel meanwhile. The compiled core is never stopped there.
    """
    for other in others:
        while True:
            frame = sys._current_frames().get(other.thread_id)
            if frame is None or not frame.f_code.co_filename.startswith(_HERE):
                break
            sleep(0)
