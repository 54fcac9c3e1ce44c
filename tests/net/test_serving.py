"""serve and connect."""

import contextlib
import functools
import gc
import os
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import net
from net import AddressInUse, BadAddress, NameNotFound, NetError, PeerLost, PeerUnreachable
from net._link import FLUSH_FIRST
from net._references import RemoteChannel
from net.node import Node, get_node
from net.testing import MemoryNetwork, memory_network
from tasklets import Timeout, channel, run, schedule, sleep, timeout
from tests.net import peers
from tests.net.peers import Doing, until

pytestmark = pytest.mark.real


@pytest.fixture
def inbox() -> channel:
    return channel(4, "inbox")


@pytest.fixture
def server(inbox: channel) -> Iterator[net.Server]:
    with net.serve("tcp://127.0.0.1:0", inbox=inbox) as server:
        yield server


CLIENT = """
import sys, net
from tasklets import channel
bank = net.connect(sys.argv[1])
for number in range(3):
    reply = channel()
    bank.send((number, reply))
    print(reply.receive(), flush=True)
"""


def test_a_request_with_a_reply_from_another_process(server: net.Server, inbox: channel) -> None:  # T-04
    answering = Doing(peers.answer, inbox)
    with peers.running("-c", CLIENT, server.url("inbox")) as client:
        until(lambda: client.poll() is not None)
        out, err = client.communicate()
    assert (out, err) == ("0\n2\n4\n", "")
    inbox.close()
    answering.result()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_many_tasklets_may_connect_at_once(server: net.Server, inbox: channel, host: str) -> None:
    url = server.url("inbox").replace("127.0.0.1", host)
    connecting = [Doing(net.connect, url) for _ in range(30)]  # gevent has ten threads that look names up
    assert all(one.result() is inbox for one in connecting)


def test_the_address_has_the_real_port(server: net.Server) -> None:
    assert server.address.startswith("tcp://127.0.0.1:")
    assert not server.address.endswith(":0")
    assert server.url("inbox") == f"{server.address}/inbox"
    assert repr(server) == f"<Server {server.address} inbox>"


def test_who_connects_to_itself_gets_the_channel_itself(server: net.Server, inbox: channel) -> None:
    assert net.connect(server.url("inbox")) is inbox


def test_a_unix_socket_serves_too_and_its_file_goes_with_the_server(tmp_path: Path, inbox: channel) -> None:
    with net.serve(f"unix://{tmp_path}/bank.sock", inbox=inbox) as server:
        assert net.connect(server.url("inbox")) is inbox
    assert not (tmp_path / "bank.sock").exists()


def test_the_file_of_a_killed_server_is_no_obstacle(tmp_path: Path, inbox: channel) -> None:
    path = tmp_path / "bank.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    with net.serve(f"unix://{path}", inbox=inbox) as server:
        assert net.connect(server.url("inbox")) is inbox


def test_only_its_owner_may_connect_to_a_unix_socket(tmp_path: Path, inbox: channel) -> None:
    before = os.umask(0)
    try:
        with net.serve(f"unix://{tmp_path}/bank.sock", inbox=inbox):
            assert (tmp_path / "bank.sock").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_a_socket_file_that_is_in_use_is_left_alone_even_when_its_owner_is_busy(
    tmp_path: Path, inbox: channel
) -> None:
    path = tmp_path / "bank.sock"
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as stack:
        busy.bind(str(path))
        busy.listen(0)
        for _ in range(2):  # more than it accepts
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(str(path))
        with pytest.raises(AddressInUse):
            net.serve(f"unix://{path}", inbox=inbox)
        assert path.exists()


def test_a_server_that_closes_leaves_its_successors_file(tmp_path: Path, inbox: channel) -> None:
    path = tmp_path / "bank.sock"
    server = net.serve(f"unix://{path}", inbox=inbox)
    path.unlink()
    with net.serve(f"unix://{path}", other=inbox) as successor:
        server.close()
        assert net.connect(successor.url("other")) is inbox


def test_a_program_connects_to_a_unix_socket(tmp_path: Path, inbox: channel) -> None:  # T-02
    answering = Doing(peers.answer, inbox)
    with net.serve(f"unix://{tmp_path}/bank.sock", inbox=inbox) as server:
        with peers.running("-c", CLIENT, server.url("inbox")) as client:
            until(lambda: client.poll() is not None)
            assert client.communicate() == ("0\n2\n4\n", "")
        inbox.close()
        answering.result()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path, inbox: channel) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(AddressInUse):
        net.serve(f"unix://{path}", inbox=inbox)
    assert path.read_text() == "data"


def test_a_port_in_use_is_told(server: net.Server) -> None:
    with pytest.raises(
        AddressInUse, match=r"is in use by another program; end it, or choose another port"
    ) as caught:
        net.serve(server.address, other=channel())
    assert isinstance(caught.value, OSError)
    assert "other" not in get_node().names


