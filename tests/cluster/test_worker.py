"""A real worker: what it runs, how failures end, what limits do. On SQLite and Redis, each with one worker for all.

What ends or counts workers is in test_worker_life.py.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cluster import Client, InvalidArguments, OperationError, TaskCancelled, UnknownCodec, register_codec
from cluster.testing import FAST, NodeProcess, Nodes, wait_for
from tests.cluster import ops
from tests.cluster.conftest import lines, on, shared_redis
from tests.machine import here

pytestmark = pytest.mark.real


class Shared(NamedTuple):
    client: Client
    worker: NodeProcess
    journal: Path


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A worker with two slots; it takes longer to start than most of these tests."""
    folder = tmp_path_factory.mktemp("shared")
    journal = folder / "journal"
    url = f"sqlite:///{folder}/work.db" if request.param == "sqlite" else shared_redis().url
    with (
        Client(url, "shared", settings=FAST) as client,
        Nodes(url, "shared", imports=["tests.cluster.ops"]) as nodes,
    ):
        client.store.declare_group()
        yield Shared(client, nodes.worker(slots=2, JOURNAL=str(journal)), journal)
        nodes.close()
        client.store.wipe()


@pytest.fixture
def worker(shared: Shared) -> NodeProcess:
    return shared.worker


@pytest.fixture
def journal(shared: Shared) -> Path:
    shared.journal.write_bytes(b"")
    return shared.journal


@pytest.fixture
def client(shared: Shared) -> Iterator[Client]:
    """The next test finds the worker alive and idle, and no task left."""
    client, worker, _ = shared
    yield client
    for state in ("scheduled", "ready", "assigned"):
        for task in client.store.tasks(state=state):
            client.store.cancel(task.task_id)
    wait_for(lambda: [member.running for member in client.members()] == [0])
    assert worker.alive


def test_a_task_runs_in_another_process_and_returns(
    client: Client, worker: NodeProcess
) -> None:  # A-02, P-01, P-02
    assert ops.add(1, 2) == 3
    assert client.submit(ops.add, 1, b=2).result(10) == 3
    assert client.submit(ops.MultiplyBy(2), 21).result(5) == 42
    assert client.submit("renamed-since").result(5) == "the new code"
    assert client.submit(ops.tolerant, 1).result(5) == 1
    meta = b"\x00\xffmeta"
    handle = client.with_options(meta=meta).submit(ops.told)  # P-04
    told = handle.result(5)
    assert (told["task_id"], told["attempt"], told["meta"]) == (handle.task_id, 1, meta)
    assert told["fence"] > 0
    assert told["worker"] == worker.name


def test_arguments_of_a_newer_client_never_hurt_a_worker(client: Client, worker: NodeProcess) -> None:
    from cluster.tasks import make_task

    (ok,) = client.submit_all([make_task(ops.tolerant.name, (1,), {"since_next_release": True})])
    (strict,) = client.submit_all([make_task(ops.strict.name, (1,), {"since_next_release": True})])
    assert ok.result(10) == 1
    with pytest.raises(OperationError, match="since_next_release"):
        strict.result(10)
    assert client.submit(ops.add, 1, 2).result(5) == 3


def test_a_failing_task_is_tried_again_after_growing_pauses(
    client: Client, worker: NodeProcess, journal: Path, tmp_path: Path
) -> None:  # A-15, P-19
    assert client.submit(ops.flaky, str(tmp_path / "seen"), 2).result(10) == 3
    times = [float(line[0]) for line in lines(journal, "flaky")]
    assert len(times) == 3
    assert times[1] - times[0] >= 0.05
    assert times[2] - times[1] >= 0.1


def test_an_idle_worker_starts_a_task_at_once(
    client: Client, worker: NodeProcess, journal: Path
) -> None:
    client.submit(ops.nap, 0, "warm").result(10)
    delays = []
    for number in range(10):
        time.sleep(0.05)  # it is idle again
        submitted = time.monotonic()
        client.submit(ops.nap, 0, f"{number}").result(10)
        delays.append(float(lines(journal, "start")[-1][0]) - submitted)
    assert sorted(delays)[5] < here(0.05), delays


