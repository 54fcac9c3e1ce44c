"""The scheduler, and the methods of channels, that tell of each switch and action and that several OS threads can use.

They take the place of the plain ones while somebody watches (see `_core.Watch`), while a switch_trap is set, and while
more than one thread has a scheduler. Then `_core.gate` protects the queues of all channels; who acts first changes
queue and ring under it, and then switches. A tasklet of another thread is put into the ring of that thread, which is
woken if it sleeps; everything else that is wanted of it is posted to its inbox.
"""

from __future__ import annotations

import sys
from os.path import dirname
from threading import get_ident
from time import sleep
from typing import TYPE_CHECKING, Any

from tasklets._core import (
    Scheduler,
    _defuse,
    _two_threads,
    channel,
    gate,
    get_scheduler,
    living_schedulers,
    watch,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasklets._core import Wait, tasklet

_HERE = dirname(__file__)

_plain_send = channel._send
_plain_receive = channel.receive
_plain_close = channel.close


class WatchedScheduler(Scheduler):
    """Announces each switch before it happens, and refuses it while a switch_trap is set.

    No super(): a scheduler may have become a plain one when a tasklet comes back from a switch.
    """

    __slots__ = ()

    def announce(self, target: tasklet) -> None:
        before = self.last_run
        if before is target:
            return
        self.last_run = target
        current = self.current
        self.current = before  # also when the event loop is in control
        for callback in watch.switched:
            self.trap += 1  # nothing may switch, or use a channel, in a callback
            _quiet.add(self)
            try:
                callback(before, target)
            except Exception:  # noqa: BLE001  the switch goes on, as in Stackless
                sys.unraisablehook(_Unraisable(callback))  # type: ignore[arg-type]
            finally:
                self.trap -= 1
                _quiet.discard(self)
        self.current = current

    def refuse(self) -> None:
        if self.trap:
            raise RuntimeError("switch_trap")

    # -- ways to switch ------------------------------------------------------------------------------------------

    def switch_to(self, target: tasklet) -> None:
        self.announce(target)
        Scheduler.switch_to(self, target)

    def _after_end(self, failure: BaseException | None) -> tasklet | None:
        target = Scheduler._after_end(self, failure)
        if target is not None:
            self.announce(target)
        return target

    # -- channels: first the queue and the ring, both under the gate, then the switch ----------------------------

    def place(self, where: channel, me: tasklet, partner: tasklet, partner_first: bool) -> bool:
        """Put a partner, just taken out of its queue, into its ring. True: `me` has to switch now."""
        if partner._scheduler is not self:
            partner._scheduler.wake(partner)
            return False
        if me._hook is not None:
            self.wake(partner)
            return False
        if where.schedule_all or not partner_first:
            self.append(partner)
            return bool(where.schedule_all)
        after = me._next  # it takes my place: right behind me, and I become the last in line
        partner._prev = me
        partner._next = after
        me._next = partner
        after._prev = partner
        self.count += 1
        return True

    def hand_over(self, where: channel, me: tasklet, partner: tasklet) -> None:
        """Switch, as `place` wants it."""
        if where.schedule_all:
            self.schedule(None)
        else:
            self.switch_to(partner)
            if me.tempval is not None:
                self._result(me)

    def meet(self, where: channel, me: tasklet, partner: tasklet, partner_first: bool) -> None:
        if self.place(where, me, partner, partner_first):
            self.hand_over(where, me, partner)

    def be_plain_again(self) -> bool:
        """Nobody watches any more, or the other threads have ended. True: `self` is a plain scheduler now."""
        if not watch.active:
            self.__class__ = Scheduler  # type: ignore[assignment]
            self.last_run = None
        return not watch.active

    def block(self, me: tasklet, where: channel, direction: int) -> Any:
        if self.be_plain_again():
            return Scheduler.block(self, me, where, direction)
        if me is not self.main or me._next is not me:  # else it is a deadlock, and no switch
            self.refuse()
        if me._alarm is not None:
            self.check_alarm(me)
        with gate:
            ready = where._receive_is_ready() if direction < 0 else where._send_is_ready()
            if not ready:
                if me._next is not None:
                    self.unlink(me)
                me._channel = where
                where._push(me, direction)
        if ready:  # another thread was quicker
            value, me.tempval = me.tempval, None
            return where.receive() if direction < 0 else where._send(value)
        try:
            self.give_way(me)
        except BaseException as error:
            self._regain(me, error)
            raise
        return self._result(me)

    def append(self, one: tasklet) -> None:
        with gate:
            if one._next is None and not one.blocked:
                Scheduler.append(self, one)

    def wake(self, one: tasklet) -> None:
        if get_scheduler() is self:
            Scheduler.wake(self, one)
        else:
            self.append(one)
            self.notice()

    def _unblock(self, one: tasklet) -> None:
        with gate:
            Scheduler._unblock(self, one)

    def park(self, wait: Wait) -> Any:
        self.refuse()
        return Scheduler.park(self, wait)

    def schedule(self, retval: Any) -> Any:
        if self.count > 1 or self in _quiet:
            self.refuse()
        return Scheduler.schedule(self, retval)

    def schedule_remove(self, retval: Any) -> Any:
        self.refuse()
        return Scheduler.schedule_remove(self, retval)

    def run_now(self, target: tasklet, leave: bool = False) -> Any:
        if target is not self.current:
            self.refuse()
        return Scheduler.run_now(self, target, leave)

    def run(self) -> None:
        if self.be_plain_again():
            Scheduler.run(self)
            return
        if self.count > 1 or self in _quiet:
            self.refuse()
        Scheduler.run(self)

    def throw_into(self, target: tasklet, error: BaseException, pending: bool) -> None:
        if target is not self.current and target.alive and not pending:
            self.refuse()
        Scheduler.throw_into(self, target, error, pending)


_quiet: set[Scheduler] = set()  # those in a callback


class _Unraisable:
    """What sys.unraisablehook wants, for the exception that is being handled."""

    def __init__(self, culprit: object) -> None:
        self.exc_type: Any
        self.exc_value: Any
        self.exc_traceback: Any
        self.exc_type, self.exc_value, self.exc_traceback = sys.exc_info()
        self.err_msg = "Exception ignored in a schedule callback"
        self.object = culprit


def _begin_action(where: channel, value: Any, sending: int, will_block: bool, partner_first: bool) -> Any:
    scheduler = get_scheduler()
    me = scheduler.current or scheduler.adopt()
    if scheduler in _quiet:
        raise RuntimeError("a callback cannot use channels")
    if scheduler.trap and not will_block and (partner_first or where.schedule_all):
        entry = where._first
        if entry is not None and entry._hook is None and me._hook is None:
            raise RuntimeError("switch_trap")
    if watch.acting:
        me.tempval = value
        _quiet.add(scheduler)
        try:
            for callback in watch.acting:
                callback(where, me, sending, int(will_block))
        finally:
            _quiet.discard(scheduler)
            value, me.tempval = me.tempval, None
    return value


def _watched_send(self: channel, value: Any) -> None:
    scheduler = get_scheduler()
    if not isinstance(scheduler, WatchedScheduler):  # one of `tasklets.testing`
        _plain_send(self, value)
        return
    has_room = self._buffer is not None and not self.closing and len(self._buffer) < self.capacity
    value = _begin_action(self, value, 1, self._balance >= 0 and not has_room, self._preference == -1)
    me = scheduler.current or scheduler.adopt()
    switch = False
    with gate:
        waits = self._balance < 0
        entry = _take_first(self, scheduler) if waits else None
        if entry is not None:
            entry.tempval = value
            switch = scheduler.place(self, me, entry, self._preference == -1)
        elif not waits and self._send_is_ready() and not self.closing:
            assert self._buffer is not None
            self._buffer.append(value)
            return
    if entry is not None:
        if switch:
            scheduler.hand_over(self, me, entry)
    elif waits:
        _plain_send(self, value)
    else:
        if me.block_trap or self.closing:
            self._refuse_to_block(me, "send to")
        me.tempval = value
        scheduler.block(me, self, 1)


def _watched_receive(self: channel) -> Any:
    scheduler = get_scheduler()
    if not isinstance(scheduler, WatchedScheduler):
        return _plain_receive(self)
    will_block = self._balance <= 0 and not self._buffer
    _begin_action(self, None, 0, will_block, self._preference == 1 and not self._buffer)
    me = scheduler.current or scheduler.adopt()
    value, switch = None, False
    with gate:
        if self._buffer:
            return _plain_receive(self)  # it does not switch
        waits = self._balance > 0
        entry = _take_first(self, scheduler) if waits else None
        if entry is not None:
            value, entry.tempval = entry.tempval, None
            switch = scheduler.place(self, me, entry, self._preference == 1)
    if entry is None:
        if waits:
            return _plain_receive(self)
        if me.block_trap or self.closing:
            self._refuse_to_block(me, "receive from")
        me.tempval = None
        return scheduler.block(me, self, -1)
    if switch:
        scheduler.hand_over(self, me, entry)
    try:
        return _defuse(value)
    finally:
        del value


def _take_first(where: channel, scheduler: Scheduler) -> tasklet | None:
    """Take the first tasklet out of the queue. None: it is none, but something that only its own thread may end."""
    entry = where._first
    # That of entries of `net` is the thread of their node: a channel that is known elsewhere is to be used there.
    owner: Any = getattr(entry, "_scheduler", None) or getattr(entry._hook, "owner", scheduler)
    if owner is not scheduler and (entry._hook is not None or owner.thread_id == -1):
        raise _two_threads(where)
    if entry._hook is not None:
        return None
    where._shift()
    entry._channel = None
    found: tasklet = entry
    return found


def _watched_close(self: channel) -> None:
    with gate:
        _plain_close(self)


def wait_until_others_are_outside(newcomer: Scheduler) -> None:
    """The second thread with a scheduler has come: wait until the first one is in no plain method any more.

    It may have been stopped at the entry of `block`, say, and would go on there as if nobody else could have changed
    the channel meanwhile.
    """
    for other in living_schedulers():
        while other is not newcomer:
            frame = sys._current_frames().get(other.thread_id)
            if frame is None or not frame.f_code.co_filename.startswith(_HERE):
                break
            sleep(0)


def begin(scheduler: Scheduler) -> None:
    """Watch a scheduler from now on. One of another kind (of `tasklets.testing`) is left alone."""
    if type(scheduler) is Scheduler:
        scheduler.__class__ = WatchedScheduler
        scheduler.last_run = scheduler.current
        scheduler._switches_left = 0


def install(wanted: bool, schedulers: Iterable[Scheduler]) -> None:
    """Watch all schedulers and channels, or none."""
    channel._send = _watched_send if wanted else _plain_send  # type: ignore[method-assign]
    channel.receive = _watched_receive if wanted else _plain_receive  # type: ignore[method-assign]
    channel.close = _watched_close if wanted else _plain_close  # type: ignore[method-assign]
    for each in schedulers:
        if wanted:
            begin(each)
        elif type(each) is WatchedScheduler and each.thread_id == get_ident():
            # Those of other threads, which may be in the middle of a method of ours, do so when they next block.
            each.__class__ = Scheduler  # type: ignore[assignment]
            each.last_run = None
