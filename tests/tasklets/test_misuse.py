"""Wrong calls of the native API get an error that shows the wrong call and the right one."""

import subprocess
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tasklets import TaskletExit, channel, getcurrent, run, schedule, schedule_remove, stackless, tasklet
from tasklets._watch import change_watch


def message(function: Callable[..., object], *args: object) -> str:
    with pytest.raises(Exception, match=r"wrong") as caught:
        function(*args)
    text = str(caught.value)
    assert text.index("wrong") < text.index("right")
    return text


def nothing() -> None: ...


def suspended() -> tasklet:
    one = tasklet(schedule_remove)(None)
    schedule()
    return one


def waiting() -> tasklet:
    one = tasklet(channel().receive)()
    schedule()
    return one


def finished() -> tasklet:
    one = tasklet(nothing)()
    schedule()
    return one


@pytest.mark.parametrize(
    ("make", "name", "arguments", "first_line", "advice"),
    [
        (lambda: tasklet(nothing)(), "setup", (), "tasklet is alive", "another tasklet"),
        (tasklet, "setup", (), "the tasklet was not bound to a function", "which function?"),
        (lambda: tasklet(nothing)(), "bind", (nothing,), "tasklet is scheduled", "one.remove()"),
        (suspended, "bind", (nothing,), "tasklet has C state on its stack", "one.kill()"),
        (suspended, "bind_thread", (), "tasklet has C state on its stack", "one.kill()"),
        (lambda: tasklet(nothing)(), "bind_thread", (), "can't (re)bind a runnable tasklet", "one.remove()"),
        (getcurrent, "bind", (nothing,), "can't (re)bind the current tasklet", "another tasklet"),
        (waiting, "remove", (), "You cannot remove a blocked tasklet.", "one.kill()"),
        (getcurrent, "remove", (), "The current tasklet cannot be removed.", "schedule_remove()"),
        (waiting, "run", (), "You cannot run a blocked tasklet", "let its partner act"),
        (finished, "run", (), "You cannot run an unbound(dead) tasklet", "one.bind(work)(1, 2)"),
        (finished, "insert", (), "You cannot run an unbound(dead) tasklet", "one.bind(work)(1, 2)"),
        (finished, "throw", (KeyError,), "You cannot throw to a dead tasklet", "if one.alive:"),
    ],
    ids=lambda value: value if isinstance(value, str) and "_" not in value and value.isidentifier() else None,
)
def test_a_tasklet_in_the_wrong_state(
    make: Callable[[], Any], name: str, arguments: Any, first_line: str, advice: str
) -> None:
    text = message(getattr(make(), name), *arguments)
    assert text.splitlines()[0] == first_line
    assert advice in text


def test_calling_the_function_by_mistake() -> None:
    text = message(lambda: tasklet(nothing()).bind(3))  # type: ignore[func-returns-value, arg-type]
    assert "tasklet(work(1, 2))" in text


def test_sending_on_a_closed_channel_names_it() -> None:
    orders = channel(name="orders")
    orders.close()
    with pytest.raises(ValueError, match=r"cannot send to <channel 'orders'.*look at \.closing first"):
        orders.send(1)


def test_blocking_under_block_trap() -> None:
    me = getcurrent()
    me.block_trap = True
    try:
        text = message(channel(name="orders").receive)
    finally:
        me.block_trap = False
    assert "its block_trap is set, and it would have to wait: receive from <channel 'orders'" in text


def test_blocking_in_an_atomic_block() -> None:
    orders = channel(name="orders")
    tasklet(orders.send)(1)
    with stackless.atomic():
        assert "it is atomic, and it would have to wait" in message(orders.receive)
    assert orders.receive() == 1


def test_run_inside_a_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []

    def callback(*_: object) -> None:
        texts.append(message(run))
        texts.append(message(channel().receive))

    change_watch(switched=(callback,))
    tasklet(nothing)()
    schedule()
    change_watch(switched=())
    assert texts[0].startswith("switch_trap\nNothing may switch here: in a callback")
    assert texts[1].startswith("a callback cannot use channels")


def test_using_what_belongs_to_a_thread_that_has_ended() -> None:
    left: list[tasklet] = []
    thread = threading.Thread(target=lambda: left.append(tasklet(nothing)()))
    thread.start()
    thread.join()
    assert "Its OS thread has ended" in message(left[0].insert)
    assert "one.bind_thread()" in message(left[0].run)


def test_killing_oneself() -> None:
    with pytest.raises(TaskletExit, match=r"getcurrent\(\)\.kill\(\) +# wrong\n +return +# right"):
        getcurrent().kill()


def test_killing_the_main_tasklet_says_so_instead_of_ending_silently() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import tasklets; tasklets.getcurrent().kill()"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("a tasklet killed itself.")


def test_stackless_programs_get_the_bare_texts(s: ModuleType) -> None:
    with pytest.raises(RuntimeError, match=r"^You cannot run an unbound\(dead\) tasklet$"):
        s.tasklet().insert()
    with pytest.raises(TaskletExit, match=r"^$"):
        s.current.kill()
