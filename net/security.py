"""Who may connect: shared secrets, certificates, and where they come from.

    net.serve("tcp://0.0.0.0:7000", secret=Path("cluster.secret"), bank=requests)
    net.connect("tcp://bank.example:7000/bank", secret=Path("cluster.secret"))
    net.open_place("hosts:alpha:7100", tls=Tls("ca.pem", "me.pem", "me.key"))

A *secret* is what all nodes of one program know: it says who may connect, and hides nothing of what is said then. With
*TLS* both ends show certificates of one authority, and nobody between them can read or change a byte. docs/security.md
says what each of them holds against whom. `net.certificates` makes certificates.
"""

from __future__ import annotations

import logging
import os
import secrets
import ssl
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from net import _handshake
from net.errors import BadCredentials

if TYPE_CHECKING:
    from typing_extensions import Buffer

log = logging.getLogger("net")

RECORD_BYTES: Final = 16 * 1024  # the most that one record of TLS holds

MIN_SECRET_BYTES: Final = (
    16  # what a person makes up and is shorter can be found by trying, from one recorded handshake
)
MADE_SECRET_BYTES: Final = 32  # of randomness in a secret made here
MAX_SECRET_FILE_BYTES: Final = 64 * 1024  # beyond it somebody named the wrong file

SECRET_FILE_VARIABLE: Final = "TASKLETS_SECRET_FILE"  # noqa: S105  a name
SECRET_VARIABLE: Final = "TASKLETS_SECRET"  # noqa: S105  a name
TLS_VARIABLES: Final = ("TASKLETS_TLS_CA", "TASKLETS_TLS_CERT", "TASKLETS_TLS_KEY")


class Secret:
    """One or more secrets, from a text or from a file with one per line.

    The first is proved to others; any is accepted, so that secrets can be exchanged node by node. A file is read again
    when it has changed. Raises BadCredentials when it cannot be read, when users other than its owner may, and when a
    secret is shorter than 16 bytes.
    """

    def __init__(self, source: str | bytes | os.PathLike[str]) -> None:
        self.path = Path(source) if isinstance(source, os.PathLike) else None
        self._stamp: object = None
        self._keys: tuple[bytes, ...] = ()
        if isinstance(source, os.PathLike):
            self.keys()
        else:
            text = source.encode() if isinstance(source, str) else bytes(source)
            self._keys = _derive([text.strip()], "the secret")

    def __repr__(self) -> str:
        return f"<Secret from {self.path}>" if self.path else "<Secret>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return self.path == other.path and (self.path is not None or self._keys == other._keys)

    def __hash__(self) -> int:
        return hash(self.path or self._keys)

    def keys(self) -> tuple[bytes, ...]:
        """Return what handshakes are made with, as the file is now. A file that has gone bad changes nothing."""
        if self.path is None:
            return self._keys
        stamp = _stamp(self.path)
        if stamp != self._stamp:
            try:
                self._keys = _derive(_read_lines(self.path), str(self.path))
            except BadCredentials as error:
                if not self._keys:
                    raise
                log.warning("the secrets read before stay in use: %s", error)
            self._stamp = stamp
        return self._keys


def _derive(found: Sequence[bytes], where: str) -> tuple[bytes, ...]:
    for one in found:
        if len(one) < MIN_SECRET_BYTES:
            raise BadCredentials(
                f"{where} has {len(one)} bytes, {MIN_SECRET_BYTES} are the least; make one: tasklets secret FILE"
            )
    if not found:
        raise BadCredentials(f"{where} holds no secret; make one: tasklets secret FILE")
    return tuple(map(_handshake.derive_key, found))


