"""Nurseries: no child outlives its block, and no failure of a child is lost."""

# ruff: noqa: PT012  what raises is the end of a nursery's block, and a block has a body

import gc
import importlib
import traceback
import weakref
from collections.abc import Callable

import gevent
import pytest

from tasklets import (
    ChannelClosed,
    DeadlockError,
    TaskletError,
    TaskletExit,
    Timeout,
    channel,
    getcurrent,
    nursery,
    run,
    schedule,
    schedule_remove,
    sleep,
    tasklet,
    timeout,
)


def fail(text: str = "broken") -> None:
    raise ValueError(text)


def wait_for_ever() -> None:
    channel(name="nothing").receive()


def in_main(body: Callable[[], None]) -> None:
    body()


def in_tasklet(body: Callable[[], None]) -> None:
    with nursery() as home:
        home.start(body)


def in_greenlet(body: Callable[[], None]) -> None:
    gevent.spawn(body).get()


every_owner = pytest.mark.parametrize("owned", [in_main, in_tasklet, in_greenlet])


@every_owner
def test_leaving_the_block_waits_for_all_children(owned: Callable[..., None]) -> None:
    log: list[str] = []

    def work(name: str, turns: int) -> None:
        for _ in range(turns):
            schedule()
        log.append(name)

    def body() -> None:
        with nursery() as home:
            home.start(work, "slow", 9)
            home.start(work, "quick", turns=1)
        log.append("after")

    owned(body)
    assert log == ["quick", "slow", "after"]


@every_owner
def test_a_lone_failure_is_raised_as_itself_with_its_traceback(owned: Callable[..., None]) -> None:
    def body() -> None:
        with pytest.raises(ValueError, match="broken") as caught, nursery() as home:
            home.start(fail, name="clerk")
        assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][-1] == "fail"
        assert caught.value.__notes__ == ["raised in the child 'clerk' of a nursery"]

    owned(body)


@every_owner
@pytest.mark.parametrize(
    "waiting",
    [wait_for_ever, lambda: sleep(1000), lambda: gevent.sleep(1000)],
    ids=["channel", "sleep", "gevent"],
)
def test_a_failing_child_interrupts_the_block_and_its_siblings(
    owned: Callable[..., None], waiting: Callable[[], None]
) -> None:
    ended: list[str] = []

    def guarded(name: str) -> None:
        try:
            waiting()
        finally:
            ended.append(name)

    def body() -> None:
        with pytest.raises(ValueError, match="broken"), nursery() as home:
            home.start(guarded, "sibling")
            home.start(lambda: (sleep(0.001), fail()))
            guarded("block")

    owned(body)
    assert sorted(ended) == ["block", "sibling"]


def test_a_failing_child_interrupts_an_owner_that_called_run() -> None:
    with pytest.raises(ValueError, match="broken"), nursery() as home:
        home.start(sleep, 1000)
        home.start(fail)
        run()


def test_a_paused_owner_is_interrupted() -> None:
    def body() -> None:
        with nursery() as home:
            home.start(fail)
            schedule_remove()

    with pytest.raises(ValueError, match="broken"), nursery() as outer:
        outer.start(body)


def test_a_failing_block_kills_the_children_and_raises_its_own_error() -> None:
    ended: list[str] = []

    def child() -> None:
        try:
            wait_for_ever()
        finally:
            ended.append("child")

    error = KeyError("mine")
    with pytest.raises(KeyError) as caught, nursery() as home:
        home.start(child)
        schedule()
        raise error
    assert caught.value is error
    assert ended == ["child"]


def test_several_failures_are_raised_as_one_group() -> None:
    def fails_when_killed() -> None:
        try:
            wait_for_ever()
        finally:
            raise KeyError("in finally")

    with pytest.raises(ExceptionGroup, match="3 failures in a nursery") as caught, nursery() as home:
        home.start(fails_when_killed)
        home.start(fail)
        try:
            wait_for_ever()
        finally:
            raise OSError("in the block")
    assert [type(each) for each in caught.value.exceptions] == [ValueError, OSError, KeyError]


