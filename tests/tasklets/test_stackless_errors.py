"""Section 5 of Stackless's behaviour: errors, ends and kills."""

import traceback
from types import ModuleType
from typing import Any

import pytest

MANY = pytest.mark.parametrize


def bad() -> None:
    raise ValueError("v")


def test_an_error_ends_run_at_once_and_the_others_stay_in_line(s: ModuleType) -> None:
    log: list[str] = []
    one = s.tasklet(bad)()
    s.tasklet(log.append)("rest")
    with pytest.raises(ValueError, match="v"):
        s.run()
    assert (one.alive, s.runcount, log) == (False, 2, [])
    s.run()
    assert log == ["rest"]


@MANY("how", ["run", "schedule", "schedule_remove", "switch", "blocked", "run of the tasklet"])
def test_main_gets_the_error_wherever_it_is(s: ModuleType, how: str) -> None:
    one, orders = s.tasklet(bad)(), s.channel()
    wait = {
        "run": s.run,
        "schedule": s.schedule,
        "schedule_remove": s.schedule_remove,
        "switch": one.switch,
        "blocked": orders.receive,
        "run of the tasklet": one.run,
    }[how]
    with pytest.raises(ValueError, match="v"):
        wait()
    assert (orders.balance, s.current is s.main, s.main.scheduled, s.runcount) == (0, True, True, 1)


def test_the_innermost_runner_gets_it(s: ModuleType) -> None:
    log: list[str] = []

    def runner() -> None:
        s.tasklet(bad)()
        try:
            s.run()
        except ValueError:
            log.append("runner")

    s.tasklet(runner)()
    assert s.run() is None
    assert log == ["runner"]


def test_it_is_the_same_exception_with_its_frames(s: ModuleType) -> None:
    error = KeyError("k")

    def deep() -> None:
        raise error

    def work() -> None:
        deep()

    s.tasklet(work)()
    with pytest.raises(KeyError) as caught:
        s.run()
    assert caught.value is error
    assert [each.name for each in traceback.extract_tb(error.__traceback__)][-2:] == ["work", "deep"]


@MANY("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_errors_that_are_no_exceptions_reach_the_runner_too(s: ModuleType, kind: Any) -> None:
    def work() -> None:
        raise kind(3)

    s.tasklet(work)()
    with pytest.raises(kind):
        s.run()


def test_tasklet_exit_ends_silently(s: ModuleType) -> None:
    def work() -> None:
        raise s.TaskletExit

    s.tasklet(work)()
    assert s.run() is None


def test_a_killed_new_tasklet_never_starts_and_those_behind_it_have_their_turn(s: ModuleType) -> None:
    log: list[str] = []
    one = s.tasklet(log.append)("never")
    s.tasklet(log.append)("other")
    assert one.kill() is None
    assert (log, one.alive, s.runcount) == (["other"], False, 1)


def test_a_kill_runs_the_finally_clauses(s: ModuleType) -> None:
    log: list[object] = []
    orders = s.channel()

    def work() -> None:
        try:
            orders.receive()
        except s.TaskletExit as error:
            log.append(type(error))
            raise
        finally:
            log.append(orders.balance)

    one = s.tasklet(work)()
    one.run()
    one.kill()
    assert log == [s.TaskletExit, 0]


def test_a_tasklet_may_refuse_to_die(s: ModuleType) -> None:
    orders = s.channel()

    def work() -> None:
        try:
            orders.receive()
        except s.TaskletExit:
            orders.receive()

    one = s.tasklet(work)()
    one.run()
    one.kill()
    assert one.blocked
    one.kill()
    assert not one.alive


def test_a_pending_kill_comes_in_turn(s: ModuleType) -> None:
    log: list[str] = []

    def work() -> None:
        try:
            s.schedule()
        finally:
            log.append("killed")

    one = s.tasklet(work)()
    one.run()
    s.tasklet(log.append)("other")
    one.kill(pending=True)
    assert log == []
    s.run()
    assert log == ["killed", "other"]


def test_main_can_be_killed_by_a_tasklet_which_stays_runnable(s: ModuleType) -> None:
    log: list[str] = []
    s.tasklet(lambda: (s.main.kill(), log.append("later")))()
    with pytest.raises(s.TaskletExit):
        s.run()
    assert (log, s.runcount) == ([], 2)
    s.run()
    assert log == ["later"]


def test_an_exception_that_is_handled_belongs_to_its_tasklet(s: ModuleType) -> None:
    import sys

    seen: list[object] = []

    def work() -> None:
        try:
            bad()
        except ValueError:
            s.schedule()
            seen.append(sys.exc_info()[0])

    s.tasklet(work)()
    s.tasklet(lambda: seen.append(sys.exc_info()[0]))()
    s.run()
    assert seen == [None, ValueError]
    assert sys.exc_info()[0] is None


def test_errors_in_a_finally_clause_of_a_killed_tasklet_reach_the_killer(s: ModuleType) -> None:
    def work() -> None:
        try:
            s.schedule_remove(None)
        finally:
            bad()

    one = s.tasklet(work)()
    one.run()
    with pytest.raises(ValueError, match="v"):
        one.kill()
    assert not one.alive
