"""Send-only and receive-only references, here and elsewhere, and by way of a third node (T-09)."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import net
from net import NotAllowed
from net.testing import MemoryNetwork, memory_network
from tasklets import ChannelClosed, channel, select


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with memory_network(1) as network:
        yield network


def refused(operation: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(NotAllowed) as caught:
        operation(*args)
    return str(caught.value)


def test_a_send_only_reference_here_sends_and_nothing_else() -> None:
    log: channel = channel(2, "log")
    facet = net.send_only(log)
    facet.send(1)
    assert select([(facet, 2)]) == (0, None)
    assert (facet.balance, facet.capacity, facet.name) == (2, 2, "log")
    said = refused(facet.receive)
    assert said.startswith("cannot receive with <send-only reference to <channel 'log'")
    refused(select, [facet])
    refused(next, facet)
    facet.close()
    assert log.closing
    assert facet.closing
    assert [log.receive(), log.receive()] == [1, 2]


def test_a_receive_only_reference_here_receives_and_nothing_else() -> None:
    log: channel = channel(2)
    facet = net.receive_only(log)
    log.send(1)
    log.send(2)
    assert facet.receive() == 1
    assert select([facet]) == (0, 2)
    refused(facet.send, 3)
    refused(facet.close)
    refused(facet.send_exception, ValueError)
    refused(select, [(facet, 3)])
    log.close()
    assert list(facet) == []


def test_rights_are_not_won_back() -> None:
    log: channel = channel()
    facet = net.send_only(log)
    assert net.send_only(facet) is facet
    refused(net.receive_only, facet)


def serve_facets(made: channel) -> None:
    log: channel = channel(4, "log")
    made.send(log)
    with net.serve("tcp://home:1", writers=net.send_only(log), readers=net.receive_only(log)):
        made.receive()


def test_rights_hold_elsewhere_too(network: MemoryNetwork) -> None:
    made: channel = channel()
    network.run_at("home", serve_facets, made)
    made.receive()
    with network.at("away"):
        writers, readers = net.connect("tcp://home:1/writers"), net.connect("tcp://home:1/readers")
        assert writers is not readers
        writers.send(1)
        assert readers.receive() == 1
        refused(writers.receive)
        refused(readers.send, 2)
        refused(readers.close)
        refused(select, [writers])
        refused(select, [(readers, 1)])
        readers._rights = writers._rights = 3  # a hostile node says that it may
        assert "send-only" in refused(writers.receive)
        readers.send(2)
        network.clock.advance(1)
        assert "receive-only" in refused(readers.send, 3)
        readers.close()
        network.clock.advance(1)
        writers.send(4)
        assert readers.receive() == 4
    made.send("end")


def test_a_restricted_reference_stays_so_when_it_is_handed_on(network: MemoryNetwork) -> None:
    made: channel = channel()
    network.run_at("home", serve_facets, made)
    made.receive()

    def hand_on() -> None:
        mailbox = net.connect("tcp://third:1/mailbox")
        mailbox.send(net.connect("tcp://home:1/writers"))

    def third() -> None:
        mailbox: channel = channel()
        with net.serve("tcp://third:1", mailbox=mailbox):
            writers = mailbox.receive()
            writers.send("from the third")
            results.append(refused(writers.receive))

    results: list[str] = []
    network.run_at("third", third)
    network.run_at("away", hand_on)
    network.clock.advance(2)
    assert len(results) == 1
    with network.at("away"):
        assert net.connect("tcp://home:1/readers").receive() == "from the third"
    made.send("end")


def test_only_the_home_restricts(network: MemoryNetwork) -> None:
    made: channel = channel()
    network.run_at("home", serve_facets, made)
    made.receive()
    with network.at("away"):
        assert "only its home can restrict it" in refused(net.send_only, net.connect("tcp://home:1/writers"))
    made.send("end")


def test_closing_reaches_every_holder(network: MemoryNetwork) -> None:
    made: channel = channel()
    network.run_at("home", serve_facets, made)
    log = made.receive()
    held = []
    for name in ("one", "two"):
        with network.at(name):
            held += [net.connect("tcp://home:1/writers"), net.connect("tcp://home:1/readers")]
    with network.at("home"):
        log.close()
    network.clock.advance(1)
    assert all(reference.closing for reference in held)
    with network.at("three"):
        late = net.connect("tcp://home:1/writers")
        network.clock.advance(1)
        assert late.closing
        with pytest.raises(ChannelClosed):
            late.send(1)
    made.send("end")


def test_a_select_cannot_be_its_own_partner_by_a_restricted_reference_either() -> None:
    # Found by tests.net.fuzz: it tried again and again, and held up its process.
    log: channel = channel()
    for cases in ([(log, 1), net.receive_only(log)], [log, (net.send_only(log), 1)]):
        with pytest.raises(ValueError, match="its own partner"):
            select(cases)
