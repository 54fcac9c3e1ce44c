"""A process is killed: whoever waits for it hears so within two seconds, with what became of the message (T-05)."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest

import net
from net import PeerLost, PeerUnreachable, Place, open_place
from net.node import get_node
from tasklets import ChannelClosed, Timeout, channel, run, select, sleep, timeout
from tests.machine import here
from tests.net import peers
from tests.net.peers import Doing, ask, balance, until

pytestmark = pytest.mark.real

PROMISED = 2.0  # seconds
WINDOW = 3


@pytest.fixture
def place() -> Iterator[Place]:
    with open_place("processes:1") as place:
        yield place


@pytest.fixture
def kill(place: Place) -> Callable[[], None]:
    pid = ask(place, peers.tell_pid)
    return lambda: os.kill(pid, signal.SIGKILL)


@contextmanager
def lost(outcome: str) -> Iterator[None]:
    """The block raises PeerLost in time."""
    started = monotonic()
    with pytest.raises(PeerLost) as caught:
        yield
    assert monotonic() - started < here(PROMISED)
    assert caught.value.outcome == outcome
    assert "worker-1" in str(caught.value)
    assert isinstance(caught.value, ConnectionError)


def test_a_send_that_waits_for_a_receiver(place: Place, kill: Callable[[], None]) -> None:
    chan = ask(place, peers.make, 0)
    sending = Doing(chan.send, 1)
    until(lambda: balance(place, chan) == 1)
    kill()
    with lost("unknown"):
        sending.result()
    with lost("not taken"):
        chan.send(2)


def test_a_receive(place: Place, kill: Callable[[], None]) -> None:
    chan = ask(place, peers.make, 0)
    receiving = Doing(chan.receive)
    until(lambda: balance(place, chan) == -1)
    kill()
    with lost("unknown"):
        receiving.result()
    with lost("not taken"):
        chan.receive()


def test_an_iteration_does_not_end_as_if_it_were_closed(place: Place, kill: Callable[[], None]) -> None:
    chan = ask(place, peers.make, 0)
    receiving = Doing(list, chan)
    kill()
    with lost("unknown"):
        receiving.result()


def test_a_send_that_waits_for_room(place: Place, kill: Callable[[], None]) -> None:
    chan = ask(place, peers.make, WINDOW)

    def flood() -> None:
        while True:
            chan.send(1)

    sending = [Doing(flood) for _ in range(2)]
    until(lambda: chan.balance == 2)
    until(lambda: balance(place, chan) >= WINDOW)
    kill()
    for each in sending:
        with lost("not taken"):
            each.result()


def test_a_select(place: Place, kill: Callable[[], None]) -> None:
    chan, local = ask(place, peers.make, 0), channel()
    selecting = Doing(select, [local, chan])
    until(lambda: balance(place, chan) == -1)
    kill()
    with lost("unknown"):
        selecting.result()
    assert local.balance == 0


def test_a_local_sender_whose_message_was_lent(place: Place) -> None:
    local = channel()
    spawned = place.spawn(stop_as_soon_as_asked, local, channel())
    until(lambda: local.balance == -1)
    sending = Doing(local.send, 1)  # lent to a process that does not answer
    pid = next(iter(get_node().links)).where.removeprefix("pid ")
    os.kill(int(pid), signal.SIGKILL)
    with lost("unknown"):
        sending.result()
    with lost("unknown"):
        spawned.join()


def stop_as_soon_as_asked(where: channel, reply: channel) -> None:
    waiting = Doing(where.receive)
    sleep(0.01)  # so that the request has left
    os.kill(os.getpid(), signal.SIGSTOP)
    waiting.result()


def test_a_join(place: Place, kill: Callable[[], None]) -> None:
    spawned = place.spawn(sleep, 1000)
    joining = Doing(spawned.join)
    kill()
    with lost("unknown"):
        joining.result()
    assert not spawned.alive


def test_a_spawned_tasklet_that_nobody_joins_is_no_news_for_main(
    place: Place, kill: Callable[[], None]
) -> None:
    spawned = place.spawn(sleep, 1000)
    kill()
    run()  # ends, since nothing can happen any more
    assert repr(spawned).endswith("failed>")


def test_a_spawn_when_all_nodes_are_gone(place: Place, kill: Callable[[], None]) -> None:
    kill()
    until(lambda: not get_node().links)
    with pytest.raises(PeerLost, match="all 1 nodes of processes:1 are gone"):
        place.spawn(sleep, 0)


def test_the_other_children_go_on() -> None:
    with open_place("processes:2") as place:
        pid = ask(place, peers.tell_pid)  # the first
        survivor = ask(place, peers.make, WINDOW)
        os.kill(pid, signal.SIGKILL)
        until(lambda: len(get_node().links) == 1)
        for _ in range(3):
            assert ask(place, peers.tell_pid) != pid
        survivor.send("on")
        assert survivor.receive() == "on"


def test_a_local_receiver_goes_on_waiting(place: Place, kill: Callable[[], None]) -> None:
    local = channel()
    place.spawn(hold, local)
    receiving = Doing(local.receive)
    kill()
    until(lambda: not get_node().links)
    assert not receiving.over
    local.send("from somebody else")
    assert receiving.result() == "from somebody else"


def hold(where: channel) -> None:
    sleep(1000)
    where.close()


def test_rendezvous_messages_of_the_dead_vanish_and_those_in_a_window_stay(
    place: Place, kill: Callable[[], None]
) -> None:
    meeting, window = channel(), channel(WINDOW)
    place.spawn(peers.send_all, meeting, "gone")
    place.spawn(peers.send_all, window, *range(WINDOW))
    until(lambda: meeting.balance == 1 and window.balance == WINDOW)
    kill()
    until(lambda: meeting.balance == 0)
    assert [window.receive() for _ in range(WINDOW)] == [0, 1, 2]
    with pytest.raises(Timeout), timeout(0.01):
        window.receive()


def test_requests_of_the_dead_leave_the_line(place: Place, kill: Callable[[], None]) -> None:
    local = channel()
    place.spawn(peers.take, local, 1, channel())
    until(lambda: local.balance == -1)
    kill()
    until(lambda: local.balance == 0)


def test_a_message_lent_by_a_third_process_is_answered_unknown() -> None:
    with open_place("processes:2") as place:
        local = channel()
        place.spawn(stop_as_soon_as_asked, local, channel())  # at the first
        until(lambda: local.balance == -1)
        sending = place.spawn(tell_outcome, local, reply := place.channel())  # at the second
        until(lambda: any(link.loans for link in get_node().links))
        (stopped,) = [link for link in get_node().links if link.loans]
        os.kill(int(stopped.where.removeprefix("pid ")), signal.SIGKILL)
        with timeout(here(PROMISED)):
            assert reply.receive() == "unknown"
        sending.join()


def tell_outcome(where: channel, reply: channel) -> None:
    try:
        where.send(1)
    except PeerLost as error:
        reply.send(error.outcome)


def test_the_verdict_on_a_later_message_is_not_given_to_an_earlier_one() -> None:
    with open_place("processes:2") as place:
        local, outcomes = channel(), place.channel()
        place.spawn(stop_as_soon_as_asked, local, channel())  # at the first
        until(lambda: local.balance == -1)
        place.spawn(tell_outcome, local, outcomes)  # at the second: lent to the first
        until(lambda: any(link.loans for link in get_node().links))
        place._turn.__next__()  # type: ignore[attr-defined]
        later = place.spawn(peers.send_all, local, "later")  # at the second, too
        assert local.receive() == "later"
        later.join()
        (stopped,) = [link for link in get_node().links if link.loans]
        os.kill(int(stopped.where.removeprefix("pid ")), signal.SIGKILL)
        with timeout(here(PROMISED)):
            assert outcomes.receive() == "unknown"


# -------------------------------------------------------------------------------------------------- servers elsewhere

SERVER = """
import sys, net
from tasklets import channel, run
inbox = channel(name="inbox")
with net.serve(sys.argv[1], inbox=inbox) as server:
    print(server.address, flush=True)
    run()
