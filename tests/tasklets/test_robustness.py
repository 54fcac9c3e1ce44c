"""Kills in every state, many and deep, misuse, and Ctrl-C between any two steps of the core."""

from collections.abc import Callable
from typing import Any

import gevent
import pytest

from tasklets import (
    TaskletError,
    TaskletExit,
    channel,
    getcurrent,
    getmain,
    getruncount,
    run,
    schedule,
    schedule_remove,
    select,
    sleep,
    tasklet,
)
from tasklets._core import Scheduler, Wait, get_scheduler
from tasklets._which_form import is_compiled

# -- kill in every state -------------------------------------------------------------------------------------


def unbound() -> tasklet:
    return tasklet()


def bound() -> tasklet:
    return tasklet(int)


def new() -> tasklet:
    return tasklet(int)()


def new_and_paused() -> tasklet:
    return tasklet(int, ())


def started(function: Callable[..., object], *args: object) -> tasklet:
    one = tasklet(function)(*args)
    one.run()
    return one


def scheduled() -> tasklet:
    return started(schedule)


def receiving() -> tasklet:
    return started(channel().receive)


def sending() -> tasklet:
    return started(channel().send, 1)


def selecting() -> tasklet:
    return started(select, [channel(), (channel(), 1)])


def sleeping() -> tasklet:
    return started(sleep, 60)


def in_gevent() -> tasklet:
    return started(gevent.sleep, 60)


def woken_by_gevent() -> tasklet:
    one = started(gevent.get_hub().switch)
    get_scheduler().wake_from_hub(one, (None,))
    return one


def paused() -> tasklet:
    return started(schedule_remove)


def in_run() -> tasklet:
    tasklet(sleep)(60)
    return started(run)


def waiting() -> tasklet:
    return started(Wait("an answer").park)


def handed_a_message() -> tasklet:
    orders = channel()
    orders.preference = 0
    one = started(orders.receive)
    orders.send("message")
    return one


def dead() -> tasklet:
    one = tasklet(int)()
    run()
    return one


STATES = [
    unbound,
    bound,
    new,
    new_and_paused,
    scheduled,
    receiving,
    sending,
    selecting,
    sleeping,
    in_gevent,
    woken_by_gevent,
    paused,
    in_run,
    waiting,
    handed_a_message,
    dead,
]


def kill_from_main(one: tasklet) -> None:
    one.kill()


def kill_pending(one: tasklet) -> None:
    one.kill(pending=True)
    schedule()


def kill_from_a_tasklet(one: tasklet) -> None:
    killer = tasklet(one.kill)()
    while killer.alive:
        schedule()


def kill_from_a_greenlet(one: tasklet) -> None:
    gevent.spawn(one.kill).join()
    gevent.sleep(0.001)


@pytest.mark.parametrize("kill", [kill_from_main, kill_pending, kill_from_a_tasklet, kill_from_a_greenlet])
@pytest.mark.parametrize("state", STATES)
def test_a_tasklet_can_be_killed_in_every_state(
    state: Callable[[], tasklet], kill: Callable[[tasklet], None]
) -> None:
    one = state()
    kill(one)
    assert not one.alive
    assert not one.scheduled
    assert one.frame is None
    kill(one)
    with pytest.raises(RuntimeError, match="cannot throw to a dead tasklet"):
        one.throw(KeyError)


@pytest.mark.parametrize("state", STATES[2:-1])
def test_an_exception_thrown_into_any_state_reaches_main(state: Callable[[], tasklet]) -> None:
    one = state()
    with pytest.raises(KeyError, match="thrown"):
        one.throw(KeyError("thrown"))
    assert not one.alive


def test_killing_oneself_raises_here() -> None:
    log: list[str] = []

    def suicide() -> None:
        try:
            getcurrent().kill()
        finally:
            log.append("cleanup")
        log.append("never")

    one = tasklet(suicide)()
    run()
    assert log == ["cleanup"]
    assert not one.alive


def test_killing_main_ends_what_main_waits_for() -> None:
    for wait in (run, channel().receive, lambda: sleep(60), lambda: gevent.sleep(60)):
        tasklet(getmain().kill)()
        with pytest.raises(TaskletExit):
            wait()
        run()


