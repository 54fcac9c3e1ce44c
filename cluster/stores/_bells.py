"""Hints between the processes that share a SQLite file: datagrams to Unix sockets in a folder beside it.

SQLite has no notification. A listener binds a socket named after its topic; ringing sends one byte to every
socket of that topic. A socket whose owner was killed refuses, and is removed by whoever notices.

Most topics have one listener, which has come a moment ago: who waits for the end of a task. So the first one has the
plain name, to which a ring goes without a look; the others are found in a list, which may be a little old.
"""

from __future__ import annotations

import contextlib
import os
import socket as plain_socket
import tempfile
import time
import zlib
from collections.abc import Callable

from gevent import Timeout, socket

_ROOT = "tasklets-bells"
_RELOOK = 0.05  # how long the list of the other listeners is trusted


class Bells:
    """The hints of one group in one file."""

    def __init__(self, path: str, group: str) -> None:
        # Not beside the file itself: a socket's path has at most 107 bytes, and a file's path may be longer.
        mark = zlib.crc32(f"{os.path.realpath(path)}\0{group}".encode())
        self.folder = os.path.join(tempfile.gettempdir(), f"{_ROOT}-{os.getuid()}", f"{mark:08x}")
        self._looked = 0.0
        self._listeners: list[str] = []
        self._sender: plain_socket.socket | None = None

    def listen(self, topics: tuple[str, ...]) -> BellListener:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        return BellListener(self.folder, topics)

    def ring(self, topic: str) -> None:
        now = time.monotonic()
        if now - self._looked > _RELOOK:
            self._looked = now
            try:
                self._listeners = os.listdir(self.folder)
            except FileNotFoundError:
                self._listeners = []
        plain = os.path.join(self.folder, _token(topic))
        if os.path.exists(plain):  # else a store that nobody listens to needs no socket
            self._send(plain)
        wanted = f"{_token(topic)}."
        for name in self._listeners:
            if name.startswith(wanted):
                self._send(os.path.join(self.folder, name))

    def _send(self, path: str) -> None:
        if self._sender is None:
            self._sender = plain_socket.socket(plain_socket.AF_UNIX, plain_socket.SOCK_DGRAM)
            self._sender.setblocking(False)
        try:
            self._sender.sendto(b"!", path)
        except BlockingIOError:
            pass  # its buffer is full of hints: it will look
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                os.unlink(path)
        except OSError:
            pass  # it closed meanwhile

    def close(self) -> None:
        if self._sender is not None:
            self._sender.close()
            self._sender = None


def _token(topic: str) -> str:
    return f"{zlib.crc32(topic.encode()):08x}"


def _named(name: Callable[[str], object], plain: str, unique: str) -> str:
    """Give a socket the plain name, or another one if somebody has that."""
    try:
        name(plain)
    except OSError:
        name(f"{plain}.{unique}")
        return f"{plain}.{unique}"
    return plain


class BellListener:
    """One waiter: a socket per topic would be several descriptors, so one socket has several names."""

    def __init__(self, folder: str, topics: tuple[str, ...]) -> None:
        unique = f"{os.getpid()}-{os.urandom(4).hex()}"
        first, *others = (os.path.join(folder, _token(topic)) for topic in topics)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._paths = [_named(self._socket.bind, first, unique)]
        for other in others:
            self._paths.append(_named(lambda path: os.link(self._paths[0], path), other, unique))

    def wait(self, timeout: float) -> bool:
        rung = self._drain()
        if not rung and timeout > 0:
            # Not the socket's own timeout: one that is due together with a hint would be raised in a later wait.
            with Timeout(timeout, False):  # type: ignore[arg-type]  # False: end the block silently
                self._socket.recv(16)
                rung = True
            self._drain()
        return rung

    def _drain(self) -> bool:
        """Take all hints that are there: any number of them is one."""
        rung = False
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(16)
                rung = True
        except BlockingIOError:
            return rung
        finally:
            self._socket.setblocking(True)

    def close(self) -> None:
        for path in self._paths:  # while they are ours: later, somebody else may have the plain one
            with contextlib.suppress(OSError):
                os.unlink(path)
        self._socket.close()
