"""Child processes that are nodes: how `processes:N` starts and ends them.

A child is connected to its parent by a socket pair from birth, and listens at a Unix socket in a private
folder so that its siblings can reach it too. Its standard input is a *lifeline*: when it ends, because the
parent closed it or died, however it died, a thread of the child ends the child at once, even in the middle of
a computation. So no child outlives its parent. Functions that it cannot import come over the lifeline too.
What it prints appears where the parent prints, line by line, with its name in front.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from time import monotonic
from typing import IO, TYPE_CHECKING

from net._output import Output
from net.errors import NetError, PeerLost
from tasklets import Timeout, timeout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from net._link import Link
    from net.node import Node

START_SECONDS = 60.0  # for all children of a place to be up; a loaded machine takes its time
END_SECONDS = 1.0  # for a child to end by itself once its lifeline is cut
TRACE_SECONDS = 10.0  # the same when it has a trace to write
LAST_OUTPUT_SECONDS = 0.5  # for what an ended child has printed to be shown, when others hold its pipes open


class Child:
    """One child process and the link to it."""

    def __init__(self, node: Node, name: str, folder: str, trace: str | None) -> None:
        self.name = name
        ours, theirs = socket.socketpair()
        with theirs, _ctrl_c_blocked():
            self._process = subprocess.Popen(
                # -P: the working folder is where the parent finds modules, or it is not.
                [sys.executable, "-P", "-m", "net._child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(_import_path())},
            )
            config = {
                "name": name,
                "socket": theirs.fileno(),
                "listen": os.path.join(folder, f"{name}.sock"),
                "pythonpath": os.environ.get("PYTHONPATH"),
                "trace": trace,
            }
        assert self._process.stdin is not None
        self._lifeline = self._process.stdin
        self.pid = self._process.pid
        self._delivered: set[str] = set()
        self._unwritten = json.dumps(config).encode() + b"\n"
        os.set_blocking(self._lifeline.fileno(), False)
        self._watcher = node.reactor.loop.io(self._lifeline.fileno(), 2)
        self._write()
        self.link: Link = node.adopt(ours, f"pid {self.pid}", opens=True)

    @property
    def outputs(self) -> tuple[tuple[IO[bytes], str], ...]:
        """What it prints, and on which stream that belongs."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        return (self._process.stdout, "stdout"), (self._process.stderr, "stderr")

    def deliver(self, name: str, packed: bytes) -> None:
        """Hand a function to it, once, over the lifeline. Never blocks."""
        if name not in self._delivered and not self._lifeline.closed:
            self._delivered.add(name)
            self._unwritten += name.encode() + b" " + base64.b64encode(packed) + b"\n"
            self._write()

    def _write(self) -> None:
        try:
            written = os.write(self._lifeline.fileno(), self._unwritten)
        except BlockingIOError:
            written = 0
        except BrokenPipeError:  # it died; its link will say so
            written = len(self._unwritten)
        self._unwritten = self._unwritten[written:]
        self._watcher.stop()
        if self._unwritten:
            self._watcher.start(self._write)

    def cut_lifeline(self) -> None:
        """Let the child end."""
        if not self._lifeline.closed:
            self._watcher.stop()
            self._watcher.close()
            self._lifeline.close()

    def exit_code(self) -> int | None:
        """How it ended, as subprocess tells it; None while it has not."""
        return self._process.poll()

    def reap(self, deadline: float) -> None:
        """Wait until it has ended; end it by force when it does not do so by itself."""
        try:
            self._process.wait(max(0.0, deadline - monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Children:
    """All children of a place."""

    def __init__(self, node: Node, count: int, trace: str | Path | None = None) -> None:
        self._end_seconds = TRACE_SECONDS if trace else END_SECONDS
        trace = os.path.abspath(trace) if trace else None
        self._folder = tempfile.mkdtemp(prefix="tasklets-")  # only this user may enter it
        self._all: list[Child] = []
        self._output = Output()
        try:
            for index in range(1, count + 1):
                child = Child(node, f"worker-{index}", self._folder, trace)
                self._all.append(child)
                for pipe, stream in child.outputs:
                    self._output.add(pipe, f"[{child.name}] ", stream)
            self._output.start()
            self._wait_until_up()
        except BaseException:
            self.end()
            raise

    @property
    def links(self) -> list[Link]:
        return [child.link for child in self._all]

    def of(self, link: Link) -> Child:
        """The child at the other end of a link."""
        return next(child for child in self._all if child.link is link)

    def _wait_until_up(self) -> None:
        try:
            with timeout(START_SECONDS):
                for child in self._all:
                    child.link.opened.park()
        except Timeout:
            raise NetError(
                f"the child processes were not up within {START_SECONDS:g} s; is the machine overloaded?"
            ) from None
        except PeerLost as error:
            raise NetError(
                f"a child process ended while it started; what it printed says why ({error})"
            ) from None

    def end(self) -> None:
        """End all children. Takes as long as the slowest, at most END_SECONDS (TRACE_SECONDS)."""
        for child in self._all:
            child.link.close()
            child.cut_lifeline()
        deadline = monotonic() + self._end_seconds
        for child in self._all:
            child.reap(deadline)
        self._output.close(LAST_OUTPUT_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)


def describe_exit(code: int) -> str:
    """Say how a process ended whose exit code subprocess gives as this."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


@contextlib.contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Let a child be born with Ctrl-C blocked, or it would print a traceback while it still imports.

    Blocked, not ignored: one that comes meanwhile reaches this process afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _import_path() -> list[str]:
    """Where this process finds modules, for a child to find the same; the empty entry means the working
    folder.
    """
    return [os.path.abspath(entry) for entry in sys.path]
