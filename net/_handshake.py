"""How two nodes prove to each other that they may talk: one end as a state machine, without I/O.

It comes before anything else on a connection, where a secret or certificates are asked for. The node that was
connected to speaks first: a *banner* in the clear says what it asks for. With TLS, a TLS handshake follows. Then

    acceptor   CHALLENGE  nonce
    connector  PROOF      nonce, HMAC over both nonces and what else both know
    acceptor   WELCOME    HMAC over the same, as the acceptor

and then the session as it would be without. Neither end ever sends the secret. Both nonces are fresh, so what was
recorded once is worth nothing; the two roles are part of the HMAC, so nothing can be sent back to who said it; the TLS
connection is part of it too, so a man in the middle cannot hand it on from one TLS connection to another.

`Handshake.wanted` says how many bytes are to be read next, never more: what follows the last one belongs to the
session. docs/wire.md says it to the byte.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from net.errors import LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

BANNER_PREFACE: Final = b"TSKA"  # like the session's preface, so that the wrong one is told apart at once
VERSION: Final = 1
BANNER: Final = struct.Struct(">4sBB")  # preface, version, methods

SECRET: Final = 1  # bits of `methods`: both ends know a secret
TLS: Final = 2  # both ends have a certificate, and talk over TLS

NONCE_BYTES: Final = 32
MAC_BYTES: Final = hashlib.sha256().digest_size
MAX_REASON_BYTES: Final = 200  # a line for a person, from a stranger
MAX_FRAME_BYTES: Final = 255  # what the length field can say

HEADER: Final = struct.Struct(">BB")  # type, bytes that follow
CHALLENGE: Final = 1
PROOF: Final = 2
WELCOME: Final = 3
REFUSED: Final = 4

# type -> (name, the sizes it may have)
FRAMES: Final[Mapping[int, tuple[str, range]]] = MappingProxyType(
    {
        CHALLENGE: ("CHALLENGE", range(NONCE_BYTES, NONCE_BYTES + 1)),
        PROOF: ("PROOF", range(NONCE_BYTES + MAC_BYTES, NONCE_BYTES + MAC_BYTES + 1)),
        WELCOME: ("WELCOME", range(MAC_BYTES, MAC_BYTES + 1)),
        REFUSED: ("REFUSED", range(1, MAX_REASON_BYTES + 1)),
    }
)

_LABEL: Final = b"tasklets handshake 1"  # so that no HMAC made for another purpose fits here


# The first two bytes of those who most often come by mistake.
_STRANGERS: Final[Mapping[bytes, str]] = MappingProxyType(
    {
        b"TS": "it began a session without proving who it is",
        b"\x16\x03": "it speaks TLS, which is not asked for here",
        b"GE": "it speaks HTTP",
        b"PO": "it speaks HTTP",
    }
)


class State(Enum):
    """How far one end is; named for what it waits for."""

    EXPECTS_CHALLENGE = "expects challenge"  # the connector
    EXPECTS_PROOF = "expects proof"  # the acceptor
    EXPECTS_WELCOME = "expects welcome"  # the connector
    ACCEPTED = "accepted"
    REFUSED = "refused"
    ERROR = "error"


# (state, type of frame) -> new state, if what is in the frame is right. What is not listed breaks the rules.
TRANSITIONS: Final[Mapping[tuple[State, int], State]] = MappingProxyType(
    {
        (State.EXPECTS_CHALLENGE, CHALLENGE): State.EXPECTS_WELCOME,
        (State.EXPECTS_CHALLENGE, REFUSED): State.REFUSED,
        (State.EXPECTS_PROOF, PROOF): State.ACCEPTED,
        (State.EXPECTS_PROOF, REFUSED): State.REFUSED,
        (State.EXPECTS_WELCOME, WELCOME): State.ACCEPTED,
        (State.EXPECTS_WELCOME, REFUSED): State.REFUSED,
    }
)


def derive_key(secret: bytes) -> bytes:
    """Return the key that both ends use for a secret; the secret itself is used for nothing else."""
    return hmac.digest(_LABEL, secret, "sha256")


# Where only certificates are asked for, TLS says who is there, and the frames only tell that both are content.
NO_SECRET: Final = derive_key(b"")


def make_banner(methods: int) -> bytes:
    """Return the first bytes of a node that asks for a secret, for certificates, or for both."""
    return BANNER.pack(BANNER_PREFACE, VERSION, methods)


def read_banner(data: bytes) -> int:
    """Return the methods that a banner names. Raises RemoteProtocolError."""
    preface: bytes
    version: int
    methods: int
    preface, version, methods = BANNER.unpack(data)
    if preface != BANNER_PREFACE:
        raise RemoteProtocolError(
            f"the other side does not speak this protocol: it starts with {data!r}; is it the right port?"
        )
    if version != VERSION:
        raise RemoteProtocolError(
            f"the other side speaks version {version} of the handshake, we speak {VERSION}; "
            "run the same release on both sides"
        )
    if methods not in (SECRET, TLS, SECRET | TLS):
        raise RemoteProtocolError(
            f"the methods {methods:#x} are unknown; does the other side run a newer release?"
        )
    return methods


class HandshakeCut(RemoteProtocolError):
    """The connection ended before the handshake was over. Who asks again may have more luck."""


class AuthenticationAsked(RemoteProtocolError):
    """A session was begun with a node that asks for a secret or certificates first."""

    def __init__(self, methods: int) -> None:
        super().__init__(f"it asks for {name_methods(methods)}")
        self.methods = methods


def check_not_asked(data: bytes | bytearray | memoryview) -> None:
    """Raises AuthenticationAsked when what should be a session starts with a banner."""
    if len(data) >= BANNER.size and bytes(data[: len(BANNER_PREFACE)]) == BANNER_PREFACE:
        raise AuthenticationAsked(read_banner(bytes(data[: BANNER.size])))


def name_methods(methods: int) -> str:
    """Say what is asked for, to a person."""
    return " and ".join(
        text for bit, text in ((SECRET, "a secret"), (TLS, "certificates (TLS)")) if methods & bit
    )


class Handshake:
    """One end of a handshake, after the banner (and after TLS's own).

    `keys` are those of the secrets: the connector proves the first, the acceptor takes any, so that secrets can be
    exchanged one node after the other. `nonce` must be fresh and random.

        while handshake.wanted:
            transport.write(handshake.receive(transport.read(handshake.wanted)))
    """

    def __init__(
        self,
        *,
        accepting: bool,
        keys: Sequence[bytes],
        methods: int,
        nonce: bytes,
        channel_binding: bytes = b"",
    ) -> None:
        if len(nonce) != NONCE_BYTES or not keys:
            raise LocalProtocolError(f"a handshake needs a key and a nonce of {NONCE_BYTES} bytes")
        self.state = State.EXPECTS_PROOF if accepting else State.EXPECTS_CHALLENGE
        self.refusal = ""  # why, once the state is REFUSED
        self.refused_by_peer = False
        self.binding = b""  # once accepted: known to both ends and nobody else, different for each connection
        self._accepting = accepting
        self._keys = tuple(keys)
        self._methods = methods
        self._nonce = nonce
        self._peer_nonce = b""
        self._channel_binding = channel_binding
        self._buffer = b""
        self._size = 0  # of the frame that comes in; 0 before its header is there

    def __repr__(self) -> str:
        return f"<Handshake {'acceptor' if self._accepting else 'connector'} {self.state.value}>"

    @property
    def wanted(self) -> int:
        """How many bytes are to be read next; 0 when it is over."""
        if (self.state, REFUSED) not in TRANSITIONS:
            return 0
        return (self._size or HEADER.size) - len(self._buffer)

    def opening(self) -> bytes:
        """Return what this end sends before it has received anything."""
        return _frame(CHALLENGE, self._nonce) if self._accepting else b""

    def receive(self, data: bytes) -> bytes:
        """Take at most `wanted` bytes; return what to send. `b""` is the end of the stream.

        Afterwards the state may be ACCEPTED or REFUSED. Raises RemoteProtocolError when the other side broke the
        rules.
        """
        if not self.wanted or len(data) > self.wanted:
            raise LocalProtocolError(f"{len(data)} bytes for {self!r}, which takes {self.wanted}")
        try:
            if not data:
                raise HandshakeCut("the connection ended in the middle of the handshake")
            self._buffer += data
            return self._advance()
        except RemoteProtocolError:
            self.state = State.ERROR
            raise

    def _advance(self) -> bytes:
        if not self._size and len(self._buffer) == HEADER.size:
            kind, size = HEADER.unpack(self._buffer)
            self._check_header(kind, size)
            self._size = HEADER.size + size
        if not self._size or len(self._buffer) < self._size:
            return b""
        kind, payload = self._buffer[0], self._buffer[HEADER.size :]
        self._buffer, self._size = b"", 0
        return self._act(kind, payload)

    def _check_header(self, kind: int, size: int) -> None:
        """Check what a frame announces, before any of it is kept."""
        if kind not in FRAMES:
            raise RemoteProtocolError(
                _STRANGERS.get(HEADER.pack(kind, size), f"a frame of type {kind} in the handshake is unknown")
            )
        name, sizes = FRAMES[kind]
        if (self.state, kind) not in TRANSITIONS:
            raise RemoteProtocolError(f"{name} is not allowed by a node that {self.state.value}")
        if size not in sizes:
            raise RemoteProtocolError(f"{name} of {size} bytes; {sizes[0]} to {sizes[-1]} are allowed")

    def _act(self, kind: int, payload: bytes) -> bytes:
        if kind == REFUSED:
            self.refused_by_peer = True
            self._refuse(_printable(payload))
            return b""
        if kind == CHALLENGE:
            self._peer_nonce = payload
            self.state = TRANSITIONS[self.state, kind]
            return _frame(PROOF, self._nonce + self._mac(self._keys[0], b"connector"))
        if kind == PROOF:
            self._peer_nonce, proof = payload[:NONCE_BYTES], payload[NONCE_BYTES:]
            key = self._find_key(proof, b"connector")
            if key is None:
                return self.refuse("its secret is not the one of this node")
            self._accept(kind, key)
            return _frame(WELCOME, self._mac(key, b"acceptor"))
        if self._find_key(payload, b"acceptor", self._keys[:1]) is None:
            return self.refuse("it does not know the secret itself")
        self._accept(kind, self._keys[0])
        return b""

    def refuse(self, reason: str) -> bytes:
        """End the handshake; return what tells the other side why."""
        self._refuse(reason)
        return refusal_frame(reason)

    def _refuse(self, reason: str) -> None:
        self.state = State.REFUSED
        self.refusal = reason

    def _accept(self, kind: int, key: bytes) -> None:
        self.state = TRANSITIONS[self.state, kind]
        self.binding = self._mac(key, b"session")

    def _find_key(self, proof: bytes, role: bytes, keys: Sequence[bytes] | None = None) -> bytes | None:
        """Return the key that a proof was made with. Takes as long for a wrong proof as for a right one."""
        found = None
        for key in self._keys if keys is None else keys:
            if hmac.compare_digest(self._mac(key, role), proof):
                found = key
        return found

    def _mac(self, key: bytes, role: bytes) -> bytes:
        ours, peers = self._nonce, self._peer_nonce
        challenge, answer = (ours, peers) if self._accepting else (peers, ours)
        known = (_LABEL, role, make_banner(self._methods), self._channel_binding, challenge, answer)
        # Each part with its length, so that no two lists of parts give the same bytes.
        return hmac.digest(key, b"".join(struct.pack(">H", len(part)) + part for part in known), "sha256")


def refusal_frame(reason: str) -> bytes:
    """Return the frame that says why the other side is refused."""
    return _frame(REFUSED, reason.encode()[:MAX_REASON_BYTES])


def _frame(kind: int, payload: bytes) -> bytes:
    return HEADER.pack(kind, len(payload)) + payload


def _printable(text: bytes) -> str:
    """What a stranger wrote, as one harmless line."""
    return "".join(char if char.isprintable() else "?" for char in text.decode(errors="replace"))
