"""Section 2 of Stackless's behaviour: the functions and attributes of the module `stackless`."""

import builtins
import sys
import threading
from types import ModuleType
from typing import Any

import pytest

MANY = pytest.mark.parametrize


def test_module_is_importable_and_names_itself(s: ModuleType) -> None:
    import stackless  # type: ignore[import-not-found]

    assert stackless is s is s.stackless
    assert isinstance(s, ModuleType)


def test_tasklet_exit_is_a_builtin_and_a_system_exit(s: ModuleType) -> None:
    assert builtins.TaskletExit is s.TaskletExit  # type: ignore[attr-defined]
    assert issubclass(s.TaskletExit, SystemExit)
    assert not issubclass(s.TaskletExit, Exception)


def test_star_import_brings_functions_and_types_and_no_properties(s: ModuleType) -> None:
    names: dict[str, Any] = {}
    exec("from stackless import *", names)
    assert {"run", "schedule", "schedule_remove", "tasklet", "channel", "atomic", "stackless", "bomb"} <= set(
        names
    )
    assert {"getcurrent", "getmain", "getruncount", "switch_trap", "getthreads", "getcurrentid"} <= set(names)
    assert {"set_schedule_callback", "set_channel_callback", "set_error_handler"} <= set(names)
    assert not {"current", "main", "runcount"} & set(names)


@MANY("name", ["current", "main", "runcount", "debug", "threads", "uncollectables"])
def test_properties_are_read_only(s: ModuleType, name: str) -> None:
    getattr(s, name)
    with pytest.raises(AttributeError):
        setattr(s, name, None)


def test_properties_are_evaluated_at_each_access(s: ModuleType) -> None:
    assert s.runcount == 1
    one = s.tasklet(lambda: None)()
    assert s.runcount == s.getruncount() == 2
    assert s.current is s.getcurrent() is s.main is s.getmain()
    s.run()
    assert not one.alive
    assert s.runcount == 1


def test_build_questions_have_harmless_answers(s: ModuleType) -> None:
    assert s.debug is False
    assert s.getdebug() is False
    assert s.uncollectables == s.getuncollectables() == []
    assert s.pickle_flags == 0


@MANY("flag", [None, True, False, 0, 1])
def test_soft_switching_is_always_off(s: ModuleType, flag: Any) -> None:
    assert s.enable_softswitch(flag) is False


# -- run -----------------------------------------------------------------------------------------------------


def test_run_takes_its_arguments_by_place_and_by_name(s: ModuleType) -> None:
    assert s.run(0, False, False, False, False) is None
    assert s.run(timeout=0, threadblock=0, soft=0, ignore_nesting=0, totaltimeout=0) is None
    assert s.run(-1) is None
    assert s.run(1000, 0, 1, 1, 1) is None


@MANY("timeout", ["1", 1.5, None])
def test_run_wants_an_int(s: ModuleType, timeout: Any) -> None:
    with pytest.raises(TypeError):
        s.run(timeout)


def test_run_pauses_its_caller(s: ModuleType) -> None:
    seen: list[object] = []
    s.tasklet(lambda: seen.append((s.main.paused, s.main.scheduled, s.main.alive, s.runcount)))()
    s.run()
    assert seen == [(True, False, True, 1)]


def test_a_tasklet_may_call_run(s: ModuleType) -> None:
    log: list[str] = []

    def outer() -> None:
        s.tasklet(log.append)("inner")
        assert s.run() is None
        log.append("outer")

    s.tasklet(outer)()
    s.tasklet(log.append)("other")
    s.run()
    assert log == ["other", "inner", "outer"]


def test_main_runs_as_an_ordinary_tasklet_while_another_one_is_in_run(s: ModuleType) -> None:
    done: list[str] = []

    def runner() -> None:
        s.run()
        done.append("runner")

    def worker() -> None:
        s.schedule()
        done.append("worker")

    s.tasklet(worker)()
    one = s.tasklet(runner)()
    while not done:
        s.schedule()
    assert done == ["worker"]
    assert one.paused
    one.run()
    assert done == ["worker", "runner"]


