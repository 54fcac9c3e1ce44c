"""select: exactly one of several operations happens, and the others leave no trace."""

import pytest

from tasklets import (
    ChannelClosed,
    NotSendable,
    TaskletExit,
    Timeout,
    channel,
    getcurrent,
    run,
    schedule,
    select,
    sleep,
    tasklet,
    timeout,
)
from tasklets._core import get_scheduler


def selecting(*cases: object) -> tuple[tasklet, list[object]]:
    """Start a tasklet that waits in a select."""
    log: list[object] = []
    one = tasklet(lambda: log.append(select(cases)))()
    schedule()
    return one, log


def test_the_first_case_that_is_ready_wins() -> None:
    empty, second, third = channel(), channel(1), channel(1)
    second.send("b")
    third.send("c")
    assert select([empty, second, third]) == (1, "b")
    assert select([empty, second, third]) == (2, "c")


def test_a_send_is_ready_when_somebody_receives_or_there_is_room() -> None:
    log: list[object] = []
    orders, roomy = channel(), channel(1)
    tasklet(lambda: log.append(orders.receive()))()
    schedule()
    assert select([(orders, "message")]) == (0, None)
    assert select([(orders, "nobody"), (roomy, "room")]) == (1, None)
    assert log == ["message"]
    assert roomy.receive() == "room"


def test_a_waiting_select_receives_from_whoever_sends_first() -> None:
    a, b = channel(), channel()
    one, log = selecting(a, b)
    assert one.blocked
    assert (a.balance, b.balance) == (-1, -1)
    b.send("message")
    assert (a.balance, b.balance) == (0, 0)
    run()
    assert log == [(1, "message")]


def test_a_waiting_select_sends_to_whoever_receives_first() -> None:
    a, b = channel(), channel()
    _, log = selecting((a, "to a"), (b, "to b"))
    assert b.receive() == "to b"
    assert (a.balance, b.balance) == (0, 0)
    run()
    assert log == [(1, None)]


def test_two_selects_meet_each_other() -> None:
    a, b = channel(), channel()
    _, first = selecting(a, (b, 1))
    _, second = selecting((a, 2), b)
    run()
    assert first == [(0, 2)]
    assert second == [(0, None)]
    assert (a.balance, b.balance) == (0, 0)


def test_a_channel_may_be_in_a_select_twice() -> None:
    a = channel()
    _, log = selecting(a, a)
    assert a.balance == -2
    a.send("once")
    run()
    assert log == [(0, "once")]
    assert a.balance == 0


def test_selects_and_plain_receivers_are_served_in_order() -> None:
    a, b = channel(), channel()
    log: list[str] = []
    tasklet(lambda: log.append(f"select {select([a, b])}"))()
    tasklet(lambda: log.append(f"receive {a.receive()}"))()
    schedule()
    a.send(1)
    a.send(2)
    run()
    assert sorted(log) == ["receive 2", "select (0, 1)"]


def test_a_select_cannot_be_its_own_partner() -> None:
    a = channel(name="orders")
    with pytest.raises(ValueError, match="cannot both send to and receive from <channel 'orders'"):
        select([a, (a, 1)], timeout=60)
    assert a.balance == 0


def test_default_never_waits() -> None:
    a = channel()
    assert select([a, (a, 1)][:1], default="nothing") == (-1, "nothing")
    assert select([], default=None) == (-1, None)
    assert a.balance == 0


def test_without_a_case_it_would_wait_for_ever() -> None:
    with pytest.raises(ValueError, match="would wait for ever"):
        select([])


@pytest.mark.parametrize(
    "case", [7, ("channel", 1), (channel(), 1, 2), None], ids=["int", "text", "three", "None"]
)
def test_a_wrong_case_shows_the_right_call(case: object) -> None:
    with pytest.raises(TypeError, match=r"select\(\[orders, \(log, 'idle'\)\]\)"):
        select([case])  # type: ignore[list-item]


@pytest.mark.parametrize("seconds", [0, 0.002])
def test_timeout_withdraws_all_cases(seconds: float) -> None:
    a, b = channel(), channel()
    with pytest.raises(Timeout, match=f"none of 2 cases became ready within {seconds:g} s"):
        select([a, (b, 1)], timeout=seconds)
    assert (a.balance, b.balance) == (0, 0)


