"""Peers that want to hear when somebody waits to receive from a channel here: a `select` there wants to send.

Nobody tells when a tasklet begins to wait, so while there are offers they are looked through whenever this process has
nothing else to do: a receiver that waits then, waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from net import _wire as wire

if TYPE_CHECKING:
    from net._link import Link
    from net.node import Node
    from tasklets import channel

FIRST_LOOK: Final = (
    0.001  # seconds, where no event loop says when it is idle (a memory network); then ever longer
)


class Offers:
    """All offers of the peers of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._open: dict[tuple[Link, int], channel] = {}  # in the order in which they came
        self._watcher: Any = None
        self._pause = FIRST_LOOK

    def __len__(self) -> int:
        return len(self._open)

    def add(self, link: Link, op: int, where: channel) -> None:
        """A peer makes an offer; answer it when somebody waits."""
        if where._balance < 0:
            link.notify((wire.WANTED, op))
            return
        self._open[link, op] = where
        self._watch()

    def drop(self, link: Link, op: int) -> None:
        """The offer is taken back."""
        self._open.pop((link, op), None)
        self._stop_if_idle()

    def drop_all(self, link: Link) -> None:
        """The peer is gone."""
        for key in [key for key in self._open if key[0] is link]:
            del self._open[key]
        self._stop_if_idle()

    def look(self) -> None:
        """Answer the offers for which somebody waits, as many as there are receivers."""
        left: dict[channel, int] = {}
        for (link, op), where in list(self._open.items()):
            if left.setdefault(where, -where._balance) > 0:
                left[where] -= 1
                del self._open[link, op]
                link.notify((wire.WANTED, op))
        self._stop_if_idle()

    def _watch(self) -> None:
        if self._watcher is None and self._node.network is None:
            self._watcher = self._node.reactor.loop.prepare(ref=False)
            self._watcher.start(self.look)
        elif self._watcher is None:
            self._pause = FIRST_LOOK
            self._watcher = self._node.reactor.call_later(self._pause, self._look_again)

    def _look_again(self) -> None:
        self._watcher = None
        self.look()
        if self._open:
            self._pause *= 2
            self._watcher = self._node.reactor.call_later(self._pause, self._look_again)

    def _stop_if_idle(self) -> None:
        if self._open or self._watcher is None:
            return
        watcher, self._watcher = self._watcher, None
        if self._node.network is None:
            watcher.stop()
            watcher.close()
        else:
            watcher()
