"""What is over keeps nothing alive; what is forgotten breaks nothing."""

import gc
import platform
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import gevent
import pytest

from tasklets import (
    TaskletExit,
    channel,
    getcurrent,
    getmain,
    run,
    schedule,
    schedule_remove,
    select,
    sleep,
    tasklet,
    timeout,
)
from tasklets._core import MAX_IDLE_WORKERS, get_scheduler
from tasklets._which_form import is_compiled

user: ContextVar[object] = ContextVar("user")


class Failure(Exception):
    """An exception whose end can be watched."""


class Thing:
    """Something whose end can be watched."""


def traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def finish() -> None:
    tasklet(int)()


def kill_blocked() -> None:
    one = tasklet(channel().receive)()
    schedule()
    one.kill()


def kill_new() -> None:
    tasklet(int)().kill()


def fail() -> None:
    tasklet(int)("not a number")
    with pytest.raises(ValueError, match="not a number"):
        run()


def time_out() -> None:
    with timeout(60):
        tasklet(int)()
        schedule()


def selection() -> None:
    a, b = channel(), channel()
    tasklet(select)([a, b])
    schedule()
    a.send(1)
    schedule()


@pytest.mark.parametrize(
    ("work", "times"),
    [
        (finish, 100_000),
        (kill_blocked, 3000),
        (kill_new, 3000),
        (fail, 1000),
        (time_out, 1000),
        (selection, 1000),
    ],
)
def test_memory_stays_flat(work: Callable[[], None], times: int) -> None:
    def repeat(count: int) -> None:
        for number in range(count):
            work()
            if number % 100 == 99:
                run()
        run()

    repeat(300)
    tracemalloc.start()
    try:
        before = traced()
        repeat(times)
        grown = traced() - before
    finally:
        tracemalloc.stop()
    assert grown < 20_000, f"{grown / times:.1f} bytes for each"


def end_normally(thing: Thing, gate: channel) -> object:
    user.set(thing)
    gate.receive()
    return thing


def keep_sleeping(thing: Thing, gate: channel) -> None:
    user.set(thing)
    sleep(60)


def keep_waiting_inside_gevent(thing: Thing, gate: channel) -> None:
    user.set(thing)
    gevent.sleep(60)


@pytest.mark.parametrize("body", [end_normally, keep_sleeping, keep_waiting_inside_gevent])
def test_a_reused_worker_keeps_nothing_of_its_last_tasklet(body: Callable[..., object]) -> None:
    gc.disable()  # nothing may hang on a cycle
    try:
        thing, gate = Thing(), channel()
        one = tasklet(body)(thing, gate)
        gone = [weakref.ref(thing), weakref.ref(one)]
        del thing
        schedule()
        if body is end_normally:
            gate.send(None)
        else:
            one.kill()
        assert not one.alive
        assert gone[0]() is None
        del one
        schedule()
        assert gone[1]() is None
    finally:
        gc.enable()


def test_a_tasklet_killed_before_it_ran_lets_go_of_its_arguments() -> None:
    thing = Thing()
    gone = weakref.ref(thing)
    one = tasklet(print)(thing)
    del thing
    one.kill()
    assert gone() is None


def test_an_exception_that_was_handled_keeps_no_tasklet_alive() -> None:
    def bad(thing: Thing) -> None:
        raise ValueError("v")

    gc.disable()
    try:
        thing = Thing()
        one = tasklet(bad)(thing)
        gone = [weakref.ref(thing), weakref.ref(one)]
        del thing, one
        try:
            run()
        except ValueError:
            pass
        schedule()
        assert [each() for each in gone] == [None, None]
    finally:
        gc.enable()


def test_an_exception_that_is_kept_does_not_show_the_core_in_its_traceback_below_the_tasklet() -> None:
    def bad() -> None:
        raise ValueError("v")

    tasklet(bad)()
    with pytest.raises(ValueError, match="v") as caught:
        run()
    assert [entry.name for entry in caught.traceback][-1] == "bad"
    assert "_run_current" not in [entry.name for entry in caught.traceback]


