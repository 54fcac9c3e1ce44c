"""This process as a node of the network: its links, names, exported channels and references to others'.

There is one node per OS thread that uses the network, made on first use (`get_node`). Programs meet it
through `serve`, `connect` and `open_place`; the command line makes one that also starts tasklets for others
(`accepts_spawn`).
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import logging
import os
import socket
import stat
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, WeakValueDictionary

from net import _exports, _wire as wire
from net._codec import Codec, Description, Undecodable
from net._failures import rebuild_exception
from net._link import Link, Operation
from net._protocol import Hello
from net._references import RemoteChannel
from net._spawning import kill_spawned, run_spawned
from net.addresses import Address, UnixAddress, parse_address
from net.errors import (
    AddressInUse,
    BadAddress,
    NameNotFound,
    PeerLost,
    PeerUnreachable,
    RemoteProtocolError,
)
from tasklets import ChannelClosed, NotSendable, Timeout, channel, timeout
from tasklets._core import Wait, bomb, get_scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from net._protocol import Protocol

log = logging.getLogger("net")

CONNECT_SECONDS = 5.0  # to reach an address and to be introduced
MAX_CONNECTIONS = 4096  # accepted by one node; beyond it a stranger could take all file descriptors
BACKLOG = 512  # connections that may wait to be accepted
ACCEPT_PAUSE_SECONDS = 0.1  # when no connection can be accepted: to ask again at once would spin
LAST_WORDS_SECONDS = 0.5  # for all peers to read what is queued for them when the process ends


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
            wire.DROPPED: _ignore,  # whoever withdrew a message does not wait for the verdict
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
            wire.STARTED: _ignore,  # nobody waits for it: EXITED or RAISE tell how it ended
            wire.EXITED: self._on_exited,
            wire.KILL: self._on_kill,
        }
        self.scheduler.sources.append(self._may_wake_somebody)
        # A send on a channel with room has returned before the message has left.
        atexit.register(self.close)

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
        """True when others may still call on something here: run() goes on waiting then."""
        if self.listeners and self.names:
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

    def dial(self, address: Address) -> Link:
        """Open a session of its own with the node at an address. Blocks. Raises PeerUnreachable."""
        with _answering(address, CONNECT_SECONDS):
            return self._open(address)

    def find(self, address: Address, name: str, seconds: float) -> channel:
        """Get the channel that the node at an address publishes under a name. Blocks.

        Raises PeerUnreachable, NameNotFound, PeerLost.
        """
        with _answering(address, seconds):
            link, reused = self._session(address)
            try:
                return self._lookup(link, name)
            except PeerLost:
                if not reused:
                    raise
            # It had ended before, and the loop had no turn to notice. To ask again does no harm.
            return self._lookup(self._session(address)[0], name)

    def _session(self, address: Address) -> tuple[Link, bool]:
        """The session with the node at an address that all who name the address share, and whether it is an
        old one. Blocks to open it.
        """
        where = str(address)
        known = self._dialled.get(where)
        if known is not None:
            return known, True
        link = self._open(address)
        if link.lost is None:
            self._dialled[where] = link
        return link, False

    def _open(self, address: Address) -> Link:
        link = self.adopt(_dial(address), str(address))
        try:
            link.opened.park()
        except PeerLost as error:
            raise PeerUnreachable(
                f"what answers at {address} is no node of ours ({error}); is the port right?"
            ) from None
        except BaseException:
            link.lose("it did not introduce itself")
            raise
        return link

    def link_to(self, home: bytes, addresses: tuple[str, ...], label: str) -> Link:
        """The link to a node that a reference names. Blocks when it has to connect. Raises PeerLost."""
        known = self._by_peer.get(home)
        if known is not None:
            return known
        reasons = []
        for text in addresses:
            try:
                address = parse_address(text)
                with _answering(address, CONNECT_SECONDS):
                    link, _ = self._session(address)
            except (BadAddress, PeerUnreachable) as error:
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
        """Stop listening, and say goodbye to every peer. Sends what is queued for them; blocks the process for
        that, for LAST_WORDS_SECONDS at most.
        """
        deadline = monotonic() + LAST_WORDS_SECONDS
        for listener in list(self.listeners):
            listener.stop()
        for link in list(self.links):
            link.finish(deadline)

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
        introducers = reference._introducers
        given_up = all(other.lost is not None for other in introducers)
        if link is reference._link or link in introducers or given_up:
            introducers[link] = introducers.get(link, 0) + 1
        else:
            # One node keeps it alive for us, and the home. Two that were given it by each other would do so for ever.
            self._return_grant(channel_id)
        return reference

    def _return_grant(self, channel_id: bytes) -> None:
        """The peer counted a reference as given to us, which we do not count."""
        assert self._decoding is not None
        self.reactor.call_soon(self._decoding.notify, (wire.RELEASE, channel_id, 1))

    def drop(self, channel_id: bytes, introducers: dict[Link, int], user_of: Link | None) -> None:
        """A reference was collected, on whatever thread: tell those that gave it."""
        if threading.get_ident() == self._thread_id:
            self.reactor.call_soon(self._release, channel_id, introducers, user_of)
        else:
            self.reactor.loop.run_callback_threadsafe(self._release, channel_id, introducers, user_of)

    def _release(self, channel_id: bytes, introducers: dict[Link, int], user_of: Link | None) -> None:
        for link, count in introducers.items():
            link.notify((wire.RELEASE, channel_id, count))
        if user_of is not None:
            user_of.forget_window(channel_id)

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
        seqno = link.messages_received = link.messages_received + 1
        grant = link.grants.get(channel_id)
        if grant is None:
            link.tell((wire.REJECT, channel_id, seqno), _gone())
        elif value.__class__ is Undecodable:
            unread = NotSendable(f"{grant.channel!r} cannot take the message: {value.reason}")
            link.tell((wire.REJECT, channel_id, seqno), unread)
        else:
            _exports.accept(grant, value, seqno)

    def _reference(self, link: Link, channel_id: bytes) -> RemoteChannel | None:
        """Our reference to a channel whose home is behind a link; None when it was dropped meanwhile."""
        reference = self._references.get(channel_id)
        return reference if reference is not None and reference._link is link else None

    def _on_ack(self, link: Link, frame: wire.Frame) -> None:
        _, channel_id, number = frame
        if channel_id in link.windows:
            link.acknowledge(channel_id, number)
            return
        reference = self._reference(link, channel_id)
        if reference is not None:
            reference.taken(number)

    def _on_reject(self, link: Link, frame: wire.Frame) -> None:
        link.acknowledge(frame[1], 1)
        reference = self._reference(link, frame[1])
        if reference is not None:
            reference.rejected(frame[2], rebuild_exception(*frame[3]))

    def _on_retract(self, link: Link, frame: wire.Frame) -> None:
        sender = link.unsettled.get(frame[2])
        if sender is not None:  # else it was taken, and the verdict is under way
            sender.withdraw()

    def _on_receive(self, link: Link, frame: wire.Frame) -> None:
        _, channel_id, op = frame
        if op in link.requests or op in link.loans:
            raise RemoteProtocolError(f"RECEIVE {op} is still in work")
        grant = link.grants.get(channel_id)
        if grant is None:
            link.tell((wire.RAISE, op), _gone())
        else:
            _exports.request(grant.channel, link, op)

    def _on_item(self, link: Link, frame: wire.Frame) -> None:
        _, op, value = frame
        operation = _pop_operation(link, op, wire.ITEM)
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
            return
        loan = link.loans.pop(frame[1], None)
        if loan is not None:
            # The two crossed, so the peer will refuse it. Putting it back now, before the peer's next request
            # is read, keeps the order of messages.
            loan.refused()

    def _on_lookup(self, link: Link, frame: wire.Frame) -> None:
        _, op, name = frame
        found = self.names.get(name)
        if found is not None:
            link.send((wire.FOUND, op, found))
            return
        published = ", ".join(sorted(self.names)) or "nothing"
        link.tell(
            (wire.RAISE, op),
            NameNotFound(f"no channel is published as {name!r} at {self.name}; published: {published}"),
        )

    def _on_found(self, link: Link, frame: wire.Frame) -> None:
        _, op, value = frame
        if not isinstance(value, channel):
            raise RemoteProtocolError(f"FOUND {op} holds no channel but {wire.shorten(value)}")
        operation = _pop_operation(link, op, wire.FOUND)
        if operation is not None:
            operation.answer(value)

    def _on_close(self, link: Link, frame: wire.Frame) -> None:
        grant = link.grants.get(frame[1])
        if grant is not None:
            grant.channel.close()

    def _on_closed(self, link: Link, frame: wire.Frame) -> None:
        reference = self._reference(link, frame[1])
        if reference is not None:
            reference.closed_at_home()

    def _on_hold(self, link: Link, frame: wire.Frame) -> None:
        held = self._exports.get(frame[1])
        if held is not None:
            link.grant(held)

    def _on_release(self, link: Link, frame: wire.Frame) -> None:
        link.release(frame[1], frame[2])

    def _on_spawn(self, link: Link, frame: wire.Frame) -> None:
        if frame[1] in link.spawned:
            raise RemoteProtocolError(f"SPAWN {frame[1]} is still in work")
        run_spawned(self, link, frame)

    def _on_exited(self, link: Link, frame: wire.Frame) -> None:
        _, op, error = frame
        operation = _pop_operation(link, op, wire.EXITED)
        if operation is not None and error is None:
            operation.answer(None)
        elif operation is not None:
            operation.fail(rebuild_exception(*error))

    def _on_kill(self, link: Link, frame: wire.Frame) -> None:
        op = frame[1]
        victim = link.spawned.get(op)
        if victim is not None and not kill_spawned(victim):
            del link.spawned[op]
            link.notify((wire.EXITED, op, None))

    # -- names -----------------------------------------------------------------------------------------------

    def _lookup(self, link: Link, name: str) -> channel:
        lookup = _Lookup(f"{link.name} to look up {name!r}")
        link.ask(lookup, lambda op: (wire.LOOKUP, op, name))
        found = lookup.wait.park()
        assert isinstance(found, channel)
        return found


@contextlib.contextmanager
def _answering(address: Address, seconds: float) -> Iterator[None]:
    """Limit how long the node at an address may take to answer. Raises PeerUnreachable."""
    limit = timeout(seconds)
    try:
        with limit:
            yield
    except Timeout:
        if not limit.expired:  # the caller's own limit
            raise
        raise PeerUnreachable(
            f"no answer from {address} within {seconds:g} s; is it up, and is the port right?"
        ) from None


def _ignore(link: Link, frame: wire.Frame) -> None:
    pass


def _pop_operation(link: Link, op: int, answered_by: int) -> Operation | None:
    """Who waits for this answer; None when nobody does any more. Raises RemoteProtocolError."""
    operation = link.operations.get(op)
    if operation is not None and operation.answered_by != answered_by:
        raise RemoteProtocolError(f"op {op} is answered by {wire.FRAMES[answered_by].name}")
    link.operations.pop(op, None)
    return operation


def _gone() -> ChannelClosed:
    return ChannelClosed("the channel is gone: nobody at its home holds it any more")


class _Lookup:
    answered_by = wire.FOUND

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
        except OSError as error:  # no file descriptor is left, most likely
            log.warning("%s: a connection could not be accepted: %s", self.address, error)
            self._watcher.stop()
            self.node.reactor.call_later(ACCEPT_PAUSE_SECONDS, self._resume)
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

    def _resume(self) -> None:
        if self in self.node.listeners:
            self._watcher.start(self._on_connection)

    def stop(self) -> None:
        """Accept no more connections."""
        if self in self.node.listeners:
            self.node.listeners.remove(self)
            self._watcher.stop()
            self._watcher.close()
            self._socket.close()
            if isinstance(self.address, UnixAddress):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.address.path)

    def close(self) -> None:
        """Accept no more connections, and say goodbye on those that came in here."""
        self.stop()
        for link in list(self._links):
            link.close()


def _expect_hello(link: Link) -> None:
    if link.peer is None and link.lost is None:
        log.warning(
            "%s did not introduce itself within %g s, its connection is closed", link.where, CONNECT_SECONDS
        )
        link.lose("it did not introduce itself")


def _dial(address: Address) -> socket.socket:
    """A connected socket. Blocks only the calling tasklet. Raises PeerUnreachable."""
    try:
        *others, last = _targets(address)
        for family, target in others:
            try:
                return _connected(family, target)
            except Timeout:  # is an OSError, and meant for the caller
                raise
            except OSError:
                continue
        return _connected(*last)
    except Timeout:
        raise
    except (ConnectionRefusedError, FileNotFoundError):
        raise PeerUnreachable(
            f"nobody listens at {address}; start the other side first, or correct the address"
        ) from None
    except (socket.gaierror, UnicodeError) as error:  # the latter: a host that no name server could know
        why = getattr(error, "strerror", error)
        raise PeerUnreachable(f"the host of {address} is unknown ({why}); correct the address") from None
    except OSError as error:
        raise PeerUnreachable(f"{address} cannot be reached: {error.strerror or error}") from None


def _targets(address: Address) -> list[tuple[int, Any]]:
    """What to connect to, best first: (family, address for the system)."""
    from gevent import socket as waiting

    if isinstance(address, UnixAddress):
        return [(socket.AF_UNIX, address.path)]
    found = waiting.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return [(family, target) for family, _, _, _, target in found]


def _connected(family: int, target: Any) -> socket.socket:
    from gevent import socket as waiting

    with waiting.socket(family) as dialled:
        dialled.connect(target)
        sock = socket.socket(fileno=dialled.detach())
    _tune(sock)
    return sock


def _bind(address: Address) -> socket.socket:
    if isinstance(address, UnixAddress):
        sock = socket.socket(socket.AF_UNIX)
        target: Any = address.path
    else:
        try:
            family, kind, proto, _, target = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
        except (socket.gaierror, UnicodeError) as error:
            why = getattr(error, "strerror", error)
            raise BadAddress(f"the host of {address} is unknown ({why}); correct the address") from None
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if isinstance(address, UnixAddress):
            _remove_stale(address)
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
