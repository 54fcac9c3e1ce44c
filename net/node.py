"""This process as a node of the network: its links, names, exported channels and references to others'.

There is one node per OS thread that uses the network, made on first use (`get_node`). Programs meet it
through `serve`, `connect` and `open_place`; the command line makes one that also starts tasklets for others
(`accepts_spawn`).
"""

from __future__ import annotations

import atexit
import os
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

from net import _exports, _operations, _references, _spawning, _status, _wire as wire
from net._codec import Codec, Description
from net._entries import is_awaited
from net._gate import Gate
from net._link import Link
from net._negotiation import Identity, advise
from net._protocol import Hello
from net._references import RemoteChannel
from net._sockets import CONNECT_SECONDS, Listener, answering, open_connection
from net.addresses import Address, parse_address
from net.errors import (
    AuthenticationError,
    BadAddress,
    BadCredentials,
    NameNotFound,
    PeerLost,
    PeerUnreachable,
)
from net.security import Security, choose_security
from tasklets import channel
from tasklets._core import Wait, get_scheduler

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from net._delivery import Delivered
    from net._protocol import Protocol
    from net._status import NodeStatus

# One read: a burst of small messages, and no more than the kernel's buffer usually holds.
READ_BYTES = 256 * 1024
LAST_WORDS_SECONDS = 0.5  # for all peers to read what is queued for them when the process ends


class Node:
    """One process (strictly: one OS thread) in the network."""

    handlers: ClassVar[dict[int, Callable[[Link, wire.Frame], None]]]  # what to do about each type of frame

    def __init__(self, name: str = "", *, accepts_spawn: bool = False) -> None:
        self.id = os.urandom(wire.ID_BYTES)
        self._thread_id = threading.get_ident()
        self.name = name or f"pid {os.getpid()}"
        self.accepts_spawn = accepts_spawn
        self.delivered: Delivered | None = None  # of a child process: functions that its parent handed to it
        self.stopping = False  # starts nothing more for others
        self._on_drained: Callable[[], object] | None = None
        self.scheduler = get_scheduler()
        self.reactor = self.scheduler.get_reactor()
        self.codec = Codec(self._export, self._resolve)
        self.names: dict[str, channel] = {}
        self.links: set[Link] = set()
        self.listeners: list[Listener] = []
        self.gate = Gate(self.reactor.loop)  # through which strangers come in
        # address, and by what both ends proved who they are -> the link opened to it
        self._dialled: dict[tuple[str, Security | None], Link] = {}
        self._by_peer: dict[bytes, Link] = {}  # node id -> the link to use
        self._exports: WeakValueDictionary[bytes, channel] = WeakValueDictionary()
        self._references: WeakValueDictionary[bytes, RemoteChannel] = WeakValueDictionary()
        # What a link has read, until it is decoded. One for all: a fresh one for each read may cost the allocator four
        # system calls, which is half of a round trip.
        self.received = memoryview(bytearray(READ_BYTES))
        self._decoding: Link | None = None  # whose bytes are being decoded
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
        return any(is_awaited(grant.channel) for link in self.links for grant in link.grants.values())

    # -- spawned functions -----------------------------------------------------------------------------------

    @property
    def spawned(self) -> int:
        """How many tasklets run here for others."""
        return sum(len(link.spawned) for link in self.links)

    def drain(self, on_drained: Callable[[], object]) -> None:
        """Start nothing more for others, and call something when what runs for them has ended."""
        self.stopping = True
        self._on_drained = on_drained
        self.spawned_ended()

    def spawned_ended(self) -> None:
        """To be called when a tasklet that ran for others has ended."""
        if self._on_drained is not None and not self.spawned:
            self._on_drained()

    # -- links -----------------------------------------------------------------------------------------------

    def listen(
        self,
        address: Address,
        security: Security | None = None,
        *,
        insecure: bool = False,
        background: bool = False,
    ) -> Listener:
        """Accept connections at an address. A `background` listener does not keep `run()` or a deadlock waiting.

        Raises BadAddress, AddressInUse.
        """
        listener = Listener(self, address, security, insecure=insecure, background=background)
        self.listeners.append(listener)
        return listener

    def adopt(self, sock: socket.socket, where: str, identity: Identity | None = None) -> Link:
        """Start a session over a connected socket; `identity` when the other end has proved who it is."""
        link = Link(self, sock, where)
        link.identity = identity
        if link.lost is None:
            self.links.add(link)
        return link

    def dial(self, address: Address, security: Security | None = None) -> Link:
        """Open a session of its own with the node at an address. Blocks.

        Raises PeerUnreachable, AuthenticationError.
        """
        with answering(address, CONNECT_SECONDS):
            return self._open(address, security)

    def find(self, address: Address, name: str, seconds: float, security: Security | None = None) -> channel:
        """Get the channel that the node at an address publishes under a name. Blocks.

        Raises PeerUnreachable, AuthenticationError, NameNotFound, PeerLost.
        """
        with answering(address, seconds):
            link, reused = self._session(address, security)
            try:
                return self._lookup(link, name)
            except PeerLost:
                if not reused:
                    raise
            # It had ended before, and the loop had no turn to notice. To ask again does no harm.
            return self._lookup(self._session(address, security)[0], name)

    def _session(self, address: Address, security: Security | None) -> tuple[Link, bool]:
        """The session with the node at an address that all who name the address share, and whether it is an
        old one. Blocks to open it.
        """
        key = str(address), security
        known = self._dialled.get(key)
        if known is not None:
            return known, True
        link = self._open(address, security)
        if link.lost is None:
            self._dialled[key] = link
        return link, False

    def _open(self, address: Address, security: Security | None) -> Link:
        sock, identity = open_connection(self.reactor, address, security)
        link = self.adopt(sock, str(address), identity)
        try:
            link.opened.park()
        except PeerLost as error:
            if link.asked_for is not None:
                raise AuthenticationError(
                    f"no session with the node at {address}: {link.asked_for}; {advise(link.asked_for.methods)}"
                ) from None
            raise PeerUnreachable(
                f"what answers at {address} is no node of ours ({error}); is the port right?"
            ) from None
        except BaseException:
            link.lose("it did not introduce itself")
            raise
        return link

    def link_to(
        self, home: bytes, addresses: tuple[str, ...], label: str, introducers: Iterable[Link] = ()
    ) -> Link:
        """The link to a node that a reference names. Blocks when it has to connect. Raises PeerLost.

        We prove who we are as we did to those who gave us the reference, or else as our environment says; on this
        machine, where the node may ask for nothing, also not at all.
        """
        known = self._by_peer.get(home)
        if known is not None:
            return known
        reasons = []
        for text in addresses:
            try:
                link = self._follow(parse_address(text), introducers)
            except (AuthenticationError, BadAddress, BadCredentials, PeerUnreachable) as error:
                reasons.append(str(error))
                continue
            if link.peer is not None and link.peer.node_id == home:
                return link
            reasons.append(f"the node at {text} is another one now (restarted?)")
        why = "; ".join(reasons) or "it has no address, and no connection to it is open"
        raise PeerLost(f"the home of {label} cannot be reached: {why}", peer=label, outcome="not taken")

    def _follow(self, address: Address, introducers: Iterable[Link]) -> Link:
        """The session with the node at an address that a reference names. Blocks."""
        proved = next((one.identity.security for one in introducers if one.identity is not None), None)
        security = proved or choose_security()
        with answering(address, CONNECT_SECONDS):
            try:
                return self._session(address, security)[0]
            except AuthenticationError:
                if security is None or not address.is_loopback:
                    raise
                return self._session(address, None)[0]

    def link_opened(self, link: Link) -> None:
        assert link.peer is not None
        self._by_peer.setdefault(link.peer.node_id, link)
        link.opened.wake()

    def link_lost(self, link: Link) -> None:
        """Use the link for nothing new."""
        self.links.discard(link)
        if link.peer is not None and self._by_peer.get(link.peer.node_id) is link:
            del self._by_peer[link.peer.node_id]
        key = link.where, link.identity.security if link.identity is not None else None
        if self._dialled.get(key) is link:
            del self._dialled[key]

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
            user_of.windows.leave(channel_id)

    def exported(self, channel_id: bytes) -> channel | None:
        """A channel of this node, while somebody holds it."""
        return self._exports.get(channel_id)

    def reference(self, channel_id: bytes) -> RemoteChannel | None:
        """The reference to a channel of another node, while somebody here holds it."""
        return self._references.get(channel_id)

    # -- frames ----------------------------------------------------------------------------------------------

    def decode(self, link: Link, protocol: Protocol, data: memoryview) -> list[wire.Frame]:
        """Let a link's protocol read what arrived; references in it are known to have come over that link."""
        self._decoding = link
        return protocol.receive(data)

    # -- names -----------------------------------------------------------------------------------------------

    def _lookup(self, link: Link, name: str) -> channel:
        lookup = _Lookup(f"{link.name} to look up {name!r}")
        link.ask(lookup, lambda op: (wire.LOOKUP, op, name))
        found = lookup.wait.park()
        assert isinstance(found, channel)
        return found


