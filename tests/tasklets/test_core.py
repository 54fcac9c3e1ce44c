"""The ring, channels and failures, without gevent.

Order follows Stackless; the numbers E1.. are those of its checked examples.
"""

import subprocess
import sys

import pytest

from tasklets import (
    ChannelClosed,
    DeadlockError,
    TaskletExit,
    bomb,
    channel,
    getcurrent,
    getmain,
    getruncount,
    run,
    schedule,
    schedule_remove,
    tasklet,
)


def test_run_is_fifo_and_returns_when_nothing_is_runnable() -> None:  # E1
    log: list[str] = []

    def twice(name: str) -> None:
        log.append(name)
        schedule()
        log.append(name)

    for name in "abc":
        tasklet(twice)(name)
    assert getruncount() == 4
    run()
    assert log == list("abcabc")
    assert getruncount() == 1


def test_a_tasklet_made_by_a_tasklet_goes_to_the_end() -> None:  # E2
    log: list[str] = []

    def parent() -> None:
        log.append("a")
        tasklet(log.append)("child")

    tasklet(parent)()
    tasklet(log.append)("b")
    run()
    assert log == ["a", "b", "child"]


def test_schedule_returns_its_argument() -> None:  # E3
    assert schedule() is getcurrent()
    assert schedule(7) == 7


def test_run_of_a_scheduled_tasklet_jumps_into_the_ring_at_its_place() -> None:  # E5
    log: list[str] = []
    _, second, _ = [tasklet(log.append)(name) for name in "123"]
    second.run()
    log.append("main")
    run()
    assert log == ["2", "3", "main", "1"]


@pytest.mark.parametrize(
    ("preference", "sender_first", "expected"),
    [
        (-1, False, "got 1 | other | sent"),  # E8
        (-1, True, "got 1 | other | sent"),  # E9
        (1, False, "sent | other | got 1"),  # E10
        (1, True, "sent | other | got 1"),  # E11
        (0, False, "sent | other | got 1"),  # E12
        (0, True, "got 1 | other | sent"),
    ],
)
def test_preference_says_who_goes_on(preference: int, sender_first: bool, expected: str) -> None:
    log: list[str] = []
    orders = channel()
    orders.preference = preference

    def receiver() -> None:
        log.append(f"got {orders.receive()}")

    def sender() -> None:
        orders.send(1)
        log.append("sent")

    for role in (sender, receiver) if sender_first else (receiver, sender):
        tasklet(role)()
    tasklet(log.append)("other")
    run()
    assert " | ".join(log) == expected


def test_schedule_all_yields_after_the_action() -> None:  # E13
    log: list[str] = []
    orders = channel()
    orders.schedule_all = 1

    def sender() -> None:
        orders.send(1)
        log.append("sent")

    tasklet(lambda: log.append(f"got {orders.receive()}"))()
    tasklet(sender)()
    tasklet(log.append)("other")
    run()
    assert log == ["other", "got 1", "sent"]


def test_waiting_senders_are_served_first_come_first_served() -> None:  # E14
    orders = channel()
    first, second = tasklet(orders.send)("A"), tasklet(orders.send)("B")
    run()
    assert orders.balance == 2
    assert orders.queue is first
    assert first.next is second
    assert [orders.receive(), orders.receive()] == ["A", "B"]
    assert orders.balance == 0


def test_main_may_block_and_the_others_run() -> None:  # E15
    orders = channel()
    tasklet(orders.send)(5)
    assert orders.receive() == 5
    run()


def test_the_deadlock_error_says_who_waits_on_what_and_where() -> None:
    """Architecture 1.3: by name, with the line of code."""
    orders = channel(name="orders")

    def clerk() -> None:
        orders.receive()

    one = tasklet(clerk)()
    schedule()
    with pytest.raises(DeadlockError) as caught:
        channel(name="answers").receive()
    text = str(caught.value)
    assert text.startswith("Deadlock: the last runnable tasklet cannot be blocked.")
    assert "clerk waits: receive from <channel 'orders' balance=-1 open>" in text
    assert "test_core.py:" in text
    one.kill()


