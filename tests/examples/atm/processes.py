"""Real processes for the tests that are about processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).parents[3]
MARK = "ATM_TEST_MARK"  # an environment variable, by which a process is known with all that it starts


class Process(subprocess.Popen[str]):
    """A Python module run as a program of its own, in a process group of its own."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self.mark = uuid4().hex
        self.cwd = cwd  # also for its temporary files
        environment = os.environ | {
            MARK: self.mark,
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "100",
            "TMPDIR": str(cwd),
        }
        super().__init__(
            [sys.executable, "-m", *arguments],
            cwd=cwd,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def wait_for_line(self, beginning: str) -> str:
        """Read stdout up to the line that begins so, and return the rest of it."""
        assert self.stdout is not None
        seen = []
        for line in self.stdout:
            seen.append(line)
            if line.startswith(beginning):
                return line.removeprefix(beginning).strip()
        raise AssertionError(f"{self.args} ended without {beginning!r}: {seen} {self.communicate()[1]}")

    def finish(self, answers: str | None = None, timeout: float = 100) -> tuple[int, str, str]:
        """Give it its input, wait for its end, and return exit code, stdout and stderr."""
        try:
            stdout, stderr = self.communicate(answers, timeout=timeout)
        except subprocess.TimeoutExpired:
            self.end()
            raise
        return self.returncode, stdout, stderr

    def interrupt(self, by: int = signal.SIGINT) -> tuple[int, str, float]:
        """Press Ctrl-C, for the whole group, as a terminal does; return exit code, stderr and seconds."""
        began = time.monotonic()
        os.killpg(self.pid, by)
        code, _, stderr = self.finish(timeout=10)
        return code, stderr, time.monotonic() - began

    def end(self) -> None:
        """Kill what is left of it."""
        if self.poll() is None:
            self.kill()
        self.communicate()
        for pid in self.survivors():
            os.kill(pid, signal.SIGKILL)

    def survivors(self) -> list[int]:
        """Return the processes that it started, or itself, and that still run."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue  # it ended, or is none of ours
        return found


def run(*arguments: str, cwd: Path, answers: str | None = None) -> tuple[int, str, str]:
    """Run the example to its end; nothing it started may survive. Return exit code, stdout, stderr."""
    process = Process("examples.atm", *arguments, cwd=cwd)
    try:
        result = process.finish(answers)
        assert process.survivors() == []
    finally:
        process.end()
    return result


@contextmanager
def running(*arguments: str, cwd: Path) -> Iterator[Process]:
    """Run a module for the length of a block; it is killed afterwards."""
    process = Process(*arguments, cwd=cwd)
    try:
        yield process
    finally:
        process.end()


@contextmanager
def running_bank(
    ledger: Path, listen: str = "tcp://127.0.0.1:0", *more: str
) -> Iterator[tuple[Process, str]]:
    """Run a bank on a free port; yields it with the URL of its channel."""
    arguments = ("bank", "--listen", listen, "--accounts", str(ledger), *more)
    with running("examples.atm", *arguments, cwd=ledger.parent) as bank:
        yield bank, bank.wait_for_line("The bank listens at ").partition(";")[0]
