"""tasklets.testing: time by hand, drawn schedules that find planted faults and repeat them, tasklets that are left."""

import gc
import os
import signal
import threading
import time
import weakref
from contextvars import ContextVar

import pytest

from tasklets import (
    Actor,
    DeadlockError,
    TaskletError,
    Timeout,
    channel,
    getcurrent,
    nursery,
    run,
    schedule,
    schedule_remove,
    select,
    sleep,
    tasklet,
    timeout,
)
from tasklets._core import get_scheduler
from tasklets.testing import (
    LeakError,
    ScheduleError,
    explore,
    leak_check,
    replay,
    run_until_blocked,
    virtual_clock,
)

# -- the clock -----------------------------------------------------------------------------------------------


def test_time_jumps_when_everybody_waits() -> None:
    began = time.monotonic()
    with virtual_clock() as clock:
        sleep(3600)
        assert clock.now == 3600
    assert time.monotonic() - began < 60


def test_time_stands_still_while_somebody_can_run() -> None:
    with virtual_clock() as clock:
        tasklet(sleep)(1)
        for _ in range(1000):
            schedule()
        assert clock.now == 0
        run()
        assert clock.now == 1


def test_sleepers_wake_by_time_and_those_of_one_instant_in_their_order() -> None:
    order = []

    def nap(name: str, seconds: float) -> None:
        sleep(seconds)
        order.append(name)

    with virtual_clock():
        for name, seconds in [("a", 2), ("b", 1), ("c", 2), ("d", 1)]:
            tasklet(nap)(name, seconds)
        run()
    assert order == ["b", "d", "a", "c"]


def test_advance_wakes_each_at_its_time() -> None:
    seen = []

    def tick() -> None:
        while True:
            sleep(10)
            seen.append(clock.now)

    with virtual_clock() as clock:
        tasklet(tick)()
        clock.advance(35)
        assert seen == [10, 20, 30]
        assert clock.now == 35
        clock.advance(5)
        assert seen == [10, 20, 30, 40]


def test_the_timeouts_of_blocks_selects_and_asks_follow_the_clock() -> None:
    class Mute(Actor):
        def receive(self, message: object) -> None:
            sleep(1000)

    where: channel = channel()
    with virtual_clock() as clock:
        with pytest.raises(Timeout), timeout(5):
            where.receive()
        assert clock.now == 5
        with pytest.raises(Timeout):
            select([where], timeout=7)
        assert clock.now == 12
        with timeout(1), pytest.raises(Timeout), timeout(0.5):
            sleep(3)
        assert clock.now == 12.5


def test_the_patience_of_a_nursery_follows_the_clock() -> None:
    lives = []

    def fail_slowly() -> None:
        lives.append(1)
        sleep(30)
        if len(lives) < 10:
            raise ValueError

    with virtual_clock(), nursery(limit=1, within=20) as home:
        home.start(fail_slowly, restart="failed")
    assert len(lives) == 10


def test_what_still_sleeps_at_the_end_is_killed() -> None:
    ended = []

    def nap() -> None:
        try:
            sleep(10)
        finally:
            ended.append("nap")

    def wait() -> None:
        try:
            with timeout(10):
                channel().receive()
        finally:
            ended.append("wait")

    with virtual_clock():
        tasklet(nap)()
        tasklet(wait)()
        schedule()
    assert ended == ["nap", "wait"]
    assert get_scheduler().waiting == 0


def test_the_real_clock_is_back_after_the_block() -> None:
    before = get_scheduler().reactor
    with pytest.raises(KeyError), virtual_clock():
        raise KeyError
    assert get_scheduler().reactor is before
    began = time.monotonic()
    sleep(0.003)
    assert time.monotonic() - began >= 0.002


def test_a_failure_and_a_deadlock_reach_main_as_usual() -> None:
    def fail() -> None:
        sleep(1)
        raise ValueError("late")

    with virtual_clock():
        tasklet(fail)()
        with pytest.raises(ValueError, match="late"):
            run()
        with pytest.raises(DeadlockError, match="cannot be blocked"):
            channel(name="orders").receive()


