"""Tasklets that are left: a test that leaves some has forgotten something, or found something."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import ref

from tasklets._core import get_scheduler, tasklet
from tasklets.debug import MAX_LINES, where
from tasklets.testing._clock import run_until_blocked

if TYPE_CHECKING:
    from collections.abc import Iterator


class LeakError(AssertionError):
    """Tasklets were left alive. `tasklets` has their descriptions."""

    def __init__(self, message: str, tasklets: tuple[str, ...]) -> None:
        super().__init__(message)
        self.tasklets = tasklets


@contextmanager
def leak_check() -> Iterator[None]:
    """Raise LeakError when a block leaves tasklets alive that were not alive before: `with leak_check(): ...`.

    What can still run at the end of the block runs first. Paused and sleeping tasklets count as well. When the
    block raises, that exception counts and nothing is checked. Looks at the calling OS thread. Python's cyclic
    collector pauses during the block: it would end a blocked tasklet that nobody refers to, now and then.
    """
    before = {id(one): ref(one) for one in _alive()}
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
        run_until_blocked()
        left = [one for one in _alive() if id(one) not in before or before[id(one)]() is not one]
        described = tuple(sorted(describe(one) for one in left))
        del left
    finally:
        if collecting:
            gc.enable()
    if described:
        raise LeakError(_message(described), described)


def describe(one: tasklet) -> str:
    """One line on a tasklet: its name, its state, where it stands."""
    state = f"waits: {one.waits_for}" if one.blocked else "is paused" if one.paused else "can run"
    place = where(one)
    return f"{one.name or hex(id(one))} {state}" + (f", at {place}" if place else "")


def _alive() -> list[tasklet]:
    scheduler = get_scheduler()
    return [
        found
        for found in gc.get_objects()
        # Not isinstance, see debug.waiting.
        if issubclass(type(found), tasklet)
        and found._scheduler is scheduler
        and found.alive
        and found is not scheduler.main
        and found is not scheduler.current
    ]


def _message(described: tuple[str, ...]) -> str:
    more = len(described) - MAX_LINES
    count = "1 tasklet is" if len(described) == 1 else f"{len(described)} tasklets are"
    return "\n".join(
        [
            f"{count} still alive at the end of the block; close the channel that is waited on, kill them, or start "
            "them in a nursery:",
            *(f"  {each}" for each in described[:MAX_LINES]),
            *([f"  ... and {more} more"] if more > 0 else []),
        ]
    )