def test_a_limit_around_a_select_keeps_its_own_words() -> None:
    limit = timeout(0.002)
    with pytest.raises(Timeout, match="not done within") as caught, limit:
        select([channel()])
    assert limit.raised(caught.value)
    with pytest.raises(Timeout, match="not done within"), timeout(0.002):
        select([channel()], timeout=60)


def test_a_timeout_that_was_sent_as_a_message_is_handed_on() -> None:
    a = channel()
    tasklet(a.send_exception)(Timeout, "theirs")
    with pytest.raises(Timeout, match="theirs"):
        select([a], timeout=60)
    tasklet(a.send_exception)(Timeout, "theirs")
    schedule()
    with pytest.raises(Timeout, match="theirs"):
        select([a])


def test_run_waits_for_a_select_with_a_timeout_only() -> None:
    log: list[str] = []

    def limited() -> None:
        try:
            select([channel()], timeout=0.002)
        except Timeout:
            log.append("timeout")

    tasklet(limited)()
    one, _ = selecting(channel(), channel())
    run()
    assert log == ["timeout"]
    assert one.blocked


def test_run_returns_at_once_from_tasklets_that_select_for_good() -> None:
    one, _ = selecting(channel())
    run()
    assert one.blocked
    assert get_scheduler().waiting == 0


def test_a_kill_withdraws_all_cases() -> None:
    a, b = channel(), channel()
    one, log = selecting(a, (b, 1))
    one.kill()
    assert (a.balance, b.balance) == (0, 0)
    assert log == []
    assert not one.alive


def test_close_raises_in_a_select_that_waits_to_receive() -> None:
    a, b = channel(), channel(name="closing")
    log: list[str] = []

    def selector() -> None:
        try:
            select([a, b])
        except ChannelClosed as error:
            log.append(str(error))

    tasklet(selector)()
    schedule()
    b.close()
    run()
    assert "cannot receive from <channel 'closing'" in log[0]
    assert a.balance == 0


def test_an_exception_is_received_as_one() -> None:
    a = channel()
    log: list[object] = []

    def selector() -> None:
        try:
            select([a])
        except KeyError as error:
            log.append(error.args)

    tasklet(selector)()
    schedule()
    a.send_exception(KeyError, "k")
    run()
    assert log == [("k",)]


def test_a_copying_channel_freezes_what_a_select_sends() -> None:
    a, b = channel(copy=True), channel()
    _, log = selecting((a, [1, 2]))
    assert a.receive() == (1, 2)
    run()
    assert log == [(0, None)]
    with pytest.raises(NotSendable):
        select([b, (a, print)])
    assert (a.balance, b.balance) == (0, 0)


def test_a_full_channel_takes_what_a_select_sends_when_there_is_room() -> None:
    a = channel(1)
    a.send(1)
    _, log = selecting((a, 2))
    assert a.balance == 2
    assert [a.receive(), a.receive()] == [1, 2]
    run()
    assert log == [(0, None)]


def test_a_refused_select_leaves_no_case() -> None:
    a = channel()
    me = getcurrent()
    me.block_trap = True
    try:
        with pytest.raises(RuntimeError, match="does not like to be blocked"):
            select([a])
    finally:
        me.block_trap = False
    assert a.balance == 0


def test_a_select_killed_in_the_turn_of_its_message_dies() -> None:
    a, b = channel(), channel()
    log: list[str] = []

    def selector() -> None:
        try:
            select([a, b])
        except TaskletExit:
            log.append("killed")
            raise

    one = tasklet(selector)()
    schedule()
    a.send("message")
    one.kill()
    assert log == ["killed"]
    assert (a.balance, b.balance) == (0, 0)


def test_main_selects_while_tasklets_sleep() -> None:
    a, b = channel(), channel()

    def later() -> None:
        sleep(0.002)
        b.send("late")

    tasklet(later)()
    assert select([a, b], timeout=60) == (1, "late")
    run()


class Elsewhere(channel):
    """Stands for a reference to a channel at another node: entering a case there lets others run."""

    def _receive_is_ready(self) -> bool:
        return False

    def _enter_case(self, case: object) -> None:
        schedule()

    def _leave_case(self, case: object) -> None:
        pass


def test_what_happens_while_cases_are_entered_is_not_missed() -> None:
    here = channel()
    tasklet(here.send)("meanwhile")
    assert select([Elsewhere(), here]) == (1, "meanwhile")
    assert here.balance == 0
    run()
