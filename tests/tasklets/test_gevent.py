"""Architecture 1.1 and 1.2: tasklets and gevent in one program, in every combination."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator

import gevent
import gevent.event
import gevent.lock
import gevent.queue
import gevent.server
import gevent.socket
import gevent.subprocess
import gevent.threadpool
import pytest
from gevent.exceptions import LoopExit

from tasklets import (
    DeadlockError,
    TaskletExit,
    Timeout,
    channel,
    getcurrent,
    getmain,
    run,
    schedule,
    select,
    sleep,
    tasklet,
    timeout,
)
from tasklets._core import get_scheduler

TICK = 0.003


def python(program: str) -> tuple[int, str, str]:
    """Run a program in a fresh interpreter: what it makes of the hub and of signals is its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=30
    )
    return done.returncode, done.stdout, done.stderr


# -- a tasklet uses gevent -----------------------------------------------------------------------------------


def wait_sleep() -> None:
    gevent.sleep(TICK)


def wait_socket() -> None:
    left, right = gevent.socket.socketpair()
    with left, right:
        gevent.spawn_later(TICK, left.sendall, b"x")
        assert right.recv(1) == b"x"


def wait_subprocess() -> None:
    assert gevent.subprocess.check_output([sys.executable, "-S", "-c", "print('hi')"]) == b"hi\n"


def wait_event() -> None:
    event = gevent.event.Event()
    gevent.spawn_later(TICK, event.set)
    assert event.wait()


def wait_result() -> None:
    result = gevent.event.AsyncResult()
    gevent.spawn_later(TICK, result.set, 7)
    assert result.get() == 7


def wait_queue() -> None:
    queue: gevent.queue.Queue[int] = gevent.queue.Queue()
    gevent.spawn_later(TICK, queue.put, 7)
    assert queue.get() == 7


def wait_lock() -> None:
    lock = gevent.lock.BoundedSemaphore(1)
    lock.acquire()
    gevent.spawn_later(TICK, lock.release)
    with lock:
        pass


def wait_threadpool() -> None:
    assert gevent.get_hub().threadpool.apply(threading.get_ident) != threading.get_ident()


def wait_greenlet() -> None:
    assert gevent.spawn(lambda: 7).get() == 7


WAITS = [
    wait_sleep,
    wait_socket,
    wait_subprocess,
    wait_event,
    wait_result,
    wait_queue,
    wait_lock,
    wait_threadpool,
    wait_greenlet,
]


@pytest.mark.parametrize("wait", WAITS)
def test_whatever_waits_inside_gevent_blocks_only_its_tasklet(wait: Callable[[], None]) -> None:
    log: list[str] = []

    def waiter() -> None:
        wait()
        log.append("waited")

    tasklet(waiter)()
    tasklet(log.append)("other")
    run()  # waits for I/O
    assert log == ["other", "waited"]


@pytest.mark.parametrize("wait", WAITS)
def test_tasklets_run_while_main_waits_inside_gevent(wait: Callable[[], None]) -> None:
    log: list[str] = []

    def worker() -> None:
        for name in "ab":
            log.append(name)
            schedule()

    tasklet(worker)()
    wait()
    assert log == ["a", "b"]


def test_two_tasklets_talk_over_a_socket() -> None:
    left, right = gevent.socket.socketpair()
    echoed: list[bytes] = []

    def echo() -> None:
        while data := right.recv(100):
            right.sendall(data)

    def client() -> None:
        for number in range(20):
            left.sendall(b"%d" % number)
            echoed.append(left.recv(100))
        left.close()

    with right:
        tasklet(echo)()
        tasklet(client)()
        run()
    assert echoed == [b"%d" % number for number in range(20)]


