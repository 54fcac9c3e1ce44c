"""Sockets of both kinds, TCP and Unix: listening at an address, and connecting to one."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from net.addresses import Address, UnixAddress
from net.errors import AddressInUse, BadAddress, PeerUnreachable
from tasklets import Timeout, timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from net._link import Link
    from net.node import Node

log = logging.getLogger("net")

CONNECT_SECONDS = 5.0  # to reach an address and to be introduced
MAX_CONNECTIONS = 4096  # accepted by one node; beyond it a stranger could take all file descriptors
BACKLOG = 512  # connections that may wait to be accepted
ACCEPT_PAUSE_SECONDS = 0.1  # when no connection can be accepted: to ask again at once would spin


class Listener:
    """An open address."""

    def __init__(self, node: Node, address: Address, *, insecure: bool, background: bool) -> None:
        if not address.is_loopback and not insecure:
            raise BadAddress(
                f"{address} can be reached from other machines, and who connects may use what is published; "
                "listen at 127.0.0.1, or say insecure=True (--insecure) if the network is trusted"
            )
        self.node = node
        self._socket = _bind(address)
        self.address: Address = address
        if not isinstance(address, UnixAddress):
            self.address = type(address)(address.host, self._socket.getsockname()[1])
        self._links: WeakSet[Link] = WeakSet()  # that came in here
        self._watcher = node.reactor.loop.io(self._socket.fileno(), 1, ref=not background)
        self._watcher.start(self._on_connection)

    def __repr__(self) -> str:
        return f"<Listener {self.address}>"

    def _on_connection(self) -> None:
        try:
            sock, peer = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # no file descriptor is left, most likely
            log.warning("%s: a connection could not be accepted: %s", self.address, error)
            self._watcher.stop()
            self.node.reactor.call_later(ACCEPT_PAUSE_SECONDS, self._resume)
            return
        if len(self.node.links) >= MAX_CONNECTIONS:
            log.warning("%s: more than %d connections, one is refused", self.address, MAX_CONNECTIONS)
            sock.close()
            return
        _tune(sock)
        where = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else f"{self.address}"
        link = self.node.adopt(sock, where)
        self._links.add(link)
        link.expect_hello(CONNECT_SECONDS)

    def _resume(self) -> None:
        if self in self.node.listeners:
            self._watcher.start(self._on_connection)

    def stop(self) -> None:
        """Accept no more connections."""
        if self in self.node.listeners:
            self.node.listeners.remove(self)
            self._watcher.stop()
            self._watcher.close()
            self._socket.close()
            if isinstance(self.address, UnixAddress):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.address.path)

    def close(self) -> None:
        """Accept no more connections, and say goodbye on those that came in here."""
        self.stop()
        for link in list(self._links):
            link.close()


@contextlib.contextmanager
def answering(address: Address, seconds: float) -> Iterator[None]:
    """Limit how long the node at an address may take to answer. Raises PeerUnreachable."""
    limit = timeout(seconds)
    try:
        with limit:
            yield
    except Timeout:
        if not limit.expired:  # the caller's own limit
            raise
        raise PeerUnreachable(
            f"no answer from {address} within {seconds:g} s; is it up, and is the port right?"
        ) from None


def dial(address: Address) -> socket.socket:
    """A connected socket. Blocks only the calling tasklet. Raises PeerUnreachable."""
    try:
        *others, last = _targets(address)
        for family, target in others:
            try:
                return _connected(family, target)
            except Timeout:  # is an OSError, and meant for the caller
                raise
            except OSError:
                continue
        return _connected(*last)
    except Timeout:
        raise
    except (ConnectionRefusedError, FileNotFoundError):
        raise PeerUnreachable(
            f"nobody listens at {address}; start the other side first, or correct the address"
        ) from None
    except (socket.gaierror, UnicodeError) as error:  # the latter: a host that no name server could know
        why = getattr(error, "strerror", error)
        raise PeerUnreachable(f"the host of {address} is unknown ({why}); correct the address") from None
    except OSError as error:
        raise PeerUnreachable(f"{address} cannot be reached: {error.strerror or error}") from None


def _targets(address: Address) -> list[tuple[int, Any]]:
    """What to connect to, best first: (family, address for the system)."""
    from gevent import socket as waiting

    if isinstance(address, UnixAddress):
        return [(socket.AF_UNIX, address.path)]
    found = waiting.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return [(family, target) for family, _, _, _, target in found]


def _connected(family: int, target: Any) -> socket.socket:
    from gevent import socket as waiting

    with waiting.socket(family) as dialled:
        dialled.connect(target)
        sock = socket.socket(fileno=dialled.detach())
    _tune(sock)
    return sock


def _bind(address: Address) -> socket.socket:
    if isinstance(address, UnixAddress):
        sock = socket.socket(socket.AF_UNIX)
        target: Any = address.path
    else:
        try:
            family, kind, proto, _, target = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
        except (socket.gaierror, UnicodeError) as error:
            why = getattr(error, "strerror", error)
            raise BadAddress(f"the host of {address} is unknown ({why}); correct the address") from None
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if isinstance(address, UnixAddress):
            _remove_stale(address)
        sock.bind(target)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(
                f"{address} is in use by another program; end it, or choose another port (0: the system chooses)"
            ) from None
        raise BadAddress(f"cannot listen at {address}: {error.strerror or error}") from None
    sock.setblocking(False)
    return sock


def _remove_stale(address: UnixAddress) -> None:
    """Remove the socket file that a killed program left behind; a live program's file stays, and binding
    fails.
    """
    try:
        is_socket = stat.S_ISSOCK(os.stat(address.path).st_mode)
    except FileNotFoundError:
        return
    if is_socket:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(address.path)
            except ConnectionRefusedError:
                os.unlink(address.path)


def _tune(sock: socket.socket) -> None:
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the writer coalesces already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
