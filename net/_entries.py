"""What stands in the queues of channels here for peers, beside the tasklets: their messages, and their requests.

A peer's message becomes a RemoteSender, a peer's request for one a RemoteReceiver. Giving a message to a
RemoteReceiver takes two steps, because its tasklet may have stopped waiting meanwhile: the message is *lent*, and
the peer answers TAKEN or REFUSED. A refused message goes back to the front of its channel.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from net import _wire as wire
from net._failures import error_of
from tasklets import ChannelClosed, NotSendable
from tasklets._core import Entry, Wait, bomb, complete, tasklet

if TYPE_CHECKING:
    from net._grants import Grant
    from net._link import Link
    from net.errors import PeerLost
    from tasklets import channel

log = logging.getLogger("net")


class Sender(Entry):
    """A message in line, or lent, and what is to be done when its fate is known. The base: nobody cares."""

    __slots__ = ("channel",)

    def __init__(self, where: channel, value: Any) -> None:
        super().__init__()
        self.channel = where
        self.tempval = value

    @property
    def in_line(self) -> bool:
        """True while it stands in the queue of its channel; False while it is lent."""
        return self._next is not None or self._prev is not None or self.channel._first is self

    def take(self, value: Any) -> None:
        """A receiver here takes the message out of the queue."""
        self.taken()

    def taken(self) -> None: ...

    def refused(self) -> None:
        deliver(self, front=True)

    def lost(self, error: PeerLost) -> None:
        log.warning("a message taken from %r may be lost: %s", self.channel, error)

    def rejected(self, error: BaseException) -> None:
        log.warning("a message that waited in %r was dropped: %s", self.channel, error)


class RemoteSender(Sender):
    """A peer's message."""

    __slots__ = ("grant", "seqno", "size", "withdrawn")

    def __init__(self, grant: Grant, value: Any, seqno: int, size: int) -> None:
        super().__init__(grant.channel, value)
        self.grant = grant
        self.seqno = seqno
        self.size = size  # 0 when it is small
        self.withdrawn = False
        if self.channel.capacity == 0:  # else its send has returned, and is not taken back
            grant.link.unsettled[seqno] = self

    def taken(self) -> None:
        grant = self.grant
        if self.channel.capacity:
            grant.waiting_bytes -= self.size
            grant.room += 1
            grant.room_bytes += self.size
            grant.tell_room()
        else:
            self._settle(wire.ACK)

    def refused(self) -> None:
        if self.withdrawn:
            self._settle(wire.DROPPED)
        else:
            super().refused()

    def lost(self, error: PeerLost) -> None:
        self.rejected(error)

    def rejected(self, error: BaseException) -> None:
        grant = self.grant
        grant.used -= 1
        grant.used_bytes -= self.size
        grant.waiting_bytes -= self.size
        grant.link.unsettled.pop(self.seqno, None)
        grant.link.node.count_dead_letter(grant.link, self.tempval, str(error))
        grant.link.tell((wire.REJECT, grant.channel_id, self.seqno), error)

    def withdraw(self) -> None:
        """Its sender takes it back, or is lost. If it is lent just now, that is decided by the verdict."""
        if self.in_line:
            self.channel._discard(self)
            self._settle(wire.DROPPED)
        else:
            self.withdrawn = True

    def _settle(self, verdict: int) -> None:
        grant = self.grant
        grant.used -= 1
        grant.used_bytes -= self.size
        grant.waiting_bytes -= self.size
        grant.link.unsettled.pop(self.seqno, None)
        grant.link.notify((verdict, grant.channel_id, self.seqno))


class LocalSender(Sender):
    """The message of a tasklet here that waited to send when a peer asked for it; the tasklet goes on
    waiting for the outcome.
    """

    __slots__ = ("wait",)

    def __init__(self, where: channel, one: tasklet) -> None:
        super().__init__(where, one.tempval)
        one._channel = None
        one.tempval = None
        self.wait = Wait(f"send to {where!r}", cancel=self._withdraw)
        self.wait.adopt(one)

    @property
    def waiter(self) -> tasklet | None:
        return self.wait.tasklet

    def _withdraw(self) -> None:
        if self.in_line:
            self.channel._discard(self)
        self.wait.cancel = None  # end the cycle, which would keep the message until the collector comes

    def taken(self) -> None:
        self.wait.wake()
        self.wait.cancel = None

    def refused(self) -> None:
        if not self.wait.over:  # else it was withdrawn while it was lent
            deliver(self, front=True)

    def lost(self, error: PeerLost) -> None:
        self.rejected(error)

    def rejected(self, error: BaseException) -> None:
        self.wait.fail(error)
        self.wait.cancel = None


