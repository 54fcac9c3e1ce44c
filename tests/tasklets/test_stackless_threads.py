"""Section 6 of Stackless's behaviour: one scheduler per OS thread, and what these do to one another's tasklets."""

import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from tasklets._core import is_watching

MANY = pytest.mark.parametrize


@pytest.fixture(autouse=True)
def nobody_watches(no_thread_is_left: None, s: ModuleType) -> Iterator[None]:
    yield
    s.run()
    assert not is_watching()


class Thread(threading.Thread):
    """Runs a function at once; join() raises what that raised."""

    def __init__(self, function: Callable[[], object]) -> None:
        super().__init__()
        self.function = function
        self.failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.function()
        except BaseException as error:
            self.failure = error

    def join(self, timeout: float | None = 20) -> None:
        super().join(timeout)
        assert not self.is_alive(), "it hangs"
        if self.failure is not None:
            raise self.failure


def outcome(function: Callable[..., object], *args: object) -> object:
    try:
        return function(*args)
    except RuntimeError as error:
        return str(error)


class Remote:
    """A thread that runs its tasklets until it is told to end."""

    def __init__(self, s: ModuleType) -> None:
        self.s = s
        self.ready, self.stop = threading.Event(), s.channel()
        self.stop.preference = 1
        self.made: list[Any] = []
        self.log: list[Any] = []

    def begin(self, *functions: Callable[[], object]) -> list[Any]:
        """Start it; returns its tasklets, one for each function, which are out of the line."""

        def body() -> None:
            for function in functions:
                self.made.append(self.s.tasklet(function)())
                self.made[-1].remove()
            self.ready.set()
            self.stop.receive()
            self.s.run()

        self.thread = Thread(body)
        assert self.ready.wait(10)
        return self.made

    def end(self) -> None:
        self.stop.send(None)
        self.thread.join()


def test_each_thread_has_its_own_line_and_main(s: ModuleType, beside: list[int]) -> None:
    mine, seen = s.main, []

    def body() -> None:
        seen.extend(
            [s.main is s.current, s.main is mine, s.runcount, s.main.thread_id == threading.get_ident()]
        )
        seen.append(s.get_thread_info(mine.thread_id)[0] is mine)
        seen.append(s.threads[0] == mine.thread_id)
        seen.append(sorted(s.threads) == sorted([mine.thread_id, threading.get_ident(), *beside]))

    one = s.tasklet(lambda: None)()
    Thread(body).join()
    assert seen == [True, False, 1, True, True, True, True]
    assert one.scheduled
    s.run()


@MANY("preference", [-1, 0, 1])
@MANY("direction", ["in", "out"])
def test_a_channel_joins_two_threads(s: ModuleType, preference: int, direction: str) -> None:
    orders, log = s.channel(), []
    orders.preference = preference

    def body() -> None:
        for number in range(20):
            if direction == "in":
                orders.send(number)
            else:
                log.append(orders.receive())

    thread = Thread(body)
    for number in range(20):
        if direction == "in":
            log.append(orders.receive())
        else:
            orders.send(number)
    thread.join()
    assert log == list(range(20))


def test_the_actor_goes_on_when_its_partner_is_elsewhere(s: ModuleType) -> None:
    orders, log = s.channel(), []
    one = s.tasklet(lambda: log.append(orders.receive()))()
    s.run()
    Thread(lambda: (orders.send(1), log.append("sent"))).join()
    assert log == ["sent"]
    assert (one.scheduled, one.blocked) == (True, False)
    s.run()
    assert log == ["sent", 1]


@MANY("name", ["insert", "run"])
def test_insert_and_run_only_put_it_in_its_own_line(s: ModuleType, name: str) -> None:
    log: list[object] = []
    one = s.tasklet(lambda: log.append(threading.get_ident()))()
    one.remove()

    def body() -> None:
        getattr(one, name)()
        assert one.scheduled
        assert log == []

    Thread(body).join()
    s.run()
    assert log == [threading.get_ident()]


def test_run_puts_it_first(s: ModuleType) -> None:
    log: list[int] = []
    one, two, three = (s.tasklet(log.append)(number) for number in (1, 2, 3))
    one.remove()
    Thread(lambda: (three.run(), one.run())).join()
    s.run()
    assert log == [1, 3, 2]
    assert not two.alive


def test_switch_is_refused(s: ModuleType) -> None:
    one = s.tasklet(lambda: None)()
    got: list[object] = []
    Thread(lambda: got.append(outcome(one.switch))).join()
    assert got == ["can't switch to a different thread."]
    s.run()


def test_setup_and_bind_from_another_thread(s: ModuleType) -> None:
    log: list[object] = []
    bound, empty = s.tasklet(log.append), s.tasklet()
    Thread(lambda: (bound(1), empty.bind(log.append)(2))).join()
    assert bound.scheduled
    s.run()
    assert log == [1, 2]
    assert bound.thread_id == threading.get_ident()