def test_a_blocked_main_goes_on_after_the_run_of_a_tasklet(s: ModuleType) -> None:
    done: list[str] = []
    orders = s.channel()

    def runner() -> None:
        s.run()
        done.append("runner")
        orders.send(None)

    s.tasklet(lambda: (s.schedule(), done.append("worker")))()
    s.tasklet(runner)()
    orders.receive()
    assert done == ["worker", "runner"]


def test_waking_an_outer_runner_by_hand_ends_the_inner_ones(s: ModuleType) -> None:
    done: list[str] = []

    def wake() -> None:
        s.main.run()
        done.append("wake")

    def runner() -> None:
        s.tasklet(wake)()
        s.run()
        done.append("runner")

    s.tasklet(runner)()
    s.run()
    assert done == []
    s.run()
    assert sorted(done) == ["runner", "wake"]


# -- schedule ------------------------------------------------------------------------------------------------


def test_schedule_returns_its_argument_or_the_current_tasklet(s: ModuleType) -> None:
    assert s.schedule() is s.current
    assert s.schedule(7) == 7
    assert s.schedule(retval=None) is None


def test_what_schedule_returns_is_the_tempval(s: ModuleType) -> None:
    def meddle() -> None:
        assert s.main.tempval == "mine"
        s.main.tempval = "yours"

    s.tasklet(meddle)()
    assert s.schedule("mine") == "yours"
    assert s.current.tempval is None


def test_schedule_remove_pauses(s: ModuleType) -> None:
    got: list[object] = []
    one = s.tasklet(lambda: got.append(s.schedule_remove("kept")))()
    s.run()
    assert (one.paused, one.alive, one.scheduled, one.tempval) == (True, True, False, "kept")
    one.insert()
    s.run()
    assert got == ["kept"]


def test_schedule_remove_of_main_alone_returns_at_once(s: ModuleType) -> None:
    assert s.schedule_remove("x") == "x"
    assert s.main.scheduled
    assert s.runcount == 1


# -- threads -------------------------------------------------------------------------------------------------


def test_threads_begin_with_the_main_one(s: ModuleType, beside: list[int]) -> None:
    assert s.threads == s.getthreads() == [threading.main_thread().ident, *beside]


def test_thread_info(s: ModuleType) -> None:
    assert s.get_thread_info() == s.get_thread_info(-1) == s.get_thread_info(threading.get_ident())
    assert s.get_thread_info() == (s.main, s.current, 1)
    with pytest.raises(RuntimeError, match=r"^Thread id not found$"):
        s.get_thread_info(1)


def test_current_id(s: ModuleType) -> None:
    assert s.getcurrentid() == threading.get_ident()
    ids: list[int] = []
    them = [s.tasklet(lambda: ids.append(s.getcurrentid()))() for _ in range(2)]
    s.run()
    assert len(set(ids)) == len(them)
    assert threading.get_ident() not in ids


# -- callbacks -----------------------------------------------------------------------------------------------


@MANY("name", ["schedule", "channel"])
def test_callbacks_are_kept_and_handed_back(s: ModuleType, name: str) -> None:
    put, get = getattr(s, f"set_{name}_callback"), getattr(s, f"get_{name}_callback")

    def first(*_: object) -> None: ...

    assert put(first) is None
    assert get() is first
    assert put(None) is first
    assert get() is None
    with pytest.raises(TypeError):
        put(3)
    assert get() is None


def test_error_handlers_are_handed_back(s: ModuleType) -> None:
    def handler(*_: object) -> None: ...

    assert s.set_error_handler(handler) is None
    assert s.set_error_handler() is handler
    assert s.set_error_handler(None) is None
    with pytest.raises(TypeError):
        s.set_error_handler(3)


