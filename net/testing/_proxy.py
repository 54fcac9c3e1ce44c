"""A real TCP proxy that cuts, holds up and delays what passes. It runs in threads of its own."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from random import Random
from time import sleep
from typing import TYPE_CHECKING

from net.addresses import TcpAddress, parse_address
from net.errors import BadAddress

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BYTES = 64 * 1024


@contextlib.contextmanager
def cutting_proxy(
    target: str, *, seed: int = 0, cut_after: tuple[int, int] | None = None, delay: float = 0.0
) -> Iterator[CuttingProxy]:
    """A proxy in front of an address, for a block.

    With `cut_after` each connection is cut when so many bytes have passed (drawn between the two), in the middle of
    whatever it is. `delay` is in seconds, per piece.
    """
    proxy = CuttingProxy(target, seed=seed, cut_after=cut_after, delay=delay)
    try:
        yield proxy
    finally:
        proxy.close()


class CuttingProxy:
    """Connect to `address` instead of the target's."""

    def __init__(
        self, target: str, *, seed: int = 0, cut_after: tuple[int, int] | None = None, delay: float = 0.0
    ) -> None:
        parsed = parse_address(target)
        if not isinstance(parsed, TcpAddress):
            raise BadAddress(f"a proxy stands before a TCP address, not {target}")
        self._target = (parsed.host, parsed.port)
        self._random = Random(seed)  # noqa: S311  it has to be repeatable
        self.cut_after = cut_after
        self.delay = delay
        self.cuts = 0
        self.connections = 0
        self._passing = (
            threading.Event()
        )  # cleared: nothing passes, as on a line whose other end has vanished
        self._passing.set()
        self._refusing = False
        self._closed = False
        self._lock = threading.Lock()  # protects the following
        self._pairs: set[_Pair] = set()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"tcp://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def __repr__(self) -> str:
        return f"<CuttingProxy {self.address} cuts={self.cuts}>"

    def cut(self) -> int:
        """Cut all connections now; returns how many."""
        with self._lock:
            pairs = list(self._pairs)
        return sum(pair.cut() for pair in pairs)

    def hold(self) -> None:
        """Let nothing pass any more, and say nothing about it: half-open links."""
        self._passing.clear()

    def release(self) -> None:
        """Let everything pass again."""
        self._passing.set()

    def refuse(self, refusing: bool = True) -> None:
        """Close connections as soon as they are made, as a router does whose target is away."""
        self._refusing = refusing

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._passing.set()
        self.cut()

    def _accept(self) -> None:
        while not self._closed:
            try:
                ours, _ = self._socket.accept()
            except OSError:
                return
            if self._refusing or self._closed:
                ours.close()
                continue
            try:
                theirs = socket.create_connection(self._target, timeout=5)
                theirs.settimeout(None)
            except OSError:
                ours.close()
                continue
            self.connections += 1
            limit = self._random.randint(*self.cut_after) if self.cut_after is not None else None
            pair = _Pair(self, ours, theirs, limit, self._random.random() < 0.5)
            with self._lock:
                self._pairs.add(pair)
            pair.start()


class _Pair:
    """One connection and its continuation to the target."""

    def __init__(
        self, proxy: CuttingProxy, ours: socket.socket, theirs: socket.socket, limit: int | None, reset: bool
    ) -> None:
        self._proxy = proxy
        self._ends = (ours, theirs)
        self._left = limit  # bytes until it is cut
        self._reset = reset
        self._lock = threading.Lock()  # protects _left and _over
        self._over = False
        for end in self._ends:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self) -> None:
        for source, sink in (self._ends, self._ends[::-1]):
            threading.Thread(target=self._pass_on, args=(source, sink), name="proxy", daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = source.recv(CHUNK_BYTES)
                self._proxy._passing.wait()
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                if self._proxy.delay:
                    sleep(self._proxy.delay)
                with self._lock:
                    if self._left is not None:
                        data = data[: self._left]
                        self._left -= len(data)
                    last = self._left == 0
                sink.sendall(data)
                if last:
                    break
        self.cut()

    def cut(self) -> int:
        with self._lock:
            if self._over:
                return 0
            self._over = True
        self._proxy.cuts += 1
        with self._proxy._lock:
            self._proxy._pairs.discard(self)
        for end in self._ends:
            with contextlib.suppress(OSError):
                # Whatever is said to the peers, it has to wake the thread that reads here: else the socket stays open.
                end.shutdown(socket.SHUT_RD if self._reset else socket.SHUT_RDWR)
            if self._reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()
        return 1
