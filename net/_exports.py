"""The home side: what peers do to the channels that live here. Which of them they may use: `_grants`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from net import _wire as wire
from net._codec import Undecodable
from net._entries import RemoteReceiver, RemoteSender, deliver, request
from net._failures import error_of, rebuild_exception
from net._grants import grant
from net._rights import refusal
from net._wire import SEND
from net.errors import NetError, NotAllowed, RemoteProtocolError
from tasklets import ChannelClosed, NotSendable
from tasklets._core import bomb, complete

if TYPE_CHECKING:
    from collections.abc import Callable

    from net._grants import Grant
    from net._link import Link

MAX_REQUESTS = 1 << 17  # of one peer, waiting: each takes some 300 bytes here


def _on_send(link: Link, frame: wire.Frame) -> None:
    seqno = link.messages_received = link.messages_received + 1
    kind, channel_id, value = frame
    in_line = link.incoming.in_line
    granted = link.grants.get(channel_id)
    if in_line and channel_id in in_line and granted is not None:
        _defer(granted, frame, seqno, link.frame_bytes)
    elif granted is not None and granted.takes and kind == SEND and type(value) is not Undecodable:
        accept(granted, value, seqno, link.frame_bytes)  # nearly always
    else:
        take_message(link, frame, seqno, link.frame_bytes)


def accept(grant: Grant, value: Any, seqno: int, size: int) -> None:
    """A peer's message has arrived. Nearly all go straight to a receiver or into the buffer.

    `size` is its bytes, or 0 when it is small.
    """
    where = grant.channel
    buffer = where._buffer
    if buffer is None:
        if where._balance < 0 and type(where._first) is not RemoteReceiver:
            complete(where._shift(), value)
            grant.link.notify((wire.ACK, grant.channel_id, seqno))
        else:
            grant.used += 1
            grant.used_bytes += size
            grant.let_wait(size)
            deliver(RemoteSender(grant, value, seqno, size))
        return
    grant.used += 1
    if size:
        grant.used_bytes += size
    if where._balance < 0 and type(where._first) is not RemoteReceiver:
        complete(where._shift(), value)
        grant.room += 1
        grant.room_bytes += size
    elif where._balance == 0 and len(buffer) < where.capacity and not where.closing:
        buffer.append(value)
        grant.room += 1
        grant.room_bytes += size
    else:
        grant.let_wait(size)
        deliver(RemoteSender(grant, value, seqno, size))
    if (grant.used >= grant.half_window or size or grant.count <= 0) and not grant.told_soon:
        grant.tell_room()


def _defer(granted: Grant, frame: wire.Frame, seqno: int, size: int) -> None:
    """Let a message wait until a large one before it is complete.

    Raises RemoteProtocolError when the peer has sent more than it may: the large one may never be complete.
    """
    granted.link.incoming.defer(frame[1], _deferred(granted, frame, seqno, size))


def large_message(
    link: Link, frame: wire.Frame, seqno: int, size: int, is_next: bool
) -> Callable[[], object]:
    """What is to be done in its turn about a large message that is complete.

    Raises RemoteProtocolError like `_defer` when it has to wait for another one.
    """
    if is_next:
        return partial(link.node.take_message, link, frame, seqno, size)
    granted = link.grants.get(frame[1])
    if granted is None:  # nobody gets it, so it need not wait, nor be kept
        link.node.take_message(link, frame, seqno, size)
        return _nothing
    return _deferred(granted, frame, seqno, size)


def _nothing() -> None: ...


def _deferred(granted: Grant, frame: wire.Frame, seqno: int, size: int) -> Callable[[], object]:
    """A message that waits for its turn. Until then it counts as one that stands in line."""
    granted.used += 1
    granted.used_bytes += size
    granted.let_wait(size)
    return partial(_take_deferred, granted, frame, seqno, size)


def _take_deferred(granted: Grant, frame: wire.Frame, seqno: int, size: int) -> None:
    granted.used -= 1
    granted.used_bytes -= size
    granted.waiting_bytes -= size
    granted.link.node.take_message(granted.link, frame, seqno, size)


def take_message(link: Link, frame: wire.Frame, seqno: int, size: int) -> None:
    """Act on a SEND or BOMB in its turn; `size` is 0 when it is small."""
    kind, channel_id, value = frame
    granted = link.grants.get(channel_id)
    if granted is None or not granted.at_home:
        link.node.count_dead_letter(link, value, "nobody at its home holds the channel any more")
        link.tell((wire.REJECT, channel_id, seqno), _gone())
    elif not granted.rights & wire.MAY_SEND:
        link.tell((wire.REJECT, channel_id, seqno), NotAllowed(refusal(granted.granted, wire.MAY_SEND)))
    elif value.__class__ is Undecodable:
        unread = NotSendable(f"{granted.channel!r} cannot take the message: {value.reason}")
        link.tell((wire.REJECT, channel_id, seqno), unread)
    elif kind == wire.BOMB:
        accept(granted, bomb(rebuild_exception(*value)), seqno, size)
    else:
        accept(granted, value, seqno, size)


def in_turn(act: Callable[[Link, wire.Frame], None]) -> Callable[[Link, wire.Frame], None]:
    """What concerns a channel of which a large message is still arriving waits for that."""

    def act_in_turn(link: Link, frame: wire.Frame) -> None:
        if link.incoming.in_line and frame[1] in link.incoming.in_line:
            link.incoming.defer(frame[1], partial(act, link, frame))
        else:
            act(link, frame)

    return act_in_turn


def _on_retract(link: Link, frame: wire.Frame) -> None:
    sender = link.unsettled.get(frame[2])
    if sender is not None:  # else it was taken, and the verdict is under way
        sender.withdraw()


def _on_receive(link: Link, frame: wire.Frame) -> None:
    _, channel_id, op = frame
    if op in link.requests or op in link.loans:
        raise RemoteProtocolError(f"RECEIVE {op} is still in work")
    if len(link.requests) + len(link.loans) >= MAX_REQUESTS:
        link.tell(
            (wire.RAISE, op), NetError(f"{MAX_REQUESTS} receives of one node wait here; it must not be more")
        )
        return
    granted = link.grants.get(channel_id)
    if granted is None or not granted.at_home:
        link.notify((wire.RAISE, op, (*error_of(_gone())[:3], True)))
    elif not granted.rights & wire.MAY_RECEIVE:
        link.tell((wire.RAISE, op), NotAllowed(refusal(granted.granted, wire.MAY_RECEIVE)))
    else:
        request(granted.channel, link, op)


def _on_offer(link: Link, frame: wire.Frame) -> None:
    _, channel_id, op = frame
    granted = link.grants.get(channel_id)
    if granted is None or not granted.at_home:
        link.tell((wire.RAISE, op), _gone())
    elif not granted.rights & wire.MAY_SEND:
        link.tell((wire.RAISE, op), NotAllowed(refusal(granted.granted, wire.MAY_SEND)))
    elif granted.channel.closing:
        link.tell((wire.RAISE, op), ChannelClosed(granted.channel._closed_text("send to")))
    elif len(link.node.offers) >= MAX_REQUESTS:
        link.tell(
            (wire.RAISE, op), NetError(f"{MAX_REQUESTS} selects wait here to send; it must not be more")
        )
    else:
        link.node.offers.add(link, op, granted.channel)


def _on_taken(link: Link, frame: wire.Frame) -> None:
    loan = link.loans.pop(frame[1], None)
    if loan is not None:
        loan.taken()


def _on_refused(link: Link, frame: wire.Frame) -> None:
    loan = link.loans.pop(frame[1], None)
    if loan is None:
        return
    loan.refused()
    if link.has_too_much_unread:
        link.lose(
            f"it asks for large messages and refuses them, and has {link.unread_bytes} bytes of them to read"
        )


def _on_cancel(link: Link, frame: wire.Frame) -> None:
    link.node.offers.drop(link, frame[1])
    request = link.requests.pop(frame[1], None)
    if request is not None:
        request.withdraw()
    else:
        # The two crossed, so the peer will refuse it. Putting it back now, before the peer's next request is read,
        # keeps the order of messages.
        _on_refused(link, frame)


def _on_close(link: Link, frame: wire.Frame) -> None:
    granted = link.grants.get(frame[1])
    if granted is not None and granted.at_home and granted.rights & wire.MAY_SEND:
        granted.channel.close()


def _on_hold(link: Link, frame: wire.Frame) -> None:
    held = link.node.exported(frame[1])
    if held is not None:
        grant(held, link)
        if held.closing:
            link.notify((wire.CLOSED, frame[1]))


def _on_release(link: Link, frame: wire.Frame) -> None:
    _, channel_id, count = frame
    granted = link.grants.get(channel_id)
    if granted is None:
        return
    granted.count -= count
    if granted.count <= 0:
        del link.grants[channel_id]
        granted.tell_room()
        link.node.scheduler.reconsider()


def _gone() -> ChannelClosed:
    return ChannelClosed("the channel is gone: nobody at its home holds it any more")


HANDLERS: dict[int, Callable[[Link, wire.Frame], None]] = {
    wire.SEND: _on_send,
    wire.BOMB: _on_send,
    wire.RETRACT: in_turn(_on_retract),
    wire.RECEIVE: _on_receive,
    wire.OFFER: in_turn(_on_offer),
    wire.TAKEN: _on_taken,
    wire.REFUSED: _on_refused,
    wire.CANCEL: _on_cancel,
    wire.CLOSE: in_turn(_on_close),
    wire.HOLD: _on_hold,
    wire.RELEASE: in_turn(_on_release),
}
