"""Operations and monoids of the tests of directives. What they did stands in the file that JOURNAL names."""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass
from typing import Any

from cluster import Fatal, Job, Retry, TaskEnded, Transient, operation
from cluster.directives import monoid
from examples.primes.arithmetic import primes_in
from tests.cluster.ops import write

NONE = Retry(max=0)
QUICK = Retry(max=3, base=0.01, cap=0.02)
MAPPED, FOLDED = (
    range(1000),
    range(2000),
)  # inputs of those who ask by HTTP, whose last is held up until they go on


@operation
def fib(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


@operation
def double(x: int) -> int:
    return 2 * x


@operation
def noted(x: int) -> int:
    """Leave a line for each execution."""
    write("noted", x)
    return x


@operation
def nap(seconds: float) -> float:
    write("nap", seconds)
    time.sleep(seconds)
    write("woke", seconds)
    return seconds


@operation
def slow_noted(x: int) -> int:
    time.sleep(0.01)
    write("noted", x)
    return x


@operation
def is_even(x: int) -> bool:
    return x % 2 == 0


@operation
def letters(word: str) -> list[str]:
    return list(word)


@operation
@dataclass
class MultiplyBy:
    factor: int

    def __call__(self, x: int) -> int:
        return self.factor * x


@operation(retry=NONE)
def picky(x: int) -> int:
    write("picky", x)
    if x % 10 == 3:
        raise ValueError(f"not {x}")
    return x


@operation(retry=QUICK)
def flaky(ctx: Any, x: int) -> int:
    """Fail at the first two attempts."""
    write("flaky", x, ctx.attempt)
    if ctx.attempt < 3:
        raise Transient(f"not yet: {ctx.attempt}")
    return x


@operation
def fatal_at_10(x: int) -> int:
    write("executed", x)
    if x == 10:
        raise Fatal("ten is too many")
    time.sleep(0.002)
    return x


@operation
def unsendable(x: int) -> Any:
    return object() if x == 1 else x


@operation(retry=NONE)
def dies(x: int) -> int:
    if x == 5:
        os._exit(1)
    return x


@operation(retry=NONE)
def segfaults_once(path: str) -> int:
    """End this process the first time."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return os.getpid()
    ctypes.string_at(0)
    return 0


@operation
def pid_of(x: int) -> int:
    time.sleep(0.02)
    return os.getpid()


@operation
def primes(chunk: tuple[int, int]) -> tuple[int, ...]:
    return primes_in(*chunk)


@monoid
class Sum:
    def empty(self) -> int:
        return 0

    def combine(self, a: int, b: int) -> int:
        return a + b


@monoid
class Concat:
    """Of texts, and of tuples of them."""

    def empty(self) -> str:
        return ""

    def combine(self, ctx: Any, a: str, b: str) -> str:
        write("combine", len(a), len(b))
        return a + b


@monoid
class Join:
    """Of tuples."""

    def empty(self) -> tuple[Any, ...]:
        return ()

    def combine(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        return a + b


@monoid
class SlowConcat:
    def empty(self) -> str:
        return ""

    def combine(self, ctx: Any, a: str, b: str) -> str:
        write("combine", len(a), len(b))
        time.sleep((len(a) * 7 + len(b) * 3) % 5 / 1000)
        return a + b


@monoid(retry=NONE)
class Brittle:
    def empty(self) -> int:
        return 0

    def combine(self, a: int, b: int) -> int:
        raise ValueError("these two do not go together")


@monoid
@dataclass
class Top:
    """The largest few, in order."""

    count: int

    def empty(self) -> tuple[int, ...]:
        return ()

    def combine(self, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted((*a, *b), reverse=True)[: self.count])


@monoid
class Difference:
    """No monoid at all."""

    def empty(self) -> int:
        return 0

    def combine(self, a: int, b: int) -> int:
        return a - b


@operation
def gentle_nap(ctx: Any, seconds: float) -> float:
    """Sleep, and let others of this process run meanwhile."""
    write("nap", seconds)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ctx.check()
    write("woke", seconds)
    return seconds


@operation(retry=NONE, time_limit=0.4)
def limited_nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@operation
def text(x: float) -> str:
    return str(x)


@operation
def length(text: str) -> int:
    return len(text)


@operation
def long_text(size: int) -> str:
    return "x" * size


@operation(retry=NONE, on_failure="ignore")
def ignorable(x: int) -> int:
    if x == 3:
        raise ValueError("not 3")
    return x


@operation
def map_noted(x: int) -> int:
    time.sleep(0.001)
    write("mapped", x)
    return 2 * x


@operation
def fold_noted(x: int) -> int:
    time.sleep(0.001)
    write("folded", x)
    return x


def wait_to_go() -> None:
    """Hold up what must not be done before something else has happened: until the file beside the journal is there."""
    while not os.path.exists(os.environ["JOURNAL"] + ".go"):
        time.sleep(0.01)


@operation
def map_until_go(x: int) -> int:
    if x == MAPPED[-1]:
        wait_to_go()
    return map_noted(x)


@operation(queue="folds")
def join_until_go(low: int, high: int) -> str:
    if FOLDED[-1] in range(low, high):
        wait_to_go()
    return "".join(str(fold_noted(x)) for x in range(low, high))


class Joined(Job):
    """The fold of those who ask by HTTP: a job whose tasks are its parts. Its inputs are FOLDED."""

    def start(self, params: None) -> None:
        for low in FOLDED[::25]:
            self.spawn(join_until_go, low, low + 25, meta=b"%06d" % low)

    def on_task_done(self, task: TaskEnded, result: str) -> None:
        self.data[task.meta.decode()] = result

    def on_all_done(self) -> None:
        self.finish("".join(part for _, part in sorted(self.data.items())))