def test_a_task_travels_by_the_codec_it_names(client: Client, worker: NodeProcess) -> None:  # P-33
    by_json = client.with_options(codec="json")
    handle = by_json.submit(ops.add, 1, b=2)
    assert b'json[[1], {"b": 2}, {}]' in handle.record().args
    assert handle.result(10) == 3
    assert handle.record().result == b"\xc1\x04json3"
    assert by_json.submit(ops.MultiplyBy(2), 4).result(5) == 8
    with pytest.raises(InvalidArguments, match="codec 'json'"):
        by_json.submit(ops.add, 1, b"bytes")
    with pytest.raises(UnknownCodec, match=r"no codec 'yaml'.*: json"):
        client.with_options(codec="yaml").submit(ops.add, 1, 2)
    register_codec("only here", repr_bytes, repr_bytes)
    with pytest.raises(OperationError, match="no codec 'only here'") as caught:
        client.with_options(codec="only here").submit(ops.add, 1, 2).result(5)
    assert (caught.value.kind, caught.value.attempts) == ("UnknownCodec", 1)
    assert client.submit(ops.add, 1, 2).result(5) == 3


def repr_bytes(value: object) -> bytes:
    return repr(value).encode()


def test_a_task_that_always_fails_is_a_dead_letter_and_replayed(
    client: Client, worker: NodeProcess, journal: Path
) -> None:
    handle = client.submit(ops.fail, "value")
    with pytest.raises(ValueError, match="no such value: ü") as caught:
        handle.result(10)
    error = caught.value
    assert isinstance(error, OperationError)
    assert (error.kind, error.attempts, error.worker, error.operation) == (
        "ValueError",
        3,
        worker.name,
        ops.fail.name,
    )
    assert "in fail" in error.traceback_text
    assert "executor" not in error.traceback_text
    assert len(lines(journal, "fail")) == 3
    assert handle.task_id in [dead.task_id for dead in client.dead()]
    assert client.replay([handle.task_id]) == 1
    wait_for(lambda: len(lines(journal, "fail")) == 6)


@on("sqlite", "shared")
def test_every_way_to_fail_is_that_tasks_failure(
    client: Client, worker: NodeProcess, journal: Path
) -> None:  # P-24, A-17
    expected = {  # kind -> what is reported, and after how many executions
        "fatal": ("Fatal", 1),  # P-18, P-21
        "exit": ("WorkerLost", 3),
        "segfault": ("WorkerLost", 3),
        "sys.exit": ("SystemExit", 1),
        "recursion": ("RecursionError", 3),
        "memory": ("MemoryError", 3),
        "keyboard": ("KeyboardInterrupt", 1),
        "strange": ("Strange", 3),
        "result": ("NotSendable", 1),
        "large": ("Fatal", 1),
        "garbage": ("WorkerLost", 3),
    }
    handles = {kind: client.submit(ops.fail, kind) for kind in expected}
    bystander = client.submit(ops.nap, 0.5, "bystander")
    for kind, handle in handles.items():
        with pytest.raises(OperationError) as caught:
            handle.result(20)
        executions = len([line for line in lines(journal, "fail") if line[3] == kind and len(line) == 5])
        assert (caught.value.kind, executions if kind != "recursion" else 3) == expected[kind], kind
    assert bystander.result(5) == "bystander"
    assert client.submit(ops.add, 1, 2).result(5) == 3
    assert worker.alive


@pytest.mark.parametrize(
    ("op", "args", "message"),
    [
        (
            ops.prolific,
            (1, 1 << 20),
            r"the arguments of its child \S+ \(tests.cluster.ops:nap\) has 10485\d\d bytes",
        ),
        (ops.prolific, (40, 1_000_000), "the arguments of its 40 children has 400"),
        (ops.hoards, (), "what it keeps for its next step has"),
        (ops.fail, ("large",), "its result has 10485"),
    ],
    ids=["child", "children", "data", "result"],
)
def test_what_is_too_large_is_that_tasks_failure(
    client: Client, worker: NodeProcess, op: object, args: tuple[object, ...], message: str
) -> None:
    with pytest.raises(OperationError, match=message) as caught:
        client.submit(op, *args).result(10)
    assert (caught.value.kind, caught.value.attempts) == ("Fatal", 1)
    assert client.submit(ops.add, 1, 2).result(5) == 3


