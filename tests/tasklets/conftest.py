"""After every test the scheduler's books must be in order, and nothing of the test may be left in them."""

import builtins
import gc
import sys
import threading
from collections.abc import Iterator
from types import ModuleType

import pytest

from tasklets import TaskletExit, _core, channel, stackless, tasklet
from tasklets._core import _IN_HUB, MAX_IDLE_WORKERS, get_scheduler


def check_invariants() -> None:
    """What must be true of the ring whenever main, or a tasklet, is running."""
    scheduler = get_scheduler()
    current = scheduler.current
    assert current is not None, "a tasklet is running, so somebody is current"
    members = []
    one = scheduler.head
    while one is not None:
        members.append(one)
        assert one._next._prev is one
        assert one._alive
        assert not one.blocked, f"{one!r} is in the ring"
        assert not one._special
        one = one._next
        if one is scheduler.head:
            break
    assert len(members) == scheduler.count
    assert current in members
    assert scheduler.head is current
    mine, channels = find_ours()
    outside = [
        each for each in mine if not each._special and each._waiting is not None and each._waiting.outside
    ]
    assert scheduler.waiting == len(outside)
    for each in mine:
        assert each._channel is None or each._waiting is None
        if not each._alive:
            assert each._next is None
            assert each._greenlet is None
            assert each._call is None
        if not each._special and each._wake is not None:
            assert each._greenlet is None
            assert each._next is not None
    for where in channels:
        queue = []
        entry = where._first
        while entry is not None:
            assert entry._channel is where
            assert entry._prev is (queue[-1] if queue else None)
            queue.append(entry)
            entry = entry._next
        assert where._last is (queue[-1] if queue else None)
        assert abs(where._balance) == len(queue)
    for worker in scheduler.idle:
        assert not {"switch_out", "switch", "throw"} & worker.__dict__.keys()
        assert not worker.dead
        # greenlet takes one that is suspended without a Python frame for a running one, and refuses to answer.
        assert worker.gr_frame is None or worker.gr_context is None
    assert len(scheduler.idle) <= MAX_IDLE_WORKERS
    assert scheduler._successor is None


def end_all_tasklets() -> None:
    scheduler = get_scheduler()
    for _ in range(3):  # a tasklet may outlive a kill
        left = [each for each in find_ours()[0] if each.alive and not each.is_main]
        for each in left:
            each.throw(TaskletExit, pending=True)
        while scheduler.count > 1:
            scheduler.schedule(None)
        if not left:
            break
        check_invariants()


def find_ours() -> tuple[list[tasklet], list[channel]]:
    scheduler = get_scheduler()
    mine, channels = [scheduler.main], []
    for each in gc.get_objects():
        kind = type(each)
        if issubclass(kind, tasklet):
            if each._scheduler is scheduler and each is not scheduler.main:
                mine.append(each)
        elif issubclass(kind, channel):
            channels.append(each)
    return mine, channels


@pytest.fixture(scope="session", autouse=True)
def only_new_objects() -> Iterator[None]:
    """The collector's lists are searched after each test: let them not hold the modules of all libraries."""
    get_scheduler()
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def s() -> Iterator[ModuleType]:
    """The module `stackless`, installed for this test only."""
    names = ("settrace", "gettrace", "setprofile", "getprofile")
    before = {name: getattr(sys, name) for name in names}
    wording = _core.wording
    stackless.install()
    try:
        yield stackless
    finally:
        _core.wording = wording
        for name, function in before.items():
            setattr(sys, name, function)
        sys.modules.pop("stackless", None)
        del builtins.TaskletExit  # type: ignore[attr-defined]
        stackless.set_schedule_callback(None)
        stackless.set_channel_callback(None)
        stackless.set_error_handler(None)
        stackless.switch_trap(-stackless.switch_trap())
        current = stackless.getcurrent()
        current.set_atomic(False)
        current.set_ignore_nesting(False)
        current.block_trap = False


@pytest.fixture
def beside() -> list[int]:
    """The ids of the threads that are not the test's: in one pytest-xdist talks to its controller."""
    main = threading.main_thread().ident
    return [each for each in stackless.getthreads() if each != main]


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    before = threading.enumerate()
    yield
    assert [thread for thread in threading.enumerate() if thread not in before] == []


@pytest.fixture(autouse=True)
def books_in_order() -> Iterator[None]:
    """Check the invariants after each test, then end the tasklets that it left."""
    scheduler = get_scheduler()
    # A node of the tests of net is not asked, should they have run first; see tests/conftest.py.
    sources, scheduler.sources = scheduler.sources, []
    yield
    check_invariants()
    assert not scheduler.runners
    assert not scheduler.limits
    assert not scheduler.sources
    scheduler.sources = sources
    end_all_tasklets()
    assert _IN_HUB.tasklet is None
