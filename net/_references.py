"""The other side: a reference to a channel that lives at another node, with the API of the channel itself."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit

from net import _wire as wire
from net._codec import send_head
from net._failures import error_of, rebuild_exception
from net._rights import refusal
from net._window import next_ticket
from net._wire import MAY_SEND, SEND, SMALL_BYTES
from net.errors import NotAllowed, PeerLost
from tasklets import ChannelClosed, TaskletExit, getcurrent
from tasklets._core import Wait, bomb

if TYPE_CHECKING:
    from collections.abc import Callable

    import cython  # the name by which Cython knows it; never imported

    from net._link import Link
    from net._window import Window
    from net.node import Node
    from tasklets import tasklet
else:
    from tasklets import _cython as cython

if not cython.compiled:  # else it is the type of that name, see _references.pxd
    from tasklets import channel

log = logging.getLogger("net")

# How long a send that timed out waits to hear whether its message was taken. A home that hangs must not hold it up.
VERDICT_SECONDS = 1.0
_NO_TIME_LEFT = (TaskletExit, GreenletExit, KeyboardInterrupt, SystemExit)  # who is killed does not ask


class RemoteChannel(channel):
    """A reference to a channel at home elsewhere.

    `send` on a channel of capacity 0 returns when a receiver has taken the message, one round trip later.
    With capacity n it returns at once while fewer than min(n, 1024) messages, and less than 1.5 MiB, of this node are
    under way: sent, and not known here to have found room. Messages of one sender arrive in order. An operation on a
    channel whose home is gone raises PeerLost. `balance` counts only what waits at this node.
    """

    __slots__ = (
        "_addresses",
        "_head",  # the bytes of a message to it, without the value
        "_home",
        "_id",
        "_introducers",  # link that keeps it alive -> how often it came over it; told when it is dropped
        "_late_error",  # why a message failed whose send had returned
        "_link",
        "_node",
        "_offers",  # cases of selects that wait to send (a set)
        "_receivers",  # the receives that wait here, in order (a dict)
        "_rights",  # what it is good for
        "_unanswered",  # seqno -> the Wait of a rendezvous send
        "_window",  # how much it may have under way; None before it has a link
    )

    def __init__(
        self,
        node: Node,
        home: bytes,
        channel_id: bytes,
        capacity: int,
        name: str | None,
        addresses: tuple[str, ...],
        rights: int,
    ) -> None:
        super().__init__(capacity, name)
        self._buffer = None
        self._node = node
        self._home = home
        self._id = channel_id
        self._head = send_head(channel_id)
        self._addresses = addresses
        self._rights = rights
        self._offers: set[_CaseOffering] = set()
        self._link: Link | None = None
        self._introducers: dict[Link, int] = {}
        self._window: Window | None = None
        self._unanswered: dict[int, _Sending | _CaseOffering] = {}
        self._receivers: dict[_Receiving, None] = {}
        self._late_error: BaseException | None = None

    def __repr__(self) -> str:
        label = repr(self.name) if self.name else self._id.hex()[:8]
        where = self._link.name if self._link is not None else (self._addresses or ("another node",))[0]
        return f"<channel {label} at {where} {'closed' if self.closing else 'open'}>"

    def __del__(self) -> None:
        if self._introducers or self._link is not None:
            self._node.drop(self._id, self._introducers, self._link)

    def _check(self, right: int) -> None:
        """Raises NotAllowed when the reference is not good for that. (Its home would refuse it, too.)"""
        if not self._rights & right:
            raise NotAllowed(refusal(self, right))

    # -- the link --------------------------------------------------------------------------------------------

    def bind(self, link: Link) -> None:
        """Work over this link from now on."""
        self._link = link
        link.users.add(self)
        self._window = link.windows.enter(self._id, self.capacity)

    def _connected(self) -> Link:
        """The link to the home.

        Blocks to connect when the reference came from a third node. Raises PeerLost.
        """
        if self._link is None:
            link = self._node.link_to(self._home, self._addresses, repr(self), self._introducers)
            if self._link is None:  # else somebody else connected meanwhile
                link.send((wire.HOLD, self._id))
                self._introducers[link] = self._introducers.get(link, 0) + 1
                self.bind(link)
        assert self._link is not None
        return self._link

    def link_lost(self, link: Link) -> None:
        """Fail what waits for the home."""
        window = self._window
        assert window is not None
        if self.capacity and window.under_way and link.lost is not None and link.lost.outcome != "not taken":
            self._late_error = PeerLost(
                f"{link.lost}; of {window.under_way} messages sent ahead before it is not known whether they "
                "found room",
                peer=link.name,
            )
        unanswered, self._unanswered = self._unanswered, {}
        for seqno, wait in unanswered.items():
            wait.fail(link.loss(link.outcome_of(seqno)))
        window.fail(lambda: link.loss("not taken"))
        self._node.monitors.tell(self, str(link.lost))

    # -- sending ---------------------------------------------------------------------------------------------

    def send(self, value: Any) -> None:
        """Send a message. Blocks until it is taken (capacity 0), or while the window is used up."""
        window = self._window
        if (
            window is None
            or not window.credit
            or window.is_meeting
            or not self._rights & MAY_SEND
            or self.closing
            or self._late_error is not None
            or type(value) is bomb
        ):
            self._send(value)
            return
        window.credit -= 1
        link = self._link
        assert link is not None  # there is a window
        link.messages_sent += 1
        try:
            size = link.send_value(self._head, self._id, value)
        except BaseException:
            link.messages_sent -= 1
            window.give_back()
            raise
        if size > SMALL_BYTES:
            window.count(size)

    def _send(self, value: Any) -> None:
        self._check(MAY_SEND)
        link = self._connected()
        self._raise_late_error()
        if self.closing:
            raise ChannelClosed(self._closed_text("send to"))
        window = self._window
        assert window is not None
        if window.credit:
            window.credit -= 1
        else:
            window.wait_for_credit(f"room in {self!r}")
        self._send_on_credit(link, window, value)
        if window.is_meeting:
            self._wait_until_taken(link, link.messages_sent)

    def _send_on_credit(self, link: Link, window: Window, value: Any) -> None:
        """Let a message leave for which there is credit. Never blocks."""
        if type(value) is bomb:
            frame: wire.Frame = (wire.BOMB, self._id, error_of(value.value))
        else:
            frame = (SEND, self._id, value)
        try:
            size = link.send_message(frame)
        except BaseException:
            window.give_back()
            raise
        if size > SMALL_BYTES:
            window.count(size, link.messages_sent if window.is_meeting else None)

    def _wait_until_taken(self, link: Link, seqno: int) -> None:
        wait = self._unanswered[seqno] = _Sending(self, link, seqno)
        try:
            wait.park()
        except BaseException as error:
            if wait.verdict is None or isinstance(error, _NO_TIME_LEFT):
                raise
            outcome = wait.await_verdict()
            if outcome == "taken":  # what has happened counts; the interruption comes at the next wait
                me = getcurrent()
                me._scheduler.alarm(me, error)
                return
            error.outcome = outcome  # type: ignore[attr-defined]
            error.add_note(f"the message for {self!r}: {outcome}")
            raise
        finally:
            link.verdicts.pop(seqno, None)

    def _raise_late_error(self) -> None:
        if self._late_error is not None:
            error, self._late_error = self._late_error, None
            raise error

    def taken(self, seqno: int) -> None:
        """The home has given a message away (capacity 0)."""
        wait = self._unanswered.pop(seqno, None)
        if wait is not None:
            wait.wake()

    def rejected(self, seqno: int, error: BaseException) -> None:
        """A message failed."""
        if self.capacity:
            log.warning("a message sent ahead to %r failed, the next send raises it: %s", self, error)
            if self._late_error is None:
                self._late_error = error
            return
        wait = self._unanswered.pop(seqno, None)
        if wait is not None:
            wait.fail(error)

    def closed_at_home(self) -> None:
        """The channel was closed: who waits for room to send gives up."""
        self.closing = True
        if self._window is not None:
            self._window.fail(lambda: ChannelClosed(self._closed_text("send to")))
        for offering in list(self._offers):
            offering.fail(ChannelClosed(self._closed_text("send to")))
        self._node.monitors.tell(self, "it was closed")

    # -- receiving -------------------------------------------------------------------------------------------

    def receive(self) -> Any:
        self._check(wire.MAY_RECEIVE)
        link = self._connected()
        return _Receiving(self, link).park()

    def __next__(self) -> Any:
        try:
            return self.receive()
        except ChannelClosed as error:
            if error.channel is not self:
                raise  # sent as a message, or the failure of a tasklet that main has to hear of
            raise StopIteration from None

    def _receive_is_ready(self) -> bool:
        return False  # only the home knows; a select asks it by waiting

    def _send_is_ready(self) -> bool:
        # Whether somebody waits for it only the home knows; a select asks it by waiting.
        return self.closing or (
            self._window is not None and not self._window.is_meeting and self._window.credit > 0
        )

    def _enter_case(self, case: Any) -> None:
        self._check(wire.MAY_SEND if case.sending else wire.MAY_RECEIVE)
        link = self._connected()
        if not case.sending:
            case.queued = _CaseReceiving(self, link, case)
        elif self.capacity:
            case.queued = _CaseSending(self, link, case)
            case.queued.enter()
        else:
            case.queued = _CaseOffering(self, link, case)

    def _leave_case(self, case: Any) -> None:
        if case.queued:
            receiving, case.queued = case.queued, False
            receiving.cancel()

    # -- state -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the channel at its home, for everybody."""
        self._check(wire.MAY_SEND)
        if not self.closing:
            self._connected().notify((wire.CLOSE, self._id))
            self.closed_at_home()

    def open(self) -> None:
        raise NotImplementedError(f"{self!r} can be opened again only where it lives")

    @property
    def balance(self) -> int:
        starved = len(self._window.starved) if self._window is not None else 0
        return len(self._unanswered) + starved - len(self._receivers)

    @property
    def queue(self) -> tasklet | None:
        """The first tasklet of this node that waits: to send, or to receive when none does."""
        for wait in self._unanswered.values():
            return wait.tasklet
        for turn in self._window.starved if self._window is not None else ():
            one: tasklet | None = turn.tasklet
            return one
        return next(iter(self._receivers)).tasklet if self._receivers else None

    @property
    def closed(self) -> bool:
        return self.closing