def test_io_is_refused_and_said_so() -> None:
    import gevent

    failures = []

    def doze() -> None:
        try:
            gevent.sleep(0.001)
        except TaskletError as error:
            failures.append(error)

    with virtual_clock():
        tasklet(doze)()
        run()
        doze()
        with pytest.raises(TaskletError, match="no I/O"):
            _ = get_scheduler().get_reactor().loop
    assert len(failures) == 2
    gevent.sleep(0.001)


def test_wrong_uses_of_the_clock_are_refused() -> None:
    with virtual_clock() as clock:
        with pytest.raises(TaskletError, match="has a virtual clock already"), virtual_clock():
            pass
        with pytest.raises(ValueError, match="backwards"):
            clock.advance(-1)
        assert repr(clock) == "<VirtualClock now=0 timers=0>"
    sleeper = tasklet(sleep)(60)
    schedule()
    with pytest.raises(TaskletError, match="real time"), virtual_clock():
        pass
    sleeper.kill()


# -- run_until_blocked ---------------------------------------------------------------------------------------


def test_run_until_blocked_returns_when_only_the_caller_can_run() -> None:
    seen: list[int] = []
    numbers: channel = channel()

    def collect() -> None:
        seen.extend(numbers)

    tasklet(collect)()
    tasklet(numbers.send_sequence)(range(5))
    run_until_blocked()
    assert seen == [0, 1, 2, 3, 4]
    numbers.close()
    run_until_blocked()


def test_run_until_blocked_raises_when_they_do_not_come_to_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasklets.testing._clock.MAX_ROUNDS", 50)

    def spin() -> None:
        while True:
            schedule()

    tasklet(spin)()
    with pytest.raises(AssertionError, match=r"do not come to rest in 50 rounds: .*spin"):
        run_until_blocked()


# -- leak_check ----------------------------------------------------------------------------------------------


def test_tasklets_that_are_left_are_named_with_what_they_wait_for() -> None:
    orders: channel = channel(name="orders")

    def forget() -> None:
        with leak_check():
            tasklet(orders.receive)()
            tasklet(schedule_remove)()

    with pytest.raises(LeakError) as caught:
        forget()
    assert "2 tasklets are still alive" in str(caught.value)
    assert "receive from <channel 'orders' balance=-1 open>" in caught.value.tasklets[0]
    assert caught.value.tasklets[1].startswith("schedule_remove is paused")


def test_a_tasklet_that_nobody_refers_to_is_found_too() -> None:
    with pytest.raises(LeakError, match="1 tasklet is"), leak_check():
        tasklet(lambda: channel().receive())()
    assert gc.isenabled()


def test_those_from_before_and_those_that_end_in_time_do_not_count() -> None:
    gate: channel = channel()
    tasklet(gate.receive)()
    schedule()
    with leak_check():
        inner: channel = channel()
        tasklet(inner.receive)()
        schedule()
        tasklet(inner.send)(1)


def test_the_failure_of_the_block_counts_more_than_a_leak() -> None:
    def fail(_: object) -> None:
        raise KeyError

    with pytest.raises(KeyError), leak_check():
        fail(tasklet(schedule_remove)())


# -- explore: planted faults ---------------------------------------------------------------------------------


def lose_an_update() -> None:
    """Right under the usual schedule only: who read goes on to write before anybody else reads."""
    balance = [0]
    log: channel = channel(10, name="log")

    def deposit(amount: int) -> None:
        found = balance[0]
        log.send(("deposit", amount))
        balance[0] = found + amount

    for amount in (1, 2):
        tasklet(deposit)(amount)
    run()
    assert balance[0] == 3


def lock_crosswise() -> None:
    """Two locks, channels with room for a token, taken in two orders. The usual schedule gets through."""
    left, right = channel(1, name="left"), channel(1, name="right")
    left.send("token")
    right.send("token")

    def philosopher(first: channel, second: channel) -> None:
        first.receive()
        second.receive()
        second.send("token")
        first.send("token")

    tasklet(philosopher)(left, right)
    tasklet(philosopher)(right, left)