def test_the_schedule_callback_hears_of_every_switch(s: ModuleType) -> None:
    one, two = s.tasklet(s.schedule)(), s.tasklet(lambda: None)()
    names = {s.main: "M", one: "1", two: "2"}
    log: list[str] = []

    def callback(before: Any, after: Any) -> None:
        assert s.current is before
        log.append(names[before] + names[after])

    s.set_schedule_callback(callback)
    s.run()
    s.set_schedule_callback(None)
    assert log == ["M1", "12", "21", "1M"]


def test_a_new_thread_is_announced_with_no_previous_tasklet(s: ModuleType) -> None:
    log: list[Any] = []
    s.set_schedule_callback(lambda before, after: log.append((before, after.is_main)))
    thread = threading.Thread(target=s.getcurrent)
    thread.start()
    thread.join()
    s.set_schedule_callback(None)
    assert (None, True) in log


def test_prev_is_alive_in_the_callback_at_its_end(s: ModuleType) -> None:
    log: list[bool] = []
    s.set_schedule_callback(lambda before, after: log.append(before.alive))
    s.tasklet(lambda: None)()
    s.run()
    s.set_schedule_callback(None)
    assert log == [True, True]


def test_staying_is_no_switch(s: ModuleType) -> None:
    log: list[Any] = []
    s.set_schedule_callback(lambda *both: log.append(both))
    s.schedule()
    s.current.run()
    s.set_schedule_callback(None)
    assert log == []


def test_errors_of_a_schedule_callback_are_printed_and_the_switch_goes_on(
    s: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: printed.append(type(what.exc_value).__name__))
    ran: list[int] = []

    def callback(before: Any, after: Any) -> None:
        raise KeyError

    s.tasklet(ran.append)(1)
    s.set_schedule_callback(callback)
    s.run()
    s.set_schedule_callback(None)
    assert ran == [1]
    assert printed == ["KeyError", "KeyError"]


def test_a_schedule_callback_can_neither_switch_nor_use_channels(s: ModuleType) -> None:
    errors: list[str] = []

    def callback(before: Any, after: Any) -> None:
        for action in (s.schedule, s.run, s.channel().receive, lambda: s.channel().send(1)):
            try:
                action()
            except RuntimeError as error:
                errors.append(str(error))

    s.tasklet(lambda: None)()
    s.set_schedule_callback(callback)
    s.schedule()
    s.set_schedule_callback(None)
    assert len(errors) == 8


@MANY("preference", [-1, 1])
def test_the_channel_callback_hears_of_actions_before_they_happen(s: ModuleType, preference: int) -> None:
    orders = s.channel()
    orders.preference = preference
    log: list[object] = []

    def callback(where: Any, one: Any, sending: int, will_block: int) -> None:
        assert where is orders
        assert one is s.current
        log.append((sending, int(will_block), one.tempval, where.balance))

    s.set_channel_callback(callback)
    s.tasklet(orders.receive)()
    s.run()
    orders.send("v")
    s.set_channel_callback(None)
    s.run()
    assert log == [(0, 1, None, 0), (1, 0, "v", -1)]


def test_a_channel_callback_cannot_use_channels(s: ModuleType) -> None:
    orders = s.channel()
    s.set_channel_callback(lambda *_: orders.receive())
    with pytest.raises(RuntimeError):
        orders.send(1)
    s.set_channel_callback(None)
    assert orders.balance == 0


def test_the_error_handler_runs_in_the_dying_tasklet_instead_of_run(s: ModuleType) -> None:
    log: list[object] = []

    def bad() -> None:
        raise ValueError("v")

    def handler(kind: type, value: BaseException, traceback: Any) -> None:
        log.append((kind, str(value), traceback is not None, s.current is one))

    s.set_error_handler(handler)
    one = s.tasklet(bad)()
    s.run()
    assert log == [(ValueError, "v", True, True)]
    assert not one.alive
    s.tasklet(s.schedule_remove)().kill()  # a kill is no error
    assert len(log) == 1


