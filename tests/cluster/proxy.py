"""A TCP proxy that cuts, delays and speaks TLS: what lies between a node and its Redis."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time


class Proxy:
    """Passes bytes on to a port of this machine, until it is told otherwise."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = port
        self._tls = tls  # spoken with the clients
        self.delay = 0.0  # seconds, for whatever passes in either direction
        self._cut = False
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Close every connection, and those to come."""
        self._cut = True
        for one in list(self._open):
            _close(one)

    def mend(self) -> None:
        self._cut = False

    def close(self) -> None:
        self.cut()
        _close(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                theirs, _ = self._listener.accept()
            except OSError:
                return
            if self._cut:
                theirs.close()
                continue
            if self._tls is not None:
                try:
                    theirs = self._tls.wrap_socket(theirs, server_side=True)
                except OSError:  # they do not trust us
                    theirs.close()
                    continue
            ours = socket.create_connection(("127.0.0.1", self._target))
            self._open |= {theirs, ours}
            for source, sink in ((theirs, ours), (ours, theirs)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                if self.delay:
                    time.sleep(self.delay)
                sink.sendall(data)
        except OSError:
            pass
        _close(source)
        _close(sink)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
