"""Section 9 of Stackless's behaviour: recursion, references, trace and profile functions."""

import gc
import sys
import threading
import weakref
from types import ModuleType
from typing import Any

import pytest

MANY = pytest.mark.parametrize


def depth_until_the_limit() -> int:
    def dive(depth: int) -> int:
        try:
            return dive(depth + 1)
        except RecursionError:
            return depth

    return dive(0)


def test_each_tasklet_counts_its_own_recursion_limit(s: ModuleType) -> None:
    depths: list[int] = []

    def nest(level: int) -> None:
        depths.append(depth_until_the_limit())
        if level:
            s.tasklet(nest)(level - 1).run()

    s.tasklet(nest)(5)
    s.run()
    assert len(depths) == 6
    assert max(depths) - min(depths) < 20
    assert min(depths) > sys.getrecursionlimit() - 100


def test_a_hundred_thousand_tasklets_each_started_by_the_one_before(s: ModuleType) -> None:
    count = 0

    def work(left: int) -> None:
        nonlocal count
        count += 1
        if left:
            s.tasklet(work)(left - 1).run()

    s.tasklet(work)(100_000 - 1)
    s.run()
    assert count == 100_000
    gc.collect()


def test_suspended_tasklets_keep_their_depth(s: ModuleType) -> None:
    seen: list[int] = []

    def dive(depth: int) -> None:
        if depth:
            dive(depth - 1)
        else:
            s.schedule_remove(None)

    one = s.tasklet(dive)(50)
    one.run()
    seen.append(one.recursion_depth)
    one.run()
    assert seen == [51]
    assert one.recursion_depth == 0


# -- references ----------------------------------------------------------------------------------------------


class Thing:
    """Something whose end can be watched."""


def test_messages_are_let_go_as_soon_as_they_are_taken(s: ModuleType) -> None:
    gc.disable()
    try:
        for preference in (-1, 0, 1):
            for receiver_waits in (False, True):
                orders = s.channel()
                orders.preference = preference
                thing = Thing()
                gone = weakref.ref(thing)
                if receiver_waits:
                    s.tasklet(orders.receive)()
                    s.run()
                    orders.send(thing)
                else:
                    s.tasklet(lambda: orders.send(Thing()))()  # noqa: B023
                    s.run()
                    gone = weakref.ref(orders.receive())
                s.run()
                del thing
                assert gone() is None
    finally:
        gc.enable()


def test_a_finished_tasklet_keeps_neither_its_function_nor_its_arguments(s: ModuleType) -> None:
    thing = Thing()
    gone = weakref.ref(thing)

    def work(thing: Thing) -> None: ...

    function_gone = weakref.ref(work)
    one = s.tasklet(work)(thing)
    del thing, work
    s.run()
    assert gone() is None
    assert function_gone() is None
    bare = object()
    assert sys.getrefcount(one) == sys.getrefcount(
        bare
    )  # how many that is differs between releases of Python


@MANY("how", ["schedule_remove", "interrupted", "interrupted late"])
def test_a_forgotten_paused_tasklet_is_killed_at_once(s: ModuleType, how: str) -> None:
    log: list[object] = []

    def work() -> None:
        try:
            if how == "schedule_remove":
                s.schedule_remove(None)
            while True:
                pass
        except s.TaskletExit:
            log.append("killed")
            raise

    gc.disable()
    try:
        one = s.tasklet(work)()
        if how == "schedule_remove":
            s.run()
        else:
            assert s.run(1000 if how == "interrupted" else 10**6) is one
        gone = weakref.ref(one)
        del one
        assert log == ["killed"]
        assert gone() is None
    finally:
        gc.enable()


def test_counts_of_references_are_what_they_were(s: ModuleType) -> None:
    def work() -> None:
        s.schedule()

    s.tasklet(work)()
    s.run()
    before = [sys.getrefcount(work), sys.getrefcount(s.main)]
    for _ in range(100):
        s.tasklet(work)()
        s.run()
    after = [sys.getrefcount(work), sys.getrefcount(s.main)]
    assert after == before


# -- tracing -------------------------------------------------------------------------------------------------


class Recorder:
    """A trace or profile function: the names of the functions entered."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, frame: Any, event: str, arg: object) -> Any:
        if event == "call":
            self.names.append(frame.f_code.co_name)
        return self


def callee() -> None: ...


KINDS = MANY("kind", ["trace", "profile"])


@KINDS
def test_it_belongs_to_the_tasklet_that_set_it(s: ModuleType, kind: str) -> None:
    recorder, seen = Recorder(), []
    put, get = getattr(sys, f"set{kind}"), getattr(sys, f"get{kind}")

    def traced() -> None:
        put(recorder)
        callee()
        s.schedule()
        seen.append(get())
        callee()

    def other() -> None:
        seen.append(get())
        callee()
        s.schedule()
        seen.append(get())

    s.tasklet(traced)()
    s.tasklet(other)()
    s.run()
    assert recorder.names == ["callee", "callee"]
    assert seen == [None, recorder, None]
    assert get() is None


@KINDS
def test_the_attribute_is_that_state(s: ModuleType, kind: str) -> None:
    recorder, name = Recorder(), f"{kind}_function"
    get = getattr(sys, f"get{kind}")
    one = s.tasklet(lambda: (s.schedule_remove(None), callee()))()
    assert getattr(one, name) is None
    one.run()
    setattr(one, name, recorder)
    assert getattr(one, name) is recorder
    assert get() is None
    one.run()
    assert recorder.names == ["callee"]
    assert get() is None


@KINDS
def test_it_can_be_set_before_the_start_and_taken_away(s: ModuleType, kind: str) -> None:
    recorder, name = Recorder(), f"{kind}_function"
    first, second = s.tasklet(callee)(), s.tasklet(callee)()
    setattr(first, name, recorder)
    setattr(second, name, recorder)
    setattr(second, name, None)
    s.run()
    assert recorder.names == ["callee"]


@KINDS
def test_it_can_be_set_in_the_tasklet_itself(s: ModuleType, kind: str) -> None:
    recorder, name = Recorder(), f"{kind}_function"
    seen: list[object] = []

    def work() -> None:
        setattr(s.current, name, recorder)
        seen.append(getattr(s.current, name))
        callee()

    s.tasklet(work)()
    s.run()
    assert seen == [recorder]
    assert recorder.names == ["callee"]


@KINDS
def test_only_a_living_tasklet_has_one(s: ModuleType, kind: str) -> None:
    for one in (s.tasklet(), s.tasklet(callee)):
        with pytest.raises(RuntimeError, match=r"^tasklet is not alive$"):
            setattr(one, f"{kind}_function", Recorder())


def test_threads_do_not_disturb_one_another(s: ModuleType) -> None:
    recorder, seen = Recorder(), []

    def body() -> None:
        seen.append(sys.gettrace())
        s.tasklet(callee)()
        s.run()

    s.current.trace_function = recorder
    thread = threading.Thread(target=body)
    thread.start()
    s.current.trace_function = None
    thread.join()
    assert seen == [None]
    s.schedule()


def test_nothing_is_swapped_when_nobody_has_one_any_more(s: ModuleType) -> None:
    from tasklets._watch import watch

    s.tasklet(lambda: sys.settrace(Recorder()))()
    s.run()
    s.tasklet(callee)()
    s.run()
    assert not watch.tracing