@pytest.mark.parametrize("way", ["send_exception", "throw", "close", "timeout"])
def test_an_exception_that_was_delivered_is_released(way: str) -> None:
    gc.disable()
    try:
        orders = channel()
        refs: list[weakref.ref[BaseException]] = []

        def receiver() -> None:
            try:
                with timeout(60) as limit:
                    limits.append(limit)
                    orders.receive()
            except Exception as error:
                refs.append(weakref.ref(error))

        limits: list[timeout] = []
        one = tasklet(receiver)()
        schedule()
        if way == "send_exception":
            orders.send_exception(Failure)
        elif way == "throw":
            one.throw(Failure())
        elif way == "close":
            orders.close()
        else:
            limits[0]._cancel and limits[0]._cancel()
            limits[0]._expire()
        schedule()
        limits.clear()
        assert not one.alive
        assert [each() for each in refs] == [None]
    finally:
        gc.enable()


def test_finished_workers_are_kept_up_to_a_limit() -> None:
    orders = channel()
    for wait in (orders.receive, lambda: sleep(0.003)):
        for _ in range(MAX_IDLE_WORKERS + 500):
            tasklet(wait)()
        run()
        while orders.balance:
            orders.send(None)
        run()
        assert len(get_scheduler().idle) <= MAX_IDLE_WORKERS


def test_channels_with_blocked_tasklets_that_nobody_refers_to_break_nothing() -> None:
    ended: list[str] = []

    def forgotten() -> None:
        try:
            channel().receive()
        finally:
            ended.append("forgotten")

    for _ in range(10):
        tasklet(forgotten)()
    run()
    gc.collect()
    log: list[int] = []
    tasklet(log.append)(1)
    run()
    assert log == [1]
    assert getmain().is_current


def test_a_forgotten_channel_without_tasklets_is_released_without_the_collector() -> None:
    gc.disable()
    try:
        orders = channel(2)
        gone = weakref.ref(orders)
        tasklet(orders.send)(1)
        assert orders.receive() == 1
        run()
        del orders
        assert gone() is None
    finally:
        gc.enable()


def test_a_greenlet_that_used_channels_is_released() -> None:
    orders = channel(1)
    one = gevent.spawn(orders.send, 1)
    one.join()
    gone = weakref.ref(one)
    del one
    gevent.sleep(0)
    gc.collect()
    assert gone() is None


def test_a_thread_that_ended_releases_its_scheduler() -> None:
    gone: list[weakref.ref[object]] = []

    def body() -> None:
        orders = channel()
        tasklet(orders.send)(1)
        assert orders.receive() == 1
        run()
        gone.append(weakref.ref(get_scheduler()))

    for _ in range(5):
        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
    del thread
    schedule()
    gc.collect()
    assert [each() for each in gone] == [None] * 5


def test_a_thread_that_ended_gives_its_event_loop_back() -> None:
    gone: list[weakref.ref[object]] = []
    files: list[int] = []

    def body() -> None:
        tasklet(sleep)(60)
        tasklet(gevent.sleep)(60)
        sleep(0.001)
        assert gevent.get_hub().threadpool.apply(abs, (-1,)) == 1
        gone.append(weakref.ref(gevent.get_hub()))
        files.append(gevent.get_hub().loop.fileno())

    for _ in range(5):
        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
    del thread
    gc.collect()
    assert [each() for each in gone] == [None] * 5
    assert len(set(files)) == 1, "each thread gets the descriptor that the one before gave back"


def test_a_thread_whose_pool_still_works_leaves_it_its_event_loop() -> None:
    free = threading.Event()
    pools: list[Any] = []
    done: list[bool] = []

    def body() -> None:
        pools.append(gevent.get_hub().threadpool)
        pools[0].spawn(lambda: done.append(free.wait(20)))
        sleep(0.001)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert pools[0].hub.loop is not None
    free.set()
    pools[0].kill()
    assert done == [True]


