"""A session with a peer: what both sides know of each other's channels, and the writer that coalesces.

What queues up in one turn of the event loop leaves in one send. Within a turn a batch leaves early when it
reaches a threshold that doubles from FLUSH_FIRST to FLUSH_LAST, so that the two processes overlap: one end
packs while the other unpacks. The reader never waits for the writer: it only queues answers.

A link outlives its connection. After a cut the side that opened it connects again, and both go on where they were
(net._session); what is sent meanwhile queues up. It is *lost* when the peer has ended, has become another one, or stays
away beyond the session's patience.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol as Interface
from weakref import WeakSet

from net import _wire as wire
from net._apart import APART_BYTES, APART_KINDS, Apart
from net._bulk import Incoming, Outgoing, subject_of
from net._failures import error_of
from net._grants import grant
from net._handshake import AuthenticationAsked
from net._protocol import Protocol
from net._pulse import Line, Pulse, pace, thread as pulse_thread
from net._recovery import MAX_PATIENCE, PEER_PATIENCE, Recovery
from net._session import ACKNOWLEDGE_BYTES, REPLAY_BYTES, Pieces, Session, size_of
from net._window import Windows
from net._wire import MAX_FRAME_BYTES, SEND
from net.errors import NetError, PeerLost, PeerUnreachable, RemoteProtocolError
from tasklets import NotSendable, sleep, tasklet, timeout
from tasklets._core import Wait

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from net._entries import RemoteReceiver, RemoteSender, Sender
    from net._grants import Grant
    from net._negotiation import Identity
    from net._protocol import Hello
    from net._references import RemoteChannel
    from net._transport import Lingering, Transport
    from net.addresses import Address
    from net.node import Node
    from net.security import Security

log = logging.getLogger("net")

# Bytes queued in one turn that leave before its end; measured: 512 doubling to some KiB serves both the lone request
# and the flood. A batch that is not larger than 4 KiB is decoded without a look at its lengths first (net._codec).
FLUSH_FIRST = 512
FLUSH_LAST = 4000
# One batch, or one frame that is larger: the peer reads it while the next is made. Measured: messages of 64 KiB go
# through twice as fast as in batches of all that waits.
BATCH_BYTES = 64 * 1024
# Answers that the peer asked for and does not read. Whoever asks for more without reading is no friend.
MAX_UNREAD_BYTES = 256 * 1024 * 1024
# What leaves in one call of the system, if so much waits. So the last bytes of a batch for which the kernel had no room
# go with what follows them, and do not wake the peer by themselves: between two ends on one core 64 KiB go 1.06 times
# as fast.
GATHER_BYTES = 256 * 1024
# Large messages of one turn, behind the first, leave together when they are so many bytes: two of 64 KiB. Each call
# wakes the peer, which costs as much as to copy one of them; with more in a call both ends wait for each other.
SEVERAL_BYTES = 96 * 1024
# So many bytes in one read are a stream, of which more is under way.
STREAM_BYTES = 32 * 1024
# Of a stream in one round of the event loop: then others have their turn, after half a millisecond or so.
MOST_READS = 16
# For how long a node that need not share its processor looks whether more of a stream has come, before it sleeps: two
# messages of 64 KiB take 20 us. A sender that has to wake the peer for each is held up for longer than by the message.
LOOK_SECONDS = 30e-6
# For one attempt to connect again to be answered: on a line whose other end has vanished nobody says so.
ATTEMPT_SECONDS = 3.0

_watcher: Callable[[Link, wire.Frame], int] | None = None


def watch_sending(watcher: Callable[[Link, wire.Frame], int] | None) -> None:
    """Have this called instead of `Link.send` and `send_value` of all links from now on; it calls `send_unwatched`.

    Nobody can replace a method of a compiled class, hence this. None ends it.
    """
    global _watcher  # of C where this is compiled, so that looking whether there is one costs nothing
    _watcher = watcher


def sending_watcher() -> Callable[[Link, wire.Frame], int] | None:
    """Who is called instead of `Link.send`."""
    return _watcher


class Operation(Interface):
    """A question put to the peer, until it is answered."""

    answered_by: int  # the type of frame that may hold the answer (RAISE may always come instead)

    def answer(self, value: Any) -> bool:
        """Take the answer; False when nobody wants it any more."""

    def fail(self, error: BaseException) -> None:
        """Take the news that there will be no answer."""


class Link:
    """One end of a session. Made by a Node; `opened` is over when the peer has introduced itself."""

    def __init__(
        self, node: Node, where: str, *, opens: bool, address: Address | None, patience: float
    ) -> None:
        self.node = node
        self.where = where  # how to name the other end before it has said its name
        self.opens = opens  # we introduce ourselves first, and connect again after a cut
        self.address = address  # where to connect again; None: nowhere
        self.patience = patience  # asked for; when it is open, agreed upon
        self.identity: Identity | None = (
            None  # who has proved to be at the other end, where that is asked for
        )
        self.security: Security | None = None  # by what both ends prove who they are, when we connect again
        self.asked_for: AuthenticationAsked | None = None  # why the peer did not let us in
        self.peer: Hello | None = None  # who the other end is; None until it has introduced itself
        self.lost: PeerLost | None = None
        self.refused = False  # the peer broke the protocol
        self.opened = Wait(f"{where} to introduce itself")
        self.operations: dict[int, Operation] = {}  # started here, by op
        self.loans: dict[int, Sender] = {}  # ITEMs on their way, by the peer's op
        self.grants: dict[bytes, Grant] = {}  # what the peer may use here, by channel id
        self.requests: dict[int, RemoteReceiver] = {}  # of the peer, in line at channels here, by its op
        # The peer's messages for channels of capacity 0, in line or lent, by their number.
        self.unsettled: dict[int, RemoteSender] = {}
        self.verdicts: dict[int, Wait] = {}  # on messages that were withdrawn here, by their number
        self.messages_sent = self.messages_received = 0  # SENDs and BOMBs: the number of the last one
        self.frame_bytes = 0  # size of the frame that is being acted on, if it is not small
        self.windows = Windows()  # how far we are ahead of the peer's channels
        self.users: WeakSet[RemoteChannel] = WeakSet()  # references that work over this link
        self.spawned: dict[int, tasklet] = {}  # running here for the peer, by its op
        self.incoming = Incoming(node.limits, node.spare)
        self._outgoing = Outgoing()
        self._next_op = itertools.count(1)
        self._end_callbacks: list[Callable[[], object]] = []
        self._roomy: list[Grant] = []  # whose room is to be told to the peer
        self._outbox: list[Any] = []  # of bytes, and of Apart
        self._outbox_bytes = 0
        self._threshold = FLUSH_FIRST
        self._aparts = 0  # how many frames in the outbox have their large bytes apart
        self._large_left = False  # in this turn, one of those, or it was to leave
        self._unsent: list[bytes | memoryview] | None = None  # of batches that the transport took in part
        self._writing_failed = False
        self._writable = False  # there is a connection, it is open, and takes more
        self._end_of_turn_armed = False
        self._messages_left = 0  # the number of the last message that is in a batch
        self._codec = node.codec
        self.session = Session(node.draw_id(), self._codec)
        self._recovery = Recovery(patience, node.random)
        self._reconnecting: Wait | None = None
        self._line: Line | None = None  # of the pulse
        self._cancel_patience: Callable[[], None] | None = None  # the timer of what is waited for now
        self._transport: Transport | None = None
        self._protocol: Protocol | None = None
        self._call_soon = node.call_soon

    def __repr__(self) -> str:
        return f"<Link to {self.name} {self.state}>"

    @property
    def state(self) -> str:
        """In a word: "opening", "open", "stalled" (its event loop has no turns), "cut" or "lost"."""
        if self.lost is not None:
            return "lost"
        if self.peer is None:
            return "opening"
        if self._recovery.deadline is not None:
            return "cut"
        return "stalled" if self.stalled_for > self.node.settings.stalled_after else "open"

    @property
    def name(self) -> str:
        """How to name the peer to a person."""
        return f"{self.peer.name} at {self.where}" if self.peer is not None and self.peer.name else self.where

    @property
    def unread_bytes(self) -> int:
        """What waits here to be sent to the peer."""
        return self._outbox_bytes + self._outgoing.pending_bytes

    @property
    def has_too_much_unread(self) -> bool:
        """True when the peer asks for more than it reads, beyond all patience."""
        return self.unread_bytes > MAX_UNREAD_BYTES

    @property
    def stalled_for(self) -> float:
        """Seconds that the peer's event loop had had no turn when its pulse came last."""
        return self._line.pulse.stalled_for if self._line is not None else 0.0

    @property
    def cuts(self) -> int:
        """How many connections of it were lost."""
        return self._recovery.cuts

    # -- sending ---------------------------------------------------------------------------------------------

    def send(self, frame: wire.Frame) -> int:
        """Queue a frame; returns its size in bytes. Never blocks.

        Raises PeerLost, and NotSendable when a value in it cannot travel.
        """
        return self.send_unwatched(frame) if _watcher is None else _watcher(self, frame)

    def send_unwatched(self, frame: wire.Frame) -> int:
        """The same, and nobody hears of it."""
        if self.lost is not None:
            raise self.loss("not taken")
        last = frame[-1]
        if type(last) is bytes and len(last) >= APART_BYTES and frame[0] in APART_KINDS:
            return self._send_apart(frame[0], subject_of(frame), Apart.of(frame))
        return self._queue(self._codec.encode(frame), frame)

    def send_value(self, head: bytes, channel_id: bytes, value: Any) -> int:
        """Queue a message: (SEND, channel_id, value), of which `head` are the bytes before the value."""
        if _watcher is not None:
            return _watcher(self, (SEND, channel_id, value))
        if self.lost is not None:
            raise self.loss("not taken")
        if type(value) is bytes and len(value) >= APART_BYTES:
            return self._send_apart(SEND, channel_id, Apart.behind(head, value))
        packed = self._codec.encode_send(head, value)
        return self._queue(packed, (SEND, channel_id, value) if len(packed) > MAX_FRAME_BYTES else None)

    def _queue(self, packed: bytes, frame: wire.Frame | None) -> int:
        """Queue the bytes of a frame, which itself is needed only when it is large."""
        exported = self._codec.exported
        if exported:
            for one in exported:
                grant(one, self)
        size = len(packed)
        if size > MAX_FRAME_BYTES:
            assert frame is not None
            self.session.check_size(frame[0], size)
            packed = self._codec.encode(self._outgoing.add(packed, subject_of(frame)))
        self._outbox.append(packed)
        self._outbox_bytes += len(packed)
        if self._outbox_bytes >= self._threshold:
            self._threshold = min(self._threshold * 2, FLUSH_LAST)
            self._flush()
        if not self._end_of_turn_armed:
            self._arm_end_of_turn()
        if exported:
            for one in exported:
                if one.closing and one._observer is not None:  # it was closed before it was given away
                    self.notify((wire.CLOSED, self.node.id_of(one)))
        return size

    def _send_apart(self, kind: int, subject: bytes | int | None, apart: Apart) -> int:
        """Queue a frame whose large bytes are not copied."""
        size = apart.size
        if size > MAX_FRAME_BYTES:
            self.session.check_size(kind, size)
            announced = self._codec.encode(self._outgoing.add(apart, subject))
            self._outbox.append(announced)
            self._outbox_bytes += len(announced)
        else:
            is_first, self._large_left = not self._large_left, True
            if is_first and not self._outbox and self._writable and self.session.has_room:
                self._messages_left = self.messages_sent
                self._write_pieces(self.session.envelope_apart(apart))
            else:
                self._outbox.append(apart)
                self._outbox_bytes += size
                self._aparts += 1
                if is_first or self._outbox_bytes >= SEVERAL_BYTES:
                    self._flush()
        self._arm_end_of_turn()
        return size

    def send_message(self, frame: wire.Frame) -> int:
        """Queue a SEND or BOMB like `send`. Its number is `messages_sent` then."""
        self.messages_sent += 1
        try:
            return self.send(frame)
        except BaseException:
            self.messages_sent -= 1
            raise

    def notify(self, frame: wire.Frame) -> None:
        """Queue a frame that carries no value of a program's; a lost link does not matter."""
        if self.lost is None:
            self.send(frame)
            if self._outbox_bytes > MAX_UNREAD_BYTES:
                self._call_soon(self.lose, f"it does not read {self._outbox_bytes} bytes of answers")

    def tell(self, frame: wire.Frame, error: BaseException) -> None:
        """Queue a frame that lacks its last field, what failed; a lost link does not matter."""
        told = error_of(error)
        try:
            self.notify((*frame, told))
        except NotSendable:  # the arguments of the exception are too large
            self.notify((*frame, told[:3]))

    def ask(self, operation: Operation, build: Callable[[int], wire.Frame]) -> int:
        """Send a frame with a fresh op number, and register who hears the answer. Returns the number."""
        op = next(self._next_op)
        self.send(build(op))
        self.operations[op] = operation
        return op

    def granted(self, room: int) -> None:
        """The peer takes so many more bytes of large frames."""
        self._outgoing.granted(room)

    def tell_room(self, found: Grant) -> None:
        """Tell the peer, with the next batch, what room its messages found in a channel."""
        self._roomy.append(found)
        self._arm_end_of_turn()

    def _send_room(self) -> None:
        roomy, self._roomy = self._roomy, []
        for found in roomy:
            self.notify((wire.ACK, found.channel_id, found.take_room()))

    def _arm_end_of_turn(self) -> None:
        if not self._end_of_turn_armed:
            self._end_of_turn_armed = True
            self._call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._threshold = FLUSH_FIRST
        self._large_left = False
        try:
            if self._roomy:
                self._send_room()
            if self._outbox or self._outgoing.pending_bytes:
                self._flush()
            session = self.session
            if session.owed_bytes >= ACKNOWLEDGE_BYTES and self._writable:
                self._write(session.acknowledgement())
        finally:
            self._end_of_turn_armed = False  # not before: what is said here leaves here

    def _has_batch(self) -> bool:
        """True when something is queued that may leave."""
        outgoing = self._outgoing
        return (
            bool(self._outbox) or (outgoing.pending_bytes > 0 and outgoing.ready)
        ) and self.session.replay_bytes < REPLAY_BYTES

    def _flush(self) -> None:
        while self._writable and self._has_batch():
            outbox = self._outbox
            if outbox and self._outbox_bytes <= BATCH_BYTES and not self._aparts:  # nearly always
                self._outbox, self._outbox_bytes = [], 0
                self._messages_left = self.messages_sent
                self._write(self.session.envelope(outbox))
            else:
                self._write_pieces(self._gather([]))

    def _gather(self, pieces: list[bytes | memoryview]) -> list[bytes | memoryview]:
        """Add the next batches to what is to be written in one call."""
        size = bytes_of(pieces)
        while size < GATHER_BYTES and self._has_batch():
            batch = self._next_batch()
            if isinstance(batch, tuple):
                pieces += batch
            else:
                pieces.append(batch)
            size += size_of(batch)
        return pieces

    def _next_batch(self) -> bytes | Pieces:
        """The next batch to leave: as many frames of the outbox as should leave together, one whose large bytes are
        apart, or, when the outbox is empty, a part of a large frame.
        """
        outbox = self._outbox
        self._messages_left = self.messages_sent
        if not outbox:  # what announces the large frames has left, then
            return self.session.envelope_apart(Apart.of(self._outgoing.next_part()))
        first = outbox[0]
        if type(first) is Apart:
            del outbox[0]
            self._outbox_bytes -= len(first)
            self._aparts -= 1
            return self.session.envelope_apart(first)
        size = count = 0
        for packed in outbox:
            if type(packed) is Apart or (count and size + len(packed) > BATCH_BYTES):
                break
            size += len(packed)
            count += 1
        batch, self._outbox = outbox[:count], outbox[count:]
        self._outbox_bytes -= size
        return self.session.envelope(batch)

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        try:
            sent = self._transport.send(data)
        except OSError as error:
            sent = self._not_written(error)
        if 0 <= sent < len(data):
            self._wait_writable([data], sent)

    def _write_pieces(self, pieces: Sequence[bytes | memoryview]) -> None:
        """The same for bytes in several pieces."""
        assert self._transport is not None
        try:
            sent = self._transport.send_pieces(pieces)
        except OSError as error:
            sent = self._not_written(error)
        if 0 <= sent < bytes_of(pieces):
            self._wait_writable(pieces, sent)

    def _not_written(self, error: OSError) -> int:
        """Return how many bytes were sent: none, or -1 when none ever will be."""
        if isinstance(error, BlockingIOError):
            return 0
        # Not under the feet of whoever is sending: it is about to register who hears the answer.
        self._writing_failed = True
        self._writable = False
        self._call_soon(self._on_writing_failed, f"writing failed: {error.strerror or error}")
        return -1

    def _wait_writable(self, pieces: Sequence[bytes | memoryview], sent: int) -> None:
        """The rest waits for room."""
        assert self._transport is not None
        index = 0
        while sent >= len(pieces[index]):
            sent -= len(pieces[index])
            index += 1
        self._unsent = [memoryview(pieces[index])[sent:], *pieces[index + 1 :]]
        self._writable = False
        self._transport.wait_writable()

    def _on_writing_failed(self, reason: str) -> None:
        if not self._writing_failed:
            return  # another connection has taken its place
        # What arrived before may hold answers, and say why the peer ended.
        while self._transport is not None and self._writing_failed and self._read():
            pass
        if self._writing_failed:
            self._cut(reason)

    def _on_writable(self) -> None:
        rest, self._unsent = self._unsent, None
        self._writable = self.peer is not None and self._recovery.deadline is None
        if rest is not None:
            self._write_pieces(self._gather(rest) if self._writable else rest)
        self._flush()
        if self._writable and self.session.owes:
            self._write(self.session.acknowledgement())

    # -- receiving -------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        """Act on what has arrived; and while it is a stream of large messages, on what arrives meanwhile."""
        reads, until = MOST_READS, 0.0
        while self._transport is not None:
            size = self._serve()
            if size >= STREAM_BYTES:
                reads -= 1
                until = monotonic() + self.node.look_seconds
            elif size:  # what was under way is here
                return
            if not reads or monotonic() >= until:
                return

    def _serve(self) -> int:
        """Act on what has arrived, let those run who were woken by it, and send what they have to say. Returns how many
        bytes have arrived.

        That is one round of the loop instead of three: nobody need ask for the callbacks whose work is done here.
        """
        reactor = self.node.reactor
        reactor._armed = self._end_of_turn_armed = True
        size = 0
        try:
            size = self._read()
            reactor._turn()
            self._end_turn()
        except BaseException as error:  # noqa: BLE001  Ctrl-C: if we raised it, gevent would not call us again
            reactor._armed = self._end_of_turn_armed = False
            reactor.arm()
            self._arm_end_of_turn()
            self._call_soon(_raise, error)
        return size

    def _on_event(self) -> None:
        """The same where there is no event loop to be spared."""
        self._read()
        self._arm_end_of_turn()

    def _read(self) -> int:
        """Act on what has arrived; returns how many bytes that was."""
        node = self.node
        handlers, received = node.handlers, node.received
        transport, protocol = self._transport, self._protocol
        assert transport is not None
        assert protocol is not None
        receive_pieces = transport.receive_pieces
        rooms = None if receive_pieces is None else protocol.rooms()
        try:
            size = transport.receive_into(received) if rooms is None else receive_pieces(rooms)[0]  # type: ignore[misc]
        except BlockingIOError:
            return 0
        except OSError as error:
            self._cut(f"the connection broke: {error.strerror or error}")
            return 0
        if not size:
            self._cut("its connection ended")
            return 0
        try:
            node.decoding = self
            frames = protocol.receive(received[:size]) if rooms is None else protocol.landed(size)
            sizes = protocol.sizes
            for index, frame in enumerate(frames):
                if self.lost is None:
                    if sizes:
                        self.frame_bytes = sizes.get(index, 0)
                    handlers[frame[0]](self, frame)
        except AuthenticationAsked as error:
            self.asked_for = error
            self.lose(str(error))
        except RemoteProtocolError as error:
            log.warning("%s broke the protocol, its connection is closed: %s", self.name, error)
            self.refused = True
            self.lose(f"it broke the protocol: {error}")
        except Exception:  # a frame half acted on would leave somebody waiting for ever
            log.exception("%s: a frame led to a fault here, its connection is closed", self.name)
            self.lose("a frame of it led to a fault here")
        self.frame_bytes = 0
        return size

    def act(self, frame: wire.Frame, size: int) -> None:
        """Act on a frame of which it matters how large it is."""
        self.frame_bytes = size
        try:
            self.node.handlers[frame[0]](self, frame)
        finally:
            self.frame_bytes = 0

    # -- connections -----------------------------------------------------------------------------------------

    def attach(self, transport: Transport) -> None:
        """Go on over this connection."""
        assert self._transport is None
        hello = self._hello()
        self._use(
            transport, Protocol(hello, self._codec, self.session if self.opens else None, self.node.runway)
        )
        assert self._protocol is not None
        # Who is connected to says at once what it speaks: one that speaks otherwise, or wants a secret, sees it.
        self._write(self._protocol.opening() if self.opens else self._protocol.preface())

    def _end_patience(self) -> None:
        cancel, self._cancel_patience = self._cancel_patience, None
        if cancel is not None:
            cancel()

    def _use(self, transport: Transport, protocol: Protocol) -> None:
        self._transport, self._protocol = transport, protocol
        self._unsent = None
        self._writing_failed = False
        transport.start(self._on_event if self.node.network else self._on_readable, self._on_writable)

    def _hello(self) -> Hello:
        return replace(
            self.node.hello,
            session=self.session.session_id,
            resumes=self.peer is not None,
            received=self.session.received,
            patience_ms=int(self.patience * 1000),
        )

    def greet(self, peer: Hello) -> None:
        """The peer has introduced itself. Raises RemoteProtocolError."""
        if not self.opens:
            self.node.welcome(self, peer)
        elif self.peer is None:
            if peer.session != self.session.session_id:
                raise RemoteProtocolError("it answered with another session")
            # Where nobody can connect again there is nothing to be patient for, whatever the peer says.
            self._open(peer, min(peer.patience_ms / 1000, MAX_PATIENCE) if self.address is not None else 0.0)
        elif peer.node_id != self.peer.node_id:
            self.lose("another process is there now; was it started again?")
        elif peer.session != self.session.session_id:
            self.lose("it has given up the session")
        else:
            self._resume(peer)

    def enter(self, peer: Hello, patience: float) -> None:
        """Become the session that the peer opens."""
        assert peer.session is not None
        assert self._protocol is not None
        self.session.session_id = peer.session
        if peer.patience_ms:  # who asks for none cannot come back
            self.patience = max(min(peer.patience_ms / 1000, PEER_PATIENCE), patience)
        else:
            self.patience = 0.0
        self._write(self._protocol.join(self.session, self._hello()))
        self._open(peer, self.patience)

    def _open(self, peer: Hello, patience: float) -> None:
        self._end_patience()
        self.peer = peer
        self.patience = self._recovery.patience = patience
        self._outgoing.meet(peer.limits)
        self._writable = self._unsent is None and not self._writing_failed
        self.node.link_opened(self)
        self._flush()

    def take_over(self, fresh: Link, peer: Hello) -> None:
        """The peer has connected again, and `fresh` is what accepted it. Raises RemoteProtocolError."""
        self._drop_transport()
        transport, protocol = fresh.give_up_transport()
        self._use(transport, protocol)
        self._write(protocol.join(self.session, self._hello()))
        try:
            self._resume(peer)
        except RemoteProtocolError as error:
            self.lose(f"it broke the protocol: {error}")
            raise

    def give_up_transport(self) -> tuple[Transport, Protocol]:
        """Let another one have the connection; this link never was."""
        transport, protocol = self._transport, self._protocol
        assert transport is not None
        assert protocol is not None
        self._transport = None
        self.lose("it was a connection for another session")
        return transport, protocol

    def refuse(self, reason: str) -> None:
        """There is no such session: say so, and end the connection."""
        assert self._protocol is not None
        self._write(self._protocol.join(self.session, replace(self._hello(), session=None)))
        self.lose(reason)

    def _resume(self, peer: Hello) -> None:
        batches = self.session.resume(peer.received)
        self._recovery.mended()
        self._end_patience()
        log.info("%s: connected again, %d batches are sent again", self.name, len(batches))
        missing = b"".join(batches)
        self._writable = self._unsent is None and not self._writing_failed
        if self._unsent is not None:  # of our HELLO
            self._unsent.append(missing)
        elif missing and self._writable:
            self._write(missing)
        if self._reconnecting is not None:
            self._reconnecting.wake()
        self.node.plan_pulse(self)
        self._arm_end_of_turn()

    def _drop_transport(self) -> None:
        transport, self._transport = self._transport, None
        self._protocol = None
        self._writable = False
        self._unsent = None
        self._writing_failed = False
        if transport is not None:
            transport.close()

    # -- the pulse -------------------------------------------------------------------------------------------

    def beat_over(self, sock: socket.socket) -> None:
        """Let the pulse of this session beat over a connection from now on."""
        self._end_pulse()
        assert self.peer is not None
        settings = self.node.settings
        pulse = Pulse(pace(settings.heartbeat, self.peer.silence_ms), settings.silence, monotonic())
        self._line = Line(sock, pulse, self.node.reactor.call_from_elsewhere, self._on_pulse_end)
        pulse_thread.add(self._line)

    def _on_pulse_end(self, line: Line, silent: bool) -> None:
        if self._line is not line:
            return
        self._line = None
        if silent:  # the peer's process is stopped, or the line is dead
            self.cut(f"no sign of life for {line.pulse.silence:g} s")
        else:  # only the connection of the pulse broke: who opened it opens another
            self.node.plan_pulse(self)

    def _end_pulse(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    # -- cuts ------------------------------------------------------------------------------------------------

    def cut(self, reason: str) -> None:
        """Give up the connection (its peer gives no sign of life), but not yet the session."""
        if self.lost is None and self._transport is not None:
            self._cut(reason)

    def _cut(self, reason: str) -> None:
        """The connection is over. If there is patience, the session is not."""
        if self.lost is not None:
            return
        self._drop_transport()
        self._end_pulse()
        if self.peer is None or not self.patience:
            self.lose(reason)
            return
        now = self.node.now()
        fresh = self._recovery.deadline is None
        self._recovery.cut(now)
        if self._reconnecting is not None:
            self._reconnecting.wake()
        elif self.opens:
            self._reconnecting = Wait(f"{self.name} to answer")
            retry = tasklet(self._reconnect)(reason)
            retry.name = f"reconnect to {self.where}"
        elif fresh:
            self._cancel_patience = self.node.reactor.call_later(self.patience, self._give_up, reason)
        if fresh:
            log.info("%s: %s; waiting %g s for another connection", self.name, reason, self.patience)

    def _give_up(self, reason: str) -> None:
        self._cancel_patience = None
        self.lose(f"{reason}, and did not come back within {self.patience:g} s")

    def _reconnect(self, reason: str) -> None:
        """Connect again and again until it is mended or lost. Runs in a tasklet of its own."""
        assert self.address is not None
        why = ""
        try:
            while self.lost is None and self._recovery.deadline is not None:
                pause = self._recovery.next_pause(self.node.now())
                if pause is None:
                    self._give_up(f"{reason}{why}")
                    return
                sleep(pause)
                try:
                    self._connect_once(self._recovery.deadline)
                except (PeerUnreachable, NetError, OSError) as error:
                    why = f" ({error})"
        finally:
            self._reconnecting = None
            if self.lost is None and self._recovery.deadline is not None:  # somebody has killed this tasklet
                self.lose(reason)

    def _connect_once(self, deadline: float) -> None:
        assert self.address is not None
        with timeout(max(0.01, min(deadline - self.node.now(), ATTEMPT_SECONDS))):
            transport, self.identity = self.node.connect_to(self.address, self.security)
            if self.lost is not None or self._recovery.deadline is None:
                transport.close()
                return
            self._drop_transport()
            self._reconnecting = wait = Wait(f"{self.name} to answer")
            self.attach(transport)
            try:
                wait.park()  # until it has answered, or this connection is cut, too
            except BaseException:
                if self._recovery.deadline is not None:
                    self._drop_transport()
                raise

    # -- the end ---------------------------------------------------------------------------------------------

    def loss(self, outcome: str) -> PeerLost:
        """A fresh PeerLost for one operation on this lost link."""
        assert self.lost is not None
        return PeerLost(f"{self.lost} (the message: {outcome})", peer=self.name, outcome=outcome)

    def outcome_of(self, seqno: int) -> str:
        """What became of a message for a channel of capacity 0, on which there was no verdict."""
        assert self.lost is not None
        return "not taken" if seqno > self._messages_left or self.lost.outcome == "not taken" else "unknown"

    def at_end(self, callback: Callable[[], object]) -> None:
        """Call something when the link is lost or closed."""
        self._end_callbacks.append(callback)

    def close(self, reason: str = "") -> None:
        """Say goodbye and close. Never blocks: what the transport does not take at once is not sent."""
        if self.lost is None:
            if not self._writable and (ahead := sum(window.under_way for window in self.windows.values())):
                log.warning("%s: %d messages that were sent ahead may not have reached it", self.name, ahead)
            self._send_room()
            self.notify((wire.GOODBYE, reason[: wire.MAX_TEXT_CHARS]))
            self._flush()
            self.lose("it was closed here")

    def finish(self, deadline: float) -> None:
        """Say goodbye and close, but send first what is queued, and let it arrive. Blocks the process, at most
        until `deadline`.
        """
        self._send_room()
        ahead = any(window.under_way for window in self.windows.values())
        busy = ahead or self.loans or self._outbox or self._unsent or self._outgoing.pending
        open_now = self._transport is not None and self.peer is not None and self._recovery.deadline is None
        lingering = None
        if self.lost is None and busy and open_now:
            assert self._transport is not None
            lingering = self._transport.linger(deadline)
        if lingering is None:
            self.close()
            return
        try:
            self._say_last_words(lingering)
        except (OSError, RemoteProtocolError) as error:
            log.warning("%s: not everything that was sent has reached it: %s", self.name, error)
        self._outbox, self._aparts = [], 0
        self.lose("it was closed here")

    def _say_last_words(self, lingering: Lingering) -> None:
        """Send all that is queued, and wait until the peer has read it."""
        if self._unsent is not None:
            lingering.send_all(b"".join(self._unsent))
            self._unsent = None
        while self._outbox or self._outgoing.pending:
            while (self._outbox or self._outgoing.ready) and self.session.has_room:
                batch = self._next_batch()
                lingering.send_all(b"".join(batch) if isinstance(batch, tuple) else batch)
            if self._outbox or self._outgoing.pending:
                self._hear(lingering)
        lingering.send_all(self.session.envelope([self._codec.encode((wire.GOODBYE, ""))]))
        lingering.end_sending()
        with contextlib.suppress(OSError):  # it may be too busy to read; its system has what we sent
            while lingering.receive_into(self.node.received):
                pass

    def _hear(self, lingering: Lingering) -> None:
        """Take in what gives leave to send more. Nobody will act on the rest any more."""
        assert self._protocol is not None
        size = lingering.receive_into(self.node.received)
        if not size:
            raise ConnectionError("its connection ended")
        self.node.decoding = self
        for frame in self._protocol.receive(self.node.received[:size]):
            if frame[0] == wire.WINDOW:
                self._outgoing.granted(frame[1])

    def lose(self, reason: str, outcome: str = "unknown") -> None:
        """The session is over: everything that waits for the peer fails.

        `outcome` is that of messages which left and on which no verdict came.
        """
        if self.lost is not None:
            return
        self.lost = PeerLost(f"{self.name} is gone: {reason}", peer=self.name, outcome=outcome)
        self._drop_transport()
        self._end_pulse()
        self._end_patience()
        if self._reconnecting is not None:
            self._reconnecting.wake()
        self._outbox, self._aparts = [], 0
        self.node.link_lost(self)
        self.opened.fail(self.lost)
        operations, self.operations = self.operations, {}
        for operation in operations.values():
            operation.fail(self.loss(outcome))
        loans, self.loans = self.loans, {}
        for loan in loans.values():
            loan.lost(self.loss(outcome))
        for user in list(self.users):
            user.link_lost(self)
        for request in list(self.requests.values()):
            request.withdraw()
        self.requests.clear()
        for sender in list(self.unsettled.values()):
            sender.withdraw()
        self.unsettled.clear()
        verdicts, self.verdicts = self.verdicts, {}
        for verdict in verdicts.values():
            verdict.wake(outcome)
        self.node.offers.drop_all(self)
        self.grants.clear()
        self._roomy.clear()
        spawned, self.spawned = self.spawned, {}
        for one in spawned.values():
            one.kill(pending=True)
        for callback in self._end_callbacks:
            callback()
        self.node.scheduler.reconsider()


def bytes_of(pieces: Sequence[bytes | memoryview]) -> int:
    """How many they have together."""
    size = 0
    for piece in pieces:
        size += len(piece)
    return size


def _raise(error: BaseException) -> None:
    raise error
