"""Section 4 of Stackless's behaviour: channels, blocking and deadlock."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

MANY = pytest.mark.parametrize
CLOSED = "Send/receive operation on a closed channel"
DEADLOCK = "Deadlock: the last runnable tasklet cannot be blocked."


def outcome(function: Callable[..., object], *args: object) -> object:
    try:
        return function(*args)
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


# The order of events when a sender meets a waiting receiver, and a receiver a waiting sender; `other` stands in line.
ORDERS = {
    (-1, 0, "send"): "got other sent",
    (-1, 0, "receive"): "got other sent",
    (0, 0, "send"): "sent other got",
    (0, 0, "receive"): "got other sent",
    (1, 0, "send"): "sent other got",
    (1, 0, "receive"): "sent other got",
    (-1, 1, "send"): "other got sent",
    (0, 1, "send"): "other got sent",
    (1, 1, "send"): "other got sent",
    (-1, 1, "receive"): "other sent got",
    (0, 1, "receive"): "other sent got",
    (1, 1, "receive"): "other sent got",
}


@MANY(("preference", "schedule_all", "actor"), ORDERS)
def test_who_goes_on(s: ModuleType, preference: int, schedule_all: int, actor: str) -> None:
    orders, log = s.channel(), []
    orders.preference, orders.schedule_all = preference, schedule_all

    def send() -> None:
        assert orders.send(1) is None
        log.append("sent")

    def receive() -> None:
        assert orders.receive() == 1
        log.append("got")

    first, second = (receive, send) if actor == "send" else (send, receive)
    s.tasklet(first)()
    s.tasklet(second)()
    s.tasklet(log.append)("other")
    s.run()
    assert " ".join(log) == ORDERS[preference, schedule_all, actor]


def test_a_new_channel(s: ModuleType) -> None:
    orders = s.channel()
    assert (orders.balance, orders.queue, orders.preference, orders.schedule_all) == (0, None, -1, 0)
    assert (orders.closing, orders.closed) == (False, False)


@MANY(("given", "kept"), [(-1, -1), (0, 0), (1, 1), (5, 1), (-5, -1), (True, 1)])
def test_preference_is_clipped(s: ModuleType, given: int, kept: int) -> None:
    orders = s.channel()
    orders.preference = given
    assert orders.preference == kept


@MANY(("given", "kept"), [(0, 0), (1, 1), (True, 1), (False, 0), (7, 1)])
def test_schedule_all_is_a_flag(s: ModuleType, given: int, kept: int) -> None:
    orders = s.channel()
    orders.schedule_all = given
    assert orders.schedule_all == kept


@MANY("name", ["preference", "schedule_all"])
@MANY("value", ["1", None, 1.0])
def test_settings_want_numbers(s: ModuleType, name: str, value: Any) -> None:
    with pytest.raises(TypeError):
        setattr(s.channel(), name, value)


@MANY("name", ["balance", "queue", "closed"])
def test_attributes_are_read_only(s: ModuleType, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(s.channel(), name, 1)


def test_first_come_first_served(s: ModuleType) -> None:
    orders = s.channel()
    senders = [s.tasklet(orders.send)(number) for number in range(3)]
    s.run()
    assert (orders.balance, orders.queue) == (3, senders[0])
    assert [orders.receive() for _ in range(3)] == [0, 1, 2]
    assert (orders.balance, orders.queue) == (0, None)
    receivers = [s.tasklet(orders.receive)() for _ in range(2)]
    s.run()
    assert (orders.balance, orders.queue) == (-2, receivers[0])


def test_a_value_waits_in_tempval(s: ModuleType) -> None:
    orders = s.channel()
    one = s.tasklet(orders.send)("v")
    s.run()
    assert one.tempval == "v"
    assert orders.receive() == "v"
    assert one.tempval is None


# -- exceptions ----------------------------------------------------------------------------------------------


class Wrong(Exception): ...


@MANY(
    ("name", "arguments", "expected"),
    [
        ("send_exception", (Wrong,), ()),
        ("send_exception", (Wrong, "a", 1), ("a", 1)),
        ("send_throw", (Wrong,), ()),
        ("send_throw", (Wrong, ("a", 1)), ("a", 1)),
        ("send_throw", (Wrong, "a"), ("a",)),
        ("send_throw", (Wrong("b"),), ("b",)),
        ("send_throw", (Wrong, Wrong("c")), ("c",)),
    ],
)
def test_exceptions_are_raised_in_the_receiver(
    s: ModuleType, name: str, arguments: Any, expected: object
) -> None:
    orders, got = s.channel(), []

    def receive() -> None:
        try:
            orders.receive()
        except Wrong as error:
            got.append(error.args)

    s.tasklet(receive)()
    s.run()
    assert getattr(orders, name)(*arguments) is None
    s.tasklet(getattr(orders, name))(*arguments)
    s.run()
    with pytest.raises(Wrong):
        orders.receive()
    assert got == [expected]


@MANY("cls", [int, 3, "ValueError", ValueError("v"), None])
def test_send_exception_wants_a_class_of_exceptions(s: ModuleType, cls: Any) -> None:
    with pytest.raises(TypeError):
        s.channel().send_exception(cls)


@MANY("arguments", [(3,), (int,), (ValueError("v"), "w")])
def test_send_throw_refuses_what_cannot_be_raised(s: ModuleType, arguments: Any) -> None:
    with pytest.raises(TypeError):
        s.channel().send_throw(*arguments)


def test_send_throw_keeps_the_traceback(s: ModuleType) -> None:
    orders = s.channel()

    def origin() -> None:
        raise KeyError

    def send() -> None:
        try:
            origin()
        except KeyError as error:
            orders.send_throw(KeyError, error, error.__traceback__)

    s.tasklet(send)()
    with pytest.raises(KeyError) as caught:
        orders.receive()
    assert caught.traceback[-1].name == "origin"


# -- sequences, closing --------------------------------------------------------------------------------------


def test_sequences(s: ModuleType) -> None:
    orders, got = s.channel(), []

    def send() -> None:
        got.append(orders.send_sequence("ab"))
        got.append(orders.send_sequence(iter([1])))
        orders.send_exception(StopIteration)

    s.tasklet(send)()
    assert iter(orders) is orders
    assert list(orders) == ["a", "b", 1]
    s.run()
    assert got == [2, 1]


def test_a_closed_channel_refuses_to_let_anybody_wait(s: ModuleType) -> None:
    orders = s.channel()
    orders.close()
    assert (orders.closing, orders.closed) == (True, True)
    assert outcome(orders.send, 1) == outcome(orders.receive) == f"ValueError: {CLOSED}"
    assert outcome(orders.send_exception, KeyError) == f"ValueError: {CLOSED}"
    assert list(orders) == []
    orders.open()
    assert (orders.closing, orders.closed) == (False, False)
    assert outcome(orders.receive) == f"RuntimeError: {DEADLOCK}"


def test_a_closing_channel_still_serves_who_waits(s: ModuleType) -> None:
    orders, got = s.channel(), []
    s.tasklet(orders.send)(1)
    s.tasklet(orders.send)(2)
    s.run()
    orders.close()
    assert (orders.closing, orders.closed, orders.balance) == (True, False, 2)
    assert list(orders) == [1, 2]
    assert orders.closed
    orders.open()
    s.tasklet(lambda: got.append(orders.receive()))()
    s.run()
    orders.close()
    assert (orders.closed, orders.balance) == (False, -1)
    orders.send(3)
    assert got == [3]


def test_next_on_an_open_channel_waits(s: ModuleType) -> None:
    orders = s.channel()
    s.tasklet(orders.send)(1)
    assert next(orders) == 1
    orders.close()
    with pytest.raises(StopIteration):
        next(orders)


# -- deadlock ------------------------------------------------------------------------------------------------


def test_the_last_runnable_tasklet_cannot_be_blocked(s: ModuleType) -> None:
    orders = s.channel()
    assert outcome(orders.receive) == outcome(orders.send, 1) == f"RuntimeError: {DEADLOCK}"
    assert (orders.balance, orders.queue, s.current.blocked, s.current.scheduled) == (0, None, False, True)


@MANY(
    ("name", "arguments", "text"),
    [
        ("receive", (), "the main tasklet is receiving without a sender available."),
        ("send", (1,), "the main tasklet is sending without a receiver available."),
    ],
)
def test_a_blocked_main_hears_when_the_last_tasklet_ends(
    s: ModuleType, name: str, arguments: Any, text: str
) -> None:
    orders = s.channel()
    s.tasklet(lambda: None)()
    assert outcome(getattr(orders, name), *arguments) == f"RuntimeError: {text}"
    assert orders.balance == 0


def test_a_tasklet_that_cannot_be_blocked_hears_it_itself(s: ModuleType) -> None:
    orders, got = s.channel(), []

    def work() -> None:
        got.append(outcome(s.channel().receive))
        got.append(outcome(s.schedule_remove))
        orders.send("done")

    s.tasklet(work)()
    assert orders.receive() == "done"
    assert got == [f"RuntimeError: {DEADLOCK}"] * 2


def test_a_deadlock_that_nobody_handles_reaches_main(s: ModuleType) -> None:
    s.tasklet(s.channel().receive)()
    assert outcome(s.channel().receive) == f"RuntimeError: {DEADLOCK}"


def test_under_run_blocking_is_no_deadlock(s: ModuleType) -> None:
    orders = s.channel()
    one = s.tasklet(orders.receive)()
    assert s.run() is None
    assert (one.blocked, one.alive, one.scheduled, one.paused, orders.balance) == (
        True,
        True,
        True,
        False,
        -1,
    )


def test_blocking_or_pausing_wakes_a_main_that_has_paused_itself(s: ModuleType) -> None:
    log: list[str] = []
    s.tasklet(lambda: (log.append("t"), s.channel().receive()))().switch()
    log.append("main")
    s.tasklet(log.append)("u")
    assert s.schedule_remove("r") == "r"
    assert log == ["t", "main", "u"]


def test_a_subclass_of_channel(s: ModuleType) -> None:
    class Mailbox(s.channel):  # type: ignore[misc, name-defined]
        def __init__(self, label: str) -> None:
            super().__init__()
            self.label = label

    box = Mailbox("in")
    s.tasklet(box.send)(1)
    assert (box.receive(), box.label) == (1, "in")
