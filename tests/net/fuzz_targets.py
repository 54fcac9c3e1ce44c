"""What a fuzzer may send to net, and what must hold whatever it sends. `tests.net.fuzz` draws it, test_fuzz repeats it.

Each target takes bytes, and raises when something else than RemoteProtocolError comes out, when something of the peer
is left after its end, or when it has made a node keep more than the limits allow.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Final

from net import _wire as wire
from net._bulk import Incoming
from net._codec import Codec
from net._entries import RemoteReceiver, RemoteSender
from net._handshake import NO_SECRET, NONCE_BYTES, Handshake, State, derive_key
from net._landing import Spare
from net._link import Link
from net._protocol import Hello, Protocol
from net._references import RemoteChannel
from net._session import Limits, Session
from net.errors import RemoteProtocolError
from net.facets import receive_only, send_only
from net.places import Spawned
from net.settings import Settings
from net.testing import MemoryNetwork, memory_network
from net.testing._memory import scatter
from net.watching import monitor
from tasklets import NotSendable, TaskletError, channel, select, sleep, tasklet

STRANGE: Final = b"nobody has this!"
NODE: Final = b"the fuzzing node"
MAX_HELD: Final = (
    4 * 1024 * 1024
)  # bytes that one program of frames, which has far fewer, may make a node keep
LIMITS: Final = Limits(512 * 1024, 256 * 1024)
SETTINGS: Final = Settings(max_message_bytes=LIMITS.max_message_bytes, bulk_bytes=LIMITS.bulk_bytes)


class Source:
    """Bytes of a fuzzer, drawn as what is wanted. When they are used up everything is 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def over(self) -> bool:
        return self._at >= len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def bytes(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def rest(self) -> bytes:
        return self.bytes(len(self._data) - self._at) if not self.over else b""

    def one_of(self, several: Any) -> Any:
        return several[self.byte() % len(several)]

    def chunks(self) -> list[bytes]:
        """The rest, in pieces as a network might bring it."""
        size = (1, 7, 64, 1 << 20)[self.byte() % 4]
        rest = self.rest()
        return [rest[at : at + size] for at in range(0, len(rest), size)]


# -- bytes: preface, batches, codec ----------------------------------------------------------------------------------


def described(one: channel) -> Any:
    return (STRANGE, (one.name or "").encode().ljust(16, b".")[:16], one.capacity, one.name, (), 3)


def resolve(description: Any) -> channel:
    return channel(min(description[2], 10), description[3])


def make_codec() -> Codec:
    return Codec(described, resolve)


def fuzz_bytes(data: bytes) -> None:
    """Bytes at any place of a stream: from its beginning, after the HELLO, as one well-formed batch, as parts."""
    source = Source(data)
    how = source.byte() % 4
    codec = make_codec()
    session = Session(STRANGE, codec)
    protocol = Protocol(Hello(NODE, session=STRANGE), codec, session)
    incoming = Incoming(LIMITS, Spare())
    try:
        if how:
            peer = Protocol(Hello(STRANGE, session=STRANGE), make_codec(), Session(STRANGE, make_codec()))
            protocol.receive(peer.opening())
        if how == 2:
            batch = source.rest()
            feed(protocol, incoming, [wire.BATCH.pack(wire.NUMBER_BYTES + len(batch), 1, 0) + batch])
        elif how == 3:
            for stream, part in enumerate(source.chunks()):
                incoming.begin(stream, len(part), None)
                if part:
                    incoming.part(stream, part)
        else:
            feed(protocol, incoming, source.chunks())
    except RemoteProtocolError as error:
        check_one_line(str(error))


def check_one_line(message: str) -> None:
    """What a stranger has said must not look like several lines of a log."""
    assert "\n" not in message, f"more than one line: {message!r}"


def feed(protocol: Protocol, incoming: Incoming, pieces: list[bytes]) -> None:
    for piece in pieces:
        for frame in protocol.receive(piece) if piece else ():
            assert type(frame) is tuple
            again(frame)
        assert len(protocol._buffer) <= wire.MAX_BATCH_BYTES + wire.BATCH.size


def again(frame: wire.Frame) -> None:
    """What was read can be written, and is read as the same."""
    codec = make_codec()
    try:
        data = codec.encode(frame)
    except NotSendable:
        return
    assert len(codec.decode(data)) == 1


# -- the handshake ---------------------------------------------------------------------------------------------------

KEY: Final = derive_key(b"a secret of the fuzzer")


def fuzz_handshake(data: bytes) -> None:
    """Frames of a handshake in any order, some of them right; nobody is let in who does not know the key."""
    source = Source(data)
    accepting, methods = bool(source.byte() & 1), source.one_of((1, 2, 3))
    nonce = bytes(NONCE_BYTES)
    ours = Handshake(accepting=accepting, keys=[KEY], methods=methods, nonce=nonce)
    # The other end knows the key (and what it says may be cut and changed), or does not.
    knows = source.byte() & 1
    theirs = Handshake(
        accepting=not accepting,
        keys=[KEY if knows else NO_SECRET],
        methods=methods,
        nonce=b"n" * NONCE_BYTES,
    )
    said = theirs.opening() if not accepting else ours.opening()
    try:
        if accepting:
            said = answer(theirs, said)
        for _ in range(6):
            change = source.byte()
            if change & 1:
                at, what = source.byte(), source.bytes(1 + (change >> 1) % 8)
                said = said[:at] + what + said[at + len(what) * (change >> 7) :]
            reply = answer(ours, said)
            if ours.state is State.ACCEPTED:
                assert knows, "let in without the key"
                return
            said = answer(theirs, reply)
        if ours.wanted:
            ours.receive(b"")
    except RemoteProtocolError:
        pass


def answer(end: Handshake, said: bytes) -> bytes:
    out = b""
    while said and end.wanted:
        size = min(end.wanted, len(said))
        out += end.receive(said[:size])
        said = said[size:]
    return out


# -- frames: anything that is valid, in any order, to a node where something goes on ---------------------------------

KINDS: Final = [
    "ValueError",
    "PeerLost",
    "ChannelClosed",
    "Odd",
    "OSError",
    "UnicodeDecodeError",
    "SystemExit",
]
KINDS_MORE: Final = [
    "KeyboardInterrupt",
    "GreenletExit",
    "TaskletExit",
    "StopIteration",
    "ExceptionGroup",
    "Timeout",
]
SPAWNED: Final = [
    "tests.net.peers:close",
    "tests.net.peers:send_all",
    "nowhere:nothing",
    ":",
    "tests.net.peers",
]
NUMBERS: Final = [1, 2, 3, 4, 5, 0, 7, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
FAULTS: Final = (AttributeError, KeyError, TypeError, AssertionError, IndexError, NameError, ReferenceError)


class Feed:
    """A transport whose other end is a fuzzer: bytes come when it says so, and it may not read."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = self.closed = self.blocked = False
        self._on_readable: Callable[[], object] = lambda: None
        self._on_writable: Callable[[], object] = lambda: None

    def start(self, on_readable: Callable[[], object], on_writable: Callable[[], object]) -> None:
        self._on_readable, self._on_writable = on_readable, on_writable

    def on_readable(self) -> None:
        if not self.closed and (self.data or self.ended):
            self._on_readable()

    def on_writable(self) -> None:
        if not self.closed and not self.blocked:
            self._on_writable()

    def receive_into(self, buffer: memoryview) -> int:
        if not self.data and not self.ended:
            raise BlockingIOError
        size = min(len(buffer), len(self.data))
        buffer[:size] = self.data[:size]
        self.data = self.data[size:]
        return size

    def receive_pieces(self, buffers: Sequence[Any]) -> tuple[int, Any, int, Any]:
        return scatter(self.receive_into, buffers)

    def send(self, data: bytes | memoryview) -> int:
        if self.blocked:
            raise BlockingIOError
        return len(data)

    def send_pieces(self, pieces: Sequence[bytes | memoryview]) -> int:
        return self.send(b"".join(pieces))

    def wait_writable(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def linger(self, deadline: float) -> None:
        return None


class Peer:
    """The fuzzer as a peer of a node at home."""

    def __init__(self, network: MemoryNetwork, source: Source) -> None:
        self.source = source
        self.home = network.node("home")
        how = source.byte()
        self.home.accepts_spawn = bool(how & 1)
        self.home_opens = bool(how & 2)  # the session
        self.channels = [channel(0, "inbox"), channel(4, "window"), channel(1, "narrow", copy=True)]
        self.channels += [send_only(self.channels[0]), receive_only(self.channels[1])]
        for one in self.channels:
            self.home.names[one.name or "?"] = one
        self.references: list[channel] = []  # that home was given
        self.busy: list[tasklet] = []
        self.codec = Codec(self.describe, resolve)
        self.session = Session(STRANGE, self.codec)
        self.streams = 0
        self.batch: list[bytes] = []
        self.feed = Feed()
        patience = 1000 * (source.byte() % 3)
        self.link = self.connect(Hello(STRANGE, name="two\nlines", session=STRANGE, patience_ms=patience))

    def meet(self) -> None:
        """Both are given channels of the other; everything else is up to the fuzzer."""
        for op, name in enumerate(self.home.names, 1000):
            self.say((wire.LOOKUP, op, name))
        window = self.channels[1]
        self.say((wire.SEND, self.home.id_of(window), tuple(channel(0, str(number)) for number in range(4))))
        self.flush()
        if window.balance:
            self.references += window.receive()

    def connect(self, hello: Hello) -> Link:
        self.feed = Feed()
        link = self.home.adopt_transport(self.feed, "fuzzer", opens=self.home_opens)
        if self.home_opens:
            hello = replace(hello, session=link.session.session_id)
        self.write(Protocol(hello, self.codec, self.session).opening())
        return link

    def describe(self, one: channel) -> Any:
        """A channel in a message of the fuzzer: its own, or one of home's."""
        number = int(one.name or 0)
        if number < 4:
            return (STRANGE, bytes([number]) * 16, number % 3 * 2, "theirs", (), 1 + number % 3)
        own = self.channels[number % len(self.channels)]
        return (self.home.id, self.home.id_of(own), own.capacity, own.name, (), 3)

    def write(self, data: bytes) -> None:
        self.feed.data += data
        self.home.call_soon(self.feed.on_readable)

    # -- what is drawn ---------------------------------------------------------------------------------------

    def value(self) -> Any:
        source = self.source
        kind = source.byte() % 10
        if kind < 5:
            return (None, 1, "text", (), b"bytes")[kind]
        if kind == 5:
            return bytes(source.byte() * 300)
        if kind in (6, 7):
            return channel(0, str(source.byte() % 10))
        return (self.value(), self.value()) if kind == 8 else {1: self.value()}

    def error(self) -> Any:
        kind = self.source.one_of(KINDS + KINDS_MORE)
        told = (kind, "two\nlines" if self.source.byte() & 1 else "message", "traceback")
        return (*told, self.value()) if self.source.byte() & 1 else told

    def id(self) -> bytes:
        number = self.source.byte() % 10
        if number < 2:
            return STRANGE
        return bytes([number]) * 16 if number < 5 else self.home.id_of(self.channels[number - 5])

    def field(self, kind: str) -> Any:
        source = self.source
        if kind == "id":
            return self.id()
        if kind == "uint":
            return source.one_of(NUMBERS)
        if kind == "count":
            return source.one_of(NUMBERS) or 9
        if kind == "text":
            return source.one_of(["inbox", "window", "narrow", "net.status", "two\nlines", *SPAWNED])
        if kind == "error":
            return self.error()
        if kind == "error or nil":
            return self.error() if source.byte() & 1 else None
        if kind == "args":
            return tuple(self.value() for _ in range(source.byte() % 3))
        if kind in ("kwargs", "map"):
            return {"where": self.value()} if source.byte() & 1 else {}
        if kind == "bytes":
            return bytes(1 + source.byte() * 200)
        if kind == "subject":
            return (None, self.id(), source.one_of(NUMBERS))[source.byte() % 3]
        return self.value()

    def frame(self, kind: int) -> wire.Frame:
        return (kind, *(self.field(each) for _, each in wire.FRAMES[kind].fields))

    # -- what it does ----------------------------------------------------------------------------------------

    def say(self, frame: wire.Frame) -> None:
        try:
            self.batch.append(self.codec.encode(frame))
        except NotSendable:
            pass
        if sum(map(len, self.batch)) > 100_000:
            self.flush()

    def flush(self) -> None:
        batch, self.batch = self.batch, []
        if batch:
            self.write_batch(b"".join(batch))
        sleep(0.001)

    def write_batch(self, batch: bytes) -> None:
        self.session.sent += 1
        number, received = self.session.sent, self.link.session.sent
        self.write(wire.BATCH.pack(wire.NUMBER_BYTES + len(batch), number, received) + batch)

    def large(self) -> None:
        """Announce a frame, and bring so much of it."""
        frame = self.frame(
            self.source.one_of([wire.SEND, wire.SPAWN, wire.ITEM, wire.RAISE, wire.ACK, wire.BOMB])
        )
        try:
            data = self.codec.encode(frame)
        except NotSendable:
            return
        subject = frame[1] if frame[0] in (wire.SEND, wire.BOMB, wire.SPAWN) else None
        self.say((wire.LARGE, self.streams, len(data), subject))
        end = len(data) if self.source.byte() & 1 else self.source.byte()
        if data[:end]:
            self.say((wire.PART, self.streams, data[: min(end, wire.PART_BYTES)]))
        self.streams += 1

    def reconnect(self) -> None:
        self.flush()
        self.feed.ended = True
        self.home.call_soon(self.feed.on_readable)
        sleep(0.01)
        received = self.link.session.sent if self.source.byte() & 3 else self.source.one_of(NUMBERS[:8])
        self.session.sent = self.link.session.received
        fresh = self.connect(
            Hello(STRANGE, session=STRANGE, resumes=True, received=received, patience_ms=1000)
        )
        sleep(0.01)
        if self.link.lost is not None and fresh.lost is None:
            self.link = fresh

    def do(self, function: Callable[..., object], *args: Any) -> None:
        """Let a tasklet at home do something that may wait."""

        def act() -> None:
            try:
                function(*args)
            except Exception as error:
                if isinstance(error, FAULTS) and not isinstance(error, TaskletError):
                    raise

        self.busy.append(tasklet(act)())

    def take(self, where: channel) -> None:
        got = where.receive()
        if isinstance(got, RemoteChannel):
            self.references.append(got)

    def use(self) -> None:
        """Home does something with a channel: its own, or one that came in a message."""
        source = self.source
        everything = [*self.channels, *self.references]
        one = source.one_of(everything)
        action = source.byte() % 10
        if action == 0:
            self.do(self.take, one)
        elif action == 1:
            self.do(one.send, self.plain())
        elif action == 2:
            other = source.one_of(everything)
            self.do(select, [(one, 1), other] if source.byte() & 1 else [one, other])
        elif action == 3:
            self.do(select, [(one, self.plain()), (source.one_of(everything), 2)])
        elif action == 4:
            self.do(one.close)
        elif action == 5:
            self.do(one.send_exception, ValueError, "from home")
        elif action == 6 and self.references:
            self.references.pop(source.byte() % len(self.references))
        elif action == 7:
            self.do(lambda: monitor(one).receive())
        elif action == 8:
            self.do(self.look_up, "theirs")
        elif action == 9:
            self.do(self.spawn)
        sleep(0.001)

    def look_up(self, name: str) -> None:
        found = self.home._lookup(self.link, name)
        if isinstance(found, RemoteChannel):
            self.references.append(found)

    def spawn(self) -> None:
        spawned = Spawned("theirs:function", "fuzzer")
        self.link.ask(spawned, lambda op: (wire.SPAWN, op, "theirs:function", (self.plain(),), {}))
        tasklet(join_quietly)(spawned)  # when nobody joins any more, for that was killed, a failure is main's
        spawned.join()

    def plain(self) -> Any:
        return self.source.one_of([1, bytes(9000), bytes(200_000), self.channels[1], object()])

    def act(self) -> None:
        source = self.source
        what = source.byte() % 44
        if what in wire.FRAMES and what != wire.HELLO:
            self.say(self.frame(what))
        elif what in (0, 29):
            self.flush()
        elif what < 36:
            self.flush()
            self.use()
        elif what == 36 and self.busy:
            self.busy.pop(source.byte() % len(self.busy)).kill()
        elif what == 37:
            self.flush()
            self.write_batch(source.bytes(1 + source.byte() % 64))
        elif what == 38:
            self.feed.blocked = not self.feed.blocked
            self.home.call_soon(self.feed.on_writable)
            sleep(0.001)
        elif what == 39:
            self.flush()
            sleep((0.1, 1.5, 20.0)[source.byte() % 3])
        elif what in (40, 41, 42):
            self.large()
        elif what == 43 and not self.home_opens:
            self.reconnect()

    def finish(self) -> None:
        """The peer ends, and nothing of it may be left."""
        self.flush()
        check_held(self.link)
        self.feed.ended, self.feed.blocked = True, False
        self.home.call_soon(self.feed.on_readable)
        sleep(60.0)
        assert not self.home.links, f"{self.home.links} is left"
        assert not self.home._sessions
        assert not len(self.home.offers)
        for one in self.busy:
            where = one._channel
            assert not isinstance(where, RemoteChannel), f"{one} still waits at {where}"
            if one.alive:
                one.kill()
        for one in self.channels[:3]:
            first = one._first if one.capacity == 0 else None  # what was sent ahead stays
            assert not isinstance(first, (RemoteSender, RemoteReceiver)), f"{first} is left in {one}"
        for reference in self.references:
            assert isinstance(reference, RemoteChannel)
            assert not reference._receivers
            assert not reference._unanswered


def join_quietly(spawned: Spawned) -> None:
    with suppress(Exception):
        spawned.join()


def check_held(link: Link) -> None:
    """What a node keeps for one peer is bounded, whatever the peer said."""
    waiting = sum(grant.waiting_bytes for grant in link.grants.values())
    deferred = sum(len(line) for line in link.incoming.in_line.values())
    assert waiting < MAX_HELD, waiting
    assert deferred < 5000, deferred
    assert link.incoming._active_bytes <= LIMITS.max_message_bytes
    for grant in link.grants.values():
        assert grant.used <= grant.window + 1, f"{grant.used} under way of {grant.window}"


class _Faults(logging.Handler):
    """Raises what net has logged as its own fault."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            self.found = self.found or record.exc_info[1]
        elif "\n" in message:
            self.found = self.found or AssertionError(f"more than one line: {message!r}")


@contextmanager
def faults() -> Any:
    handler, log = _Faults(), logging.getLogger("net")
    log.addHandler(handler)
    propagated, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.propagate = propagated
        log.removeHandler(handler)
    if handler.found is not None:
        raise handler.found


def fuzz_frames(data: bytes) -> None:
    """Frames to a node, in any order, while tasklets there use the same channels."""
    source = Source(data[:2000])
    simulated = memory_network(0, delay=(0.0, 0.0001), settings=SETTINGS)
    with faults(), simulated as network, network.at("home"):
        peer = Peer(network, source)
        sleep(0.001)
        if source.byte() & 1:
            peer.meet()
        while not source.over:
            peer.act()
        peer.finish()


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "bytes": fuzz_bytes,
    "handshake": fuzz_handshake,
    "frames": fuzz_frames,
}
