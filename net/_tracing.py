"""What `tasklets.trace` sees of messages that come from other nodes or go there, and traces of whole processes.

A message that crosses the network has the same key at both ends, and no byte of it travels: which session, which of its
two directions, and the number that the message (or the question that it answers) has there anyway. Other frames with
a number (SPAWN and STARTED, say) are noted too: they tell how the clocks of the two nodes stand to each other.

While something is recorded links call a watcher to send (net._link.watch_sending), and the class Node has other
handlers; otherwise this costs nothing. Not here: how traces are put together (tasklets.trace._merging).
"""

from __future__ import annotations

import os
import re
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from net import _wire as wire
from net._codec import Undecodable
from net._entries import RemoteSender
from net._failures import rebuild_exception
from net._link import watch_sending
from net.node import Node, existing_node
from tasklets._core import bomb, get_scheduler
from tasklets.trace import record
from tasklets.trace._watcher import borders

if TYPE_CHECKING:
    from net._link import Link
    from tasklets._core import Entry, tasklet
    from tasklets.trace import Recording
    from tasklets.trace._events import Message
    from tasklets.trace._watcher import Watcher

FOLDER_VARIABLE: Final = "TASKLETS_TRACE"  # the folder into which whoever starts a process wants its trace

# Which field of a frame is a number that no other frame of its type and direction has in a session. (That of an ACK is
# one with capacity 0 only.)
_NUMBERED: Final = {
    wire.RECEIVE: 2,
    wire.TAKEN: 1,
    wire.LOOKUP: 1,
    wire.FOUND: 1,
    wire.SPAWN: 1,
    wire.STARTED: 1,
    wire.EXITED: 1,
    wire.OFFER: 2,
    wire.WANTED: 1,
}


def _key(link: Link, ours: bool, kind: int, number: int) -> str:
    """The name of one crossing, the same at both ends. `ours`: it leaves here."""
    direction = ">" if ours == link.opens else "<"
    return f"{link.session.session_id.hex()}{direction}{wire.FRAMES[kind].name}{number}"


