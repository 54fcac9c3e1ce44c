"""What a task of a directive does where it runs: a chain of operations over a chunk of inputs, and perhaps a fold.

The chunk is bytes, the same for every engine: `pack(program, inputs)`. What comes of it is rows of results, in the
order of the inputs, or the part of a fold. Every input is tried again as its operation says, on the spot, before it
counts as failed; what is done then is the program's `on_error`.

Not here: anything of a store, a place, or a process.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from greenlet import GreenletExit

from cluster import codecs
from cluster._failures import described
from cluster.errors import Cancelled, Fatal, InvalidArguments
from cluster.operations import Operation
from cluster.registry import find_operation, operations
from net import values
from tasklets import NotSendable, TaskletExit

MAP: Final = "map"
FILTER: Final = "filter"
FLAT_MAP: Final = "flat_map"

RAISE: Final = "raise"
SKIP: Final = "skip"
DEFAULT: Final = "default"
REPORT: Final = "report"  # as SKIP, but nobody may overlook it: of operations with on_failure="ignore"

LOOK_SECONDS: Final = 0.02  # between two looks whether to stop
KEEP_SECONDS: Final = 0.5  # between two records of what is done so far (D-21)
MAX_ROW_BYTES: Final = 1 << 20
LARGE_BYTES: Final = 8 << 20  # of outputs: they are recorded at once


class Step(NamedTuple):
    """An operation of a chain, as it travels: what is done with it, its name and module, what it was made with."""

    kind: str
    op: str
    module: str = ""
    made_with: Mapping[str, Any] = {}


class Program(NamedTuple):
    """What is done to each input of a chunk."""

    steps: tuple[Step, ...] = ()
    fold: Step | None = None
    on_error: str = RAISE
    default: Any = None

    @property
    def many(self) -> bool:
        """Whether an input may have any number of outputs, and not exactly one."""
        return any(step.kind != MAP for step in self.steps)

    @property
    def op(self) -> str:
        """The operation that a worker has to know to be given a chunk."""
        first = self.steps[0] if self.steps else self.fold
        assert first is not None
        return first.op


class Row(NamedTuple):
    """Results of the inputs [offset, offset + size) of a chunk: a packed list of them, or the failure of one."""

    offset: int
    size: int
    value: bytes
    failed: bool = False


class Produced(NamedTuple):
    """What came of a chunk: rows, or the part of a fold."""

    rows: tuple[Row, ...] = ()
    part: tuple[Any, ...] = ()


class InputFailed(Exception):
    """An input failed for good, and the program wants everything to fail then. `details` describe the failure."""

    def __init__(self, details: dict[str, Any]) -> None:
        super().__init__(details["message"])
        self.details = details


def pack(program: Program, inputs: Sequence[Any], codec: str = "") -> bytes:
    """The bytes of a chunk. Raises InvalidArguments for inputs that cannot travel."""
    plain = (
        tuple(map(tuple, program.steps)), tuple(program.fold) if program.fold else None, program.on_error,
        program.default,
    )  # fmt: skip
    try:
        return codecs.encode((tuple(inputs), {}, {}, plain), codec)
    except NotSendable as error:
        raise InvalidArguments(f"inputs of {program.op} cannot travel: {error}") from error


def is_chunk(call: Sequence[Any]) -> bool:
    """Whether what a task's arguments were decoded to is a chunk, and not one call."""
    return len(call) == 4


def unpack(call: Sequence[Any]) -> tuple[Program, Sequence[Any]]:
    """The program and the inputs of a decoded chunk."""
    steps, fold, on_error, default = call[3]
    return Program(
        tuple(Step(*step) for step in steps), Step(*fold) if fold else None, on_error, default
    ), call[0]


@dataclass
class Surroundings:
    """What the engine has to offer to a chunk."""

    context: Any  # a cluster.Context
    codec: str = ""  # of results
    may_import: bool = False  # an operation's module, when it is not known yet
    interruptible: bool = False  # KeyboardInterrupt is for the program, and no failure of an input
    alone: bool = False  # one input, whose failure is its task's, which is then tried again as a task
    recorded: int = 0  # so many inputs have results already, from an earlier execution
    part: tuple[Any, ...] = ()  # what those were folded to
    max_bytes: int = MAX_ROW_BYTES  # of one row
    # Record rows, of how many inputs in all, or what those were folded to.
    keep: Callable[[Sequence[Row], int, tuple[Any, ...]], None] | None = None
    limited: Callable[[float], AbstractContextManager[object]] | None = None  # limit one call
    sleep: Callable[[float], object] = time.sleep
    draw: Callable[[], float] = random.random


