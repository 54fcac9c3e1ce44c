"""Shards: contiguous parts of a job's inputs, one task each, and how a task runs its part.

    for low, high in split(1000, shards_for(slots=8)): ...          every input in exactly one shard
    run_inputs(ctx, inputs, call)                                   in the operation that runs a shard

Results are recorded as they come (`ctx.record`), so a worker that dies costs the inputs of the last moment, and the
next one goes on behind them. An input that fails is a failed result; a worker that cannot do its part (no
memory, no such program) is a failure of the task, which is tried again elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from time import monotonic, sleep
from typing import Any, Final

from cluster.operations import Cancelled, Fatal, Operation, Transient, find_operation, operation
from net import values
from tasklets import NotSendable
from tasklets.freezing import describe_exception

MAP: Final = "cluster:map"
SHARDS_PER_SLOT: Final = 4  # so that the last ones to end are short beside the whole, whatever each one costs


class InputFailed(Exception):
    """An input failed for good. `output` is what there is of it all the same."""

    def __init__(self, kind: str, message: str, output: Any = None, traceback_text: str = "") -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message
        self.output = output
        self.traceback_text = traceback_text


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
            if failure.traceback_text:
                row["traceback"] = failure.traceback_text
            if failure.output is not None:
                row["output"] = failure.output
            ctx.record_failure(row)
        except NotHere as failure:
            raise failure.error from failure


def map_inputs(ctx: Any, op: str, inputs: tuple[Any, ...]) -> None:
    """Call an operation with each input of a shard. Its policy holds for each input."""
    known = find_operation(op)
    run_inputs(ctx, inputs, lambda value, _: _attempts(ctx, known, value))


operation(name=MAP)(map_inputs)


def _attempts(ctx: Any, known: Operation[..., Any], value: Any) -> Any:
    failures = 0
    while True:
        try:
            result = known.bind(((value,), {}, {}))(ctx)
            values.dumps(result)  # what cannot travel is a failure of the operation
            return result
        except Cancelled:
            raise
        except Exception as error:  # whatever it raises is the result of its input
            failures += 1
            if not _is_transient(error, known) or failures > known.policy.retry.max:
                kind, message, text = describe_exception(error)
                raise InputFailed(kind, message, traceback_text=text) from error
            delay = getattr(error, "after", None)
            _sleep(ctx, known.policy.retry.delay(failures) if delay is None else delay)


def _is_transient(error: Exception, known: Operation[..., Any]) -> bool:
    if isinstance(error, Transient):
        return True
    if isinstance(error, (Fatal, NotSendable, *known.fatal)):
        return False
    return isinstance(error, known.transient)


def _sleep(ctx: Any, seconds: float) -> None:
    end = monotonic() + seconds
    while (left := end - monotonic()) > 0:
        ctx.check()
        sleep(min(0.05, left))


def json_text(value: Any) -> str:
    """A value as JSON, for programs that read text."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str)
