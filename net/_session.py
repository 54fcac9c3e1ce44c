"""What outlives a connection: numbered batches, and those that the other side may not have yet.

    ours = Session(session_id, codec)
    transport.write(ours.envelope([ours.pack(frame)]))      # kept until the other side has it
    ...                                                     # the connection breaks, another one is made
    for data in ours.resume(peer.received):                 # what did not arrive, in order
        transport.write(data)

Each batch has a number, and says up to which number its sender has received. After a cut both sides tell each other
what they have; so nothing is lost, nothing comes twice, and the order stays. No socket, no clock, no tasklet.

Not here: what the bytes of one connection are (net._protocol), and when to give up (net._recovery).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from net._apart import Apart
from net._codec import Codec
from net._wire import BATCH, FRAMES, MAX_BATCH_BYTES, NUMBER_BYTES, WINDOW_BYTES, Frame
from net.errors import LocalProtocolError, RemoteProtocolError
from tasklets import NotSendable

if TYPE_CHECKING:
    import cython  # the name by which Cython knows it; never imported
else:
    from tasklets import _cython as cython

# Sent and not known to have arrived: beyond it nothing more leaves. Ten milliseconds of a fast network.
REPLAY_BYTES: Final = 4 * 1024 * 1024
# Received since we last said so: what we have to say says it anyway, and a silent receiver speaks up here. As much as a
# window of messages has, so that who tells of room need say nothing more.
ACKNOWLEDGE_BYTES: Final = WINDOW_BYTES

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
BULK_BYTES: Final = 256 * 1024  # measured: more of it in the kernel's buffers holds up small messages


if not cython.compiled:  # else see _session.pxd: there without an object for each number

    def begin_batch(size: int, number: int, received: int, start: bytes) -> bytes:
        """What a batch begins with, and the first bytes of its frames behind it."""
        return BATCH.pack(size, number, received) + start


# A batch that is written as two pieces: everything before its large bytes, and these.
Pieces = tuple[bytes, bytes | memoryview]


def size_of(batch: bytes | Pieces) -> int:
    """How many bytes a batch has."""
    return len(batch[0]) + len(batch[1]) if isinstance(batch, tuple) else len(batch)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one side accepts; it tells the other side in its HELLO."""

    max_message_bytes: int = MAX_MESSAGE_BYTES  # of one frame, in parts
    bulk_bytes: int = BULK_BYTES  # of parts under way


class Session:
    """One end of a session."""

    def __init__(self, session_id: bytes, codec: Codec) -> None:
        self.session_id = session_id
        self.peer_limits = Limits()
        self.sent = 0  # the number of the last batch that was made
        self.received = 0  # the number of the last batch that was taken
        self.acknowledged = 0  # up to which number the other side has ours
        self.replay_bytes = 0
        self.owed_bytes = 0  # received since we last said so
        self._codec = codec
        self._replay: deque[bytes | Pieces] = deque()  # batches acknowledged + 1 to sent

    def __repr__(self) -> str:
        counts = f"sent={self.sent} acknowledged={self.acknowledged} received={self.received}"
        return f"<Session {self.session_id.hex()[:8]} {counts}>"

    # ------------------------------------------------------------------------------------------- going out

    def pack(self, frame: Frame) -> bytes:
        """Return the bytes of one frame.

        Raises NotSendable, naming the part that cannot travel, or the size and the limit when it is too
        large.
        """
        data = self._codec.encode(frame)
        self.check_size(frame[0], len(data))
        return data

    def check_size(self, kind: int, size: int) -> None:
        """Raises NotSendable when a frame of this kind has more bytes than the other side takes."""
        if size > self.peer_limits.max_message_bytes:
            name = FRAMES[kind].fields[-1][0]
            raise NotSendable(
                f"{name}: a message of {size} bytes is over the limit of {self.peer_limits.max_message_bytes} "
                "bytes at the other side; send it in parts, or raise the limit there: "
                "net.configure(max_message_bytes=...)",
                name,
            )

    @property
    def has_room(self) -> bool:
        """True while more may leave."""
        return self.replay_bytes < REPLAY_BYTES

    def envelope(self, packed: Sequence[bytes | memoryview]) -> bytes:
        """Return packed frames as one numbered batch, which is kept until it is acknowledged.

        Raises LocalProtocolError when they are too many, or none.
        """
        size = NUMBER_BYTES + sum(map(len, packed))
        if not NUMBER_BYTES < size <= MAX_BATCH_BYTES:
            raise LocalProtocolError(
                f"a batch of {size} bytes; {NUMBER_BYTES + 1} to {MAX_BATCH_BYTES} are allowed"
            )
        self.sent += 1
        data = begin_batch(size, self.sent, self.received, b"".join(packed))
        self.owed_bytes = 0
        self._replay.append(data)
        self.replay_bytes += len(data)
        return data

    def envelope_apart(self, apart: Apart) -> Pieces:
        """The same for one frame whose large bytes are left apart: the pieces to write one after the other."""
        size = NUMBER_BYTES + apart.size
        if size > MAX_BATCH_BYTES:
            raise LocalProtocolError(f"a batch of {size} bytes; {MAX_BATCH_BYTES} are allowed")
        self.sent += 1
        pieces = begin_batch(size, self.sent, self.received, apart.head), apart.body
        self.owed_bytes = 0
        self._replay.append(pieces)
        self.replay_bytes += BATCH.size + apart.size
        return pieces

    @property
    def owes(self) -> bool:
        """True when the other side should hear soon what we have."""
        return self.owed_bytes >= ACKNOWLEDGE_BYTES

    def acknowledgement(self) -> bytes:
        """Return a batch that only says what we have."""
        self.owed_bytes = 0
        return begin_batch(NUMBER_BYTES, 0, self.received, b"")

    def resume(self, received: int) -> Sequence[bytes]:
        """Return the batches that the other side, which has `received` of them, does not have.

        Raises RemoteProtocolError when that cannot be.
        """
        if received < self.acknowledged:
            raise RemoteProtocolError(f"it has {received} batches, but acknowledged {self.acknowledged}")
        self.acknowledge(received)
        self.owed_bytes = 0
        return [b"".join(batch) if isinstance(batch, tuple) else batch for batch in self._replay]

    # ------------------------------------------------------------------------------------------- coming in

    def take(self, number: int, size: int, acknowledged: int) -> None:
        """A batch has arrived. Raises RemoteProtocolError when another one was due."""
        if number != self.received + 1:
            raise RemoteProtocolError(f"batch {number} came, but batch {self.received + 1} is due")
        self.received = number
        self.owed_bytes += size
        if acknowledged == self.acknowledged + 1 <= self.sent:  # as when requests and answers take turns
            self.replay_bytes -= size_of(self._replay.popleft())
            self.acknowledged = acknowledged
        elif acknowledged != self.acknowledged:
            self.acknowledge(acknowledged)

    def acknowledge(self, number: int) -> None:
        """The other side has our batches up to this one. A batch that is sent again may say an older number."""
        if number > self.sent:
            raise RemoteProtocolError(f"batch {number} was acknowledged, but {self.sent} were sent")
        replay = self._replay
        while self.acknowledged < number:
            self.replay_bytes -= size_of(replay.popleft())
            self.acknowledged += 1