# A wait that is interrupted tells the home. These are subclasses and not Waits with a `cancel`, which would be
# cycles, and so keep what was received until the next run of the collector.


class _Sending(Wait):
    """A tasklet here waits until its message is taken."""

    def __init__(self, where: RemoteChannel, link: Link, seqno: int) -> None:
        super().__init__(f"send to {where!r}")
        self._where = where
        self._link = link
        self._seqno = seqno
        self.verdict: Wait | None = None  # once it was interrupted

    def _interrupted(self) -> None:
        super()._interrupted()
        if self._where._unanswered.pop(self._seqno, None) is not None:
            self.verdict = self._link.verdicts[self._seqno] = Wait(
                f"the verdict on a message for {self._where!r}"
            )
            self._link.notify((wire.RETRACT, self._where._id, self._seqno))

    def await_verdict(self) -> str:
        """Whether the message, which is withdrawn, was taken before: "taken", "not taken", or "unknown" when the home
        does not say so within VERDICT_SECONDS. Blocks.
        """
        assert self.verdict is not None
        cancel = self._link.node.reactor.call_later(VERDICT_SECONDS, self.verdict.wake, "unknown")
        try:
            outcome: str = self.verdict.park()
        finally:
            cancel()
        return outcome


class _Receiving(Wait):
    """A tasklet here waits for a message from the home."""

    answered_by = wire.ITEM

    def __init__(self, where: RemoteChannel, link: Link) -> None:
        super().__init__(f"receive from {where!r}")
        self._where = where
        self._link = link
        self._op = link.ask(self, lambda op: (wire.RECEIVE, where._id, op))
        where._receivers[self] = None

    @property
    def channel(self) -> channel:
        return self._where

    def answer(self, value: Any) -> bool:
        self._where._receivers.pop(self, None)
        self.wake(value)
        return True

    def fail(self, error: BaseException) -> None:
        self.answer(bomb(error))

    def _interrupted(self) -> None:
        super()._interrupted()
        self._where._receivers.pop(self, None)
        _cancel(self._link, self._op)


