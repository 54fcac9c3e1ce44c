"""Credit: how many messages, and how many bytes, a node may have under way to a channel that lives elsewhere."""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Any

from net._wire import WINDOW_BYTES, window_size
from net.errors import RemoteProtocolError
from tasklets._core import Wait

if TYPE_CHECKING:
    from collections.abc import Callable


next_ticket = itertools.count().__next__  # for places in line


class Window:
    """The sender's side: the messages of this node to one channel whose fate is not known here.

    With capacity n that is: not known to have found room. The home tells how many did, in order. With capacity 0: not
    known to be taken; the home tells which. A message may leave while there is credit, and while the messages under way
    have fewer than WINDOW_BYTES; so one that is larger than that leaves alone.

    It belongs to the link and not to the reference, because it outlives it: when a reference was dropped with
    messages under way and another one to the same channel came, the answers to both are told apart by nothing.
    """

    __slots__ = (
        "_held",
        "_idle",
        "_large",
        "_settled",
        "bytes",
        "credit",
        "is_meeting",
        "references",
        "size",
        "starved",
    )

    def __init__(self, capacity: int) -> None:
        self.size = self.credit = window_size(capacity)
        self.is_meeting = capacity == 0
        self.references = 0  # that use it: one or none, and more only while the dropped are cleaned up
        self.starved: deque[Any] = deque()  # who waits for credit: has `grant()` and `fail(error)`
        self.bytes = 0  # of the messages under way, the small ones not counted
        self._held: int | None = None  # the credit, while there are too many bytes; `credit` is 0 then
        # (ordinal of the message in this window, its bytes); with capacity 0 its number instead
        self._large: deque[tuple[int, int]] = deque()
        self._settled = 0  # how many messages are no longer under way
        self._idle = 0  # credit that was granted to somebody who has not run since

    def __repr__(self) -> str:
        return f"<Window under_way={self.under_way} of {self.size} bytes={self.bytes} starved={len(self.starved)}>"

    @property
    def under_way(self) -> int:
        return self.size - (self.credit if self._held is None else self._held)

    @property
    def is_idle(self) -> bool:
        """True when nobody needs it any more."""
        return not self.references and not self.under_way

    def wait_for_credit(self, what: str) -> None:
        """Block until one message more may be sent; the credit for it is the caller's then."""
        turn = _Turn(what, self)
        self.starved.append(turn)
        while True:
            try:
                turn.park()
            except BaseException:
                if turn.granted:  # killed before it could use it
                    self._idle -= 1
                    self.give_back()
                raise
            self._idle -= 1
            if self._held is None:
                return
            # Somebody who was let go at the same time has filled it up.
            self._held += 1
            turn = _Turn(what, self, turn.ticket)
            behind = sum(other.ticket < turn.ticket for other in self.starved)
            self.starved.insert(behind, turn)

    def count(self, size: int, seqno: int | None = None) -> None:
        """A message that is not small has left."""
        ordinal = self._settled + self.under_way - self._idle if seqno is None else seqno
        self._large.append((ordinal, size))
        self.bytes += size
        if self.bytes >= WINDOW_BYTES and self._held is None:
            self._held, self.credit = self.credit, 0

    def give_back(self) -> None:
        """One message was not sent after all."""
        self._free(1)

    def acknowledge(self, number: int) -> None:
        """So many messages found room. Raises RemoteProtocolError when there were not so many."""
        if number > self.under_way:
            raise RemoteProtocolError(f"room for {number} messages, of which {self.under_way} were under way")
        self._settle(number)

    def settle(self, seqno: int) -> None:
        """This message was taken (capacity 0), or never will be. Raises RemoteProtocolError."""
        for index, (number, size) in enumerate(self._large if self.is_meeting else ()):
            if number == seqno:
                del self._large[index]
                self.bytes -= size
                break
        if not self.under_way:
            raise RemoteProtocolError(f"a verdict on message {seqno}, but none is under way")
        self._settle(1)

    def _settle(self, number: int) -> None:
        self._settled += number
        if not self.is_meeting:
            while self._large and self._large[0][0] <= self._settled:
                self.bytes -= self._large.popleft()[1]
        self._free(number)

    def _free(self, number: int) -> None:
        free = number + (self.credit if self._held is None else self._held)
        if self.bytes >= WINDOW_BYTES and free < self.size:
            self._held, self.credit = free, 0
            return
        self._held, self.credit = None, free
        while self.credit and self.starved:
            self.credit -= 1
            self.starved.popleft().grant()

    def fail(self, make_error: Callable[[], BaseException]) -> None:
        """There will be no more credit."""
        while self.starved:
            self.starved.popleft().fail(make_error())


class Windows(dict[bytes, Window]):
    """The windows of one link, by channel id, each for as long as somebody needs it."""

    def enter(self, channel_id: bytes, capacity: int) -> Window:
        """A reference begins to use the channel's window."""
        window = self.get(channel_id)
        if window is None:
            window = self[channel_id] = Window(capacity)
        window.references += 1
        return window

    def leave(self, channel_id: bytes) -> None:
        """A reference that used the window was dropped."""
        window = self.get(channel_id)
        if window is not None:  # else the link was lost meanwhile
            window.references -= 1
            self.forget(channel_id, window)

    def forget(self, channel_id: bytes, window: Window) -> None:
        """Drop a window that nobody needs any more."""
        if window.is_idle:
            self.pop(channel_id, None)


class _Turn(Wait):
    """A sender's place in line for credit."""

    def __init__(self, what: str, window: Window, ticket: int | None = None) -> None:
        super().__init__(what)
        self._window = window
        self.ticket = next_ticket() if ticket is None else ticket
        self.granted = False

    def grant(self) -> None:
        self.granted = True
        self._window._idle += 1
        self.wake()

    def _interrupted(self) -> None:
        super()._interrupted()
        if self in self._window.starved:
            self._window.starved.remove(self)
