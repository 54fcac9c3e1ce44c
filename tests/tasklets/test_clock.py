"""sleep and timeout: what a limit interrupts, and what it must not lose."""

import gc
import math
import weakref

import pytest

from tasklets import (
    DeadlockError,
    TaskletError,
    TaskletExit,
    Timeout,
    channel,
    getcurrent,
    run,
    schedule,
    sleep,
    tasklet,
    timeout,
)
from tasklets._core import get_scheduler

TICK = 0.003


def expire(limit: timeout) -> None:
    """Let a limit expire at this very point of the program."""
    assert limit._cancel is not None
    limit._cancel()
    limit._expire()


def compute_until(limit: timeout) -> None:
    """Let the limit expire without a wait of the calling tasklet: it stays runnable."""
    while not limit.expired:
        schedule()


def test_sleepers_wake_in_the_order_of_their_times() -> None:
    log: list[str] = []

    def sleeper(name: str, seconds: float) -> None:
        sleep(seconds)
        log.append(name)

    tasklet(sleeper)("second", 3 * TICK)
    tasklet(sleeper)("first", TICK)
    run()
    assert log == ["first", "second"]


@pytest.mark.parametrize("seconds", [0, -1])
def test_sleeping_no_time_is_one_turn_for_the_others(seconds: float) -> None:
    log: list[str] = []
    tasklet(log.append)("other")
    sleep(seconds)
    log.append("main")
    assert log == ["other", "main"]


def test_a_limit_ends_the_wait_of_main() -> None:
    with pytest.raises(Timeout, match=r"not done within 0\.003 s"), timeout(TICK) as limit:
        channel().receive()
    assert limit.expired


def test_run_waits_for_a_limit_that_will_end_a_wait() -> None:
    log: list[object] = []

    def patient() -> None:
        try:
            with timeout(TICK):
                channel().receive()
        except Timeout as error:
            log.append(str(error))

    tasklet(patient)()
    run()
    assert log == ["not done within 0.003 s"]


def test_a_limit_around_run_does_not_keep_it() -> None:
    with timeout(60) as limit:
        tasklet(channel().receive)()
        run()
    assert not limit.expired


def test_a_limit_ends_run_itself_when_it_waits_at_the_next_wait_only() -> None:
    tasklet(sleep)(60)
    with pytest.raises(Timeout), timeout(TICK) as limit:  # noqa: PT012
        compute_until(limit)
        schedule()


def test_none_sets_no_limit() -> None:
    with timeout(None) as limit:
        schedule()
    assert not limit.expired


def test_a_limit_of_zero_lets_what_is_ready_happen() -> None:
    orders = channel()
    tasklet(orders.send)("ready")
    with timeout(0):
        assert orders.receive() == "ready"
    with pytest.raises(Timeout), timeout(0):
        orders.receive()


def test_a_message_that_came_in_time_is_not_lost() -> None:
    """The limit expires when the tasklet has its message but has not run yet."""
    orders = channel()
    orders.preference = 0
    log: list[object] = []

    def customer() -> None:
        try:
            with limit:
                log.append(orders.receive())
                log.append("next wait")
                schedule()
        except Timeout:
            log.append("late")

    limit = timeout(60)
    one = tasklet(customer)()
    schedule()
    orders.send("message")
    expire(limit)
    assert one.scheduled
    run()
    assert log == ["message", "next wait", "late"]


def test_a_limit_that_expired_unheard_leaves_nothing_behind() -> None:
    with timeout(TICK) as limit:
        while not limit.expired:
            get_scheduler()._hub_visit = 0.0
            tasklet(schedule)()
            try:
                schedule()
            except Timeout:
                break
    schedule()
    assert getcurrent()._alarm is None


