"""Several OS threads: channels between them, what one may do to the tasklets of another, and who waits for whom."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from tasklets import (
    ChannelClosed,
    DeadlockError,
    TaskletError,
    TaskletExit,
    channel,
    getcurrent,
    getmain,
    run,
    schedule,
    schedule_remove,
    select,
    sleep,
    stackless,
    tasklet,
    timeout,
)
from tasklets._core import is_watching


@pytest.fixture(autouse=True)
def nobody_watches(no_thread_is_left: None) -> Iterator[None]:
    yield
    assert not is_watching()


class Thread(threading.Thread):
    """Raises in join() what its function raised."""

    def __init__(self, function: Callable[..., object], *args: Any) -> None:
        super().__init__()
        self.daemon = False
        self.failure: BaseException | None = None
        self.function = function
        self.args = args
        self.start()

    def run(self) -> None:
        try:
            self.function(*self.args)
            run()
        except BaseException as error:
            self.failure = error

    def join(self, timeout: float | None = 20) -> None:
        super().join(timeout)
        assert not self.is_alive(), "the thread hangs"
        if self.failure is not None:
            raise self.failure


@pytest.fixture(params=["asleep", "in its hub"])
def waiting(request: pytest.FixtureRequest) -> None:
    """How main waits for the other thread."""
    if request.param == "in its hub":
        sleep(0.001)


def started(function: Callable[..., object], *args: Any) -> tasklet:
    one = tasklet(function)(*args)
    schedule()
    return one


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("preference", [-1, 0, 1])
@pytest.mark.parametrize("capacity", [0, 1, 5])
def test_messages_arrive_in_order_in_both_directions(preference: int, capacity: int) -> None:
    there, back = channel(capacity), channel(capacity)
    there.preference = back.preference = preference

    def echo() -> None:
        for message in there:
            back.send(-message)
        back.close()

    def feed() -> None:
        for number in range(200):
            there.send(number)
        there.close()

    thread = Thread(echo)
    tasklet(feed)()
    assert list(back) == [-number for number in range(200)]
    thread.join()


@pytest.mark.usefixtures("waiting")
def test_many_tasklets_of_many_threads_share_a_channel() -> None:
    orders, results = channel(), channel()

    def worker(count: int) -> None:
        for _ in range(count):
            results.send(orders.receive())

    def live(jobs: list[tuple[Callable[[Any], object], Any]]) -> None:
        ends = channel()

        def do(job: Callable[[Any], object], argument: Any) -> None:
            job(argument)
            ends.send(None)

        for job in jobs:
            tasklet(do)(*job)
        for _ in jobs:
            ends.receive()

    def workers() -> None:
        live([(worker, 20)] * 5)

    def feeders(start: int) -> None:
        live([(orders.send_sequence, range(tens, tens + 10)) for tens in range(start, start + 100, 10)])

    threads = [
        *(Thread(workers) for _ in range(4)),
        *(Thread(feeders, start) for start in (0, 100, 200, 300)),
    ]
    assert sorted(results.receive() for _ in range(400)) == list(range(400))
    for thread in threads:
        thread.join()
    assert orders.balance == results.balance == 0


@pytest.mark.usefixtures("waiting")
def test_a_close_wakes_the_receivers_of_other_threads() -> None:
    orders = channel()
    thread = Thread(orders.close)
    with pytest.raises(ChannelClosed):
        orders.receive()
    thread.join()


@pytest.mark.usefixtures("waiting")
def test_an_exception_can_be_sent_to_another_thread() -> None:
    orders = channel()
    thread = Thread(orders.send_exception, KeyError, "k")
    with pytest.raises(KeyError):
        orders.receive()
    thread.join()


def test_a_message_to_a_thread_that_is_busy_waits_for_its_turn() -> None:
    orders = channel()
    got: list[int] = []
    started(lambda: got.append(orders.receive()))
    Thread(orders.send, 1).join()
    assert got == []
    schedule()
    assert got == [1]


def test_a_timeout_loses_no_message_of_another_thread() -> None:
    orders = channel()
    thread = Thread(lambda: [orders.send(number) for number in range(50)])
    got: list[int] = []
    while len(got) < 50:
        try:
            with timeout(0.0005):
                got.append(orders.receive())
        except TimeoutError:
            pass
    thread.join()
    assert got == list(range(50))


def test_insert_run_and_setup_from_another_thread_put_it_in_its_own_line() -> None:
    ran: list[tuple[str, bool]] = []
    here = threading.get_ident()

    def work(name: str) -> None:
        ran.append((name, threading.get_ident() == here))

    removed, paused, bound = tasklet(work)("run"), tasklet(work).bind(None, ("insert",)), tasklet(work)
    removed.remove()

    def body() -> None:
        removed.run()
        paused.insert()
        bound("setup")
        assert removed.scheduled
        assert paused.scheduled
        assert ran == []
        with pytest.raises(RuntimeError, match="different thread"):
            removed.switch()

    Thread(body).join()
    run()
    assert ran == [("run", True), ("insert", True), ("setup", True)]


@pytest.mark.usefixtures("waiting")
def test_a_kill_from_another_thread_comes_when_its_thread_gives_way() -> None:
    orders = channel()
    ends: list[str] = []

    def wait() -> None:
        try:
            orders.receive()
        except TaskletExit:
            ends.append("killed")
            raise

    blocked, never_run = started(wait), tasklet(ends.append)("never")

    def body() -> None:
        blocked.kill()
        never_run.kill(pending=True)

    Thread(body).join()
    run()
    assert ends == ["killed"]
    assert not blocked.alive
    assert orders.balance == 0


def test_what_is_thrown_at_a_running_tasklet_comes_at_its_next_wait() -> None:
    Thread(getmain().throw, KeyError, "k").join()
    with pytest.raises(KeyError):
        channel().receive()


def test_a_tasklet_of_another_thread_can_be_removed() -> None:
    ran: list[int] = []
    first, second = tasklet(ran.append)(1), tasklet(ran.append)(2)
    Thread(second.remove).join()
    run()
    assert ran == [1]
    assert second.paused
    assert not first.alive
    second.kill()


@pytest.mark.usefixtures("waiting")
def test_a_thread_that_waits_goes_on_when_another_inserts_a_tasklet() -> None:
    ready = channel()
    one = tasklet(ready.send)("inserted")
    one.remove()
    thread = Thread(lambda: (time.sleep(0.01), one.insert()))
    assert ready.receive() == "inserted"
    thread.join()


def test_tasklets_of_a_thread_that_has_ended_are_dead() -> None:
    left: list[tasklet] = []
    Thread(lambda: left.append(started(schedule_remove))).join()
    one = left.pop()
    assert one.thread_id == -1
    assert not one.alive
    assert one.kill() is None  # type: ignore[func-returns-value]
    with pytest.raises(RuntimeError, match="Target thread isn't initialized"):
        one.insert()
    with pytest.raises(RuntimeError, match="tasklet has no thread"):
        one.throw(KeyError)


@pytest.mark.usefixtures("waiting")
def test_a_deadlock_is_noticed_when_the_other_threads_have_ended() -> None:
    thread = Thread(time.sleep, 0.01)
    with pytest.raises(DeadlockError):
        channel().receive()
    thread.join()


def test_of_two_threads_that_wait_for_each_other_the_last_one_hears_of_it() -> None:
    first, second = channel(), channel()
    said: list[str] = []

    def other() -> None:
        try:
            first.receive()
        except DeadlockError:
            said.append("other")
        second.send("go on")

    thread = Thread(other)
    try:
        second.receive()
    except DeadlockError:
        said.append("main")
        first.send("go on")
        second.receive()
    thread.join()
    assert len(said) == 1


def test_run_does_not_wait_for_other_threads() -> None:
    orders = channel()
    one = started(orders.receive)
    go_on = threading.Event()
    thread = Thread(go_on.wait)
    run()
    assert one.blocked
    go_on.set()
    thread.join()


@pytest.mark.usefixtures("waiting")
def test_run_with_threadblock_waits_for_other_threads() -> None:
    orders = channel()
    got: list[str] = []
    started(lambda: got.append(orders.receive()))
    thread = Thread(lambda: (time.sleep(0.01), orders.send("late")))
    stackless.run(threadblock=True)
    assert got == ["late"]
    thread.join()


@pytest.mark.usefixtures("waiting")
def test_run_with_threadblock_returns_when_the_other_threads_have_ended() -> None:
    one = started(channel().receive)
    thread = Thread(time.sleep, 0.01)
    stackless.run(threadblock=True)
    assert one.blocked
    thread.join()


def test_who_waits_in_a_way_that_only_its_own_thread_can_end_is_left_alone() -> None:
    orders = channel()
    got: list[object] = []
    started(lambda: got.append(select([orders])))

    def body() -> None:
        with pytest.raises(TaskletError, match="another OS thread waits"):
            orders.send(1)

    Thread(body).join()
    assert orders.balance == -1
    orders.send(2)
    schedule()
    assert got == [(0, 2)]


def test_io_goes_on_while_another_thread_is_waited_for() -> None:
    orders, ticks, ticked = channel(), [], threading.Event()

    def tick() -> None:
        for number in range(3):
            gevent.sleep(0.002)
            ticks.append(number)
        ticked.set()

    tasklet(tick)()
    thread = Thread(lambda: (ticked.wait(10), orders.send("late")))
    assert orders.receive() == "late"
    assert ticks == [0, 1, 2]
    thread.join()


def test_the_current_tasklet_is_that_of_the_thread() -> None:
    seen: list[tasklet] = []
    Thread(lambda: seen.append(getcurrent())).join()
    assert seen[0] is not getcurrent()
    assert seen[0].name == "main"
