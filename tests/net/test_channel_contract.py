"""One suite for every channel: here, in memory, in a child, at a node over TCP, a Unix socket, TLS and a secret.

The tests do not know which it is (T-01, T-02). `chan` is made at the other end; `place` runs functions there.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import gevent
import pytest

from net import Place, open_place
from net._session import MAX_MESSAGE_BYTES
from net.addresses import parse_address
from net.certificates import make_authority, make_certificate
from net.node import get_node
from net.security import make_secret
from net.testing import memory_network
from tasklets import (
    ChannelClosed,
    NotSendable,
    RemoteError,
    Timeout,
    channel,
    freeze,
    select,
    tasklet,
    timeout,
)
from tests.net import peers
from tests.net.peers import Doing, Note, ask, balance, until

pytestmark = pytest.mark.real

A_WHILE = 0.03  # seconds after which an operation that nobody answers gives up
BIG = 24 * 1024 * 1024  # bytes; beyond what any socket takes at once, below the limit


@pytest.fixture(scope="module", params=["here", "memory", "processes", "hosts", "unix", "tls"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with ExitStack() as stack:
        if request.param == "memory":
            network = stack.enter_context(memory_network(delay=(0.00001, 0.0002)))
            with network.at("there") as there:
                there.listen(parse_address("tcp://there:7000"))
            stack.enter_context(network.at("here"))
            yield stack.enter_context(open_place("hosts:there:7000"))
            return
        spec = {"here": "here", "processes": "processes:1"}.get(request.param, "hosts:")
        options: list[str] = []
        how: dict[str, Any] = {}
        if request.param == "unix":
            options = ["--listen", f"unix://{tmp_path_factory.mktemp('socket')}/node.sock"]
        elif request.param == "tls":  # and a secret
            folder = tmp_path_factory.mktemp("certificates")
            make_authority(folder)
            how = {"tls": make_certificate(folder, "both"), "secret": make_secret(folder / "secret")}
            files = (("ca", "ca.pem"), ("cert", "both.pem"), ("key", "both.key"))
            options = [f"--tls-{name}={folder}/{file}" for name, file in files]
            options += ["--secret-file", f"{folder}/secret"]
        if spec == "hosts:":
            _, address = stack.enter_context(peers.node(*options))
            spec += address
        yield stack.enter_context(open_place(spec, **how))


@pytest.fixture
def gevent_place(place: Place) -> Place:
    if get_node().network is not None:
        pytest.skip("a memory network has a clock of its own, and gevent's greenlets another one")
    return place


Make = Callable[..., channel]


@pytest.fixture
def make(place: Place) -> Make:
    """Makes a channel at the other end."""

    def make(capacity: int = 0) -> channel:
        made = ask(place, peers.make, capacity)
        assert isinstance(made, channel)
        return made

    return make


# --------------------------------------------------------------------------------------------------- when send returns


def test_send_returns_only_when_a_receiver_took_the_message(place: Place, make: Make) -> None:  # T-05
    chan = make()
    sending = Doing(chan.send, "taken")
    until(lambda: balance(place, chan) == 1)
    assert not sending.over
    assert ask(place, peers.take, chan, 1) == ("taken",)
    sending.result()


def test_a_message_sent_there_is_taken_here(place: Place, make: Make) -> None:
    chan = make()
    sending = place.spawn(peers.send_all, chan, "taken")
    until(lambda: balance(place, chan) == 1)
    assert sending.alive
    assert chan.receive() == "taken"
    sending.join()


def test_a_receiver_that_waits_here_gets_what_is_sent_there(place: Place, make: Make) -> None:
    chan = make()
    receiving = Doing(chan.receive)
    until(lambda: balance(place, chan) == -1)
    place.spawn(peers.send_all, chan, "taken").join()
    assert receiving.result() == "taken"


def fill(place: Place, chan: channel) -> int:
    """Send 0, 1, 2 ... until there is no room; return how many were sent."""
    sent, seen = 0, -1
    while sent > seen:
        seen = sent
        balance(place, chan)  # what is said of room was said by then, however slow the other end is
        with suppress(Timeout):
            while True:
                with timeout(A_WHILE):
                    chan.send(sent)
                sent += 1
    return sent


def test_sends_run_ahead_until_the_channel_is_full(place: Place, make: Make) -> None:
    chan = make(3)
    sent = fill(place, chan)
    # From elsewhere as many again may be on the way to it.
    assert sent == 3 if place.spec == "here" else 3 <= sent <= 6
    sending = Doing(chan.send, "one more")
    assert not sending.over
    assert [chan.receive() for _ in range(sent + 1)] == [*range(sent), "one more"]
    sending.result()


def test_a_full_channel_takes_more_when_the_other_end_receives(place: Place, make: Make) -> None:
    chan = make(2)
    sending = Doing(peers.count_up, chan, 100)
    assert ask(place, peers.collect, chan) == tuple(range(100))
    sending.result()


# ---------------------------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("capacity", [0, 1, 16, 5000])
def test_messages_of_one_sender_arrive_in_order(place: Place, make: Make, capacity: int) -> None:
    there, back = make(capacity), make(capacity)
    counting = Doing(peers.count_up, there, 300)
    place.spawn(peers.count_up, back, 300)
    assert ask(place, peers.collect, there) == tuple(range(300))
    assert list(back) == list(range(300))
    counting.result()


def test_receivers_are_served_first_come_first_served(place: Place, make: Make) -> None:
    chan = make()
    receiving = []
    for waiting in range(1, 4):
        receiving.append(Doing(chan.receive))
        until(lambda waiting=waiting: balance(place, chan) == -waiting)
    place.spawn(peers.send_all, chan, "a", "b", "c")
    assert [each.result() for each in receiving] == ["a", "b", "c"]


def test_senders_are_served_first_come_first_served(place: Place, make: Make) -> None:
    chan = make()
    sending = []
    for waiting, value in enumerate("abcd", 1):
        if waiting % 2:
            sending.append(Doing(chan.send, value))
        else:
            place.spawn(peers.send_all, chan, value)
        until(lambda waiting=waiting: balance(place, chan) == waiting)
    assert [chan.receive() for _ in range(4)] == ["a", "b", "c", "d"]
    for each in sending:
        each.result()


@pytest.mark.parametrize("capacity", [0, 7])
def test_many_tasklets_share_a_channel(place: Place, make: Make, capacity: int) -> None:
    chan = make(capacity)
    sending = [Doing(chan.send, number) for number in range(200)]
    taken = ask(place, peers.take, chan, 200)
    assert sorted(taken) == list(range(200))
    receiving = [Doing(chan.receive) for _ in range(200)]
    place.spawn(peers.count_up, chan, 200)
    assert sorted(each.result() for each in receiving) == list(range(200))
    for each in sending:
        each.result()


def test_both_ends_may_have_full_windows_at_once(place: Place, make: Make) -> None:  # T8.9
    there, back = make(500), make(500)
    sending = Doing(peers.count_up, there, 2000)
    place.spawn(peers.count_up, back, 2000)
    until(lambda: balance(place, there) >= 500 and balance(place, back) >= 500)
    assert list(back) == list(range(2000))
    assert ask(place, peers.collect, there) == tuple(range(2000))
    sending.result()


# ---------------------------------------------------------------------------------------------------------------- close


def test_iteration_ends_when_the_other_end_closes(place: Place, make: Make) -> None:
    chan = make()
    place.spawn(peers.count_up, chan, 5)
    assert list(chan) == [0, 1, 2, 3, 4]


def test_closing_here_ends_the_iteration_there(place: Place, make: Make) -> None:
    chan = make()
    sending = Doing(peers.count_up, chan, 5)
    assert ask(place, peers.collect, chan) == (0, 1, 2, 3, 4)
    sending.result()


@pytest.mark.parametrize("capacity", [0, 3])
@pytest.mark.parametrize("first", ["sender", "receiver"])
def test_iteration_does_not_end_by_the_news_of_another_channel(
    place: Place, make: Make, capacity: int, first: str
) -> None:
    expected = (1, "of another channel", 2)
    there = make(capacity)
    sending = Doing(peers.send_closed, there) if first == "sender" else None
    result = place.channel(1)
    place.spawn(peers.collect_with_errors, there, result)
    if sending is None:
        until(lambda: balance(place, there) < 0)
        sending = Doing(peers.send_closed, there)
    assert result.receive() == expected
    sending.result()

    here = make(capacity)
    place.spawn(peers.send_closed, here)
    peers.collect_with_errors(here, result := place.channel(1))
    assert result.receive() == expected


@pytest.mark.parametrize("capacity", [0, 3])
def test_messages_that_wait_are_received_after_the_close(place: Place, make: Make, capacity: int) -> None:
    chan = make(capacity)
    sending = [Doing(chan.send, value) for value in "ab"]
    until(lambda: balance(place, chan) == 2)
    place.spawn(peers.close, chan).join()
    assert [chan.receive() for _ in range(2)] == ["a", "b"]
    for each in sending:
        each.result()
    with pytest.raises(ChannelClosed):
        chan.receive()


def test_a_close_wakes_who_waits_to_receive(place: Place, make: Make) -> None:
    chan = make()
    receiving = [Doing(chan.receive) for _ in range(2)]
    until(lambda: balance(place, chan) == -2)
    place.spawn(peers.close, chan).join()
    for each in receiving:
        with pytest.raises(ChannelClosed):
            each.result()


@pytest.mark.parametrize("capacity", [0, 3])
def test_a_closed_channel_takes_no_message(place: Place, make: Make, capacity: int) -> None:
    chan = make(capacity)
    place.spawn(peers.close, chan).join()
    with pytest.raises(ChannelClosed, match="iterate over it"):
        chan.send("late")
    assert chan.closing
    chan.close()  # again


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("capacity", [0, 3])
def test_send_exception_raises_at_the_receiver(place: Place, make: Make, capacity: int) -> None:
    chan = make(capacity)
    place.spawn(peers.send_error, chan, "sent")
    with pytest.raises(ValueError, match="sent") as caught:
        chan.receive()
    assert caught.value.args == ("sent", 7)
    sending = Doing(peers.send_error, chan, "sent")
    spawned = place.spawn(peers.take, chan, 1, channel())
    with pytest.raises(ValueError, match="sent"):
        spawned.join()
    sending.result()


def test_send_exception_reaches_a_receiver_that_waits(place: Place, make: Make) -> None:
    chan = make()
    receiving = Doing(chan.receive)
    until(lambda: balance(place, chan) == -1)
    place.spawn(peers.send_error, chan, "sent").join()
    with pytest.raises(ValueError, match="sent"):
        receiving.result()


@pytest.mark.parametrize("capacity", [0, 3])
def test_what_cannot_travel_is_refused_to_the_sender(place: Place, make: Make, capacity: int) -> None:  # T-03
    chan = make(capacity)
    with pytest.raises(NotSendable) as caught:
        chan.send({"rows": [1, object()]})
    assert caught.value.path == "value['rows'][1]"
    receiving = Doing(chan.receive)
    with pytest.raises(NotSendable):
        chan.send(open)  # now that somebody waits
    place.spawn(peers.send_all, chan, "good")
    assert receiving.result() == "good"
    for value in range(capacity):
        chan.send(value)  # no room was lost
    for value in range(capacity):
        assert chan.receive() == value


@pytest.mark.parametrize("place", ["processes", "hosts"], indirect=True)  # within a process nothing is packed
def test_a_message_over_the_limit_is_refused_to_the_sender(place: Place, make: Make) -> None:
    chan = make()
    with pytest.raises(
        NotSendable, match=f"over the limit of {MAX_MESSAGE_BYTES} bytes at the other side; send it in"
    ):
        chan.send(bytes(MAX_MESSAGE_BYTES))
    local = channel()
    asking = place.spawn(peers.take, local, 1, chan)
    until(lambda: local.balance == -1)
    with pytest.raises(NotSendable, match="over the limit"):
        local.send(bytes(MAX_MESSAGE_BYTES))
    local.send("small")
    assert chan.receive() == ("small",)
    asking.join()


# ------------------------------------------------------------------------------------------------------------- timeouts


def test_a_send_that_timed_out_is_withdrawn(place: Place, make: Make) -> None:
    chan = make()
    with pytest.raises(Timeout), timeout(A_WHILE):
        chan.send("late")
    until(lambda: balance(place, chan) == 0)
    sending = Doing(chan.send, "in time")
    assert ask(place, peers.take, chan, 1) == ("in time",)
    sending.result()


def test_sends_that_time_out_and_others_do_not_disturb_each_other(place: Place, make: Make) -> None:
    chan = make()

    def send(value: str, seconds: float) -> None:
        with timeout(seconds):
            chan.send(value)

    for round_ in range(5):
        with pytest.raises(Timeout):
            send(f"late {round_}", 0.005)
        sending = Doing(send, f"good {round_}", peers.PATIENCE)
        assert ask(place, peers.take, chan, 1) == (f"good {round_}",)
        sending.result()


def test_a_send_that_timed_out_waiting_for_room_is_withdrawn(place: Place, make: Make) -> None:
    chan = make(1)
    sent = fill(place, chan)
    for _ in range(20):
        with pytest.raises(Timeout), timeout(0.001):
            chan.send("late")
    sending = Doing(chan.send, "last")
    assert [chan.receive() for _ in range(sent + 1)] == [*range(sent), "last"]
    sending.result()


def test_a_receive_that_timed_out_takes_nothing(place: Place, make: Make) -> None:
    chan = make()
    with pytest.raises(Timeout), timeout(A_WHILE):
        chan.receive()
    until(lambda: balance(place, chan) == 0)
    sending = place.spawn(peers.send_all, chan, "kept")
    assert chan.receive() == "kept"
    sending.join()


@pytest.mark.parametrize("capacity", [0, 8])
def test_impatient_receivers_lose_nothing_and_keep_the_order(place: Place, make: Make, capacity: int) -> None:
    chan = make(capacity)
    place.spawn(peers.count_up, chan, 300)
    draw = random.Random(capacity)
    got: list[int] = []
    while len(got) < 300:
        try:
            with timeout(draw.choice([0.0, 0.0001, 0.0003, 0.001])):
                got.append(chan.receive())
        except Timeout:
            pass
    assert got == list(range(300))


def test_impatient_senders_double_nothing_and_know_what_was_taken(place: Place, make: Make) -> None:
    chan, result = make(), channel()
    collecting = place.spawn(peers.collect, chan, result)
    draw = random.Random(1)
    known, withdrawn = [], []
    for number in range(200):
        try:
            with timeout(draw.choice([0.0, 0.0001, 0.0005, 0.002])):
                chan.send(number)
            known.append(number)
        except Timeout as late:
            if getattr(late, "outcome", "not taken") == "not taken":
                withdrawn.append(number)
    chan.close()
    taken = result.receive()
    collecting.join()
    assert list(taken) == sorted(set(taken))
    assert set(known) <= set(taken)
    assert not set(withdrawn) & set(taken)
    assert len(known) + len(withdrawn) == 200  # the home answers, so nothing is unknown


# ----------------------------------------------------------------------------------------------------------------- kill


def test_a_killed_sender_takes_its_message_with_it(place: Place, make: Make) -> None:
    chan = make()
    first, second = Doing(chan.send, "killed"), Doing(chan.send, "alive")
    until(lambda: balance(place, chan) == 2)
    first.tasklet.kill()
    assert chan.receive() == "alive"
    second.result()
    assert balance(place, chan) == 0


def test_a_killed_receiver_leaves_the_message_to_the_next(place: Place, make: Make) -> None:
    chan = make()
    first, second = Doing(chan.receive), Doing(chan.receive)
    until(lambda: balance(place, chan) == -2)
    first.tasklet.kill()
    place.spawn(peers.send_all, chan, "message").join()
    assert second.result() == "message"
    assert balance(place, chan) == 0


def test_a_sender_killed_while_it_waits_for_room_takes_none(place: Place, make: Make) -> None:
    chan = make(1)
    sent = fill(place, chan)
    killed = [Doing(chan.send, "killed") for _ in range(3)]
    for each in killed:
        each.tasklet.kill()
    assert [chan.receive() for _ in range(sent)] == list(range(sent))
    assert fill(place, chan) >= 1
    assert chan.receive() == 0


# --------------------------------------------------------------------------------------------------------------- select


def test_select_receives_from_whichever_is_first(place: Place, make: Make) -> None:
    one, two = make(), make()
    place.spawn(peers.send_all, two, "hello")
    assert select([one, two], timeout=peers.PATIENCE) == (1, "hello")
    until(lambda: balance(place, one) == 0)
    place.spawn(peers.send_all, one, "again")
    assert one.receive() == "again"


def test_a_select_that_waited_leaves_no_trace(place: Place, make: Make) -> None:
    one, two, local = make(), make(4), channel()
    with pytest.raises(Timeout, match=r"none of 3 cases became ready within 0\.03 s"):
        select([one, two, local], timeout=A_WHILE)
    until(lambda: balance(place, one) == balance(place, two) == 0)
    assert local.balance == 0
    sending = place.spawn(peers.send_all, one, "kept")
    two.send("kept too")
    assert (one.receive(), two.receive()) == ("kept", "kept too")
    sending.join()


def test_select_loses_nothing_and_keeps_the_order_of_each(place: Place, make: Make) -> None:
    chans = [make(), make(4), make()]
    for chan in chans:
        place.spawn(peers.count_up, chan, 100)
    got: list[list[int]] = [[], [], []]
    draw = random.Random(2)
    while sum(map(len, got)) < 300:
        try:
            index, value = select(
                [chan for chan, each in zip(chans, got, strict=True) if len(each) < 100],
                timeout=draw.choice([0.0001, 0.001, peers.PATIENCE]),
            )
        except Timeout:
            continue
        [each for each in got if len(each) < 100][index].append(value)
    assert got == [list(range(100))] * 3


def test_select_raises_what_a_case_brings(place: Place, make: Make) -> None:
    one, two = make(), make()
    place.spawn(peers.send_error, two, "sent")
    with pytest.raises(ValueError, match="sent"):
        select([one, two], timeout=peers.PATIENCE)
    place.spawn(peers.close, one)
    with pytest.raises(ChannelClosed):
        select([one, two], timeout=peers.PATIENCE)
    assert balance(place, two) == 0


def test_select_sends_where_there_is_room(place: Place, make: Make) -> None:
    full, free = make(1), make(1)
    full.send("full")
    until(lambda: balance(place, full) == 1)
    assert select([(free, "sent")]) == (0, None)
    assert free.receive() == "sent"


# ----------------------------------------------------------------------------------------------------------- the values


VALUES: dict[str, Any] = {
    "none": None,
    "bools": [True, False],
    "ints": [0, -1, 2**63, -(2**64), 10**100],
    "floats": [0.5, float("inf"), -0.0],
    "texts": "äöü \U0001f600 \0 \ud800",
    "bytes": [b"", bytearray(b"x"), memoryview(b"y")],
    "nested": {"k": [1, {2, 3}, {"deep": ({},)}], (1, 2): frozenset()},
    "times": [datetime(2024, 2, 29, 12, 30, tzinfo=UTC), datetime(1, 1, 1).date()],
    "numbers": [Decimal("1.10"), UUID(int=7)],
    "message": Note("hi", datetime(2024, 1, 1, tzinfo=UTC)),
    "large": bytes(range(256)) * 1000,
}


@pytest.mark.parametrize("kind", VALUES)
def test_what_is_received_is_the_frozen_form_of_what_was_sent(
    place: Place, make: Make, kind: str
) -> None:  # T-03
    chan = make(2)
    chan.send(VALUES[kind])
    received = chan.receive()
    assert received == freeze(VALUES[kind])
    assert type(received) is type(freeze(VALUES[kind]))


def test_exceptions_travel_as_values(make: Make) -> None:
    chan = make(2)
    chan.send(KeyError("missing"))
    received = chan.receive()
    assert (type(received), received.args) == (KeyError, ("missing",))
    chan.send(Timeout("late"))
    received = chan.receive()
    assert isinstance(received, RemoteError)
    assert (received.kind, received.message) == ("Timeout", "late")


def test_a_change_after_the_send_is_not_received(make: Make) -> None:  # T-03
    chan = make(2)
    value = {"rows": [1]}
    chan.send(value)
    value["rows"].append(2)
    received = chan.receive()
    assert received == {"rows": (1,)}
    assert isinstance(received, MappingProxyType)


def test_big_messages_pass_both_ways_with_small_ones_between(place: Place, make: Make) -> None:
    there, small = make(), make()
    data = bytes(BIG)
    sending = Doing(there.send, data)
    others = Doing(peers.send_all, small, *range(20))
    assert ask(place, peers.take, small, 20) == tuple(range(20))
    assert there.receive() == data
    sending.result()
    others.result()


# ---------------------------------------------------------------------------------------------- channels as values


def test_a_message_may_carry_the_channel_for_its_answer(place: Place, make: Make) -> None:  # T-09
    requests = make()
    place.spawn(peers.answer, requests)
    for number in range(20):
        reply = channel()
        requests.send((number, reply))
        assert reply.receive() == number * 2
    requests.close()


def test_a_channel_in_a_registered_message_keeps_its_name_and_capacity(make: Make) -> None:
    chan = make(1)
    reply = channel(5, "replies")
    chan.send(Note("hi", datetime(2024, 1, 1, tzinfo=UTC), reply))
    assert chan.receive().reply is reply
    assert (chan.capacity, chan.closing) == (1, False)


# --------------------------------------------------------------------------------------------------------------- gevent


def test_a_gevent_greenlet_uses_the_channel(gevent_place: Place, make: Make) -> None:
    place = gevent_place
    chan = make()
    sending = gevent.spawn(chan.send, "from a greenlet")
    assert ask(place, peers.take, chan, 1) == ("from a greenlet",)
    sending.join()
    receiving = gevent.spawn(chan.receive)
    place.spawn(peers.send_all, chan, "to a greenlet")
    assert receiving.get(timeout=peers.PATIENCE) == "to a greenlet"


def test_a_greenlets_message_waits_at_home_for_a_receiver_elsewhere(gevent_place: Place) -> None:
    place = gevent_place
    local = channel()
    sending = gevent.spawn(local.send, "waited")
    until(lambda: local.balance == 1)
    assert ask(place, peers.take, local, 1) == ("waited",)
    sending.get(timeout=peers.PATIENCE)


def test_a_greenlet_may_time_out(gevent_place: Place, make: Make) -> None:
    place = gevent_place
    chan = make()

    def impatient() -> str:
        try:
            with timeout(A_WHILE):
                return str(chan.receive())
        except Timeout:
            return "timed out"

    assert gevent.spawn(impatient).get(timeout=peers.PATIENCE) == "timed out"
    until(lambda: balance(place, chan) == 0)


# ---------------------------------------------------------------------------------- a channel at home here, used there


def test_a_local_sender_returns_when_the_receiver_elsewhere_took_it(place: Place) -> None:
    local = channel()
    sending = Doing(local.send, 1)
    assert not sending.over
    assert ask(place, peers.take, local, 1) == (1,)
    sending.result()


def test_a_local_sender_runs_ahead_although_a_receiver_elsewhere_waits(place: Place) -> None:
    local, result = channel(4), channel()
    taking = place.spawn(peers.take, local, 3, result)
    until(lambda: local.balance == -1)
    local.send(0)
    local.send(1)
    local.send(2)
    assert list(result.receive()) == [0, 1, 2]
    taking.join()


def test_a_local_select_sends_to_a_receiver_elsewhere(place: Place) -> None:
    local, other, result = channel(), channel(), channel()
    taking = place.spawn(peers.take, local, 1, result)
    assert select([other, (local, "selected")], timeout=peers.PATIENCE) == (1, None)
    assert list(result.receive()) == ["selected"]
    taking.join()


def test_a_tasklet_killed_elsewhere_gives_the_message_back(place: Place) -> None:
    local = channel()
    taking = place.spawn(peers.take, local, 1, channel())
    until(lambda: local.balance == -1)
    taking.kill()
    taking.join()
    until(lambda: local.balance == 0)
    tasklet(local.send)("kept")
    assert local.receive() == "kept"


# -------------------------------------------------------------------------------------------- what it says of itself


def test_it_says_what_it_can_know(place: Place, make: Make) -> None:
    chan = make(3)
    assert chan.capacity == 3
    assert chan.balance == 0
    assert chan.queue is None
    assert not chan.closing
    assert not chan.closed
    chan.preference = 1
    assert chan.preference == 1
    chan.preference = 7
    assert chan.preference == 1
    with pytest.raises(TypeError):
        chan.preference = "both"  # type: ignore[assignment]
    chan.close()
    assert chan.closing
    assert chan.closed


def test_queue_is_the_first_tasklet_that_waits(place: Place, make: Make) -> None:
    chan = make()
    receiving = [Doing(chan.receive) for _ in range(2)]
    assert chan.balance == -2
    assert chan.queue is receiving[0].tasklet
    place.spawn(peers.send_all, chan, "a", "b").join()
    assert [each.result() for each in receiving] == ["a", "b"]
    assert chan.queue is None
    sending = [Doing(chan.send, number) for number in range(2)]
    until(lambda: balance(place, chan) == 2)
    assert chan.balance == 2
    assert chan.queue is sending[0].tasklet
    assert [chan.receive(), chan.receive()] == [0, 1]
    assert all(each.result() is None for each in sending)


def test_a_select_waits_for_room(place: Place, make: Make) -> None:
    chan, never = make(2), channel()
    sent = fill(place, chan)
    selecting = Doing(select, [never, (chan, "more")])
    assert not selecting.over
    assert ask(place, peers.take, chan, sent) == tuple(range(sent))
    assert selecting.result() == (1, None)
    assert chan.receive() == "more"


def test_a_select_that_found_something_else_sends_nothing(place: Place, make: Make) -> None:
    chan, other = make(2), channel()
    sent = fill(place, chan)
    selecting = Doing(select, [other, (chan, "too many")])
    other.send("this")
    assert selecting.result() == (0, "this")
    assert ask(place, peers.take, chan, sent) == tuple(range(sent))
    with pytest.raises(Timeout), timeout(A_WHILE):
        chan.receive()


def test_a_select_waits_for_a_receiver(place: Place, make: Make) -> None:
    chan, other = make(), channel()
    selecting = Doing(select, [other, (chan, "offered")])
    with pytest.raises(Timeout), timeout(A_WHILE):
        channel().receive()
    assert not selecting.over
    assert ask(place, peers.take, chan, 1) == ("offered",)
    assert selecting.result() == (1, None)


def test_a_select_finds_a_receiver_that_waits(place: Place, make: Make) -> None:
    chan, result = make(), place.channel()
    taking = place.spawn(peers.take, chan, 2, result)
    until(lambda: balance(place, chan) == -1)
    assert select([channel(), (chan, "one")], timeout=peers.PATIENCE) == (1, None)
    assert select([(chan, "two")], timeout=peers.PATIENCE) == (0, None)
    assert result.receive() == ("one", "two")
    taking.join()


def test_an_offer_that_was_not_wanted_leaves_no_trace(place: Place, make: Make) -> None:
    chan, other = make(), channel()
    with pytest.raises(Timeout):
        select([other, (chan, "nobody wants it")], timeout=A_WHILE)
    selecting = Doing(select, [(chan, "nor this"), other])
    other.send("instead")
    assert selecting.result() == (1, "instead")
    with pytest.raises(Timeout), timeout(A_WHILE):
        chan.receive()


def test_closing_ends_a_select_that_waits_to_send(place: Place, make: Make) -> None:
    if place.spec == "here":
        return  # who waits to send to a closed channel here waits until somebody receives it, as in Stackless
    chan = make()
    selecting = Doing(select, [channel(), (chan, "late")])
    place.spawn(peers.close, chan).join()
    with pytest.raises(ChannelClosed):
        selecting.result()


# -------------------------------------------------------------------------------------------------------- large ones


@pytest.mark.parametrize("capacity", [0, 3])
def test_order_holds_between_large_messages_and_small_ones(place: Place, make: Make, capacity: int) -> None:
    chan = make(capacity)
    values = [0, bytes(3_000_000), 1, bytes(200_000), bytes(5), 2, bytes(1_500_000), 3]
    sending = Doing(peers.send_all, chan, *values)
    assert [chan.receive() for _ in values] == values
    sending.result()


def test_a_large_message_does_not_hold_up_others(place: Place, make: Make) -> None:
    large, small = make(1), make(1)
    sending = Doing(large.send, bytes(BIG))
    small.send("first")
    assert small.receive() == "first"
    assert large.receive() == bytes(BIG)
    sending.result()