@pytest.mark.parametrize("inner_first", [True, False])
def test_each_of_two_limits_is_heard_in_its_own_block(inner_first: bool) -> None:
    log: list[str] = []
    outer, inner = timeout(60), timeout(50)
    with pytest.raises(Timeout, match="not done within 60 s"), outer:  # noqa: PT012
        try:
            with inner:
                for limit in (inner, outer) if inner_first else (outer, inner):
                    expire(limit)
                schedule()
        except Timeout as error:
            log.append(str(error))
            if not inner.raised(error):
                raise
        schedule()
    assert log == ["not done within 50 s" if inner_first else "not done within 60 s"]
    assert getcurrent()._alarm is None


def test_the_inner_of_two_limits_ends_its_block_only() -> None:
    with timeout(60) as outer:
        with pytest.raises(Timeout), timeout(TICK):
            channel().receive()
        schedule()
    assert not outer.expired


def test_a_limit_tells_its_own_timeout_from_another() -> None:
    outer, inner = timeout(60), timeout(TICK)
    with outer, pytest.raises(Timeout) as caught, inner:
        channel().receive()
    assert inner.raised(caught.value)
    assert not outer.raised(caught.value)


def test_expired_is_false_after_a_block_that_was_in_time() -> None:
    with timeout(60) as limit:
        assert not limit.expired
    assert not limit.expired


def test_a_limit_serves_one_block_at_a_time_and_then_another() -> None:
    limit = timeout(60)
    with limit, pytest.raises(TaskletError, match="every block needs one of its own"), limit:
        pass
    with limit:
        schedule()


def test_a_kill_passes_through_a_limit_and_stops_its_timer() -> None:
    log: list[str] = []

    def worker() -> None:
        try:
            with timeout(60):
                channel().receive()
        except TaskletExit:
            log.append("killed")
            raise

    one = tasklet(worker)()
    schedule()
    one.kill()
    assert log == ["killed"]
    assert not get_scheduler().limits
    run()  # returns: no timer is left


def test_a_killed_sleeper_keeps_neither_run_nor_its_timer() -> None:
    one = tasklet(sleep)(60)
    schedule()
    assert get_scheduler().waiting == 1
    one.kill()
    assert get_scheduler().waiting == 0
    run()


def test_sleeping_for_ever_can_be_killed() -> None:
    one = tasklet(sleep)(math.inf)
    schedule()
    assert one.waits_for == "sleep(inf)"
    one.kill()
    assert not one.alive


def test_a_refused_sleep_leaves_no_timer() -> None:
    getcurrent().block_trap = True
    try:
        with pytest.raises(RuntimeError, match=r"does not like to be blocked.*sleep\(60\)"):
            sleep(60)
    finally:
        getcurrent().block_trap = False
    with pytest.raises(DeadlockError):  # at once: no timer keeps the loop
        channel().receive()


def test_cancelled_timers_are_released() -> None:
    class Payload:
        pass

    def worker(payload: Payload) -> None:
        with timeout(3600):
            sleep(3600)

    payload = Payload()
    gone = weakref.ref(payload)
    one = tasklet(worker)(payload)
    del payload
    schedule()
    one.kill()
    schedule()
    gc.collect()
    assert gone() is None


def test_a_limit_works_in_a_tasklet_that_waits_inside_gevent() -> None:
    import gevent

    log: list[str] = []

    def worker() -> None:
        try:
            with timeout(TICK):
                gevent.sleep(60)
        except Timeout:
            log.append("timeout")

    tasklet(worker)()
    run()
    assert log == ["timeout"]


def test_a_limit_works_in_a_gevent_greenlet_wherever_it_waits() -> None:
    import gevent

    log: list[str] = []

    def greenlet(wait: object) -> None:
        try:
            with timeout(TICK):
                wait(60) if callable(wait) else channel().receive()
        except Timeout:
            log.append("timeout")

    gevent.joinall([gevent.spawn(greenlet, gevent.sleep), gevent.spawn(greenlet, None)])
    assert log == ["timeout", "timeout"]


def test_ten_thousand_tasklets_sleep_at_once() -> None:
    woken: list[int] = []

    def sleeper(number: int) -> None:
        sleep(TICK)
        woken.append(number)

    for number in range(10_000):
        tasklet(sleeper)(number)
    run()
    assert sorted(woken) == list(range(10_000))
