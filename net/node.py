"""This process as a node of the network: its links, names, exported channels and references to others'.

There is one node per OS thread that uses the network, made on first use (`get_node`). Programs meet it
through `serve`, `connect` and `open_place`; the command line makes one that also starts tasklets for others
(`accepts_spawn`).
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from contextvars import ContextVar
from dataclasses import replace
from random import Random
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Protocol as Interface
from weakref import WeakValueDictionary

from net import _wire as wire
from net._codec import Codec, Description
from net._entries import is_awaited
from net._gate import Gate, later
from net._grants import Export
from net._landing import Spare
from net._link import LOOK_SECONDS, Link
from net._monitors import Monitors
from net._negotiation import Identity, advise
from net._offers import Offers
from net._protocol import PULSE, Hello, Protocol
from net._references import RemoteChannel
from net._rights import rights_of
from net._runway import Runway
from net._session import Limits, Session
from net._sockets import CONNECT_SECONDS, Listener, answering, open_connection
from net._transport import SocketTransport
from net.addresses import Address, parse_address
from net.errors import (
    AuthenticationError,
    BadAddress,
    BadCredentials,
    NetError,
    PeerLost,
    PeerUnreachable,
    RemoteProtocolError,
)
from net.security import Security, choose_security
from net.settings import Settings
from tasklets import channel, sleep
from tasklets._core import Wait, get_scheduler

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from net._delivery import Delivered
    from net._transport import Transport

log = logging.getLogger("net")

# One read: a burst of small messages, and no more than the kernel's buffer usually holds.
READ_BYTES = 256 * 1024
OPEN_ATTEMPTS = 3  # to be introduced, when the connection is made and ends at once
OPEN_PAUSE = 0.05
SPARE_SECONDS = 1.0  # without a large message, after which the memory for the next ones is given back
LAST_WORDS_SECONDS = 0.5  # for all peers to read what is queued for them when the process ends


class Network(Interface):
    """Where nodes meet that is not the operating system's: tests have one in memory (net.testing)."""

    random: Random

    def listen(self, node: Node, address: Address) -> Any:
        """What `Node.listen` says."""

    def connect(self, node: Node, address: Address) -> Transport:
        """What `Node.connect_to` says."""


