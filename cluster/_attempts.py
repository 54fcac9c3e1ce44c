"""Submitting while the store is away: again, with pauses that grow and differ, and not for ever.

What is submitted has its ids already, so an attempt whose answer was lost makes nothing twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeVar

import gevent

from cluster.errors import StoreUnavailable, SubmitError
from cluster.policy import Retry

log = logging.getLogger("cluster")

T = TypeVar("T")

PAUSES: Final = Retry(base=0.1, cap=2.5)  # each stretched at random up to twice, so 0.1 s to 5 s


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
