"""A network in memory, with a clock made by hand, whose delays and troubles are drawn from a seed."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

from net.addresses import Address, TcpAddress, UnixAddress
from net.errors import AddressInUse, BadAddress, PeerUnreachable
from net.node import Node, _here
from net.settings import Settings
from tasklets import run, sleep, tasklet
from tasklets.debug import waiting
from tasklets.testing import VirtualClock, virtual_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from net._link import Link

BUFFER_BYTES = 256 * 1024  # under way in one direction of a connection


@contextmanager
def memory_network(
    seed: int = 0, *, delay: tuple[float, float] = (0.0001, 0.005), settings: Settings | None = None
) -> Iterator[MemoryNetwork]:
    """A network for a block, with a virtual clock (tasklets.testing.virtual_clock).

    `delay` is between what each piece of a stream takes at least and at most, in seconds.
    """
    with virtual_clock() as clock:
        network = MemoryNetwork(clock, seed, delay, settings or Settings())
        try:
            yield network
        finally:
            network.close()


class MemoryNetwork:
    """Nodes with names, which are their hosts: "tcp://bank:7000" is port 7000 of the node "bank"."""

    def __init__(
        self, clock: VirtualClock, seed: int, delay: tuple[float, float], settings: Settings
    ) -> None:
        self.clock = clock
        self.seed = seed
        self.random = Random(seed)  # noqa: S311  it has to be repeatable
        self.delay = delay
        self.settings = settings
        self.nodes: dict[str, Node] = {}
        self.cuts = 0  # connections that were cut
        self._listeners: dict[tuple[str, int], MemoryListener] = {}
        self._connections: list[tuple[MemoryTransport, MemoryTransport]] = []
        self._groups: list[frozenset[str]] = []  # nodes of different ones do not hear each other
        self._held: dict[MemoryTransport, None] = {}  # whose bytes wait for `heal`, in order
        self._tasklets: dict[str, list[tasklet]] = {}
        self._next_port = 50_000
        self._next_connection = 0

    def __repr__(self) -> str:
        return f"<MemoryNetwork seed={self.seed} nodes={', '.join(self.nodes)} cuts={self.cuts}>"

    # -- nodes -----------------------------------------------------------------------------------------------

    def node(self, name: str, **changes: Any) -> Node:
        """The node of a name, made when it is first asked for; then with these settings changed."""
        known = self.nodes.get(name)
        if known is None:
            known = self.nodes[name] = Node(
                name, accepts_spawn=True, settings=replace(self.settings, **changes), network=self
            )
        return known

    @contextmanager
    def at(self, name: str) -> Iterator[Node]:
        """Let the calling tasklet belong to a node for a block: `with network.at("bank"): net.serve(...)`."""
        token = _here.set(self.node(name))
        try:
            yield self.node(name)
        finally:
            _here.reset(token)

    def run_at(self, name: str, function: Callable[..., object], *args: Any) -> tasklet:
        """Start a tasklet that belongs to a node."""
        context = copy_context()
        context.run(_here.set, self.node(name))
        one = tasklet(function)(*args)
        one.set_context(context)
        one.name = f"{getattr(function, '__name__', 'tasklet')} at {name}"
        living = self._tasklets.setdefault(name, [])
        living[:] = [other for other in living if other.alive]
        living.append(one)
        return one

    def run(self) -> None:
        """Let everything run, like `tasklets.run()`."""
        run()

    def kill(self, name: str) -> None:
        """End a node as SIGKILL ends a process: no goodbye, its tasklets stop, its connections break.

        Asking for `node(name)` again starts it again: another one, at the same addresses if it listens there.
        """
        node = self.nodes.pop(name)
        for pair in list(self._connections):
            if node in (pair[0].owner, pair[1].owner):
                self._break(pair, reset=True)
        for one in self._tasklets.pop(name, []):
            if one.alive:
                one.kill(pending=True)
        for listener in list(node.listeners):
            listener.stop()
        for link in list(node.links):
            link.lose("this node was killed")
        node.close()

    def close(self) -> None:
        """End all nodes, with a goodbye, and the tasklets that belong to them: to those that were killed, too."""
        self.heal()
        for node in list(self.nodes.values()):
            node.close()
        self.nodes.clear()
        started = [one for living in self._tasklets.values() for one in living if one.alive]
        for one in dict.fromkeys(
            [*started, *filter(self._is_ours, waiting())]
        ):  # those that these have started
            one.kill(pending=True)
        self._tasklets.clear()
        self._connections.clear()

    def _is_ours(self, one: tasklet) -> bool:
        home = one.context_run(_here.get)
        return home is not None and home.network is self

    # -- trouble ---------------------------------------------------------------------------------------------

    def cut(self, one: str | None = None, other: str | None = None) -> int:
        """Break the connections (between two nodes, or of one, or all) at a random byte of what is under way.

        Returns how many.
        """
        names = {name for name in (one, other) if name is not None}
        hit = [
            pair
            for pair in self._connections
            if names <= {pair[0].owner.name, pair[1].owner.name} and pair[0].is_open
        ]
        for pair in hit:
            self._break(pair, reset=self.random.random() < 0.5)
        return len(hit)

    def partition(self, *groups: set[str]) -> None:
        """Let nothing pass between the nodes of different groups; those in none are in one of their own.

        What is under way waits, as with TCP. Who hears nothing for its `silence` gives its connections up.
        """
        self._groups = [frozenset(group) for group in groups]
        for pair in self._connections:
            if self._is_parted(pair[0].owner.name, pair[1].owner.name):
                for end in pair:
                    end.owner.reactor.call_later(end.owner.settings.silence, self._notice_silence, pair, end)

    def heal(self) -> None:
        """Let everything pass again."""
        self._groups = []
        held, self._held = self._held, {}
        for end in held:
            end.pump()

    def trouble(self, *, cuts: int = 0, partitions: int = 0, seconds: float) -> None:
        """Draw so many cuts and partitions, each at a random moment of the seconds to come."""
        reactor = next(iter(self.nodes.values())).reactor if self.nodes else self.node("nobody").reactor
        for _ in range(cuts):
            reactor.call_later(self.random.uniform(0, seconds), self.cut)
        for _ in range(partitions):
            start = self.random.uniform(0, seconds)
            reactor.call_later(start, self._part_somebody)
            reactor.call_later(start + self.random.uniform(0.01, 3.0), self.heal)

    def _part_somebody(self) -> None:
        if len(self.nodes) > 1:
            self.partition({self.random.choice(sorted(self.nodes))})

    def _is_parted(self, one: str, other: str) -> bool:
        if one == other or not self._groups:
            return False
        return self._group_of(one) != self._group_of(other)

    def _group_of(self, name: str) -> frozenset[str]:
        return next((group for group in self._groups if name in group), frozenset())

    def _notice_silence(self, pair: tuple[MemoryTransport, MemoryTransport], end: MemoryTransport) -> None:
        if self._is_parted(pair[0].owner.name, pair[1].owner.name):
            link = self._link_over(end)
            if link is not None:
                link.cut(f"no sign of life for {end.owner.settings.silence:g} s")

    def _link_over(self, end: MemoryTransport) -> Link | None:
        return next((link for link in end.owner.links if link._transport is end), None)

    def _break(self, pair: tuple[MemoryTransport, MemoryTransport], *, reset: bool) -> None:
        self.cuts += 1
        for end in pair:
            end.break_off(reset)
        self._forget(pair[0])

    def _forget(self, end: MemoryTransport) -> None:
        self._connections = [pair for pair in self._connections if end not in pair]

    def draw_delay(self) -> float:
        return self.random.uniform(*self.delay)

    # -- what nodes call -------------------------------------------------------------------------------------

    def listen(self, node: Node, address: Address) -> MemoryListener:
        """Let a node accept connections at a port of its own, whatever the host that it says."""
        if isinstance(address, UnixAddress):
            raise BadAddress(f"a memory network has no {address}; listen at tcp://{node.name}:PORT")
        port = address.port
        if not port:
            port, self._next_port = self._next_port, self._next_port + 1
        if (node.name, port) in self._listeners:
            raise AddressInUse(
                f"tcp://{node.name}:{port} is in use; choose another port (0: the network chooses)"
            )
        listener = self._listeners[node.name, port] = MemoryListener(self, node, TcpAddress(node.name, port))
        return listener

    def connect(self, node: Node, address: Address) -> MemoryTransport:
        """Connect a node. Blocks. Raises PeerUnreachable."""
        host = getattr(address, "host", "")
        if host in ("localhost", "127.0.0.1"):
            host = node.name
        sleep(self.draw_delay())
        while self._is_parted(node.name, host):
            sleep(0.1)  # a packet that nobody answers is sent again
        listener = self._listeners.get((host, getattr(address, "port", 0)))
        if listener is None:
            raise PeerUnreachable(f"nobody listens at {address} in {self!r}")
        ours, theirs = MemoryTransport(self, node), MemoryTransport(self, listener.node)
        ours.other, theirs.other = theirs, ours
        self._connections.append((ours, theirs))
        self._next_connection += 1
        listener.accept(theirs, f"{node.name}:{self._next_connection}")
        return ours


class MemoryListener:
    """An open port of a node."""

    def __init__(self, network: MemoryNetwork, node: Node, address: TcpAddress) -> None:
        self.address: Address = address
        self.node = node
        self._network = network
        self._links: list[Link] = []

    def __repr__(self) -> str:
        return f"<MemoryListener {self.address}>"

    def accept(self, transport: MemoryTransport, where: str) -> None:
        self._links = [link for link in self._links if link.lost is None]
        self._links.append(self.node.adopt_transport(transport, where))

    def stop(self) -> None:
        """Accept no more connections."""
        assert isinstance(self.address, TcpAddress)
        listeners: list[Any] = self.node.listeners  # of either kind
        if self in listeners:
            listeners.remove(self)
            self._network._listeners.pop((self.node.name, self.address.port), None)

    def close(self) -> None:
        """Accept no more connections, and say goodbye on those that came in here."""
        self.stop()
        for link in list(self._links):
            link.close()


class MemoryTransport:
    """One end of a connection: see net._transport.Transport."""

    def __init__(self, network: MemoryNetwork, owner: Node) -> None:
        self.owner = owner
        self.other: MemoryTransport | None = None
        self.is_open = True  # neither closed nor broken
        self._network = network
        self._on_readable: Callable[[], object] | None = None
        self._on_writable: Callable[[], object] = lambda: None
        self._wants_room = False
        self._arrived = bytearray()
        self._ending: str | None = None  # what comes after it: "end" or "reset"
        # On the way to the other end: (when, bytes); None is the end of the stream, "reset" that it breaks.
        self._under_way: deque[tuple[float, bytes | str]] = deque()
        self._bytes_under_way = 0
        self._timer: Callable[[], None] | None = None
        self._deaf = False  # broken: what is sent goes nowhere

    # -- what a link calls -----------------------------------------------------------------------------------

    def start(self, on_readable: Callable[[], object], on_writable: Callable[[], object]) -> None:
        self._on_readable, self._on_writable = on_readable, on_writable
        if self._arrived or self._ending:
            self.owner.reactor.call_soon(self._tell)

    def receive_into(self, buffer: memoryview) -> int:
        if self._arrived:
            size = min(len(self._arrived), len(buffer))
            buffer[:size] = self._arrived[:size]
            del self._arrived[:size]
            if self._arrived or self._ending:
                self.owner.reactor.call_soon(self._tell)
            return size
        if self._ending == "reset":
            raise ConnectionResetError(104, "Connection reset by peer")
        if self._ending:
            return 0
        raise BlockingIOError

    def receive_pieces(self, buffers: Sequence[Any]) -> tuple[int, Any, int, Any]:
        return scatter(self.receive_into, buffers)

    def send(self, data: bytes | memoryview) -> int:
        if self._deaf:
            return len(data)  # the system takes it; that it goes nowhere is found out later
        room = BUFFER_BYTES - self._bytes_under_way
        if room <= 0:
            raise BlockingIOError
        taken = bytes(data[:room])
        cut = self._network.random.randrange(1, len(taken)) if len(taken) > 1 else 0
        for piece in (taken[:cut], taken[cut:]):
            if piece:
                self._add(piece)
        return len(taken)

    def send_pieces(self, pieces: Sequence[bytes | memoryview]) -> int:
        return self.send(b"".join(pieces))

    def wait_writable(self) -> None:
        self._wants_room = True

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self._add("end")
            self._network._forget(self)
        self._on_readable = None
        self._wants_room = False

    def linger(self, deadline: float) -> None:
        return None

    # -- what the network does -------------------------------------------------------------------------------

    def _add(self, what: bytes | str) -> None:
        now = self.owner.now()
        due = max(now + self._network.draw_delay(), self._under_way[-1][0] if self._under_way else 0.0)
        self._under_way.append((due, what))
        self._bytes_under_way += len(what) if isinstance(what, bytes) else 0
        self.pump()

    def pump(self) -> None:
        """See to it that what is under way arrives in its time."""
        if self._timer is None and self._under_way:
            self._timer = self.owner.reactor.call_later(
                self._under_way[0][0] - self.owner.now(), self._arrive
            )

    def _arrive(self) -> None:
        self._timer = None
        assert self.other is not None
        if self._network._is_parted(self.owner.name, self.other.owner.name):
            self._network._held[self] = None  # `heal` goes on
            return
        while self._under_way and self._under_way[0][0] <= self.owner.now():
            _, what = self._under_way.popleft()
            if isinstance(what, bytes):
                self._bytes_under_way -= len(what)
                self.other._arrived += what
            else:
                self.other._ending = what
        self.pump()
        self.other._tell()
        if self._wants_room and self._bytes_under_way < BUFFER_BYTES // 2:
            self._wants_room = False
            self._on_writable()

    def _tell(self) -> None:
        if self._on_readable is not None and (self._arrived or self._ending):
            self._on_readable()

    def break_off(self, reset: bool) -> None:
        """Lose a random part of what is under way, and let the other end find out later."""
        if self._deaf:
            return
        self._deaf, self.is_open = True, False
        whole = [what for _, what in self._under_way if isinstance(what, bytes)]
        keep = self._network.random.randint(0, sum(map(len, whole)))
        self._under_way = deque(entry for entry in self._under_way if not isinstance(entry[1], str))
        kept: deque[tuple[float, bytes | str]] = deque()
        for when, what in self._under_way:
            assert isinstance(what, bytes)
            if keep <= 0:
                break
            kept.append((when, what[:keep]))
            keep -= len(what)
        self._under_way = kept
        self._bytes_under_way = 0
        if self._timer is not None:
            self._timer()
            self._timer = None
        self._add("reset" if reset else "end")
        if self._wants_room:
            self._wants_room = False
            self.owner.reactor.call_soon(self._on_writable)


def scatter(receive_into: Callable[[memoryview], int], buffers: Sequence[Any]) -> tuple[int, Any, int, Any]:
    """What `recvmsg_into` is to `recv_into`."""
    data = memoryview(bytearray(sum(map(len, buffers))))
    size = receive_into(data)
    left = data[:size]
    for buffer in buffers:
        view = memoryview(buffer)
        count = min(len(view), len(left))
        view[:count] = left[:count]
        left = left[count:]
    return size, [], 0, None
