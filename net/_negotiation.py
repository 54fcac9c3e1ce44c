"""A fresh connection until both ends have proved who they are: TLS and the handshake over a socket, in steps.

Nothing here blocks: a step does what the bytes at hand allow, and says what it waits for. `accepting` and `connecting`
are the two sides as generators; `Negotiation` lets the event loop take their steps.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from net._handshake import (
    BANNER,
    BANNER_PREFACE,
    SECRET,
    TLS,
    Handshake,
    HandshakeCut,
    State,
    make_banner,
    name_methods,
    read_banner,
)
from net._wire import PREFACE
from net.errors import AuthenticationError, BadCredentials, NetError, PeerUnreachable, RemoteProtocolError

if TYPE_CHECKING:
    import socket

    from net.security import Security

READABLE: Final = 1  # what a step waits for, as the event loop counts it
WRITABLE: Final = 2


@dataclass(frozen=True)
class Identity:
    """What is known of the other end of an authenticated connection."""

    security: Security  # by what it was authenticated here
    binding: bytes  # known to both ends and nobody else, another one for each connection: a session may be bound to it
    name: str = ""  # the name in its certificate


Steps = Generator[int, None, "tuple[socket.socket, Identity]"]


def accepting(sock: socket.socket, security: Security) -> Steps:
    """The side that was connected to. Returns the socket to go on with, and who is there.

    Raises AuthenticationError, RemoteProtocolError, OSError; the socket is closed then.
    """
    try:
        yield from _send(sock, make_banner(security.methods))
        if security.tls is not None:
            sock = security.tls.context(accepting=True).wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False
            )
            yield from _greet(sock)
        return sock, (yield from _shake_hands(sock, security, accepting=True))
    except BaseException:
        sock.close()
        raise


def connecting(sock: socket.socket, security: Security, host: str) -> Steps:
    """The side that connected, to a node at `host`. Like `accepting`."""
    try:
        banner = yield from _receive_banner(sock)
        if banner[: len(PREFACE)] == PREFACE:
            asked = 0
        else:
            asked = read_banner(banner)
        if asked != security.methods:
            raise AuthenticationError(
                f"it asks for {name_methods(asked) or 'neither a secret nor TLS'}, "
                f"and was to be asked with {name_methods(security.methods)}; {advise(asked)}"
            )
        if security.tls is not None:
            sock = security.tls.context(accepting=False).wrap_socket(
                sock, do_handshake_on_connect=False, server_hostname=security.tls.server_name or host
            )
            yield from _greet(sock)
        return sock, (yield from _shake_hands(sock, security, accepting=False))
    except BaseException:
        sock.close()
        raise


def advise(asked: int) -> str:
    """What a program does that is to connect to a node which asks for this."""
    wanted = [
        text
        for bit, text in ((SECRET, "secret=... (--secret-file)"), (TLS, "tls=... (--tls-*)"))
        if asked & bit
    ]
    return f"pass {' and '.join(wanted)}" if wanted else "pass insecure=True if it is the right one"


def _receive_banner(sock: socket.socket) -> Generator[int, None, bytes]:
    banner = b""
    while len(banner) < BANNER.size and banner[: len(PREFACE)] != PREFACE:
        more = yield from _receive(sock, BANNER.size - len(banner))
        if not more:
            raise HandshakeCut("the connection ended before anything was said")
        banner += more
        if not BANNER_PREFACE.startswith(banner[:4]) and not PREFACE.startswith(banner[:4]):
            break
    return banner.ljust(BANNER.size, b"\0")


def _greet(sock: socket.socket) -> Generator[int, None, None]:
    """TLS's own handshake."""
    assert isinstance(sock, ssl.SSLSocket)
    while True:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            yield READABLE
        except ssl.SSLWantWriteError:
            yield WRITABLE
        except ssl.SSLError as error:
            raise explain(error) from None
        else:
            return


