"""This process as a node of the network: its links, names, exported channels and references to others'.

There is one node per OS thread that uses the network, made on first use (`get_node`). Programs meet it
through `serve`, `connect` and `open_place`; the command line makes one that also starts tasklets for others
(`accepts_spawn`).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, WeakValueDictionary

from net import _exports, _wire as wire
from net._codec import Codec, Description, Undecodable
from net._failures import error_of, rebuild_exception
from net._link import Link
from net._protocol import Hello
from net._references import RemoteChannel
from net._spawning import run_spawned
from net.addresses import Address, UnixAddress, parse_address
from net.errors import AddressInUse, BadAddress, NameNotFound, PeerLost, PeerUnreachable
from tasklets import ChannelClosed, NotSendable, Timeout, channel, timeout
from tasklets._core import Wait, bomb, get_scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from net._protocol import Protocol

log = logging.getLogger("net")

CONNECT_SECONDS = 5.0  # to reach an address and to be introduced
MAX_CONNECTIONS = 4096  # accepted by one node; beyond it a stranger could take all file descriptors
BACKLOG = 512  # connections that may wait to be accepted


class Node:
    """One process (strictly: one OS thread) in the network."""

    def __init__(self, name: str = "", *, accepts_spawn: bool = False) -> None:
        self.id = os.urandom(wire.ID_BYTES)
        self._thread_id = threading.get_ident()
        self.name = name or f"pid {os.getpid()}"
        self.accepts_spawn = accepts_spawn
        self.scheduler = get_scheduler()
        self.reactor = self.scheduler.get_reactor()
        self.codec = Codec(self._export, self._resolve)
        self.names: dict[str, channel] = {}
        self.links: set[Link] = set()
        self.listeners: list[Listener] = []
        self._dialled: dict[str, Link] = {}  # address -> the link opened to it
        self._by_peer: dict[bytes, Link] = {}  # node id -> the link to use
        self._exports: WeakValueDictionary[bytes, channel] = WeakValueDictionary()
        self._references: WeakValueDictionary[bytes, RemoteChannel] = WeakValueDictionary()
        self._decoding: Link | None = None  # whose bytes are being decoded
        self._handlers: dict[int, Callable[[Link, wire.Frame], None]] = {
            wire.SEND: self._on_send,
            wire.BOMB: self._on_bomb,
            wire.ACK: self._on_ack,
            wire.REJECT: self._on_reject,
            wire.RETRACT: self._on_retract,
            wire.DROPPED: self._on_dropped,
            wire.RECEIVE: self._on_receive,
            wire.ITEM: self._on_item,
            wire.RAISE: self._on_raise,
            wire.TAKEN: self._on_taken,
            wire.REFUSED: self._on_refused,
            wire.CANCEL: self._on_cancel,
            wire.LOOKUP: self._on_lookup,
            wire.FOUND: self._on_found,
            wire.CLOSE: self._on_close,
            wire.CLOSED: self._on_closed,
            wire.HOLD: self._on_hold,
            wire.RELEASE: self._on_release,
            wire.SPAWN: self._on_spawn,
            wire.STARTED: self._on_started,
            wire.EXITED: self._on_exited,
            wire.KILL: self._on_kill,
        }
        self.scheduler.sources.append(self._may_wake_somebody)

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.id.hex()[:8]} links={len(self.links)}>"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node can be reached."""
        return tuple(str(listener.address) for listener in self.listeners)

    @property
    def hello(self) -> Hello:
        return Hello(self.id, self.addresses[: wire.MAX_ADDRESSES], self.name[: wire.MAX_TEXT_CHARS])

    def _may_wake_somebody(self) -> bool:
        """True when a tasklet here waits on a channel that others can reach: run() goes on waiting then."""
        if self.listeners and any(_exports.is_awaited(named) for named in self.names.values()):
            return True
        return any(
            _exports.is_awaited(grant.channel) for link in self.links for grant in link.grants.values()
        )

    # -- links -----------------------------------------------------------------------------------------------

    def listen(self, address: Address, *, insecure: bool = False, background: bool = False) -> Listener:
        """Accept connections at an address. A `background` listener does not keep `run()` or a deadlock waiting.

        Raises BadAddress, AddressInUse.
        """
        listener = Listener(self, address, insecure=insecure, background=background)
        self.listeners.append(listener)
        return listener

    def adopt(self, sock: socket.socket, where: str) -> Link:
        """Start a session over a connected socket."""
        link = Link(self, sock, where)
        if link.lost is None:
            self.links.add(link)
        return link

    def connect(self, address: Address, seconds: float = CONNECT_SECONDS) -> Link:
        """Open a session with the node at an address. Blocks. Raises PeerUnreachable."""
        where = str(address)
        known = self._dialled.get(where)
        if known is not None and known.lost is None and known.peer is not None:
            return known
        try:
            with timeout(seconds):
                link = self._dialled[where] = self.adopt(_dial(address), where)
                link.opened.park()
        except Timeout:
            if where in self._dialled:
                self._dialled.pop(where).lose("it did not introduce itself")
            raise PeerUnreachable(
                f"no answer from {address} within {seconds:g} s; is it up, and is the port right?"
            ) from None
        except PeerLost as error:
            raise PeerUnreachable(
                f"what answers at {address} is no node of ours ({error}); is the port right?"
            ) from None
        return link

    def link_to(self, home: bytes, addresses: tuple[str, ...], label: str) -> Link:
        """The link to a node that a reference names. Blocks when it has to connect. Raises PeerLost."""
        known = self._by_peer.get(home)
        if known is not None:
            return known
        reasons = []
        for text in addresses:
            try:
                link = self.connect(parse_address(text))
            except PeerUnreachable as error:
                reasons.append(str(error))
                continue
            if link.peer is not None and link.peer.node_id == home:
                return link
            reasons.append(f"the node at {text} is another one now (restarted?)")
        why = "; ".join(reasons) or "it has no address, and no connection to it is open"
        raise PeerLost(f"the home of {label} cannot be reached: {why}", peer=label, outcome="not taken")

    def link_opened(self, link: Link) -> None:
        assert link.peer is not None
        self._by_peer.setdefault(link.peer.node_id, link)

    def link_lost(self, link: Link) -> None:
        """Use the link for nothing new."""
        self.links.discard(link)
        if link.peer is not None and self._by_peer.get(link.peer.node_id) is link:
            del self._by_peer[link.peer.node_id]
        if self._dialled.get(link.where) is link:
            del self._dialled[link.where]

    def close(self) -> None:
        """Say goodbye to every peer and stop listening."""
        for listener in list(self.listeners):
            listener.close()
        for link in list(self.links):
            link.close()

    # -- channels as values ----------------------------------------------------------------------------------

    def id_of(self, one: channel) -> bytes:
        """The id of a channel in the network; a channel of this process gets one when it is first asked
        for.
        """
        if isinstance(one, RemoteChannel):
            return one._id
        if one._observer is None:
            channel_id = os.urandom(wire.ID_BYTES)
            one._observer = _exports.Export(channel_id, self.links)
            self._exports[channel_id] = one
        export = one._observer
        assert isinstance(export, _exports.Export)
        return export.channel_id

    def _export(self, one: channel) -> Description:
        if isinstance(one, RemoteChannel):
            return (one._home, one._id, one.capacity, one.name, one._addresses)
        return (self.id, self.id_of(one), one.capacity, one.name, self.addresses[: wire.MAX_ADDRESSES])

    def _resolve(self, description: Description) -> channel:
        home, channel_id, capacity, name, addresses = description
        if home == self.id:
            own = self._exports.get(channel_id)
            if own is None:
                raise PeerLost(
                    f"the channel {name or channel_id.hex()[:8]!r} was dropped here by everybody that held it"
                )
            self._return_grant(channel_id)
            return own
        link = self._decoding
        assert link is not None
        assert link.peer is not None
        reference = self._references.get(channel_id)
        if reference is None or (reference._link is not None and reference._link.lost is not None):
            if link.peer.node_id == home and not addresses:
                addresses = link.peer.addresses
            reference = RemoteChannel(self, home, channel_id, capacity, name, addresses)
            self._references[channel_id] = reference
        if reference._link is None and link.peer.node_id == home:
            reference.bind(link)
        reference._introducers[link] = reference._introducers.get(link, 0) + 1
        return reference

    def _return_grant(self, channel_id: bytes) -> None:
        """A reference came home: the peer counted it as given to us, and we keep none."""
        assert self._decoding is not None
        self.reactor.call_soon(self._decoding.notify, (wire.RELEASE, channel_id, 1))

    def drop(self, channel_id: bytes, introducers: dict[Link, int]) -> None:
        """A reference was collected, on whatever thread: tell those that gave it."""
        if introducers and threading.get_ident() == self._thread_id:
            self.reactor.call_soon(self._release, channel_id, introducers)
        elif introducers:
            self.reactor.loop.run_callback_threadsafe(self._release, channel_id, introducers)

    def _release(self, channel_id: bytes, introducers: dict[Link, int]) -> None:
        for link, count in introducers.items():
            link.notify((wire.RELEASE, channel_id, count))

    # -- frames ----------------------------------------------------------------------------------------------

    def decode(self, link: Link, protocol: Protocol, data: bytes) -> list[wire.Frame]:
        """Let a link's protocol read what arrived; references in it are known to have come over that link."""
        self._decoding = link
        return protocol.receive(data)

    def handle(self, link: Link, frame: wire.Frame) -> None:
        """Act on a frame. Runs in the event loop: never blocks."""
        self._handlers[frame[0]](link, frame)

    def _on_send(self, link: Link, frame: wire.Frame) -> None:
        self._incoming(link, frame[1], frame[2])

    def _on_bomb(self, link: Link, frame: wire.Frame) -> None:
        self._incoming(link, frame[1], bomb(rebuild_exception(*frame[2])))

    def _incoming(self, link: Link, channel_id: bytes, value: Any) -> None:
        where = self._exports.get(channel_id)
        if where is None:
            link.reject(channel_id, _gone())
            return
        seqno = 0
        if where.capacity == 0:
            seqno = link.received_sends[channel_id] = link.received_sends.get(channel_id, 0) + 1
        if value.__class__ is Undecodable:
            link.reject(channel_id, NotSendable(f"{where!r} cannot take the message: {value.reason}"))
            return
        _exports.deliver(_exports.RemoteSender(where, value, link, channel_id, seqno))

    def _on_ack(self, link: Link, frame: wire.Frame) -> None:
        reference = self._references.get(frame[1])
        if reference is not None:
            reference.acknowledged(frame[2])

    def _on_reject(self, link: Link, frame: wire.Frame) -> None:
        reference = self._references.get(frame[1])
        if reference is not None:
            reference.rejected(rebuild_exception(*frame[2]))

    def _on_retract(self, link: Link, frame: wire.Frame) -> None:
        waiting = link.waiting_sends.get((frame[1], frame[2]))
        if waiting is not None:  # else it was taken, and the verdict is under way
            waiting.withdraw()

    def _on_dropped(self, link: Link, frame: wire.Frame) -> None:
        reference = self._references.get(frame[1])
        if reference is not None:
            reference.withdrawn(frame[2])

    def _on_receive(self, link: Link, frame: wire.Frame) -> None:
        where = self._exports.get(frame[1])
        if where is None:
            link.notify((wire.RAISE, frame[2], error_of(_gone())))
        else:
            _exports.request(where, link, frame[2])

    def _on_item(self, link: Link, frame: wire.Frame) -> None:
        _, op, value = frame
        operation = link.operations.pop(op, None)
        if operation is None:
            link.notify((wire.REFUSED, op))
        elif value.__class__ is Undecodable:
            link.notify((wire.TAKEN, op))
            operation.fail(NotSendable(f"a message from {link.name} cannot be read: {value.reason}"))
        elif operation.answer(value):
            link.notify((wire.TAKEN, op))
        else:
            link.notify((wire.REFUSED, op))

    def _on_raise(self, link: Link, frame: wire.Frame) -> None:
        operation = link.operations.pop(frame[1], None)
        if operation is not None:
            operation.fail(rebuild_exception(*frame[2]))

    def _on_taken(self, link: Link, frame: wire.Frame) -> None:
        loan = link.loans.pop(frame[1], None)
        if loan is not None:
            loan.taken()

    def _on_refused(self, link: Link, frame: wire.Frame) -> None:
        loan = link.loans.pop(frame[1], None)
        if loan is not None:
            loan.refused()

    def _on_cancel(self, link: Link, frame: wire.Frame) -> None:
        request = link.requests.pop(frame[1], None)
        if request is not None:
            request.withdraw()

    def _on_lookup(self, link: Link, frame: wire.Frame) -> None:
        _, op, name = frame
        found = self.names.get(name)
        if found is not None:
            link.send((wire.FOUND, op, found))
            return
        published = ", ".join(sorted(self.names)) or "nothing"
        error = NameNotFound(f"no channel is published as {name!r} at {self.name}; published: {published}")
        link.notify((wire.RAISE, op, error_of(error)))

    def _on_found(self, link: Link, frame: wire.Frame) -> None:
        operation = link.operations.pop(frame[1], None)
        if operation is not None:
            operation.answer(frame[2])

    def _on_close(self, link: Link, frame: wire.Frame) -> None:
        where = self._exports.get(frame[1])
        if where is not None:
            where.close()

    def _on_closed(self, link: Link, frame: wire.Frame) -> None:
        reference = self._references.get(frame[1])
        if reference is not None:
            reference.closing = True

    def _on_hold(self, link: Link, frame: wire.Frame) -> None:
        held = self._exports.get(frame[1])
        if held is not None:
            link.grant(held)

    def _on_release(self, link: Link, frame: wire.Frame) -> None:
        link.release(frame[1], frame[2])

    def _on_spawn(self, link: Link, frame: wire.Frame) -> None:
        run_spawned(self, link, frame)

    def _on_started(self, link: Link, frame: wire.Frame) -> None:
        pass  # the opener does not wait for it; EXITED or RAISE tell how it ended

    def _on_exited(self, link: Link, frame: wire.Frame) -> None:
        _, op, error = frame
        operation = link.operations.pop(op, None)
        if operation is not None and error is None:
            operation.answer(None)
        elif operation is not None:
            operation.fail(rebuild_exception(*error))

    def _on_kill(self, link: Link, frame: wire.Frame) -> None:
        victim = link.spawned.get(frame[1])
        if victim is not None:
            victim.kill(pending=True)

    # -- names -----------------------------------------------------------------------------------------------

    def lookup(self, link: Link, name: str) -> channel:
        """Ask a peer for a channel that it publishes. Blocks. Raises NameNotFound, PeerLost."""
        lookup = _Lookup(f"{link.name} to look up {name!r}")
        link.ask(lookup, lambda op: (wire.LOOKUP, op, name))
        found = lookup.wait.park()
        assert isinstance(found, channel)
        return found