def test_a_deadlocked_main_can_go_on_after_the_error() -> None:
    orders = channel()
    with pytest.raises(DeadlockError):
        orders.receive()
    assert orders.balance == 0
    tasklet(orders.send)(1)
    assert orders.receive() == 1
    run()


def test_main_hears_when_the_last_tasklet_ends_while_it_waits() -> None:  # E17
    tasklet(lambda: None)()
    with pytest.raises(DeadlockError, match="the main tasklet is receiving without a sender available"):
        channel().receive()
    tasklet(lambda: None)()
    with pytest.raises(DeadlockError, match="the main tasklet is sending without a receiver available"):
        channel().send(1)


def test_a_tasklet_blocked_for_good_does_not_keep_run() -> None:  # E19
    orders = channel()
    one = tasklet(orders.receive)()
    run()
    assert one.blocked
    assert one.alive
    assert orders.balance == -1
    orders.send(0)
    assert not one.alive


def test_an_exception_ends_run_at_once_and_the_rest_stays_in_line() -> None:  # E20
    log: list[str] = []

    def bad() -> None:
        raise ValueError("v")

    tasklet(bad)()
    tasklet(log.append)("rest")
    with pytest.raises(ValueError, match="v"):
        run()
    assert log == []
    run()
    assert log == ["rest"]


def test_an_exception_unblocks_a_main_that_waits_on_a_channel() -> None:  # E21
    orders = channel()

    def bad() -> None:
        raise ValueError("v")

    tasklet(bad)()
    with pytest.raises(ValueError, match="v"):
        orders.receive()
    assert orders.balance == 0


def test_an_error_under_a_nested_run_goes_to_the_innermost_runner() -> None:  # E42
    caught: list[BaseException] = []

    def bad() -> None:
        raise ValueError("v")

    def runner() -> None:
        tasklet(bad)()
        try:
            run()
        except ValueError as error:
            caught.append(error)

    tasklet(runner)()
    run()
    assert [str(error) for error in caught] == ["v"]


def test_kill_takes_a_blocked_tasklet_off_its_channel_and_runs_its_finally() -> None:  # E25
    log: list[str] = []
    orders = channel()

    def waiter() -> None:
        try:
            orders.receive()
        finally:
            log.append("cleanup")

    one = tasklet(waiter)()
    one.run()
    assert orders.balance == -1
    one.kill()
    assert orders.balance == 0
    assert not one.alive
    assert log == ["cleanup"]


def test_a_killed_tasklet_that_never_ran_never_starts() -> None:  # E24
    log: list[str] = []
    one = tasklet(log.append)("never")
    tasklet(log.append)("other")
    one.kill()
    assert log == ["other"]
    assert not one.alive


def test_a_tasklet_may_outlive_a_kill() -> None:  # E27
    orders = channel()

    def stubborn() -> None:
        try:
            orders.receive()
        except TaskletExit:
            orders.receive()

    one = tasklet(stubborn)()
    one.run()
    one.kill()
    assert one.blocked
    one.kill()
    assert not one.alive
    with pytest.raises(RuntimeError, match="cannot throw to a dead tasklet"):
        one.throw(KeyError)


def test_throw_raises_inside_a_paused_tasklet() -> None:  # E28
    caught: list[tuple[object, ...]] = []

    def paused() -> None:
        try:
            schedule_remove()
        except KeyError as error:
            caught.append(error.args)

    one = tasklet(paused)()
    one.run()
    one.throw(KeyError, (1, 2))
    assert caught == [(1, 2)]


def test_an_exception_can_be_sent_instead_of_a_message() -> None:  # E38
    orders = channel()
    tasklet(orders.send_exception)(ValueError, "a", 1)
    with pytest.raises(ValueError, match="a") as caught:
        orders.receive()
    assert caught.value.args == ("a", 1)
    run()


def test_calling_the_function_by_mistake_shows_the_right_call() -> None:
    with pytest.raises(TypeError, match=r"tasklet\(work\)\(1, 2\)             # right"):
        tasklet(len("called"))  # type: ignore[arg-type]