def test_a_thousand_idle_connections_hold_up_nobody() -> None:  # T-06
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 3000)), hard))
    pairs = [gevent.socket.socketpair() for _ in range(1000)]
    idle = [tasklet(one.recv)(1) for one, _ in pairs[1:]]
    asking, answering = pairs[0]

    def answer() -> None:
        while data := answering.recv(100):
            answering.send(data)

    def ask() -> None:
        while True:
            asking.send(b"and again")
            asking.recv(100)

    busy = [tasklet(answer)(), tasklet(ask)()]

    def longest_period() -> float:
        periods, before = [], time.monotonic()
        for _ in range(30):
            sleep(0.005)
            now = time.monotonic()
            periods.append(now - before)
            before = now
        return max(periods)

    try:
        # Once calmly: what else runs on the machine may hold up all of the process.
        assert any(longest_period() <= 0.020 for _ in range(5))
        assert all(one.blocked for one in idle)
    finally:
        for one in [*idle, *busy]:
            one.kill()
        for pair in pairs:
            for sock in pair:
                sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_reused_worker_brings_no_gevent_locals_along() -> None:
    import gevent.local

    data = gevent.local.local()
    seen: list[object] = []

    def worker(name: str) -> None:
        seen.append(getattr(data, "name", None))
        data.name = name

    for name in "abc":
        tasklet(worker)(name)
        run()
    assert seen == [None, None, None]


# -- a gevent greenlet uses tasklets -------------------------------------------------------------------------


def test_greenlets_and_tasklets_exchange_messages_both_ways() -> None:
    requests, answers = channel(), channel()

    def server() -> None:
        for number in requests:
            answers.send(number * 2)

    def client() -> list[int]:
        got = []
        for number in range(5):
            requests.send(number)
            got.append(answers.receive())
        requests.close()
        return got

    tasklet(server)()
    assert gevent.spawn(client).get() == [0, 2, 4, 6, 8]


def test_two_greenlets_use_a_channel_without_any_tasklet() -> None:
    orders = channel()
    consumer = gevent.spawn(lambda: [orders.receive(), *orders])

    def producer() -> None:
        for number in range(3):
            orders.send(number)
        orders.close()

    gevent.spawn(producer)
    assert consumer.get() == [0, 1, 2]


def test_a_greenlet_selects_sleeps_and_schedules() -> None:
    orders, answers = channel(), channel()

    def client() -> list[object]:
        sleep(TICK)
        schedule()
        first = select([orders, answers])
        second = select([answers, (orders, "to you")])
        with pytest.raises(Timeout):
            select([orders], timeout=TICK)
        return [first, second]

    one = gevent.spawn(client)
    tasklet(answers.send)("to me")
    gevent.sleep(3 * TICK)
    assert orders.receive() == "to you"
    assert one.get() == [(1, "to me"), (1, None)]


def test_a_greenlet_may_start_and_kill_tasklets() -> None:
    log: list[str] = []

    def victim() -> None:
        try:
            channel().receive()
        finally:
            log.append("killed")

    def greenlet() -> None:
        one = tasklet(victim)()
        gevent.sleep(0)
        gevent.sleep(0)
        assert one.blocked
        one.kill()
        gevent.sleep(0)
        gevent.sleep(0)
        assert not one.alive

    gevent.spawn(greenlet).get()
    assert log == ["killed"]


def test_a_greenlet_killed_on_a_channel_leaves_its_queue() -> None:
    orders = channel()
    receiver = gevent.spawn(orders.receive)
    sender = gevent.spawn(channel().send, 1)
    gevent.sleep(0)
    assert orders.balance == -1
    gevent.killall([receiver, sender])
    assert orders.balance == 0
    assert receiver.dead
    assert isinstance(receiver.value, gevent.GreenletExit)


def test_a_greenlet_killed_in_the_turn_of_its_message_is_not_resumed_twice() -> None:
    orders = channel()
    log: list[object] = []

    def stubborn() -> None:
        try:
            orders.receive()
        except gevent.GreenletExit:
            log.append("killed")
        log.append(gevent.sleep(TICK))

    one = gevent.spawn(stubborn)
    gevent.sleep(0)
    killer = gevent.get_hub().loop.run_callback(one.throw, gevent.GreenletExit)
    orders.send("message")
    one.join()
    assert log == ["killed", None]
    assert not killer.pending
    assert one.successful()


def test_a_tasklet_kills_a_greenlet_wherever_it_waits() -> None:
    orders = channel()
    seen: list[object] = []

    def greenlet(wait: Callable[[], object]) -> None:
        seen.append(getcurrent())
        try:
            wait()
        except gevent.GreenletExit:
            seen.append("killed")
            raise

    ones = [gevent.spawn(greenlet, orders.receive), gevent.spawn(greenlet, lambda: gevent.sleep(60))]
    gevent.sleep(0)
    for one in [each for each in seen if isinstance(each, tasklet)]:
        assert one.alive
        tasklet(one.kill)()
    run()
    gevent.joinall(ones)
    assert seen[2:] == ["killed", "killed"]
    assert orders.balance == 0
    for one in seen[:2]:
        assert isinstance(one, tasklet)
        assert not one.alive
        one.kill()


