"""Frames that are too large to travel as one: cut into parts, between which others pass.

The sender announces such a frame where it would have stood (LARGE), and its parts follow as far as the receiver's
window allows (PART, WINDOW). So a small message waits for 256 KiB at most, and not for 64 MiB. What concerns the same
channel waits behind at the receiver, so that order holds. State machines: no socket, no clock, no tasklet.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from net._apart import Apart, Head, head_of
from net._landing import Landing, Spare
from net._wire import BOMB, LARGE, PART, PART_BYTES, SEND, SPAWN, Frame, check_frame
from net.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from net._session import Limits

MAX_STREAMS: Final = 65536  # announced and not complete: each takes a hundred bytes at the receiver
MAX_DEFERRED: Final = 65536  # frames that wait behind them: each takes a few hundred


class Outgoing:
    """The sender's side."""

    def __init__(self) -> None:
        self.limits: Limits | None = None  # the peer's; known when the session opens
        # In the order in which they began: number, what comes before the rest, the rest.
        self._streams: deque[tuple[int, bytes, memoryview]] = deque()
        self._waiting: deque[tuple[int, bytes, memoryview]] = (
            deque()
        )  # announced, and nothing of them has left
        self._active_bytes = 0  # whole sizes of those that began
        self._sizes: dict[int, int] = {}
        self._next = 0
        self._credit = 0
        self.pending_bytes = 0  # still to be sent

    def meet(self, limits: Limits) -> None:
        """The session opens."""
        self.limits = limits
        self._credit = limits.bulk_bytes

    @property
    def pending(self) -> bool:
        """True while something is left to be sent."""
        return bool(self._streams or self._waiting)

    @property
    def ready(self) -> bool:
        """True when a part may leave now."""
        return self._credit > 0 and bool(self._streams or self._waiting)

    def add(self, data: bytes | Apart, subject: bytes | int | None) -> Frame:
        """Take a packed frame; returns the frame that announces it."""
        stream, self._next = self._next, self._next + 1
        head, body = (data.head, data.body) if isinstance(data, Apart) else (b"", data)
        self._waiting.append((stream, head, memoryview(body)))
        self._sizes[stream] = len(data)
        self.pending_bytes += len(data)
        return (LARGE, stream, len(data), subject)

    def granted(self, count: int) -> None:
        """The receiver makes room for more bytes. Raises RemoteProtocolError when they were not sent."""
        assert self.limits is not None
        self._credit += count
        if self._credit > self.limits.bulk_bytes:
            raise RemoteProtocolError(
                f"WINDOW of {count} bytes, {self._credit} of {self.limits.bulk_bytes} would be free"
            )

    def next_part(self) -> Frame:
        """The next part, of the frames under way in turn. Only while `ready`."""
        self._begin_more()
        stream, head, rest = self._streams.popleft()
        size = min(PART_BYTES, self._credit, len(head) + len(rest))
        self._credit -= size
        self.pending_bytes -= size
        part: bytes | memoryview
        if head:
            start = head + bytes(rest[: max(0, size - len(head))])
            part, head, rest = start[:size], start[size:], rest[max(0, size - len(head)) :]
        else:
            part, rest = rest[:size], rest[size:]
        if head or rest:
            self._streams.append((stream, head, rest))
        else:
            self._active_bytes -= self._sizes.pop(stream)
        return (PART, stream, part)

    def _begin_more(self) -> None:
        """The receiver puts together so many bytes at once as one message may have; one frame always may begin."""
        assert self.limits is not None
        while self._waiting:
            size = self._sizes[self._waiting[0][0]]
            if self._streams and self._active_bytes + size > self.limits.max_message_bytes:
                return
            self._active_bytes += size
            self._streams.append(self._waiting.popleft())


class _Stream:
    """A frame that is being put together, or (`act`) something that waits behind one."""

    __slots__ = ("act", "content", "head", "received", "seqno", "size", "subject")

    def __init__(self, size: int, subject: bytes | int | None) -> None:
        self.size = size
        self.subject = subject
        self.seqno = 0  # of the message
        self.received = 0
        self.content: Landing | None = None  # when it has begun
        self.head: Head | None = (
            None  # read already: of a frame that ends with large bytes, which are the content then
        )
        self.act: Callable[[], object] | None = None