class _CaseSending:
    """A case of a select waits for credit, to send ahead."""

    def __init__(self, where: RemoteChannel, link: Link, case: Any) -> None:
        assert where._window is not None
        self._where = where
        self._link = link
        self._window = where._window
        self._case = case
        self.ticket = next_ticket()

    def enter(self) -> None:
        """Wait in line, or happen at once: there may be credit, now that the channel is connected."""
        if self._window.credit:
            self._window.credit -= 1
            self.grant()
        else:
            self._window.starved.append(self)

    def grant(self) -> None:
        """There is credit: the case happens."""
        case = self._case
        case.queued = False
        try:
            self._where._send_on_credit(self._link, self._window, case.tempval)
        except Exception as error:  # noqa: BLE001  it is whose select it is
            _fail_case(case, error)
        else:
            case.take(None)

    def fail(self, error: BaseException) -> None:
        self._case.queued = False
        _fail_case(self._case, error)

    @property
    def tasklet(self) -> tasklet | None:
        one: tasklet | None = self._case.waiter
        return one

    def cancel(self) -> None:
        if self in self._window.starved:
            self._window.starved.remove(self)


class _CaseOffering:
    """A case of a select waits until somebody receives from a channel of capacity 0; then it sends, and has happened
    when that is taken.
    """

    answered_by = wire.WANTED

    def __init__(self, where: RemoteChannel, link: Link, case: Any) -> None:
        self._where = where
        self._link = link
        self._case = case
        self._seqno = 0  # of the message, when it has left
        self.ticket = next_ticket()
        where._offers.add(self)
        self._op = link.ask(self, lambda op: (wire.OFFER, where._id, op))

    @property
    def tasklet(self) -> tasklet | None:
        one: tasklet | None = self._case.waiter
        return one

    def answer(self, value: Any) -> bool:
        """Somebody waits: from now on it is this case and no other."""
        case, where = self._case, self._where
        where._offers.discard(self)
        if case.queued is not self:
            return False
        case.queued = False
        case.selection._withdraw()
        case.queued = self
        window = where._window
        assert window is not None
        if window.credit:
            window.credit -= 1
            self.grant()
        else:
            window.starved.append(self)
        return True

    def grant(self) -> None:
        window = self._where._window
        assert window is not None
        try:
            self._where._send_on_credit(self._link, window, self._case.tempval)
        except Exception as error:  # noqa: BLE001  it is whose select it is
            self.fail(error)
            return
        self._seqno = self._link.messages_sent
        self._where._unanswered[self._seqno] = self

    def wake(self) -> None:
        """The message was taken."""
        self._case.queued = False
        self._case.selection.waiting.wake((self._case.index, None))

    def fail(self, error: BaseException) -> None:
        self._where._offers.discard(self)
        if self._case.queued is self:
            self._case.queued = False
            _fail_case(self._case, error)

    def cancel(self) -> None:
        where, link = self._where, self._link
        where._offers.discard(self)
        _cancel(link, self._op)
        if where._window is not None and self in where._window.starved:
            where._window.starved.remove(self)
        if where._unanswered.pop(self._seqno, None) is not None:
            link.notify((wire.RETRACT, where._id, self._seqno))


