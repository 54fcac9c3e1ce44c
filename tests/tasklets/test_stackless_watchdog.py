"""Section 7 of Stackless's behaviour: run(n) interrupts tasklets that compute."""

import random
import sys
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tasklets import _ticks
from tasklets._core import is_watching
from tasklets._watch import watch

MANY = pytest.mark.parametrize
SHORT, LONG = 1000, 3 * _ticks.EXACT_TICKS  # ticks: counted one by one, and measured as time


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert not _ticks.counting
    assert not watch.switched
    assert not is_watching()
    assert sys.gettrace() is None
    if hasattr(sys, "monitoring"):
        assert all(sys.monitoring.get_tool(each) in (None, "tasklets") for each in range(6))
        assert sys.monitoring.get_events(4) == 0


def hog(count: int = 100_000) -> None:
    for _ in range(count):
        pass


def for_ever() -> None:
    while True:
        pass


def calls() -> None:
    while True:
        hog(3)


def generators() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    for _ in endless():
        pass


def recursion(depth: int = 100) -> None:
    if depth:
        recursion(depth - 1)
    for_ever()


@MANY("ticks", [1, 10, SHORT, LONG])
@MANY("work", [for_ever, calls, generators, recursion])
def test_the_one_that_used_up_its_time_is_handed_back(s: ModuleType, work: Any, ticks: int) -> None:
    one, other = s.tasklet(work)(), s.tasklet(s.schedule)()
    for _ in range(3):
        assert s.run(ticks) is one
        assert (one.alive, one.paused, one.scheduled, one.blocked) == (True, True, False, False)
        assert (s.current is s.main, s.runcount) == (True, 2 if other.alive else 1)
        one.insert()
        one.remove()
        other.kill()
        one.insert()
    one.kill()
    assert not one.alive


def test_each_slice_gets_something_done(s: ModuleType) -> None:
    done: list[int] = []

    def work() -> None:
        for number in range(30):
            done.append(number)  # noqa: PERF402

    s.tasklet(work)()
    while (one := s.run(1)) is not None:
        one.insert()
    assert done == list(range(30))


def test_nobody_is_interrupted_in_good_time(s: ModuleType) -> None:
    one = s.tasklet(hog)(10)
    assert s.run(SHORT) is None
    assert not one.alive


def test_a_switch_begins_a_new_slice(s: ModuleType) -> None:
    def work() -> None:
        for _ in range(50):
            hog(20)
            s.schedule()

    one, two = s.tasklet(work)(), s.tasklet(work)()
    assert s.run(SHORT) is None
    assert [one.alive, two.alive] == [False, False]


@MANY("ticks", [SHORT, LONG])
def test_the_total_can_be_limited(s: ModuleType, ticks: int) -> None:
    def work() -> None:
        while True:
            s.schedule()
            hog(3)

    both = [s.tasklet(work)(), s.tasklet(work)()]
    assert s.run(ticks, totaltimeout=True) in both
    assert s.runcount == 2
    for each in both:
        each.kill()


@MANY("ticks", [SHORT, LONG])
def test_a_tasklet_that_stood_in_a_switch_is_interrupted_too(s: ModuleType, ticks: int) -> None:
    def work() -> None:
        s.schedule_remove(None)
        for_ever()

    one = s.tasklet(work)()
    s.run()
    one.insert()
    assert s.run(ticks) is one
    one.kill()


def test_the_line_goes_on_behind_the_interrupted_one(s: ModuleType) -> None:
    log: list[str] = []
    s.tasklet(for_ever)()
    s.tasklet(log.append)("a")
    s.tasklet(log.append)("b")
    one = s.run(SHORT)
    assert log == []
    s.tasklet(log.append)("c")
    s.run()
    assert log == ["a", "b", "c"]
    one.kill()


# -- soft ----------------------------------------------------------------------------------------------------


@MANY("ticks", [SHORT, LONG])
def test_soft_lets_it_go_on_to_its_next_schedule(s: ModuleType, ticks: int) -> None:
    log: list[str] = []

    def work() -> None:
        hog(10 * ticks)
        hog(10 * ticks)
        log.append("loop")
        s.schedule()
        log.append("end")

    s.tasklet(work)()
    s.tasklet(log.append)("other")
    assert s.run(ticks, soft=True) is None
    assert (log, s.runcount) == (["loop"], 3)
    s.run()
    assert log == ["loop", "other", "end"]