class Node:
    """One process (strictly: one OS thread) in the network."""

    # What to do about each type of frame, and about a message in its turn: `_dispatch` says it.
    handlers: ClassVar[dict[int, Callable[[Link, wire.Frame], None]]]
    take_message: Callable[[Link, wire.Frame, int, int], None]  # static

    def __init__(
        self,
        name: str = "",
        *,
        accepts_spawn: bool = False,
        settings: Settings | None = None,
        network: Network | None = None,
    ) -> None:
        self.network = network  # that it is in; None: the operating system's
        self.random = network.random if network is not None else Random()  # noqa: S311  only spreads attempts in time
        self.settings = settings or Settings()
        self.id = self.draw_id()
        self.name = name or f"pid {os.getpid()}"
        self.accepts_spawn = accepts_spawn
        self.delivered: Delivered | None = None  # of a child process: functions that its parent handed to it
        self.stopping = False  # starts nothing more for others
        self._on_drained: Callable[[], object] | None = None
        self.scheduler = get_scheduler()
        self.reactor = self.scheduler.get_reactor()
        self.now: Callable[[], float] = self.reactor.monotonic
        self.call_soon = self.reactor.call_soon if network is not None else self.reactor.loop.run_callback
        self.codec = Codec(self._export, self._resolve)
        self.names: dict[str, channel] = {}
        self.links: set[Link] = set()
        self.listeners: list[Listener] = []
        self.gate = Gate(self.reactor.loop if network is None else None)  # through which strangers come in
        # address, and by what both ends proved who they are -> the link opened to it
        self._dialled: dict[tuple[str, Security | None], Link] = {}
        self._dialling: dict[tuple[str, Security | None], list[Wait]] = {}  # the same -> who waits for it
        self._by_peer: dict[bytes, Link] = {}  # node id -> the link to use
        self._sessions: dict[bytes, Link] = {}  # that others have opened, by the session's id
        self.monitors = Monitors()
        self.offers = Offers(self)
        self.dead_letters = 0  # messages that arrived and could be given to nobody
        self.on_dead_letter: Callable[[Any, str], object] | None = None
        self._exports: WeakValueDictionary[bytes, channel] = WeakValueDictionary()
        self._references: WeakValueDictionary[bytes, RemoteChannel] = WeakValueDictionary()
        # What a link has read, until it is decoded. One for all: a fresh one for each read may cost the allocator four
        # system calls, which is half of a round trip.
        self.received = memoryview(bytearray(READ_BYTES))
        self.runway = Runway(self.received)
        self.look_seconds = LOOK_SECONDS if _processors() > 1 else 0.0  # see there
        self.spare = Spare()  # memory of large messages, for the next ones
        self._cancel_tidying: Callable[[], None] | None = None  # the timer that will give it back
        self._planned_pulses: dict[Link, Callable[[], None]] = {}  # for whom -> what cancels the timer
        self.decoding: Link | None = None  # whose bytes are being decoded: references in them came over it
        self.scheduler.sources.append(self._may_wake_somebody)
        if network is None:  # a send on a channel with room has returned before the message has left
            self._process_id = os.getpid()
            atexit.register(self._close_at_exit)
            self.scheduler.endings.append(self.close)

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.id.hex()[:8]} links={len(self.links)}>"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node can be reached."""
        return tuple(str(listener.address) for listener in self.listeners)

    @property
    def hello(self) -> Hello:
        addresses = self.addresses[: wire.MAX_ADDRESSES]
        return Hello(
            self.id,
            addresses,
            self.name[: wire.MAX_TEXT_CHARS],
            limits=self.limits,
            silence_ms=int(self.settings.silence * 1000),
        )

    @property
    def limits(self) -> Limits:
        return Limits(self.settings.max_message_bytes, self.settings.bulk_bytes)

    def draw_id(self) -> bytes:
        """An id that nobody has and nobody guesses. (In the memory network of a test: drawn by its seed.)"""
        return self.random.randbytes(wire.ID_BYTES) if self.network is not None else os.urandom(wire.ID_BYTES)

    def _may_wake_somebody(self) -> bool:
        """True when others may still call on something here: run() goes on waiting then."""
        if self.listeners and self.names:
            return True
        if self.monitors.are_awaited:
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
        if self.network is not None:
            listener: Any = self.network.listen(self, address)
        else:
            listener = Listener(self, address, security, insecure=insecure, background=background)
        self.listeners.append(listener)
        return listener  # type: ignore[no-any-return]  # of the network it is another kind

    def adopt(
        self, sock: socket.socket, where: str, identity: Identity | None = None, *, opens: bool = False
    ) -> Link:
        """Start a session over a connected socket, or go on with one that its other end names.

        Who `opens` speaks first; the two ends of a connection must differ in that. A stage that comes before, such as
        authentication, has had the socket before this, and gives the other end's `identity`. A session over a socket
        that nobody can connect again (a socket pair) ends with it.
        """
        return self.adopt_transport(SocketTransport(self.reactor.loop, sock), where, identity, opens=opens)

    def adopt_transport(
        self,
        transport: Transport,
        where: str,
        identity: Identity | None = None,
        *,
        opens: bool = False,
        address: Address | None = None,
        security: Security | None = None,
    ) -> Link:
        """The same for any transport. The session is resumed by connecting to `address`, if it has one."""
        patience = 0.0
        if address is not None:
            patience = self.settings.patience_towards(address.is_loopback)
        elif not opens:
            patience = self.settings.patience or 0.0  # else what the other side asks for
        link = Link(self, where, opens=opens, address=address, patience=patience)
        link.identity, link.security = identity, security
        self.links.add(link)
        link.attach(transport)
        return link

    def connect_to(
        self, address: Address, security: Security | None = None
    ) -> tuple[Transport, Identity | None]:
        """A connection to an address, on which both ends have proved who they are where that is asked for. Blocks.

        Raises PeerUnreachable, AuthenticationError.
        """
        if self.network is not None:
            return self.network.connect(self, address), None
        sock, identity = open_connection(self.reactor, address, security)
        return SocketTransport(self.reactor.loop, sock), identity

    def welcome(self, link: Link, peer: Hello) -> None:
        """A peer has introduced itself over a connection that it made. Raises RemoteProtocolError."""
        if peer.session is None:
            raise RemoteProtocolError("its HELLO names no session")
        known = self._sessions.get(peer.session)
        if known is not None and (known.peer is None or known.peer.node_id != peer.node_id):
            raise RemoteProtocolError("its HELLO names the session of another node")
        if known is not None and not _is_same(known.identity, link.identity):
            raise RemoteProtocolError(
                "its HELLO names the session of a node that has proved to be another one"
            )
        if known is not None and peer.purpose == PULSE:
            self._take_pulse(known, link)
        elif known is not None:
            known.take_over(link, peer)
        elif peer.resumes or peer.purpose == PULSE:
            link.refuse("it asks for a session that has ended here")
        else:
            self._sessions[peer.session] = link
            link.enter(peer, link.patience)

    # -- the memory of large messages, see net._landing ------------------------------------------------------

    def tidy_later(self) -> None:
        """Give back what is kept for the next large messages, when none come any more."""
        if self._cancel_tidying is None and len(self.spare) and self.network is None:
            self._cancel_tidying = later(self.reactor.loop, SPARE_SECONDS, self._tidy)

    def _tidy(self) -> None:
        self._cancel_tidying = None
        if self.spare.tidy():
            self.tidy_later()

    # -- the pulse of sessions, see net._pulse ---------------------------------------------------------------

    def plan_pulse(self, link: Link) -> None:
        """Open a pulse for a session soon, if it is ours to do and there is where."""
        if link.opens and self.network is None and link.lost is None:
            self._forget_pulse(link)
            seconds = self.settings.heartbeat / 4
            self._planned_pulses[link] = later(self.reactor.loop, seconds, self._start_pulse, link)

    def _forget_pulse(self, link: Link) -> None:
        cancel = self._planned_pulses.pop(link, None)
        if cancel is not None:
            cancel()

    def _start_pulse(self, link: Link) -> None:
        self._forget_pulse(link)
        if link.state in ("open", "stalled"):
            import gevent

            gevent.spawn(self._open_pulse, link)  # no tasklet: run() does not wait for it

    def _open_pulse(self, link: Link) -> None:
        assert link.peer is not None
        addresses = [link.address] if link.address is not None else map(parse_address, link.peer.addresses)
        for address in addresses:
            try:
                with answering(address, CONNECT_SECONDS):
                    sock = self._greet_for_pulse(link, address)
            except (NetError, OSError) as error:
                log.info("%s: no pulse over %s: %s", link.name, address, error)
                continue
            if link.state in ("open", "stalled"):
                link.beat_over(sock)
            else:
                sock.close()
            return
        self.plan_pulse(link)

    def _greet_for_pulse(self, link: Link, address: Address) -> socket.socket:
        """A connection to the peer on which both have said that it is for the pulse of a session. Blocks."""
        assert link.peer is not None
        session_id = link.session.session_id
        protocol = Protocol(
            replace(self.hello, session=session_id, purpose=PULSE),
            self.codec,
            Session(session_id, self.codec),
        )
        transport, _ = self.connect_to(address, link.security)
        assert isinstance(transport, SocketTransport)
        answered = Wait(f"{link.name} to answer for a pulse")
        buffer = memoryview(bytearray(wire.MAX_HELLO_BYTES))

        def read() -> None:
            try:
                size = transport.receive_into(buffer)
                protocol.receive(buffer[:size])
                if protocol.peer is not None or not size:
                    answered.wake()
            except BlockingIOError:
                return
            except (OSError, RemoteProtocolError) as error:
                answered.fail(error)

        try:
            transport.start(read, lambda: None)
            transport.send(protocol.opening())
            answered.park()
            peer = protocol.peer
            if peer is None or peer.session != session_id or peer.node_id != link.peer.node_id:
                raise PeerUnreachable(f"what answers at {address} knows nothing of the session")
            return transport.detach()
        except BaseException:
            transport.close()
            raise

    def _take_pulse(self, link: Link, fresh: Link) -> None:
        """A peer has opened a connection for the pulse of a session."""
        transport, protocol = fresh.give_up_transport()
        hello = replace(self.hello, session=link.session.session_id, purpose=PULSE)
        transport.send(protocol.join(Session(link.session.session_id, self.codec), hello))
        assert isinstance(transport, SocketTransport)
        link.beat_over(transport.detach())

    # -- finding others --------------------------------------------------------------------------------------

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
        while True:
            known = self._dialled.get(key)
            if known is not None:
                return known, True
            if key not in self._dialling:
                break
            others = Wait(f"the session with {address}, which another tasklet opens")
            self._dialling[key].append(others)
            others.park()  # if it fails we try ourselves: that one may have had less time, or was killed
        waiting = self._dialling[key] = []
        try:
            link = self._open(address, security)
            if link.lost is None:
                self._dialled[key] = link
        finally:
            del self._dialling[key]
            for others in waiting:
                others.wake()
        return link, False

    def _open(self, address: Address, security: Security | None) -> Link:
        for attempt in range(OPEN_ATTEMPTS):
            transport, identity = self.connect_to(address, security)
            link = self.adopt_transport(
                transport, str(address), identity, opens=True, address=address, security=security
            )
            try:
                link.opened.park()
            except PeerLost as error:
                if link.asked_for is not None:
                    raise AuthenticationError(
                        f"no session with the node at {address}: {link.asked_for}; {advise(link.asked_for.methods)}"
                    ) from None
                if attempt + 1 < OPEN_ATTEMPTS and not link.refused:
                    sleep(OPEN_PAUSE)  # the connection may have been cut just then
                    continue
                raise PeerUnreachable(
                    f"what answers at {address} is no node of ours ({error}); is the port right?"
                ) from None
            except BaseException:
                link.lose("it did not introduce itself")
                raise
            return link
        raise AssertionError

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
        self.plan_pulse(link)

    def link_lost(self, link: Link) -> None:
        """Use the link for nothing new."""
        self.links.discard(link)
        self._forget_pulse(link)
        if link.peer is not None and self._by_peer.get(link.peer.node_id) is link:
            del self._by_peer[link.peer.node_id]
        key = link.where, link.identity.security if link.identity is not None else None
        if self._dialled.get(key) is link:
            del self._dialled[key]
        if self._sessions.get(link.session.session_id) is link:
            del self._sessions[link.session.session_id]

    def _close_at_exit(self) -> None:
        # The child of a fork has the connections, too, but they are its parent's.
        if os.getpid() == self._process_id:
            self.close()

    def close(self) -> None:
        """Stop listening, and say goodbye to every peer. Sends what is queued for them; blocks the process for
        that, for LAST_WORDS_SECONDS at most.
        """
        deadline = monotonic() + LAST_WORDS_SECONDS
        for listener in list(self.listeners):
            listener.stop()
        for link in list(self.links):
            link.finish(deadline)
        if self._cancel_tidying is not None:
            self._cancel_tidying()
        if self._may_wake_somebody in self.scheduler.sources:
            self.scheduler.sources.remove(self._may_wake_somebody)
        atexit.unregister(self._close_at_exit)
        if self.close in self.scheduler.endings:
            self.scheduler.endings.remove(self.close)

    # -- channels as values ----------------------------------------------------------------------------------

    def id_of(self, one: channel) -> bytes:
        """The id of a channel in the network; a channel of this process gets one when it is first asked
        for.
        """
        if isinstance(one, RemoteChannel):
            return one._id
        if one._observer is None:
            channel_id = self.draw_id()
            one._observer = Export(channel_id, self, one)
            self._exports[channel_id] = one
        export = one._observer
        assert isinstance(export, Export)
        if export.node is not self:
            raise NetError(
                f"{one!r} lives at the node {export.node.name}, and {self.name} was not given it over the network; "
                "nodes in one process must meet over the network, too"
            )
        return export.channel_id

    def _export(self, one: channel) -> Description:
        if isinstance(one, RemoteChannel):
            return (one._home, one._id, one.capacity, one.name, one._addresses, one._rights)
        addresses = self.addresses[: wire.MAX_ADDRESSES]
        return (self.id, self.id_of(one), one.capacity, one.name, addresses, rights_of(one))

    def _resolve(self, description: Description) -> channel:
        home, channel_id, capacity, name, addresses, rights = description
        if home == self.id:
            own = self._exports.get(channel_id)
            if own is None:
                raise PeerLost(
                    f"the channel {name or channel_id.hex()[:8]!r} was dropped here by everybody that held it"
                )
            self._return_grant(channel_id)
            return own
        link = self.decoding
        assert link is not None
        assert link.peer is not None
        reference = self._references.get(channel_id)
        if reference is None or (reference._link is not None and reference._link.lost is not None):
            if link.peer.node_id == home and not addresses:
                addresses = link.peer.addresses
            reference = RemoteChannel(self, home, channel_id, capacity, name, addresses, rights)
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
        assert self.decoding is not None
        self.reactor.call_soon(self.decoding.notify, (wire.RELEASE, channel_id, 1))

    def drop(self, channel_id: bytes, introducers: dict[Link, int], user_of: Link | None) -> None:
        """A reference was collected, on whatever thread: tell those that gave it."""
        if threading.get_ident() == self.scheduler.thread_id:
            self.reactor.call_soon(self._release, channel_id, introducers, user_of)
        else:
            self.reactor.call_from_elsewhere(self._release, channel_id, introducers, user_of)

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

    def decode_large(self, link: Link, data: bytes) -> list[wire.Frame]:
        """The same for a frame that came in parts."""
        self.decoding = link
        return self.codec.decode(data)

    def count_dead_letter(self, link: Link, value: Any, reason: str) -> None:
        """A peer's message cannot be given to anybody. Its sender is told; so is who asked to be."""
        self.dead_letters += 1
        if self.on_dead_letter is not None:
            try:
                self.on_dead_letter(value, f"from {link.name}: {reason}")
            except Exception:  # a hook's fault is not the peer's
                log.exception("the hook for dead letters failed")

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


def _is_same(known: Identity | None, fresh: Identity | None) -> bool:
    """Has who resumes a session proved to be who opened it?"""
    if known is None or fresh is None:
        return known is fresh
    return (known.security, known.name) == (fresh.security, fresh.name)


_local = threading.local()
# In the memory network of a test several nodes share an OS thread: which one a tasklet belongs to is in its context.
_here: ContextVar[Node | None] = ContextVar("node", default=None)


def get_node() -> Node:
    """The node of the calling OS thread, made when it is first asked for."""
    node: Node | None = _here.get() or getattr(_local, "node", None)
    if node is None:
        node = _local.node = Node()
    return node


def existing_node() -> Node | None:
    """The node of the calling OS thread, if it has one."""
    return _here.get() or getattr(_local, "node", None)


def set_node(node: Node) -> None:
    """Make a node that was made by hand the one of the calling OS thread."""
    _local.node = node


def _processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
