"""Memory is bounded in bytes on both sides, small messages pass large ones, and limits can be chosen (T8.8, T8.9)."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings, strategies as st

import net
from net import _wire as wire
from net._bulk import Incoming, Outgoing
from net._landing import Spare
from net._session import Limits
from net._wire import WINDOW_BYTES
from net.testing import MemoryNetwork, memory_network
from tasklets import NotSendable, Timeout, channel, sleep, tasklet, timeout

MIB = 1 << 20


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with memory_network(1, settings=net.Settings(patience=60, silence=20)) as network:
        yield network


def serve(**channels: channel) -> None:
    with net.serve("tcp://home:1", **channels):
        sleep(10_000)


def start(network: MemoryNetwork, **channels: channel) -> None:
    network.run_at("home", lambda: serve(**channels))
    sleep(0)


@pytest.mark.parametrize("capacity", [0, 1000])
def test_who_sends_to_a_slow_channel_waits_before_memory_fills(network: MemoryNetwork, capacity: int) -> None:
    home: channel = channel(capacity)
    start(network, inbox=home)
    with network.at("away") as node:
        inbox = net.connect("tcp://home:1/inbox")
        network.partition({"home"})
        senders = [tasklet(inbox.send)(bytes(100_000)) for _ in range(50)]
        sleep(1)
        (link,) = node.links
        held = link.unread_bytes + link.session.replay_bytes
        assert held < 1.2 * WINDOW_BYTES
        network.heal()
        sleep(1)
        got = 0
        while got < 50:
            (home_link,) = network.node("home").links
            assert all(grant.waiting_bytes < WINDOW_BYTES + 100_100 for grant in home_link.grants.values())
            assert home.receive() == bytes(100_000)
            got += 1
            sleep(0.05)
        assert not any(sender.alive for sender in senders)


def test_one_slow_channel_stalls_nobody_else(network: MemoryNetwork) -> None:
    slow, quick = channel(2), channel(2)
    start(network, slow=slow, quick=quick)
    with network.at("away"):
        to_slow, to_quick = net.connect("tcp://home:1/slow"), net.connect("tcp://home:1/quick")
        stuck = [tasklet(to_slow.send)(bytes(300_000)) for _ in range(20)]
        sleep(1)
        taking = tasklet(lambda: [quick.receive() for _ in range(200)])()
        began = network.clock.now
        for number in range(200):
            to_quick.send(number)
        sleep(1)
        assert not taking.alive
        assert network.clock.now - began < 5
        assert any(each.alive for each in stuck)
        for each in stuck:
            each.kill()


def test_a_small_message_passes_a_large_one(network: MemoryNetwork) -> None:
    large, small = channel(1), channel(1)
    start(network, large=large, small=small)
    with network.at("away"):
        to_large, to_small = net.connect("tcp://home:1/large"), net.connect("tcp://home:1/small")
        to_large.send(bytes(20 * MIB))
        sleep(0.02)  # it is under way
        began = network.clock.now
        to_small.send("small")
        assert small.receive() == "small"
        assert network.clock.now - began < 0.05
        assert large.balance == 0
        assert large.receive() == bytes(20 * MIB)


def test_the_limit_of_a_message_can_be_chosen_by_who_receives_it(network: MemoryNetwork) -> None:
    network.node("home", max_message_bytes=400_000)
    home: channel = channel(3)
    start(network, inbox=home)
    with network.at("away"):
        inbox = net.connect("tcp://home:1/inbox")
        inbox.send(bytes(399_000))
        assert len(home.receive()) == 399_000
        with pytest.raises(
            NotSendable, match=r"over the limit of 400000 bytes.*net.configure\(max_message_bytes"
        ):
            inbox.send(bytes(400_001))
        inbox.send("on")
        assert home.receive() == "on"


@settings(max_examples=60)
@given(
    st.sampled_from([0, 1, 3, 1000]),
    st.lists(
        st.lists(st.sampled_from([1, 2000, 90_000, 400_000, 1_200_000]), max_size=12), min_size=1, max_size=4
    ),
    st.sets(st.integers(0, 3)),
    st.integers(0, 1000),
)
def test_whatever_the_sizes_all_messages_come_and_nobody_waits_for_ever(
    capacity: int, sizes: list[list[int]], killed: set[int], seed: int
) -> None:
    with memory_network(seed) as network:
        home: channel = channel(capacity)
        start(network, inbox=home)
        with network.at("away") as node:
            inbox = net.connect("tcp://home:1/inbox")
            senders = [tasklet(send_numbered)(inbox, number, several) for number, several in enumerate(sizes)]
            victims = [tasklet(inbox.send)(bytes(150_000)) for _ in killed]
            sleep(network.random.uniform(0, 0.02))
            for victim in victims:
                victim.kill()
            got: dict[int, list[int]] = {number: [] for number in range(len(sizes))}
            while sum(map(len, got.values())) < sum(map(len, sizes)):
                with suppress(Timeout), timeout(5):
                    message = home.receive()
                    if isinstance(message, tuple):  # else of a victim
                        got[message[0]].append(message[1])
                assert network.clock.now < 500
            assert got == {number: list(range(len(several))) for number, several in enumerate(sizes)}
            sleep(5)
            assert not any(sender.alive for sender in senders)
            (link,) = node.links
            window = link.windows[inbox._id]  # type: ignore[attr-defined]  # a reference
            assert not window.starved
            assert window.under_way <= max(window.size // 2, 1)


def send_numbered(inbox: channel, sender: int, sizes: list[int]) -> None:
    for number, size in enumerate(sizes):
        inbox.send((sender, number, bytes(size)))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"patience": -1}, "patience is 0 to"),
        ({"heartbeat": 10}, "there must be time for a beat"),
        ({"max_message_bytes": 10}, "max_message_bytes is 262144 to"),
        ({"bulk_bytes": 1 << 40}, "bulk_bytes is"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, float], error: str) -> None:
    before = net.configure()
    with pytest.raises(ValueError, match=error):
        net.configure(**changes)
    assert net.configure() == before
    with pytest.raises(TypeError, match="there is no setting 'patients'"):
        net.configure(patients=3)


def test_large_frames_take_turns_within_the_window() -> None:
    limits = Limits(max_message_bytes=10 * MIB, bulk_bytes=262_144)
    out, into = Outgoing(), Incoming(limits, Spare())
    out.meet(limits)
    frames = {stream: bytes([stream]) * 300_000 for stream in range(3)}
    for stream, data in frames.items():
        into.begin(*out.add(data, None)[1:])
        assert stream + 1 == into._next
    order, got = [], {}
    under_way = 0
    while len(got) < 3:
        while out.ready:
            _, stream, data = out.next_part()
            order.append(stream)
            under_way += len(data)
            assert under_way <= limits.bulk_bytes
            assert len(data) <= wire.PART_BYTES
            whole = into.part(stream, data)
            if whole is not None:
                got[stream] = whole
        room = into.take_room()
        under_way -= room
        out.granted(room)
    assert got == frames
    assert order[:4] == [0, 1, 2, 0]
    assert not out.pending
    assert out.pending_bytes == 0


def test_no_more_is_begun_than_the_receiver_puts_together() -> None:
    limits = Limits(max_message_bytes=1 * MIB, bulk_bytes=8 * MIB)
    out = Outgoing()
    out.meet(limits)
    for _ in range(3):
        out.add(bytes(700_000), None)
    order = []
    while out.ready:
        order.append(out.next_part()[1])
    assert order == sorted(order)  # one after the other
