"""Who wants to hear of the end of a channel: what `net.monitor` keeps, and what it tells."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ref as weakref

from net._entries import Sender, deliver, is_awaited
from tasklets import channel, message

if TYPE_CHECKING:
    from weakref import ReferenceType


@message(name="net.Down")
class Down:
    """A monitored channel has ended: it was closed, or its node is gone."""

    ref: channel
    reason: str


def tell_end(told: channel, down: Down) -> None:
    """Tell one who wanted to know. Never blocks."""
    deliver(Sender(told, down))


class Monitors:
    """Those of one node. A channel lives as long as somebody here monitors it, and no longer."""

    def __init__(self) -> None:
        self._told: dict[channel, set[ReferenceType[channel]]] = {}  # a channel -> those of who want to know

    def __len__(self) -> int:
        """How many channels are monitored."""
        return len(self._told)

    def add(self, watched: channel, told: channel) -> None:
        """Tell `told` of the end of `watched`, as long as anybody holds it."""

        def forget(dead: ReferenceType[channel]) -> None:
            several = self._told.get(watched)
            if several is not None:
                several.discard(dead)
                if not several:
                    del self._told[watched]

        self._told.setdefault(watched, set()).add(weakref(told, forget))

    def tell(self, ref: channel, reason: str) -> None:
        """A channel was closed, or its node is gone: tell those who wanted to know. Never blocks."""
        for each in list(self._told.pop(ref, ())):
            told = each()
            if told is not None:
                tell_end(told, Down(ref, reason))

    @property
    def are_awaited(self) -> bool:
        """True while somebody of this process waits to hear."""
        return any(is_awaited(told) for several in self._told.values() for one in several if (told := one()))
