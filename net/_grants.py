"""Which peers may use the channels that live here, and how much they may have under way to them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet, ref

from net import _wire as wire
from net._rights import rights_of, target_of
from net.errors import RemoteProtocolError

if TYPE_CHECKING:
    from net._link import Link
    from net.node import Node
    from tasklets import channel


class Export:
    """What the network knows of a channel at home here: its id, and who has to hear that it was closed."""

    __slots__ = ("_channel", "channel_id", "facets", "node")

    def __init__(self, channel_id: bytes, node: Node, exported: channel) -> None:
        self.channel_id = channel_id
        self.node = node
        self.facets: WeakSet[channel] = WeakSet()  # references to it with fewer rights
        self._channel = ref(exported)

    def channel_closed(self) -> None:
        for one in (self._channel(), *self.facets):
            if one is None:
                continue
            channel_id = self.node.id_of(one)
            for link in list(self.node.links):  # those that hold the channel are told
                if channel_id in link.grants:
                    link.notify((wire.CLOSED, channel_id))
            self.node.monitors.tell(one, "it was closed")


class Grant:
    """A channel that a peer holds `count` references to; it lives as long as this.

    It may be a reference that this node only handed on: that one keeps the channel alive, and is not to be used here.
    The peer may have so many messages under way, its window, and so many bytes. With capacity n it is told about the
    room that they found when it has used up half of either: before that it can go on without, and a frame of its own
    for each message would cost as much as the message. Whoever has no credit left has used up more than half.
    """

    __slots__ = (
        "at_home",
        "channel",
        "channel_id",
        "count",
        "granted",
        "half_window",
        "link",
        "rights",
        "room",
        "room_bytes",
        "takes",
        "told_soon",
        "used",
        "used_bytes",
        "waiting_bytes",
        "window",
    )

    def __init__(self, granted: channel, channel_id: bytes, link: Link) -> None:
        self.granted = granted  # it lives as long as this
        self.channel = target_of(granted)
        self.rights = rights_of(granted)
        self.at_home = granted._observer is not None
        self.takes = self.at_home and bool(self.rights & wire.MAY_SEND)  # messages
        self.channel_id = channel_id
        self.link = link
        self.count = 0
        # Messages that the peer does not know to have found room (capacity n), or to be taken. Bytes are those of the
        # messages that are not small.
        self.used = self.used_bytes = 0
        self.room = self.room_bytes = 0  # of them, what has found room
        self.waiting_bytes = 0  # of them, what stands in line: the memory that the peer takes here
        self.told_soon = False  # the link tells the peer at the end of this turn
        self.window = wire.window_size(granted.capacity)
        self.half_window = self.window // 2

    def tell_room(self) -> None:
        """See to it that the peer hears of room when it should. To be called when `used` or `room` has grown."""
        if (
            self.room
            and not self.told_soon
            and (
                self.used >= self.half_window
                or self.used_bytes >= wire.WINDOW_BYTES // 2
                or self.count <= 0  # a dropped window is to end
            )
        ):
            self.told_soon = True
            self.link.tell_room(self)

    def let_wait(self, size: int) -> None:
        """A message is about to stand in line.

        Raises RemoteProtocolError when the peer has sent more than it may; it could fill the memory.
        """
        if self.used > self.window:
            raise RemoteProtocolError(
                f"{self.used} messages under way to {self.channel!r}, {self.window} are allowed"
            )
        if self.waiting_bytes >= wire.WINDOW_BYTES:
            raise RemoteProtocolError(
                f"{self.waiting_bytes} bytes under way to {self.channel!r}, after {wire.WINDOW_BYTES} it has to wait"
            )
        self.waiting_bytes += size

    def take_room(self) -> int:
        """How many messages found room that the peer is told of now."""
        room, self.room = self.room, 0
        self.used -= room
        self.used_bytes -= self.room_bytes
        self.room_bytes = 0
        self.told_soon = False
        return room


def grant(where: channel, link: Link) -> None:
    """The peer was given one more reference: the channel lives until the peer drops them all, or is lost."""
    channel_id = link.node.id_of(where)
    known = link.grants.get(channel_id)
    if known is None:
        known = link.grants[channel_id] = Grant(where, channel_id, link)
    known.count += 1
