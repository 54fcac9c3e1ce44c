"""Callbacks at switches, actions and failures; switch_trap; and that nothing is left of them afterwards."""

import contextvars
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tasklets import channel, getcurrent, getmain, run, schedule, schedule_remove, tasklet
from tasklets._core import is_watching, switch_trap
from tasklets._watch import change_watch


@pytest.fixture(autouse=True)
def nobody_watches() -> Iterator[None]:
    yield
    change_watch(switched=(), acting=(), failed=None)
    switch_trap(-switch_trap())
    assert not is_watching()


def names_of_switches() -> list[str]:
    log: list[str] = []
    change_watch(
        switched=(lambda before, after: log.append(f"{before.name if before else ''}>{after.name}"),)
    )
    return log


def test_every_switch_is_announced_once() -> None:
    orders = channel()
    sender, receiver = tasklet(orders.send)(1), tasklet(orders.receive)()
    sender.name, receiver.name = "s", "r"
    log = names_of_switches()
    run()
    assert log == ["main>s", "s>r", "r>s", "s>main"]


def test_a_send_that_hands_over_is_announced() -> None:
    orders = channel()
    receiver = tasklet(orders.receive)()
    receiver.name = "r"
    run()
    log = names_of_switches()
    orders.send(1)
    assert log == ["main>r", "r>main"]


def test_schedule_alone_is_no_switch() -> None:
    log = names_of_switches()
    schedule()
    assert log == []


def test_a_callback_runs_in_the_tasklet_that_is_left_and_cannot_switch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", lambda what: seen.append(str(what.exc_value).splitlines()[0]))

    def callback(before: tasklet | None, after: tasklet) -> None:
        seen.append(getcurrent() is before)
        schedule()

    tasklet(int)()
    change_watch(switched=(callback,))
    schedule()
    assert seen == [True, "switch_trap", True, "switch_trap"]


def test_actions_are_announced_before_they_happen() -> None:
    log: list[Any] = []
    orders = channel()
    change_watch(acting=(lambda where, one, *how: log.append((where is orders, one.tempval, *how)),))
    tasklet(orders.receive)()
    run()
    orders.send("v")
    assert log == [(True, None, 0, 1), (True, "v", 1, 0)]


def test_what_a_channel_callback_raises_comes_out_of_the_action_which_does_not_happen() -> None:
    def refuse(*action: Any) -> None:
        raise KeyError("no")

    orders = channel(1)
    change_watch(acting=(refuse,))
    with pytest.raises(KeyError):
        orders.send(1)
    assert orders.balance == 0
    assert getcurrent().tempval is None


def test_a_channel_callback_cannot_use_channels() -> None:
    orders = channel(1)
    change_watch(acting=(lambda *action: orders.send(2),))
    with pytest.raises(RuntimeError, match="a callback cannot use channels"):
        orders.send(1)


def test_the_error_handler_hears_instead_of_run() -> None:
    heard: list[Any] = []

    def fail() -> None:
        raise ValueError("v")

    change_watch(failed=lambda kind, error, traceback: heard.append((kind, str(error), getcurrent() is one)))
    one = tasklet(fail)()
    run()
    assert heard == [(ValueError, "v", True)]


def test_what_the_error_handler_raises_goes_to_run() -> None:
    def handler(*error: Any) -> None:
        raise KeyError("from the handler")

    change_watch(failed=handler)
    tasklet(int)("no number")
    with pytest.raises(KeyError, match="from the handler"):
        run()


WAYS_TO_SWITCH: dict[str, Any] = {
    "run": run,
    "schedule": schedule,
    "schedule_remove": schedule_remove,
    "receive": lambda: channel().receive(),
    "send": lambda: channel().send(1),
    "run it": lambda: getmain().next.run(),  # type: ignore[union-attr]
    "switch": lambda: getmain().next.switch(),  # type: ignore[union-attr]
    "kill": lambda: getmain().next.kill(),  # type: ignore[union-attr]
}


@pytest.mark.parametrize("switch", list(WAYS_TO_SWITCH.values()), ids=list(WAYS_TO_SWITCH))
def test_a_switch_trap_refuses_every_switch_and_changes_nothing(switch: Any) -> None:
    ran: list[int] = []
    tasklet(ran.append)(1)
    assert switch_trap(1) == 0
    with pytest.raises(RuntimeError, match="switch_trap"):
        switch()
    assert ran == []
    assert switch_trap(-1) == 1
    run()
    assert ran == [1]