def test_the_cause_and_the_context_of_a_failure_are_kept() -> None:
    def chained() -> None:
        try:
            fail("first")
        except ValueError as first:
            raise KeyError("second") from first

    with pytest.raises(KeyError) as caught, nursery() as home:
        home.start(chained)
        wait_for_ever()
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.__context__ is caught.value.__cause__


def test_sys_exit_and_ctrl_c_stay_what_they_are_among_other_failures() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught, nursery() as home:
        home.start(interrupted)
        try:
            wait_for_ever()
        finally:
            fail()
    assert isinstance(caught.value.__cause__, BaseExceptionGroup)


def test_a_failure_never_reaches_run_the_old_way() -> None:
    def owner() -> None:
        with pytest.raises(ValueError, match="broken"), nursery() as home:
            home.start(fail)

    tasklet(owner)()
    run()


@every_owner
def test_killing_the_owner_kills_the_children(owned: Callable[..., None]) -> None:
    ended: list[str] = []

    def child() -> None:
        try:
            wait_for_ever()
        finally:
            ended.append("child")

    def owner() -> None:
        with nursery() as home:
            home.start(child)
        ended.append("never")

    def body() -> None:
        one = tasklet(owner)()
        schedule()
        schedule()
        one.kill()
        while one.alive:
            schedule()

    owned(body)
    assert ended == ["child"]


def test_a_gevent_kill_of_the_owner_kills_the_children() -> None:
    ended: list[str] = []

    def child() -> None:
        try:
            wait_for_ever()
        finally:
            ended.append("child")

    def owner() -> None:
        with nursery() as home:
            home.start(child)

    for turns in (1, 3):
        greenlet = gevent.spawn(owner)
        for _ in range(turns):
            gevent.sleep(0)
        greenlet.kill()
        assert greenlet.dead
    assert ended[-1] == "child"


def test_a_kill_while_the_block_is_ending_waits_for_the_children_too() -> None:
    log: list[str] = []

    def slow_to_die() -> None:
        try:
            wait_for_ever()
        finally:
            schedule()
            schedule()
            log.append("child")

    def owner() -> None:
        try:
            with nursery() as home:
                home.start(slow_to_die)
        finally:
            log.append("owner")

    one = tasklet(owner)()
    schedule()
    schedule()
    one.kill()
    one.kill()
    run()
    assert log == ["child", "owner"]


def test_a_child_that_outlives_a_kill_is_killed_by_the_next_one() -> None:
    kills: list[int] = []

    def stubborn() -> None:
        while True:
            try:
                wait_for_ever()
            except TaskletExit:
                kills.append(1)
                if len(kills) == 3:
                    raise

    def owner() -> None:
        with nursery() as home:
            home.start(stubborn)

    one = tasklet(owner)()
    for _ in range(3):
        schedule()
        schedule()
        assert one.alive
        one.kill()
    run()
    assert not one.alive
    assert len(kills) == 3


def test_a_thousand_failures_are_one_group() -> None:
    with pytest.raises(ExceptionGroup, match="1000 failures") as caught, nursery() as home:
        for number in range(1000):
            home.start(fails_when_killed, str(number))
        schedule()
        home.kill()
    assert [str(each) for each in caught.value.exceptions] == [str(number) for number in range(1000)]


def fails_when_killed(text: str) -> None:
    try:
        wait_for_ever()
    finally:
        fail(text)


def test_a_timeout_around_the_block_kills_the_children() -> None:
    children = []
    with pytest.raises(Timeout), timeout(0.001), nursery() as home:
        children.append(home.start(sleep, 1000))
    assert not children[0].alive