def test_a_tasklet_that_sleeps_elsewhere_can_be_thrown_at(s: ModuleType) -> None:
    remote = Remote(s)

    def work() -> None:
        try:
            s.channel().receive()
        except KeyError as error:
            remote.log.append(error.args)

    (one,) = remote.begin(work)
    one.run()
    while not one.blocked:
        pass
    assert one.throw(KeyError, "k") is None
    remote.end()
    assert remote.log == [("k",)]
    assert not one.alive


def test_a_tasklet_elsewhere_can_be_killed(s: ModuleType) -> None:
    remote = Remote(s)
    (one,) = remote.begin(lambda: remote.log.append("never"))
    assert one.kill() is None
    remote.end()
    assert (remote.log, one.alive) == ([], False)


@MANY("where", ["here", "by id"])
def test_bind_thread_moves_what_has_not_started(s: ModuleType, where: str) -> None:
    log: list[int] = []
    one = s.tasklet(lambda: log.append(threading.get_ident()))()
    assert outcome(one.bind_thread, one.thread_id) == "can't (re)bind a runnable tasklet"
    one.remove()

    def body() -> None:
        one.bind_thread(*(() if where == "here" else (threading.get_ident(),)))
        assert one.thread_id == threading.get_ident()
        one.run()
        log.append(threading.get_ident())

    Thread(body).join()
    assert len(log) == 2
    assert log[0] == log[1] != threading.get_ident()


def test_bind_thread_refuses_what_has_started(s: ModuleType) -> None:
    remote = Remote(s)
    (one,) = remote.begin(lambda: s.schedule_remove(None))
    one.run()
    while not one.paused or one.tempval is not None or one.frame is None:
        pass
    assert outcome(one.bind_thread) == "tasklet has C state on its stack"
    one.insert()
    remote.end()


# -- the end of a thread -------------------------------------------------------------------------------------


def left_behind(s: ModuleType, function: Callable[..., object], *args: object, start: bool = True) -> Any:
    """A tasklet whose thread has ended."""
    left: list[Any] = []

    def body() -> None:
        left.append(s.tasklet(function)(*args))
        if start:
            left[0].run()

    Thread(body).join()
    return left[0]


@MANY("start", [False, True])
def test_with_its_thread_it_has_no_life(s: ModuleType, start: bool) -> None:
    one = left_behind(s, s.schedule_remove, None, start=start)
    assert (one.alive, one.thread_id, one.scheduled, one.paused) == (False, -1, False, False)
    assert outcome(one.insert) == "Target thread isn't initialized"
    assert outcome(one.run) == outcome(one.throw, KeyError) == "tasklet has no thread"
    assert outcome(one.switch) == "can't switch to a different thread."
    assert one.kill() is None
    assert one.throw(s.TaskletExit) is None


def test_what_had_started_is_killed_on_its_thread(s: ModuleType) -> None:
    log: list[object] = []

    def work() -> None:
        try:
            s.schedule_remove(None)
        finally:
            log.append((threading.get_ident() != s.threads[0], s.current is not s.main))

    one = left_behind(s, work)
    assert log == [(True, True)]
    assert not one.alive


def test_what_waits_in_a_channel_leaves_it(s: ModuleType) -> None:
    orders = s.channel()
    one = left_behind(s, orders.receive)
    assert (one.alive, orders.balance) == (False, 0)


def test_who_refuses_to_die_is_left_in_its_queue_until_it_is_killed(s: ModuleType) -> None:
    orders, kills = s.channel(), []

    def work() -> None:
        while True:
            try:
                orders.receive()
            except s.TaskletExit:
                kills.append(1)

    one = left_behind(s, work)
    assert len(kills) == 10
    assert (one.alive, one.thread_id, orders.balance) == (False, -1, -1)
    one.kill()
    assert orders.balance == 0


def test_what_had_not_started_can_be_saved(s: ModuleType) -> None:
    log: list[int] = []
    one = left_behind(s, log.append, 1, start=False)
    assert log == []
    one.bind_thread()
    assert (one.alive, one.paused, one.thread_id) == (True, True, threading.get_ident())
    one.run()
    assert log == [1]


# -- waiting -------------------------------------------------------------------------------------------------


def test_a_thread_sleeps_while_another_one_may_wake_it(s: ModuleType) -> None:
    orders, go_on = s.channel(), threading.Event()
    thread = Thread(lambda: (go_on.wait(10), orders.send("late")))
    s.tasklet(go_on.set)()
    assert orders.receive() == "late"
    thread.join()


def test_run_returns_although_another_thread_lives(s: ModuleType) -> None:
    orders, go_on = s.channel(), threading.Event()
    thread = Thread(lambda: go_on.wait(10))
    one = s.tasklet(orders.receive)()
    s.run()
    assert one.blocked
    go_on.set()
    thread.join()


@MANY("timeout", [0, 1000, 10**6])
def test_run_with_threadblock_waits(s: ModuleType, timeout: int) -> None:
    orders, go_on, log = s.channel(), threading.Event(), []
    thread = Thread(lambda: (go_on.wait(10), orders.send("late")))
    s.tasklet(lambda: (go_on.set(), log.append(orders.receive())))()
    assert s.run(timeout, threadblock=True) is None
    assert log == ["late"]
    thread.join()
