"""What one OS thread does to the tasklets of another one, and what becomes of them when their thread ends."""

from __future__ import annotations

import sys
from _thread import get_ident
from typing import TYPE_CHECKING

from greenlet import error as GreenletError

from tasklets._errors import TaskletExit
from tasklets._watch import gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tasklets._core import Scheduler, tasklet

MAX_KILLS = 10  # a tasklet that has refused to die so often is left alone


def run_first(one: tasklet) -> None:
    """On the thread of a tasklet that is in line: make it the next to run."""
    scheduler = one._scheduler
    current = scheduler.current
    if one._next is None or one.blocked or one is current:
        return
    scheduler.unlink(one)
    if current is None or current._next is None:  # the thread sleeps: it goes on with the head
        scheduler.append(one)
        scheduler.head = one
    else:
        after = current._next
        one._prev = current
        one._next = after
        current._next = one
        after._prev = one
        scheduler.count += 1


def kill_orphan(one: tasklet) -> None:
    """Kill a tasklet whose thread has ended: it dies, but there is nobody to raise anything in."""
    with gate:
        if one._channel is not None:
            one._channel._discard(one)
            one._channel = None
    one._alive = False
    one.tempval = one._call = one._context = None


def end_all(scheduler: Scheduler, find_tasklets: Callable[[], Iterable[tasklet]]) -> None:
    """A thread ends: kill its tasklets, tell those who asked to hear of it, give its event loop back."""
    kill_all(scheduler, find_tasklets)
    while scheduler.endings:
        try:
            scheduler.endings.pop()()
        except Exception:  # noqa: BLE001  nobody is left who could handle it
            sys.excepthook(*sys.exc_info())
    if scheduler.reactor is not None:
        scheduler.reactor.close()


def kill_all(scheduler: Scheduler, find_tasklets: Callable[[], Iterable[tasklet]]) -> None:
    """On a thread that ends: kill its tasklets that have started. The others just never run."""
    main = scheduler.main
    if scheduler.current is not main or scheduler.thread_id != get_ident():
        return
    while main._next is not main:
        scheduler.unlink(main._next)
    for one in find_tasklets():
        if one._scheduler is scheduler and one is not main and one._has_begun and not one._special:
            try:
                _kill(scheduler, one)
            except GreenletError:  # greenlet has let go of the thread already
                return


def _kill(scheduler: Scheduler, one: tasklet) -> None:
    for _ in range(MAX_KILLS):
        if not one.alive:
            return
        try:
            scheduler.throw_into(one, TaskletExit(), False)
        except GreenletError:
            raise
        except Exception:  # noqa: BLE001  from a `finally`, say; nobody is left who could handle it
            sys.excepthook(*sys.exc_info())
