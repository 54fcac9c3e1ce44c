"""What is mapped and folded by everybody who is measured: one function that costs next to nothing, and one of 5 ms."""

import functools
import operator
from collections.abc import Iterable

EXPENSIVE_LOOPS = 150_000  # about 5 ms


def cheap(x: int) -> int:
    return 2 * x + 1


def expensive(x: int) -> int:
    total = x
    for number in range(EXPENSIVE_LOOPS):
        total += number & 7
    return total


def cheap_all(values: Iterable[int]) -> list[int]:
    return [cheap(x) for x in values]


def fold_part(values: Iterable[int]) -> int:
    return functools.reduce(operator.add, map(cheap, values))


try:
    from cluster import operation
    from cluster.directives import monoid
except ImportError:  # in a worker of somebody else's that needs only the functions
    pass
else:
    cheap_operation = operation(name="bench:cheap")(cheap)
    expensive_operation = operation(name="bench:expensive")(expensive)

    @monoid(name="bench:sum")
    class Sum:
        def empty(self) -> int:
            return 0

        def combine(self, a: int, b: int) -> int:
            return a + b
