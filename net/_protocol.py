"""One connection of a session as a state machine: bytes in, frames out. No socket, no clock, no tasklet.

    ours = Protocol(hello, codec, session)          # who opens; who accepts has no session yet
    transport.write(ours.opening())
    frames = ours.receive(transport.read())         # first (HELLO, ...), which also fills ours.peer
    frames = ours.landed(sock.recvmsg_into(ours.rooms())[0])    # without a copy, while there are rooms

Who opens a connection introduces itself, and the other side answers in the same way. Then both send the session's
batches (net._session); who accepted learns from the first HELLO which session it is, and enters it with `join`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from net._apart import APART_BYTES, HEAD_BYTES, Head, head_of
from net._codec import Codec
from net._handshake import check_not_asked
from net._landing import Landing
from net._printable import printable
from net._runway import SIZE_BYTES, Row, Runway
from net._session import BULK_BYTES, MAX_MESSAGE_BYTES, Limits, Session
from net._wire import (
    BATCH,
    GOODBYE,
    HELLO,
    ID_BYTES,
    MAX_ADDRESSES,
    MAX_BATCH_BYTES,
    MAX_HELLO_BYTES,
    MAX_TEXT_CHARS,
    NUMBER_BYTES,
    PREFACE,
    SMALL_BYTES,
    VERSION,
    Frame,
    shorten,
)
from net.errors import LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    import cython  # the name by which Cython knows it; never imported
else:
    from tasklets import _cython as cython

SHORT_BYTES: Final = 4096  # up to here it pays to look whether one batch came by itself
BEGINNING_BYTES: Final = BATCH.size + HEAD_BYTES  # of a batch, by which one sees where the rest of it belongs

if not cython.compiled:  # else see _protocol.pxd: there without an object

    def number_at(beginning: bytearray, at: int) -> int:
        """One of the numbers of a batch."""
        return int.from_bytes(beginning[at : at + 8], "big")


# What a connection is for.
TALK: Final = "session"
PULSE: Final = "pulse"  # see net._pulse


@dataclass(frozen=True, slots=True)
class Hello:
    """Who a node is, and which session it means, as it tells another."""

    node_id: bytes  # fresh whenever the process starts, so a restarted node is another one
    addresses: tuple[str, ...] = ()  # where it can be reached, if anywhere
    name: str = ""  # for people: program and process
    versions: tuple[int, int] = (VERSION, VERSION)
    limits: Limits = field(default_factory=Limits)
    session: bytes | None = None  # drawn by who opened it; None in an answer: no such session here
    resumes: bool = False  # it is a connection more of a session that was open before
    received: int = 0  # the last batch of the session that arrived here
    patience_ms: int = 0  # how long a session outlives its connection; the answer decides
    silence_ms: int = 10_000  # after which its pulse is missed: within it there have to be three beats
    purpose: str = TALK

    def features(self) -> dict[str, Any]:
        """Return the map that goes into the HELLO frame."""
        return {
            "node": self.node_id,
            "addresses": self.addresses,
            "name": self.name,
            "versions": self.versions,
            "limits": {"message": self.limits.max_message_bytes, "bulk": self.limits.bulk_bytes},
            "session": self.session,
            "resumes": self.resumes,
            "received": self.received,
            "patience": self.patience_ms,
            "silence": self.silence_ms,
            "purpose": self.purpose,
        }

    @classmethod
    def from_features(cls, features: Mapping[str, Any]) -> "Hello":
        """Read a received HELLO; features that are unknown are left to newer releases.

        Raises RemoteProtocolError naming the feature that is wrong.
        """
        node_id = features.get("node")
        addresses = features.get("addresses", ())
        name = features.get("name", "")
        versions = features.get("versions")
        limits = features.get("limits", MappingProxyType({}))
        session = features.get("session")
        resumes = features.get("resumes", False)
        received = features.get("received", 0)
        patience = features.get("patience", 0)
        silence = features.get("silence", 10_000)
        purpose = features.get("purpose", TALK)
        _expect(_is_id(node_id), "node", f"{ID_BYTES} bytes", node_id)
        _expect(
            type(addresses) is tuple and len(addresses) <= MAX_ADDRESSES and all(map(_is_text, addresses)),
            "addresses",
            f"at most {MAX_ADDRESSES} texts",
            addresses,
        )
        _expect(_is_text(name), "name", f"a text of at most {MAX_TEXT_CHARS} characters", name)
        _expect(
            type(versions) is tuple and len(versions) == 2 and all(_is_count(each, 1) for each in versions),
            "versions",
            "the lowest and the highest version spoken",
            versions,
        )
        _expect(type(limits) is MappingProxyType, "limits", "a map", limits)
        message, bulk = limits.get("message", MAX_MESSAGE_BYTES), limits.get("bulk", BULK_BYTES)
        least = MAX_BATCH_BYTES
        _expect(
            _is_count(message, least) and _is_count(bulk, least),
            "limits",
            f"sizes of {least} bytes or more",
            limits,
        )
        _expect(session is None or _is_id(session), "session", f"{ID_BYTES} bytes or nil", session)
        _expect(type(resumes) is bool, "resumes", "true or false", resumes)
        _expect(_is_count(received), "received", "the number of a batch", received)
        _expect(_is_count(patience), "patience", "milliseconds", patience)
        _expect(_is_count(silence, 1), "silence", "milliseconds, 1 or more", silence)
        _expect(purpose in (TALK, PULSE), "purpose", f"{TALK!r} or {PULSE!r}", purpose)
        return cls(
            node_id,  # type: ignore[arg-type]  # just checked
            addresses,
            printable(name),
            versions,  # type: ignore[arg-type]
            Limits(message, bulk),
            session,
            resumes,
            received,
            patience,
            silence,
            purpose,
        )


class State(Enum):
    """What has been received so far. What we may still send does not depend on it, except after an error."""

    NEW = "new"  # no HELLO yet
    OPEN = "open"
    CLOSED = "closed"  # the other side said goodbye
    CUT = "cut"  # the connection ended, the session perhaps not
    ERROR = "error"  # the other side broke the rules; nothing works any more


# (state, what arrived) -> new state. What is not listed breaks the rules.
TRANSITIONS: Final[Mapping[tuple[State, str], State]] = MappingProxyType(
    {
        (State.NEW, "hello"): State.OPEN,
        (State.NEW, "end of stream"): State.CUT,
        (State.OPEN, "frame"): State.OPEN,
        (State.OPEN, "goodbye"): State.CLOSED,
        (State.OPEN, "end of stream"): State.CUT,
        (State.CLOSED, "end of stream"): State.CLOSED,
        (State.CUT, "end of stream"): State.CUT,
    }
)


# Asked for with every batch, and an Enum has to search for its members.
_NEW, _OPEN = State.NEW, State.OPEN

# What frames are as far as the state is concerned; all others are a "frame".
_STEPS: Final[Mapping[int, str]] = MappingProxyType({HELLO: "hello", GOODBYE: "goodbye"})


class Protocol:
    """One end of one connection. After a RemoteProtocolError every call raises."""

    def __init__(
        self, hello: Hello, codec: Codec, session: Session | None = None, runway: Runway | None = None
    ) -> None:
        self.hello = hello
        self.peer: Hello | None = None  # filled by the first frame received
        self.state = _NEW
        self.session = session
        self.sizes: dict[
            int, int
        ] = {}  # of what `receive` returned last: index -> bytes, of those that are not small
        self._codec = codec
        self._runway = runway or Runway(memoryview(b""))  # into which its bytes, and others', are read
        self._preface_sent = False
        self._opened = False
        self._preface_read = False
        self._buffer = bytearray()  # an incomplete preface, or less than the beginning of a batch
        self._landing: Landing | None = None  # the rest of a batch that has begun, or of its large bytes
        # Of that batch: its size, its number, what it acknowledges, and what stands before its large bytes.
        self._begun: tuple[int, int, int, Head | None] = (0, 0, 0, None)
        self._row = Row()  # of the large messages that came last

    def __repr__(self) -> str:
        peer = f" with {self.peer.name or self.peer.node_id.hex()[:8]!r}" if self.peer else ""
        return f"<Protocol {self.state.value}{peer} {self.session or 'no session'}>"

    # ------------------------------------------------------------------------------------------- going out

    def preface(self) -> bytes:
        """Return what may be sent before anything is known of the other side: which protocol we speak."""
        self._preface_sent = True
        return PREFACE + bytes([VERSION])

    def opening(self) -> bytes:
        """Return the first bytes to send: the preface, if it was not sent before, and a batch with our HELLO.

        Raises LocalProtocolError when it was sent before.
        """
        if self._opened:
            raise LocalProtocolError("opening() comes first and once")
        self._opened = True
        preface = b"" if self._preface_sent else self.preface()
        frame = self._codec.encode((HELLO, self.hello.features()))
        return preface + BATCH.pack(NUMBER_BYTES + len(frame), 0, 0) + frame

    def join(self, session: Session, hello: Hello) -> bytes:
        """Enter a session that the other side has named; return what answers it."""
        self.session = session
        self.hello = hello
        if self.peer is not None:
            session.peer_limits = self.peer.limits
        return self.opening()

    # ------------------------------------------------------------------------------------------- coming in

    def rooms(self) -> list[Any] | None:
        """Where the next bytes of the stream may be put without a copy, in this order: then tell `landed` how many they
        were. None: there is no such place.
        """
        runway, row, landing = self._runway, self._row, self._landing
        if not self._expects_more():
            return None if landing is None else [landing.room, runway.received]
        assert row.head is not None
        runway.lay(len(row.beginning), row.head[3])
        return runway.buffers if landing is None else [landing.room, *runway.buffers]

    def _expects_more(self) -> bool:
        """True while the rooms are those of a runway."""
        return self._row.goes_on and not self._buffer

    def landed(self, size: int) -> list[Frame]:
        """Take so many bytes, 1 or more, that were put into `rooms`. Otherwise like `receive`."""
        if self.sizes:
            self.sizes = {}
        frames: list[Frame] = []
        try:
            rest = self._land(size, frames)
            return self._receive(rest, frames) if len(rest) else frames
        except RemoteProtocolError:
            self.state = State.ERROR
            self._forget()
            raise

    def _land(self, size: int, frames: list[Frame]) -> bytes | memoryview:
        """Take what came to where it stays; return the rest."""
        landing = self._landing
        if landing is not None:
            size = landing.fill(size)
            if landing.is_full:
                self._end_landing(frames)
        runway, row = self._runway, self._row
        if not size or not self._expects_more():
            return runway.received[:size]
        batch = len(row.beginning) - SIZE_BYTES + runway.length
        for slot in range(len(runway.beginnings)):
            beginning = runway.beginnings[slot]
            if size < len(beginning) or not row.fits(beginning):
                row.end()
                return runway.contents(slot, size)
            number = number_at(beginning, SIZE_BYTES)
            row.grow(number)
            landing = runway.take(slot)
            size = landing.fill(size - len(beginning))
            self._landing = landing
            self._begun = batch, number, number_at(beginning, SIZE_BYTES + 8), row.head
            if landing.is_full:
                self._end_landing(frames)
            if not size:
                return b""
        return runway.received[:size]

    def receive(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Take bytes as they come, and return the frames complete by now. `b""` is the end of the stream.

        The first frame of all is (HELLO, features), and fills `peer`. Frames before a fault are lost with it.
        Raises RemoteProtocolError when the other side broke the rules.
        """
        if self.sizes:
            self.sizes = {}
        try:
            session = self.session
            if (
                self.state is _OPEN
                and session is not None
                and not self._buffer
                and self._landing is None
                and BATCH.size < len(data) <= SHORT_BYTES
            ):
                size, number, acknowledged = BATCH.unpack_from(data)
                if size == len(data) - BATCH.size + NUMBER_BYTES and number == session.received + 1:
                    # One small batch and nothing else, as most come: without the steps below it takes half the time.
                    session.take(number, size, acknowledged)
                    frames = self._codec.decode(data[BATCH.size :])
                    for frame in frames:
                        if frame[0] in _STEPS or self.state is not _OPEN:
                            self._step(_STEPS.get(frame[0], "frame"))
                    if self._codec.sizes:
                        self.sizes = self._codec.sizes
                    return frames
            return self._receive(data, []) if len(data) else self._receive_end()
        except RemoteProtocolError:
            self.state = State.ERROR
            self._forget()
            raise

    def _forget(self) -> None:
        self._buffer = bytearray()
        self._landing = None

    def _receive_end(self) -> list[Frame]:
        # Also in the middle of a batch: a cut asks nobody. The rest comes over the next connection.
        if self.state is State.ERROR:
            raise RemoteProtocolError(f"{self!r} failed before; open a new session")
        self._forget()
        self._step("end of stream")
        return []

    def _receive(self, data: bytes | bytearray | memoryview, frames: list[Frame]) -> list[Frame]:
        if self.state is not _OPEN and self.state is not _NEW:
            if self.state is State.ERROR:
                raise RemoteProtocolError(f"{self!r} failed before; open a new session")
            raise RemoteProtocolError(f"{len(data)} bytes after the end")
        view = memoryview(data)
        offset = 0
        while True:
            if self._landing is not None:
                offset += self._landing.add(view[offset:])
                if not self._landing.is_full:
                    break
                self._end_landing(frames)
            if not self._buffer:  # batches are read where they arrived; only what is incomplete is kept
                offset = self._take_batches(view, offset, frames)
                if self._landing is None:
                    self._buffer += view[offset:]
                    break
            else:
                offset += self._complete(view[offset:])
                kept = memoryview(bytes(self._buffer))
                del self._buffer[: self._take_batches(kept, 0, frames)]
                if self._buffer:
                    break
        return frames

    def _complete(self, view: memoryview) -> int:
        """Move to what is kept the bytes that a batch or the beginning of one lacks, and no more; return how many."""
        buffer = self._buffer
        if not self._preface_read:
            buffer += view
            return len(view)
        moved = max(0, BATCH.size - len(buffer))
        buffer += view[:moved]
        if len(buffer) >= BATCH.size:
            size = BATCH.unpack_from(buffer)[0]
            self._check_size(size)
            end = moved + min(BATCH.size - NUMBER_BYTES + size, BEGINNING_BYTES) - len(buffer)
            buffer += view[moved:end]
            moved = end
        return min(moved, len(view))

    def _take_batches(self, view: memoryview, offset: int, frames: list[Frame]) -> int:
        """Take the complete batches from an offset on, begin the next one, and return up to where all is taken."""
        if not self._preface_read:
            offset = self._read_preface(view)
        while len(view) - offset >= BATCH.size:
            size, number, acknowledged = BATCH.unpack_from(view, offset)
            self._check_size(size)
            end = offset + BATCH.size - NUMBER_BYTES + size
            if end > len(view) and len(view) - offset < BEGINNING_BYTES:
                break
            batch = view[offset + BATCH.size : end]
            head = None
            if size >= APART_BYTES and self.state is _OPEN:
                head = head_of(batch, size - NUMBER_BYTES)
                if head is not None:
                    self._row.add(number, bytes(view[offset : offset + BATCH.size + head[2]]), head)
            if end > len(view):
                self._begin_landing(size, number, acknowledged, head, batch)
                return len(view)
            if head is None:
                self._take(size, number, acknowledged, batch, frames)
            else:
                self._take_apart(size, number, acknowledged, head, bytes(batch[head[2] :]), frames)
            offset = end
        return offset

    def _begin_landing(
        self, size: int, number: int, acknowledged: int, head: Head | None, begun: memoryview
    ) -> None:
        """The rest of a batch, or of the large bytes behind its head, goes straight to where it stays."""
        if head is None:
            self._landing = Landing(size - NUMBER_BYTES)
            self._landing.add(begun)
        else:
            self._landing = Landing(head[3])
            self._landing.add(begun[head[2] :])
        self._begun = size, number, acknowledged, head

    def _end_landing(self, frames: list[Frame]) -> None:
        size, number, acknowledged, head = self._begun
        landing, self._landing = self._landing, None
        assert landing is not None
        if head is None:
            self._take(size, number, acknowledged, landing.take(), frames)
        else:
            self._take_apart(size, number, acknowledged, head, landing.take(), frames)

    def _read_preface(self, data: bytes | bytearray | memoryview) -> int:
        """Return how many bytes belong to the preface."""
        start = bytes(data[: len(PREFACE) + 1])
        check_not_asked(data)
        if start[: len(PREFACE)] != PREFACE[: len(start)]:
            raise RemoteProtocolError(
                f"the other side does not speak this protocol: it starts with {start!r}, not {PREFACE!r}; "
                "is it the right port?"
            )
        if len(start) <= len(PREFACE):
            return 0
        if start[-1] != VERSION:
            raise RemoteProtocolError(
                f"the other side speaks version {start[-1]} of the protocol, we speak {VERSION}; "
                "run the same release on both sides"
            )
        self._preface_read = True
        return len(start)

    def _check_size(self, size: int) -> None:
        """Check what a batch announces, before any of it is kept."""
        limit = MAX_BATCH_BYTES if self.peer is not None else MAX_HELLO_BYTES
        if not NUMBER_BYTES <= size <= limit:
            raise RemoteProtocolError(f"a batch of {size} bytes; {NUMBER_BYTES} to {limit} are allowed")

    def _take(
        self,
        size: int,
        number: int,
        acknowledged: int,
        batch: bytes | bytearray | memoryview,
        frames: list[Frame],
    ) -> None:
        """Take a batch: of the session, or one of its own (number 0) that says hello or acknowledges."""
        codec = self._codec
        if self.state is _NEW:
            frames += self._take_hello(number, batch)
            return
        session = self.session
        if session is None:
            raise RemoteProtocolError("a batch before its HELLO was answered")
        if self.state is not _OPEN:
            self._step("frame")
        if number == 0:
            if size != NUMBER_BYTES:
                raise RemoteProtocolError("a batch with frames, but without a number")
            session.acknowledge(acknowledged)
            return
        session.take(number, size, acknowledged)
        taken = codec.decode(batch)
        if not taken:
            raise RemoteProtocolError(f"batch {number} has no frames")
        for frame in taken:
            if frame[0] in _STEPS or self.state is not _OPEN:
                self._step(_STEPS.get(frame[0], "frame"))
        for index, each in codec.sizes.items():
            self.sizes[len(frames) + index] = each
        frames += taken

    def _take_apart(
        self, size: int, number: int, acknowledged: int, head: Head, body: bytes, frames: list[Frame]
    ) -> None:
        """Take a batch of one frame, which ends with large bytes."""
        session = self.session
        if session is None:
            raise RemoteProtocolError("a batch before its HELLO was answered")
        if self.state is not _OPEN:
            self._step("frame")
        session.take(number, size, acknowledged)
        if size - NUMBER_BYTES > SMALL_BYTES:
            self.sizes[len(frames)] = size - NUMBER_BYTES
        frames.append(self._codec.frame_apart(head, body))

    def _take_hello(self, number: int, batch: bytes | bytearray | memoryview) -> list[Frame]:
        frames = self._codec.decode(batch)
        if number or len(frames) != 1 or frames[0][0] != HELLO:
            raise RemoteProtocolError("the first batch holds one frame, a HELLO, and has no number")
        peer = Hello.from_features(frames[0][1])
        low, high = peer.versions
        if not low <= VERSION <= high:
            raise RemoteProtocolError(
                f"the other side speaks versions {low} to {high} of the protocol, we speak {VERSION}; "
                "run the same release on both sides"
            )
        self._step("hello")
        self.peer = peer
        if self.session is not None:
            self.session.peer_limits = peer.limits
        return frames

    def _step(self, event: str) -> None:
        state = TRANSITIONS.get((self.state, event))
        if state is None:
            raise RemoteProtocolError(f"{event} is not allowed in state {self.state.value}")
        self.state = state


def _expect(right: bool, feature: str, rule: str, value: Any) -> None:
    if not right:
        raise RemoteProtocolError(f"HELLO: {feature!r} must be {rule}, not {shorten(value)}")


def _is_id(value: Any) -> bool:
    return type(value) is bytes and len(value) == ID_BYTES


def _is_text(value: Any) -> bool:
    return type(value) is str and len(value) <= MAX_TEXT_CHARS


def _is_count(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value < 1 << 63