def run_chunk(program: Program, inputs: Sequence[Any], around: Surroundings) -> Produced:
    """Do a chunk.

    Raises InputFailed, Cancelled; and when it is `alone` what the operation raised.
    """
    apply = _chain(program, around)
    done = _Fold(program, around) if program.fold else _Rows(program, around)
    look = time.monotonic() + LOOK_SECONDS
    keep = look + KEEP_SECONDS
    for offset in range(around.recorded, len(inputs)):
        try:
            output = apply(inputs[offset])
        except _Failed as failed:
            done.fail(offset, failed.details)
        else:
            done.add(output)
        if (now := time.monotonic()) >= look:
            look = now + LOOK_SECONDS
            around.context.check()
            if around.keep is not None and (now >= keep or done.is_large()):
                keep = now + KEEP_SECONDS
                done.keep(offset + 1)
    return done.produced()


class _Failed(Exception):
    """One input has failed for good."""

    def __init__(self, details: dict[str, Any]) -> None:
        super().__init__(details["message"])
        self.details = details


# ------------------------------------------------------------------------------------------------ calls


class _Call:
    """One operation of the chain, made with its values; tried again when it fails, as its policy says."""

    def __init__(self, step: Step, around: Surroundings) -> None:
        self._around = around
        if around.may_import and step.module and step.op not in operations():
            importlib.import_module(step.module)
        found = find_operation(step.op)
        if not isinstance(found, Operation):
            raise Fatal(f"{step.op} is a job class, and no operation that a chunk could be given to")
        self._operation = found
        function: Any = self._operation.function
        if self._operation.is_class:
            function = function(**step.made_with)
        if self._operation.takes_context:
            function = functools.partial(function, around.context)
        limit = self._operation.policy.time_limit
        self.function: Callable[..., Any] = (
            function
            if limit is None or around.limited is None
            else _with_limit(function, limit, around.limited)
        )

    def __call__(self, *args: Any) -> Any:
        try:
            return self.function(*args)
        except BaseException as error:  # noqa: BLE001  whatever user code raises is this input's failure
            return self.again(args, error)

    def again(self, args: tuple[Any, ...], error: BaseException) -> Any:
        """Call it again after a failure. Raises _Failed when it has failed for good, and what may not be caught."""
        around, retry = self._around, self._operation.policy.retry
        before = around.context.attempt
        for attempt in itertools.count(1):
            interrupted = around.interruptible and isinstance(error, KeyboardInterrupt)
            if around.alone or interrupted or isinstance(error, Cancelled | TaskletExit | GreenletExit):
                raise error
            details = described(error, self._operation)
            if not details["transient"] or attempt > retry.max:
                where = {"operation": self._operation.name, "worker": around.context.worker}
                raise _Failed({**details, **where, "attempts": attempt}) from error
            after = details["after"]
            _pause(retry.delay(attempt, around.draw) if after is None else after, around)
            around.context.attempt = attempt + 1
            try:
                return self.function(*args)
            except BaseException as latest:  # noqa: BLE001  as above
                error = latest
            finally:
                around.context.attempt = before
        raise AssertionError  # count() has no end


def _with_limit(
    function: Callable[..., Any], seconds: float, limited: Callable[[float], AbstractContextManager[object]]
) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        with limited(seconds):
            return function(*args)

    return call


def _pause(seconds: float, around: Surroundings) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        around.sleep(min(left, LOOK_SECONDS))
        around.context.check()


def _chain(program: Program, around: Surroundings) -> Callable[[Any], Any]:
    """Return what makes an input its output; with `program.many` a tuple of any number of outputs."""
    calls = [(step.kind, _Call(step, around)) for step in program.steps]

    def apply_maps(value: Any) -> Any:
        for _, call in calls:
            try:
                value = call.function(value)
            except BaseException as error:  # noqa: BLE001  as in _Call; here it saves a call per input
                value = call.again((value,), error)
        return value

    def apply_many(value: Any) -> tuple[Any, ...]:
        outputs = [value]
        for kind, call in calls:
            results = [call(one) for one in outputs]
            if kind == MAP:
                outputs = results
            elif kind == FILTER:
                outputs = [one for one, kept in zip(outputs, results, strict=True) if kept]
            else:
                outputs = [one for several in results for one in several]
        return tuple(outputs)

    return apply_many if program.many else apply_maps


