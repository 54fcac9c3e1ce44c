"""Who is dead and who is only busy: every blocked operation ends in the stated time, with the right verdict (T8.4)."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import net
from net import PeerLost, open_place
from net._link import Link
from net.node import get_node
from net.security import make_secret
from net.testing import cutting_proxy
from tasklets import channel, sleep, timeout
from tests.machine import here
from tests.net import peers
from tests.net.peers import Doing, ask, until

pytestmark = pytest.mark.real

SILENCE = 0.5
PATIENCE = 0.4
SLACK = 1.0  # for a loaded machine
COMPUTES = 60.0 if os.environ.get("TASKLETS_FULL") else 3.0  # seconds without a turn for anybody else

SERVER = """
import sys, net
from time import monotonic
from tasklets import channel, run, tasklet
net.configure(heartbeat=0.1, silence=float(sys.argv[2]), patience=float(sys.argv[3]))
def work(requests):
    for seconds, reply in requests:
        end = monotonic() + seconds
        while monotonic() < end: pass
        reply.send("done")
requests, inbox = channel(), channel()
tasklet(work)(requests)
with net.serve(sys.argv[1], requests=requests, inbox=inbox) as server:
    print(server.address, flush=True)
    run()
"""


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """Short times in this process, too."""
    node = get_node()
    before = node.settings
    net.configure(heartbeat=0.1, silence=SILENCE, patience=PATIENCE)
    yield
    for link in list(node.links):
        link.close()
    node.settings = before


@contextmanager
def server(
    address: str = "tcp://127.0.0.1:0", silence: float = SILENCE, patience: float = PATIENCE
) -> Iterator[tuple[Any, str]]:
    with peers.running("-c", SERVER, address, str(silence), str(patience)) as process:
        yield process, peers.line_of(process)


def only_link() -> Link:
    (link,) = get_node().links
    return link


def wait_for_pulse() -> None:
    until(lambda: only_link()._line is not None, "the pulse")


@contextmanager
def lost(outcome: str, seconds: float, said: str | None = None) -> Iterator[None]:
    started = monotonic()
    with pytest.raises(PeerLost, match=said) as caught:
        yield
    assert caught.value.outcome == outcome
    assert monotonic() - started < seconds + here(SLACK)


@pytest.mark.timeout(COMPUTES + 60)
def test_a_peer_that_computes_is_stalled_and_not_gone() -> None:
    silence = COMPUTES / 6  # in full size the default
    net.configure(heartbeat=0.1, silence=silence, patience=PATIENCE)
    with server(silence=silence) as (_, address):
        requests, inbox = net.connect(f"{address}/requests"), net.connect(f"{address}/inbox")
        ends = net.monitor(inbox)
        wait_for_pulse()
        reply = channel(1)
        requests.send((COMPUTES, reply))
        waits = Doing(inbox.send, 1)  # for a receiver, over the whole time
        until(lambda: only_link().state == "stalled")
        assert only_link().stalled_for > 1.0
        with timeout(COMPUTES + peers.PATIENCE):
            assert reply.receive() == "done"
        assert only_link().cuts == 0
        assert ends.balance == 0
        assert not waits.over
        until(lambda: only_link().state == "open")


def compute(seconds: float, done: channel) -> None:
    end = monotonic() + seconds
    while monotonic() < end:
        pass
    done.send("done")


@pytest.mark.timeout(COMPUTES + 60)
def test_a_child_that_computes_is_not_gone() -> None:
    with open_place("processes:1") as place:
        done = place.channel(1)
        spawned = place.spawn(compute, COMPUTES, done)
        with timeout(COMPUTES + peers.PATIENCE):
            assert done.receive() == "done"
            spawned.join()
        assert len(place.nodes) == 1
        assert place.lost.balance == 0


def test_who_computes_himself_loses_nobody() -> None:
    with server() as (_, address):
        requests = net.connect(f"{address}/requests")
        wait_for_pulse()
        end = monotonic() + 4 * SILENCE
        while monotonic() < end:
            pass
        reply = channel(1)
        requests.send((0.0, reply))
        assert reply.receive() == "done"
        assert only_link().cuts == 0


def test_a_stopped_peer_is_lost_after_silence_and_patience() -> None:
    with server() as (process, address):
        inbox = net.connect(f"{address}/inbox")
        wait_for_pulse()
        os.kill(process.pid, signal.SIGSTOP)
        sending = Doing(inbox.send, 1)
        with lost("unknown", SILENCE + PATIENCE, "no sign of life for 0.5 s"):
            sending.result()
        with lost("not taken", 0.0):
            inbox.send(2)


def test_a_stopped_child_is_lost_after_silence() -> None:
    with open_place("processes:1") as place:
        chan = ask(place, peers.make, 0)
        pid = ask(place, peers.tell_pid)
        wait_for_pulse()
        receiving = Doing(chan.receive)
        os.kill(pid, signal.SIGSTOP)
        with lost("unknown", SILENCE, "no sign of life"):
            receiving.result()


def test_a_peer_that_was_stopped_for_a_while_goes_on_where_it_was() -> None:
    net.configure(patience=20)
    with server(patience=20) as (process, address):
        requests = net.connect(f"{address}/requests")
        wait_for_pulse()
        os.kill(process.pid, signal.SIGSTOP)
        replies = channel(3)
        asking = [Doing(requests.send, (0.0, replies)) for _ in range(3)]
        until(lambda: only_link().state == "cut")
        os.kill(process.pid, signal.SIGCONT)
        with timeout(peers.PATIENCE):
            assert [replies.receive() for _ in asking] == ["done"] * 3
        for each in asking:
            each.result()
        assert only_link().cuts >= 1


def test_a_half_open_line_is_found_and_mended() -> None:
    net.configure(patience=20)
    with server(patience=20) as (_, address), cutting_proxy(address) as proxy:
        requests = net.connect(f"{proxy.address}/requests")
        wait_for_pulse()
        proxy.hold()
        reply = channel(1)
        asking = Doing(requests.send, (0.0, reply))
        until(lambda: only_link().state == "cut")
        assert not asking.over
        proxy.release()
        with timeout(peers.PATIENCE):
            assert reply.receive() == "done"
        asking.result()


def test_a_half_open_line_that_stays_so_loses_both_sides() -> None:
    with server() as (_, address), cutting_proxy(address) as proxy:
        inbox = net.connect(f"{proxy.address}/inbox")
        wait_for_pulse()
        proxy.hold()
        with lost("unknown", SILENCE + PATIENCE, "no sign of life"):
            inbox.receive()
        # At the server the request is withdrawn, too: a message goes to who lives.
        sleep(SILENCE + PATIENCE)
        direct = net.connect(f"{address}/inbox")
        sending = Doing(direct.send, "for the living")
        assert direct.receive() == "for the living"
        sending.result()


def test_a_killed_peer_is_lost_after_patience() -> None:
    with server() as (process, address):
        inbox = net.connect(f"{address}/inbox")
        receiving = Doing(inbox.receive)
        sleep(0.05)
        process.kill()
        with lost("unknown", PATIENCE, "nobody listens"):
            receiving.result()


def test_a_peer_restarted_under_its_address_is_lost_at_once() -> None:
    net.configure(patience=30)
    with server(patience=30) as (process, address):
        inbox = net.connect(f"{address}/inbox")
        receiving = Doing(inbox.receive)
        sleep(0.05)
        process.kill()
        process.wait()
        with server(address, patience=30), lost("unknown", 2.5, "another process is there now"):
            receiving.result()


def test_a_client_that_is_killed_leaves_nothing_at_its_server_after_patience() -> None:
    inbox: channel = channel()
    program = "import sys, net; net.configure(patience=0.4); net.connect(sys.argv[1]).receive()"
    with net.serve("tcp://127.0.0.1:0", inbox=inbox) as ours:
        with peers.running("-c", program, ours.url("inbox")) as client:
            until(lambda: inbox.balance == -1)
            client.kill()
        started = monotonic()
        until(lambda: inbox.balance == 0)
        assert monotonic() - started < PATIENCE + here(SLACK)
        assert not get_node().links


SECRET_SERVER = """
import sys, net
from pathlib import Path
from tasklets import channel
net.configure(heartbeat=0.1, silence=5, patience=20)
inbox, answers = channel(8), channel(8)
with net.serve("tcp://127.0.0.1:0", secret=Path(sys.argv[1]), inbox=inbox, answers=answers) as server:
    print(server.address, flush=True)
    for number in inbox:
        answers.send(number)
"""


def test_a_session_with_a_secret_proves_it_again_after_each_cut(tmp_path: Path) -> None:
    net.configure(patience=20, silence=5)
    secret = make_secret(tmp_path / "secret")
    with (
        peers.running("-c", SECRET_SERVER, str(secret)) as process,
        cutting_proxy(peers.line_of(process), seed=1, cut_after=(1500, 6000)) as proxy,
    ):
        inbox, answers = (
            net.connect(f"{proxy.address}/{name}", secret=secret) for name in ("inbox", "answers")
        )
        sending = Doing(peers.send_all, inbox, *range(500))
        with timeout(peers.PATIENCE):
            assert [answers.receive() for _ in range(500)] == list(range(500))
        sending.result()
        assert only_link().cuts >= 5
        assert only_link().identity is not None
