"""Being watched: the scheduler, and the methods of channels, that tell of each switch and each action.

They take the place of the plain ones while somebody watches (see `_core.Watch`) or a switch_trap is set.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tasklets._core import Scheduler, channel, get_scheduler, watch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasklets._core import Wait, tasklet

_plain_send = channel._send
_plain_receive = channel.receive


class WatchedScheduler(Scheduler):
    """Announces each switch before it happens, and refuses it while a switch_trap is set."""

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
        super().switch_to(target)

    def _after_end(self, failure: BaseException | None) -> tasklet | None:
        target = super()._after_end(failure)
        if target is not None:
            self.announce(target)
        return target

    def meet(self, where: channel, me: tasklet, partner: tasklet, partner_first: bool) -> None:
        if partner_first and me._hook is None and not where.schedule_all:
            after = me._next
            partner._prev = me
            partner._next = after
            me._next = partner
            after._prev = partner
            self.count += 1
            self.switch_to(partner)
            if me.tempval is not None:
                self._result(me)
        else:
            super().meet(where, me, partner, partner_first)

    def block(self, me: tasklet, where: channel, direction: int) -> Any:
        if me is not self.main or me._next is not me:  # else it is a deadlock, and no switch
            self.refuse()
        self._switches_left = 0  # the way over give_way and switch_to
        return super().block(me, where, direction)

    def park(self, wait: Wait) -> Any:
        self.refuse()
        return super().park(wait)

    def schedule(self, retval: Any) -> Any:
        if self.count > 1 or self in _quiet:
            self.refuse()
        return super().schedule(retval)

    def schedule_remove(self, retval: Any) -> Any:
        self.refuse()
        return super().schedule_remove(retval)

    def run_now(self, target: tasklet, leave: bool = False) -> Any:
        if target is not self.current:
            self.refuse()
        return super().run_now(target, leave)

    def run(self) -> None:
        if self.count > 1 or self in _quiet:
            self.refuse()
        super().run()

    def throw_into(self, target: tasklet, error: BaseException, pending: bool) -> None:
        if target is not self.current and target.alive and not pending:
            self.refuse()
        super().throw_into(target, error, pending)


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
    has_room = self._buffer is not None and not self.closing and len(self._buffer) < self.capacity
    will_block = self._balance >= 0 and not has_room
    _plain_send(self, _begin_action(self, value, 1, will_block, self._preference == -1))


def _watched_receive(self: channel) -> Any:
    will_block = self._balance <= 0 and not self._buffer
    _begin_action(self, None, 0, will_block, self._preference == 1 and not self._buffer)
    return _plain_receive(self)


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
    for each in schedulers:
        if wanted:
            begin(each)
        elif type(each) is WatchedScheduler:
            each.__class__ = Scheduler  # type: ignore[assignment]
            each.last_run = None
