"""Plans: a directive as the engines read it, and how it is to be run."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from dataclasses import dataclass
from typing import Any

from cluster.directives.chunks import DEFAULT, RAISE, REPORT, SKIP, Program, Step
from cluster.directives.folding import FAN_IN
from cluster.errors import ClusterError
from cluster.registry import operations


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: inputs, what is done to each, and how they are folded, if they are."""

    inputs: Iterable[Any]
    steps: tuple[Step, ...] = ()
    fold: Step | None = None
    empty: Any = None  # of the monoid
    fan_in: int = FAN_IN
    chunk: int | None = None  # inputs of a task; None: chosen by what they take
    queue: str = "default"

    @property
    def total(self) -> int | None:
        """How many inputs there are; None when only their end will tell."""
        return len(self.inputs) if isinstance(self.inputs, Sized) else None

    def check(self) -> None:
        """Raise ClusterError when nothing is done with the inputs."""
        if not self.steps and self.fold is None:
            raise ClusterError("there is nothing to do with these inputs: map or fold them")

    def program(self, options: Options) -> Program:
        """What is done with each chunk."""
        return Program(self.steps, self.fold, self.on_error(options), options.default)

    def on_error(self, options: Options) -> str:
        """What follows a failure: what the caller says, or else the operations."""
        if options.on_error is not None:
            return options.on_error
        known = [operations().get(step.op) for step in self.steps]
        ignored = any(op is not None and op.policy.on_failure == "ignore" for op in known)
        return REPORT if ignored else RAISE


@dataclass(frozen=True, slots=True)
class Options:
    """How a directive is run.

    - `timeout`: seconds until it is terminated, and JobTimeout raised
    - `on_error`: what follows when an operation has failed for good: "raise" ends everything with its OperationError,
      "skip" gives a `Skipped` for the input, and a fold goes on without it, "default" puts `default` in its place.
      If nothing is said it is "raise"; but an operation with on_failure="ignore" is skipped, and only
      `values_sorted()` raises its error
    - `max_in_flight`: how many inputs may be taken and not be delivered yet; chosen by the slots if None
    - `priority`, `queue`, `name`, `id`, `ttl`: of the job, where there is a store
    """

    timeout: float | None = None
    on_error: str | None = None
    default: Any = None
    max_in_flight: int | None = None
    priority: int = 0
    queue: str | None = None
    name: str = ""
    id: str | None = None
    ttl: float | None = None

    def __post_init__(self) -> None:
        if self.on_error not in (None, RAISE, SKIP, DEFAULT, REPORT):
            raise ClusterError(f"on_error is one of 'raise', 'skip', 'default', not {self.on_error!r}")
        if self.max_in_flight is not None and self.max_in_flight < 1:
            raise ClusterError(
                f"max_in_flight is at least 1, not {self.max_in_flight}: nothing could ever begin"
            )
        if self.timeout is not None and self.timeout < 0:
            raise ClusterError(f"a timeout is a number of seconds from now on, not {self.timeout}")