def test_a_killed_child_ends_silently() -> None:
    with nursery() as home:
        child = home.start(wait_for_ever)
        schedule()
        child.kill()
        assert child.ended
        unstarted = home.start(fail)
        unstarted.kill()
        assert unstarted.ended
        pending = home.start(fail)
        pending.kill(pending=True)
        assert not pending.ended


def test_a_child_may_kill_itself_and_its_siblings() -> None:
    log: list[str] = []

    def tyrant() -> None:
        home.kill()
        log.append("goes on")
        getcurrent().kill()
        log.append("never")

    with nursery() as home:
        home.start(wait_for_ever)
        home.start(tyrant)
    assert log == ["goes on"]


def test_an_exception_thrown_into_a_child_that_has_not_begun_is_its_failure() -> None:
    with pytest.raises(KeyError), nursery() as home:
        home.start(wait_for_ever).throw(KeyError("early"), pending=True)


def test_children_start_children_through_the_same_nursery() -> None:
    seen: list[int] = []

    def grow(home: nursery, depth: int) -> None:
        seen.append(depth)
        if depth < 5:
            home.start(grow, home, depth + 1)

    with nursery() as home:
        home.start(grow, home, 0)
    assert seen == list(range(6))


def test_a_child_started_by_a_dying_one_never_runs() -> None:
    log: list[str] = []

    def dying() -> None:
        try:
            wait_for_ever()
        finally:
            home.start(log.append, "late")

    with pytest.raises(ValueError, match="broken"), nursery() as home:
        home.start(dying)
        home.start(fail)
    assert log == []


def test_result_returns_what_the_function_returned() -> None:
    with nursery() as home:
        child = home.start(pow, 2, 10, name="power")
        assert child.name == "power"
        assert child.result() == 1024
        assert child.result() == 1024


def test_result_of_a_failed_child_raises_its_failure_once() -> None:
    with pytest.raises(ValueError, match="broken"), nursery() as home:
        child = home.start(fail)
        child.result()
    with pytest.raises(ValueError, match="broken"):
        child.result()


def test_result_of_a_killed_child_is_an_error() -> None:
    with nursery() as home:
        child = home.start(wait_for_ever, name="clerk")
        child.kill()
        child.join()
        with pytest.raises(TaskletError, match="clerk was killed"):
            child.result()


def test_a_nested_nursery_is_ended_by_the_outer_one() -> None:
    ended: list[str] = []

    def inner() -> None:
        try:
            with nursery() as home:
                home.start(wait_for_ever)
        finally:
            ended.append("inner")

    with pytest.raises(ValueError, match="broken"), nursery() as home:
        home.start(inner)
        schedule()
        home.start(fail)
    assert ended == ["inner"]


def test_an_outer_failure_is_not_forgotten_when_an_inner_one_is_handled() -> None:
    log: list[str] = []

    def fails_when_killed() -> None:
        try:
            wait_for_ever()
        finally:
            fail("inner")

    with pytest.raises(KeyError), nursery() as outer:
        try:
            with nursery() as inner:
                inner.start(fails_when_killed)
                outer.start(lambda: {}["outer"])
        except ValueError:
            log.append("handled")
        wait_for_ever()
        log.append("never")
    assert log == ["handled"]


def test_a_failing_child_is_restarted_until_it_succeeds() -> None:
    results = iter([ValueError, KeyError, None])

    def flaky() -> str:
        error = next(results)
        if error is not None:
            raise error
        return "done"

    with nursery() as home:
        assert home.start(flaky, restart="failed").result() == "done"


def test_a_child_restarted_always_runs_again_after_it_returned() -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        if len(runs) == 3:
            wait_for_ever()

    with nursery() as home:
        child = home.start(work, restart="always")
        while len(runs) < 3:
            schedule()
        child.kill()
    assert len(runs) == 3


