"""Two ends of a session, whose bytes a test delivers, cuts and delivers again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from net._codec import Codec
from net._protocol import Hello, Protocol
from net._session import Session

if TYPE_CHECKING:
    from net._wire import Frame


class End:
    """One end: `say` frames, and look at what it has `heard`."""

    def __init__(self, name: str, session_id: bytes, codec: Codec, opens: bool) -> None:
        self.hello = Hello(name.encode().ljust(16, b".")[:16], name=name, session=session_id)
        self.session = Session(session_id, codec)
        self.opens = opens
        self.codec = codec
        self.protocol: Protocol | None = None
        self.heard: list[Frame] = []
        self.on_wire = bytearray()  # towards the other end
        self._met = False

    def say(self, *frames: Frame) -> None:
        """Put frames into one batch. It leaves when there is a connection that is open."""
        data = self.session.envelope([self.session.pack(frame) for frame in frames])
        if self.protocol is not None and self.protocol.peer is not None:
            self.on_wire += data

    def acknowledge(self) -> None:
        """Say what has been received."""
        if self.protocol is not None and self.protocol.peer is not None:
            self.on_wire += self.session.acknowledgement()

    def connect(self) -> None:
        self.on_wire.clear()
        hello = replace(self.hello, resumes=self._met, received=self.session.received)
        self.protocol = Protocol(hello, self.codec, self.session if self.opens else None)
        if self.opens:
            self.on_wire += self.protocol.opening()

    def hear(self, data: bytes) -> None:
        assert self.protocol is not None
        new = self.protocol.peer is None
        frames = self.protocol.receive(data)
        if new and self.protocol.peer is not None:
            if not self.opens:
                answer = replace(self.hello, received=self.session.received)
                self.on_wire += self.protocol.join(self.session, answer)
            self._met = True
            for batch in self.session.resume(self.protocol.peer.received):
                self.on_wire += batch
            frames = frames[1:]
        self.heard += frames


class ProtocolPair:
    """Two ends, `one` (which opens) and `other`, and the connection between them."""

    def __init__(self, codec: Codec | None = None) -> None:
        codec = codec or Codec(_refuse, _refuse)
        session_id = b"session of a pair"[:16]
        self.one = End("one", session_id, codec, True)
        self.other = End("other", session_id, codec, False)
        self.connect()

    def connect(self) -> None:
        """Make a connection, the first or one after a cut."""
        self.one.connect()
        self.other.connect()

    def deliver(self, one_bytes: int | None = None, other_bytes: int | None = None) -> None:
        """Deliver so many of the bytes that each end has sent (None: all)."""
        for end, peer, count in ((self.one, self.other, one_bytes), (self.other, self.one, other_bytes)):
            data = bytes(end.on_wire[:count])
            del end.on_wire[: len(data)]
            if data:
                peer.hear(data)

    def settle(self) -> None:
        """Deliver until nothing is under way."""
        while self.one.on_wire or self.other.on_wire:
            self.deliver()

    def cut(self) -> None:
        """End the connection; what is under way is lost."""
        for end in (self.one, self.other):
            if end.protocol is not None:
                end.protocol.receive(b"")
            end.protocol = None
            end.on_wire.clear()


def protocol_pair(codec: Codec | None = None) -> ProtocolPair:
    """Make two ends that are connected, and have not met yet."""
    return ProtocolPair(codec)


def _refuse(*_: Any) -> Any:
    raise LookupError("this pair sends no channels")
