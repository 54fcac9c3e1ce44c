"""One end of a session as a state machine: bytes in, frames out. No socket, no clock, no tasklet.

    ours = Protocol(Hello(node_id), codec)
    transport.write(ours.opening())
    frames = ours.receive(transport.read())  # first (HELLO, ...), which also fills ours.peer
    transport.write(ours.envelope([ours.pack((SEND, channel_id, value))]))

The order of frames matters from here on: what is packed is put into an envelope once, in that order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from net._codec import Codec
from net._handshake import check_not_asked
from net._wire import (
    BATCH,
    FRAMES,
    GOODBYE,
    HELLO,
    ID_BYTES,
    MAX_ADDRESSES,
    MAX_BATCH_BYTES,
    MAX_FRAME_BYTES,
    MAX_HELLO_BYTES,
    MAX_TEXT_CHARS,
    PREFACE,
    SEQ_BYTES,
    VERSION,
    Frame,
    shorten,
)
from net.errors import LocalProtocolError, RemoteProtocolError
from tasklets import NotSendable

SHORT_BYTES: Final = 4096  # up to here it pays to look whether one batch came by itself


@dataclass(frozen=True, slots=True)
class Limits:
    """What one side accepts; it tells the other side in its HELLO."""

    max_frame_bytes: int = MAX_FRAME_BYTES
    max_batch_bytes: int = MAX_BATCH_BYTES  # of all that follows a batch's first field


@dataclass(frozen=True, slots=True)
class Hello:
    """Who a node is, as it tells another."""

    node_id: bytes  # fresh whenever the process starts, so a restarted node is another one
    addresses: tuple[str, ...] = ()  # where it can be reached, if anywhere
    name: str = ""  # for people: program and process
    versions: tuple[int, int] = (VERSION, VERSION)
    limits: Limits = field(default_factory=Limits)

    def features(self) -> dict[str, Any]:
        """Return the map that goes into the HELLO frame."""
        return {
            "node": self.node_id,
            "addresses": self.addresses,
            "name": self.name,
            "versions": self.versions,
            "limits": {"frame": self.limits.max_frame_bytes, "batch": self.limits.max_batch_bytes},
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
        _expect(type(node_id) is bytes and len(node_id) == ID_BYTES, "node", f"{ID_BYTES} bytes", node_id)
        _expect(
            type(addresses) is tuple and len(addresses) <= MAX_ADDRESSES and all(map(_is_text, addresses)),
            "addresses",
            f"at most {MAX_ADDRESSES} texts",
            addresses,
        )
        _expect(_is_text(name), "name", f"a text of at most {MAX_TEXT_CHARS} characters", name)
        _expect(
            type(versions) is tuple and len(versions) == 2 and all(map(_is_size, versions)),
            "versions",
            "the lowest and the highest version spoken",
            versions,
        )
        _expect(type(limits) is MappingProxyType, "limits", "a map", limits)
        frame, batch = limits.get("frame", MAX_FRAME_BYTES), limits.get("batch", MAX_BATCH_BYTES)
        _expect(_is_size(frame) and _is_size(batch), "limits", "sizes in bytes", limits)
        return cls(node_id, addresses, name, versions, Limits(frame, batch))  # type: ignore[arg-type]  # just checked


class State(Enum):
    """What has been received so far. What we may still send does not depend on it, except after an error."""

    NEW = "new"  # no HELLO yet
    OPEN = "open"
    CLOSED = "closed"  # the other side said goodbye or ended the stream
    ERROR = "error"  # the other side broke the rules; nothing works any more


# (state, what arrived) -> new state. What is not listed breaks the rules.
TRANSITIONS: Final[Mapping[tuple[State, str], State]] = MappingProxyType(
    {
        (State.NEW, "hello"): State.OPEN,
        (State.NEW, "end of stream"): State.CLOSED,
        (State.OPEN, "frame"): State.OPEN,
        (State.OPEN, "goodbye"): State.CLOSED,
        (State.OPEN, "end of stream"): State.CLOSED,
        (State.CLOSED, "end of stream"): State.CLOSED,
    }
)


class Protocol:
    """One end of a session.

    `pack` and `envelope` for what goes out, `receive` for what comes in. After a RemoteProtocolError every
    call raises.
    """

    def __init__(self, hello: Hello, codec: Codec, limits: Limits | None = None) -> None:
        self.hello = hello
        self.peer: Hello | None = None  # filled by the first frame received
        self.state = State.NEW
        self._codec = codec
        self._limits = limits or hello.limits
        self._short_bytes = min(SHORT_BYTES, self._limits.max_batch_bytes)
        self._peer_limits = Limits()
        self._next_sent = 1  # number of the next frame to go out
        self._next_received = 1
        self._preface_read = False
        self._buffer = bytearray()  # an incomplete preface or batch

    def __repr__(self) -> str:
        peer = f" with {self.peer.name or self.peer.node_id.hex()[:8]!r}" if self.peer else ""
        counts = f"sent={self._next_sent - 1} received={self._next_received - 1}"
        return f"<Protocol {self.state.value}{peer} {counts}>"

    # ------------------------------------------------------------------------------------------- going out

    def opening(self) -> bytes:
        """Return the first bytes to send: the preface, and a batch with our HELLO.

        Raises LocalProtocolError when it is not the first thing that is sent.
        """
        if self._next_sent != 1:
            raise LocalProtocolError("opening() comes first and once; frames were put into envelopes already")
        return PREFACE + bytes([VERSION]) + self.envelope([self.pack((HELLO, self.hello.features()))])

    def pack(self, frame: Frame) -> bytes:
        """Return the bytes of one frame, to be put into an envelope.

        Raises NotSendable, naming the part that cannot travel, or the size and the limit when it is too
        large.
        """
        if self.state is State.ERROR:
            raise LocalProtocolError(f"{self!r} failed before; open a new session")
        data = self._codec.encode(frame)
        if len(data) > self._peer_limits.max_frame_bytes:
            name = FRAMES[frame[0]].fields[-1][0]
            raise NotSendable(
                f"{name}: a message of {len(data)} bytes is over the limit of "
                f"{self._peer_limits.max_frame_bytes} bytes; send it in parts",
                name,
            )
        return data

    def envelope(self, packed: Sequence[bytes]) -> bytes:
        """Return packed frames in as few batches as the limits allow, numbered.

        Each packed frame goes into an envelope once, in the order in which they were packed.
        """
        if self.state is State.ERROR:
            raise LocalProtocolError(f"{self!r} failed before; open a new session")
        limit = self._peer_limits.max_batch_bytes
        size = SEQ_BYTES + sum(map(len, packed))
        if packed and size <= limit:
            return b"".join((self._header(size, len(packed)), *packed))
        parts = [b""]
        header, count, size = 0, 0, SEQ_BYTES
        for data in packed:
            if count and size + len(data) > limit:
                parts[header] = self._header(size, count)
                parts.append(b"")
                header, count, size = len(parts) - 1, 0, SEQ_BYTES
            parts.append(data)
            count += 1
            size += len(data)
        if count:
            parts[header] = self._header(size, count)
        return b"".join(parts)

    def _header(self, size: int, count: int) -> bytes:
        header = BATCH.pack(size, self._next_sent)
        self._next_sent += count
        return header

    # ------------------------------------------------------------------------------------------- coming in

    def receive(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Take bytes as they come, and return the frames complete by now. `b""` is the end of the stream.

        The first frame of all is (HELLO, features), and fills `peer`. Frames before a fault are lost with it.
        Raises RemoteProtocolError when the other side broke the rules, also by ending in the middle of
        something.
        """
        if self.state is State.ERROR:
            raise RemoteProtocolError(f"{self!r} failed before; open a new session")
        try:
            return self._receive(data) if len(data) else self._receive_end()
        except RemoteProtocolError:
            self.state = State.ERROR
            self._buffer = bytearray()
            raise

    def _receive_end(self) -> list[Frame]:
        if self._buffer or (self._preface_read and self.peer is None):
            raise RemoteProtocolError(
                f"the stream ended in the middle of {'a batch' if self._preface_read else 'the preface'}, "
                f"{len(self._buffer)} bytes into it"
            )
        self._step("end of stream")
        return []

    def _receive(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        if self.state is State.CLOSED:
            raise RemoteProtocolError(f"{len(data)} bytes after the end")
        if self.state is State.OPEN and not self._buffer and BATCH.size < len(data) <= self._short_bytes:
            size, seq = BATCH.unpack_from(data)
            if size == len(data) - BATCH.size + SEQ_BYTES and seq == self._next_received:
                # One small batch and nothing else, as most come: without the steps below it takes half the time.
                return self._take(self._codec.decode(data[BATCH.size :]))
        if self._buffer:
            self._buffer += data
            data = self._buffer
        frames: list[Frame] = []
        offset = self._read_preface(data)
        # Batches are read where they arrived; only what is incomplete is kept.
        with memoryview(data) as view:
            while len(view) - offset >= BATCH.size:
                size, seq = BATCH.unpack_from(view, offset)
                self._check_header(size, seq)
                end = offset + BATCH.size - SEQ_BYTES + size
                if end > len(view):
                    break
                with view[offset + BATCH.size : end] as batch:
                    frames += self._take(self._codec.decode(batch))
                offset = end
        if data is self._buffer:
            del self._buffer[:offset]
        elif offset < len(data):
            self._buffer += data[offset:]
        return frames

    def _read_preface(self, data: bytes | bytearray | memoryview) -> int:
        """Return how many bytes belong to the preface."""
        if self._preface_read:
            return 0
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

    def _check_header(self, size: int, seq: int) -> None:
        """Check what a batch announces, before any of it is kept."""
        limit = self._limits.max_batch_bytes if self.peer is not None else MAX_HELLO_BYTES
        if not SEQ_BYTES < size <= limit:
            raise RemoteProtocolError(f"a batch of {size} bytes; {SEQ_BYTES + 1} to {limit} are allowed")
        if seq != self._next_received:
            raise RemoteProtocolError(
                f"a batch starts with frame {seq}, but frame {self._next_received} is due"
            )

    def _take(self, batch: list[Frame]) -> list[Frame]:
        """Let a batch's frames change the state; return them."""
        for frame in batch:
            kind = frame[0]
            if kind == HELLO:
                self._step("hello")
                self._meet(Hello.from_features(frame[1]))
            elif kind == GOODBYE:
                self._step("goodbye")
            elif self.state is not State.OPEN:
                self._step("frame")
        self._next_received += len(batch)
        return batch

    def _meet(self, peer: Hello) -> None:
        low, high = peer.versions
        if not low <= VERSION <= high:
            raise RemoteProtocolError(
                f"the other side speaks versions {low} to {high} of the protocol, we speak {VERSION}; "
                "run the same release on both sides"
            )
        self.peer = peer
        self._peer_limits = Limits(
            min(peer.limits.max_frame_bytes, MAX_FRAME_BYTES),
            min(peer.limits.max_batch_bytes, MAX_BATCH_BYTES),
        )

    def _step(self, event: str) -> None:
        state = TRANSITIONS.get((self.state, event))
        if state is None:
            raise RemoteProtocolError(f"{event} is not allowed in state {self.state.value}")
        self.state = state


def _expect(right: bool, feature: str, rule: str, value: Any) -> None:
    if not right:
        raise RemoteProtocolError(f"HELLO: {feature!r} must be {rule}, not {shorten(value)}")


def _is_text(value: Any) -> bool:
    return type(value) is str and len(value) <= MAX_TEXT_CHARS


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 63