def test_only_declared_exceptions_are_tried_again(
    client: Client, worker: NodeProcess, journal: Path
) -> None:  # P-18
    for kind, expected in (("os", OSError), ("value", ValueError)):
        with pytest.raises(expected):
            client.submit(ops.declared, kind).result(10)
    counts = [line[3] for line in lines(journal, "declared")]
    assert (counts.count("os"), counts.count("value")) == (3, 1)


@on("redis", "shared")
def test_a_crash_costs_its_slot_less_than_a_second(
    client: Client, worker: NodeProcess, journal: Path
) -> None:  # X6
    client.submit(ops.nap, 0, "warm").result(10)
    client.submit(ops.nap, 30, "other slot")
    wait_for(lambda: len(lines(journal, "start")) == 2)
    client.with_options(max_losses=1).submit(ops.fail, "segfault")
    wait_for(lambda: lines(journal, "fail"))
    client.submit(ops.nap, 0, "after").result(10)
    (crash,) = lines(journal, "fail")
    after = next(line for line in lines(journal, "start") if line[3] == "after")
    assert float(after[0]) - float(crash[0]) < here(1.0)


@on("redis", "shared")
@pytest.mark.parametrize(("how", "message"), [("polite", "time limit is over"), ("stubborn", "hard limit")])
def test_a_task_past_its_limit_is_ended(
    client: Client, worker: NodeProcess, how: str, message: str
) -> None:
    client.submit(ops.add, 1, 2).result(10)
    began = time.monotonic()
    with pytest.raises(OperationError, match=message) as caught:
        client.submit(ops.slow, how).result(10)
    assert caught.value.kind == "TimeLimit"
    assert time.monotonic() - began < here(5)
    assert client.submit(ops.add, 1, 2).result(5) == 3


def test_an_alarm_that_nobody_heard_comes_again() -> None:
    program = """
import signal, sys, time
from cluster import executor

came = []

def lose_the_first(number, frame):
    came.append(number)
    if len(came) > 1:
        executor._alarm(number, frame)

signal.signal(signal.SIGALRM, lose_the_first)
try:
    with executor._time_limit(0.05):
        try:
            while True:
                pass
        except executor.TimeLimit:
            time.sleep(3 * executor.REPEAT)  # what cleans up is not disturbed
            raise
except executor.TimeLimit:
    print(len(came), signal.getitimer(signal.ITIMER_REAL))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=here(20))
    assert (done.stdout, done.stderr) == ("2 (0.0, 0.0)\n", "")


@pytest.mark.parametrize("op", [ops.obeys, ops.ignores])
def test_a_cancelled_task_is_stopped(
    client: Client, worker: NodeProcess, journal: Path, op: object
) -> None:  # P-26, A-31
    handle = client.submit(op)
    wait_for(lambda: lines(journal, "obeys") or lines(journal, "ignores"))
    assert handle.cancel()
    with pytest.raises(TaskCancelled):
        handle.result(5)
    wait_for(lambda: client.members()[0].running == 0, 6)
    assert client.submit(ops.add, 1, 2).result(10) == 3
    assert worker.alive


def test_children_come_with_the_end_of_their_parent(
    client: Client, worker: NodeProcess, journal: Path
) -> None:
    before = client.stats().counters.get("submitted", 0)
    with pytest.raises(OperationError):
        client.submit(ops.parent, 3, "fail").result(10)
    assert client.submit(ops.parent, 2).result(10) == 2
    wait_for(lambda: len(lines(journal, "end")) == 2)
    assert client.stats().counters["submitted"] == before + 4


def test_the_members_list_says_what_a_worker_is(client: Client, worker: NodeProcess) -> None:
    client.submit(ops.add, 1, 2).result(10)
    member = wait_for(lambda: [m for m in client.members() if ops.add.name in m.ops])[0]
    assert (member.role, member.slots, member.pid, member.queues) == ("worker", 2, worker.pid, ("default",))
    assert member.version