@pytest.mark.parametrize("path", ["/nonexistent/folder/x.sock", "/tmp/" + "x" * 200])
def test_a_socket_file_that_cannot_be_is_told(path: str) -> None:
    with pytest.raises(BadAddress, match="cannot listen at unix://"):
        net.serve(f"unix://{path}", other=channel())


@pytest.mark.parametrize("host", ["nowhere.invalid", "x" * 70 + ".example"])
def test_an_unknown_host_is_told(host: str) -> None:
    with pytest.raises(BadAddress, match="is unknown"):
        net.serve(f"{host}:0", insecure=True, other=channel())
    with pytest.raises(PeerUnreachable, match="is unknown"):
        net.connect(f"{host}:1/x")


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:0", "[::]:0"])
def test_an_address_others_can_reach_needs_the_word_insecure(address: str) -> None:
    with pytest.raises(BadAddress, match="or say insecure=True"):
        net.serve(address, other=channel())


def test_with_the_word_insecure_it_listens_everywhere() -> None:
    with net.serve("tcp://0.0.0.0:0", insecure=True, other=channel(1)) as server:
        assert net.connect(server.url("other").replace("0.0.0.0", "127.0.0.1"))


def test_only_channels_are_published() -> None:
    with pytest.raises(TypeError, match="what is published is a channel; rate is 7"):
        net.serve("tcp://127.0.0.1:0", rate=7)  # type: ignore[arg-type]
    assert not get_node().listeners


def test_a_name_is_published_once(server: net.Server) -> None:
    with pytest.raises(NetError, match="publishes a channel as 'inbox' already"):
        net.serve("tcp://127.0.0.1:0", inbox=channel())


def test_two_servers_in_one_process(server: net.Server, inbox: channel) -> None:
    other = channel()
    with net.serve("tcp://127.0.0.1:0", other=other) as second:
        assert net.connect(second.url("other")) is other
        assert net.connect(server.url("inbox")) is inbox
    assert net.connect(server.url("inbox")) is inbox
    with pytest.raises(NameNotFound):
        net.connect(server.url("other"))


def test_an_unknown_name_is_answered_with_the_published_ones(server: net.Server) -> None:
    with pytest.raises(
        NameNotFound, match=r"no channel is published as 'bank' at .*; published: inbox"
    ) as caught:
        net.connect(server.url("bank"))
    assert isinstance(caught.value, LookupError)


def test_where_nobody_listens_is_told() -> None:
    with pytest.raises(PeerUnreachable, match=r"nobody listens at tcp://127\.0\.0\.1:9; start"):
        net.connect("tcp://127.0.0.1:9/bank")
    with pytest.raises(PeerUnreachable, match=r"nobody listens at unix:///nonexistent/x\.sock"):
        net.connect("unix:///nonexistent/x.sock/bank")


def test_what_is_no_node_of_ours_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        connecting = Doing(net.connect, f"127.0.0.1:{stranger.getsockname()[1]}/bank")
        until(lambda: get_node().links)
        other, _ = stranger.accept()
        with other:
            other.sendall(b"220 mail.example ESMTP\r\n")
            with pytest.raises(PeerUnreachable, match="is no node of ours"):
                connecting.result()


def test_a_stranger_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        address = f"127.0.0.1:{stranger.getsockname()[1]}"
        with pytest.raises(PeerUnreachable, match=r"no answer from tcp://127\.0\.0\.1:\d+ within 0\.02 s"):
            net.connect(f"{address}/bank", timeout=0.02)
    assert not get_node().links


SERVER = """
import sys, net
from tasklets import channel, run, tasklet
def answer(requests):
    for value, reply in requests: reply.send(value * 2)
inbox = channel(name="inbox")
tasklet(answer)(inbox)
with net.serve("tcp://127.0.0.1:0", inbox=inbox) as server:
    print(server.address, flush=True)
    run()
    print("never")
"""


def test_run_keeps_serving_until_ctrl_c() -> None:
    with peers.running("-c", SERVER) as process:
        address = peers.line_of(process)
        for number in range(3):
            requests = net.connect(f"{address}/inbox")
            reply = channel()
            requests.send((number, reply))
            assert reply.receive() == 2 * number
            del requests
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=peers.PATIENCE)
    assert out == ""
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_a_closed_server_is_gone_for_others_and_its_channels_are_not() -> None:
    inbox = channel(4, "inbox")
    server = net.serve("tcp://127.0.0.1:0", inbox=inbox)
    with peers.running(
        "-c", "import sys, net; print(net.connect(sys.argv[1]).receive())", server.url("inbox")
    ) as client:
        until(lambda: inbox.balance == -1)
        server.close()
        server.close()  # again
        until(lambda: client.poll() is not None)
        assert "PeerLost" in client.communicate()[1]
    assert inbox.balance == 0
    inbox.send("open")
    assert inbox.receive() == "open"
    with pytest.raises(PeerUnreachable):
        net.connect(server.url("inbox"))
    run()  # nothing serves any more, so it returns


