"""The programs as processes, for the tests that are about processes."""

import os
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from examples.primes.backlog import Answer

ROOT = Path(__file__).resolve().parents[3]


def worker_process(answer: Answer) -> int:
    """Return the process that computed `answer`, as its worker called itself."""
    found = re.search(r"process (\d+)", answer.worker)
    assert found
    return int(found[1])


class Program:
    """`python -m examples.primes ...` in a session of its own; knows every process that came from it."""

    module = "examples.primes"

    def __init__(self, *arguments: str) -> None:
        self.mark = f"PRIMES_TEST={uuid.uuid4().hex}"
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.module, *arguments],
            cwd=ROOT,
            env={**os.environ, name: value},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def first_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def finish(self, seconds: float = 100.0) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err

    def relatives(self) -> list[int]:
        """Return the processes with our mark in their environment: the program and all that it started."""
        found = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            try:
                marked = self.mark.encode() in environment.read_bytes().split(b"\0")
            except OSError:  # ended meanwhile, or not ours
                continue
            if marked:
                found.append(int(environment.parent.name))
        return found

    def clean(self) -> None:
        for pid in self.relatives():
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks for processes in /proc"
)
