"""Wait: one wait of one tasklet for something that is no channel."""

import pytest

from tasklets import TaskletExit, Timeout, channel, run, schedule, sleep, tasklet
from tasklets._core import Wait, get_scheduler


def parked(wait: Wait, log: list[object]) -> tasklet:
    def waiter() -> None:
        try:
            log.append(wait.park())
        except BaseException as error:
            log.append(repr(error))
            raise

    one = tasklet(waiter)()
    schedule()
    return one


def test_wake_hands_over_a_value() -> None:
    log: list[object] = []
    wait = Wait("an answer")
    one = parked(wait, log)
    assert one.blocked
    assert one.waits_for == "an answer"
    assert not wait.over
    wait.wake(7)
    assert wait.over
    run()
    assert log == [7]


def test_fail_raises() -> None:
    wait = Wait("an answer")
    parked(wait, [])
    wait.fail(KeyError("k"))
    with pytest.raises(KeyError):
        run()


def test_only_the_first_end_counts() -> None:
    log: list[object] = []
    wait = Wait("an answer")
    parked(wait, log)
    wait.wake(1)
    wait.wake(2)
    wait.fail(KeyError())
    run()
    assert log == [1]


def test_a_wait_that_is_over_does_not_block() -> None:
    early = Wait("an answer")
    early.wake("early")
    assert early.park() == "early"
    failed = Wait("an answer")
    failed.fail(KeyError("k"))
    with pytest.raises(KeyError):
        failed.park()


def test_an_interruption_cancels_once_and_later_wakes_are_ignored() -> None:
    cancelled: list[str] = []
    wait = Wait("an answer", cancel=lambda: cancelled.append("cancelled"))
    log: list[object] = []
    one = parked(wait, log)
    one.kill()
    wait.wake(1)
    assert cancelled == ["cancelled"]
    assert log == ["TaskletExit()"]
    assert not one.alive
    assert get_scheduler().waiting == 0


def test_a_wake_is_not_cancelled_by_a_kill_in_the_same_turn() -> None:
    cancelled: list[str] = []
    wait = Wait("an answer", cancel=lambda: cancelled.append("cancelled"))
    log: list[object] = []
    one = parked(wait, log)
    wait.wake(1)
    one.kill()
    assert cancelled == []
    assert log == ["TaskletExit()"]


def test_a_wait_that_was_refused_is_cancelled() -> None:
    cancelled: list[str] = []
    wait = Wait("an answer", cancel=lambda: cancelled.append("cancelled"))
    get_scheduler().alarm(get_scheduler().main, Timeout("due"))
    with pytest.raises(Timeout, match="due"):
        wait.park()
    assert cancelled == ["cancelled"]


def test_run_waits_for_what_comes_from_outside_only() -> None:
    log: list[object] = []
    inside = Wait("another tasklet", outside=False)
    parked(inside, log)
    run()
    assert log == []
    outside = Wait("the world")
    parked(outside, log)
    get_scheduler().get_reactor().call_later(0.002, outside.wake, "from the loop")
    run()
    assert log == ["from the loop"]
    inside.wake("at last")
    run()
    assert log == ["from the loop", "at last"]


def test_a_wait_takes_over_a_tasklet_that_was_blocked_on_a_channel() -> None:
    orders = channel()
    log: list[object] = []
    one = tasklet(lambda: log.append(orders.receive()))()
    schedule()
    taken = orders._shift()
    taken._channel = None
    assert taken is one
    wait = Wait("the post")
    wait.adopt(one)
    assert one.waits_for == "the post"
    wait.wake("letter")
    run()
    assert log == ["letter"]


def test_run_asks_the_sources_whether_a_channel_may_still_be_served() -> None:
    scheduler = get_scheduler()
    orders = channel()
    log: list[object] = []
    tasklet(lambda: log.append(orders.receive()))()
    pending = ["message"]

    def source() -> bool:
        return bool(pending)

    def deliver() -> None:
        tasklet(orders.send)(pending.pop())
        scheduler.reconsider()

    scheduler.sources.append(source)
    scheduler.get_reactor().call_later(0.002, deliver)
    try:
        run()
    finally:
        scheduler.sources.remove(source)
    assert log == ["message"]


def test_run_returns_when_the_last_source_runs_dry() -> None:
    scheduler = get_scheduler()
    one = tasklet(channel().receive)()
    alive = [True]

    def source() -> bool:
        return bool(alive)

    def dry() -> None:
        alive.clear()
        scheduler.reconsider()

    scheduler.sources.append(source)
    scheduler.get_reactor().call_later(0.002, dry)
    try:
        run()
    finally:
        scheduler.sources.remove(source)
    assert one.blocked


def test_a_failure_from_the_loop_reaches_the_runner() -> None:
    scheduler = get_scheduler()
    scheduler.get_reactor().call_later(0.002, scheduler.fail_main, ValueError("from the loop"))
    tasklet(sleep)(60)
    with pytest.raises(ValueError, match="from the loop"):
        run()


def test_taskletexit_is_what_a_killed_waiter_hears() -> None:
    log: list[object] = []
    one = parked(Wait("an answer"), log)
    one.throw(TaskletExit("bye"))
    assert log == ["TaskletExit('bye')"]
