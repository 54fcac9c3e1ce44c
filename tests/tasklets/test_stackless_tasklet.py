"""Section 3 of Stackless's behaviour: each member of the class tasklet, its states and errors."""

import gc
import sys
import threading
import types
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tasklets import _core

MANY = pytest.mark.parametrize


def nothing(*args: object, **kwargs: object) -> None: ...


def state(one: Any) -> str:
    """Its flags, as letters: alive, scheduled, blocked, paused, current."""
    flags = (one.alive, one.scheduled, one.blocked, one.paused, one.is_current)
    assert all(isinstance(flag, bool) for flag in flags)
    return "".join(letter for letter, flag in zip("asbpc", flags, strict=True) if flag)


def make(s: ModuleType, kind: str) -> Any:
    """A tasklet in one of the states it can be in."""
    if kind == "unbound":
        return s.tasklet()
    if kind == "bound":
        return s.tasklet(nothing)
    if kind == "set up":
        return s.tasklet(nothing).bind(None, ())
    if kind == "scheduled":
        return s.tasklet(nothing)()
    if kind == "current":
        return s.current
    if kind == "blocked":
        one = s.tasklet(s.channel().receive)()
    elif kind == "paused" or kind == "scheduled again":
        one = s.tasklet(s.schedule_remove)(None)
    else:
        assert kind == "dead"
        one = s.tasklet(nothing)()
    one.run()
    if kind == "scheduled again":
        one.insert()
    return one


STATES = {
    "unbound": "",
    "bound": "",
    "set up": "ap",
    "scheduled": "as",
    "current": "asc",
    "blocked": "asb",
    "paused": "ap",
    "scheduled again": "as",
    "dead": "",
}
STARTED = {"current", "blocked", "paused", "scheduled again"}
CURRENT, SCHEDULED = "can't (re)bind the current tasklet", "tasklet is scheduled"
C_STATE, ALIVE = "tasklet has C state on its stack", "tasklet is alive"
UNBOUND, DEAD = "the tasklet was not bound to a function", "You cannot run an unbound(dead) tasklet"
BLOCKED, RUNNABLE = "You cannot run a blocked tasklet", "can't (re)bind a runnable tasklet"


def outcome(function: Callable[..., object], *args: object) -> str:
    try:
        function(*args)
    except RuntimeError as error:
        return str(error)
    return "ok"


@MANY("kind", STATES)
def test_flags(s: ModuleType, kind: str) -> None:
    one = make(s, kind)
    assert state(one) == STATES[kind]
    assert one.is_main is (kind == "current")
    assert one.thread_id == threading.get_ident()


STATE = "alive scheduled blocked paused is_main is_current thread_id next prev atomic ignore_nesting"
STACK = "frame recursion_depth nesting_level cstate restorable"