def test_soft_returns_when_it_ends(s: ModuleType) -> None:
    log: list[str] = []
    one = s.tasklet(hog)()
    s.tasklet(log.append)("other")
    assert s.run(SHORT, soft=True) is None
    assert (one.alive, log) == (False, [])
    s.run()


def test_soft_returns_when_it_blocks(s: ModuleType) -> None:
    orders, log = s.channel(), []
    s.tasklet(lambda: (hog(), orders.receive()))()
    s.tasklet(log.append)("other")
    assert s.run(SHORT, soft=True) is None
    assert (orders.balance, log) == (-1, [])
    s.run()


def test_soft_passes_the_wish_on_to_a_partner(s: ModuleType) -> None:
    orders, log = s.channel(), []

    def receive() -> None:
        log.append(orders.receive())
        log.append(orders.receive())

    s.tasklet(receive)()
    s.tasklet(lambda: (hog(), orders.send(1), log.append("sent")))()
    assert s.run(SHORT, soft=True) is None
    assert log == [1]
    s.run()
    assert log == [1, "sent"]


# -- who cannot be interrupted -------------------------------------------------------------------------------


@MANY("ticks", [SHORT, LONG])
def test_an_atomic_section_is_left_first(s: ModuleType, ticks: int) -> None:
    log: list[str] = []

    def work() -> None:
        with s.atomic():
            hog(10 * ticks)
            hog(10 * ticks)
            log.append("atomic")
        for_ever()

    one = s.tasklet(work)()
    assert s.run(ticks) is one
    assert log == ["atomic"]
    one.kill()


@MANY("ticks", [SHORT, LONG])
def test_a_switch_trap_is_left_first(s: ModuleType, ticks: int) -> None:
    log: list[str] = []

    def work() -> None:
        s.switch_trap(1)
        hog(10 * ticks)
        hog(10 * ticks)
        log.append("trap")
        s.switch_trap(-1)
        for_ever()

    one = s.tasklet(work)()
    assert s.run(ticks) is one
    assert log == ["trap"]
    one.kill()


def test_callbacks_are_not_interrupted(s: ModuleType) -> None:
    log: list[str] = []

    def callback(*_: object) -> None:
        hog()
        log.append("callback")

    s.set_channel_callback(callback)
    s.set_schedule_callback(callback)
    orders = s.channel()
    one = s.tasklet(orders.receive)()
    s.run(SHORT)
    s.set_schedule_callback(None)
    s.set_channel_callback(None)
    assert one.blocked
    assert len(log) == 3


def test_code_that_the_scheduler_calls_in_the_middle_is_not_interrupted(s: ModuleType) -> None:
    log: list[str] = []

    class Slow:
        def __del__(self) -> None:
            hog()
            log.append("deleted")

    def work() -> None:
        s.current.tempval = Slow()
        s.schedule(None)  # which overwrites it
        log.append("end")

    s.tasklet(work)()
    s.tasklet(log.append)("other")
    assert s.run(SHORT) is None
    assert log == ["deleted", "other", "end"]


def test_ignore_nesting_is_accepted(s: ModuleType) -> None:
    one = s.tasklet(for_ever)()
    one.set_ignore_nesting(1)
    assert s.run(SHORT, ignore_nesting=True) is one
    one.kill()


# -- errors, nesting, threads --------------------------------------------------------------------------------


def test_an_interrupted_tasklet_can_be_thrown_at(s: ModuleType) -> None:
    log: list[str] = []

    def work() -> None:
        try:
            for_ever()
        except KeyError:
            log.append("caught")
            calls()

    one = s.tasklet(work)()
    assert s.run(SHORT) is one
    one.throw(KeyError, pending=True)
    assert s.run(SHORT) is one
    assert log == ["caught"]
    one.kill()


def test_errors_come_out_of_it(s: ModuleType) -> None:
    s.tasklet(int)("x")
    with pytest.raises(ValueError, match="invalid literal"):
        s.run(SHORT)


def test_only_the_outermost_run_counts_and_it_is_the_one_that_wakes(s: ModuleType) -> None:
    log: list[object] = []

    def inner() -> None:
        s.tasklet(for_ever)()
        log.append(s.run(10))

    one = s.tasklet(inner)()
    hogging = s.run(SHORT)
    assert hogging is not one
    assert log == []
    s.run()
    assert log == [None]
    assert not one.alive
    hogging.kill()