def test_what_belongs_to_gevent_refuses_to_be_a_member_of_the_ring() -> None:
    def greenlet() -> None:
        me = getcurrent()
        assert "greenlet" in repr(me)
        for misuse in (me.insert, me.run, me.switch):
            with pytest.raises(RuntimeError, match="belongs to gevent, which runs it"):
                misuse()
        with pytest.raises(RuntimeError, match="run\\(\\) is for tasklets and the main program"):
            run()
        other = tasklet(schedule)()
        with pytest.raises(RuntimeError, match="from a gevent greenlet use insert"):
            other.run()
        with pytest.raises(KeyError):
            me.throw(KeyError("myself"))

    gevent.spawn(greenlet).get()
    run()


def test_a_callback_of_the_loop_cannot_wait_but_may_start_a_tasklet() -> None:
    log: list[object] = []

    def callback() -> None:
        try:
            channel().receive()
        except RuntimeError as error:
            log.append(str(error))
        tasklet(log.append)("started")

    gevent.get_hub().loop.run_callback(callback)
    gevent.sleep(TICK)
    assert log == [
        "a callback of the event loop cannot wait; start a tasklet and let it do the waiting",
        "started",
    ]


# -- gevent's Timeout and kill -------------------------------------------------------------------------------


def receive_late() -> str:
    try:
        with gevent.Timeout(TICK):
            channel().receive()
    except gevent.Timeout:
        return "timeout"
    return "message"


def test_gevent_timeout_works_in_tasklets_greenlets_and_main() -> None:
    log: list[str] = []
    tasklet(lambda: log.append(receive_late()))()
    other = gevent.spawn(receive_late)
    assert receive_late() == "timeout"
    assert other.get() == "timeout"
    gevent.sleep(TICK)
    assert log == ["timeout"]


def test_gevent_timeout_of_main_does_not_go_to_a_nested_runner() -> None:
    log: list[str] = []

    def runner() -> None:
        tasklet(sleep)(3 * TICK)
        run()
        log.append("runner")

    tasklet(runner)()
    log.append(receive_late())
    run()
    assert log == ["timeout", "runner"]


def test_a_gevent_timeout_is_not_raised_after_its_block() -> None:
    orders = channel()
    orders.preference = 0
    log: list[object] = []
    limits: list[gevent.Timeout] = []

    def worker() -> None:
        with gevent.Timeout(60) as limit:
            limits.append(limit)
            log.append(orders.receive())
        log.append(schedule("no timeout"))

    one = tasklet(worker)()
    schedule()
    orders.send("message")
    get_scheduler().alarm(one, limits[0])  # it expires now, before the tasklet has run
    run()
    assert log == ["message", "no timeout"]


def test_gevent_can_kill_the_greenlet_of_a_tasklet() -> None:
    log: list[str] = []
    greenlets: list[gevent.Greenlet] = []

    def worker() -> None:
        greenlets.append(gevent.getcurrent())
        try:
            gevent.sleep(60)
        finally:
            log.append("killed")

    one = tasklet(worker)()
    schedule()
    gevent.kill(greenlets[0])
    gevent.sleep(TICK)
    assert log == ["killed"]
    assert not one.alive


def test_a_killed_tasklet_leaves_the_wait_inside_gevent() -> None:
    event = gevent.event.Event()
    one = tasklet(event.wait)()
    schedule()
    assert one.waits_for == "I/O"
    one.kill()
    assert not one.alive
    assert event.linkcount() == 0
    run()


# -- run() ---------------------------------------------------------------------------------------------------


def test_run_returns_although_gevent_has_servers_and_timers_of_its_own() -> None:
    server = gevent.server.StreamServer(("127.0.0.1", 0), lambda *_: None)
    server.start()
    other = gevent.spawn(gevent.sleep, 60)
    log: list[str] = []

    def sleeper() -> None:
        sleep(TICK)
        log.append("slept")

    tasklet(sleeper)()
    one = tasklet(channel().receive)()
    run()
    assert log == ["slept"]
    assert one.blocked
    other.kill()
    server.stop()


