"""Policies: what a worker has to know about an operation besides its code, such as when it is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and when a failed task is tried again: at most `max` times, so `max` + 1 executions.

    The pause before the n-th is between base * 2**(n-1), at most `cap`, and twice that: at random, so that tasks
    that failed together do not come back together. `factor=1` makes it constant.
    """

    max: int = 3
    base: float = 0.2
    cap: float = 30.0
    factor: float = 2.0

    @classmethod
    def immediate(cls, max: int = 3) -> Retry:
        """Try again at once."""
        return cls(max, 0.0, 0.0)

    @classmethod
    def after(cls, seconds: float, max: int = 3) -> Retry:
        """Try again after the same pause each time."""
        return cls(max, seconds, seconds, 1.0)

    def delay(self, failures: int, draw: Callable[[], float] = random.random) -> float:
        """Seconds to wait after so many failures; `draw` gives numbers between 0 and 1."""
        least = min(self.cap, self.base * self.factor ** min(failures - 1, 64))
        return least * (1.0 + draw())


RETRY: Final = Retry()  # if nothing is said


@dataclass(frozen=True, slots=True)
class Policy:
    """What a worker has to know about an operation besides its code."""

    queue: str = "default"
    retry: Retry = RETRY
    time_limit: float | None = None  # seconds; then TimeLimit is raised in the operation
    hard_limit: float | None = None  # seconds; then its process is killed
    max_losses: int = 3
    coalesce: float | None = None  # seconds that a task with a coalesce key waits for others
    on_failure: str | None = None  # of a task that is dead: "terminate" fails its job, "ignore" does not
    turns: bool = False  # it is a job class, and its tasks are turns