def test_who_asked_hears_of_the_end_of_the_thread_whatever_the_others_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    failures: list[object] = []

    def fail() -> None:
        told.append("the last comes first")
        raise ValueError("it cannot")

    def body() -> None:
        tasklet(pausing)(told)
        schedule()
        get_scheduler().endings += [lambda: told.append("told"), fail]

    monkeypatch.setattr(sys, "excepthook", lambda kind, error, tb: failures.append(kind))
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert told[1:] == ["cleaned up", "the last comes first", "told"]
    assert failures == [ValueError]


def test_a_tasklet_may_refuse_to_die_and_is_then_still_whole() -> None:
    log: list[str] = []

    def stubborn() -> None:
        while len(log) < 3:
            try:
                channel().receive()
            except TaskletExit:
                log.append("no")

    one = tasklet(stubborn)()
    schedule()
    for _ in range(3):
        assert one.alive
        one.kill()
    assert not one.alive


PEAK = """
from pathlib import Path
from tasklets import channel, run, tasklet

def used():
    return int(Path("/proc/self/statm").read_text().split()[1])

orders = channel()
before = used()
for _ in range(40_000):
    tasklet(orders.receive)()
run()
peak = used()
last = bytearray(1000)  # something that stays, at the end of the heap
for _ in range(40_000):
    orders.send(None)
run()
print(peak - before, used() - before)
"""


@pytest.mark.skipif(
    not is_compiled() or platform.libc_ver()[0] != "glibc", reason="the compiled core on glibc does it"
)
def test_when_very_many_tasklets_have_ended_the_system_has_their_memory_back() -> None:
    found = subprocess.run([sys.executable, "-c", PEAK], check=True, stdout=subprocess.PIPE)
    peak, after = map(int, found.stdout.split())
    assert after < peak / 2


# -- tasklets that nobody refers to any more ---------------------------------------------------------------------------


def pausing(log: list[str]) -> None:
    try:
        schedule_remove(None)
    except TaskletExit:
        log.append(f"{getcurrent().name} ends")
        raise
    finally:
        log.append("cleaned up")


def test_a_paused_tasklet_ends_when_the_last_reference_goes() -> None:
    log: list[str] = []
    one = tasklet(pausing)(log)
    one.run()
    gone = weakref.ref(one)
    del one
    assert log == ["pausing ends", "cleaned up"]
    assert gone() is None


def test_a_tasklet_that_pauses_unknown_to_all_ends_at_the_next_occasion() -> None:
    log: list[str] = []
    tasklet(pausing)(log)
    run()
    assert log == ["pausing ends", "cleaned up"]


def test_a_forgotten_tasklet_can_send_but_neither_wait_nor_yield() -> None:
    waited_on = channel()
    receiver = tasklet(waited_on.receive)()
    receiver.run()
    errors: list[str] = []

    def farewell() -> None:
        try:
            schedule_remove(None)
        finally:
            waited_on.send("farewell")
            for wish in (channel().receive, schedule, lambda: sleep(0.01)):
                try:
                    wish()
                except RuntimeError as error:
                    errors.append(str(error)[:43])

    one = tasklet(farewell)()
    one.run()
    del one
    assert errors == ["this tasklet does not like to be blocked. ("[:43]] * 3
    assert receiver.scheduled
    run()
    assert not receiver.alive


def test_the_failure_of_a_forgotten_tasklet_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr("sys.unraisablehook", lambda what: seen.append(repr(what.exc_value)))

    def failing() -> None:
        try:
            schedule_remove(None)
        finally:
            raise ValueError("no way out")

    one = tasklet(failing)()
    one.run()
    del one
    assert seen == ["ValueError('no way out')"]
    schedule()


def test_a_forgotten_tasklet_of_another_thread_ends_on_its_own() -> None:
    log: list[str] = []
    mine, theirs = channel(), channel()

    def thread() -> None:
        one = tasklet(pausing)(log)
        one.run()
        mine.send(one)
        del one
        theirs.receive()
        schedule()

    other = threading.Thread(target=thread)
    other.start()
    one = mine.receive()
    del one
    theirs.send(None)
    other.join()
    assert log == ["pausing ends", "cleaned up"]