def test_what_the_error_handler_raises_reaches_the_runner(s: ModuleType) -> None:
    def bad() -> None:
        raise ValueError

    def handler(*_: object) -> None:
        raise IndexError("handler")

    s.set_error_handler(handler)
    s.tasklet(bad)()
    with pytest.raises(IndexError, match="handler"):
        s.run()


def test_the_error_handler_hears_of_an_exception_thrown_before_the_start(s: ModuleType) -> None:
    log: list[object] = []
    s.set_error_handler(lambda *error: log.append((error[0], s.current is one)))
    one = s.tasklet(log.append)("ran")
    one.throw(ZeroDivisionError, "early")
    assert log == [(ZeroDivisionError, True)]


# -- traps and flags -----------------------------------------------------------------------------------------


def trapped(s: ModuleType, action: Any, *args: Any) -> str:
    s.switch_trap(1)
    try:
        action(*args)
    except RuntimeError as error:
        return str(error)
    finally:
        s.switch_trap(-1)
    return "nothing"


def test_switch_trap_counts(s: ModuleType) -> None:
    assert s.switch_trap() == 0
    assert s.switch_trap(2) == 0
    assert s.switch_trap(0) == 2
    assert s.switch_trap(-2) == 2
    assert s.switch_trap() == 0


@MANY("name", ["schedule", "schedule_remove", "run"])
def test_switch_trap_refuses_to_give_way(s: ModuleType, name: str) -> None:
    ran: list[int] = []
    s.tasklet(ran.append)(1)
    assert trapped(s, getattr(s, name)) == "switch_trap"
    assert (ran, s.runcount, s.current.scheduled) == ([], 2, True)
    s.run()


@MANY("name", ["run", "switch", "kill"])
def test_switch_trap_leaves_the_target_as_it_was(s: ModuleType, name: str) -> None:
    one = s.tasklet(lambda: None).bind(None, ())
    assert trapped(s, getattr(one, name)) == "switch_trap"
    assert one.paused
    assert s.runcount == 1


def test_switch_trap_and_channels(s: ModuleType) -> None:
    orders = s.channel()
    waiting = s.tasklet(orders.receive)()
    s.run()
    assert trapped(s, orders.send, 1) == "switch_trap"
    assert (orders.balance, waiting.blocked) == (-1, True)
    orders.send(1)
    other = s.tasklet(lambda: None)()
    assert trapped(s, orders.receive) == "switch_trap"
    assert (orders.balance, s.current.blocked, other.scheduled) == (0, False, True)
    s.run()


def test_switch_trap_lets_a_tasklet_go_to_itself(s: ModuleType) -> None:
    assert trapped(s, s.current.run) == trapped(s, s.current.switch) == trapped(s, s.schedule) == "nothing"


def test_atomic_restores_the_flag_it_found(s: ModuleType) -> None:
    with s.atomic():
        assert s.current.atomic is True
        with s.atomic():
            assert s.current.atomic is True
        assert s.current.atomic is True
    assert s.current.atomic is False


def test_an_atomic_tasklet_may_block(s: ModuleType) -> None:
    orders = s.channel()
    s.tasklet(orders.send)(1)
    with s.atomic():
        assert orders.receive() == 1


@MANY(
    ("arguments", "expected"),
    [
        ((ValueError,), (ValueError, ())),
        ((ValueError, "v"), (ValueError, ("v",))),
        ((ValueError, ("a", 1)), (ValueError, ("a", 1))),
        (((KeyError, "k", None),), (KeyError, ("k",))),
    ],
)
def test_a_bomb_carries_an_exception(s: ModuleType, arguments: tuple[Any, ...], expected: object) -> None:
    it = s.bomb(*arguments)
    assert (it.type, it.value.args) == expected
    assert it.traceback is None


def test_an_empty_bomb(s: ModuleType) -> None:
    it = s.bomb()
    assert (it.type, it.value, it.traceback) == (None, None, None)


def test_other_names_of_the_module_can_be_replaced(s: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s, "schedule", lambda: "mine")
    assert s.schedule() == "mine"
