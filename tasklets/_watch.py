"""What is the same for all OS threads: the lock under which they meet, and what somebody wants to be told of.

While anything of it is set, and while several threads have schedulers, the core asks `_watched` at every switch and
action; `followers` let it know.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Protects who has a scheduler and, when several OS threads have one, the queues of channels. What belongs to one
# thread only, its ring above all, needs no lock: in the sequences without a call no other thread can come between.
gate = threading.RLock()


class Watch:
    """What somebody wants to be told; the same for all threads. Change it by `change_watch`."""

    # f(previous, next) before each switch; both are tasklets, previous may be None
    switched: tuple[Callable[..., object], ...] = ()
    # f(channel, tasklet, sending, will_block) before each action on a channel, the value being in tasklet.tempval
    acting: tuple[Callable[..., object], ...] = ()
    # f(type, value, traceback) when an exception leaves a tasklet, in that tasklet; nobody else hears of it then
    failed: Callable[[type[BaseException], BaseException, Any], object] | None = None
    tracing = False  # tasklets have trace and profile functions of their own, see `_tracing`
    traps = 0  # threads whose switch_trap is set
    threads = 0  # OS threads that have a scheduler


watch = Watch()
followers: list[Callable[[bool], None]] = []  # hear after each change whether `_watched` has to be asked


def change_watch(**changes: Any) -> None:
    """Set fields of `watch`, and let `_watched` be asked when one of them is set."""
    for name, value in changes.items():
        setattr(watch, name, value)
    wanted = bool(watch.switched or watch.acting or watch.traps or watch.threads > 1 or watch.tracing)
    for follow in followers:
        follow(wanted)
