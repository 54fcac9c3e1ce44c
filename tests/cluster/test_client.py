"""What a client refuses, what it says, and whole programs in one process."""

from __future__ import annotations

import gc
import re
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from cluster import (
    BadStoreUrl,
    Client,
    ClusterError,
    Coordinator,
    InvalidArguments,
    OperationError,
    QueueFull,
    ResultTimeout,
    SchemaMismatch,
    Settings,
    StoreError,
    TaskCancelled,
    TaskNotFound,
    UnknownGroup,
    Worker,
    operation,
    read_settings,
)
from cluster.records import Guard, Member
from cluster.stores import open_store
from cluster.stores.contract import plant_assignment, remove_assignments
from cluster.testing import FAST, all_events, check_journal
from tests.cluster import ops, works
from tests.cluster.redis_server import RedisServer


@pytest.fixture
def inline() -> Iterator[Client]:
    with Client("memory:", workers=3, settings=FAST) as client:
        yield client


@pytest.fixture
def idle() -> Iterator[Client]:
    with Client("memory:") as client:
        yield client


# ------------------------------------------------------------------------------------------------ memory:


def test_a_whole_program_runs_in_one_process(inline: Client, tmp_path: Path) -> None:  # P-31
    handles = inline.map(ops.MultiplyBy(2), range(100))
    assert [h.result(10) for h in handles] == [2 * n for n in range(100)]
    assert inline.submit(ops.flaky, str(tmp_path / "seen"), 2).result(10) == 3
    assert inline.submit(ops.steps).result(10) == "6 steps"
    assert inline.submit(ops.parent, 3).result(10) == 3
    with pytest.raises(ValueError, match="no such value"):
        inline.submit(ops.fail, "value").result(10)
    check_journal(all_events(inline.store), task_ids=[h.task_id for h in handles])


def test_threads_that_had_a_client_leave_no_event_loop(
    url: str,
) -> None:  # each would keep two file descriptors
    loops: list[weakref.ref[object]] = []

    def submit() -> None:
        with Client(url) as client:
            client.submit(ops.add, 1, 2)
        loops.append(weakref.ref(gevent.get_hub()))

    for _ in range(3):
        thread = threading.Thread(target=submit)
        thread.start()
        thread.join()
    gc.collect()
    assert [each() for each in loops] == [None] * 3


def test_cancelling_in_one_process(inline: Client) -> None:
    started = inline.submit(ops.obeys_cooperatively)
    gevent.sleep(0.1)
    assert started.cancel()
    with pytest.raises(TaskCancelled):
        started.result(5)
    assert inline.submit(ops.add, 1, 2).result(5) == 3