def test_a_switch_trap_refuses_a_send_that_would_hand_over() -> None:
    orders = channel()
    got: list[int] = []
    tasklet(lambda: got.append(orders.receive()))()
    run()
    switch_trap(1)
    with pytest.raises(RuntimeError, match="switch_trap"):
        orders.send(1)
    assert orders.balance == -1
    orders.preference = 1
    orders.send(2)  # goes on without a switch
    switch_trap(-1)
    run()
    assert got == [2]


def test_flags() -> None:
    one = getcurrent()
    assert [one.set_atomic(True), one.atomic, one.set_atomic(False)] == [False, True, True]
    assert [one.set_ignore_nesting(1), one.ignore_nesting, one.set_ignore_nesting(0)] == [False, True, True]
    with pytest.raises(TypeError):
        one.set_atomic("yes")  # type: ignore[arg-type]
    assert one.thread_id == threading.get_ident()


def test_depth_counts_the_calls_of_the_program() -> None:
    def deep(levels: int) -> None:
        if levels > 1:
            deep(levels - 1)
        else:
            schedule_remove()

    one = tasklet(deep)(3)
    assert one.recursion_depth == one.nesting_level == 0
    assert one.restorable
    one.run()
    assert one.recursion_depth == 3
    assert one.nesting_level == 1
    assert not one.restorable
    one.kill()
    assert one.recursion_depth == 0


def test_a_tasklet_can_be_given_a_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    context = contextvars.Context()
    context.run(variable.set, "given")
    seen: list[str] = []
    one = tasklet(lambda: seen.append(variable.get())).bind(None, ())
    assert one.set_context(context) is one
    assert one.context_id == id(context)
    assert one.context_run(variable.get) == "given"
    one.insert()
    run()
    assert seen == ["given"]
    with pytest.raises(RuntimeError):
        getcurrent().set_context(context)


def test_a_started_tasklet_can_be_given_another_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    def look() -> None:
        schedule_remove()
        seen.append(variable.get())

    one = tasklet(look)()
    one.run()
    context = contextvars.Context()
    context.run(variable.set, "given")
    one.set_context(context)
    one.run()
    assert seen == ["given"]


def test_a_tasklet_that_did_not_start_can_be_pickled_and_a_started_one_says_why_not() -> None:
    one = tasklet(divmod).bind(None, (7, 2))
    one.block_trap = True
    again = pickle.loads(pickle.dumps(one))
    assert again.paused
    assert again.block_trap
    again.insert()
    run()
    blocked = tasklet(channel().receive)()
    blocked.run()
    with pytest.raises(TypeError, match="it has started"):
        pickle.dumps(blocked)


def test_a_channel_that_nobody_waits_in_can_be_pickled() -> None:
    orders = channel(3, "orders")
    orders.preference = 1
    orders.send("a")
    again = pickle.loads(pickle.dumps(orders))
    assert (again.name, again.capacity, again.preference, again.receive()) == ("orders", 3, 1, "a")
    tasklet(again.receive)()
    run()
    with pytest.raises(TypeError, match="tasklets wait in it"):
        pickle.dumps(again)


def test_a_tasklet_that_did_not_start_can_be_moved_to_another_thread() -> None:
    seen: list[object] = []
    one = tasklet(lambda: seen.append(threading.get_ident())).bind(None, ())

    def body() -> None:
        one.bind_thread()
        one.run()
        seen.append(threading.get_ident())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen[0] == seen[1] != threading.get_ident()


def test_what_cannot_be_moved_says_so() -> None:
    one = tasklet(int)()
    with pytest.raises(RuntimeError, match="a runnable tasklet"):
        one.bind_thread()
    one.remove()
    with pytest.raises(ValueError, match="bad thread"):
        one.bind_thread(1)
    with pytest.raises(OverflowError):
        one.bind_thread(-2)
    blocked = tasklet(channel().receive)()
    blocked.run()
    with pytest.raises(RuntimeError, match="C state"):
        blocked.bind_thread()