def _fail_case(case: Any, error: BaseException) -> None:
    """A case that wants to send fails: so does its select."""
    case.selection._withdraw()
    case.selection.waiting.fail(error)


class _CaseReceiving:
    """A case of a select waits for a message from the home."""

    answered_by = wire.ITEM

    def __init__(self, where: RemoteChannel, link: Link, case: Any) -> None:
        self._case = case
        self._link = link
        self._op = link.ask(self, lambda op: (wire.RECEIVE, where._id, op))

    @property
    def channel(self) -> Any:
        return self._case._channel

    def answer(self, value: Any) -> bool:
        case = self._case
        if case.queued is not self:
            return False
        case.queued = False
        case.take(value)
        return True

    def fail(self, error: BaseException) -> None:
        self.answer(bomb(error))

    def cancel(self) -> None:
        _cancel(self._link, self._op)


def _cancel(link: Link, op: int) -> None:
    if link.operations.pop(op, None) is not None:
        link.notify((wire.CANCEL, op))


# -- what the home says --------------------------------------------------------------------------------------


def _find(link: Link, channel_id: bytes) -> RemoteChannel | None:
    """Our reference to a channel whose home is behind a link; None when it was dropped meanwhile."""
    reference = link.node.reference(channel_id)
    return reference if reference is not None and reference._link is link else None


def _on_ack(link: Link, frame: wire.Frame) -> None:
    _, channel_id, number = frame
    window = link.windows.get(channel_id)
    if window is None:
        return
    if window.is_meeting:
        window.settle(number)
        _decide(link, channel_id, number, "taken")
    else:
        window.acknowledge(number)
    if window.is_idle:
        link.windows.forget(channel_id, window)


def _on_dropped(link: Link, frame: wire.Frame) -> None:
    _, channel_id, seqno = frame
    window = link.windows.get(channel_id)
    if window is None:
        return
    window.settle(seqno)
    _decide(link, channel_id, seqno, "not taken")
    link.windows.forget(channel_id, window)


def _decide(link: Link, channel_id: bytes, seqno: int, outcome: str) -> None:
    """The home has decided about a message for a channel of capacity 0."""
    verdict = link.verdicts.pop(seqno, None)
    if verdict is not None:
        verdict.wake(outcome)
    elif outcome == "taken":
        reference = _find(link, channel_id)
        if reference is not None:
            reference.taken(seqno)


def _on_reject(link: Link, frame: wire.Frame) -> None:
    _, channel_id, seqno, error = frame
    window = link.windows.get(channel_id)
    if window is None:
        return
    window.settle(seqno)
    verdict = link.verdicts.pop(seqno, None)
    if verdict is not None:
        verdict.wake("not taken")
    reference = _find(link, channel_id)
    if reference is not None:
        reference.rejected(seqno, rebuild_exception(*error))
    link.windows.forget(channel_id, window)


def _on_closed(link: Link, frame: wire.Frame) -> None:
    reference = _find(link, frame[1])
    if reference is not None:
        reference.closed_at_home()


HANDLERS: dict[int, Callable[[Link, wire.Frame], None]] = {
    wire.ACK: _on_ack,
    wire.REJECT: _on_reject,
    wire.DROPPED: _on_dropped,
    wire.CLOSED: _on_closed,
}
