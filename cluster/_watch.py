"""Waiting for what becomes of a task or a job: for hints of it, and by looking anyway, since a hint may be lost."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cluster.stores import Listener, Store

FIRST_PAUSE: Final = 0.02  # seconds between two looks when no hint comes; grows
LONGEST_PAUSE: Final = 1.0


class Watch:
    """Says when to look again. Topics are those of `Store.listen`: "job:ID", "ended:ID"; a timeout of None is none."""

    def __init__(self, store: Store, topic: str, timeout: float | None) -> None:
        self._store = store
        self._topic = topic
        self._timeout = timeout
        self._listener: Listener | None = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """Count the time from now."""
        self._deadline = None if self._timeout is None else monotonic() + self._timeout
        self._pause = FIRST_PAUSE

    def wait(self, at_most: float | None = None) -> bool:
        """Wait until it is worth a look; False when the time is over. Never longer than `at_most`."""
        left = self._pause if self._deadline is None else min(self._pause, self._deadline - monotonic())
        if at_most is not None:
            left = min(left, at_most)
        if left <= 0:
            return False
        if self._listener is None:  # what came before this is seen by the look that follows at once
            self._listener = self._store.listen(self._topic)
            return True
        if not self._listener.wait(left):
            self._pause = min(LONGEST_PAUSE, self._pause * 1.5)
        return True

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        if self._listener is not None:
            self._listener.close()