# ------------------------------------------------------------------------------------------------ outputs


class _Rows:
    """Of a map: every output is a result."""

    def __init__(self, program: Program, around: Surroundings) -> None:
        self._program = program
        self._around = around
        self._start = around.recorded  # the offset of the first of
        self._outputs: list[Any] = []
        self._rows: list[Row] = []

    def add(self, output: Any) -> None:
        self._outputs.append(output)

    def fail(self, offset: int, details: dict[str, Any]) -> None:
        if self._program.on_error == RAISE:
            raise InputFailed(details)
        self._pack(self._outputs)
        self._outputs = []
        self._rows.append(Row(offset, 1, values.dumps(details), failed=True))
        self._start = offset + 1

    def is_large(self) -> bool:
        """Whether what is here is too much for one message, as far as can be told from the last output."""
        if not self._outputs:
            return False
        try:
            each = len(codecs.encode(self._outputs[-1], self._around.codec))
        except NotSendable:
            return False
        return each * len(self._outputs) > LARGE_BYTES

    def keep(self, done: int) -> None:
        assert self._around.keep is not None
        self._around.keep(self.produced().rows, done, ())

    def produced(self) -> Produced:
        self._pack(self._outputs)
        self._outputs = []
        rows, self._rows = self._rows, []
        return Produced(rows=tuple(rows))

    def _pack(self, outputs: list[Any]) -> None:
        """Make rows of outputs: as few as there may be, and a failed one of what cannot travel."""
        if not outputs:
            return
        try:
            packed = codecs.encode(outputs, self._around.codec)
            if len(packed) > self._around.max_bytes:
                raise Fatal(
                    f"its result has {len(packed)} bytes, and {self._around.max_bytes} are allowed; "
                    "put it where others can read it, and say where"
                )
        except (NotSendable, Fatal) as error:
            if len(outputs) > 1:
                half = len(outputs) // 2
                self._pack(outputs[:half])
                self._pack(outputs[half:])
                return
            if self._around.alone:
                raise
            self._refuse(error)
        else:
            self._rows.append(Row(self._start, len(outputs), packed))
            self._start += len(outputs)

    def _refuse(self, error: Exception) -> None:
        details = {
            "kind": type(error).__name__, "message": str(error), "traceback": "", "attempts": 1,
            "operation": self._program.op, "worker": self._around.context.worker,
        }  # fmt: skip
        if self._program.on_error == RAISE:
            raise InputFailed(details)
        self._rows.append(Row(self._start, 1, values.dumps(details), failed=True))
        self._start += 1


class _Fold:
    """Of a fold: outputs are combined one after the other, so only one is kept."""

    def __init__(self, program: Program, around: Surroundings) -> None:
        assert program.fold is not None
        self._program = program
        self._around = around
        self._part = tuple(around.part)
        self._combine = _Call(program.fold, around)
        self.add = self._add_many if program.many else self._add

    def _add(self, value: Any) -> None:
        if not self._part:
            self._part = (value,)
            return
        both = self._part[0], value
        try:
            self._part = (self._combine.function(*both),)
        except BaseException as error:  # noqa: BLE001  as in _Call; here it saves a call per input
            try:
                self._part = (self._combine.again(both, error),)
            except _Failed as failed:  # with something left out it would be another fold
                raise InputFailed(failed.details) from failed

    def _add_many(self, outputs: tuple[Any, ...]) -> None:
        for value in outputs:
            self._add(value)

    def fail(self, offset: int, details: dict[str, Any]) -> None:
        if self._program.on_error == RAISE:
            raise InputFailed(details)
        if self._program.on_error == DEFAULT:
            self._add(self._program.default)

    def is_large(self) -> bool:
        """It has one value."""
        return False

    def keep(self, done: int) -> None:
        assert self._around.keep is not None
        self._around.keep((), done, self._part)

    def produced(self) -> Produced:
        return Produced(part=self._part)
