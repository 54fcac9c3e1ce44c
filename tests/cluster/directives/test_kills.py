"""P-37 and the kill matrix: SIGKILL of the client, a worker, the coordinator in the middle of a map and a fold.

The result is right, everything was recorded once, and what was finished by then is not computed again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import Client, OperationError
from cluster.directives import IndexedStream, Skipped
from cluster.records import make_id
from cluster.testing import FAST, NodeProcess, Nodes, all_events, check_journal, lock_history, wait_for
from tests.cluster.conftest import lines, on
from tests.cluster.directives import ops

COUNT = 1000
MAPPED = [2 * x for x in range(COUNT)]
FOLDED = "".join(map(str, range(COUNT)))
BOTH = ("--queue", "default", "--queue", "folds")  # the map, and the fold


@pytest.fixture
def nodes(url: str, journal: Path) -> Any:
    with Nodes(url, imports=["tests.cluster.directives.ops"]) as started:
        yield started


def start_leader(url: str, ids: tuple[str, str], *more: str) -> subprocess.Popen[str]:
    return start_client("start", url, *ids, str(COUNT), *more)


def start_client(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.cluster.directives.leader", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )


def read_until(leader: subprocess.Popen[str], taken: int) -> None:
    """Wait until the leader has taken so many results."""
    assert leader.stdout is not None
    for line in leader.stdout:
        if int(line) >= taken:
            return
    raise AssertionError("the leader has ended")


def finished_inputs(client: Client, ids: tuple[str, str]) -> tuple[set[int], set[int]]:
    """The inputs that have results by now: of the map, and of the fold's chunks that have ended."""
    mapped = {
        index
        for row in client.store.results(ids[0], limit=10_000)
        for index in range(row.index, row.index + row.count)
    }
    folded = {
        index
        for task in client.store.tasks(job_id=ids[1], limit=10_000)
        if task.index is not None and task.state == "done"
        for index in range(task.index, task.index + task.weight)
    }
    return mapped, folded


def executed(journal: Path, word: str, after: float = 0.0) -> list[int]:
    return [int(row[3]) for row in lines(journal, word) if float(row[0]) > after]


def kill_leading(nodes: Nodes, client: Client) -> NodeProcess:
    name = lock_history(all_events(client.store), "coordinator")[-1][0]
    node = next(node for node in nodes.nodes if node.alive and node.name == name.partition("#")[0])
    node.kill()
    return node


@pytest.mark.timeout(85)
@pytest.mark.parametrize("repetition", range(20 if os.environ.get("TASKLETS_FULL") == "1" else 1))
def test_kill_matrix(url: str, nodes: Nodes, client: Client, journal: Path, repetition: int) -> None:
    workers = [nodes.worker(*BOTH), nodes.worker(*BOTH)]
    nodes.coordinator()
    nodes.coordinator()
    for victim in ("client", "worker", "coordinator"):
        wait_for(lambda: len(client.members()) == 4, 20.0, "all nodes, or the last victim's successor")
        journal.write_text("")
        ids = make_id(), make_id()
        leader = start_leader(url, ids)
        try:
            read_until(leader, 100 + 25 * repetition)
            wait_for(lambda: finished_inputs(client, ids)[1], 20.0, "a part of the fold")  # noqa: B023
            if victim == "client":
                leader.kill()
            elif victim == "worker":
                workers.pop(0).kill()
            else:
                kill_leading(nodes, client)
            mapped, folded = finished_inputs(client, ids)
            seen_at = time.monotonic()
            assert mapped, "it was killed too early to prove anything"
            assert client.attach(ids[0]).result(60) == MAPPED
            assert client.attach(ids[1]).result(60) == FOLDED
        finally:
            leader.kill()
            leader.communicate()
        assert not mapped & set(executed(journal, "mapped", seen_at)), f"{victim}: computed again"
        assert not folded & set(executed(journal, "folded", seen_at)), f"{victim}: computed again"
        if victim == "worker":
            workers.append(nodes.worker(*BOTH))
            continue
        # No worker died, so nothing at all was computed twice.
        assert sorted(executed(journal, "mapped")) == list(range(COUNT))
        assert sorted(executed(journal, "folded")) == list(range(COUNT))
        if victim == "coordinator":
            nodes.coordinator()
    check_journal(all_events(client.store))


def test_an_attached_client_goes_on_feeding(url: str, nodes: Nodes, client: Client, journal: Path) -> None:
    """P-37, P3.11, where the number of inputs is not known: what was stored is what counts, and not asked for again."""
    nodes.worker(*BOTH)
    nodes.coordinator()
    ids = make_id(), make_id()
    leader = start_leader(url, ids, "lazy")
    try:
        read_until(leader, 150)
    finally:
        leader.kill()
        leader.communicate()
    stored = wait_for(lambda: client.job(ids[0]).total)
    assert 150 <= stored < COUNT
    handle = client.attach(ids[0], inputs=iter(["something else"] * stored + list(range(stored, COUNT))))
    assert handle.result(60) == MAPPED
    assert sorted(executed(journal, "mapped")) == list(range(COUNT))
    assert client.attach(ids[1]).result(60) == FOLDED