def test_what_ends_before_somebody_listens_is_not_waited_for(
    idle: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = idle.submit(ops.add, 1, 2)

    def listen(*topics: str) -> Any:
        handle.cancel()
        return SimpleNamespace(wait=pytest.fail, close=lambda: None)

    monkeypatch.setattr(idle.store, "listen", listen)
    assert handle.wait(30).state == "cancelled"


def test_a_caller_may_wait_for_less_than_it_takes(idle: Client) -> None:
    handle = idle.submit(ops.add, 1, 2)
    with pytest.raises(ResultTimeout, match="it is ready"):
        handle.result(0.05)
    assert handle.state == "ready"


# ------------------------------------------------------------------------------------------------ refused


def test_bad_arguments_never_reach_the_store(idle: Client) -> None:
    for call, message in [
        (lambda: idle.submit(ops.pay, -1), "must be positive"),
        (lambda: idle.submit(ops.add, 1), "missing a required argument"),
        (lambda: idle.submit(ops.add, 1, object()), "cannot travel"),
        (lambda: idle.submit(ops.nap, 1, "x" * (1 << 20)), "bytes are allowed|are\\s+allowed"),
        (lambda: idle.with_options(id="a\x1fb").submit(ops.add, 1, 2), "task_id is 'a.x1fb'"),
        (
            lambda: idle.with_options(ordering_key=7).submit(ops.add, 1, 2),
            "ordering_key is 7, and has to be a text",
        ),
    ]:
        with pytest.raises(InvalidArguments, match=message):
            call()
    with pytest.raises(TypeError, match="@operation"):
        idle.submit(print, 1)
    assert idle.stats().tasks == {}


def test_a_full_queue_is_an_error_when_nobody_is_to_wait(idle: Client) -> None:
    idle.store.configure_queue("default", max_waiting=2)
    idle.submit(ops.add, 1, 2)
    with pytest.raises(QueueFull) as caught:
        idle.with_options(timeout=0).map(ops.MultiplyBy(1), range(2))
    assert (caught.value.queue, caught.value.room) == ("default", 1)
    with pytest.raises(QueueFull):  # it can never fit, so waiting would be for ever
        idle.with_options().map(ops.MultiplyBy(1), range(3))


def test_an_unknown_group_is_named_with_the_known_ones() -> None:
    with Client("memory:groups", "mail") as first:
        first.store.declare_group()
        with Client("memory:groups", "mial") as second, pytest.raises(UnknownGroup, match="mail"):
            second.submit(ops.add, 1, 2)


def test_an_unknown_task_is_not_found(idle: Client) -> None:
    with pytest.raises(TaskNotFound, match="no task 'x'"):
        idle.attach("x")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("work.db", "is no store"),
        ("mysql://x", "is no store"),
        ("sqlite://work.db", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:////no/such/folder/work.db", "there is no folder"),
        ("redis://host:port/0", "redis://HOST:PORT/DB"),
    ],
)
def test_a_bad_url_says_what_a_good_one_is(url: str, message: str) -> None:
    with pytest.raises(BadStoreUrl, match=message):
        open_store(url)


def test_a_bad_group_is_refused() -> None:
    with pytest.raises(BadStoreUrl, match="group"):
        open_store("memory:", "a{b}")


def test_a_store_of_another_release_is_refused(tmp_path: Path, own_redis: RedisServer) -> None:  # G-32
    import sqlite3

    import redis

    url = f"sqlite:///{tmp_path}/work.db"
    open_store(url).close()
    with sqlite3.connect(tmp_path / "work.db") as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(SchemaMismatch, match=r"schema 7.*upgrade"):
        open_store(url)
    client = redis.Redis(port=own_redis.port)
    client.set("tk:schema", 7)
    client.close()
    with pytest.raises(SchemaMismatch, match=r"schema 7.*upgrade"):
        open_store(own_redis.url)


def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "theirs.db") as db:
        db.execute("CREATE TABLE precious (x)")
    db.close()
    with pytest.raises(SchemaMismatch, match="another program"):
        open_store(f"sqlite:///{tmp_path}/theirs.db")


# ------------------------------------------------------------------------------------------------ operations


def test_two_functions_of_one_name_are_refused() -> None:
    operation(name="taken")(lambda: 1)
    with pytest.raises(ClusterError, match="two functions"):

        @operation(name="taken")
        def other() -> None: ...


def test_a_class_operation_is_a_dataclass() -> None:
    with pytest.raises(ClusterError, match="dataclass"):

        @operation
        class Plain:
            def __call__(self) -> None: ...


def test_an_operation_is_still_a_function() -> None:  # P-01
    assert ops.add(1, 2) == 3
    assert ops.MultiplyBy(2)(3) == 6
    assert ops.told()["attempt"] == 1
    assert ops.add.__name__ == "add"


# ------------------------------------------------------------------------------------------------ settings


