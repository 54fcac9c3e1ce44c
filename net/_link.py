"""One session with a peer: a socket, the protocol's end here, and the writer that coalesces.

What queues up in one turn of the event loop leaves in one send. Within a turn a batch leaves early when it
reaches a threshold that doubles from FLUSH_FIRST to FLUSH_LAST, so that the two processes overlap: one end
packs while the other unpacks. The reader never waits for the writer: it only queues answers.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakSet

from net import _wire as wire
from net._exports import grant
from net._failures import error_of
from net._handshake import AuthenticationAsked
from net._protocol import Protocol
from net._window import Windows
from net.errors import PeerLost, RemoteProtocolError
from tasklets import NotSendable
from tasklets._core import Wait

if TYPE_CHECKING:
    from net._entries import RemoteReceiver, RemoteSender, Sender
    from net._exports import Grant
    from net._negotiation import Identity
    from net._operations import Operation
    from net._protocol import Hello
    from net._references import RemoteChannel
    from net.node import Node
    from tasklets import tasklet

log = logging.getLogger("net")

# Bytes queued in one turn that leave before its end; measured: 512 doubling to 8 KiB serves both the lone request and
# the flood.
FLUSH_FIRST = 512
FLUSH_LAST = 8 * 1024
# One batch, or one frame that is larger: the peer reads it while the next is made. Measured: messages of 64 KiB go
# through twice as fast as in batches of all that waits.
BATCH_BYTES = 64 * 1024


class Link:
    """One end of a connection. Made by a Node; `opened` is over when the peer has introduced itself."""

    identity: Identity | None = None  # who has proved to be at the other end, where that is asked for
    asked_for: AuthenticationAsked | None = None  # why the peer did not let us in

    def __init__(self, node: Node, sock: socket.socket, where: str) -> None:
        self.node = node
        self.where = where  # how to name the other end before it has said its name
        self.lost: PeerLost | None = None
        self.opened = Wait(f"{where} to introduce itself")
        self.operations: dict[int, Operation] = {}  # started here, by op
        self.loans: dict[int, Sender] = {}  # ITEMs on their way, by the peer's op
        self.grants: dict[bytes, Grant] = {}  # what the peer may use here, by channel id
        self.requests: dict[int, RemoteReceiver] = {}  # of the peer, in line at channels here, by its op
        # The peer's messages for channels of capacity 0, in line or lent, by their number.
        self.unsettled: dict[int, RemoteSender] = {}
        self.messages_sent = self.messages_received = 0  # SENDs and BOMBs: the number of the last one
        self.windows = Windows()  # how far we are ahead of the peer's channels
        self.users: WeakSet[RemoteChannel] = WeakSet()  # references that work over this link
        self.spawned: dict[int, tasklet] = {}  # running here for the peer, by its op
        self._next_op = itertools.count(1)
        self._end_callbacks: list[Callable[[], object]] = []
        self._roomy: list[Grant] = []  # whose room is to be told to the peer
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._threshold = FLUSH_FIRST
        self._unsent: memoryview | None = None  # of a batch that the kernel took in part
        self._writing_failed = False
        self._end_of_turn_armed = False
        self._codec = node.codec
        self._protocol = Protocol(node.hello, self._codec)
        self._pack = self._protocol.pack
        self._socket = sock
        sock.setblocking(False)
        loop = node.reactor.loop
        self._run_callback = loop.run_callback
        self._read_watcher = loop.io(sock.fileno(), 1)
        self._write_watcher = loop.io(sock.fileno(), 2)
        self._read_watcher.start(self._on_readable)
        self._write(self._protocol.opening())

    def __repr__(self) -> str:
        state = "lost" if self.lost else "open" if self.peer else "opening"
        return f"<Link to {self.name} {state}>"

    @property
    def peer(self) -> Hello | None:
        """Who the other end is; None until it has introduced itself."""
        return self._protocol.peer

    @property
    def name(self) -> str:
        """How to name the peer to a person."""
        return f"{self.peer.name} at {self.where}" if self.peer is not None and self.peer.name else self.where

    # -- sending ---------------------------------------------------------------------------------------------

    def send(self, frame: wire.Frame) -> None:
        """Queue a frame. Never blocks. Raises PeerLost, and NotSendable when a value in it cannot travel."""
        if self.lost is not None:
            raise self.loss("not taken")
        packed = self._pack(frame)
        for exported in self._codec.exported:
            grant(exported, self)
        self._outbox.append(packed)
        self._outbox_bytes += len(packed)
        if self._outbox_bytes >= self._threshold:
            self._threshold = min(self._threshold * 2, FLUSH_LAST)
            self._flush()
        if not self._end_of_turn_armed:
            self._arm_end_of_turn()

    def send_message(self, frame: wire.Frame) -> int:
        """Queue a SEND or BOMB like `send`. Returns its number."""
        self.send(frame)
        self.messages_sent += 1
        return self.messages_sent

    def notify(self, frame: wire.Frame) -> None:
        """Queue a frame that carries no value of a program's; a lost link does not matter."""
        if self.lost is None:
            self.send(frame)

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

    def tell_room(self, found: Grant) -> None:
        """Tell the peer, with the next batch, what room its messages found in a channel."""
        self._roomy.append(found)
        self._arm_end_of_turn()

    def _send_room(self) -> None:
        if self._roomy:
            roomy, self._roomy = self._roomy, []
            for found in roomy:
                self.notify((wire.ACK, found.channel_id, found.take_room()))

    def _arm_end_of_turn(self) -> None:
        if not self._end_of_turn_armed:
            self._end_of_turn_armed = True
            self._run_callback(self._end_turn)

    def _end_turn(self) -> None:
        self._end_of_turn_armed = False
        self._threshold = FLUSH_FIRST
        self._send_room()
        self._flush()

    def _flush(self) -> None:
        while self._outbox and self._unsent is None and self.lost is None and not self._writing_failed:
            self._write(self._protocol.envelope(self._take_batch()))

    def _take_batch(self) -> list[bytes]:
        """Take as many frames out of the outbox as should leave together."""
        outbox = self._outbox
        if self._outbox_bytes <= BATCH_BYTES:
            self._outbox, self._outbox_bytes = [], 0
            return outbox
        size = count = 0
        for packed in outbox:
            if count and size + len(packed) > BATCH_BYTES:
                break
            size += len(packed)
            count += 1
        batch, self._outbox = outbox[:count], outbox[count:]
        self._outbox_bytes -= size
        return batch

    def _write(self, data: bytes | memoryview) -> None:
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            # Not under the feet of whoever is sending: it is about to register who hears the answer.
            self._writing_failed = True
            self._run_callback(self._on_writing_failed, f"writing failed: {error.strerror or error}")
            return
        if sent < len(data):
            self._unsent = memoryview(data)[sent:]
            self._write_watcher.start(self._on_writable)

    def _on_writing_failed(self, reason: str) -> None:
        # What arrived before may hold answers, and say why the peer ended.
        while self.lost is None and self._read():
            pass
        self.lose(reason)

    def _on_writable(self) -> None:
        assert self._unsent is not None
        rest, self._unsent = self._unsent, None
        self._write_watcher.stop()
        self._write(rest)
        self._flush()

    # -- receiving -------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        """Act on what has arrived, let those run who were woken by it, and send what they have to say.

        That is one round of the loop instead of three: nobody need ask for the callbacks whose work is done here.
        """
        reactor = self.node.reactor
        lends_turn, reactor._armed = not reactor._armed, True
        ends_turn, self._end_of_turn_armed = not self._end_of_turn_armed, True
        try:
            self._read()
            if lends_turn:
                reactor._turn()
            if ends_turn:
                self._end_turn()
        except BaseException as error:  # noqa: BLE001  Ctrl-C: if we raised it, gevent would not call us again
            reactor._armed = self._end_of_turn_armed = False
            reactor.arm()
            self._arm_end_of_turn()
            self._run_callback(_raise, error)

    def _read(self) -> bool:
        """Act on what has arrived; False when there was nothing."""
        handlers = self.node.handlers
        received = self.node.received
        try:
            size = self._socket.recv_into(received)
        except BlockingIOError:
            return False
        except OSError as error:
            self.lose(f"the connection broke: {error.strerror or error}")
            return False
        if not size:
            self.lose("its connection ended")
            return False
        try:
            for frame in self.node.decode(self, self._protocol, received[:size]):
                if self.lost is None:
                    handlers[frame[0]](self, frame)
        except AuthenticationAsked as error:
            self.asked_for = error
            self.lose(str(error))
        except RemoteProtocolError as error:
            log.warning("%s broke the protocol, its connection is closed: %s", self.name, error)
            self.lose(f"it broke the protocol: {error}")
        except Exception:  # a frame half acted on would leave somebody waiting for ever
            log.exception("%s: a frame led to a fault here, its connection is closed", self.name)
            self.lose("a frame of it led to a fault here")
        return True

    # -- the end ---------------------------------------------------------------------------------------------

    def loss(self, outcome: str) -> PeerLost:
        """A fresh PeerLost for one operation on this lost link."""
        assert self.lost is not None
        return PeerLost(f"{self.lost} (the message: {outcome})", peer=self.name, outcome=outcome)

    def at_end(self, callback: Callable[[], object]) -> None:
        """Call something when the link is lost or closed."""
        self._end_callbacks.append(callback)

    def close(self, reason: str = "") -> None:
        """Say goodbye and close. Never blocks: what the kernel does not take at once is not sent."""
        if self.lost is None:
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
        if self.lost is not None or not (ahead or self.loans or self._outbox or self._unsent):
            self.close()
            return
        self.notify((wire.GOODBYE, ""))
        with contextlib.suppress(OSError):
            if self._unsent is not None:
                self._send_until(self._unsent, deadline)
            self._send_until(self._protocol.envelope(self._outbox), deadline)
            self._outbox = []
            # To close with something unread would make the kernel throw away what the peer has not read yet.
            self._socket.shutdown(socket.SHUT_WR)
            while self._socket_before(deadline).recv_into(self.node.received):
                pass
        self.lose("it was closed here")

    def _send_until(self, data: bytes | memoryview, deadline: float) -> None:
        self._socket_before(deadline).sendall(data)

    def _socket_before(self, deadline: float) -> socket.socket:
        self._socket.settimeout(max(0.001, deadline - monotonic()))
        return self._socket

    def lose(self, reason: str) -> None:
        """The connection is over: everything that waits for the peer fails."""
        if self.lost is not None:
            return
        self.lost = PeerLost(f"{self.name} is gone: {reason}", peer=self.name)
        for watcher in (self._read_watcher, self._write_watcher):
            watcher.stop()
            watcher.close()
        self._socket.close()
        self._unsent = None
        self._outbox = []
        self.node.link_lost(self)
        self.opened.fail(self.lost)
        operations, self.operations = self.operations, {}
        for operation in operations.values():
            operation.fail(self.loss("unknown"))
        loans, self.loans = self.loans, {}
        for loan in loans.values():
            loan.lost(self.loss("unknown"))
        for user in list(self.users):
            user.link_lost(self)
        for request in list(self.requests.values()):
            request.withdraw()
        self.requests.clear()
        for sender in list(self.unsettled.values()):
            sender.withdraw()
        self.unsettled.clear()
        self.grants.clear()
        self._roomy.clear()
        spawned, self.spawned = self.spawned, {}
        for one in spawned.values():
            one.kill(pending=True)
        for callback in self._end_callbacks:
            callback()
        self.node.scheduler.reconsider()


def _raise(error: BaseException) -> None:
    raise error