def test_a_tasklet_under_a_plain_run_may_count(s: ModuleType) -> None:
    log: list[bool] = []

    def runner() -> None:
        one = s.tasklet(for_ever)()
        log.append(s.run(SHORT) is one)
        one.kill()

    s.tasklet(runner)()
    s.run()
    assert log == [True]


@MANY("ticks", [SHORT, LONG])
def test_other_threads_can_count_at_the_same_time(s: ModuleType, ticks: int) -> None:
    log: list[bool] = []

    def body() -> None:
        one = s.tasklet(for_ever)()
        for _ in range(3):
            log.append(s.run(ticks) is one)
            one.insert()
        one.kill()

    threads = [threading.Thread(target=body) for _ in range(2)]
    for each in threads:
        each.start()
    body()
    for each in threads:
        each.join(30)
    s.run()
    assert log == [True] * 9


def test_the_timer_is_no_thread_of_the_program(
    s: ModuleType, beside: list[int], no_thread_is_left: None
) -> None:
    seen: list[int] = []
    one = s.tasklet(lambda: (time.sleep(0.01), seen.extend(s.threads), for_ever()))()
    assert s.run(LONG) is one
    one.kill()
    assert seen == [threading.main_thread().ident, *beside]


def test_a_trace_function_goes_on_hearing_what_it_heard(s: ModuleType) -> None:
    heard: list[str] = []

    def trace(frame: Any, event: str, arg: object) -> Any:
        if frame.f_code is hog.__code__:
            heard.append(event)
        return trace

    def work() -> None:
        sys.settrace(trace)
        hog(3)
        sys.settrace(None)
        for_ever()

    s.tasklet(work)()
    one = s.run(SHORT)
    one.kill()
    assert heard[0] == "call"
    assert heard[-1] == "return"
    assert set(heard) == {"call", "line", "return"}


def test_autoscheduling_by_slices(s: ModuleType) -> None:
    log: list[str] = []

    def work(name: str) -> None:
        for _ in range(20):
            hog(50)
            log.append(name)

    for name in "abc":
        s.tasklet(work)(name)
    slices = 0
    while s.runcount > 1:
        one = s.run(100)
        slices += 1
        if one is not None:
            one.insert()
    assert sorted(log) == sorted("abc" * 20)
    assert log != sorted(log)
    assert slices > 30


def drawn_program(s: ModuleType, seed: int) -> None:
    """Tasklets that compute, talk and call, cut into slices of all lengths: each of them gets to its end."""
    draw = random.Random(seed)
    channels = [s.channel() for _ in range(3)]
    for each in channels:
        each.preference = draw.choice([-1, 0, 1])
    ended: list[int] = []

    def work(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(30):
            what, where = draw.randrange(6), draw.choice(channels)
            if what == 0:
                hog(draw.randrange(400))
            elif what == 1:
                s.schedule()
            elif what == 2 and where.balance < 0:
                where.send(1)
            elif what == 3 and where.balance > 0:
                where.receive()
            elif what == 4:
                with s.atomic():
                    hog(100)
            else:
                s.tasklet(hog)(50).run()
        ended.append(seed)

    for number in range(8):
        s.tasklet(work)(seed + number)
    while s.runcount > 1:
        ticks = draw.choice([1, 2, 5, 50, 500, 5000, LONG])
        one = s.run(ticks, soft=draw.random() < 0.3, totaltimeout=draw.random() < 0.3)
        if one is not None:
            assert one.paused
            one.insert()
    assert sorted(ended) == list(range(seed, seed + 8))


@MANY("seed", range(0, 80, 8))
def test_slices_of_all_lengths(s: ModuleType, seed: int) -> None:
    drawn_program(s, seed)


def test_slices_of_all_lengths_in_many_threads(s: ModuleType) -> None:
    ended: list[int] = []

    def body(seed: int) -> None:
        for number in range(3):
            drawn_program(s, seed + 8 * number)
        ended.append(seed)

    threads = [threading.Thread(target=body, args=(1000 * number,)) for number in range(3)]
    for each in threads:
        each.start()
    body(9000)
    for each in threads:
        each.join(30)
    s.run()
    assert len(ended) == 4