def test_a_link_is_used_again_by_the_next_connect(server: net.Server, inbox: channel) -> None:
    net.connect(server.url("inbox"))
    before = len(get_node().links)
    net.connect(server.url("inbox"))
    assert len(get_node().links) == before


def test_a_reference_survives_the_names_end() -> None:
    with peers.running("-c", SERVER) as process:
        address = peers.line_of(process)
        one, two = (net.connect(f"{address}/inbox") for _ in range(2))
        assert one is two
        assert isinstance(one, RemoteChannel)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(PeerLost):
            one.receive()


def test_a_program_that_ends_with_a_reference_in_hand_prints_nothing(
    server: net.Server, inbox: channel
) -> None:
    program = "import sys, net; kept = net.connect(sys.argv[1]); kept.send(1)"
    with peers.running("-c", program, server.url("inbox")) as client:
        with timeout(peers.PATIENCE):
            assert inbox.receive() == 1
        until(lambda: client.poll() is not None)
        assert client.communicate() == ("", "")
    assert client.returncode == 0


def test_impatience_is_the_callers_own(server: net.Server) -> None:
    with pytest.raises(Timeout), timeout(0.0):
        net.connect(server.url("inbox"))


# ------------------------------------------------------------------------------------ many connect at the same moment


@contextmanager
def served_in_memory() -> Iterator[MemoryNetwork]:
    def serve() -> None:
        with net.serve("tcp://home:1", inbox=channel(100)):
            sleep(100.0)

    with memory_network() as network:
        network.run_at("home", serve)
        sleep(0.1)
        yield network


def test_tasklets_that_connect_at_once_share_a_session() -> None:
    with served_in_memory() as network:
        connecting = [network.run_at("away", net.connect, "tcp://home:1/inbox") for _ in range(50)]
        sleep(1.0)
        assert not any(one.alive for one in connecting)
        assert len(network.node("away").links) == 1
        assert len(network.node("home").links) == 1


def test_who_waits_for_anothers_session_goes_on_when_that_one_is_killed() -> None:
    with served_in_memory() as network:
        first, *others = [network.run_at("away", net.connect, "tcp://home:1/inbox") for _ in range(3)]
        schedule()
        first.kill()
        sleep(1.0)
        assert not any(one.alive for one in others)
        assert len(network.node("away").links) == 1


def test_each_of_those_who_connect_at_once_to_nobody_hears_of_it() -> None:
    heard = []

    def connect() -> None:
        try:
            net.connect("tcp://nobody:1/inbox")
        except PeerUnreachable as error:
            heard.append(error)

    with served_in_memory() as network:
        for _ in range(5):
            network.run_at("away", connect)
        sleep(100.0)
        assert len(heard) == len({id(error) for error in heard}) == 5
        assert not network.node("away")._dialling


def run_in_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    until(lambda: not thread.is_alive())


def test_a_thread_that_ended_leaves_nothing_of_its_node(server: net.Server, inbox: channel) -> None:
    gone: list[weakref.ref[Node]] = []
    kept: list[channel] = []

    def work() -> None:
        requests = net.connect(server.url("inbox"))
        requests.send("not lost, although the thread ends at once")
        gone.append(weakref.ref(get_node()))
        kept.append(requests)

    for _ in range(3):
        run_in_thread(work)
        assert inbox.receive() == "not lost, although the thread ends at once"
    until(lambda: not get_node().links)
    with pytest.raises(PeerLost, match="it was closed here"):
        kept[0].send("late")
    kept.clear()  # references, which are released on another thread than theirs
    gc.collect()
    assert [each() for each in gone] == [None] * 3


def test_last_words_leave_together_with_whatever_was_queued(
    server: net.Server, inbox: channel, monkeypatch: pytest.MonkeyPatch
) -> None:  # the goodbye may be the frame with which the queue is long enough to leave by itself
    failures: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, tb: failures.append(error))

    def work(size: int) -> None:
        requests = net.connect(server.url("inbox"))
        requests.send("x" * size)

    for size in range(FLUSH_FIRST - 60, FLUSH_FIRST, 3):
        run_in_thread(functools.partial(work, size))
        assert len(inbox.receive()) == size
    assert not failures


FORKS = """
import os, sys
import net
from tasklets import channel

server = net.serve("unix://" + sys.argv[1], requests=channel(8))
there = net.connect(sys.argv[2] + "/inbox", timeout=10)
there.send("before")
child = os.fork()
if child == 0:
    sys.exit(0)  # as a program ends, with what atexit knows
os.waitpid(child, 0)
there.send("after")
print(os.path.exists(sys.argv[1]))
there.send(None)
"""


def test_the_child_of_a_fork_ends_without_ending_what_its_parent_has_open(tmp_path: Path) -> None:
    inbox = channel(8)
    with (
        net.serve("tcp://127.0.0.1:0", inbox=inbox) as server,
        peers.running("-c", FORKS, str(tmp_path / "socket"), str(server.address)) as program,
        timeout(20),
    ):
        assert list(iter(inbox.receive, None)) == ["before", "after"]
        assert peers.line_of(program) == "True"
