"""Nothing of net may be left when the tests of a module are over: it would keep the event loop from running empty."""

import gc
import threading
from collections.abc import Iterator

import pytest
from gevent import get_hub

from net import node as nodes
from net._pulse import thread as pulse_thread
from tasklets import sleep
from tests.net.peers import until


def live_watchers() -> int:
    """How many watchers and timers keep the event loop of this thread running."""
    return int(get_hub().loop.activecnt)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail the module that leaves a link, a listener, a pulse, a watcher or a timer."""
    sleep(0)  # the loop makes some of its own watchers when it first runs
    before = live_watchers()
    threads = threading.active_count()
    yield
    gc.collect()
    node = getattr(nodes._local, "node", None)
    if node is not None:
        until(lambda: not node.links, f"the end of {node.links}")
        assert not node.listeners
        assert not node.names
        assert not node._sessions
        assert not node._dialled
        assert not node._by_peer
    until(lambda: not pulse_thread.lines, "the end of the pulses")
    until(lambda: live_watchers() <= before, "the end of watchers and timers")
    assert threading.active_count() <= threads + 1  # the pulse thread stays