class Incoming:
    """The receiver's side."""

    def __init__(self, limits: Limits, spare: Spare) -> None:
        self._limits = limits
        self._spare = spare
        self._streams: dict[int, _Stream] = {}
        # By subject, what waits for a frame to be complete: in this order, and the first is not.
        self.in_line: dict[bytes | int, deque[_Stream]] = {}
        self._next = 0
        self._active_bytes = 0  # whole sizes of those that began
        self._deferred = 0  # how many frames wait behind them
        self._owed = 0  # taken in since we last made room

    def begin(self, stream: int, size: int, subject: bytes | int | None) -> None:
        """A frame is announced. Raises RemoteProtocolError."""
        if stream != self._next:
            raise RemoteProtocolError(f"LARGE {stream} came, but {self._next} is due")
        if size > self._limits.max_message_bytes:
            raise RemoteProtocolError(
                f"a frame of {size} bytes; {self._limits.max_message_bytes} are allowed"
            )
        if len(self._streams) >= MAX_STREAMS:
            raise RemoteProtocolError(f"more than {MAX_STREAMS} large frames at once")
        if isinstance(subject, int) and subject in self.in_line:
            raise RemoteProtocolError(f"LARGE {stream} is about {subject}, which another one was about")
        self._next += 1
        begun = self._streams[stream] = _Stream(size, subject)
        if subject is not None:
            self.in_line.setdefault(subject, deque()).append(begun)

    def defer(self, subject: bytes | int, act: Callable[[], object]) -> None:
        """Something else about a subject in line has arrived: it is to be done in its turn.

        Raises RemoteProtocolError when too much waits so; the large frame before it may never be complete.
        """
        if self._deferred >= MAX_DEFERRED:
            raise RemoteProtocolError(
                f"more than {MAX_DEFERRED} frames behind large ones that are not complete"
            )
        self._deferred += 1
        behind = _Stream(0, subject)
        behind.act = act
        self.in_line[subject].append(behind)

    def part(self, stream: int, data: bytes) -> bytes | Frame | None:
        """A part has arrived; returns the frame's bytes when it is complete, or the frame if it ends with large bytes.

        Raises RemoteProtocolError.
        """
        begun = self._streams.get(stream)
        if begun is None:
            raise RemoteProtocolError(f"PART of {stream}, which was not announced or is complete")
        content: bytes | memoryview = data
        if begun.content is None:
            active = self._active_bytes + begun.size
            if active > self._limits.max_message_bytes:
                raise RemoteProtocolError(
                    f"frames of {active} bytes have begun; {self._limits.max_message_bytes} are allowed"
                )
            self._active_bytes = active
            head, begin = head_of(data, begun.size), 0
            if head is not None:
                begun.head, begin = head, head[2]
                content = memoryview(data)[begin:]
            begun.content = self._spare.landing(begun.size - begin)
        begun.received += len(data)
        self._owed += len(data)
        if begun.received > begun.size:
            raise RemoteProtocolError(f"{begun.received} bytes of a frame of {begun.size}")
        if self._owed > self._limits.bulk_bytes:
            raise RemoteProtocolError(f"{self._owed} bytes of parts, more than WINDOW allowed")
        begun.content.add(content)
        if begun.received < begun.size:
            return None
        del self._streams[stream]
        self._active_bytes -= begun.size
        whole = begun.content.take()
        self._spare.keep(whole)
        if begun.head is None:
            return whole
        frame = (begun.head[0], begun.head[1], whole)
        check_frame(frame)
        return frame

    def complete(self, stream: _Stream, act: Callable[[], object]) -> None:
        """The frame was read: act on it in its turn, and on what waited behind it."""
        subject = stream.subject
        stream.act = act
        if subject is None:
            act()
            return
        line = self.in_line[subject]
        while line and (first := line[0].act) is not None:
            if not line.popleft().size:
                self._deferred -= 1
            first()
        if not line:
            self.in_line.pop(subject, None)

    def is_next(self, stream: _Stream) -> bool:
        """True when nothing before a frame has to be complete first."""
        return stream.subject is None or self.in_line[stream.subject][0] is stream

    def find(self, stream: int) -> _Stream | None:
        return self._streams.get(stream)

    def take_room(self) -> int:
        """How many bytes to make room for now; 0 when it can wait."""
        if self._owed < self._limits.bulk_bytes // 4:
            return 0
        owed, self._owed = self._owed, 0
        return owed


def subject_of(frame: Frame) -> bytes | int | None:
    """What must not overtake a frame: what concerns the same channel, or the same spawned function."""
    return frame[1] if frame[0] in (SEND, BOMB, SPAWN) else None