def _read_lines(path: Path) -> list[bytes]:
    check_private(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_FILE_BYTES + 1)
    except OSError as error:
        raise BadCredentials(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_SECRET_FILE_BYTES:
        raise BadCredentials(f"{path} is larger than {MAX_SECRET_FILE_BYTES} bytes; is it the right file?")
    lines = (line.strip() for line in content.splitlines())
    return [line for line in lines if line and not line.startswith(b"#")]


def make_secret(path: str | os.PathLike[str]) -> Path:
    """Write a new random secret to a file that only its owner may read. An existing file is left alone.

    Raises BadCredentials when the file exists or cannot be written.
    """
    target = Path(path)
    write_private(target, secrets.token_urlsafe(MADE_SECRET_BYTES).encode() + b"\n")
    return target


def write_private(path: Path, content: bytes) -> None:
    """Make a file that only its owner may read. Raises BadCredentials; an existing file is left alone."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise BadCredentials(f"{path} exists already; remove it first if it is not needed any more") from None
    except OSError as error:
        raise BadCredentials(f"{path} cannot be written: {error.strerror}") from None
    with open(descriptor, "wb") as file:
        file.write(content)


def check_private(path: Path) -> None:
    """Raises BadCredentials when others than its owner may read or change a file."""
    try:
        found = path.stat()
    except OSError as error:
        raise BadCredentials(f"{path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise BadCredentials(f"{path} is no file")
    if found.st_mode & 0o077:
        raise BadCredentials(
            f"other users may use {path} (its mode is {found.st_mode & 0o777:o}); take that from them: chmod 600 {path}"
        )
    if found.st_uid not in (os.geteuid(), 0):
        raise BadCredentials(f"{path} belongs to another user, who may change it; make a file of your own")


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes when a file does; nothing while it is missing."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode)


@dataclass(frozen=True)
class Tls:
    """Certificates for both directions: whose we trust, and ours. All are PEM files.

    Whoever shows a certificate of the authority `ca` may connect. A node that is connected to must show one for the
    host that was asked for, or for `server_name` where that is given. Files are read again when they have changed.
    Raises BadCredentials when they cannot be used.
    """

    ca: str | os.PathLike[str]
    certificate: str | os.PathLike[str]
    key: str | os.PathLike[str]
    server_name: str | None = None
    _contexts: dict[bool, tuple[object, ssl.SSLContext]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        self.context(accepting=True)
        self.context(accepting=False)

    def context(self, *, accepting: bool) -> ssl.SSLContext:
        """Return what TLS connections are made with, as the files are now. Files gone bad change nothing."""
        known = self._contexts.get(accepting)
        stamps = tuple(_stamp(Path(path)) for path in (self.ca, self.certificate, self.key))
        if known is None or known[0] != stamps:
            try:
                context = self._make_context(accepting)
            except BadCredentials as error:
                if known is None:
                    raise
                log.warning("the certificates read before stay in use: %s", error)
                context = known[1]
            known = self._contexts[accepting] = stamps, context
        return known[1]

    def _make_context(self, accepting: bool) -> ssl.SSLContext:
        check_private(Path(self.key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if accepting else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED  # of both sides; the connector checks the host's name besides
        context.sslsocket_class = TlsSocket
        if accepting:
            context.num_tickets = 0  # nothing is resumed, and nothing unasked comes after the handshake
        try:
            context.load_verify_locations(self.ca)
        except (ssl.SSLError, OSError) as error:
            raise BadCredentials(f"{self.ca} holds no certificate of an authority ({_why(error)})") from None
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (ssl.SSLError, OSError) as error:
            raise BadCredentials(
                f"{self.certificate} and {self.key} are no certificate and its key ({_why(error)})"
            ) from None
        return context


def _why(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or str(error)


class TlsSocket(ssl.SSLSocket):
    """A TLS connection that a writer and a reader use like a plain socket that does not block.

    One call takes as much as there is, not one TLS record; what would block raises BlockingIOError. Who reads must
    offer RECORD_BYTES or more: what is left of a record waits inside of OpenSSL, where no event loop sees it.
    """

    def send(self, data: Buffer, flags: int = 0) -> int:
        sent = 0
        with memoryview(data).cast("B") as view:
            try:
                while sent < len(view):
                    sent += super().send(view[sent:])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if not sent:
                    raise BlockingIOError from None
        return sent

    def sendmsg(self, buffers: Iterable[Buffer], *_: Any) -> int:  # type: ignore[override]  # all that is used
        return self.send(b"".join(buffers))

    def recv_into(self, buffer: Buffer, nbytes: int | None = None, flags: int = 0) -> int:
        received = 0
        with memoryview(buffer).cast("B") as view:
            size = nbytes or len(view)
            try:
                while True:
                    count = super().recv_into(view[received:size])
                    received += count
                    # Only a full record is likely to have a next one behind it: to try costs an exception.
                    if count < RECORD_BYTES or size - received < RECORD_BYTES or self.gettimeout() != 0:
                        return received
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if not received:
                    raise BlockingIOError from None
                return received


@dataclass(frozen=True)
class Security:
    """What is asked of whoever is at the other end of a connection: a secret, certificates, or both."""

    secret: Secret | None = None
    tls: Tls | None = None

    @property
    def methods(self) -> int:
        return (_handshake.SECRET if self.secret else 0) | (_handshake.TLS if self.tls else 0)

    def keys(self) -> tuple[bytes, ...]:
        """The keys of the secrets, or the one that stands for none."""
        return self.secret.keys() if self.secret is not None else (_handshake.NO_SECRET,)


SecretSource = Secret | str | bytes | os.PathLike[str]


def choose_security(
    secret: SecretSource | None = None, tls: Tls | None = None, *, insecure: bool = False
) -> Security | None:
    """Make of a caller's arguments what connections need; None for no security.

    A `secret` is a text, or the path of a file. Without either argument the environment says it: TASKLETS_SECRET_FILE
    or TASKLETS_SECRET, and TASKLETS_TLS_CA, _CERT and _KEY together. `insecure` means none, whatever the environment
    says. Raises BadCredentials.
    """
    if insecure:
        if secret is not None or tls is not None:
            raise BadCredentials(
                "insecure=True means without a secret and without TLS; leave out one of them"
            )
        return None
    if secret is None and tls is None:
        secret, tls = secret_from_environment(), tls_from_environment()
    if secret is None and tls is None:
        return None
    return Security(secret if secret is None or isinstance(secret, Secret) else Secret(secret), tls)


def secret_from_environment() -> Secret | None:
    """Return the secret that the environment names, if it does. Raises BadCredentials."""
    path, text = os.environ.get(SECRET_FILE_VARIABLE), os.environ.get(SECRET_VARIABLE)
    if path:
        return Secret(Path(path))
    return Secret(text) if text else None


def tls_from_environment() -> Tls | None:
    """Return the certificates that the environment names, if it does. Raises BadCredentials."""
    found = [os.environ.get(name) for name in TLS_VARIABLES]
    ca, certificate, key = found
    if ca and certificate and key:
        return Tls(ca, certificate, key)
    if any(found):
        missing = ", ".join(name for name, value in zip(TLS_VARIABLES, found, strict=True) if not value)
        raise BadCredentials(f"TLS needs {', '.join(TLS_VARIABLES)} together; {missing} is not set")
    return None
