"""How far a sender runs ahead of a channel with room, and that it always goes on when there is room."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from net import Place, _wire as wire, open_place
from net._exports import accept
from net._grants import Grant
from net._window import Window
from net.errors import RemoteProtocolError
from tasklets import channel
from tests.net import peers
from tests.net.peers import Doing, ask, balance, until

CAPACITIES = [1, 2, 3, 4, 7, 50]


class Wire:
    """A link whose frames a test delivers by hand, with the sender's end and the home's."""

    def __init__(self, home: channel) -> None:
        self.window = Window(home.capacity)
        self.grant = Grant(home, b"id", self)  # type: ignore[arg-type]  # what a grant needs of a link
        self.grant.count = 1
        self.to_home = 0
        self.told: list[Any] = []
        self.roomy = False
        self.seqno = 0

    def tell_room(self, grant: Grant) -> None:
        self.roomy = True

    def send(self) -> None:
        if self.window.credit:
            self.window.credit -= 1
            self.to_home += 1

    def arrive(self) -> None:
        if self.to_home:
            self.to_home -= 1
            self.seqno += 1
            accept(self.grant, self.seqno, self.seqno, 0)

    def end_turn(self) -> None:
        if self.roomy:
            self.roomy = False
            self.window.acknowledge(self.grant.take_room())

    def settle(self) -> None:
        while self.to_home:
            self.arrive()
        self.end_turn()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(CAPACITIES), st.data())
def test_no_sender_without_credit_has_room_that_it_does_not_know(capacity: int, data: st.DataObject) -> None:
    home = channel(capacity)
    wires = [Wire(home), Wire(home)]
    for step in data.draw(st.lists(st.sampled_from("ssssaaatr"), max_size=200)):
        one = wires[data.draw(st.integers(0, 1))]
        if step == "s":
            one.send()
        elif step == "a":
            one.arrive()
        elif step == "t":
            one.end_turn()
        elif home.balance > 0:
            home.receive()
        assert one.window.under_way <= one.window.size
    for one in wires:
        one.settle()
    for one in wires:
        one.settle()
        assert one.window.credit or not one.grant.room
        assert one.window.under_way == one.grant.used


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with open_place("processes:1") as place:
        yield place


@pytest.mark.real
@pytest.mark.parametrize("capacity", CAPACITIES)
def test_a_sender_without_credit_goes_on_as_soon_as_one_message_is_received(
    place: Place, capacity: int
) -> None:
    there = ask(place, peers.make, capacity)
    sending = Doing(peers.send_all, there, *range(5 * capacity))
    until(lambda: balance(place, there) == 2 * capacity)  # as many in the buffer and in line
    for number in range(2 * capacity, 5 * capacity):
        assert not sending.over
        assert ask(place, peers.take, there, 1) == (number - 2 * capacity,)
        until(lambda expected=2 * capacity: balance(place, there) == expected)
    sending.result()


def test_a_lone_message_is_not_answered() -> None:
    one = Wire(channel(10))
    for _ in range(4):
        one.send()
        one.arrive()
        assert not one.roomy
    one.send()
    one.arrive()
    one.end_turn()
    assert one.window.under_way == 0


@pytest.mark.real
@pytest.mark.parametrize("capacity", [0, 1, 10])
def test_references_that_come_and_go_share_their_window(place: Place, capacity: int) -> None:
    requests: channel = channel()
    place.spawn(hand_out, requests, capacity)
    for number in range(50):
        requests.send(reply := channel())
        there = reply.receive()
        if capacity:
            there.send(number)
        del there, reply
    requests.send(reply := channel())
    there = reply.receive()
    requests.close()
    assert there.capacity == capacity


def hand_out(requests: channel, capacity: int) -> None:
    """Give one channel to whoever asks, and empty it as messages come."""
    kept = channel(capacity)
    for reply in requests:
        reply.send(kept)
        while kept.balance > 0:
            kept.receive()


def test_a_window_counts_no_room_for_what_was_not_sent() -> None:
    window = Window(5)
    window.credit -= 2
    with pytest.raises(RemoteProtocolError, match="room for 3 messages, of which 2 were under way"):
        window.acknowledge(3)
    assert wire.window_size(10**6) == wire.MAX_WINDOW