def test_a_tasklet_has_its_own_context() -> None:
    from contextvars import ContextVar

    user: ContextVar[str] = ContextVar("user", default="nobody")
    seen: list[str] = []

    def work(name: str) -> None:
        seen.append(user.get())
        user.set(name)
        schedule()
        seen.append(user.get())

    for name in ("ann", "bob"):
        tasklet(work)(name)
    run()
    tasklet(work)("eve")  # a reused worker leaks nothing
    run()
    assert seen == ["nobody", "nobody", "ann", "bob", "nobody", "eve"]
    assert user.get() == "nobody"


def test_a_chain_of_tasklets_each_started_by_the_one_before_does_not_nest_stacks() -> None:
    ends: list[int] = []

    def link(left: int) -> None:
        gate = channel()
        if left:
            tasklet(link)(left - 1)
            gates.append(gate)
            gate.receive()
        else:
            ends.append(left)

    gates: list[channel] = []
    tasklet(link)(20_000)
    run()
    assert ends == [0]
    for gate in gates:
        gate.send(None)
    run()


# -- channels with room --------------------------------------------------------------------------------------


def test_a_send_returns_while_there_is_room() -> None:
    orders = channel(2)
    orders.send(1)
    orders.send(2)
    assert orders.balance == 2
    assert [orders.receive(), orders.receive()] == [1, 2]


def test_a_full_channel_blocks_its_senders_and_keeps_the_order() -> None:
    log: list[object] = []
    orders = channel(2)

    def sender() -> None:
        for number in range(5):
            orders.send(number)
            log.append(f"sent {number}")

    tasklet(sender)()
    run()
    assert log == ["sent 0", "sent 1"]
    assert [orders.receive() for _ in range(5)] == [0, 1, 2, 3, 4]
    run()
    assert log[-1] == "sent 4"


def test_a_closed_channel_is_drained_and_then_ends_the_loop() -> None:
    orders = channel(3)
    for number in range(3):
        orders.send(number)
    orders.close()
    assert orders.closing
    assert not orders.closed
    assert list(orders) == [0, 1, 2]
    assert orders.closed
    with pytest.raises(ChannelClosed, match=r"closed channel.*look at \.closing"):
        orders.send(3)


def test_close_wakes_blocked_receivers_in_order() -> None:
    log: list[str] = []
    orders = channel(name="orders")

    def consumer(name: str) -> None:
        for _ in orders:
            pass
        log.append(name)

    for name in "ab":
        tasklet(consumer)(name)
    run()
    orders.close()
    run()
    assert log == ["a", "b"]


def test_a_waiting_sender_is_still_received_after_close() -> None:  # E36
    orders = channel()
    tasklet(orders.send)(1)
    run()
    orders.close()
    assert list(orders) == [1]
    with pytest.raises(ValueError, match="Send/receive operation on a closed channel"):
        orders.send(2)
    orders.open()
    assert not orders.closing


@pytest.mark.parametrize("capacity", [-1, 1.5, "1"])
def test_a_wrong_capacity_is_refused(capacity: object) -> None:
    with pytest.raises(ValueError, match="capacity is the number of messages that may wait"):
        channel(capacity)  # type: ignore[arg-type]


def test_a_copying_channel_shares_nothing_with_the_sender() -> None:
    """T-03: mutation of a sent object never changes what was received."""
    orders = channel(1, copy=True)
    sent = {"items": [1, 2]}
    orders.send(sent)
    sent["items"].append(3)
    received = orders.receive()
    assert received["items"] == (1, 2)
    with pytest.raises(TypeError):
        received["items"] = ()


def test_a_bomb_shows_what_it_carries() -> None:
    assert repr(bomb(KeyError("k"))) == "<bomb KeyError('k')>"


def test_the_main_tasklet_is_a_tasklet() -> None:
    assert getmain() is getcurrent()
    assert getmain().is_main
    assert repr(getmain()) == "<tasklet 'main' current>"


def test_the_first_error_of_a_thread_brings_no_other_along() -> None:
    program = "from tasklets import channel; channel().receive()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.count("Traceback") == 1
    assert "DeadlockError" in done.stderr


def test_a_loop_over_a_channel_ends_only_when_that_channel_is_closed() -> None:
    def failing() -> None:
        raise ChannelClosed("of another channel")

    orders = channel()
    tasklet(failing)()
    with pytest.raises(ChannelClosed, match="of another channel"):
        list(orders)
    tasklet(orders.close)()
    assert list(orders) == []