def pass_a_ball() -> None:
    """Right under every schedule."""
    court: channel = channel()

    def throw(number: int) -> None:
        sleep(number % 2)
        court.send(number)

    for number in range(4):
        tasklet(throw)(number)
    assert sorted(court.receive() for _ in range(4)) == [0, 1, 2, 3]


def run_as_usual(program) -> None:  # type: ignore[no-untyped-def]
    replay(program, choices=())


@pytest.mark.parametrize("planted", [lose_an_update, lock_crosswise])
def test_a_planted_fault_hides_from_the_usual_schedule_and_is_found_within_ten_seeds(planted) -> None:  # type: ignore[no-untyped-def]
    run_as_usual(planted)
    with pytest.raises(ScheduleError):
        explore(planted, range(10))


def test_the_message_has_the_failure_the_schedule_and_how_to_see_it_again() -> None:
    with pytest.raises(ScheduleError) as caught:
        explore(lose_an_update)
    text = str(caught.value)
    assert f"failed, with seed {caught.value.seed}: AssertionError: " in text
    assert 'log.send(("deposit", amount))' in text
    assert "test_testing.py:" in text
    assert "-> deposit#2" in text
    assert f"tasklets.testing.replay(program, seed={caught.value.seed})" in text
    assert isinstance(caught.value.__cause__, AssertionError)


def test_a_deadlock_names_who_waits_for_what_and_where() -> None:
    with pytest.raises(ScheduleError) as caught:
        explore(lock_crosswise)
    text = str(caught.value)
    assert "philosopher waits: receive from <channel 'right'" in text
    assert "philosopher waits: receive from <channel 'left'" in text
    assert "test_testing.py:" in text
    assert "_explore.py" not in text
    assert isinstance(caught.value.__cause__, DeadlockError)


@pytest.mark.parametrize("planted", [lose_an_update, lock_crosswise])
def test_replay_repeats_exactly_what_the_seed_drew(planted) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ScheduleError) as first:
        explore(planted)
    with pytest.raises(ScheduleError) as again:
        replay(planted, first.value.seed)
    assert again.value.schedule == first.value.schedule
    with pytest.raises(ScheduleError) as by_choices:
        replay(planted, choices=first.value.choices)
    assert by_choices.value.schedule == first.value.schedule


def test_a_minimised_schedule_departs_less_from_the_usual_one_and_can_be_replayed() -> None:
    with pytest.raises(ScheduleError) as first:
        explore(lock_crosswise, range(3, 100))
    with pytest.raises(ScheduleError) as small:
        explore(lock_crosswise, range(3, 100), minimise=True)
    assert sum(map(bool, small.value.choices)) == 1  # one change of turn between the two locks is enough
    assert sum(map(bool, first.value.choices)) >= 1
    with pytest.raises(ScheduleError) as again:
        replay(lock_crosswise, choices=small.value.choices)
    assert again.value.schedule == small.value.schedule


# -- explore: what it does and does not do -------------------------------------------------------------------


def test_a_right_program_passes_under_many_different_schedules() -> None:
    result = explore(pass_a_ball, range(50))
    assert result.runs == 50
    assert result.schedules > 25
    assert result.longest >= 10


def test_every_order_of_three_equals_is_drawn() -> None:
    orders = set()

    def program() -> None:
        order: list[int] = []
        for number in range(3):
            tasklet(order.append)(number)
        run()
        orders.add(tuple(order))

    explore(program, range(60))
    assert len(orders) == 6


