"""Sockets of both kinds, TCP and Unix: listening at an address, and connecting to one."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import socket
import stat
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from net._gate import Newcomer, later
from net._handshake import HandshakeCut
from net._negotiation import BrokenConnection, Identity, Negotiation, accepting, connecting
from net.addresses import Address, TcpAddress, UnixAddress
from net.errors import (
    AddressInUse,
    AuthenticationError,
    BadAddress,
    NetError,
    PeerUnreachable,
    RemoteProtocolError,
)
from tasklets import Timeout, sleep, timeout
from tasklets._core import Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from net._link import Link
    from net.node import Node
    from net.security import Security

log = logging.getLogger("net")

CONNECT_SECONDS = 5.0  # to reach an address and to be introduced
MAX_CONNECTIONS = 4096  # accepted by one node; beyond it a stranger could take all file descriptors
BACKLOG = 512  # connections that may wait to be accepted
ACCEPT_PAUSE_SECONDS = 0.1  # when no connection can be accepted: to ask again at once would spin
HANDSHAKE_ATTEMPTS = 4  # the node may have been flooded just then
HANDSHAKE_PAUSE_SECONDS = 0.1  # before the second, and twice as long before each of the others
# What the kernel takes of a stream to another process of this machine; with its own books twice as much. Measured: of
# the megabytes that it would take by itself much has left the processor's cache when it is read, and 64 KiB cost twice
# as much; with less than this both ends wait for each other more often.
LOCAL_SEND_BYTES = 192 * 1024
# There no path is to be explored. Where the system's own way is BBR, that spaces what is sent by a timer, at a rate
# that it has guessed: measured, 64 KiB went at less than half the speed in every third connection.
LOCAL_CONGESTION = b"reno"
# To another machine the kernel has to keep what is under way; so much more may wait there, where nothing overtakes it.
UNSENT_BYTES = 128 * 1024
SOCKET_FILE_MODE = 0o600  # of a Unix socket: who may write to it may connect


class Listener:
    """An open address, and the way in from it: strangers become links once they have proved who they are."""

    def __init__(
        self,
        node: Node,
        address: Address,
        security: Security | None = None,
        *,
        insecure: bool = False,
        background: bool = False,
    ) -> None:
        if not address.is_loopback and security is None and not insecure:
            raise BadAddress(
                f"{address} can be reached from other machines, and who connects may use what is published; pass "
                "secret=... (--secret-file) or tls=... (--tls-*), listen at 127.0.0.1, "
                "or say insecure=True (--insecure) if the network is trusted"
            )
        self.node = node
        self.security = security
        self._socket = _bind(address)
        self.address: Address = address
        if isinstance(address, UnixAddress):
            self._file = os.stat(address.path)
        else:
            self.address = type(address)(address.host, self._socket.getsockname()[1])
        self._links: WeakSet[Link] = WeakSet()  # that came in here
        self._newcomers: WeakSet[Newcomer] = WeakSet()
        self._watcher = node.reactor.loop.io(self._socket.fileno(), 1, ref=not background)
        self._watcher.start(self._on_connection)

    def __repr__(self) -> str:
        return f"<Listener {self.address}>"

    def _on_connection(self) -> None:
        gate = self.node.gate
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
            gate.refusals.tell(f"{self.address}: more than {MAX_CONNECTIONS} connections, one is refused")
            sock.close()
            return
        sock.setblocking(False)
        _tune(sock)
        source, where = str(self.address), str(self.address)
        if not isinstance(self.address, UnixAddress):
            source, where = peer[0], f"{peer[0]}:{peer[1]}"
        if not gate.make_room(source):
            gate.refusals.tell(
                f"{where} is refused at {self.address}: too many of its kind have not said who they are"
            )
            sock.close()
        elif self.security is None:
            self._let_in(sock, source, where, None)
        else:
            self._question(sock, source, where, self.security)

    def _question(self, sock: socket.socket, source: str, where: str, security: Security) -> None:
        """Let a newcomer prove who it is, and let it in then."""
        gate = self.node.gate

        def done(sock: socket.socket, identity: Identity) -> None:
            gate.leave(newcomer)
            self._let_in(sock, source, where, identity)

        def failed(error: NetError) -> None:
            gate.leave(newcomer)
            gate.refusals.tell(f"{where} is refused at {self.address}: {error}")

        def drop(reason: str) -> None:
            negotiation.drop()
            if reason:
                gate.refusals.tell(f"{where} is refused at {self.address}: {reason}")

        negotiation = Negotiation(
            self.node.reactor.loop,
            sock.fileno(),
            accepting(sock, security),
            done,
            failed,
            gate.serve_later,
            background=True,
        )
        newcomer = Newcomer(source, where, drop)
        newcomer.is_idle = lambda: negotiation.waits_for_peer
        self._newcomers.add(newcomer)
        gate.enter(newcomer, CONNECT_SECONDS)
        negotiation.step()

    def _let_in(self, sock: socket.socket, source: str, where: str, identity: Identity | None) -> None:
        gate = self.node.gate
        link = self.node.adopt(sock, where, identity)
        self._links.add(link)

        def is_in() -> bool:
            return link.peer is not None or link.lost is not None

        def drop(reason: str) -> None:
            if reason:
                gate.refusals.tell(f"{where}: {reason}, its connection is closed")
            link.lose(reason or "the server was closed")

        def expire() -> None:
            if not is_in():
                drop(f"it did not introduce itself within {CONNECT_SECONDS:g} s")

        if identity is not None:  # it has proved who it is, so no flood drives it out; only time does
            link.at_end(later(self.node.reactor.loop, CONNECT_SECONDS, expire))
            return
        newcomer = Newcomer(source, where, drop)
        newcomer.is_in = is_in
        gate.enter(newcomer, CONNECT_SECONDS)
        link.at_end(functools.partial(gate.leave, newcomer))

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
                self._remove_file(self.address.path)
            self.node.gate.close(self._newcomers.__contains__)

    def _remove_file(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), self._file):  # and not that of a program that came after us
                os.unlink(path)

    def close(self) -> None:
        """Accept no more connections, and say goodbye on those that came in here."""
        self.stop()
        for link in list(self._links):
            link.close()


def open_connection(
    reactor: Any, address: Address, security: Security | None
) -> tuple[socket.socket, Identity | None]:
    """A connected socket on which both ends have proved who they are. Blocks only the calling tasklet.

    Raises PeerUnreachable, and AuthenticationError when one of the ends is not content.
    """
    if security is None:
        sock = dial(address)
        sock.setblocking(False)
        return sock, None
    pause = HANDSHAKE_PAUSE_SECONDS
    for _ in range(HANDSHAKE_ATTEMPTS - 1):
        try:
            return _authenticate(reactor, address, security)
        except (HandshakeCut, BrokenConnection):
            sleep(pause)
            pause *= 2
    try:
        return _authenticate(reactor, address, security)
    except (HandshakeCut, BrokenConnection):
        raise PeerUnreachable(
            f"{address} closed the connection before the handshake was done; "
            "is it overloaded, or no node of ours? its log may say why"
        ) from None


def _authenticate(reactor: Any, address: Address, security: Security) -> tuple[socket.socket, Identity]:
    sock = dial(address)
    sock.setblocking(False)
    over = Wait(f"{address} to prove who it is")
    authenticated: list[socket.socket] = []

    def done(sock: socket.socket, identity: Identity) -> None:
        authenticated.append(sock)
        over.wake((sock, identity))

    host = "localhost" if isinstance(address, UnixAddress) else address.host
    steps = connecting(sock, security, host)
    negotiation = Negotiation(reactor.loop, sock.fileno(), steps, done, over.fail)
    negotiation.step()
    try:
        found: tuple[socket.socket, Identity] = over.park()
    except HandshakeCut:
        raise
    except RemoteProtocolError as error:
        raise PeerUnreachable(
            f"what answers at {address} is no node of ours ({error}); is the port right?"
        ) from None
    except AuthenticationError as error:
        raise AuthenticationError(f"no session with the node at {address}: {error}") from None
    except BaseException:  # the caller's patience is over, most likely
        negotiation.drop()
        for sock in authenticated:
            sock.close()
        raise
    return found


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
    """What to connect to, best first: (family, address for the system). Blocks only the calling tasklet."""
    import gevent

    if isinstance(address, UnixAddress):
        return [(socket.AF_UNIX, address.path)]
    with contextlib.suppress(
        socket.gaierror
    ):  # a number needs nobody to look it up, and no thread to wait in
        return _look_up(address, socket.AI_NUMERICHOST)
    # In a greenlet of gevent's own: the pool of threads in which gevent looks names up counts on it that whom it wakes
    # runs at once, and a tasklet that gevent wakes joins the end of its line.
    lookup = gevent.spawn(_outcome, _look_up_by_thread, address)
    try:
        found = lookup.get()
    finally:
        lookup.kill(block=False)
    if isinstance(found, BaseException):
        raise found
    return found  # type: ignore[no-any-return]


def _look_up(address: TcpAddress, flags: int = 0, look_up: Any = socket.getaddrinfo) -> list[tuple[int, Any]]:
    found = look_up(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, target) for family, _, _, _, target in found]


def _look_up_by_thread(address: TcpAddress) -> list[tuple[int, Any]]:
    from gevent import socket as waiting

    return _look_up(address, look_up=waiting.getaddrinfo)


def _outcome(function: Callable[..., Any], *args: Any) -> Any:
    """What a function returns or raises."""
    try:
        return function(*args)
    except Exception as error:  # noqa: BLE001  who waits for it raises it
        return error


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
        if isinstance(address, UnixAddress):
            os.chmod(target, SOCKET_FILE_MODE)  # before it listens, so that nobody else ever gets in
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
            probe.setblocking(False)
            try:
                probe.connect(address.path)
            except ConnectionRefusedError:
                os.unlink(address.path)
            except OSError:  # its owner is there, and busy, or another user's
                pass


def _tune(sock: socket.socket) -> None:
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the writer coalesces already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        with contextlib.suppress(OSError):  # the other end may be gone already: the first read says so
            if sock.getpeername()[0] == sock.getsockname()[0]:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LOCAL_SEND_BYTES)
                if hasattr(socket, "TCP_CONGESTION"):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, LOCAL_CONGESTION)
            elif hasattr(socket, "TCP_NOTSENT_LOWAT"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