def test_an_argument_wins_over_the_environment_over_the_file(tmp_path: Path) -> None:  # P-36
    file = tmp_path / "cluster.toml"
    file.write_text("[cluster]\nheartbeat = 1\nscan = 2\npoll = 3\n")
    environ = {"CLUSTER_HEARTBEAT": "4", "CLUSTER_SCAN": "5"}
    found = read_settings({"heartbeat": 6}, file=str(file), environ=environ)
    assert (found.heartbeat, found.scan, found.poll, found.grace) == (6.0, 5.0, 3.0, Settings().grace)
    with pytest.raises(ClusterError, match="no setting"):
        read_settings({"hartbeat": 1}, environ={})
    with pytest.raises(ClusterError, match="CLUSTER_SCAN says 'soon'"):
        read_settings(environ={"CLUSTER_SCAN": "soon"})


def test_an_error_of_a_kind_is_of_that_kind() -> None:  # P3.7
    from cluster.errors import make_operation_error

    assert isinstance(make_operation_error({"kind": "KeyError"}), KeyError)
    assert isinstance(make_operation_error({"kind": "OSError"}), OperationError)
    assert type(make_operation_error({"kind": "Unheard"})) is OperationError


# ------------------------------------------------------------------------------------------------ the documentation


def test_the_worker_of_twenty_lines_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # P-29
    text = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
    (program,) = [
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "store.join" in block
    ]
    monkeypatch.chdir(tmp_path)
    with Client("sqlite:///cluster.db") as client:
        handles = [client.submit(ops.add, n, 1) for n in range(5)]
        bad = client.submit(ops.fail, "fatal")
        job = client.start(works.Audit, {"shards": 3})
        exec(compile(program, "docs/cluster.md", "exec"), {})
        assert [handle.result(0) for handle in handles] == [1, 2, 3, 4, 5]
        assert bad.state == "dead"
        assert job.result(0) == 435
        assert client.members() == []


# ------------------------------------------------------------------------------------------------ one's own clock


def test_a_store_in_memory_is_gone_with_its_last_handle() -> None:
    url = "memory:gone with its last handle"
    with Client(url) as first:
        task_id = first.submit(ops.add, 1, 2).task_id
        with Client(url) as second:
            assert second.task(task_id).state == "ready"
        assert first.task(task_id).state == "ready"
    with Client(url) as third, pytest.raises(TaskNotFound):
        third.task(task_id)
    with pytest.raises(StoreError, match="was closed"):
        first.task(task_id)


def test_a_leader_with_little_time_left_scans_no_more(monkeypatch: pytest.MonkeyPatch) -> None:  # G-08
    coordinator = Coordinator("memory:", settings=FAST)
    scans: list[float] = []
    monkeypatch.setattr(coordinator, "scan", lambda guard: scans.append(0.0) or [])
    assert coordinator._lead_or_wait() == FAST.scan
    assert (len(scans), coordinator.leading) == (1, True)
    renew = coordinator.store.renew_lock

    def slow(name: str, fence: int, ttl: float) -> bool:  # a store that takes 0.7 of the lease to answer
        renewed = renew(name, fence, ttl)
        gevent.sleep(0.7 * FAST.coordinator_lease)
        return renewed

    monkeypatch.setattr(coordinator.store, "renew_lock", slow)
    gevent.sleep(0.4 * FAST.coordinator_lease)
    coordinator._lead_or_wait()
    assert len(scans) == 1
    coordinator.store.close()


def test_a_worker_whose_lease_is_over_by_its_own_clock_claims_nothing() -> None:  # G-31
    worker = Worker("memory:", inline=True, slots=1, settings=FAST, name="w")
    worker._join()
    worker._slots = [worker._make_slot(0)]
    with Client(worker.store) as client:
        client.submit(ops.add, 1, 2)
        worker._leased_until = 0.0  # the store could not be reached for a lease's time
        assert worker._claim() == 0
        assert client.stats().count("ready") == 1