def test_an_error_thrown_into_main_arrives_at_once_and_the_thrower_stays_in_line() -> None:  # E51
    log: list[str] = []

    def thrower() -> None:
        getmain().throw(KeyError, "k")
        log.append("later")

    tasklet(thrower)()
    with pytest.raises(KeyError):
        run()
    assert getruncount() == 2
    assert log == []
    run()
    assert log == ["later"]


def test_a_failure_in_a_finally_during_a_kill_reaches_the_runner() -> None:
    def fragile() -> None:
        try:
            channel().receive()
        finally:
            raise ValueError("in finally")

    one = started(fragile)
    with pytest.raises(ValueError, match="in finally") as caught:
        one.kill()
    assert isinstance(caught.value.__context__, TaskletExit)
    assert not one.alive


def test_a_tasklet_may_block_again_while_it_is_killed() -> None:
    log: list[str] = []
    orders = channel()

    def slow() -> None:
        try:
            channel().receive()
        finally:
            log.append(orders.receive())

    one = started(slow)
    one.kill()
    assert one.blocked
    orders.send("last words")
    assert log == ["last words"]
    assert not one.alive


def test_two_tasklets_may_kill_each_other() -> None:
    ones: list[tasklet] = []

    def killer(other: int) -> None:
        schedule()
        ones[other].kill()

    ones.extend(tasklet(killer)(other) for other in (1, 0))
    run()
    assert not any(one.alive for one in ones)


def test_a_runner_killed_from_outside_frees_the_runners_above_it() -> None:
    log: list[str] = []

    def outer() -> None:
        tasklet(inner)()
        run()

    def inner() -> None:
        tasklet(sleep)(60)
        run()
        log.append("inner")

    one = tasklet(outer)()
    schedule()
    schedule()
    assert len(get_scheduler().runners) == 2
    one.kill()
    schedule()
    assert log == ["inner"]
    assert get_scheduler().runners == []


def test_an_ended_runner_does_not_take_later_runners_along() -> None:
    """The upper of two runners goes on late, when others have called run() meanwhile."""
    log: list[str] = []

    def runner(name: str) -> None:
        tasklet(sleep)(60)
        run()
        log.append(name)

    first, second = (started(runner, name) for name in ("first", "second"))
    first.kill(pending=True)
    schedule()
    third = started(runner, "third")
    schedule()
    assert log == ["second"]
    assert get_scheduler().runners == [third]
    third.kill()
    assert not second.alive


# -- many and deep -------------------------------------------------------------------------------------------


def test_a_hundred_thousand_tasklets_are_blocked_at_once() -> None:
    orders = channel()
    total: list[int] = []

    def receiver() -> None:
        total.append(orders.receive())

    for _ in range(100_000):
        tasklet(receiver)()
    run()
    assert orders.balance == -100_000
    for number in range(100_000):
        orders.send(number)
    run()
    assert total == list(range(100_000))


def test_a_deep_chain_of_nested_runs() -> None:
    depth: list[int] = []

    def nested(left: int) -> None:
        if left:
            tasklet(nested)(left - 1)
            run()
        depth.append(left)

    tasklet(nested)(1000)
    run()
    assert depth == list(range(1001))


def test_a_deep_chain_of_kills() -> None:
    ones: list[tasklet] = []

    def link(number: int) -> None:
        try:
            channel().receive()
        finally:
            if number:
                ones[number - 1].kill()

    ones.extend(tasklet(link)(number) for number in range(5000))
    run()
    ones[-1].kill()
    run()
    assert not any(one.alive for one in ones)


def test_a_deep_chain_of_messages_through_tasklets() -> None:
    first = left = channel()

    def add_one(source: channel, target: channel) -> None:
        target.send(source.receive() + 1)

    for _ in range(10_000):
        right = channel()
        tasklet(add_one)(left, right)
        left = right
    tasklet(first.send)(0)
    assert left.receive() == 10_000


def test_a_tasklet_has_the_whole_recursion_limit() -> None:
    def recurse(left: int) -> int:
        return recurse(left - 1) + 1 if left else 0

    results: list[int] = []

    def deep(left: int) -> None:
        if left:
            tasklet(deep)(left - 1)
        else:
            results.append(recurse(500))

    tasklet(deep)(2000)
    run()
    assert results == [500]


# -- misuse --------------------------------------------------------------------------------------------------