"""


@contextmanager
def server(address: str = "tcp://127.0.0.1:0") -> Iterator[tuple[Any, str]]:
    with peers.running("-c", SERVER, address) as process:
        yield process, peers.line_of(process)


def test_a_connect_after_the_server_was_replaced_unnoticed() -> None:
    with server() as (first, address):
        net.connect(f"{address}/inbox")
        first.kill()
        first.wait()
        with server(address):  # meanwhile the loop here has had no turn
            chan = net.connect(f"{address}/inbox")
            with pytest.raises(Timeout), timeout(0.01):
                chan.send("nobody receives there")


def test_a_lookup_in_flight() -> None:
    with server() as (process, address):
        net.connect(f"{address}/inbox")
        os.kill(process.pid, signal.SIGSTOP)
        looking = Doing(net.connect, f"{address}/inbox")
        sleep(0)
        process.kill()
        started = monotonic()
        with pytest.raises((PeerLost, PeerUnreachable)):
            looking.result()
        assert monotonic() - started < here(PROMISED)


def test_a_connect_in_flight() -> None:
    with server() as (process, address):
        os.kill(process.pid, signal.SIGSTOP)  # the system still accepts for it
        connecting = Doing(net.connect, f"{address}/inbox")
        sleep(0.01)
        process.kill()
        started = monotonic()
        with pytest.raises(PeerUnreachable):
            connecting.result()
        assert monotonic() - started < here(PROMISED)


@pytest.mark.parametrize("connected", [False, True])
def test_a_server_that_hangs_is_given_up_in_time(connected: bool) -> None:
    with server() as (process, address):
        if connected:
            net.connect(f"{address}/inbox")
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(PeerUnreachable, match=r"no answer from tcp://127.0.0.1:\d+ within 0.05 s"):
            net.connect(f"{address}/inbox", timeout=0.05)


def test_the_callers_own_limit_stays_a_timeout() -> None:
    with server() as (process, address):
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(Timeout), timeout(0.05):
            net.connect(f"{address}/inbox")
        assert not any(link.where == address for link in get_node().links)  # nothing half open is left


def test_a_server_that_ends_says_so() -> None:
    with server() as (process, address):
        chan = net.connect(f"{address}/inbox")
        receiving = Doing(chan.receive)
        process.send_signal(signal.SIGINT)
        with pytest.raises(PeerLost, match="it ended"):
            receiving.result()


LAST_WORDS = """
import sys, net
log = net.connect(sys.argv[1])
for number in range(50):
    log.send((number, bytes(20_000)))
"""


def test_what_was_sent_ahead_arrives_although_the_program_ends_at_once() -> None:
    log = channel(1000)
    with net.serve("tcp://127.0.0.1:0", log=log) as ours:
        with peers.running("-c", LAST_WORDS, ours.url("log")) as process:
            got = [log.receive()[0] for _ in range(50)]
            assert got == list(range(50))
            process.wait()
        assert process.returncode == 0


def test_a_closed_place_fails_what_waits_for_its_children() -> None:
    with open_place("processes:1") as place:
        chan = ask(place, peers.make, 0)
        receiving = Doing(chan.receive)
    with pytest.raises((PeerLost, ChannelClosed)):
        receiving.result()