class DirectSender(Sender):
    """The message of a tasklet here that is giving it to a waiting RemoteReceiver just now."""

    __slots__ = ("wait",)

    def __init__(self, where: channel, value: Any, peer: str) -> None:
        super().__init__(where, value)
        self.wait = Wait(f"send to {where!r}: {peer} to take the message")

    def taken(self) -> None:
        self.wait.wake(True)

    def refused(self) -> None:
        self.wait.wake(False)

    def lost(self, error: PeerLost) -> None:
        self.wait.fail(error)


class RemoteReceiver(Entry):
    """A peer's request for one message, in line."""

    __slots__ = ("channel", "link", "op")

    def __init__(self, where: channel, link: Link, op: int) -> None:
        super().__init__()
        self.channel = where
        self.link = link
        self.op = op

    def take(self, value: Any) -> None:
        """A tasklet here sends to the peer's receiver.

        With capacity 0 this blocks it until the peer has taken the message.
        """
        self.link.requests.pop(self.op, None)
        if value.__class__ is bomb:
            _refuse(self.link, self.op, self.channel, value.value)
            return
        if self.channel.capacity:
            self.lend(Sender(self.channel, value))
            return
        sender = DirectSender(self.channel, value, self.link.name)
        self.lend(sender)
        if not sender.wait.park():
            self.channel.send(value)

    def lend(self, sender: Sender) -> None:
        """Give the peer a message, until it says what became of it.

        Raises NotSendable when the value cannot travel; the request is in line again then, at the front.
        """
        try:
            self.link.send((wire.ITEM, self.op, sender.tempval))
        except NotSendable:
            self.channel._unshift(self, -1)
            self.link.requests[self.op] = self
            raise
        self.link.requests.pop(self.op, None)
        self.link.loans[self.op] = sender

    def withdraw(self) -> None:
        """The peer does not wait any more."""
        self.channel._discard(self)


def deliver(sender: Sender, front: bool = False) -> None:
    """Give a message to the first receiver, or put it in line (`front`: where it was before).

    Never blocks.
    """
    where = sender.channel
    buffer = where._buffer
    if where._balance < 0:
        receiver = where._shift()
        if receiver.__class__ is RemoteReceiver:
            try:
                receiver.lend(sender)
            except NotSendable as error:
                sender.rejected(error)
        else:
            complete(receiver, sender.tempval)
            sender.taken()
    elif buffer is not None and front:
        buffer.appendleft(sender.tempval)
        sender.taken()
    elif buffer is not None and len(buffer) < where.capacity and not where.closing:
        buffer.append(sender.tempval)
        sender.taken()
    elif where.closing and not front:
        sender.rejected(ChannelClosed(where._closed_text("send to")))
    else:
        (where._unshift if front else where._push)(sender, 1)


def request(where: channel, link: Link, op: int) -> None:
    """A peer asks for one message: lend it the first that can travel, or put the request in line."""
    while (sender := _first_message(where)) is not None:
        if sender.tempval.__class__ is bomb:
            _refuse(link, op, where, sender.tempval.value)
            sender.taken()
            return
        try:
            link.send((wire.ITEM, op, sender.tempval))
        except NotSendable as error:
            sender.rejected(error)
        else:
            link.loans[op] = sender
            return
    if where.closing:
        _refuse(link, op, where, ChannelClosed(where._closed_text("receive from"), where))
    else:
        receiver = link.requests[op] = RemoteReceiver(where, link, op)
        where._push(receiver, -1)


def _refuse(link: Link, op: int, where: channel, error: BaseException) -> None:
    """Fail a peer's request. That its channel is closed is told apart from a ChannelClosed that somebody has sent."""
    if isinstance(error, ChannelClosed) and error.channel is where:
        link.notify((wire.RAISE, op, (*error_of(error)[:3], True)))
    else:
        link.tell((wire.RAISE, op), error)


def _first_message(where: channel) -> Sender | None:
    """Take the first message out of a channel, if there is one."""
    if where._buffer:
        sender = Sender(where, where._buffer.popleft())
        if where._balance > 0:
            where._refill()
        return sender
    return _lendable(where, where._shift()) if where._balance > 0 else None


def _lendable(where: channel, entry: Any) -> Sender:
    """What a queue entry that wants to send becomes when its message is lent."""
    if isinstance(entry, Sender):
        return entry
    if isinstance(entry, tasklet):
        return LocalSender(where, entry)
    # A select: it goes on as if the message had been taken; a refused message waits on its own then.
    sender = Sender(where, entry.tempval)
    complete(entry, None)
    return sender


def is_awaited(where: channel) -> bool:
    """True when somebody of this process waits on the channel."""
    first = where._first
    return first is not None and not isinstance(first, (RemoteSender, RemoteReceiver))
