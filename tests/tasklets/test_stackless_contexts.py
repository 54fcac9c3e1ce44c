"""Section 8 of Stackless's behaviour: the context (of context variables) of a tasklet."""

from contextvars import Context, ContextVar, copy_context
from types import ModuleType

import pytest

from tasklets import stackless

number: ContextVar[int] = ContextVar("number", default=0)


@pytest.fixture(autouse=True)
def fresh_value() -> None:
    number.set(0)


def test_it_is_the_very_one_of_who_binds_it(s: ModuleType) -> None:
    one = s.tasklet(lambda: number.set(number.get() + 1))
    assert one.context_id == s.current.context_id
    number.set(5)  # after bind, and still seen
    one()
    s.run()
    assert number.get() == 6


def test_a_child_shares_that_of_its_parent(s: ModuleType) -> None:
    seen: list[object] = []

    def parent() -> None:
        number.set(1)
        child = s.tasklet(lambda: seen.append(number.get()))()
        seen.append(child.context_id == s.current.context_id)

    one = s.tasklet(parent)
    one.set_context(Context())
    one()
    s.run()
    assert seen == [True, 1]
    assert number.get() == 0


def test_the_native_api_gives_each_its_own() -> None:
    one = stackless.tasklet(lambda: number.set(7))()
    assert one.context_id != stackless.getcurrent().context_id
    stackless.run()
    assert number.get() == 0


@pytest.mark.parametrize("started", [False, True])
def test_set_context(s: ModuleType, started: bool) -> None:
    seen: list[int] = []

    def work() -> None:
        s.schedule_remove(None)
        seen.append(number.get())

    one = s.tasklet(work)()
    if started:
        one.run()
    context = Context()
    context.run(number.set, 3)
    assert one.set_context(context) is one
    assert one.context_id == id(context)
    one.run()
    if not started:
        one.run()
    assert seen == [3]


def test_set_context_is_refused(s: ModuleType) -> None:
    with pytest.raises(RuntimeError):
        s.current.set_context(Context())
    with pytest.raises(TypeError):
        s.tasklet(int).set_context(3)
    inside = s.tasklet(lambda: copy_context().run(s.schedule_remove, None))()
    inside.run()
    with pytest.raises(RuntimeError):
        inside.set_context(Context())
    inside.kill()


def test_context_run(s: ModuleType) -> None:
    one = s.tasklet(int).set_context(Context())
    assert one.context_run(lambda a, b=0: (number.set(4), a, b)[1:], 1, b=2) == (1, 2)
    assert one.context_run(number.get) == 4
    assert number.get() == 0
    assert s.current.context_run(number.get) == 0
