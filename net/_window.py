"""Credit: how many messages a node may have under way to a channel with room that lives elsewhere."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from net._wire import window_size
from net.errors import RemoteProtocolError
from tasklets._core import Wait

if TYPE_CHECKING:
    from collections.abc import Callable


class Window:
    """The sender's side: the messages of this node to one channel that are not known to have found room.

    It belongs to the link and not to the reference, because it outlives it: when a reference was dropped with
    messages under way and another one to the same channel came, the answers to both are told apart by nothing.
    """

    __slots__ = ("credit", "references", "size", "starved")

    def __init__(self, capacity: int) -> None:
        self.size = self.credit = window_size(capacity)
        self.references = 0  # that use it: one or none, and more only while the dropped are cleaned up
        self.starved: deque[_Turn] = deque()  # who waits for credit

    @property
    def under_way(self) -> int:
        return self.size - self.credit

    @property
    def is_idle(self) -> bool:
        """True when nobody needs it any more."""
        return not self.references and self.credit == self.size

    def wait_for_credit(self, what: str) -> None:
        """Block until one message more may be sent; the credit for it is the caller's then."""
        turn = _Turn(what, self)
        self.starved.append(turn)
        try:
            turn.park()
        except BaseException:
            if turn.granted:  # killed before it could use it
                self.give_back()
            raise

    def give_back(self) -> None:
        """One message found room, or was not sent after all."""
        if self.starved:
            self.starved.popleft().grant()
        else:
            self.credit += 1

    def acknowledge(self, number: int) -> None:
        """So many messages found room. Raises RemoteProtocolError when there were not so many."""
        if number > self.size - self.credit:
            raise RemoteProtocolError(f"room for {number} messages, of which {self.under_way} were under way")
        while number and self.starved:
            self.starved.popleft().grant()
            number -= 1
        self.credit += number

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
        window = self[channel_id]
        window.references -= 1
        if window.is_idle:
            del self[channel_id]

    def acknowledge(self, channel_id: bytes, number: int) -> bool:
        """So many messages found room; False when the channel has no window. Raises RemoteProtocolError."""
        window = self.get(channel_id)
        if window is None:
            return False
        window.acknowledge(number)
        if window.is_idle:
            del self[channel_id]
        return True


class _Turn(Wait):
    """A sender's place in line for credit."""

    def __init__(self, what: str, window: Window) -> None:
        super().__init__(what)
        self._window = window
        self.granted = False

    def grant(self) -> None:
        self.granted = True
        self.wake()

    def _interrupted(self) -> None:
        super()._interrupted()
        self._window.starved.remove(self)