@on("redis")
def test_running_ends_with_its_program(url: str, nodes: Nodes, client: Client, journal: Path) -> None:
    """P3.9, X5.6: Ctrl-C, sys.exit and a bug in the consumer leave no 2000 tasks running."""
    nodes.worker()
    words = {"interrupt": "KeyboardInterrupt", "exit": "", "raise": "the program is wrong"}
    for how, expected in words.items():
        journal.write_text("")
        job_id = make_id()
        program = start_client("run", url, job_id, how)
        try:
            read_until(program, 5)
            if how == "interrupt":
                program.send_signal(signal.SIGINT)
            _, errors = program.communicate(timeout=30)
        finally:
            program.kill()
            program.communicate()
        assert expected in errors
        assert client.job(job_id).state == "terminated", how
        assert len(executed(journal, "noted")) < 2000


def test_what_was_run_with_inputs_of_no_known_number_ends_after_its_program(
    url: str, client: Client, journal: Path
) -> None:  # P3.9: nobody is left to say that no more come
    brisk = replace(FAST, scan=0.05)  # it purges every 20 scans
    with Nodes(url, imports=["tests.cluster.directives.ops"], settings=brisk) as nodes:
        nodes.worker()
        nodes.coordinator()
        session, lost, taken_up = make_id(), make_id(), make_id()
        program = start_client("lazy", url, "0.6", session, lost, taken_up)
        try:
            for _ in (lost, taken_up):
                read_until(program, 1)
            nothing_since = client.store.now()
            wait_for(lambda: client.store.now() > nothing_since + 0.9)
            assert client.job(lost).state == "running"  # it takes nothing, and is there
        finally:
            program.kill()
            program.communicate()
        # In time, somebody may go on.
        assert client.attach(taken_up, inputs=[1, 2, 3]).result(10)[-2:] == [4, 6]
        job = client.attach_job(lost).wait(10)
        assert (job.state, job.reason) == ("terminated", "nobody has fed it for 0.6 s")
        (nameless,) = [j for j in client.jobs() if j.description == "session" and j.job_id != session]
        assert client.attach_job(nameless.job_id).wait(10).state == "terminated"
        assert client.job(session).state == "running"  # with an id, it is kept


def test_a_result_that_was_not_acknowledged_is_delivered_again(
    url: str, nodes: Nodes, client: Client
) -> None:
    """P-10: the consumer is killed after it has received, before it has acknowledged."""
    nodes.worker()
    session_id = make_id()
    consumer = start_client("session", url, session_id)
    try:
        assert consumer.stdout is not None
        received = [tuple(map(int, consumer.stdout.readline().split())) for _ in range(5)]
    finally:
        consumer.kill()
        consumer.communicate()
    with client.session(id=session_id) as (sender, receiver):
        sender.close()
        again = list(receiver)
    assert received[-1] in again
    assert {*received, *again} == {(x, 2 * x) for x in range(20)}
    assert len(again) == len(set(again))


def test_combines_run_in_several_processes(
    nodes: Nodes, client: Client, journal: Path, full_size: bool
) -> None:
    """P-13: 1000 words, with delays in the combinations."""
    nodes.worker(slots=1)
    nodes.worker(slots=1)
    wait_for(lambda: len(client.members()) == 2)
    words = ["hello", " ", "world", "!"] * 250
    for _ in range(50 if full_size else 1):
        assert IndexedStream(words).fold(ops.SlowConcat()).run(client, timeout=60) == "".join(words)
    assert len({row[1] for row in lines(journal, "combine")}) == 2


@on("sqlite")
def test_a_time_limit_is_that_of_each_input(nodes: Nodes, client: Client) -> None:
    nodes.worker()
    nodes.coordinator()
    stream = IndexedStream([0.05] * 15 + [30.0]).map(ops.limited_nap, chunk=16)
    pairs = dict(stream.run(client, on_error="skip", timeout=60))
    assert [pairs[index] for index in range(15)] == [0.05] * 15  # which is more than the limit together
    assert pairs[15].error.kind == "TimeLimit"
    assert IndexedStream([0.0] * 3).map(ops.limited_nap)._plan().chunk == 1


@on("redis")
def test_an_input_that_kills_its_process_is_skipped(nodes: Nodes, client: Client) -> None:
    """P-24, P-23: the slot is rebuilt, the others have results."""
    nodes.worker()
    nodes.coordinator()
    pairs = dict(IndexedStream(range(10)).map(ops.dies, chunk=1).run(client, on_error="skip", timeout=60))
    failed = {index: value for index, value in pairs.items() if isinstance(value, Skipped)}
    assert list(failed) == [5]
    assert failed[5].error.kind == "WorkerLost"  # type: ignore[attr-defined]
    assert sorted(pairs) == list(range(10))


def test_a_fatal_error_stops_all_processes(nodes: Nodes, client: Client, journal: Path) -> None:
    """P-22, P-25: what runs in two workers is stopped, what waits never starts; other jobs go on."""
    nodes.worker()
    nodes.worker()
    nodes.coordinator()
    wait_for(lambda: len(client.members()) == 3)
    other = client.start(IndexedStream(range(100)).map(ops.slow_noted))
    with pytest.raises(OperationError, match="ten is too many"):
        IndexedStream(range(1000)).map(ops.fatal_at_10, chunk=20).run(client).values_sorted()
    seen = [-1]
    while seen[-1] != len(executed(journal, "executed")):
        seen.append(len(executed(journal, "executed")))
        time.sleep(0.5)
    assert seen[-1] < 500
    assert other.result(60) == list(range(100))
