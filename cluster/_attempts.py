"""Submitting while the store is away, or a queue is full: again, with pauses that grow, and not for ever.

What is submitted has its ids already, so an attempt whose answer was lost makes nothing twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeVar

import gevent

from cluster.errors import QueueFull, StoreUnavailable, SubmitError
from cluster.policy import Retry

if TYPE_CHECKING:
    from cluster.stores import Store

log = logging.getLogger("cluster")

T = TypeVar("T")

PAUSES: Final = Retry(base=0.1, cap=2.5)  # each stretched at random up to twice, so 0.1 s to 5 s
FULL_PAUSE: Final = 0.02  # seconds; grows while a queue stays full
LONGEST_FULL_PAUSE: Final = 0.5


def submitted(what: str, attempts: int, submit: Callable[[], T]) -> T:
    """Return what `submit` does, after so many attempts at most. Blocks.

    Raises SubmitError when the store was away in all of them; anything else at once.
    """
    for attempt in range(1, max(1, attempts)):
        try:
            return submit()
        except StoreUnavailable as error:
            pause = PAUSES.delay(attempt)
            log.warning("%s: attempt %d of %d, the next in %.1f s: %s", what, attempt, attempts, pause, error)
        gevent.sleep(pause)
    try:
        return submit()
    except StoreUnavailable as error:
        raise SubmitError(
            f"{what} was not submitted in {max(1, attempts)} attempts, or the answer was lost; submitting the same id "
            f"again is safe: {error}",
            attempts=max(1, attempts),
        ) from error


def submitted_with_room(
    store: Store,
    what: str,
    attempts: int,
    submit: Callable[[], T],
    *,
    wanted: Callable[[str], int],
    timeout: float | None,
) -> T:
    """As `submitted`; while a queue is full, wait for room, so many seconds at most. Blocks.

    `wanted` is how many tasks are for a queue. Raises QueueFull too: when the time is over, or they are more than the
    queue ever holds.
    """
    deadline = None if timeout is None else monotonic() + timeout
    pause = FULL_PAUSE
    while True:
        try:
            return submitted(what, attempts, submit)
        except QueueFull as error:
            limit = store.queues().get(error.queue, {}).get("max_waiting", 0)
            if wanted(error.queue) > limit or (deadline is not None and monotonic() + pause > deadline):
                raise
        gevent.sleep(pause)
        pause = min(LONGEST_FULL_PAUSE, pause * 1.5)
