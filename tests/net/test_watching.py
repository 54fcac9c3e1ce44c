"""Down arrives once, whatever ends a channel; dead letters are counted and shown."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest

import net
from net.node import get_node
from net.testing import MemoryNetwork, memory_network
from tasklets import ChannelClosed, Timeout, channel, run, select, sleep, tasklet, timeout


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with memory_network(1, settings=net.Settings(patience=3, silence=5)) as network:
        yield network


def serve(inbox: channel) -> None:
    with net.serve("tcp://home:1", inbox=inbox):
        sleep(10_000)


def none_more(told: channel) -> bool:
    with pytest.raises(Timeout), timeout(100):
        told.receive()
    return True


def test_the_end_of_its_node_is_told_once(network: MemoryNetwork) -> None:
    network.run_at("home", serve, channel())
    with network.at("away"):
        inbox = net.connect("tcp://home:1/inbox")
        told, again = net.monitor(inbox), net.monitor(inbox)
        assert told.balance == 0
        network.kill("home")
        down = told.receive()
        assert down.ref is inbox
        assert "home" in down.reason
        assert again.receive().ref is inbox
        assert none_more(told)


def test_a_cut_is_not_the_end(network: MemoryNetwork) -> None:
    network.run_at("home", serve, channel())
    with network.at("away"):
        told = net.monitor(net.connect("tcp://home:1/inbox"))
        for _ in range(3):
            network.cut()
            sleep(1)
        assert none_more(told)


def test_closing_is_told_there_and_here(network: MemoryNetwork) -> None:
    home: channel = channel()
    network.run_at("home", serve, home)
    sleep(0)
    with network.at("home"):
        here = net.monitor(home)
    with network.at("away"):
        told = net.monitor(net.connect("tcp://home:1/inbox"))
    with network.at("home"):
        home.close()
    assert told.receive().reason == here.receive().reason == "it was closed"
    assert none_more(told)


def test_what_has_ended_before_is_told_at_once(network: MemoryNetwork) -> None:
    network.run_at("home", serve, channel())
    with network.at("away"):
        inbox = net.connect("tcp://home:1/inbox")
        network.kill("home")
        sleep(5)
        assert "did not come back" in net.monitor(inbox).receive().reason
    closed: channel = channel()
    closed.close()
    with network.at("away"):
        assert net.monitor(closed).receive() == net.Down(closed, "it was closed")


def test_a_monitor_is_one_case_of_a_select(network: MemoryNetwork) -> None:
    network.run_at("home", serve, channel())
    answers: channel = channel()
    with network.at("away"):
        told = net.monitor(net.connect("tcp://home:1/inbox"))  # the reference itself is dropped
        gc.collect()
        tasklet(network.kill)("home")
        index, down = select([answers, told])
        assert (index, type(down)) == (1, net.Down)


def test_a_dropped_monitor_keeps_nothing_alive(network: MemoryNetwork) -> None:
    network.run_at("home", serve, channel())
    with network.at("away") as node:
        told = net.monitor(net.connect("tcp://home:1/inbox"))
        assert len(node.monitors) == 1
        del told
        gc.collect()
        assert not node.monitors
        assert not node._references


def test_only_channels_are_monitored() -> None:
    with pytest.raises(TypeError, match="what is monitored is a channel"):
        net.monitor("inbox")  # type: ignore[arg-type]


def test_dead_letters_are_counted_and_shown(network: MemoryNetwork) -> None:
    home: channel = channel(5)
    network.run_at("home", serve, home)
    sleep(0)
    letters: list[Any] = []
    with network.at("home"):
        assert net.watch_dead_letters(lambda value, reason: letters.append((value, reason))) == 0
    with network.at("away"):
        inbox = net.connect("tcp://home:1/inbox")
        network.partition({"home"})
        inbox.send("on its way")
        with network.at("home"):
            home.close()
        network.heal()
        sleep(1)
        with pytest.raises(ChannelClosed):
            inbox.send("after it was known")  # raises what became of the one before
    ((value, reason),) = letters
    assert value == "on its way"
    assert reason.startswith("from away at away:1: ")
    assert network.node("home").dead_letters == 1


def test_a_hook_that_fails_does_no_harm(network: MemoryNetwork, caplog: pytest.LogCaptureFixture) -> None:
    home: channel = channel(5)
    network.run_at("home", serve, home)
    sleep(0)
    with network.at("home"):
        net.watch_dead_letters(lambda value, reason: 1 / 0)  # type: ignore[arg-type]
    with network.at("away"):
        inbox = net.connect("tcp://home:1/inbox")
        inbox.closing = False
        home.closing = True  # as if the news had not arrived
        inbox.send("x")
        sleep(1)
    assert "the hook for dead letters failed" in caplog.text
    assert network.node("home").links


def test_run_waits_for_a_monitor_that_somebody_waits_for(network: MemoryNetwork) -> None:
    network.run_at("home", serve, channel())
    heard = []
    with network.at("away"):
        told = net.monitor(net.connect("tcp://home:1/inbox"))
        tasklet(lambda: heard.append(told.receive()))()
        get_node().reactor.call_later(50, network.kill, "home")
        run()
    assert len(heard) == 1
