"""Operations that the tests let workers run. What they did stands in the file JOURNAL names."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

from cluster import Fatal, Next, Retry, Transient, operation, register_codec

register_codec("json", lambda value: json.dumps(value).encode(), json.loads)

QUICK = Retry(max=2, base=0.05, cap=0.1)


def write(*words: object) -> None:
    """Append a line, in one write, so that processes may share the file."""
    path = os.environ.get("JOURNAL")
    if path:
        with open(path, "ab", buffering=0) as journal:
            journal.write(
                (" ".join(map(str, (f"{time.monotonic():.6f}", os.getpid(), *words))) + "\n").encode()
            )


@operation
def add(a: int, b: int) -> int:
    return a + b


@operation(queue="block")
def block_of(number: int) -> int:
    """Some workers are there for these only."""
    return number // 10


@operation
def nap(seconds: float, mark: str = "") -> str:
    write("start", mark)
    time.sleep(seconds)
    write("end", mark)
    return mark


@operation
def measured_nap(seconds: float) -> tuple[int, float]:
    """Which process slept, and for how long."""
    began = time.monotonic()
    time.sleep(seconds)
    return os.getpid(), time.monotonic() - began


@operation
def spin(seconds: float) -> int:
    """Compute without a pause."""
    end = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < end:
        rounds += 1
    return rounds


@operation(retry=QUICK)
def flaky(ctx: Any, path: str, failures: int) -> int:
    """Fail so many times, then succeed."""
    write("flaky", ctx.attempt)
    with open(path, "a+", encoding="utf-8") as seen:
        seen.seek(0)
        before = len(seen.read())
        seen.write("x")
    if before < failures:
        raise ValueError(f"failure {before + 1}")
    return before + 1


@operation(retry=Retry.after(0.5))
def hesitant(ctx: Any, failures: int) -> int:
    """Fail so many times, with half a second before the next attempt."""
    write("hesitant", ctx.attempt)
    if ctx.attempt <= failures:
        raise ValueError(f"failure {ctx.attempt}")
    return int(ctx.attempt)


@operation
def watch(ctx: Any) -> Any:
    """Look after something for ever, a little at a time."""
    write("watch", ctx.worker)
    return Next("again", after=0.1)


@operation(retry=QUICK)
def fail(kind: str, mark: str = "") -> None:
    write("fail", kind, mark)
    match kind:
        case "value":
            raise ValueError("no such value: ü")
        case "fatal":
            raise Fatal("it cannot be")
        case "transient-then-fatal":
            raise Transient("not now")
        case "exit":
            os._exit(1)
        case "segfault":
            ctypes.string_at(0)
        case "sys.exit":
            sys.exit("bye")
        case "recursion":
            fail.function(kind="recursion")
        case "memory":
            raise MemoryError
        case "keyboard":
            raise KeyboardInterrupt
        case "strange":
            raise Strange(lambda: 1)
        case "result":
            return object()  # type: ignore[return-value]
        case "large":
            return b"x" * (1 << 20)  # type: ignore[return-value]
        case "garbage":
            for descriptor in range(3, 20):
                with contextlib.suppress(OSError):
                    os.write(descriptor, b"\xc1 no frame")
            time.sleep(5)
    return None


class Strange(Exception):
    """An exception that no pickle could carry."""

    def __str__(self) -> str:
        raise RuntimeError("not even its text")


@operation(retry=QUICK, transient=(OSError,))
def declared(kind: str) -> None:
    write("declared", kind)
    raise OSError("disk") if kind == "os" else ValueError("value")


@operation(retry=Retry(max=0), time_limit=0.2, hard_limit=0.6)
def slow(how: str) -> str:
    write("slow", how)
    if how == "polite":
        time.sleep(30)
    try:
        while True:
            time.sleep(0.05)
    except Exception:
        if how == "stubborn":
            time.sleep(30)
        raise
    return how


@operation
def steps(ctx: Any) -> str:
    """Three durable steps; each leaves a line."""
    number = int(ctx.step or 1)
    write("step", number, ctx.task_id)
    ctx.data["n"] = ctx.data.get("n", 0) + 1
    if number < 6:
        return Next(str(number + 1), after=0.05)  # type: ignore[return-value]
    return f"{ctx.data['n']} steps"


@operation
def obeys(ctx: Any) -> None:
    write("obeys")
    while True:
        ctx.check()
        time.sleep(0.02)


@operation
def ignores() -> None:
    write("ignores")
    time.sleep(60)


@operation
def parent(ctx: Any, count: int, end: str = "return") -> int:
    for number in range(count):
        ctx.submit(nap, 0, f"child {number}")
    if end == "fail":
        raise Fatal("the children must not be")
    return count


@operation
def prolific(ctx: Any, count: int, size: int) -> None:
    for _ in range(count):
        ctx.submit(nap, 0, "x" * size)


@operation
def hoards(ctx: Any) -> Any:
    ctx.data["all"] = "x" * (1 << 20)
    return Next("more")


@operation(coalesce=0.4)
def mail(ctx: Any, user: int, lines: int) -> int:
    total = sum(batch[1] for batch in ctx.batch)
    write("mail", user, total)
    return total


@operation(validate=lambda amount: amount > 0 or _refuse())
def pay(amount: int) -> int:
    return amount


def _refuse() -> None:
    raise ValueError("the amount must be positive")


@operation(tolerant=True)
def tolerant(a: int) -> int:
    return a


@operation(retry=QUICK)
def strict(a: int) -> int:
    return a


@operation
def until(path: str) -> None:
    """Run until there is a file of this name."""
    write("until")
    while not os.path.exists(path):
        time.sleep(0.02)


@operation
def hold(ctx: Any, path: str) -> None:
    """Say which task runs where, until there is a file of this name."""
    write("hold", ctx.task_id, ctx.worker)
    while not os.path.exists(path):
        time.sleep(0.02)


@operation
@dataclass
class MultiplyBy:
    factor: int

    def __call__(self, x: int) -> int:
        return self.factor * x


@operation(name="renamed-since")
def new_name() -> str:
    return "the new code"


@operation
def told(ctx: Any) -> dict[str, Any]:
    return {
        "task_id": ctx.task_id,
        "fence": ctx.fence,
        "attempt": ctx.attempt,
        "meta": ctx.meta,
        "worker": ctx.worker,
    }


@operation
def obeys_cooperatively(ctx: Any) -> None:
    """The same for workers in one process: `ctx.cancelled` lets the others run."""
    while True:
        ctx.check()