class _Lookup:
    answered_by = wire.FOUND

    def __init__(self, what: str) -> None:
        self.wait = Wait(what)

    def answer(self, value: Any) -> bool:
        self.wait.wake(value)
        return True

    def fail(self, error: BaseException) -> None:
        self.wait.fail(error)


def _on_hello(link: Link, frame: wire.Frame) -> None:
    link.node.link_opened(link)


def _on_goodbye(link: Link, frame: wire.Frame) -> None:
    reason = frame[1]
    link.lose(f"it ended: {reason}" if reason else "it ended")


def _on_lookup(link: Link, frame: wire.Frame) -> None:
    _, op, name = frame
    node = link.node
    found = _status.offer(node) if name == _status.NAME else node.names.get(name)
    if found is not None:
        link.send((wire.FOUND, op, found))
        return
    published = ", ".join(sorted(node.names)) or "nothing"
    link.tell(
        (wire.RAISE, op),
        NameNotFound(f"no channel is published as {name!r} at {node.name}; published: {published}"),
    )


Node.handlers = {
    wire.HELLO: _on_hello,
    wire.GOODBYE: _on_goodbye,
    wire.LOOKUP: _on_lookup,
    **_operations.HANDLERS,
    **_exports.HANDLERS,
    **_references.HANDLERS,
    **_spawning.HANDLERS,
}


def status() -> NodeStatus:
    """Return what goes on in this process, as a node of the network: its sessions, its channels, who waits."""
    return _status.collect(get_node())


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
