"""What another program says of itself cannot write lines into our log, or change what a terminal shows."""

import logging

import pytest
from hypothesis import given, strategies as st

import net
from net import PeerLost
from net._printable import printable
from net.node import get_node
from net.testing import memory_network
from tasklets import channel, sleep

EVIL = "bank\nWARNING net: all is well\x1b[2J\u202e\ud800"
SHOWN = r"bank\nWARNING net: all is well\x1b[2J\u202e\ud800"


@given(st.text())
def test_what_is_shown_is_one_printable_line(text: str) -> None:
    assert printable(text).isprintable()
    if text.isprintable():
        assert printable(text) == text


def test_escapes_name_the_character() -> None:
    assert printable(EVIL) == SHOWN


def test_the_name_of_a_node_is_shown_escaped_everywhere(caplog: pytest.LogCaptureFixture) -> None:
    with memory_network() as network, caplog.at_level(logging.INFO, "net"):
        inbox = channel(1)

        def serve() -> None:
            with net.serve("tcp://evil:1", inbox=inbox):
                get_node().name = EVIL  # not before, since that is its host here
                sleep(1.0)

        network.run_at("evil", serve)
        sleep(0.1)
        with network.at("good"):
            reference = net.connect("tcp://evil:1/inbox")
            (link,) = network.node("good").links
            assert link.name == f"{SHOWN} at tcp://evil:1"
            network.cut()
            sleep(0.5)
            link.lose("the test is over")
            with pytest.raises(PeerLost) as lost:
                reference.send(1)
        assert str(lost.value).isprintable()
    assert caplog.records
    assert all(record.getMessage().isprintable() for record in caplog.records)


def test_a_reason_to_end_is_shown_escaped() -> None:
    with memory_network() as network, network.at("good"):
        network.run_at("evil", lambda: net.serve("tcp://evil:1", inbox=channel(1)))
        sleep(0.1)
        reference = net.connect("tcp://evil:1/inbox")
        (theirs,) = network.node("evil").links
        theirs.close(EVIL.replace("\ud800", ""))
        sleep(0.1)
        with pytest.raises(PeerLost, match=r"it ended: bank\\nWARNING"):
            reference.send(1)


def test_whatever_net_logs_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "net"):
        logging.getLogger("net").warning("%s said: %s", "somebody", EVIL)
    assert caplog.records[-1].getMessage() == f"somebody said: {SHOWN}"