@MANY("name", [*STATE.split(), *STACK.split()])
def test_attributes_are_read_only(s: ModuleType, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(s.tasklet(nothing), name, 1)


BIND = {
    "unbound": "ok",
    "bound": "ok",
    "set up": "ok",
    "scheduled": SCHEDULED,
    "current": CURRENT,
    "blocked": SCHEDULED,
    "paused": C_STATE,
    "scheduled again": SCHEDULED,
    "dead": "ok",
}


@MANY("function", [None, nothing])
@MANY("kind", STATES)
def test_bind(s: ModuleType, kind: str, function: Any) -> None:
    one = make(s, kind)
    before = state(one)
    assert outcome(one.bind, function) == BIND[kind]
    if BIND[kind] == "ok":
        assert state(one) == ""
        assert one.tempval is function
    else:
        assert state(one) == before


@MANY("kind", STATES)
def test_bind_looks_at_the_function_first(s: ModuleType, kind: str) -> None:
    with pytest.raises(TypeError, match=r"^tasklet function must be a callable or None$"):
        make(s, kind).bind(3)


def test_bind_gives_arguments(s: ModuleType) -> None:
    got: list[object] = []

    def work(*args: object, **kwargs: object) -> None:
        got.append((args, kwargs))

    one = s.tasklet(nothing)
    assert one.bind(work, (1, 2)) is one
    assert state(one) == "ap"
    one.run()
    s.tasklet(work).bind(None, (3,), {"k": 4}).run()
    s.tasklet(work).bind(kwargs={"k": 5}).run()
    s.tasklet(nothing).bind(func=work, args=()).run()
    assert got == [((1, 2), {}), ((3,), {"k": 4}), ((), {"k": 5}), ((), {})]


@MANY("arguments", [(nothing, 3), (nothing, [1]), (nothing, (), 3)])
def test_bind_wants_a_tuple_and_a_dict(s: ModuleType, arguments: Any) -> None:
    with pytest.raises(TypeError):
        s.tasklet().bind(*arguments)


def test_arguments_without_a_function_are_refused(s: ModuleType) -> None:
    assert outcome(s.tasklet().bind, None, ()) == UNBOUND


SETUP = dict.fromkeys(STATES, ALIVE) | {"unbound": UNBOUND, "bound": "ok", "dead": UNBOUND}


@MANY("name", ["setup", "__call__"])
@MANY("kind", STATES)
def test_setup(s: ModuleType, kind: str, name: str) -> None:
    one = make(s, kind)
    assert outcome(getattr(one, name)) == SETUP[kind]
    if SETUP[kind] == "ok":
        assert state(one) == "as"
        assert s.current.prev is one


def test_setup_returns_the_tasklet_and_takes_any_arguments(s: ModuleType) -> None:
    got: list[object] = []
    one = s.tasklet(lambda *args, **kwargs: got.append((args, kwargs)))
    assert one(1, self=2) is one
    s.run()
    assert got == [((1,), {"self": 2})]


def test_a_function_can_be_wrapped_by_tempval(s: ModuleType) -> None:
    got: list[object] = []
    one = s.tasklet(got.append)
    function = one.tempval
    one.tempval = lambda value: function([value])
    one(1)
    s.run()
    assert got == [[1]]


INSERT = dict.fromkeys(STATES, "ok") | {"unbound": DEAD, "bound": DEAD, "dead": DEAD, "blocked": BLOCKED}


@MANY("name", ["insert", "run", "switch"])
@MANY("kind", STATES)
def test_insert_run_and_switch(s: ModuleType, kind: str, name: str) -> None:
    one = make(s, kind)
    before = state(one)
    assert outcome(getattr(one, name)) == INSERT[kind]
    if INSERT[kind] != "ok" or kind == "current":
        assert state(one) == before
    elif name == "insert":
        assert state(one) == "as"
    else:
        assert not one.alive
    assert s.current is s.main


def test_insert_puts_at_the_end_and_only_once(s: ModuleType) -> None:
    log: list[int] = []
    one, two = s.tasklet(log.append)(1), s.tasklet(log.append)(2)
    one.remove()
    assert one.insert() is one
    assert one.insert().prev is two
    s.run()
    assert log == [2, 1]


REMOVE = dict.fromkeys(STATES, "ok") | {
    "blocked": "You cannot remove a blocked tasklet.",
    "current": "The current tasklet cannot be removed.",
}


@MANY("kind", STATES)
def test_remove(s: ModuleType, kind: str) -> None:
    one = make(s, kind)
    before = state(one)
    assert outcome(one.remove) == REMOVE[kind]
    assert state(one) == (before.replace("s", "p") if REMOVE[kind] == "ok" else before)
    if REMOVE[kind] == "ok":
        assert one.remove() is one


def test_run_keeps_the_place_of_the_caller_and_returns_nothing(s: ModuleType) -> None:
    log: list[object] = []
    _, two, three = (s.tasklet(log.append)(number) for number in (1, 2, 3))
    assert two.run() is None
    log.append("main")
    s.run()
    assert log == [2, 3, "main", 1]
    assert not three.alive


def test_switch_pauses_the_caller(s: ModuleType) -> None:
    main = s.current
    log: list[str] = []

    def target() -> None:
        log.append(state(main))
        main.insert()

    s.tasklet(target)().switch()
    assert log == ["ap"]
    assert state(main) == "asc"


# -- throw, kill ---------------------------------------------------------------------------------------------


@MANY(
    ("arguments", "expected"),
    [
        ((IndexError,), ()),
        ((IndexError, "a"), ("a",)),
        ((IndexError, ("a", 1)), ("a", 1)),
        ((IndexError, IndexError("b")), ("b",)),
        ((IndexError("c"),), ("c",)),
        ((IndexError("d"), None), ("d",)),
    ],
)
@MANY("pending", [False, True])
def test_throw(s: ModuleType, arguments: Any, expected: object, pending: bool) -> None:
    got: list[object] = []

    def work() -> None:
        try:
            s.channel().receive()
        except IndexError as error:
            got.append(error.args)

    one = s.tasklet(work)()
    one.run()
    assert one.throw(*arguments, pending=pending) is None
    assert got == ([] if pending else [expected])
    assert state(one) == ("as" if pending else "")
    s.run()
    assert got == [expected]


def test_throw_takes_its_arguments_by_name(s: ModuleType) -> None:
    one = make(s, "paused")
    with pytest.raises(KeyError):
        one.throw(exc=KeyError, val="k", tb=None, pending=False)


@MANY("arguments", [(3,), ("text",), (int,), (IndexError("a"), "b"), ()])
def test_throw_refuses_what_cannot_be_raised(s: ModuleType, arguments: Any) -> None:
    for kind in ("paused", "current"):
        with pytest.raises(TypeError):
            make(s, kind).throw(*arguments)
    with pytest.raises(TypeError, match="exceptions must be classes, or instances, not int"):
        make(s, "paused").throw(3)


def test_throw_keeps_the_traceback(s: ModuleType) -> None:
    names: list[str] = []

    def origin() -> None:
        raise IndexError

    def work() -> None:
        try:
            s.schedule_remove(None)
        except IndexError as error:
            traceback = error.__traceback__
            while traceback is not None:
                names.append(traceback.tb_frame.f_code.co_name)
                traceback = traceback.tb_next

    one = s.tasklet(work)()
    one.run()
    try:
        origin()
    except IndexError:
        one.throw(*sys.exc_info())
    assert names[0] == "work"
    assert names[-1] == "origin"


@MANY("kind", ["unbound", "bound", "dead"])
def test_throw_at_what_is_not_alive(s: ModuleType, kind: str) -> None:
    one = make(s, kind)
    assert outcome(one.throw, KeyError) == "You cannot throw to a dead tasklet"
    assert one.throw(s.TaskletExit) is None
    assert one.kill() is None
    assert one.kill(pending=True) is None
    assert not one.alive


@MANY("kind", ["set up", "scheduled"])
def test_what_is_thrown_at_a_new_tasklet_reaches_the_runner(s: ModuleType, kind: str) -> None:
    one = make(s, kind)
    with pytest.raises(IndexError):
        one.throw(IndexError)
    assert not one.alive


@MANY("kind", ["set up", "scheduled", "blocked", "paused", "scheduled again"])
@MANY("pending", [False, True])
def test_kill(s: ModuleType, kind: str, pending: bool) -> None:
    one = make(s, kind)
    where = one._channel
    assert one.kill(pending=pending) is None
    assert state(one) == ("as" if pending else "")
    if where is not None:
        assert where.balance == 0
    s.run()
    assert not one.alive
    assert one.tempval is None


def test_kill_of_the_current_tasklet_is_raised_out_of_it(s: ModuleType) -> None:
    log: list[str] = []

    def work() -> None:
        try:
            s.current.kill()
        except s.TaskletExit:
            log.append("exit")
            raise
        log.append("never")

    s.tasklet(work)()
    s.run()
    assert log == ["exit"]
    with pytest.raises(s.TaskletExit):
        s.main.kill()
    with pytest.raises(KeyError):
        s.main.throw(KeyError)


def test_raise_exception(s: ModuleType) -> None:
    got: list[object] = []

    def work() -> None:
        try:
            s.schedule_remove(None)
        except KeyError as error:
            got.append(error.args)

    one = s.tasklet(work)()
    one.run()
    one.raise_exception(KeyError, 1, 2)
    assert got == [(1, 2)]
    assert outcome(one.raise_exception, KeyError) == "You cannot throw to a dead tasklet"


# -- flags that can be set -----------------------------------------------------------------------------------


@MANY("name", ["atomic", "ignore_nesting"])
def test_flags_are_set_by_methods_that_return_the_old_one(s: ModuleType, name: str) -> None:
    one = s.tasklet(nothing)
    put = getattr(one, f"set_{name}")
    assert [put(1), put(True), put(0), put(False)] == [False, True, True, False]
    assert getattr(one, name) is False
    for wrong in ("1", None, 1.0):
        with pytest.raises(TypeError):
            put(wrong)


def test_block_trap(s: ModuleType) -> None:
    one = s.current
    assert one.block_trap is False
    for wrong in ("1", None, 1.0):
        with pytest.raises(TypeError):
            one.block_trap = wrong
    one.block_trap = 1
    assert one.block_trap is True
    for action in (s.channel().receive, lambda: s.channel().send(1)):
        assert outcome(action) == "this tasklet does not like to be blocked."
    one.block_trap = False
    assert outcome(s.channel().receive) == "Deadlock: the last runnable tasklet cannot be blocked."


# -- neighbours, tempval, the stack --------------------------------------------------------------------------


def test_neighbours_in_the_ring(s: ModuleType) -> None:
    assert s.main.next is s.main.prev is s.main
    one, two = s.tasklet(nothing)(), s.tasklet(nothing)()
    assert (s.main.next, one.next, two.next) == (one, two, s.main)
    assert (s.main.prev, one.prev, two.prev) == (two, s.main, one)
    assert make(s, "set up").next is make(s, "paused").prev is make(s, "bound").next is None


def test_neighbours_in_a_queue(s: ModuleType) -> None:
    orders = s.channel()
    one, two = s.tasklet(orders.receive)(), s.tasklet(orders.receive)()
    s.run()
    assert (one.prev, one.next, two.prev, two.next) == (None, two, one, None)
    assert orders.queue is one
    assert one._channel is orders
    assert make(s, "paused")._channel is None


def test_tempval(s: ModuleType) -> None:
    assert s.tasklet().tempval is None
    assert s.tasklet(nothing).tempval is nothing
    got: list[object] = []
    one = s.tasklet(lambda: got.append(s.schedule_remove(1)))()
    one.run()
    one.tempval = s.bomb(KeyError, "k")
    with pytest.raises(KeyError):
        one.run()
    assert one.tempval is None
    one = s.tasklet(lambda: got.append(s.schedule_remove(1)))()
    one.run()
    one.tempval = "changed"
    one.run()
    assert got == ["changed"]


@MANY("kind", STATES)
def test_the_stack(s: ModuleType, kind: str) -> None:
    one = make(s, kind)
    started = kind in STARTED
    assert one.nesting_level == (1 if started and kind != "current" else 0)
    assert one.cstate is None
    assert one.restorable is (not started)
    if kind == "current":
        assert one.frame is sys._getframe()
        assert one.recursion_depth > 1
    else:
        assert one.frame is None or isinstance(one.frame, types.FrameType)
        assert kind in ("blocked", "paused", "scheduled again") or one.recursion_depth == 0


def test_frame_and_depth_of_a_suspended_tasklet(s: ModuleType) -> None:
    def inner() -> None:
        s.schedule_remove(None)

    def outer() -> None:
        inner()

    one = s.tasklet(outer)()
    one.run()
    assert one.frame.f_code is inner.__code__
    assert one.frame.f_back.f_code is outer.__code__
    assert one.recursion_depth == 2


@MANY("kind", STATES)
def test_bind_thread(s: ModuleType, kind: str) -> None:
    one = make(s, kind)
    expected = "ok" if kind not in STARTED else C_STATE
    if kind in ("scheduled", "current", "scheduled again"):
        expected = RUNNABLE
    assert outcome(one.bind_thread) == expected
    assert outcome(one.bind_thread, threading.get_ident()) == expected


def test_bind_thread_refuses_unknown_threads(s: ModuleType) -> None:
    with pytest.raises(ValueError, match="bad thread"):
        s.tasklet(nothing).bind_thread(1)
    with pytest.raises(OverflowError):
        s.tasklet(nothing).bind_thread(-2)


# -- classes -------------------------------------------------------------------------------------------------


def test_a_subclass_has_its_own_init_and_attributes(s: ModuleType) -> None:
    got: list[object] = []

    class Named(s.tasklet):  # type: ignore[misc, name-defined]
        def __init__(self, function: Any, label: str) -> None:
            s.tasklet.__init__(self, function)
            self.label = label

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            return s.tasklet.__new__(cls)

    Named(lambda x, k=0: got.append((s.current.label, x, k)), "n")(1, k=2)
    s.run()
    assert got == [("n", 1, 2)]


def test_tasklets_and_channels_can_be_referred_to_weakly(s: ModuleType) -> None:
    for each in (s.tasklet(nothing), s.channel()):
        assert weakref.ref(each)() is each


def test_the_types_are_those_of_main_and_of_what_is_made(s: ModuleType) -> None:
    assert type(s.main) is s.tasklet
    assert type(s.tasklet(nothing)) is s.tasklet
    assert isinstance(s.channel(), _core.channel)


@MANY("kind", ["unbound", "bound", "set up", "dead"])
def test_what_is_forgotten_is_freed_at_once(s: ModuleType, kind: str) -> None:
    gc.disable()
    try:
        one = make(s, kind)
        gone = weakref.ref(one)
        del one
        assert gone() is None
    finally:
        gc.enable()


def test_the_return_value_is_dropped(s: ModuleType) -> None:
    s.tasklet(lambda: 7)()
    assert s.run() is None