def test_a_blocked_or_dead_tasklet_cannot_be_run() -> None:
    blocked, over = receiving(), dead()
    for misuse in (blocked.insert, blocked.run, blocked.switch):
        with pytest.raises(RuntimeError, match="cannot run a blocked tasklet"):
            misuse()
    with pytest.raises(RuntimeError, match="cannot remove a blocked tasklet"):
        blocked.remove()
    for misuse in (over.insert, over.run, over.switch):
        with pytest.raises(RuntimeError, match=r"unbound\(dead\)"):
            misuse()


def test_a_started_tasklet_cannot_be_bound_again() -> None:  # E34
    with pytest.raises(RuntimeError, match="C state"):
        paused().bind(int)
    with pytest.raises(RuntimeError, match="is scheduled"):
        new().bind(int)
    with pytest.raises(RuntimeError, match="is alive"):
        new()()
    with pytest.raises(RuntimeError, match="not bound to a function"):
        tasklet()()
    with pytest.raises(RuntimeError, match="current tasklet cannot be removed"):
        getcurrent().remove()


def test_blocking_can_be_forbidden() -> None:  # E35
    me = getcurrent()
    me.block_trap = True
    try:
        for wait in (channel().receive, lambda: channel().send(1), lambda: sleep(1), lambda: gevent.sleep(1)):
            with pytest.raises(RuntimeError, match="does not like to be blocked"):
                wait()
    finally:
        me.block_trap = False


def test_wrong_exceptions_are_refused() -> None:
    one = receiving()
    with pytest.raises(TypeError, match="exceptions must be classes, or instances, not int"):
        one.throw(7)
    with pytest.raises(TypeError, match="may not have a separate value"):
        one.throw(KeyError("k"), "v")
    with pytest.raises(TypeError, match="send_exception wants an exception class, not 7"):
        channel(1).send_exception(7)  # type: ignore[arg-type]


# -- Ctrl-C between any two steps ----------------------------------------------------------------------------


def exchange(log: list[Any]) -> None:
    """A bit of everything, ending with an empty ring."""
    there, back = channel(), channel(1)

    def echo() -> None:
        for message in there:
            back.send(message)

    def sleeper() -> None:
        sleep(0.0001)
        log.append("slept")

    def victim() -> None:
        channel().receive()

    tasklet(echo)()
    for number in range(2):
        there.send(number)
        log.append(back.receive())
    one = tasklet(victim)()
    tasklet(sleeper)()
    schedule()
    one.kill()
    log.append(select([back, there], timeout=0.0001) if number > 1 else None)
    schedule_remove()
    there.close()
    run()
    gevent.sleep(0)


METHODS = [
    (owner, name)
    for owner in (Scheduler, channel, Wait)
    for name, value in vars(owner).items()
    if callable(value)
    and name not in ("__new__", "__init__", "__repr__", "__iter__", "throw")
    and not isinstance(value, property)
]


class Fault:
    """Raise KeyboardInterrupt when the n-th function of the core is entered, as a signal handler would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = -1
        self.place = ""
        for owner, name in METHODS:
            monkeypatch.setattr(owner, name, self.wrap(f"{owner.__name__}.{name}", getattr(owner, name)))

    def wrap(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def entered(*args: Any, **kwargs: Any) -> Any:
            if self.left >= 0:
                self.left -= 1
                if self.left < 0:
                    self.place = label
                    raise KeyboardInterrupt
            return function(*args, **kwargs)

        return entered


@pytest.mark.skipif(
    is_compiled(), reason="Ctrl-C comes between bytecodes: compiled functions are never interrupted"
)
def test_ctrl_c_on_entering_any_function_of_the_core_leaves_the_books_in_order(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from .conftest import check_invariants, end_all_tasklets

    get_scheduler().get_reactor()
    fault = Fault(monkeypatch)
    exchange([])
    places = set()
    for number in range(1000):
        fault.place = ""
        fault.left = number
        try:
            exchange([])
        except KeyboardInterrupt:
            pass
        except TaskletError:
            if not fault.place:
                raise
        fault.left = -1
        if not fault.place:
            break
        places.add(fault.place)
        check_invariants()
        end_all_tasklets()
        log: list[Any] = []
        exchange(log)
        assert log == [0, 1, None, "slept"], fault.place
    else:
        pytest.fail("the program never came to its end")
    assert len(places) > 20
    capfd.readouterr()
