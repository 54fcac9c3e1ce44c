"""The systems that bench_net.py compares: for each a server in a process of its own, and a client that measures.

A system is a context manager that starts its server, and has a method for each question it can answer:

    round_trips(seconds)        the times of requests that each wait for the answer to the one before
    requests(seconds)           answers per second with 64 requests under way
    one_way(seconds, payload)   messages per second that are only counted at the other end
    beside_large(seconds, size) round trip times while messages of `size` bytes go the same way
    memory()                    the server's bytes per idle reference and per idle connection
    resumes(seconds)            the times of requests whose connection was cut just before

One way means that the last message was counted at the other end before the clock is stopped. Everyone does it in
the way its documentation suggests; serializers are msgpack, or the system's own where it has no choice.
"""

import contextlib
import gc
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from time import perf_counter, sleep
from typing import Any

from measuring import Missing, resident_bytes

MESSAGE = ("deposit", "acct-17", 125, 42)
SECRET = "known to both ends, and to whoever reads the benchmark"
OUTSTANDING = 64
WINDOW = 1024  # messages that may run ahead, one way
LOOK = 100  # messages between two looks at the clock, one way
PAUSE = 0.001  # seconds between two small requests beside large messages
REFERENCES = 2000
CONNECTIONS = 200

Times = list[float]


class System:
    """The base: a server of this system runs from `with` to its end."""

    name = ""

    def __enter__(self) -> "System":
        self._server, address = start_server(self.name)
        try:
            self.connect(address)
        except BaseException:
            self._server.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.wait()
        for stream in (self._server.stdin, self._server.stdout):
            if stream is not None:
                stream.close()

    def connect(self, address: str) -> None:
        raise NotImplementedError


