"""Directives: what is to be done with a stream of values, said before anything is done.

    plan = IndexedStream(range(1, 11)).map(fib).fold(Sum())          does nothing
    plan.run(client)                                                 143, by the workers of a group
    plan.run("processes:4")                                          143, by four children of this process

A directive is read-only; each step makes a new one. What it comes to is decided by where it is run: see `engines`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from cluster.directives.chunks import FILTER, FLAT_MAP, MAP, Step
from cluster.directives.folding import FAN_IN
from cluster.directives.monoids import BoundMonoid
from cluster.directives.plans import Options, Plan
from cluster.directives.results import Evaluation, Results
from cluster.errors import ClusterError
from cluster.operations import Bound, Operation, constructed_with
from cluster.registry import Registered, operations


class Directive:
    """What is to be done. Subclass it for shapes of your own: see `_map`, `_fold`, `_plan`, `_result`."""

    _shape = "stream"  # what a handle on it reads: values, or the one of a "literal"

    # -- said by users

    def map(self, op: Any, *, chunk: int | None = None) -> Directive:
        """Apply an operation to each value; the index of a value stays what it is.

        `chunk` fixes how many inputs one task carries, else that follows from what they take. Raises TypeError for
        what is no operation.
        """
        return self._map(step_of(MAP, op), chunk)

    def filter(self, op: Any, *, chunk: int | None = None) -> Directive:
        """Leave out the values for which an operation returns nothing true."""
        return self._map(step_of(FILTER, op), chunk)

    def flat_map(self, op: Any, *, chunk: int | None = None) -> Directive:
        """Replace each value by those that an operation returns for it, in their order; they share its index."""
        return self._map(step_of(FLAT_MAP, op), chunk)

    def fold(self, monoid: Any, *, fan_in: int = FAN_IN) -> Directive:
        """Combine all values, in the order of their indices, to one; at most `fan_in` at a time.

        Of none it is the monoid's `empty()`. Raises TypeError for what is no monoid.
        """
        if isinstance(monoid, Operation) and monoid.bound_as is BoundMonoid:
            raise TypeError(
                f"{monoid.name} is not made with its values yet: fold({monoid.function.__name__}())"
            )
        if not isinstance(monoid, BoundMonoid):
            raise TypeError(
                f"{monoid!r} is no monoid; decorate a class that has empty() and combine() with @monoid"
            )
        if fan_in < 2:
            raise ClusterError(f"at least 2 values are combined at a time, not {fan_in}")
        return self._fold(step_of(MAP, monoid), monoid.empty(), fan_in)

    def run(self, where: Any, **options: Any) -> Any:
        """Do it, and return what it comes to: `Results` of a stream, the value of a literal or of a fold.

        `where` is a Client; a place, or its name ("here", "processes:4", "hosts:alpha:7000"); an
        executor of `concurrent.futures`; a client of Dask; the module `ray`. The options are those of `Options`. It
        ends with this call, or, for a stream, with its results: whatever interrupts them cancels it.

        Raises OperationError, JobTimeout; what the engine raises.
        """
        from cluster.directives.engines import (
            evaluate,  # not sooner: an executor runs none, and needs no gevent
        )

        return self._result(evaluate(self._plan(), where, Options(**options)))

    def start(self, client: Any, **options: Any) -> Any:
        """Store it as a job of a group, and return a handle at once; it goes on when this process ends."""
        from cluster.directives.durable import start  # as above

        return start(self._plan(), client, Options(**options), self._shape)

    # -- said by subclasses

    def _map(self, step: Step, chunk: int | None) -> Directive:
        """Return the directive that does a step more. A functor of your own hands the step to what it is made of."""
        raise TypeError(f"{type(self).__name__} cannot be mapped")

    def _fold(self, step: Step, empty: Any, fan_in: int) -> Directive:
        """Return the directive that folds. A foldable of your own hands it to what it is made of."""
        raise TypeError(f"{type(self).__name__} cannot be folded")

    def _plan(self) -> Plan:
        """What the engines are to do."""
        raise NotImplementedError

    def _result(self, evaluation: Evaluation) -> Any:
        """What `run` returns, of what the engines do."""
        raise NotImplementedError


class _Stream(Directive):
    """Inputs and what is done to each."""

    def __init__(self, plan: Plan) -> None:
        self._planned = plan

    def _map(self, step: Step, chunk: int | None) -> Directive:
        if chunk is not None and chunk < 1:
            raise ClusterError(f"a chunk has at least one input, not {chunk}")
        plan = self._planned
        known = operations().get(step.op)
        made = type(self).__new__(type(self))
        made._planned = replace(
            plan,
            steps=(*plan.steps, step),
            chunk=chunk or plan.chunk or (1 if known is not None and _is_limited(known) else None),
            queue=plan.queue if plan.steps or known is None else known.policy.queue,
        )
        return made

    def _fold(self, step: Step, empty: Any, fan_in: int) -> Directive:
        known = operations().get(step.op)
        queue = self._planned.queue
        if not self._planned.steps and known is not None:
            queue = known.policy.queue
        return _Folded(replace(self._planned, fold=step, empty=empty, fan_in=fan_in, queue=queue))

    def _plan(self) -> Plan:
        return self._planned


class IndexedStream(_Stream):
    """Values with their indices, from any iterable: a list, a range, an endless or slow generator.

    What has a length is cut and given out as a whole; of anything else no more is taken than may be in flight.
    """

    def __init__(self, values: Iterable[Any]) -> None:
        if isinstance(values, str | bytes):
            raise TypeError(
                f"{values!r} is one value, and not many; say IndexedStream(list({values!r})) if you mean it"
            )
        if not isinstance(values, Iterable):
            raise TypeError(f"{values!r} cannot be iterated; one value is a Literal")
        super().__init__(Plan(values))

    def __repr__(self) -> str:
        return f"<{_stream_text(self._planned)}>"

    def batch(self, size: int) -> IndexedStream:
        """Put neighbours together: tuples of `size` inputs, the last one may have fewer. Before any map."""
        if size < 1:
            raise ClusterError(f"a batch has at least one input, not {size}")
        if self._planned.steps:
            raise ClusterError(
                "inputs are put together before they are mapped: IndexedStream(xs).batch(n).map(op)"
            )
        batched = _Batched(self._planned.inputs, size)
        return IndexedStream(batched if self._planned.total is not None else iter(batched))

    def _result(self, evaluation: Evaluation) -> Results:
        return evaluation.results()


class Literal(_Stream):
    """One value as a directive: `Literal(5).map(MultiplyBy(2)).run(client)` is 10."""

    _shape = "literal"

    def __init__(self, value: Any) -> None:
        super().__init__(Plan((value,)))

    def __repr__(self) -> str:
        return f"<Literal{_chain_text(self._planned)}>"

    def _result(self, evaluation: Evaluation) -> Any:
        with evaluation.results() as results:
            values = results.values_sorted()
        return values[0] if len(values) == 1 and not evaluation.many else tuple(values)


class _Folded(Directive):
    """A fold of inputs to one value."""

    def __init__(self, plan: Plan) -> None:
        self._planned = plan

    def __repr__(self) -> str:
        return f"<{_stream_text(self._planned)}>"

    def _plan(self) -> Plan:
        return self._planned

    def _result(self, evaluation: Evaluation) -> Any:
        return evaluation.value()


def _stream_text(plan: Plan) -> str:
    total = "?" if plan.total is None else plan.total
    return f"IndexedStream of {total}{_chain_text(plan)}"


def _chain_text(plan: Plan) -> str:
    steps = [f".{step.kind}({step.op})" for step in plan.steps]
    return " " + "".join([*steps, *([f".fold({plan.fold.op})"] if plan.fold else [])])


@dataclass(frozen=True)
class _Batched:
    inputs: Any
    size: int

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.size)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        source = iter(self.inputs)
        while batch := tuple(itertools.islice(source, self.size)):
            yield batch


def step_of(kind: str, op: Any) -> Step:
    """A step that applies an operation, one made with values, or one known by its name. Raises TypeError."""
    if isinstance(op, str):
        return Step(kind, op, op.partition(":")[0])
    if isinstance(op, Bound):
        return Step(kind, op.operation.name, _module_of(op.operation), constructed_with(op.instance))
    if isinstance(op, Operation):
        if op.is_class:
            raise TypeError(f"{op.name} is not made with its values yet: {op.function.__name__}(...)")
        return Step(kind, op.name, _module_of(op))
    raise TypeError(f"{op!r} is no operation; decorate it with @operation, or give an operation's name")


def _is_limited(op: Registered) -> bool:
    """Whether what runs too long is killed, with whatever else is in its task."""
    return op.policy.time_limit is not None or op.policy.hard_limit is not None


def _module_of(op: Operation[..., Any]) -> str:
    """Where another process finds it; of the program itself under the name that its file has."""
    module = str(op.function.__module__)
    return op.name.partition(":")[0] if module == "__main__" else module
