"""The fault matrix (X2) and chaos (G-29): what is killed, frozen, cut or full, and nothing is lost or doubled.

Chaos runs with two seeds on each engine, a few seconds each; with five in full size (TASKLETS_FULL=1). Its length is
that of --chaos-seconds, 60 in full size: a node killed every 2 s, 2,000 tasks.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from cluster import Client, StoreFull, StoreUnavailable
from cluster.records import Lock, NewTask
from cluster.stores import open_store
from cluster.testing import FAST, Nodes, all_events, check_journal, wait_for
from net.certificates import make_authority, make_certificate
from tests.cluster import ops
from tests.cluster.conftest import lines, shared_redis
from tests.cluster.proxy import Proxy
from tests.cluster.redis_server import RedisServer
from tests.machine import here

pytestmark = pytest.mark.real

PATIENT = replace(FAST, store_patience=5.0)


def finish_all(client: Client, ids: list[str], timeout: float = 30) -> None:
    wait_for(lambda: client.stats().count("done") >= len(ids), timeout, "all tasks done")
    found = check_journal(all_events(client.store), task_ids=ids)
    assert found["recorded"] == len(ids)


# ------------------------------------------------------------------------------------------------ crashes at points


def test_workers_that_die_between_any_two_writes_lose_nothing(
    client: Client, nodes: Nodes, journal: Path
) -> None:  # P-30, X2
    points = ("claimed:2", "executed:3", "before-finish:3", "after-finish:3", "renewed:4")
    nodes.coordinator()
    ids = [h.task_id for h in client.with_options(max_losses=100).map(ops.nap, [0.01] * 250)]
    doomed = [nodes.worker(slots=1, fail=f"worker-{point}") for point in points]
    doomed.append(nodes.worker(slots=1, fail="finish-committed:3"))
    assert [node.wait(20) for node in doomed] == [-signal.SIGKILL] * 6
    assert client.stats().count("done") < len(ids)
    nodes.worker(slots=4)
    finish_all(client, ids)


def test_coordinators_that_die_in_a_pass_harm_nothing(
    url: str, client: Client, journal: Path
) -> None:  # G-16, X2
    brisk = replace(FAST, coordinator_lease=0.5, scan=0.1)
    with Nodes(url, imports=["tests.cluster.ops"], settings=brisk) as nodes:
        points = ("coordinator-promoted:3", "coordinator-surveyed:3", "coordinator-repaired:3")
        doomed = [nodes.coordinator(fail=point) for point in points]  # one leads, the others stand by
        worker = nodes.worker(slots=2)
        ids = [h.task_id for h in client.with_options(max_losses=100).map(ops.nap, [0.02] * 150)]
        ids.append(client.with_options(delay=0.5).submit(ops.add, 1, 2).task_id)
        wait_for(lambda: lines(journal, "start"))
        worker.kill()
        nodes.worker(slots=2)
        assert [node.wait(15) for node in doomed] == [-signal.SIGKILL] * 3
        nodes.coordinator()
        finish_all(client, ids)


@pytest.mark.timeout(1200)
def test_coordinators_that_die_at_any_moment_lose_and_double_nothing(
    client: Client, nodes: Nodes, journal: Path, full_size: bool
) -> None:  # G-16: 20 kills in a run of 5,000 tasks
    kills, count = (20, 5000) if full_size else (3, 300)
    pick = random.Random(16)
    doomed = nodes.coordinator()
    nodes.worker(slots=4)
    steady = client.with_options(max_losses=100)
    ids = [h.task_id for h in steady.map(ops.nap, [0.01] * (count - count // 10))]
    for _ in range(count // 10):  # work for the coordinator: dates, on which it makes tasks ready
        delayed = client.with_options(delay=pick.uniform(0.1, 0.002 * count))
        ids.append(delayed.submit(ops.nap, 0.01).task_id)
    for number in range(kills):
        share = (number + pick.random()) / kills
        wait_for(lambda share=share: client.stats().count("done") >= 0.9 * share * count, 120)
        time.sleep(pick.uniform(0, FAST.scan))
        doomed.kill()
        doomed = nodes.coordinator()
    finish_all(client, ids, 120)


def test_a_thousand_due_tasks_are_ready_in_a_second(client: Client, nodes: Nodes) -> None:  # G-15
    nodes.coordinator()
    wait_for(lambda: client.store.lock("coordinator"))
    due = client.store.now() + 2.0  # by then they are stored, on a busy machine too
    for _ in range(2):
        client.store.submit([NewTask("op", b"", not_before=due) for _ in range(500)])
    assert client.stats().count("scheduled") == 1000
    wait_for(lambda: client.stats().count("ready") == 1000, 20)
    assert client.store.now() - due < FAST.scan + here(1.0)


@pytest.mark.parametrize(("point", "stored"), [("submit-first-row", 0), ("submit-committed", 500)])
def test_a_client_that_dies_in_a_batch_stored_all_or_nothing(
    url: str, client: Client, point: str, stored: int
) -> None:
    if url.startswith("redis"):  # a script is one step for the server, so there is no point inside
        point, stored = "submit-committed", 500
    code = (
        "from cluster.records import NewTask; from cluster.stores import open_store\n"
        f"open_store({url!r}).submit([NewTask('op', b'') for _ in range(500)])"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "CLUSTER_FAIL": point}, timeout=30)
    assert done.returncode == -signal.SIGKILL
    assert client.stats().waiting() == stored


def test_an_id_submitted_by_many_at_once_runs_once(
    url: str, client: Client, nodes: Nodes, journal: Path
) -> None:
    nodes.worker()
    code = (
        "import sys; from cluster import Client; from tests.cluster import ops\n"
        "client = Client(sys.argv[1])\n"
        "for _ in range(5): print(client.with_options(id='the-one').submit(ops.nap, 0, 'once').task_id)"
    )
    submitters = [
        subprocess.Popen(
            [sys.executable, "-c", code, url],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(4)
    ]
    printed = [line for process in submitters for line in process.communicate(timeout=30)[0].split()]
    assert printed == ["the-one"] * 20
    assert client.attach("the-one").result(10) == "once"
    assert client.with_options(id="the-one").submit(ops.nap, 0, "again").result(10) == "once"
    assert len(lines(journal, "start")) == 1


def test_a_full_queue_slows_the_producer_and_loses_nothing(client: Client, nodes: Nodes) -> None:
    client.store.configure_queue("default", max_waiting=50)
    nodes.worker(slots=2)
    highest = 0
    ids = []
    for start in range(0, 400, 20):
        ids += [h.task_id for h in client.with_options().map(ops.MultiplyBy(1), range(start, start + 20))]
        highest = max(highest, client.stats().waiting())
    finish_all(client, ids)
    assert highest <= 50


@pytest.mark.timeout(240)
def test_the_store_knows_which_task_is_with_which_worker(
    client: Client, nodes: Nodes, journal: Path, tmp_path: Path, full_size: bool
) -> None:  # G-04
    """Nodes are killed, for a minute in full size; what is assigned is what runs, and where, and is told so.

    Who was killed is noticed by its lease, and a process takes its time to start. Once tasks run again, the workers'
    own words agree with the store's within a heartbeat.
    """
    pick = random.Random(4)
    live = [nodes.worker("--name", "first"), nodes.worker("--name", "second"), nodes.coordinator()]
    handles = [client.with_options(max_losses=1000).submit(ops.hold, str(tmp_path / "go")) for _ in range(8)]

    def running() -> set[tuple[str, str]]:
        """What the processes that live and run a task have written into the journal, four slots in all."""
        last = {line[1]: (line[3], line[4]) for line in lines(journal, "hold")}
        return {held for pid, held in last.items() if Path(f"/proc/{pid}").exists()}

    def assigned() -> set[tuple[str, str]]:
        return {(row.task_id, row.node) for row in client.store.assignments()}

    def told() -> bool:
        words = {member.node: member.running for member in client.members() if member.role == "worker"}
        return words == dict(Counter(node for _, node in assigned()))

    def agree() -> None:
        wait_for(lambda: len(assigned()) == 4 and assigned() == running(), 20)
        wait_for(told, here(1.1 * FAST.heartbeat) + 0.1)  # a heartbeat comes a tenth too early or too late

    for number in range(20 if full_size else 3):
        agree()
        index = pick.randrange(3)
        live[index].kill()
        live[index] = nodes.coordinator() if index == 2 else nodes.worker("--name", f"next-{number}")
    agree()
    (tmp_path / "go").touch()
    finish_all(client, [handle.task_id for handle in handles])


# ------------------------------------------------------------------------------------------------ chaos


@pytest.fixture
def chaos_seconds(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("--chaos-seconds"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(1, 6 if os.environ.get("TASKLETS_FULL") == "1" else 3))
def test_chaos(
    url: str, nodes: Nodes, client: Client, chaos_seconds: float, seed: int
) -> None:  # G-29, G-16, G-04, G-20: finish_all looks at the journal
    pick = random.Random(seed)
    count = max(100, int(2000 * chaos_seconds / 60))
    nap = 0.5 * chaos_seconds * 4 / count  # four slots in a calm run need half of the time
    every = 2.0 if chaos_seconds >= 20 else 0.5
    live = [nodes.worker(slots=2), nodes.worker(slots=2), nodes.coordinator()]
    calm = [h.task_id for h in client.with_options().map(ops.nap, [nap] * (count // 4))]
    wait_for(lambda: client.stats().count("done") > 0)
    per_second = throughput(client, len(calm))
    ids = [h.task_id for h in client.with_options(max_losses=100).map(ops.nap, [nap] * count)]
    began = time.monotonic()
    while time.monotonic() - began < chaos_seconds:
        time.sleep(every)
        index = pick.randrange(len(live))
        live[index].kill()
        live[index] = nodes.coordinator() if index == 2 else nodes.worker(slots=2)
        if len(ids) + len(calm) - client.stats().count("done") == 0:
            break
    killed = throughput(client, len(calm) + len(ids), began, len(calm))
    print(f"{killed:.1f} tasks/s, and {per_second:.1f} tasks/s when nobody was killed")
    finish_all(client, [*calm, *ids], 60)
    if chaos_seconds >= 20:  # the start of the nodes counts little by then
        assert here(killed) >= 0.5 * per_second
    wait_for(lambda: not client.store.assignments(), 5)


def throughput(client: Client, until: int, began: float | None = None, done: int | None = None) -> float:
    """Tasks per second from now, or from then, until so many are done."""
    began = time.monotonic() if began is None else began
    done = client.stats().count("done") if done is None else done
    wait_for(lambda: client.stats().count("done") >= until, 200)
    return (until - done) / (time.monotonic() - began)


# ------------------------------------------------------------------------------------------------ the link


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy(shared_redis().port)
    yield made
    made.close()


@pytest.fixture
def direct(journal: Path) -> Iterator[Client]:
    with Client(shared_redis().url, "linked", settings=FAST) as client:
        client.store.declare_group()
        yield client
        client.store.wipe()


def test_a_cut_link_costs_time_and_no_task(direct: Client, proxy: Proxy) -> None:  # X2, G-31, A-36
    patient = replace(
        FAST, member_ttl=2.0
    )  # who tries again ever more rarely is back by then, on a busy machine too
    with Nodes(proxy.url, "linked", imports=["tests.cluster.ops"], settings=patient) as nodes:
        worker = nodes.worker(slots=2)
        nodes.coordinator()
        ids = [h.task_id for h in direct.with_options(max_losses=100).map(ops.nap, [0.02] * 250)]
        wait_for(lambda: direct.stats().count("done") > 5)
        for _ in range(5):  # short cuts, which a new connection mends
            proxy.cut()
            time.sleep(0.1)  # the length of a cut
            proxy.mend()
            time.sleep(0.2)  # and of what lies between
        assert [e.kind for e in all_events(direct.store)].count("expire") == 0
        proxy.cut()  # a long one: everybody's lease ends
        wait_for(lambda: not direct.members(), 10)
        done = direct.stats().count("done")
        time.sleep(0.5)  # nothing is done meanwhile
        assert direct.stats().count("done") == done < len(ids)
        proxy.mend()
        finish_all(direct, ids)
        assert worker.alive


def test_a_coordinator_behind_a_slow_link_does_no_harm(direct: Client, proxy: Proxy) -> None:  # X2, G-08
    with (
        Nodes(proxy.url, "linked") as slow,
        Nodes(shared_redis().url, "linked", imports=["tests.cluster.ops"]) as nodes,
    ):
        slow.coordinator("--name", "slow")
        wait_for(lambda: direct.store.lock("coordinator"))
        proxy.delay = FAST.coordinator_lease  # 2 leases for a call and its answer
        nodes.coordinator("--name", "quick")
        nodes.worker(slots=2)
        wait_for(lambda: (direct.store.lock("coordinator") or _NOBODY).holder.startswith("quick"), 15)
        ids = [h.task_id for h in direct.with_options().map(ops.nap, [0.01] * 100)]
        finish_all(direct, ids)


_NOBODY = Lock("", "", 0, 0.0)


# ------------------------------------------------------------------------------------------------ the store


@pytest.fixture
def hurt(own_redis: RedisServer, journal: Path) -> Iterator[tuple[RedisServer, Nodes, Client]]:
    with (
        Nodes(own_redis.url, imports=["tests.cluster.ops"], settings=PATIENT) as nodes,
        Client(own_redis.url, settings=replace(PATIENT, store_patience=20.0)) as client,
    ):
        yield own_redis, nodes, client


def test_redis_killed_and_restarted_under_load(hurt: tuple[RedisServer, Nodes, Client]) -> None:  # G-30, X6
    server, nodes, client = hurt
    nodes.worker(slots=2)
    nodes.coordinator()
    ids = [h.task_id for h in client.with_options(max_losses=100).map(ops.nap, [0.02] * 200)]
    wait_for(lambda: client.stats().count("done") > 20)
    time.sleep(1.2)  # appendfsync everysec: what was acknowledged before the last second is on disk
    server.kill()
    time.sleep(0.5)  # it is away for so long
    server.start()
    finish_all(client, ids)


def test_redis_frozen_for_five_seconds(hurt: tuple[RedisServer, Nodes, Client]) -> None:  # G-30
    server, nodes, client = hurt
    workers = [nodes.worker(slots=2), nodes.worker(slots=2)]
    nodes.coordinator()
    ids = [h.task_id for h in client.with_options(max_losses=100).map(ops.nap, [0.02] * 150)]
    wait_for(lambda: client.stats().count("done") > 20)
    server.signal(signal.SIGSTOP)
    time.sleep(5)
    server.signal(signal.SIGCONT)
    finish_all(client, ids)
    assert all(worker.alive for worker in workers)
    wait_for(lambda: sum(m.role == "worker" for m in client.members()) == 2)


def test_redis_without_memory_refuses_clearly_and_lets_work_end(
    hurt: tuple[RedisServer, Nodes, Client],
) -> None:  # X2
    server, nodes, client = hurt
    ids = [h.task_id for h in client.with_options().map(ops.MultiplyBy(1), range(50))]
    with closing(redis.Redis(port=server.port)) as admin:
        admin.config_set("maxmemory", 1)
        with pytest.raises(StoreFull, match="nothing was written"):
            client.submit(ops.add, 1, 2)
        assert client.stats().waiting() == 50
        nodes.worker(slots=2)
        nodes.coordinator()
        if (
            int(admin.info("server")["redis_version"].split(".")[0]) < 7
        ):  # older ones let nothing be written at all
            admin.config_set("maxmemory", 0)
        finish_all(client, ids)
        admin.config_set("maxmemory", 0)
    assert client.submit(ops.add, 1, 2).result(10) == 3


def test_redis_forgets_its_scripts(hurt: tuple[RedisServer, Nodes, Client]) -> None:  # X1.4
    server, _, client = hurt
    client.submit(ops.add, 1, 2)
    with closing(redis.Redis(port=server.port)) as admin:
        admin.script_flush()
    client.submit(ops.add, 1, 2)
    assert client.stats().waiting() == 2


def test_a_full_disk_refuses_clearly_and_leaves_nothing_half(tmp_path: Path) -> None:  # X2
    store = open_store(f"sqlite:///{tmp_path}/work.db")
    store.submit([NewTask("op", b"kept")])
    assert store._db is not None  # type: ignore[attr-defined]
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()  # type: ignore[attr-defined]
    store._db.execute(f"PRAGMA max_page_count = {pages + 3}")  # type: ignore[attr-defined]  # as a full disk does
    with pytest.raises(StoreFull, match="nothing was written"):
        store.submit([NewTask("op", bytes(8000)) for _ in range(50)])
    assert store.statistics().waiting() == 1
    store._db.execute("PRAGMA max_page_count = 1000000")  # type: ignore[attr-defined]
    store.submit([NewTask("op", bytes(8000)) for _ in range(50)])
    assert store.statistics().waiting() == 51
    store.close()


def test_a_locked_file_is_waited_for(tmp_path: Path) -> None:  # G-30
    url = f"sqlite:///{tmp_path}/work.db"
    store = open_store(url)
    impatient = open_store(url, patience=0.2)
    blocker = sqlite3.connect(tmp_path / "work.db", isolation_level=None, check_same_thread=False)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="busy"):
        impatient.submit([NewTask("op", b"")])
    timer = threading.Timer(3.0, lambda: blocker.execute("COMMIT"))
    timer.start()
    began = time.monotonic()
    store.submit([NewTask("op", b"")])
    assert 2.5 < time.monotonic() - began < 2.5 + here(2.5)
    timer.join()
    blocker.close()
    impatient.close()
    store.close()


def test_a_store_that_is_not_there_is_a_clear_error() -> None:  # X2
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="is the server running"):
        open_store("redis://127.0.0.1:1/0", patience=0.3)
    assert time.monotonic() - began < here(3)


def test_a_wrong_password_is_said_at_once() -> None:  # X2
    server = RedisServer(password="right")
    try:
        open_store(server.url.replace("//", "//:right@")).close()
        for url in (server.url, server.url.replace("//", "//:wrong@")):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="refused us") as caught:
                open_store(url)
            assert time.monotonic() - began < 2.5 + here(2.5)
            assert "wrong@" not in str(caught.value)
    finally:
        server.close()


def test_redis_by_tls(tmp_path: Path, journal: Path) -> None:
    make_authority(tmp_path)
    ours = make_certificate(tmp_path, "redis", ["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(ours.certificate, ours.key)
    proxy = Proxy(shared_redis().port, context)
    url = f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={tmp_path}/ca.pem"
    try:
        with (
            Client(url, settings=FAST) as client,
            Nodes(url, imports=["tests.cluster.ops"]) as nodes,
        ):
            nodes.worker(slots=2)
            handles = client.with_options().map(ops.MultiplyBy(2), range(20))
            assert [h.result(10) for h in handles] == [2 * n for n in range(20)]
            client.store.wipe()
        for query, message in (
            ("", "certificate verify failed"),
            ("?ssl_ca_certs=/no/such.pem", "no/such.pem"),
        ):
            with pytest.raises(StoreUnavailable, match=message):
                open_store(f"rediss://127.0.0.1:{proxy.port}/0{query}")
    finally:
        proxy.close()


def test_four_processes_on_one_file_never_see_it_locked(tmp_path: Path) -> None:  # X6
    url = f"sqlite:///{tmp_path}/work.db"
    open_store(url).close()
    code = (
        "import sys; from cluster.records import NewTask; from cluster.stores import open_store\n"
        "store = open_store(sys.argv[1])\n"
        "for _ in range(150): store.submit([NewTask('op', b'')])"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, url], cwd=Path(__file__).parents[2]) for _ in range(4)
    ]
    assert [process.wait(40) for process in processes] == [0] * 4
    store = open_store(url)
    assert store.statistics().waiting() == 600
    store.close()