def start_server(name: str) -> tuple["subprocess.Popen[str]", str]:
    """Start the server of a system; return it with what it says about where it is."""
    script = os.path.join(os.path.dirname(__file__), "bench_net.py")
    server = subprocess.Popen(
        [sys.executable, script, "--serve", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    if not address:
        server.kill()
        server.wait()
        raise SystemExit(f"error: the server of {name} ended before it was ready; see above")
    return server, address


def announce(address: object) -> None:
    """In a server: say where it is, and end when the client does."""
    print(address, flush=True)

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def repeat(
    call: Callable[[], object], seconds: float, pause: Callable[[float], object] | None = None
) -> Times:
    """Call until the time is over; return how long each call took."""
    for _ in range(3):
        call()
    times: Times = []
    now = perf_counter()
    end = now + seconds
    while now < end:
        call()
        after = perf_counter()
        times.append(after - now)
        if pause is not None:
            pause(PAUSE)
            after = perf_counter()
        now = after
    return times


def pour(send: Callable[[Any], object], count: Callable[[], int], seconds: float, payload: Any) -> float:
    """Send for some time, wait until everything was counted; return messages per second."""
    for _ in range(LOOK):
        send(payload)
    count()
    begun = perf_counter()
    sent = 0
    while perf_counter() - begun < seconds:
        few = LOOK if len(payload) < 1000 else 8
        for _ in range(few):
            send(payload)
        sent += few
    counted = count()
    taken = perf_counter() - begun
    if counted != sent:
        raise SystemExit(f"error: {sent} messages were sent and {counted} were counted")
    return sent / taken


def pull_window(send: Callable[[], object], receive: Callable[[], object], seconds: float) -> float:
    """Keep 64 requests under way on one connection; return answers per second."""
    for _ in range(OUTSTANDING):
        send()
    begun = perf_counter()
    answers = 0
    while perf_counter() - begun < seconds:
        for _ in range(OUTSTANDING):
            receive()
            send()
        answers += OUTSTANDING
    taken = perf_counter() - begun
    for _ in range(OUTSTANDING):
        receive()
    return answers / taken


def in_threads(open_caller: Callable[[], Callable[[], object]], seconds: float) -> float:
    """64 threads that each wait for their answers; return answers per second."""
    callers = [open_caller() for _ in range(OUTSTANDING)]
    counts: list[int] = []

    def work(call: Callable[[], object]) -> None:
        count = 0
        while perf_counter() < end:
            call()
            count += 1
        counts.append(count)

    for call in callers:
        call()
    begun = perf_counter()
    end = begun + seconds
    threads = [threading.Thread(target=work, args=(call,)) for call in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (perf_counter() - begun)


@contextlib.contextmanager
def in_background(call: Callable[[], object]) -> Iterator[None]:
    """Call again and again from another thread."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            call()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


# ------------------------------------------------------------------------------------------------- this one


def serve_net() -> None:
    from net import serve
    from tasklets import channel, tasklet

    def echo(requests: Any, replies: Any) -> None:
        for request in requests:
            replies.send(request)

    def count(stream: Any, replies: Any) -> None:
        seen = 0
        for message in stream:
            if message is None:
                replies.send(seen)
                seen = 0
            else:
                seen += 1

    def hold(stream: Any, replies: Any) -> None:
        kept = []
        for message in stream:
            if message is None:
                gc.collect()
                replies.send(resident_bytes())
            else:
                kept.append(message)

    def listen(wanted: Any, replies: Any) -> None:
        open_ones = []
        for number in range(wanted.receive()):
            open_ones.append(serve("tcp://127.0.0.1:0", **{f"c{number}": wanted}))
            replies.send(open_ones[-1].url(f"c{number}"))
        wanted.receive()

    jobs = {"echo": echo, "count": count, "hold": hold, "listen": listen}
    lobby = channel(WINDOW)
    with serve("tcp://127.0.0.1:0", lobby=lobby) as server:
        announce(server.url("lobby"))
        for job, capacity, replies in lobby:
            requests = channel(capacity)
            tasklet(jobs[job])(requests, replies)
            replies.send(requests)


class Net(System):
    """Channels of this package: one connection, and a pair of channels per conversation. Both ends know a secret."""

    name = "net"

    def __enter__(self) -> "Net":
        os.environ["TASKLETS_SECRET"] = SECRET  # for this process and the server's
        super().__enter__()
        return self

    def connect(self, address: str) -> None:
        import net

        self._lobby = net.connect(address, timeout=20)

    def _open(self, job: str, capacity: int = WINDOW) -> tuple[Any, Any]:
        from tasklets import channel

        replies = channel(WINDOW)
        self._lobby.send((job, capacity, replies))
        return replies.receive(), replies

    def round_trips(self, seconds: float) -> Times:
        requests, replies = self._open("echo")

        def call() -> None:
            requests.send(MESSAGE)
            replies.receive()

        return repeat(call, seconds)

    def taken_sends(self, seconds: float) -> Times:
        """Sends on a channel without room: each returns when the message has been received."""
        requests, _ = self._open("hold", 0)
        return repeat(lambda: requests.send(MESSAGE), seconds)

    def requests(self, seconds: float) -> float:
        from tasklets import run, tasklet

        def work(requests: Any, replies: Any) -> None:
            while perf_counter() < end:
                requests.send(MESSAGE)
                replies.receive()
                counts[0] += 1

        counts = [0]
        conversations = [self._open("echo") for _ in range(OUTSTANDING)]
        for conversation in conversations:
            tasklet(work)(*conversation)
        begun = perf_counter()
        end = begun + seconds
        run()
        return counts[0] / (perf_counter() - begun)

    def one_way(self, seconds: float, payload: Any) -> float:
        stream, replies = self._open("count")

        def count() -> int:
            stream.send(None)
            counted: int = replies.receive()
            return counted

        return pour(stream.send, count, seconds, payload)

    def beside_large(self, seconds: float, size: int) -> Times:
        import tasklets

        def flood() -> None:
            while not over:
                bulk.send(payload)

        over: list[bool] = []
        payload = os.urandom(size)
        bulk, _ = self._open("count", 2)
        requests, replies = self._open("echo")

        def call() -> None:
            requests.send(MESSAGE)
            replies.receive()

        flooding = tasklets.tasklet(flood)()
        times = repeat(call, seconds, tasklets.sleep)
        over.append(True)
        flooding.kill()
        return times

    def resumes(self, seconds: float) -> Times:
        from net.node import get_node

        requests, replies = self._open("echo")
        (link,) = get_node().links

        def call() -> None:
            link.cut("this is measured")
            requests.send(MESSAGE)
            replies.receive()

        return repeat(call, seconds)

    def memory(self) -> tuple[float, float]:
        import net
        from tasklets import channel

        stream, replies = self._open("hold")

        def measured() -> int:
            stream.send(None)
            size: int = replies.receive()
            return size

        stream.send(tuple(channel(1) for _ in range(10)))
        before = measured()
        channels = [channel(1) for _ in range(REFERENCES)]
        for place in range(0, REFERENCES, 100):
            stream.send(tuple(channels[place : place + 100]))
        per_reference = (measured() - before) / REFERENCES
        wanted, addresses = self._open("listen")
        wanted.send(CONNECTIONS)
        urls = [addresses.receive() for _ in range(CONNECTIONS)]
        net.connect(urls[0])
        before = measured()
        kept = [net.connect(url) for url in urls[1:]]
        per_connection = (measured() - before) / len(kept)
        return per_reference, per_connection


class NetTls(Net):
    """The same over TLS; both ends show certificates."""

    name = "net-tls"

    def __enter__(self) -> "NetTls":
        try:
            from net.certificates import make_authority, make_certificate
        except ImportError as reason:
            raise Missing(str(reason)) from None
        self._folder = tempfile.TemporaryDirectory()
        make_authority(self._folder.name)
        tls = make_certificate(self._folder.name, "benchmark")
        os.environ.update(TASKLETS_TLS_CA=str(tls.ca), TASKLETS_TLS_CERT=str(tls.certificate))
        os.environ["TASKLETS_TLS_KEY"] = str(tls.key)
        super().__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        super().__exit__(*details)
        self._folder.cleanup()


# ------------------------------------------------------------------------------- bare gevent sockets, msgpack


def serve_gevent() -> None:
    import msgpack
    from gevent.server import StreamServer

    def handle(sock: Any, _: object) -> None:
        tune(sock)
        unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=1 << 28)
        seen = 0
        while data := sock.recv(65536):
            unpacker.feed(data)
            for job, message in unpacker:
                if job == "echo":
                    sock.sendall(msgpack.packb(message))
                elif message is not None:
                    seen += 1
                elif job == "count":
                    sock.sendall(msgpack.packb(seen))
                    seen = 0
                else:
                    gc.collect()
                    sock.sendall(msgpack.packb(resident_bytes()))

    server = StreamServer(("127.0.0.1", 0), handle)
    server.start()
    announce(server.server_port)
    server.serve_forever()


def tune(sock: Any) -> None:
    import socket

    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Gevent(System):
    """The naive way: a connection per conversation, one send per message."""

    name = "gevent"

    def connect(self, address: str) -> None:
        self._port = int(address)

    def _open(self, job: str) -> tuple[Callable[[Any], None], Callable[[], Any]]:
        import msgpack
        from gevent import socket

        sock = socket.create_connection(("127.0.0.1", self._port))
        tune(sock)
        unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=1 << 28)
        pack = msgpack.Packer().pack

        def send(message: Any) -> None:
            sock.sendall(pack((job, message)))

        def receive() -> Any:
            while True:
                for message in unpacker:
                    return message
                unpacker.feed(sock.recv(65536))

        return send, receive

    def _caller(self) -> Callable[[], None]:
        send, receive = self._open("echo")

        def call() -> None:
            send(MESSAGE)
            receive()

        return call

    def round_trips(self, seconds: float) -> Times:
        return repeat(self._caller(), seconds)

    def requests(self, seconds: float) -> float:
        import gevent

        def work(call: Callable[[], None]) -> None:
            while perf_counter() < end:
                call()
                counts[0] += 1

        counts = [0]
        callers = [self._caller() for _ in range(OUTSTANDING)]
        begun = perf_counter()
        end = begun + seconds
        gevent.joinall([gevent.spawn(work, call) for call in callers], raise_error=True)
        return counts[0] / (perf_counter() - begun)

    def one_way(self, seconds: float, payload: Any) -> float:
        send, receive = self._open("count")

        def count() -> int:
            send(None)
            counted: int = receive()
            return counted

        return pour(send, count, seconds, payload)

    def beside_large(self, seconds: float, size: int) -> Times:
        import gevent

        def flood() -> None:
            while True:
                send(payload)

        payload = os.urandom(size)
        send, _ = self._open("count")
        flooding = gevent.spawn(flood)
        times = repeat(self._caller(), seconds, gevent.sleep)
        flooding.kill()
        return times

    def memory(self) -> tuple[float | None, float]:
        def measured() -> int:
            send(None)
            size: int = receive()
            return size

        send, receive = self._open("memory")
        before = measured()
        kept = [self._caller() for _ in range(CONNECTIONS)]
        for call in kept:
            call()
        return None, (measured() - before) / CONNECTIONS


# ---------------------------------------------------------------------------------------- multiprocessing.Pipe


def echo_and_count(connection: Any) -> None:
    """Echo what comes as ("echo", message), count the rest."""
    seen = 0
    while True:
        try:
            job, message = connection.recv()
        except EOFError:
            return
        if job == "echo":
            connection.send(message)
        elif message is not None:
            seen += 1
        else:
            connection.send(seen)
            seen = 0


class Pipe(System):
    """multiprocessing.Pipe: pickle over a socket pair, between parent and child only."""

    name = "pipe"

    def __enter__(self) -> "Pipe":
        import multiprocessing

        self._ours, theirs = multiprocessing.Pipe()
        self._child = multiprocessing.Process(target=echo_and_count, args=(theirs,), daemon=True)
        self._child.start()
        theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.join()

    def round_trips(self, seconds: float) -> Times:
        def call() -> None:
            self._ours.send(("echo", MESSAGE))
            self._ours.recv()

        return repeat(call, seconds)

    def requests(self, seconds: float) -> float:
        return pull_window(lambda: self._ours.send(("echo", MESSAGE)), self._ours.recv, seconds)

    def one_way(self, seconds: float, payload: Any) -> float:
        def count() -> int:
            self._ours.send(("count", None))
            counted: int = self._ours.recv()
            return counted

        return pour(lambda message: self._ours.send(("count", message)), count, seconds, payload)


# ------------------------------------------------------------------------------------------------- execnet

EXECNET_ECHO = """
for _ in range(channel.receive()):
    one = channel.gateway.newchannel()
    one.setcallback(one.send)
    channel.send(one)
channel.receive()
"""
EXECNET_COUNT = """
seen = 0
for message in channel:
    if message is None:
        channel.send(seen)
        seen = 0
    else:
        seen += 1
"""


class Execnet(System):
    """execnet: channels over the pipe to an interpreter that it started; no flow control."""

    name = "execnet"

    def __enter__(self) -> "Execnet":
        try:
            import execnet
        except ImportError as error:
            raise Missing(error) from error
        self._group = execnet.Group()
        self._gateway = self._group.makegateway(f"popen//python={sys.executable}")
        self._sources: list[Any] = []  # what is not kept is closed
        return self

    def __exit__(self, *_: object) -> None:
        self._group.terminate(timeout=1)

    def _echoes(self, count: int) -> list[Any]:
        source = self._gateway.remote_exec(EXECNET_ECHO)
        self._sources.append(source)
        source.send(count)
        return [source.receive() for _ in range(count)]

    def round_trips(self, seconds: float) -> Times:
        (channel,) = self._echoes(1)

        def call() -> None:
            channel.send(MESSAGE)
            channel.receive()

        return repeat(call, seconds)

    def requests(self, seconds: float) -> float:
        def make_callback(channel: Any) -> Callable[[Any], None]:
            def answered(_: Any) -> None:
                counts[0] += 1
                if perf_counter() < end:
                    channel.send(MESSAGE)
                else:
                    finished.release()

            return answered

        counts = [0]
        finished = threading.Semaphore(0)
        channels = self._echoes(OUTSTANDING)
        begun = perf_counter()
        end = begun + seconds
        for channel in channels:
            channel.setcallback(make_callback(channel))
            channel.send(MESSAGE)
        for _ in channels:
            finished.acquire()
        return counts[0] / (perf_counter() - begun)

    def one_way(self, seconds: float, payload: Any) -> float:
        channel = self._gateway.remote_exec(EXECNET_COUNT)

        def count() -> int:
            channel.send(None)
            counted: int = channel.receive()
            return counted

        rate = pour(channel.send, count, seconds, payload)
        channel.close()
        return rate


# --------------------------------------------------------------------------------------------------- pyzmq


def serve_zmq() -> None:
    import msgpack
    import zmq

    context = zmq.Context()
    router, pull, counts = context.socket(zmq.ROUTER), context.socket(zmq.PULL), context.socket(zmq.PUSH)
    pull.set_hwm(WINDOW)
    ports = [one.bind_to_random_port("tcp://127.0.0.1") for one in (router, pull, counts)]

    def echo() -> None:
        while True:
            sender, body = router.recv_multipart()
            router.send_multipart((sender, msgpack.packb(msgpack.unpackb(body, use_list=False))))

    threading.Thread(target=echo, daemon=True).start()
    announce(" ".join(map(str, ports)))
    seen = 0
    while True:
        if msgpack.unpackb(pull.recv(), use_list=False) is not None:
            seen += 1
        else:
            counts.send(msgpack.packb(seen))
            seen = 0


class Zmq(System):
    """pyzmq: DEALER to ROUTER for requests, PUSH to PULL one way; msgpack; an I/O thread in C++."""

    name = "zmq"

    def __enter__(self) -> System:
        try:
            import zmq
        except ImportError as error:
            raise Missing(error) from error
        del zmq
        return super().__enter__()

    def connect(self, address: str) -> None:
        import msgpack
        import zmq

        context = zmq.Context()
        self._dealer, self._push, self._counts = (
            context.socket(kind) for kind in (zmq.DEALER, zmq.PUSH, zmq.PULL)
        )
        self._push.set_hwm(WINDOW)
        for one, port in zip((self._dealer, self._push, self._counts), address.split(), strict=True):
            one.linger = 0
            one.connect(f"tcp://127.0.0.1:{port}")
        self._pack, self._unpack = msgpack.Packer().pack, msgpack.unpackb

    def _call(self) -> None:
        self._dealer.send(self._pack(MESSAGE))
        self._unpack(self._dealer.recv(), use_list=False)

    def round_trips(self, seconds: float) -> Times:
        return repeat(self._call, seconds)

    def requests(self, seconds: float) -> float:
        return pull_window(
            lambda: self._dealer.send(self._pack(MESSAGE)),
            lambda: self._unpack(self._dealer.recv(), use_list=False),
            seconds,
        )

    def one_way(self, seconds: float, payload: Any) -> float:
        def count() -> int:
            self._push.send(self._pack(None))
            counted: int = self._unpack(self._counts.recv())
            return counted

        return pour(lambda message: self._push.send(self._pack(message)), count, seconds, payload)

    def beside_large(self, seconds: float, size: int) -> Times:
        import msgpack

        packed = msgpack.packb(os.urandom(size))
        with in_background(lambda: self._push.send(packed)):
            return repeat(self._call, seconds, sleep)


# ------------------------------------------------------------------------------------------------- zerorpc


def serve_zerorpc() -> None:
    import logging

    import zerorpc

    logging.disable()  # it complains of clients that ask for more of a stream that has just ended

    class Service:
        def echo(self, message: Any) -> Any:
            return message

        @zerorpc.stream
        def flood(self, count: int, payload: Any) -> Iterator[Any]:
            return iter([payload] * count)

    server = zerorpc.Server(Service())
    port = free_port()
    server.bind(f"tcp://127.0.0.1:{port}")
    announce(port)
    server.run()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Zerorpc(System):
    """zerorpc: requests over gevent and ZeroMQ; one way is a stream from the server."""

    name = "zerorpc"

    def __enter__(self) -> System:
        try:
            import zerorpc
        except ImportError as error:
            raise Missing(error) from error
        del zerorpc
        return super().__enter__()

    def connect(self, address: str) -> None:
        import zerorpc

        self._client = zerorpc.Client(f"tcp://127.0.0.1:{address}", timeout=60, heartbeat=None)

    def round_trips(self, seconds: float) -> Times:
        return repeat(lambda: self._client.echo(MESSAGE), seconds)

    def requests(self, seconds: float) -> float:
        import gevent

        def work() -> None:
            while perf_counter() < end:
                self._client.echo(MESSAGE)
                counts[0] += 1

        counts = [0]
        begun = perf_counter()
        end = begun + seconds
        gevent.joinall([gevent.spawn(work) for _ in range(OUTSTANDING)], raise_error=True)
        return counts[0] / (perf_counter() - begun)

    def one_way(self, seconds: float, payload: Any) -> float:
        def flood(count: int) -> float:
            begun = perf_counter()
            if sum(1 for _ in self._client.flood(count, payload)) != count:
                raise SystemExit("error: a zerorpc stream lost messages")
            return count / (perf_counter() - begun)

        return flood(max(100, int(flood(200) * seconds)))


# ---------------------------------------------------------------------------------------------------- RPyC


def serve_rpyc() -> None:
    import rpyc
    from rpyc.utils.server import ThreadedServer

    without_zlib()
    seen = [0]

    class Service(rpyc.Service):
        def exposed_echo(self, message: Any) -> Any:
            return message

        def exposed_put(self, message: Any) -> None:
            seen[0] += 1

        def exposed_total(self) -> int:
            total, seen[0] = seen[0], 0
            return total

    server = ThreadedServer(Service, hostname="127.0.0.1", port=0)
    announce(server.port)
    server.start()


def without_zlib() -> None:
    from rpyc.core.channel import Channel

    Channel.COMPRESSION_THRESHOLD = 1 << 40  # it would compress everything over 3 KB, at 60 MB/s


class Rpyc(System):
    """RPyC: a thread and a connection per caller; one way are asynchronous calls."""

    name = "rpyc"

    def __enter__(self) -> System:
        try:
            import rpyc
        except ImportError as error:
            raise Missing(error) from error
        del rpyc
        without_zlib()
        return super().__enter__()

    def connect(self, address: str) -> None:
        self._port = int(address)
        self._connections: list[Any] = []

    def _open(self) -> Any:
        import rpyc

        config = {"sync_request_timeout": 60}
        while True:
            try:
                self._connections.append(rpyc.connect("127.0.0.1", self._port, config=config))
            except ConnectionRefusedError:  # its server begins to listen after it has told its port
                sleep(0.01)
            else:
                return self._connections[-1].root

    def _caller(self) -> Callable[[], object]:
        echo = self._open().echo
        return lambda: echo(MESSAGE)

    def round_trips(self, seconds: float) -> Times:
        return repeat(self._caller(), seconds)

    def requests(self, seconds: float) -> float:
        return in_threads(self._caller, seconds)

    def one_way(self, seconds: float, payload: Any) -> float:
        import rpyc

        root = self._open()
        put, under_way = rpyc.async_(root.put), [0]

        def send(message: Any) -> None:
            result = put(message)
            under_way[0] += 1
            if under_way[0] % WINDOW == 0:
                result.wait()

        return pour(send, root.total, seconds, payload)


# --------------------------------------------------------------------------------------------------- Pyro5


def serve_pyro() -> None:
    import Pyro5.api

    configure_pyro()
    seen = [0]

    lock = threading.Lock()  # each oneway call is run by a thread of its own

    @Pyro5.api.expose
    class Service:
        def echo(self, message: Any) -> Any:
            return message

        @Pyro5.api.oneway
        def put(self, message: Any) -> None:
            with lock:
                seen[0] += 1

        def total(self) -> int:
            total, seen[0] = seen[0], 0
            return total

    daemon = Pyro5.api.Daemon(host="127.0.0.1", port=0)
    announce(daemon.register(Service(), "service"))
    daemon.requestLoop()


def configure_pyro() -> None:
    import Pyro5.api

    Pyro5.api.config.SERIALIZER = "msgpack"  # its own is text, and slower
    Pyro5.api.config.SERVERTYPE = "multiplex"


class Pyro(System):
    """Pyro5 with msgpack and its multiplexing server; one way are @oneway calls."""

    name = "pyro5"

    def __enter__(self) -> System:
        try:
            configure_pyro()
        except ImportError as error:
            raise Missing(error) from error
        return super().__enter__()

    def connect(self, address: str) -> None:
        self._uri = address

    def _open(self) -> Any:
        import Pyro5.api

        return Pyro5.api.Proxy(self._uri)

    def _caller(self) -> Callable[[], object]:
        proxies = threading.local()  # a proxy belongs to the thread that uses it first

        def call() -> None:
            if not hasattr(proxies, "own"):
                proxies.own = self._open()
            proxies.own.echo(MESSAGE)

        return call

    def round_trips(self, seconds: float) -> Times:
        return repeat(self._caller(), seconds)

    def requests(self, seconds: float) -> float:
        return in_threads(self._caller, seconds)

    def one_way(self, seconds: float, payload: Any) -> float:
        proxy = self._open()
        counted = [0]

        def count() -> int:
            counted[0] += proxy.total()
            while counted[0] < sent[0]:  # the last threads are still on their way
                counted[0] += proxy.total()
            total, counted[0], sent[0] = counted[0], 0, 0
            return total

        def send(message: Any) -> None:
            proxy.put(message)
            sent[0] += 1

        sent = [0]
        return pour(send, count, seconds, payload)


# ----------------------------------------------------------------------------------------------- Ray actors


class Ray(System):
    """Ray: a process per actor, and daemons beside it."""

    name = "ray"

    def __enter__(self) -> "Ray":
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        try:
            import ray
        except ImportError as error:
            raise Missing(error) from error
        self._ray = ray
        ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
            object_store_memory=256 << 20, _node_ip_address="127.0.0.1",
        )  # fmt: skip

        class Actor:
            def __init__(self) -> None:
                self.seen = 0

            def echo(self, message: Any) -> Any:
                return message

            def put(self, message: Any) -> None:
                self.seen += 1

            def total(self) -> int:
                total, self.seen = self.seen, 0
                return total

        self._actor = ray.remote(Actor).remote()
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def round_trips(self, seconds: float) -> Times:
        return repeat(lambda: self._ray.get(self._actor.echo.remote(MESSAGE)), seconds)

    def requests(self, seconds: float) -> float:
        under_way: list[Any] = []
        return pull_window(
            lambda: under_way.append(self._actor.echo.remote(MESSAGE)),
            lambda: self._ray.get(under_way.pop(0)),
            seconds,
        )

    def one_way(self, seconds: float, payload: Any) -> float:
        return pour(
            self._actor.put.remote, lambda: self._ray.get(self._actor.total.remote()), seconds, payload
        )


SERVERS: dict[str, Callable[[], None]] = {
    "net": serve_net,
    "net-tls": serve_net,
    "gevent": serve_gevent,
    "zmq": serve_zmq,
    "zerorpc": serve_zerorpc,
    "rpyc": serve_rpyc,
    "pyro5": serve_pyro,
}
SYSTEMS: dict[str, type[System]] = {
    one.name: one for one in (Net, NetTls, Gevent, Pipe, Execnet, Zmq, Zerorpc, Rpyc, Pyro, Ray)
}