def _shake_hands(
    sock: socket.socket, security: Security, *, accepting: bool
) -> Generator[int, None, Identity]:
    over_tls = isinstance(sock, ssl.SSLSocket)
    handshake = Handshake(
        accepting=accepting,
        keys=security.keys(),
        methods=security.methods,
        nonce=os.urandom(32),
        channel_binding=sock.get_channel_binding("tls-unique") or b""
        if isinstance(sock, ssl.SSLSocket)
        else b"",
    )
    try:
        yield from _send(sock, handshake.opening())
        while handshake.wanted:
            data = yield from _receive(sock, handshake.wanted)
            yield from _send(sock, handshake.receive(data))
    except ssl.SSLError as error:  # with TLS 1.3 a node learns only now that its certificate was refused
        raise explain(error) from None
    if handshake.state is State.REFUSED:
        raise AuthenticationError(
            f"it refused us: {handshake.refusal}" if handshake.refused_by_peer else handshake.refusal
        )
    return Identity(security, handshake.binding, _common_name(sock) if over_tls else "")


def _common_name(sock: Any) -> str:
    subject = (sock.getpeercert() or {}).get("subject", ())
    return next((value for part in subject for key, value in part if key == "commonName"), "")


def _receive(sock: socket.socket, size: int) -> Generator[int, None, bytes]:
    while True:
        try:
            return sock.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError):
            yield READABLE
        except ssl.SSLWantWriteError:
            yield WRITABLE


def _send(sock: socket.socket, data: bytes) -> Generator[int, None, None]:
    while data:
        try:
            data = data[sock.send(data) :]
        except BlockingIOError:
            yield WRITABLE


# What the other side says of our certificate, and what we find of its.
_ALERTS: Final = {
    "CERTIFICATE_REQUIRED": "it asks for a certificate, and got none",
    "CERTIFICATE_EXPIRED": "it says that the certificate it was shown has expired; make a new one",
    "UNKNOWN_CA": "it does not know the authority of the certificate it was shown",
    "BAD_CERTIFICATE": "it refused the certificate it was shown",
    "CERTIFICATE_UNKNOWN": "it refused the certificate it was shown",
    "CERTIFICATE_REVOKED": "it says that the certificate it was shown is revoked",
    "UNSUPPORTED_CERTIFICATE": "it says that the certificate it was shown is not meant for this",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate",
}


def explain(error: ssl.SSLError) -> NetError:
    """Say in a line what went wrong in TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return AuthenticationError(f"its certificate is refused: {error.verify_message.rstrip('.')}")
    reason = error.reason or ""
    for alert, text in _ALERTS.items():
        if reason.endswith(alert):
            return AuthenticationError(text)
    if isinstance(error, ssl.SSLEOFError):
        return HandshakeCut("the connection ended in the middle of the handshake")
    return RemoteProtocolError(
        f"no TLS comes of what it says: {(reason or str(error)).lower().replace('_', ' ')}"
    )


class BrokenConnection(PeerUnreachable):
    """The connection broke before the handshake was over. Who asks again may have more luck."""


class Negotiation:
    """Lets the event loop take the steps of one side, until it is authenticated or has failed.

    `done(socket, identity)` or `failed(error)` is called once, unless `drop` comes first. With `queue` the steps after
    the first are not taken at once but handed to it, so that somebody may see to it that they come one at a time.
    """

    def __init__(
        self,
        loop: Any,
        fileno: int,
        steps: Steps,
        done: Callable[[socket.socket, Identity], object],
        failed: Callable[[NetError], object],
        queue: Callable[[Negotiation], object] | None = None,
        *,
        background: bool = False,
    ) -> None:
        self._steps = steps
        self._done = done
        self._failed = failed
        self._queue = queue
        self._watchers = {kind: loop.io(fileno, kind, ref=not background) for kind in (READABLE, WRITABLE)}
        self.waits_for_peer = False
        self.over = False

    def _ready(self, watcher: Any) -> None:
        watcher.stop()
        self.waits_for_peer = False
        if self._queue is not None:
            self._queue(self)
        else:
            self.step()

    def step(self) -> None:
        """Do what the bytes at hand allow. The first is the caller's to take."""
        if self.over:
            return
        try:
            watcher = self._watchers[next(self._steps)]
        except StopIteration as end:
            self._end()
            self._done(*end.value)
        except (AuthenticationError, RemoteProtocolError, BadCredentials) as error:
            self._end()
            self._failed(error)
        except OSError as error:
            self._end()
            self._failed(BrokenConnection(f"the connection broke: {error.strerror or error}"))
        else:
            self.waits_for_peer = True
            watcher.start(self._ready, watcher)

    def drop(self) -> None:
        """Give it up, and close its socket."""
        if not self.over:
            self._end()
            self._steps.close()

    def _end(self) -> None:
        self.over = True
        for watcher in self._watchers.values():
            watcher.stop()
            watcher.close()