def test_io_is_served_although_tasklets_never_block() -> None:
    served: list[str] = []

    def busy() -> None:
        while not served:
            schedule()

    for _ in range(3):
        tasklet(busy)()
    gevent.spawn_later(TICK, served.append, "timer")
    run()
    assert served == ["timer"]


def test_io_is_served_although_tasklets_start_each_other_for_ever() -> None:
    served: list[str] = []

    def link() -> None:
        if not served:
            tasklet(link)()

    tasklet(link)()
    gevent.spawn_later(TICK, served.append, "timer")
    run()
    assert served == ["timer"]


def test_io_is_served_although_tasklets_only_exchange_messages() -> None:
    served: list[str] = []
    there, back = channel(), channel()

    def ping() -> None:
        while not served:
            there.send(None)
            back.receive()
        there.close()

    def pong() -> None:
        for _ in there:
            back.send(None)

    tasklet(ping)()
    tasklet(pong)()
    gevent.spawn_later(TICK, served.append, "timer")
    run()
    assert served == ["timer"]


def test_run_inside_a_tasklet_waits_for_timers_too() -> None:
    log: list[str] = []

    def runner() -> None:
        tasklet(sleep)(TICK)
        run()
        log.append("inner")

    tasklet(runner)()
    run()
    assert log == ["inner"]


# -- deadlocks -----------------------------------------------------------------------------------------------


def test_main_waiting_inside_gevent_for_ever_hears_who_waits_on_what() -> None:
    one = tasklet(channel(name="orders").receive)()
    one.name = "clerk"
    schedule()
    with pytest.raises(DeadlockError, match="clerk waits: receive from <channel 'orders'") as caught:
        gevent.event.Event().wait()
    assert isinstance(caught.value, LoopExit)  # gevent's own code catches that
    assert type(caught.value).__name__ == "DeadlockError"


def test_joining_the_hub_still_ends_when_the_loop_is_empty() -> None:
    one = tasklet(channel().receive)()
    schedule()
    assert gevent.get_hub().join()
    one.kill()


def test_run_hears_when_a_tasklet_waits_inside_gevent_for_ever() -> None:
    one = tasklet(gevent.event.Event().wait)()
    with pytest.raises(DeadlockError, match="no timer or I/O is left to wait for") as caught:
        run()
    assert "waits: I/O" in str(caught.value)
    one.kill()


def test_main_hears_a_deadlock_with_the_loop_loaded() -> None:
    sleep(TICK)
    with pytest.raises(DeadlockError, match="last runnable tasklet cannot be blocked"):
        channel().receive()
    tasklet(sleep)(TICK)
    with pytest.raises(DeadlockError):
        channel().receive()


# -- failures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("v"), SystemExit(3), KeyboardInterrupt()])
def test_a_failure_reaches_main_inside_gevent(error: BaseException) -> None:
    def bad() -> None:
        raise error

    tasklet(bad)()
    with pytest.raises(type(error)) as caught:
        gevent.sleep(60)
    assert caught.value is error
    gevent.sleep(TICK)


def test_system_exit_in_a_tasklet_ends_the_program_with_its_code() -> None:
    program = """
        import sys
        from tasklets import run, sleep, tasklet
        def bad():
            sleep(0.001)
            sys.exit(7)
        tasklet(bad)()
        run()
    """
    assert python(program) == (7, "", "")


