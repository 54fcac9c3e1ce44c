"""A worker's life: how much it takes on, how it drains and dies, and what it counts. On SQLite and Redis."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import gevent
import psutil
import pytest

from cluster import Client, Settings, Worker
from cluster.stores import open_store
from cluster.testing import FAST, NodeProcess, Nodes, all_events, check_journal, wait_for
from tests.cluster import ops
from tests.cluster.conftest import journal_lines, lines, on
from tests.machine import here

pytestmark = pytest.mark.real


@pytest.fixture
def worker(nodes: Nodes) -> NodeProcess:
    return nodes.worker(slots=2)


@on("redis")
def test_a_task_that_waits_for_its_retry_holds_no_slot(
    client: Client, nodes: Nodes, journal: Path
) -> None:  # P-20
    nodes.worker(slots=1)
    retried = client.submit(ops.hesitant, 1)
    wait_for(lambda: lines(journal, "hesitant"))
    assert client.submit(ops.nap, 0, "between").result(10) == "between"
    assert retried.result(10) == 2
    order = [line[2] for line in journal_lines(journal) if line[2] in ("hesitant", "start")]
    assert order == ["hesitant", "start", "hesitant"]


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_worker_holds_no_more_than_its_slots_and_what_it_may_claim_ahead(
    client: Client, nodes: Nodes, prefetch: int
) -> None:  # P-34
    handles = client.with_options().map(ops.nap, [0.02] * 25)
    nodes.worker("--prefetch", str(prefetch), slots=2)
    for handle in handles:
        handle.wait(10)
    held, most = 0, 0
    for event in all_events(client.store):
        held += (event.kind == "assign") - (event.kind == "done")
        most = max(most, held)
    assert 1 + prefetch <= most <= 2 + prefetch  # the second slot may be late


def test_a_task_without_end_is_always_with_one_live_worker(
    client: Client, nodes: Nodes, journal: Path
) -> None:  # G-03
    workers = {name: nodes.worker("--name", name, slots=1) for name in ("w1", "w2")}
    nodes.coordinator()
    handle = client.with_options(max_losses=100).submit(ops.watch)
    holder = wait_for(lambda: lines(journal, "watch"))[0][3]
    workers[holder].kill()
    other = "w2" if holder == "w1" else "w1"
    wait_for(lambda: [line for line in lines(journal, "watch") if line[3] == other], 10)
    assert lines(journal, "watch")[-1][3] == other
    assert handle.cancel()


@on("sqlite")
def test_computing_costs_no_heartbeat(url: str, client: Client, journal: Path) -> None:  # X6, G3.7
    brief = replace(FAST, task_lease=FAST.member_ttl)
    with Nodes(url, imports=["tests.cluster.ops"], settings=brief) as nodes:
        nodes.worker(slots=2)
        nodes.coordinator()  # which would see that a lease ran out
        handles = [
            client.submit(ops.spin, 1.5) for _ in range(2)
        ]  # longer than the member's and the task's lease
        for handle in handles:
            assert handle.result(15) > 0
    kinds = [event.kind for event in all_events(client.store)]
    assert kinds.count("assign") == 2
    assert "expire" not in kinds


def test_steps_are_kept_across_the_death_of_a_worker(
    client: Client, nodes: Nodes, worker: NodeProcess, journal: Path
) -> None:
    handle = client.submit(ops.steps)
    wait_for(lambda: len(lines(journal, "step")) >= 3)
    worker.kill()
    nodes.worker()
    nodes.coordinator()
    assert handle.result(20) == "6 steps"
    done = [int(line[3]) for line in lines(journal, "step")]
    assert sorted(set(done)) == [1, 2, 3, 4, 5, 6]
    assert len(done) <= 7  # at most the step that was interrupted ran twice


def test_sigterm_drains(client: Client, worker: NodeProcess, journal: Path) -> None:  # X2
    quick = client.submit(ops.nap, 0.6, "quick")
    stuck = client.submit(ops.nap, 60, "stuck")
    wait_for(lambda: len(lines(journal, "start")) == 2)
    waiting = client.submit(ops.nap, 0, "waiting")
    worker.terminate()
    assert worker.wait() == 0
    assert quick.state == "done"
    assert [stuck.state, waiting.state] == ["ready", "ready"]
    assert client.members() == []
    assert stuck.record().losses == 0


def test_counts_equal_the_journal(client: Client, worker: NodeProcess) -> None:
    handles = client.with_options().map(ops.MultiplyBy(3), range(200))
    assert [h.result(20) for h in handles] == [3 * n for n in range(200)]
    events = all_events(client.store)
    found = check_journal(events, task_ids=[h.task_id for h in handles])
    counters = client.stats().counters
    assert counters["completed"] == found["recorded"] == 200
    assert counters["claimed"] == found["executions"]


@on("redis")
def test_a_worker_that_hears_of_nothing_finds_a_task_within_its_poll(
    url: str, client: Client
) -> None:
    """No hint reaches it, and no heartbeat lets it look."""
    silent = replace(FAST, heartbeat=60.0, member_ttl=200.0, poll=1.0)
    store = open_store(url)
    store.listen = Deaf  # type: ignore[method-assign, assignment]
    worker = Worker(store, inline=True, slots=1, settings=silent)
    running = gevent.spawn(worker.run)
    wait_for(client.members, sleep=gevent.sleep)
    delays = []
    for _ in range(2):
        gevent.sleep(0.1)  # it is idle again, and waits
        handle = client.submit(ops.add, 1, 2)
        submitted = time.monotonic()
        wait_for(lambda handle=handle: handle.state == "done", sleep=gevent.sleep)
        delays.append(time.monotonic() - submitted)
    worker.stop()
    running.join(10)
    store.close()
    assert min(delays) < silent.poll + here(0.2), delays
    assert min(delays) > 0.2, "a hint has reached it"


class Deaf:
    """A listener that hears nothing."""

    def __init__(self, *topics: str) -> None: ...

    def wait(self, timeout: float) -> bool:
        gevent.sleep(timeout)
        return False

    def close(self) -> None: ...


def test_an_idle_worker_costs_next_to_nothing(url: str, client: Client, full_size: bool) -> None:
    seconds = 10 if full_size else 2
    with Nodes(url, imports=["tests.cluster.ops"], settings=Settings()) as nodes:
        worker = nodes.worker(slots=2)
        assert client.submit(ops.add, 1, 2).result(20) == 3
        time.sleep(0.5)  # both executors are there
        family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children()]
        before = sum(sum(one.cpu_times()[:2]) for one in family)
        time.sleep(seconds)
        spent = sum(sum(one.cpu_times()[:2]) for one in family) - before
    assert len(family) == 3
    assert spent / seconds < 0.02


@on("sqlite")
def test_ctrl_c_does_not_end_an_executor_that_is_starting(
    url: str, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "if 'cluster.executor' in sys.orig_argv:\n"
        "    open(os.environ['STARTING'] + f'/starting-{os.getpid()}', 'w').close()\n"
        "    time.sleep(0.5)\n"  # its imports take so long
    )
    monkeypatch.setenv("STARTING", str(tmp_path))
    with Nodes(url, imports=["tests.cluster.ops"], folder=str(tmp_path)) as nodes:
        worker = nodes.worker(slots=1)
        wait_for(lambda: list(tmp_path.glob("starting-*")))
        (starting,) = tmp_path.glob("starting-*")
        os.kill(int(starting.name.partition("-")[2]), signal.SIGINT)
        assert client.submit(ops.add, 1, 2).result(10) == 3
        assert [starting] == list(tmp_path.glob("starting-*"))
        assert "Traceback" not in worker.output()


@pytest.mark.parametrize("when", ["before its hello", "after it"])
def test_an_executor_whose_agent_has_gone_ends_without_a_word(when: str) -> None:
    ours, theirs = socket.socketpair()
    alive, lifeline = os.pipe()  # stays open: not by this does it hear of the end
    with (
        theirs,
        subprocess.Popen(
            [sys.executable, "-m", "cluster.executor", str(theirs.fileno()), str(alive)],
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno(), alive],
        ) as executor,
    ):
        if when == "after it":
            wait_for(lambda: select.select([ours], [], [], 0)[0])
        ours.close()  # and what it has sent was not read
        theirs.close()
        assert executor.communicate(timeout=here(20))[1] == b""
    os.close(alive)
    os.close(lifeline)
    assert executor.returncode == 0
