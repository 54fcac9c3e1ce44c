"""What a send that was interrupted, or whose peer was lost, says about its message: taken, not taken, or unknown."""

from collections.abc import Iterator

import pytest

import net
from net import PeerLost
from net._references import VERDICT_SECONDS
from net.testing import MemoryNetwork, memory_network
from tasklets import ChannelClosed, Timeout, channel, select, sleep, tasklet, timeout

FAR = (0.4, 0.4)  # seconds each way


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with memory_network(1, delay=FAR, settings=net.Settings(patience=60, silence=20)) as network:
        yield network


def serve(inbox: channel) -> None:
    with net.serve("tcp://home:1", inbox=inbox):
        sleep(10_000)


@pytest.fixture
def home(network: MemoryNetwork) -> channel:
    home: channel = channel(name="inbox")
    network.run_at("home", serve, home)
    sleep(0)
    return home


@pytest.fixture
def inbox(network: MemoryNetwork, home: channel) -> Iterator[channel]:
    with network.at("away"):
        yield net.connect("tcp://home:1/inbox", timeout=60)


def test_a_message_that_was_withdrawn_in_time_was_not_taken(home: channel, inbox: channel) -> None:
    with pytest.raises(Timeout) as caught, timeout(0.3):
        inbox.send("too late")
    assert caught.value.outcome == "not taken"  # type: ignore[attr-defined]
    assert caught.value.__notes__ == [f"the message for {inbox!r}: not taken"]
    assert home.balance == 0


def test_a_message_that_was_taken_meanwhile_counts_and_the_timeout_comes_at_the_next_wait(
    network: MemoryNetwork, home: channel, inbox: channel
) -> None:
    got: list[str] = []
    tasklet(lambda: got.append(home.receive()))()
    sleep(0)
    limit = timeout(0.6)  # the message arrives after 0.4 s, the answer after 0.8
    with limit:
        try:
            inbox.send("in time")
        except Timeout:
            pytest.fail("it was taken")
        assert got == ["in time"]
        with pytest.raises(Timeout):
            sleep(5)


def test_nothing_comes_later_when_the_block_is_left(home: channel, inbox: channel) -> None:
    tasklet(home.receive)()
    sleep(0)
    with timeout(0.6):
        inbox.send("in time")
    sleep(5)


def test_a_home_that_does_not_answer_leaves_it_unknown(
    network: MemoryNetwork, home: channel, inbox: channel
) -> None:
    network.partition({"home"})
    began = network.clock.now
    with pytest.raises(Timeout) as caught, timeout(3):
        inbox.send("into the void")
    assert caught.value.outcome == "unknown"  # type: ignore[attr-defined]
    assert network.clock.now - began == 3 + VERDICT_SECONDS
    network.heal()
    sleep(10)
    assert home.balance == 0  # it was withdrawn all the same


def test_a_kill_waits_for_no_verdict(network: MemoryNetwork, home: channel, inbox: channel) -> None:
    sending = tasklet(inbox.send)("never")
    sleep(1.2)
    assert home.balance == 1
    sending.kill()
    assert not sending.alive
    sleep(1.2)
    assert home.balance == 0


def test_a_window_of_rendezvous_messages_bounds_what_waits_at_home(
    network: MemoryNetwork, home: channel, inbox: channel
) -> None:
    senders = [tasklet(inbox.send)(number) for number in range(1500)]
    sleep(5)
    assert home.balance == 1024
    assert inbox.balance == 1500
    assert [home.receive() for _ in range(1024)] == list(range(1024))
    sleep(5)
    assert [home.receive() for _ in range(476)] == list(range(1024, 1500))
    sleep(5)
    assert not any(sender.alive for sender in senders)


def test_errors_of_messages_sent_ahead_come_once(network: MemoryNetwork) -> None:
    home: channel = channel(100)
    network.run_at("home", serve, home)
    sleep(0)
    with network.at("away"):
        inbox = net.connect("tcp://home:1/inbox", timeout=60)
        for number in range(5):
            inbox.send(number)
        network.kill("home")
        sleep(100)
        with pytest.raises(PeerLost, match="of 5 messages sent ahead before it is not known") as caught:
            inbox.send("next")
        assert caught.value.outcome == "unknown"
        with pytest.raises(PeerLost) as caught:
            inbox.send("after that")
        assert caught.value.outcome == "not taken"


def offer(idle: channel, inbox: channel, value: object) -> bool:
    try:
        return select([idle, (inbox, value)], timeout=10) == (1, None)
    except Timeout:
        return False


def test_a_select_waits_to_send_until_there_is_room(network: MemoryNetwork) -> None:
    home: channel = channel(2)
    network.run_at("home", serve, home)
    sleep(0)
    with network.at("away"):
        inbox = net.connect("tcp://home:1/inbox", timeout=60)
        idle: channel = channel()
        number = 0
        while offer(idle, inbox, number):
            number += 1
        assert 2 <= number <= 4
        assert inbox.balance == 0  # the case left no trace
        tasklet(lambda: [home.receive() for _ in range(number + 1)])()
        assert select([idle, (inbox, "more")], timeout=10) == (1, None)
        sleep(3)
        with network.at("home"):
            home.close()
        sleep(3)
        with pytest.raises(ChannelClosed):
            select([idle, (inbox, "closed")])


def test_a_select_that_waits_to_send_fails_with_its_link(network: MemoryNetwork) -> None:
    home: channel = channel(1)
    network.run_at("home", serve, home)
    sleep(0)
    with network.at("away"):
        inbox = net.connect("tcp://home:1/inbox", timeout=60)
        for number in range(2):
            inbox.send(number)
        network.clock._reactor.call_later(5, network.kill, "home")
        with pytest.raises(PeerLost) as caught:
            select([channel(), (inbox, "no room")])
        assert caught.value.outcome == "not taken"
