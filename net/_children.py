"""Child processes that are nodes: how `processes:N` starts and ends them.

A child is connected to its parent by a socket pair from birth, and listens at a Unix socket in a private
folder so that its siblings can reach it too. Its standard input is a *lifeline*: when it ends, because the
parent closed it or died, however it died, a thread of the child ends the child at once, even in the middle of
a computation. So no child outlives its parent.
"""

from __future__ import annotations

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
from typing import TYPE_CHECKING

from net.errors import NetError, PeerLost
from tasklets import Timeout, timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from net._link import Link
    from net.node import Node

START_SECONDS = 60.0  # for all children of a place to be up; a loaded machine takes its time
END_SECONDS = 1.0  # for a child to end by itself once its lifeline is cut


class Child:
    """One child process and the link to it."""

    def __init__(self, node: Node, name: str, folder: str) -> None:
        self.name = name
        ours, theirs = socket.socketpair()
        with theirs, _ctrl_c_blocked():
            self._process = subprocess.Popen(
                # -P: the working folder is where the parent finds modules, or it is not.
                [sys.executable, "-P", "-m", "net._child"],
                stdin=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(_import_path())},
            )
            config = {
                "name": name,
                "socket": theirs.fileno(),
                "listen": os.path.join(folder, f"{name}.sock"),
                "pythonpath": os.environ.get("PYTHONPATH"),
            }
        assert self._process.stdin is not None
        self._lifeline = self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it died at once; its link will say so
            self._lifeline.write(json.dumps(config).encode() + b"\n")
            self._lifeline.flush()
        self.link: Link = node.adopt(ours, f"pid {self._process.pid}", opens=True)

    def cut_lifeline(self) -> None:
        """Let the child end."""
        with contextlib.suppress(BrokenPipeError):
            self._lifeline.close()

    def reap(self, deadline: float) -> None:
        """Wait until it has ended; end it by force when it does not do so by itself."""
        try:
            self._process.wait(max(0.0, deadline - monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Children:
    """All children of a place."""

    def __init__(self, node: Node, count: int) -> None:
        self._folder = tempfile.mkdtemp(prefix="tasklets-")  # only this user may enter it
        self._all: list[Child] = []
        try:
            for index in range(1, count + 1):
                self._all.append(Child(node, f"worker-{index}", self._folder))
            self._wait_until_up()
        except BaseException:
            self.end()
            raise

    @property
    def links(self) -> list[Link]:
        return [child.link for child in self._all]

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
        """End all children. Takes as long as the slowest, at most END_SECONDS."""
        for child in self._all:
            child.link.close()
            child.cut_lifeline()
        deadline = monotonic() + END_SECONDS
        for child in self._all:
            child.reap(deadline)
        shutil.rmtree(self._folder, ignore_errors=True)


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
