"""What carries the bytes of one connection: a socket that never blocks. net.testing has one in memory.

A Link drives it: `start` with whom to call, `receive_into` and `send` as far as they go at once. A stage that has to
come before (authentication, TLS) works on the socket, and hands what it has made of it to `Node.adopt`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol as Interface

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Transport(Interface):
    """A connection's bytes, both ways. Nothing here blocks."""

    def start(self, on_readable: Callable[[], object], on_writable: Callable[[], object]) -> None:
        """Call `on_readable` from now on whenever there may be something to receive."""

    def receive_into(self, buffer: memoryview) -> int:
        """Read what is there: the number of bytes, 0 at the end of the stream.

        Raises BlockingIOError when nothing is there now, another OSError when the connection broke.
        """

    @property
    def receive_pieces(self) -> Callable[..., tuple[int, Any, int, Any]] | None:
        """The same for several buffers, to be filled one after the other: as `socket.recvmsg_into`, of whose result
        only the first part counts. None: it has no such thing.
        """

    def send(self, data: bytes | memoryview) -> int:
        """Take as many of the bytes as there is room for now, and return how many. Raises OSError."""

    def send_pieces(self, pieces: Sequence[bytes | memoryview]) -> int:
        """The same for bytes in several pieces, which are sent without being copied into one."""

    def wait_writable(self) -> None:
        """Call `on_writable` once, when there is room again."""

    def close(self) -> None:
        """Let go of the connection. What was sent still leaves."""

    def linger(self, deadline: float) -> Lingering | None:
        """Go on by blocking the process, which is about to end; None where that cannot be."""


class Lingering(Interface):
    """A connection whose operations block the process, until a deadline. They raise OSError then."""

    def send_all(self, data: bytes | memoryview) -> None: ...

    def receive_into(self, buffer: memoryview) -> int: ...

    def end_sending(self) -> None: ...


class SocketTransport:
    """A connected stream socket, watched by gevent's loop."""

    def __init__(self, loop: Any, sock: socket.socket) -> None:
        self._socket = sock
        sock.setblocking(False)
        self._read_watcher = loop.io(sock.fileno(), 1)
        self._write_watcher = loop.io(sock.fileno(), 2)
        # The socket's own methods: one of ours around each would cost every batch a call.
        self._on_writable: Callable[[], object] = lambda: None
        self.send = sock.send
        self.send_pieces = sock.sendmsg
        self.receive_into = sock.recv_into
        # What is left of a TLS record waits where no event loop sees it: there one buffer has to take it all.
        self.receive_pieces = None if isinstance(sock, ssl.SSLSocket) else sock.recvmsg_into

    def start(self, on_readable: Callable[[], object], on_writable: Callable[[], object]) -> None:
        self._on_writable = on_writable
        self._read_watcher.stop()
        self._read_watcher.start(on_readable)

    def wait_writable(self) -> None:
        self._write_watcher.start(self._writable)

    def _writable(self) -> None:
        self._write_watcher.stop()
        self._on_writable()

    def _unwatch(self) -> None:
        for watcher in (self._read_watcher, self._write_watcher):
            watcher.stop()
            watcher.close()

    def detach(self) -> socket.socket:
        """Give the socket away."""
        self._unwatch()
        return self._socket

    def close(self) -> None:
        self._unwatch()
        self._socket.close()

    def linger(self, deadline: float) -> Lingering:
        return _LingeringSocket(self._socket, deadline)


class _LingeringSocket:
    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._socket = sock
        self._deadline = deadline

    def _before_deadline(self) -> socket.socket:
        left = self._deadline - monotonic()
        if left <= 0:
            raise TimeoutError("the time for last words is over")
        self._socket.settimeout(left)
        return self._socket

    def send_all(self, data: bytes | memoryview) -> None:
        self._before_deadline().sendall(data)

    def receive_into(self, buffer: memoryview) -> int:
        return self._before_deadline().recv_into(buffer)

    def end_sending(self) -> None:
        # To close with something unread would make the kernel throw away what the peer has not read yet.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