def test_the_choices_of_zero_are_the_plain_schedule() -> None:
    def program() -> list[object]:
        seen: list[object] = []
        rendezvous, room = channel(), channel(2)
        rendezvous.preference = 1

        def produce(name: str) -> None:
            for number in range(3):
                rendezvous.send((name, number))
                seen.append(("sent", name, number))
                room.send(number)
                schedule()

        def consume() -> None:
            for _ in range(6):
                seen.append(rendezvous.receive())
                seen.append(room.receive())

        for each in ("a", "b"):
            tasklet(produce)(each)
        tasklet(consume)()
        run()
        return seen

    drawn: list[list[object]] = []
    replay(lambda: drawn.append(program()), choices=())
    assert drawn == [program()]


def test_blocked_servers_are_a_deadlock_unless_allowed() -> None:
    def program() -> None:
        tasklet(channel().receive)()

    with pytest.raises(ScheduleError, match="wait for ever"):
        explore(program)
    explore(program, allow_blocked=True)


def test_a_run_that_does_not_end_fails() -> None:
    def program() -> None:
        while True:
            schedule()

    with pytest.raises(ScheduleError, match="did not end within 500 steps"):
        explore(program, max_steps=500)

    def two() -> None:
        tasklet(program)()
        tasklet(program)()
        run()

    with pytest.raises(ScheduleError, match="did not end within 500 steps"):
        explore(two, max_steps=500)


def test_nurseries_timeouts_selects_kills_and_closing_work_under_drawn_schedules() -> None:
    def program() -> None:
        jobs, results = channel(), channel(1)
        seen = []

        def work() -> None:
            for job in jobs:
                sleep(job)
                select([(results, job)])

        def feed() -> None:
            jobs.send_sequence([1, 2, 3])
            jobs.close()

        with timeout(60), nursery() as home:
            home.start(work)
            home.start(work)
            home.start(feed)
            idle = home.start(channel().receive)
            while len(seen) < 3:
                seen.append(select([results], timeout=30)[1])
            idle.kill()
        assert sorted(seen) == [1, 2, 3]

    assert explore(program, range(40)).runs == 40


def test_run_and_switch_of_a_tasklet_still_mean_that_one() -> None:
    def program() -> None:
        seen: list[str] = []
        for name in "abc":
            tasklet(seen.append)(name)
        chosen = tasklet(seen.append)("chosen")
        chosen.run()
        assert seen[0] == "chosen"
        me = getcurrent()
        back = tasklet(lambda: (seen.append("switched"), me.insert()))()
        before = len(seen)
        back.switch()
        assert seen[before] == "switched"

    explore(program, range(30))


def test_the_program_sees_the_context_of_the_caller() -> None:
    name = ContextVar("name", default="nobody")
    name.set("caller")
    seen = set()
    explore(lambda: seen.add(name.get()), range(2))
    assert seen == {"caller"}


def test_skipping_and_exiting_are_no_failures_of_a_schedule() -> None:
    def program() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        explore(program)


def test_exploring_leaves_nothing_behind() -> None:
    left: list[weakref.ref[tasklet]] = []
    scheduler = get_scheduler()

    def program() -> None:
        left.append(weakref.ref(tasklet(channel().receive)()))
        left.append(weakref.ref(tasklet(sleep)(1000)))
        schedule()

    explore(program, range(5), allow_blocked=True)
    gc.collect()
    assert [each() for each in left if each() is not None] == []
    assert get_scheduler() is scheduler


def test_explore_may_be_called_from_a_tasklet_and_from_an_explored_program() -> None:
    found = []
    tasklet(lambda: found.append(explore(lambda: explore(pass_a_ball, range(2)), range(2)).runs))()
    run()
    assert found == [2]


def test_replay_wants_a_seed_or_choices() -> None:
    with pytest.raises(TypeError, match="seed=17"):
        replay(pass_a_ball)


def test_ctrl_c_ends_an_exploration() -> None:
    ended = []

    def program() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            while True:
                schedule()
        finally:
            ended.append("program")

    with pytest.raises(KeyboardInterrupt):
        explore(program, max_steps=10_000_000)
    for thread in threading.enumerate():
        if thread.name == "tasklets.testing.explore":
            thread.join()
    assert ended == ["program"]
