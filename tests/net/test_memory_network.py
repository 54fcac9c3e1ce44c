"""A network in memory ends with its block, and leaves nothing behind (T8.10)."""

import gc
import threading
import weakref

import pytest

import net
from net.testing import memory_network
from tasklets import channel, schedule, sleep, tasklet


@pytest.mark.parametrize("killed", [False, True], ids=["alive", "killed"])
def test_the_tasklets_of_its_nodes_end_with_it_and_so_do_those_that_they_started(killed: bool) -> None:
    ended: list[str] = []

    def wait_for_ever(who: str) -> None:
        try:
            channel().receive()
        finally:
            ended.append(who)

    def work() -> None:
        with net.serve("tcp://bank:1", inbox=channel()):
            tasklet(wait_for_ever)("child")
            wait_for_ever("parent")

    elsewhere = tasklet(wait_for_ever)("nobody's")
    with memory_network() as network:
        parent = network.run_at("bank", work)
        node = weakref.ref(network.node("bank"))
        sleep(1)
        if killed:
            network.kill("bank")
            sleep(1)
    schedule()
    assert sorted(ended) == ["child", "parent"]
    assert elsewhere.alive
    elsewhere.kill()
    del parent, network
    gc.collect()
    assert node() is None


def test_a_reference_that_another_thread_collects_is_given_back() -> None:
    inbox = channel(1)

    def serve() -> None:
        with net.serve("tcp://home:1", inbox=inbox):
            sleep(100)

    def use() -> None:
        held = [net.connect("tcp://home:1/inbox")]
        collector = threading.Thread(target=held.clear)
        collector.start()
        collector.join()

    with memory_network() as network:
        network.run_at("home", serve)
        network.run_at("away", use)
        sleep(10)
        (link,) = network.node("home").links
        assert not link.grants
