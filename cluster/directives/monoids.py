"""Monoids: an associative way to combine two values, and what is neutral to it. `fold` needs nothing more.

    @monoid
    class Concat:
        def empty(self): return ""
        def combine(self, ctx, a, b): return a + b

    check_monoid(Concat(), ["", "a", "bc"])         in a test: raises AssertionError naming the values that break a law
    IndexedStream(words).fold(Concat()).run(client)

Associative is all that is asked for: values are combined in their order, so it need not be commutative. A monoid is an
operation, whose policy (`@monoid(retry=...)`) says how a failed combination is tried again.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, is_dataclass
from typing import Any

from cluster.context import Context
from cluster.errors import ClusterError
from cluster.operations import Bound, Operation, operation


class BoundMonoid(Bound):
    """A monoid that was made with its values: `Sum()`, `Top(10)`."""

    def empty(self) -> Any:
        """What is neutral to `combine`."""
        return self.instance.empty()

    def combine(self, a: Any, b: Any) -> Any:
        """Combine two values here and now."""
        return self.instance(Context.local(), a, b)


def monoid(cls: Any = None, /, **policy: Any) -> Any:
    """Make a class with `empty(self)` and `combine(self, ctx, a, b)`, or `combine(self, a, b)`, a monoid.

    `policy` is that of `@operation`. The class becomes a dataclass if it is none; its values travel with the work.

    Raises ClusterError for a class without the two methods.
    """
    if cls is None:
        return lambda cls: monoid(cls, **policy)
    missing = [name for name in ("empty", "combine") if not callable(getattr(cls, name, None))]
    if missing:
        raise ClusterError(f"{cls.__qualname__} is no monoid: it has no {' and no '.join(missing)}(...)")
    parameters = list(inspect.signature(cls.combine).parameters)
    cls.__call__ = _call_with_context if parameters[1:2] == ["ctx"] else _call_without
    if not is_dataclass(cls):
        cls = dataclass(cls)
    made: Operation[..., Any] = operation(cls, **policy)
    made.bound_as = BoundMonoid
    return made


def _call_with_context(self: Any, ctx: Any, a: Any, b: Any) -> Any:
    return self.combine(ctx, a, b)


def _call_without(self: Any, ctx: Any, a: Any, b: Any) -> Any:
    return self.combine(a, b)


def check_monoid(m: Any, samples: Iterable[Any], *, equal: Callable[[Any, Any], bool] | None = None) -> None:
    """Check the laws of a monoid on all triples of the samples: `empty` is neutral, `combine` is associative.

    `equal` compares, `==` if not given (floating-point sums are associative only nearly). Raises AssertionError, which
    names the values.
    """
    same = equal or (lambda a, b: a == b)
    some = list(samples)
    for one in some:
        for left, right in ((m.empty(), one), (one, m.empty())):
            made = m.combine(left, right)
            assert same(made, one), (
                f"{m!r}: combine({left!r}, {right!r}) is {made!r}; empty() has to change nothing"
            )
    for a, b, c in itertools.product(some, repeat=3):
        early, late = m.combine(m.combine(a, b), c), m.combine(a, m.combine(b, c))
        assert same(early, late), (
            f"{m!r} is not associative for {a!r}, {b!r}, {c!r}: from the left {early!r}, from the right {late!r}"
        )
