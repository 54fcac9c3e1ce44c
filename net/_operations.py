"""The frames that answer questions put to a peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from net import _wire as wire
from net._codec import Undecodable
from net._failures import rebuild_exception
from net.errors import RemoteProtocolError
from tasklets import ChannelClosed, NotSendable, channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from net._link import Link, Operation


def _on_item(link: Link, frame: wire.Frame) -> None:
    _, op, value = frame
    operation = _pop(link, op, wire.ITEM)
    if operation is None:
        link.notify((wire.REFUSED, op))
    elif value.__class__ is Undecodable:
        link.notify((wire.TAKEN, op))
        operation.fail(NotSendable(f"a message from {link.name} cannot be read: {value.reason}"))
    elif operation.answer(value):
        link.notify((wire.TAKEN, op))
    else:
        link.notify((wire.REFUSED, op))


def _on_raise(link: Link, frame: wire.Frame) -> None:
    operation = link.operations.pop(frame[1], None)
    if operation is not None:
        error = rebuild_exception(*frame[2])
        if isinstance(error, ChannelClosed) and frame[2][3:] == (True,):
            error.channel = getattr(operation, "channel", None)  # what it wanted to receive from
        operation.fail(error)


def _on_found(link: Link, frame: wire.Frame) -> None:
    _, op, value = frame
    if not isinstance(value, channel):
        raise RemoteProtocolError(f"FOUND {op} holds no channel but {wire.shorten(value)}")
    operation = _pop(link, op, wire.FOUND)
    if operation is not None:
        operation.answer(value)


def _on_wanted(link: Link, frame: wire.Frame) -> None:
    operation = _pop(link, frame[1], wire.WANTED)
    if operation is not None:
        operation.answer(None)


def _on_started(link: Link, frame: wire.Frame) -> None:
    pass  # nobody waits for it: EXITED or RAISE tell how it ended


def _on_exited(link: Link, frame: wire.Frame) -> None:
    _, op, error = frame
    operation = _pop(link, op, wire.EXITED)
    if operation is not None and error is None:
        operation.answer(None)
    elif operation is not None:
        operation.fail(rebuild_exception(*error))


def _pop(link: Link, op: int, answered_by: int) -> Operation | None:
    """Who waits for this answer; None when nobody does any more. Raises RemoteProtocolError."""
    operation = link.operations.get(op)
    if operation is not None and operation.answered_by != answered_by:
        raise RemoteProtocolError(f"op {op} is not answered by {wire.FRAMES[answered_by].name}")
    link.operations.pop(op, None)
    return operation


HANDLERS: dict[int, Callable[[Link, wire.Frame], None]] = {
    wire.ITEM: _on_item,
    wire.RAISE: _on_raise,
    wire.FOUND: _on_found,
    wire.STARTED: _on_started,
    wire.WANTED: _on_wanted,
    wire.EXITED: _on_exited,
}
