"""References to channels of other nodes: who keeps what alive, and for how long (T-09)."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from net import Place, _wire as wire, open_place
from net._references import RemoteChannel
from net.node import get_node
from tasklets import ChannelClosed, channel, timeout
from tests.net import peers
from tests.net.peers import ask, until

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with open_place("processes:2") as place:
        yield place


def granted() -> int:
    """How many channels of this node its peers may use."""
    gc.collect()
    return sum(len(link.grants) for link in get_node().links)


def held() -> int:
    """How many references this node has."""
    gc.collect()
    return len(get_node()._references)


def tell_tables(reply: channel) -> None:
    """What the peer's node holds, the channel of the answer apart."""
    gc.collect()
    node = get_node()
    reply.send((sum(len(link.grants) for link in node.links), len(node._references) - 1))


def swallow(mailbox: channel, reply: channel) -> None:
    """Take all channels that come, and drop them."""
    count = 0
    for _ in mailbox:
        count += 1
    reply.send(count)


def give_back(chan: channel, reply: channel) -> None:
    reply.send((chan, {"again": chan}))


def relay(mailbox: channel, reply: channel) -> None:
    """Make a channel for a mailbox, pass what comes on."""
    mine = channel(name="mine")
    mailbox.send(mine)
    reply.send([mine.receive(), mine.receive()])


def use(chan: channel) -> None:
    chan.send("one")
    chan.send("two")


def tell_links(reply: channel) -> None:
    reply.send(len(get_node().links))


def keep_none(reply: channel) -> None:
    reply.send(channel(5, "kept by nobody here"))


def keep_until_closed(mailbox: channel, held_until: channel) -> None:
    kept = mailbox.receive()
    for _ in held_until:
        pass
    del kept


def test_a_reference_that_comes_home_is_the_channel_itself(place: Place) -> None:
    mine = channel(3, "mine")
    back, inner = ask(place, give_back, mine)
    assert back is mine
    assert inner["again"] is mine


def test_one_channel_is_one_reference(place: Place) -> None:
    both = place.channel(2)
    place.spawn(peers.make, 0, both)
    one = both.receive()
    first, _ = ask(place, give_back, one)
    second, _ = ask(place, give_back, one)
    assert first is second is one
    assert isinstance(one, RemoteChannel)


def test_a_dropped_reference_is_released(place: Place) -> None:
    until(lambda: granted() == held() == 0)
    reference = ask(place, peers.make, 0)
    assert held() == 1
    dropped = weakref.ref(reference)
    del reference
    assert dropped() is None
    until(lambda: held() == 0)
    for _ in range(place.size):
        until(lambda: ask(place, tell_tables) == (0, 0))


def test_a_channel_lives_while_a_peer_holds_it_and_no_longer(place: Place) -> None:
    mailbox, hold = place.channel(), place.channel()
    keeping = place.spawn(keep_until_closed, mailbox, hold)
    sent = channel(name="sent")
    alive = weakref.ref(sent)
    mailbox.send(sent)
    del sent
    gc.collect()
    assert alive() is not None
    hold.close()
    keeping.join()
    until(lambda: gc.collect() is not None and alive() is None)


def test_ten_thousand_fresh_reply_channels_leak_nothing(place: Place) -> None:
    until(lambda: granted() == 0)
    mailbox = place.channel(1000)
    reply = place.channel()
    spawned = place.spawn(swallow, mailbox, reply)
    for _ in range(10_000):
        mailbox.send(channel())
    mailbox.close()
    assert reply.receive() == 10_000
    spawned.join()
    del mailbox, reply
    until(lambda: granted() == 0)
    assert len(get_node()._exports) < 10
    for link in get_node().links:
        tables = (link.operations, link.loans, link.requests, link.unsettled, link.spawned, link.windows)
        assert not any(tables)
    for _ in range(place.size):
        until(lambda: ask(place, tell_tables) == (0, 0))


def test_sends_that_timed_out_leak_nothing(place: Place) -> None:
    chan = ask(place, peers.make, 0)
    for _ in range(100):
        with pytest.raises(TimeoutError), timeout(0.0):
            chan.send("late")
        with pytest.raises(TimeoutError), timeout(0.0):
            chan.receive()
    assert not chan._unanswered
    assert not any(link.operations for link in get_node().links)
    until(lambda: peers.balance(place, chan) == 0)


def test_the_channel_of_one_child_is_used_by_another_directly(place: Place) -> None:
    mailbox, result = place.channel(), place.channel()
    place.spawn(relay, mailbox, result)
    mine = mailbox.receive()
    place.spawn(use, mine).join()
    assert result.receive() == ("one", "two")
    links = [ask(place, tell_links) for _ in range(place.size)]
    assert links == [2, 2]  # to the parent, and to each other


def test_a_channel_that_everybody_dropped_is_gone(place: Place) -> None:
    chan = ask(place, keep_none)
    chan.send("alive while it is held")
    assert chan.receive() == "alive while it is held"
    chan._link.notify((wire.RELEASE, chan._id, 1))  # although it is used on
    with pytest.raises(ChannelClosed, match="the channel is gone: nobody at its home holds it any more"):
        chan.receive()


def hand_out(requests: channel) -> None:
    """Keep one channel; send it to whoever asks, and tell how many wait on it."""
    kept = channel()
    for reply in requests:
        reply.send((kept, kept.balance))


def test_a_send_is_withdrawn_although_the_reference_was_dropped_and_given_again(place: Place) -> None:
    requests = channel()
    place.spawn(hand_out, requests)

    def ask_for_it() -> tuple[channel, int]:
        requests.send(reply := channel())
        chan, balance = reply.receive()
        return chan, balance

    for _ in range(3):
        chan, _ = ask_for_it()
        with pytest.raises(TimeoutError), timeout(0.005):
            chan.send("late")
        del chan
        until(lambda: held() == 0)
    until(lambda: ask_for_it()[1] == 0)
    requests.close()
