"""Shards: contiguous parts of a job's inputs, one task each, and how a task runs its part.

    for low, high in split(1000, shards_for(slots=8)): ...          every input in exactly one shard
    run_inputs(ctx, inputs, call)                                   in an operation that runs a shard by itself

An operation that is given by its name needs nothing of its own: its shards are chunks of `cluster.directives`.

Results are recorded as they come (`ctx.record`), so a worker that dies costs the inputs of the last moment, and the
next one goes on behind them. An input that fails is a failed result; a worker that cannot do its part (no
memory, no such program) is a failure of the task, which is tried again elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

SHARDS_PER_SLOT: Final = 4  # so that the last ones to end are short beside the whole, whatever each one costs


class InputFailed(Exception):
    """An input failed for good. `output` is what there is of it all the same."""

    def __init__(self, kind: str, message: str, output: Any = None) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message
        self.output = output


class NotHere(Exception):
    """Not the input failed, but the worker that was to run it: the task is to be tried again, with this error."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


# ------------------------------------------------------------------------------------------------ splitting


def shards_for(slots: int) -> int:
    """How many shards a job should have for so many slots; with no slot, as for one: some will come."""
    return SHARDS_PER_SLOT * max(1, slots)


def split(total: int, shards: int) -> Iterator[tuple[int, int]]:
    """Cut 0..total-1 into at most `shards` contiguous ranges [low, high), none of them empty.

    Their sizes differ by at most one, the larger ones first: (10, 3) is 4, 3, 3.
    """
    count = min(total, max(1, shards))
    low = 0
    for number in range(count):
        high = low + total // count + (number < total % count)
        yield low, high
        low = high


# ------------------------------------------------------------------------------------------------ running


def run_inputs(ctx: Any, inputs: Sequence[Any], call: Callable[[Any, int], Any]) -> None:
    """Run a shard from its first input without a result: `call(input, its number in the job)`.

    `call` raises InputFailed for an input that failed, and NotHere when the task is to be tried again elsewhere.
    """
    for position in range(ctx.recorded, len(inputs)):
        ctx.check()
        try:
            ctx.record(call(inputs[position], ctx.index + position))
        except InputFailed as failure:
            row = {"kind": failure.kind, "message": failure.message, "worker": ctx.worker}
            if failure.output is not None:
                row["output"] = failure.output
            ctx.record_failure(row)
        except NotHere as failure:
            raise failure.error from failure


def json_text(value: Any) -> str:
    """A value as JSON, for programs that read text."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str)