def _gone() -> ChannelClosed:
    return ChannelClosed("the channel is gone: nobody at its home holds it any more")


class _Lookup:
    def __init__(self, what: str) -> None:
        self.wait = Wait(what)

    def answer(self, value: Any) -> bool:
        self.wait.wake(value)
        return True

    def fail(self, error: BaseException) -> None:
        self.wait.fail(error)


class Listener:
    """An open address."""

    def __init__(self, node: Node, address: Address, *, insecure: bool, background: bool) -> None:
        if not address.is_loopback and not insecure:
            raise BadAddress(
                f"{address} can be reached from other machines, and who connects may use what is published; "
                "listen at 127.0.0.1, or say insecure=True (--insecure) if the network is trusted"
            )
        self.node = node
        self._socket = _bind(address)
        self.address: Address = address
        if not isinstance(address, UnixAddress):
            self.address = type(address)(address.host, self._socket.getsockname()[1])
        self._links: WeakSet[Link] = WeakSet()  # that came in here
        self._watcher = node.reactor.loop.io(self._socket.fileno(), 1, ref=not background)
        self._watcher.start(self._on_connection)

    def __repr__(self) -> str:
        return f"<Listener {self.address}>"

    def _on_connection(self) -> None:
        try:
            sock, peer = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.warning("%s: a connection could not be accepted: %s", self.address, error)
            return
        if len(self.node.links) >= MAX_CONNECTIONS:
            log.warning("%s: more than %d connections, one is refused", self.address, MAX_CONNECTIONS)
            sock.close()
            return
        _tune(sock)
        where = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else f"{self.address}"
        link = self.node.adopt(sock, where)
        self._links.add(link)
        self.node.reactor.call_later(CONNECT_SECONDS, _expect_hello, link)

    def close(self) -> None:
        """Accept no more connections, and say goodbye on those that came in here."""
        if self in self.node.listeners:
            self.node.listeners.remove(self)
            self._watcher.stop()
            self._watcher.close()
            self._socket.close()
            for link in list(self._links):
                link.close()
            if isinstance(self.address, UnixAddress):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.address.path)


