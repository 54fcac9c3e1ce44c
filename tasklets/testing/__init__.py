"""For tests of programs with tasklets: time that is made by hand, schedules that are drawn, tasklets that are left.

    from tasklets.testing import explore, leak_check, replay, run_until_blocked, virtual_clock

    def test_the_order_expires():
        with virtual_clock() as clock, leak_check():
            tasklet(expire_orders)(orders)
            clock.advance(3600)
            assert orders.closed

    def test_no_order_of_events_loses_a_deposit():
        explore(two_deposits)           # raises, with the seed and the schedule, when one of 100 schedules does
        replay(two_deposits, seed=17)   # that one again, for the debugger

Nothing here costs anything while it is not used. What it is and is not: docs/design.md, "testing".

Not here: a network to be cut and delayed (net.testing).
"""

from tasklets.testing._clock import (
    VirtualClock as VirtualClock,
    run_until_blocked as run_until_blocked,
    virtual_clock as virtual_clock,
)
from tasklets.testing._explore import (
    Exploration as Exploration,
    ScheduleError as ScheduleError,
    explore as explore,
    replay as replay,
)
from tasklets.testing._leaks import LeakError as LeakError, leak_check as leak_check

__all__ = [
    "Exploration",
    "LeakError",
    "ScheduleError",
    "VirtualClock",
    "explore",
    "leak_check",
    "replay",
    "run_until_blocked",
    "virtual_clock",
]

for _public in __all__:
    globals()[_public].__module__ = "tasklets.testing"
del _public
