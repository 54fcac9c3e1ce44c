"""What the tests of net run at the other end, and how they wait for it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any

from net import Place
from tasklets import ChannelClosed, channel, message, sleep, tasklet, timeout

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0  # seconds after which something that ought to happen is taken not to


@message(name="net.tests.Note")
class Note:
    text: str
    at: datetime
    reply: channel | None = None


# ------------------------------------------------------------------------------------------- run at the other end


def make(capacity: int, reply: channel) -> None:
    reply.send(channel(capacity, copy=True))


def tell_balance(where: channel, reply: channel) -> None:
    reply.send(where.balance)


def tell_pid(reply: channel) -> None:
    reply.send(os.getpid())


def send_all(where: channel, *values: Any) -> None:
    for value in values:
        where.send(value)


def count_up(where: channel, count: int) -> None:
    for number in range(count):
        where.send(number)
    where.close()


def take(where: channel, count: int, result: channel) -> None:
    result.send([where.receive() for _ in range(count)])


def collect(where: channel, result: channel) -> None:
    result.send(list(where))


def close(where: channel) -> None:
    where.close()


def send_error(where: channel, text: str) -> None:
    where.send_exception(ValueError, text, 7)


def send_closed(where: channel) -> None:
    """Send the news of another channel's end as if it were a message, then go on."""
    where.send(1)
    where.send_exception(ChannelClosed, "of another channel")
    where.send(2)
    where.close()


def collect_with_errors(where: channel, result: channel) -> None:
    """What iterating over a channel brings, until it ends by itself."""
    found: list[Any] = []
    while True:
        try:
            found.append(next(where))
        except StopIteration:
            break
        except ChannelClosed as error:
            found.append(str(error))
    result.send(found)


def answer(requests: channel) -> None:
    for value, reply in requests:
        reply.send(value * 2)


def compute_for_ever(reply: channel) -> None:
    reply.send(os.getpid())
    sleep(0.001)  # so that it has left
    while True:
        pass


# ------------------------------------------------------------------------------------------------------- at this end


def ask(place: Place, function: Callable[..., object], *args: Any) -> Any:
    """Run a function there that answers on its last argument."""
    reply = place.channel()
    spawned = place.spawn(function, *args, reply)
    with timeout(PATIENCE):
        answer = reply.receive()
        spawned.join()
    return answer


def balance(place: Place, where: channel) -> int:
    """The balance of a channel at its home."""
    found: int = ask(place, tell_balance, where)
    return found


def until(condition: Callable[[], object], what: str = "") -> None:
    deadline = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < deadline, f"waited {PATIENCE:g} s in vain: {what or condition}"
        sleep(0.002)


class Doing:
    """A tasklet here, and what came of it."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.over = False
        self.tasklet = tasklet(self._run)(function, args)
        self.tasklet.run()  # up to its first wait

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            self.value = function(*args)
        except Exception as error:
            self.error = error
        finally:
            self.over = True

    def result(self) -> Any:
        until(lambda: self.over, f"the end of {self.tasklet}")
        if self.error is not None:
            raise self.error
        return self.value


# --------------------------------------------------------------------------------------------------------- processes


def start(*command: str, **options: Any) -> subprocess.Popen[str]:
    """Start a Python program that finds this repository's packages."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **{"cwd": ROOT, **options},
    )


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that a program prints."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"it ended instead: {process.communicate()[1]}"
    return line.strip()


@contextmanager
def running(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program for as long as the block lasts."""
    process = start(*command, **options)
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def node(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `tasklets node` on a free port; yields it and its address."""
    with running("-m", "net.cli", "node", "--listen", "127.0.0.1:0", *options) as process:
        yield process, line_of(process).removeprefix("listening at ")


def is_alive(pid: int) -> bool:
    """True until a process has ended (or is a zombie that nobody waits for)."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


def wait_until_gone(pids: list[int], seconds: float) -> None:
    """Wait (without the event loop) for processes that are nobody's children to end."""
    deadline = monotonic() + seconds
    while left := [pid for pid in pids if is_alive(pid)]:
        if monotonic() > deadline:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"{left} of {pids} are alive after {seconds:g} s")
        signal.sigtimedwait([], 0.01)