def test_a_flood_of_hints_changes_nothing() -> None:  # X2: duplicate and lost hints
    with Client("memory:", workers=2, settings=FAST) as client:
        for topic in ("ready", "ended", "lead", "node:inline-0") * 50:
            client.store.ring(topic)
        handles = client.with_options().map(ops.MultiplyBy(2), range(50))
        client.store.ring("ended")
        assert [h.result(5) for h in handles] == [2 * n for n in range(50)]
        check_journal(all_events(client.store), task_ids=[h.task_id for h in handles])


def test_one_scan_repairs_what_a_split_brain_left() -> None:  # G-12, G-14, G-17, G-18
    coordinator = Coordinator("memory:", settings=FAST)
    store = coordinator.store
    for node in ("w1", "w2"):
        store.join(Member(node, f"{node}-1", "worker", ops=(ops.add.name,), slots=100), 60)
    with Client(store) as client:
        ids = [client.submit(ops.add, n, n).task_id for n in range(90)]
        claims, _ = store.claim("w1", "w1-1", 90, queues=["default"], ops=[ops.add.name], lease=60)
        unassigned, doubled, calm = ids[:30], ids[30:60], ids[60:]
        for task_id in unassigned:
            remove_assignments(store, task_id)
        for task_id in doubled:
            plant_assignment(store, task_id, "w2", "w2-1")
        for number in range(30):
            plant_assignment(store, f"orphan {number}", "w2", "w2-1")
        lock = store.acquire("coordinator", "me", 10)
        coordinator._held_until = monotonic() + 10
        coordinator.scan(Guard("coordinator", lock.fence))
        fences = {claim.task.task_id: claim.fence for claim in claims}
        assert {row.task_id: (row.node, row.fence) for row in store.assignments()} == {
            task_id: ("w1", fences[task_id]) for task_id in (*doubled, *calm)
        }
        assert sorted(task.task_id for task in store.tasks(state="ready")) == sorted(unassigned)


def test_a_dealt_task_that_a_worker_cannot_run_is_given_back() -> None:  # G-11
    worker = Worker("memory:", inline=True, slots=1, settings=FAST, name="w")
    worker._join()
    worker._slots = [worker._make_slot(0)]
    with Client(worker.store) as client:
        handle = client.submit("nobody:knows")
        incarnation = client.members()[0].incarnation
        worker.store.claim(
            "w", incarnation, 1, queues=["default"], ops=["nobody:knows"], lease=60, by="the coordinator"
        )
        assert handle.state == "assigned"
        worker._beat()
        worker._report_ends()
        assert (handle.state, handle.record().losses) == ("ready", 0)


def test_a_claim_whose_answer_was_lost_is_given_back() -> None:  # X1.4: a call may have happened all the same
    worker = Worker("memory:", inline=True, slots=1, settings=FAST, name="w")
    worker._join()
    worker._slots = [worker._make_slot(0)]
    with Client(worker.store) as client:
        handle = client.submit(ops.add, 1, 2)
        incarnation = client.members()[0].incarnation
        worker.store.claim("w", incarnation, 1, queues=["default"], ops=[ops.add.name], lease=60)
        worker._beat()
        worker._report_ends()
        assert handle.state == "assigned"  # the answer may still be on its way
        worker._beat()
        worker._report_ends()
        assert handle.state == "ready"


def test_an_answer_that_is_older_than_a_claim_cancels_nothing() -> None:
    worker = Worker("memory:", inline=True, slots=1, settings=FAST, name="w")
    worker._join()
    worker._slots = [worker._make_slot(0)]
    with Client(worker.store) as client:
        handle = client.submit(ops.obeys_cooperatively)
        worker._leased_until = monotonic() + 10
        assert worker._claim() == 1
        worker._compare([], before=set())  # a heartbeat that was asked for before the claim
        assert not worker._slots[0].asked
        (row,) = client.store.assignments()
        worker._compare(
            [], before={(row.task_id, row.fence)}
        )  # and one after it: the task is not ours any more
        assert worker._slots[0].asked
        gevent.sleep(0.05)
        worker._report_ends()
        assert handle.state == "ready"
