"""A real worker: what it runs, how failures end, what limits do. On SQLite and Redis."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import Client, InvalidArguments, OperationError, TaskCancelled, UnknownCodec, register_codec
from cluster.testing import FAST, NodeProcess, Nodes, all_events, check_journal, wait_for
from tests.cluster import ops
from tests.cluster.conftest import journal_lines, lines
from tests.machine import here

pytestmark = pytest.mark.real


@pytest.fixture
def worker(nodes: Nodes) -> NodeProcess:
    return nodes.worker(slots=2)


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
    from cluster.operations import make_task

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
    (dead,) = client.dead()
    assert client.replay([dead.task_id]) == 1
    wait_for(lambda: len(lines(journal, "fail")) == 6)


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


def test_computing_costs_no_heartbeat(url: str, client: Client, journal: Path) -> None:  # X6, G3.7
    brief = replace(FAST, member_ttl=0.8, task_lease=0.8)
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
    with pytest.raises(OperationError):
        client.submit(ops.parent, 3, "fail").result(10)
    assert client.submit(ops.parent, 2).result(10) == 2
    wait_for(lambda: len(lines(journal, "end")) == 2)
    assert client.stats().counters["submitted"] == 4


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


def test_the_members_list_says_what_a_worker_is(client: Client, worker: NodeProcess) -> None:
    client.submit(ops.add, 1, 2).result(10)
    member = wait_for(lambda: [m for m in client.members() if ops.add.name in m.ops])[0]
    assert (member.role, member.slots, member.pid, member.queues) == ("worker", 2, worker.pid, ("default",))
    assert member.version


def test_counts_equal_the_journal(client: Client, worker: NodeProcess) -> None:
    handles = client.with_options().map(ops.MultiplyBy(3), range(200))
    assert [h.result(20) for h in handles] == [3 * n for n in range(200)]
    events = all_events(client.store)
    found = check_journal(events, task_ids=[h.task_id for h in handles])
    counters = client.stats().counters
    assert counters["completed"] == found["recorded"] == 200
    assert counters["claimed"] == found["executions"]