class Traffic:
    """The border of this process for one recording."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._in_line: dict[tuple[Link, int], Message] = {}  # of peers, waiting in channels here
        self._lent: dict[tuple[Link, int], Message] = {}  # on their way to a receiver elsewhere, by its op
        # Recordings may be nested, so what is found here is kept and called, and taken out of the middle at the end.
        _layers.append(self)
        if len(_layers) == 1:
            _install()

    def end(self) -> None:
        _layers.remove(self)
        if not _layers:
            _uninstall()
        node = existing_node()
        if node is not None:
            self._watcher.call_process(node.name)

    def message_of(self, entry: Entry) -> Message | None:
        if isinstance(entry, RemoteSender):
            return self._in_line.pop((entry.grant.link, entry.seqno), None)
        return None

    # -- going out -------------------------------------------------------------------------------------------

    def left(self, link: Link, frame: wire.Frame, at: float) -> None:
        """A frame was queued for the peer; `at` is the time before."""
        kind, watcher = frame[0], self._watcher
        if kind in (wire.SEND, wire.BOMB):
            reference = link.node.reference(frame[1])
            if reference is not None:
                value = frame[2] if kind == wire.SEND else bomb(rebuild_exception(*frame[2]))
                message = watcher.sends_away(get_scheduler().current, reference, value)
                watcher.crosses(_key(link, True, wire.SEND, link.messages_sent), message, leaves=True, at=at)
        elif kind == wire.ITEM:
            message_in_hand, watcher.in_hand = watcher.in_hand, None
            if message_in_hand is not None:
                self._lent[link, frame[1]] = message_in_hand
            watcher.crosses(_key(link, True, kind, frame[1]), message_in_hand, leaves=True, at=at)
        elif kind == wire.ACK:
            granted = link.grants.get(frame[1])
            if granted is not None and not granted.channel.capacity:
                watcher.crosses(_key(link, True, kind, frame[2]), None, leaves=True, at=at)
        elif kind in _NUMBERED:
            watcher.crosses(_key(link, True, kind, frame[_NUMBERED[kind]]), None, leaves=True, at=at)

    # -- coming in -------------------------------------------------------------------------------------------

    def arrives(self, link: Link, frame: wire.Frame) -> None:
        """A frame is about to be acted on."""
        kind, watcher = frame[0], self._watcher
        watcher.in_hand = None
        if kind == wire.ITEM:
            self._item_arrives(link, frame)
        elif kind in (wire.REFUSED, wire.CANCEL):
            self._comes_back(link, frame[1])
        elif kind == wire.ACK:
            window = link.windows.get(frame[1])
            if window is not None and window.is_meeting:
                watcher.crosses(_key(link, False, kind, frame[2]), None, leaves=False)
        else:
            watcher.crosses(_key(link, False, kind, frame[_NUMBERED[kind]]), None, leaves=False)
            if kind == wire.TAKEN:
                self._lent.pop((link, frame[1]), None)
            elif kind == wire.RECEIVE:
                granted = link.grants.get(frame[1])
                if granted is not None and granted.at_home and granted.rights & wire.MAY_RECEIVE:
                    watcher.in_hand = watcher.next_of(granted.channel)

    def message_arrives(self, link: Link, frame: wire.Frame, seqno: int) -> None:
        """A SEND or BOMB is about to be acted on in its turn."""
        watcher = self._watcher
        watcher.in_hand = None
        granted = link.grants.get(frame[1])
        if granted is None or not granted.takes or frame[2].__class__ is Undecodable:
            return  # it will be rejected
        where = granted.channel
        value = frame[2] if frame[0] == wire.SEND else bomb(rebuild_exception(*frame[2]))
        message = watcher.comes_from_away(where, value)
        watcher.crosses(_key(link, False, wire.SEND, seqno), message, leaves=False)
        if not watcher.arrives_in(where, message) and not where.closing:
            self._in_line[link, seqno] = message

    def _item_arrives(self, link: Link, frame: wire.Frame) -> None:
        watcher = self._watcher
        operation: Any = link.operations.get(frame[1])
        case = getattr(operation, "_case", None)  # of a select
        where = case._channel if case is not None else getattr(operation, "_where", None)
        receiver: tasklet | None = case.waiter if case is not None else getattr(operation, "tasklet", None)
        message = None
        if where is not None and receiver is not None and frame[2].__class__ is not Undecodable:
            message = watcher.comes_from_away(where, frame[2])
            watcher.arrives_for(receiver, message)
        watcher.crosses(_key(link, False, wire.ITEM, frame[1]), message, leaves=False)

    def _comes_back(self, link: Link, op: int) -> None:
        message = self._lent.pop((link, op), None)
        loan = link.loans.get(op)
        if message is not None and loan is not None:
            if loan.channel._balance < 0:
                self._watcher.in_hand = message  # the next one gets it at once
            else:
                self._watcher.comes_back(loan.channel, message)


# -- how frames come to be seen --------------------------------------------------------------------------------------

_layers: list[Traffic] = []  # one for each recording that goes on
_original: dict[str, Any] = {}
_MESSAGES: Final = (wire.SEND, wire.BOMB)
_OTHERS: Final = (wire.ITEM, wire.REFUSED, wire.CANCEL, wire.ACK, *_NUMBERED)


def _install() -> None:
    take_message, handlers = Node.take_message, Node.handlers
    _original.update(take_message=take_message, handlers=handlers)

    def watched_send(link: Link, frame: wire.Frame) -> int:
        before = [each._watcher.now() for each in _layers]
        size = link.send_unwatched(frame)
        for each, at in zip(_layers, before, strict=True):
            each.left(link, frame, at)
        return size

    def watched_take_message(link: Link, frame: wire.Frame, seqno: int, size: int) -> None:
        for each in _layers:
            each.message_arrives(link, frame, seqno)
        take_message(link, frame, seqno, size)

    def watched_message(link: Link, frame: wire.Frame) -> None:
        if frame[1] not in link.incoming.in_line:  # else its turn comes, in take_message
            for each in _layers:
                each.message_arrives(link, frame, link.messages_received + 1)
        handlers[frame[0]](link, frame)

    def watched(link: Link, frame: wire.Frame) -> None:
        for each in _layers:
            each.arrives(link, frame)
        handlers[frame[0]](link, frame)

    watch_sending(watched_send)
    Node.take_message = staticmethod(watched_take_message)
    Node.handlers = {
        **handlers,
        **dict.fromkeys(_MESSAGES, watched_message),
        **dict.fromkeys(_OTHERS, watched),
    }


def _uninstall() -> None:
    watch_sending(None)
    Node.take_message = staticmethod(_original["take_message"])
    Node.handlers = _original["handlers"]


borders.append(Traffic)


# -- traces of whole processes ---------------------------------------------------------------------------------------


class ProcessTrace:
    """Records this process, and writes `FOLDER/NAME-PID.json` at the end."""

    def __init__(self, folder: Path, node: Node) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # there are pieces of messages in it
        stem = re.sub(r"[^\w.-]+", "-", node.name).removesuffix(f"-{os.getpid()}") or "node"
        self.path = folder / f"{stem}-{os.getpid()}.json"
        self._node = node
        self._block = ExitStack()
        self._recording: Recording = self._block.enter_context(record())
        self._once = threading.Lock()  # the end may come from two threads
        self._over = False

    def end(self) -> None:
        """Write it. May be called from any thread, and again."""
        with self._once:
            if self._over:
                return
            self._over = True
            self._block.close()
            self._recording.node = self._node.name
            self._recording.save(self.path)
            _traced.discard(os.getpid())


_traced: set[int] = set()  # this process while it has a ProcessTrace; a forked one has none


def trace_process(folder: str | Path | None, node: Node) -> ProcessTrace | None:
    """Record this process from now on, if a folder is named here or by the environment, and nobody does so already.

    Raises OSError when the folder cannot be made.
    """
    folder = folder or os.environ.get(FOLDER_VARIABLE)
    if not folder or os.getpid() in _traced:
        return None
    begun = ProcessTrace(Path(folder), node)
    _traced.add(os.getpid())
    return begun
