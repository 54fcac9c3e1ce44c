"""Connections are cut at random moments, networks part: nothing is lost, nothing comes twice, order holds (T-05)."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

import net
from net.errors import PeerLost
from net.testing import MemoryNetwork, cutting_proxy, memory_network
from tasklets import channel, sleep, tasklet
from tests.behaviour.soak_cuts import count_up, soak

SEEDS = 200
GROUP = 20  # seeds in one test
LARGE = 5  # messages that come in parts


# ------------------------------------------------------------------------------------------------ in memory


def collect(where: channel, into: list[int]) -> None:
    into.extend(where)


def send_large(where: channel) -> None:
    for number in range(LARGE):
        where.send((number, bytes(150_000 + number)))
    where.close()


def collect_large(where: channel, into: list[int]) -> None:
    into.extend(number for number, data in where if len(data) == 150_000 + number)


def serve(received: dict[str, list[int]], count: int) -> None:
    ahead, meeting, pulled, control, large = channel(8), channel(), channel(3), channel(), channel(2)
    with net.serve(
        "tcp://home:7000", ahead=ahead, meeting=meeting, pulled=pulled, control=control, large=large
    ):
        down_ahead, down_meeting = control.receive()
        collecting = [
            tasklet(collect)(ahead, received["up ahead"]),
            tasklet(collect)(meeting, received["up meeting"]),
            tasklet(collect_large)(large, received["large"]),
        ]
        sending = [tasklet(count_up)(each, count) for each in (down_ahead, down_meeting, pulled)]
        while any(each.alive for each in (*collecting, *sending)):
            sleep(0.05)
        control.receive()
        sleep(10)  # so that this is known there, whatever happens to the connection


def use(received: dict[str, list[int]], count: int) -> None:
    ahead, meeting, pulled, control, large = (
        net.connect(f"tcp://home:7000/{name}", timeout=60)
        for name in ("ahead", "meeting", "pulled", "control", "large")
    )
    down_ahead, down_meeting = channel(8), channel()
    control.send((down_ahead, down_meeting))
    busy = [tasklet(count_up)(each, count) for each in (ahead, meeting)]
    busy += [
        tasklet(send_large)(large),
        tasklet(collect)(down_ahead, received["down ahead"]),
        tasklet(collect)(down_meeting, received["down meeting"]),
        tasklet(collect)(pulled, received["pulled"]),
    ]
    while any(each.alive for each in busy):
        sleep(0.05)
    control.send("done")


def exchange(network: MemoryNetwork, count: int) -> None:
    received: dict[str, list[int]] = {
        flow: [] for flow in ("up ahead", "up meeting", "down ahead", "down meeting", "pulled", "large")
    }
    network.run_at("home", serve, received, count)
    network.run_at("away", use, received, count)
    network.trouble(cuts=20, partitions=3, seconds=2.0)
    network.run()
    for flow, numbers in received.items():
        assert numbers == list(range(LARGE if flow == "large" else count)), f"seed {network.seed}, {flow}"


@pytest.mark.parametrize("start", range(0, SEEDS, GROUP))
def test_nothing_is_lost_doubled_or_disordered_for_200_seeds(start: int) -> None:
    cuts = 0
    for seed in range(start, start + GROUP):
        with memory_network(seed, settings=net.Settings(patience=30)) as network:
            exchange(network, 60)
            cuts += network.cuts
    assert cuts > GROUP


def numbered(count: int, size: int) -> Iterator[bytes]:
    """Large messages of one size, each another one."""
    for number in range(count):
        yield number.to_bytes(8, "big") * (size // 8)


def send_numbered(where: channel, count: int, size: int) -> None:
    for message in numbered(count, size):
        where.send(message)
    where.close()


def test_rows_of_large_messages_pass_cuts_for_40_seeds() -> None:
    """What is read to where it stays before anything of it is known is that also on the next connection."""
    cuts = 0
    for seed in range(40):
        received: list[bytes] = []
        with memory_network(seed, settings=net.Settings(patience=30)) as network:

            def serve() -> None:
                inbox = channel(100)
                with net.serve("tcp://home:7000", inbox=inbox):
                    received.extend(inbox)  # noqa: B023  it ends with this round

            def use() -> None:
                send_numbered(net.connect("tcp://home:7000/inbox", timeout=60), 150, 24_000)
                sleep(30)

            network.run_at("home", serve)
            network.run_at("away", use)
            network.trouble(cuts=20, partitions=1, seconds=1.0)
            network.run()
            cuts += network.cuts
        assert received == list(numbered(150, 24_000)), f"seed {seed}"
    assert cuts > 40


def test_the_same_seed_gives_the_same_run() -> None:
    def ends(seed: int) -> tuple[float, int]:
        with memory_network(seed, settings=net.Settings(patience=30)) as network:
            exchange(network, 20)
            return network.clock.now, network.cuts

    assert ends(3) == ends(3)
    assert ends(3) != ends(4)


# ------------------------------------------------------------------------------------------------- over real TCP


@pytest.mark.real
def test_20_000_messages_pass_a_proxy_that_cuts_50_times() -> None:
    failures, cuts, _ = soak(20_000, 50, seed=1)
    assert failures == []
    assert cuts >= 25


def flood(url: str, count: int, size: int) -> None:
    net.configure(patience=60)
    send_numbered(net.connect(url), count, size)


@pytest.mark.real
def test_128_mib_of_large_messages_pass_a_proxy_that_cuts_40_times() -> None:
    before = net.configure()
    net.configure(patience=60)
    inbox = channel(100)
    try:
        with (
            net.serve("tcp://127.0.0.1:0", inbox=inbox) as server,
            cutting_proxy(server.address, seed=1, cut_after=(1000, 6_000_000)) as proxy,
            net.open_place("processes:1") as place,
        ):
            sending = place.spawn(flood, f"{proxy.address}/inbox", 2048, 65_536)
            for expected, message in zip(numbered(2048, 65_536), inbox, strict=True):
                assert message == expected
            sending.join()
            assert proxy.cuts >= 20
    finally:
        net.configure(patience=before.patience)


# ------------------------------------------------------------------------------------------------------ the end of it


def answer(requests: channel) -> None:
    with net.serve("tcp://home:7000", requests=requests):
        for value, reply in requests:
            with suppress(PeerLost):
                reply.send(value)


def test_a_partition_longer_than_patience_ends_the_session_on_both_sides() -> None:
    outcomes: list[str] = []

    def ask() -> None:
        requests = net.connect("tcp://home:7000/requests")
        try:
            requests.send((1, channel()))
            requests.send((2, channel()))
        except PeerLost as error:
            outcomes.append(error.outcome)
            outcomes.append(f"{network.clock.now - began:.0f}")

    with memory_network(1, settings=net.Settings(patience=7, silence=10)) as network:
        requests: channel = channel()
        network.run_at("home", answer, requests)
        network.run_at("away", ask)
        network.clock.advance(1)
        began = network.clock.now
        network.partition({"home"})
        network.clock.advance(30)
        assert outcomes in (["unknown", "17"], ["unknown", "18"])  # silence, and patience
        assert not network.node("home").links
        assert not network.node("away").links


def test_a_restarted_node_is_another_one_at_once() -> None:
    outcomes: list[str] = []

    def ask() -> None:
        mailbox = net.connect("tcp://home:7000/requests")
        try:
            mailbox.receive()
        except PeerLost as error:
            outcomes.append(str(error))
            outcomes.append(f"{network.clock.now - killed:.0f}")

    with memory_network(1, settings=net.Settings(patience=60)) as network:
        network.run_at("home", hold_open)
        network.run_at("away", ask)
        network.clock.advance(1)
        killed = network.clock.now
        network.kill("home")
        network.run_at("home", hold_open)
        network.clock.advance(3)
        assert "another process is there now; was it started again?" in outcomes[0]
        assert outcomes[1] == "0"


def hold_open() -> None:
    with net.serve("tcp://home:7000", requests=channel()):
        sleep(1000)


def test_a_goodbye_ends_it_at_once_and_says_that_nothing_more_was_taken() -> None:
    outcomes: list[str] = []

    def ask() -> None:
        requests = net.connect("tcp://home:7000/requests")
        try:
            requests.send("nobody receives it")
        except PeerLost as error:
            outcomes.append(error.outcome)

    with memory_network(1, settings=net.Settings(patience=60)) as network:
        network.run_at("home", hold_open)
        network.run_at("away", ask)
        network.clock.advance(1)
        network.node("home").close()
        network.clock.advance(1)
        assert outcomes == ["not taken"]


def test_what_had_not_left_when_patience_was_over_was_not_taken() -> None:
    outcomes: list[str] = []

    def ask() -> None:
        requests = net.connect("tcp://home:7000/requests")
        sleep(20)  # the network is parted, and the silence was noticed
        try:
            requests.send("never left")
        except PeerLost as error:
            outcomes.append(error.outcome)

    with memory_network(1, settings=net.Settings(patience=30, silence=5)) as network:
        network.run_at("home", hold_open)
        network.run_at("away", ask)
        network.clock.advance(1)
        network.partition({"home"})
        network.clock.advance(60)
        assert outcomes == ["not taken"]