@pytest.fixture
def interrupt_soon() -> Iterator[Callable[[], None]]:
    """Ctrl-C in a moment. Called where it is to arrive: on a busy machine a moment may be over before the next line.

    Another process sends it, and again until it has arrived: a thread of ours that asks for the interpreter's lock at
    that moment can make CPython 3.11 forget that the main one was sent a signal, as long as that computes.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    senders: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        script = f"sleep 0.02; while kill -INT {os.getpid()}; do sleep 5; done"
        senders.append(subprocess.Popen(["sh", "-c", script]))

    yield start
    for sender in senders:
        sender.kill()
        sender.wait()
    signal.signal(signal.SIGINT, before)


Call = Callable[..., object]


def compute(ready: Call) -> None:
    ready()
    while True:
        pass


def busy_schedule(ready: Call) -> None:
    ready()
    while True:
        schedule()


def exchange(ready: Call) -> None:
    orders = channel()

    def consume() -> None:
        for _ in orders:
            pass

    tasklet(consume)()
    ready()
    while True:
        orders.send(1)


def doze(ready: Call) -> None:
    ready()
    sleep(60)


def receive(ready: Call) -> None:
    ready()
    channel().receive()


def join_one_that_computes(ready: Call) -> None:
    gevent.spawn(compute, ready).join()


@pytest.mark.parametrize(
    ("main", "other"),
    [
        pytest.param(run, doze, id="run, a sleeper"),
        pytest.param(run, compute, id="run, a tasklet computes"),
        pytest.param(run, busy_schedule, id="run, a busy ring"),
        pytest.param(run, exchange, id="run, messages"),
        pytest.param(lambda: channel().receive(), doze, id="receive, a sleeper"),
        pytest.param(lambda: channel().receive(), compute, id="receive, a tasklet computes"),
        pytest.param(lambda: gevent.sleep(60), receive, id="gevent.sleep, the hub idles"),
        pytest.param(lambda: gevent.sleep(60), compute, id="gevent.sleep, a tasklet computes"),
        pytest.param(join_one_that_computes, doze, id="join, a greenlet computes"),
        pytest.param(lambda: sleep(60), busy_schedule, id="sleep, a busy ring"),
    ],
)
def test_ctrl_c_reaches_main_at_once_prints_nothing_and_the_program_goes_on(
    main: Call, other: Call, interrupt_soon: Call, capfd: pytest.CaptureFixture[str]
) -> None:
    if main is join_one_that_computes:
        tasklet(other)(lambda: None)
        arguments = [interrupt_soon]
    else:
        tasklet(other)(interrupt_soon)
        arguments = []
    with pytest.raises(KeyboardInterrupt):
        main(*arguments)
    assert getcurrent() is getmain()
    assert capfd.readouterr() == ("", "")
    orders = channel(1)
    orders.send("the program goes on")
    assert orders.receive() == "the program goes on"
    with timeout(60):
        sleep(TICK)


def test_ctrl_c_by_a_real_sigint_ends_a_program_like_any_other() -> None:
    program = """
        import os, signal, sys
        from tasklets import channel, run, sleep, tasklet
        def worker():
            try:
                channel().receive()
            finally:
                print("cleanup")
        one = tasklet(worker)()
        def later():
            sleep(0.005)
            os.kill(os.getpid(), signal.SIGINT)
            sleep(60)
        tasklet(later)()
        try:
            run()
        except KeyboardInterrupt:
            print("interrupted")
        one.kill()
        sleep(0.001)
        print("done")
    """
    assert python(program) == (0, "interrupted\ncleanup\ndone\n", "")


# -- who begins ----------------------------------------------------------------------------------------------


def test_the_scheduler_may_first_be_used_by_a_gevent_greenlet() -> None:
    program = """
        import gevent
        def greenlet():
            from tasklets import channel, run, tasklet
            answers = channel()
            tasklet(answers.send)("from a tasklet")
            print(answers.receive())
            tasklet(print)("started by a greenlet that ended")
        gevent.spawn(greenlet).join()
        gevent.sleep(0.001)
        from tasklets import getcurrent, getmain, run, sleep, tasklet
        assert getcurrent() is getmain()
        tasklet(sleep)(0.001)
        run()
    """
    assert python(program) == (0, "from a tasklet\nstarted by a greenlet that ended\n", "")


def test_a_greenlet_that_only_starts_a_tasklet_needs_no_more() -> None:
    program = """
        import gevent
        def greenlet():
            from tasklets import tasklet
            tasklet(print)("ran")
        gevent.spawn(greenlet).join()
        gevent.sleep(0.001)
    """
    assert python(program) == (0, "ran\n", "")


@pytest.mark.parametrize("first", ["import gevent; gevent.sleep(0)", "import gevent; gevent.get_hub()"])
def test_the_hub_may_be_made_inside_a_tasklet(first: str) -> None:
    program = f"""
        from tasklets import channel, run, sleep, tasklet, DeadlockError
        def body():
            {first}
        tasklet(body)()
        run()
        tasklet(sleep)(0.001)
        run()
        try:
            channel().receive()
        except DeadlockError as error:
            print("Deadlock" in str(error))
    """
    assert python(program) == (0, "True\n", "")


def test_importing_and_exchanging_messages_loads_no_gevent() -> None:
    program = """
        import sys
        from tasklets import channel, run, tasklet
        orders = channel()
        tasklet(orders.send)(1)
        orders.receive()
        run()
        print([name for name in sys.modules if name.startswith("gevent")])
    """
    assert python(program) == (0, "[]\n", "")


def test_each_thread_has_its_own_ring_and_hub() -> None:
    log: list[tuple[str, int]] = []

    def worker(name: str) -> None:
        for number in range(3):
            sleep(TICK)
            log.append((name, number))

    def body(name: str) -> None:
        tasklet(worker)(name)
        run()
        gevent.get_hub().destroy(destroy_loop=True)

    threads = [threading.Thread(target=body, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    tasklet(worker)("main")
    run()
    for thread in threads:
        thread.join()
    for name in ("a", "b", "main"):
        assert [number for who, number in log if who == name] == [0, 1, 2]


def test_a_tasklet_killed_while_gevent_has_its_result_ready_dies_of_the_kill() -> None:
    event = gevent.event.Event()
    log: list[str] = []

    def waiter() -> None:
        try:
            event.wait()
            log.append("event")
        except TaskletExit:
            log.append("killed")
            raise

    one = tasklet(waiter)()
    schedule()
    get_scheduler().wake_from_hub(one, (None,))
    one.kill()
    assert log == ["killed"]


def test_a_time_limit_of_a_wait_that_has_ended_does_not_end_a_later_one() -> None:
    """The data and the end of the time come in the same turn of the loop."""
    ours, theirs = gevent.socket.socketpair()

    def send_late() -> None:
        theirs.send(b"x")
        time.sleep(0.08)  # the loop stands still, and finds both afterwards

    with ours, theirs:
        for act in (lambda: None, lambda: tasklet(lambda: None)()):
            act()
            ours.settimeout(0.1)
            late = gevent.spawn_later(0.05, send_late)
            assert ours.recv(1) == b"x"
            sleep(0.02)
            late.join()
        received: list[bytes] = []
        late = gevent.spawn_later(0.05, send_late)

        def receiver() -> None:
            received.append(ours.recv(1))
            sleep(0.02)
            received.append(b"and slept")

        tasklet(receiver)()
        run()
        assert received == [b"x", b"and slept"]


@pytest.mark.parametrize(
    "first", ["import gevent", "import tasklets", "from tasklets import sleep; sleep(0.001)"]
)
def test_gevent_may_be_imported_at_any_time(first: str) -> None:
    program = f"""
        {first}
        from tasklets import run, schedule, tasklet
        log = []
        def waiter():
            schedule()
            import gevent
            gevent.sleep(0.001)
            log.append("waited")
        def paused():
            from tasklets import schedule_remove
            schedule_remove(None)
            import gevent
            gevent.sleep(0.002)
            log.append("paused and waited")
        kept = tasklet(paused)()
        tasklet(waiter)()
        tasklet(lambda: (schedule(), schedule(), log.append("other")))()
        run()
        kept.insert()
        run()
        print(*log, sep=", ")
    """
    assert python(program) == (0, "other, waited, paused and waited\n", "")


def test_a_contended_semaphore_lets_each_tasklet_in_once() -> None:
    """It wakes the next one as long as the first has not counted itself."""
    free, most, inside = gevent.lock.BoundedSemaphore(2), [0], [0]
    log: list[int] = []

    def enter(number: int) -> None:
        with free:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            gevent.sleep(0.001)
            inside[0] -= 1
            log.append(number)

    for number in range(30):
        tasklet(enter)(number)
    run()
    assert sorted(log) == list(range(30))
    assert most == [2]


def test_many_tasklets_wait_for_one_gevent_queue() -> None:
    items: gevent.queue.Queue[int] = gevent.queue.Queue()
    log: list[int] = []
    for _ in range(5):
        tasklet(lambda: log.append(items.get()))()
    schedule()
    for number in range(5):
        items.put(number)
        gevent.sleep(0.001)
        assert log == list(range(number + 1))


def test_more_tasklets_than_threads_use_a_thread_pool() -> None:
    pool = gevent.threadpool.ThreadPool(2)
    log: list[int] = []
    for number in range(20):
        tasklet(lambda number=number: log.append(pool.apply(int, (number,))))()
    run()
    assert sorted(log) == list(range(20))
    pool.kill()
