"""Who waits on what."""

import weakref

from tasklets import channel, run, schedule, select, sleep, tasklet
from tasklets.debug import MAX_LINES, report, waiting, where


def clerk(orders: channel) -> None:
    orders.receive()


def test_waiting_lists_who_waits_and_nobody_else() -> None:
    blocked = tasklet(clerk)(channel())
    tasklet(int)()
    sleeper = tasklet(sleep)(60)
    schedule()
    runnable = tasklet(int)()
    assert {blocked, sleeper} <= set(waiting())
    assert runnable not in waiting()


def test_where_is_the_line_outside_of_this_package() -> None:
    one = tasklet(clerk)(channel())
    assert where(one) == ""
    schedule()
    line = clerk.__code__.co_firstlineno + 1
    assert where(one) == f"{__file__}:{line} in clerk"


def test_a_report_says_what_each_one_waits_for() -> None:
    orders, log = channel(name="orders"), channel(name="log")
    tasklet(clerk)(orders)
    tasklet(log.send)("line")
    tasklet(select)([channel(name="left"), channel(name="right")])
    tasklet(sleep)(60)
    schedule()
    text = report("Headline")
    assert text.startswith("Headline\n")
    assert "clerk waits: receive from <channel 'orders' balance=-1 open>, at " in text
    assert "waits: send to <channel 'log' balance=1 open>" in text
    assert "waits: select on <channel 'left' balance=" in text
    assert "sleep waits: sleep(60)" in text


def test_the_victim_is_not_in_its_own_report() -> None:
    one = tasklet(clerk)(channel(name="orders"))
    schedule()
    assert "orders" in report("Headline")
    assert "orders" not in report("Headline", victim=one)


def test_a_long_report_is_cut() -> None:
    orders = channel()
    for _ in range(MAX_LINES + 5):
        tasklet(clerk)(orders)
    schedule()
    lines = report("Headline").splitlines()
    assert len(lines) == MAX_LINES + 2
    assert lines[-1] == "  ... and 5 more"


def test_a_report_is_not_disturbed_by_proxies_of_the_dead() -> None:
    class Thing:
        pass

    thing = Thing()
    proxy = weakref.proxy(thing)
    del thing
    assert report("Headline") == "Headline"
    del proxy


def test_other_threads_are_not_in_the_report() -> None:
    import threading

    seen: list[int] = []

    def body() -> None:
        one = tasklet(clerk)(channel())
        run()
        seen.append(len(waiting()))
        one.kill()

    mine = tasklet(clerk)(channel())
    schedule()
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [1]
    assert waiting() == [mine]