def test_too_many_restarts_of_all_children_together_escalate() -> None:
    runs: list[str] = []

    def bad(name: str) -> None:
        runs.append(name)
        fail(name)

    with pytest.raises(ValueError) as caught, nursery(limit=3, within=1000) as home:  # noqa: PT011  either
        home.start(bad, "a", restart="failed")
        home.start(bad, "b", restart="failed")
    assert runs == ["a", "b", "a", "b"]
    assert "the nursery's 3 restarts within 1000 s are used up" in caught.value.__notes__[0]


def test_returning_too_often_escalates_too() -> None:
    with pytest.raises(TaskletError, match="it returned each time"), nursery(limit=2) as home:
        home.start(lambda: None, restart="always")


def test_restarts_long_ago_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(importlib.import_module("tasklets.nursery"), "monotonic", lambda: now[0])
    failures = iter(range(20))

    def slowly_failing() -> None:
        now[0] += 3.0
        for _ in failures:
            fail()

    with nursery(limit=2, within=5.0) as home:
        home.start(slowly_failing, restart="failed")
    assert next(failures, None) is None


def test_a_killed_child_is_not_restarted() -> None:
    with nursery() as home:
        child = home.start(wait_for_ever, restart="always")
        schedule()
        child.kill()
        assert child.ended


def test_a_deadlock_is_raised_at_the_end_and_names_the_children() -> None:
    orders: channel = channel(name="orders")

    def kitchen() -> None:
        with nursery() as home:
            home.start(orders.receive, name="cook")
            home.start(orders.receive, name="waiter")

    with pytest.raises(DeadlockError) as caught, nursery() as home:
        home.start(kitchen, name="kitchen")
    report = str(caught.value) + "".join(caught.value.__notes__)
    assert "cook waits: receive from <channel 'orders'" in report
    assert "kitchen waits: receive from <channel 'the end of cook'" in report
    assert "raised in the child 'waiter'" in report
    assert orders.balance == 0


def test_run_returns_although_a_nursery_waits_for_children_blocked_for_good() -> None:
    orders: channel = channel()

    def owner() -> None:
        with nursery() as home:
            home.start(orders.receive)

    one = tasklet(owner)()
    run()
    assert one.blocked
    orders.send(None)
    run()
    assert not one.alive


def test_a_block_takes_no_child_before_or_after() -> None:
    home = nursery()
    with pytest.raises(TaskletError, match="inside its block"):
        home.start(fail)
    with home:
        pass
    with pytest.raises(TaskletError, match="is over"):
        home.start(fail)
    with pytest.raises(TaskletError, match="was used before"), home:
        pass


def test_wrong_calls_show_the_right_one() -> None:
    with nursery() as home:
        with pytest.raises(TypeError, match=r"home.start\(function, 1, 2\)    # right"):
            home.start(pow(2, 3))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match='"never", "failed" or "always"'):
            home.start(pow, 2, 3, restart="sometimes")  # type: ignore[call-overload]
        assert home.children == ()


def test_nothing_is_left_of_a_nursery_and_its_children() -> None:
    class Thing:
        pass

    def use(thing: Thing) -> None:
        wait_for_ever()

    thing = Thing()
    with pytest.raises(ValueError, match="broken"), nursery() as home:
        home.start(use, thing)
        home.start(fail)
    gone = [weakref.ref(home), weakref.ref(thing)]
    del home, thing
    gc.collect()
    assert [each() for each in gone] == [None, None]


def test_a_thousand_children_each_waiting_for_the_one_before() -> None:
    with nursery() as home:
        last = home.start(lambda: 0)
        for _ in range(1000):
            last = home.start(lambda before=last: before.result() + 1)
        assert last.result() == 1000


def test_taskletexit_raised_by_the_block_itself_ends_only_the_block() -> None:
    def owner() -> None:
        with nursery() as home:
            home.start(wait_for_ever)
            raise TaskletExit

    one = tasklet(owner)()
    run()
    assert not one.alive


def test_closed_channels_in_children_are_failures_like_others() -> None:
    orders: channel = channel()
    orders.close()
    with pytest.raises(ChannelClosed), nursery() as home:
        home.start(orders.receive)