def _expect_hello(link: Link) -> None:
    if link.peer is None and link.lost is None:
        log.warning(
            "%s did not introduce itself within %g s, its connection is closed", link.where, CONNECT_SECONDS
        )
        link.lose("it did not introduce itself")


def _dial(address: Address) -> socket.socket:
    """A connected socket. Blocks only the calling tasklet. Raises PeerUnreachable."""
    from gevent import socket as waiting

    try:
        if isinstance(address, UnixAddress):
            dialled = waiting.socket(socket.AF_UNIX)
            dialled.connect(address.path)
        else:
            dialled = waiting.create_connection((address.host, address.port))
    except (ConnectionRefusedError, FileNotFoundError):
        raise PeerUnreachable(
            f"nobody listens at {address}; start the other side first, or correct the address"
        ) from None
    except socket.gaierror as error:
        raise PeerUnreachable(
            f"the host of {address} is unknown ({error.strerror}); correct the address"
        ) from None
    except OSError as error:
        raise PeerUnreachable(f"{address} cannot be reached: {error.strerror or error}") from None
    sock = socket.socket(fileno=dialled.detach())
    _tune(sock)
    return sock


def _bind(address: Address) -> socket.socket:
    if isinstance(address, UnixAddress):
        sock = socket.socket(socket.AF_UNIX)
        target: Any = address.path
        _remove_stale(address)
    else:
        try:
            family, kind, proto, _, target = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
        except socket.gaierror as error:
            raise BadAddress(
                f"the host of {address} is unknown ({error.strerror}); correct the address"
            ) from None
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(target)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(
                f"{address} is in use by another program; end it, or choose another port (0: the system chooses)"
            ) from None
        raise BadAddress(f"cannot listen at {address}: {error.strerror or error}") from None
    sock.setblocking(False)
    return sock


def _remove_stale(address: UnixAddress) -> None:
    """Remove the socket file that a killed program left behind; a live program's file stays, and binding
    fails.
    """
    try:
        is_socket = stat.S_ISSOCK(os.stat(address.path).st_mode)
    except FileNotFoundError:
        return
    if is_socket:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(address.path)
            except ConnectionRefusedError:
                os.unlink(address.path)


def _tune(sock: socket.socket) -> None:
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the writer coalesces already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


_local = threading.local()


def get_node() -> Node:
    """The node of the calling OS thread, made when it is first asked for."""
    node: Node | None = getattr(_local, "node", None)
    if node is None:
        node = _local.node = Node()
    return node


def set_node(node: Node) -> None:
    """Make a node that was made by hand the one of the calling OS thread."""
    _local.node = node
