"""What is done about the parts of frames that are too large to travel as one, and about those frames in their turn."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from net import _wire as wire
from net._bulk import subject_of
from net._exports import large_message
from net.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from net._link import Link


def _on_large(link: Link, frame: wire.Frame) -> None:
    _, stream, size, subject = frame
    link.incoming.begin(stream, size, subject)
    if subject.__class__ is bytes:  # a message: it has its number from here
        link.messages_received += 1
        begun = link.incoming.find(stream)
        assert begun is not None
        begun.seqno = link.messages_received


def _on_part(link: Link, frame: wire.Frame) -> None:
    _, stream, data = frame
    begun = link.incoming.find(stream)
    whole: Any = link.incoming.part(stream, data)
    room = link.incoming.take_room()
    if room:
        link.notify((wire.WINDOW, room))
    if whole is None:
        return
    assert begun is not None
    link.node.tidy_later()
    if whole.__class__ is tuple:
        frame = whole
    else:
        frames = link.node.decode_large(link, whole)
        if len(frames) != 1:
            raise RemoteProtocolError(f"LARGE {stream} holds {len(frames)} frames")
        frame = frames[0]
    if frame[0] not in _MAY_BE_LARGE or subject_of(frame) != begun.subject:
        raise RemoteProtocolError(f"LARGE {stream} is not the frame that was announced")
    act: Callable[[], object]
    if begun.subject.__class__ is bytes:
        act = large_message(link, frame, begun.seqno, begun.size, link.incoming.is_next(begun))
    else:
        act = partial(link.act, frame, begun.size)
    link.incoming.complete(begun, act)


def _on_window(link: Link, frame: wire.Frame) -> None:
    link.granted(frame[1])


_MAY_BE_LARGE = frozenset(
    {wire.SEND, wire.BOMB, wire.REJECT, wire.ITEM, wire.RAISE, wire.FOUND, wire.SPAWN, wire.EXITED}
)

HANDLERS: dict[int, Callable[[Link, wire.Frame], None]] = {
    wire.LARGE: _on_large,
    wire.PART: _on_part,
    wire.WINDOW: _on_window,
}
