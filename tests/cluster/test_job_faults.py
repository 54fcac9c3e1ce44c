"""Jobs on real workers: what is killed, frozen or lost, and each effect on a job counts once; what runs is stopped."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal as os_signals
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from cluster import Cancel, Client, Finish, JobTimeout, Reply, Terminate
from cluster.stores import open_store
from cluster.testing import FAST, NodeProcess, Nodes, all_events, check_journal, wait_for
from tests.cluster import works
from tests.cluster.conftest import freeze, lines, on, shared_redis

pytestmark = pytest.mark.real


BRISK = replace(FAST, grace=1.0)


@dataclass
class Staff:
    """Two workers with a slot each and a coordinator, which several tests share; the journal is each test's own."""

    client: Client
    journal: Path
    workers: tuple[NodeProcess, ...]


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def shared_nodes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Nodes, Path]]:
    folder = tmp_path_factory.mktemp("shared")
    journal = folder / "journal"
    journal.touch()
    url = f"sqlite:///{folder}/work.db"
    if request.param == "redis":
        url = shared_redis().url.rpartition("/")[0] + "/1"  # what other tests wipe is in database 0
    with Nodes(url, imports=["tests.cluster.ops", "tests.cluster.works"], settings=BRISK) as nodes:
        for _ in range(2):
            nodes.worker(slots=1, JOURNAL=str(journal))
        nodes.coordinator()
        with Client(url, settings=FAST) as client:
            wait_for(lambda: len(client.members()) == 3, 30, "all nodes")
        yield nodes, journal
    with contextlib.closing(open_store(url)) as store:
        store.wipe()


@pytest.fixture
def staff(shared_nodes: tuple[Nodes, Path]) -> Iterator[Staff]:
    nodes, journal = shared_nodes
    with Client(nodes.store, settings=FAST) as client:
        os.truncate(journal, 0)
        yield Staff(client, journal, tuple(nodes.nodes[:2]))
        for state in ("created", "running"):
            for record in client.jobs(state=state):
                client.signal(record.job_id, Terminate())
        for row in client.store.assignments():
            client.store.cancel(row.task_id)


@pytest.fixture
def group(url: str, journal: Path) -> Iterator[Nodes]:
    with Nodes(url, imports=["tests.cluster.ops", "tests.cluster.works"]) as nodes:
        yield nodes


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# Heartbeats and the grace take longer than any wait here: what is stopped is so by a hint, and at once.
HINTS_ONLY = replace(FAST, heartbeat=30.0, member_ttl=90.0, task_lease=90.0, grace=60.0)


def test_ending_a_job_stops_what_runs_of_it_everywhere(
    url: str, client: Client, journal: Path
) -> None:  # P-25, P-27, A-31
    """Five members with a task each, and one that is of another job; then cancel with tasks that obey."""
    with Nodes(url, imports=["tests.cluster.ops", "tests.cluster.works"], settings=HINTS_ONLY) as group:
        end_jobs(client, group, journal)


def end_jobs(client: Client, group: Nodes, journal: Path) -> None:
    workers = [group.worker(slots=1) for _ in range(5)] + [group.worker("--queue", "other", slots=1)]
    group.coordinator()
    other = client.start(works.Crowd, {"count": 0})
    bystander = client.with_options(job_id=other.job_id, queue="other").submit(works.obey, "bystander")
    handle = client.start(works.Crowd, {"count": 12, "op": "hold"})
    wait_for(lambda: len(lines(journal, "hold")) == 5, 20, "five tasks run")
    wait_for(lambda: len(lines(journal, "obey")) == 1, 20, "the bystander runs")
    executors = [int(row[1]) for row in lines(journal, "hold")]
    assert all(map(alive, executors))
    began = time.monotonic()
    assert handle.terminate("enough").status == "ok"
    wait_for(lambda: not any(map(alive, executors)), 10, "they are killed")
    print(f"stopped on five members in {time.monotonic() - began:.3f} s")  # 1 s is the measure (P-25)
    assert all(worker.alive for worker in workers)
    assert bystander.state == "assigned"  # P-27
    cancelled = client.start(works.Crowd, {"count": 5, "op": "obey"})
    wait_for(lambda: len(lines(journal, "obey")) == 6, 20, "five more run")
    assert cancelled.cancel(timeout=10).status == "ok"
    wait_for(lambda: len(lines(journal, "obeyed")) == 5, 10, "they stopped")
    assert [row[3] for row in lines(journal, "cleanup")] == [cancelled.job_id]
    assert len(lines(journal, "hold")) == 5  # those that waited never began
    assert client.start(works.Audit, {"shards": 5}).result(10) == sum(range(50))
    assert bystander.state == "assigned"


_DEAF = """
import sys, gevent
from cluster import Worker
from cluster.stores import open_store
from cluster.testing import FAST

class Deaf:
    def wait(self, timeout): gevent.sleep(timeout)
    def close(self): pass

store = open_store(sys.argv[1])
store.listen = lambda *topics: Deaf()
Worker(store, imports=["tests.cluster.works"], slots=2, name="deaf", settings=FAST).run()
"""


def test_a_lost_hint_costs_a_heartbeat(client: Client, journal: Path) -> None:
    """P-25: a worker that hears no hint at all finds out by itself, and a claim gives no task of an ended job."""
    worker = in_a_process(_DEAF, client.store.url)
    try:
        handle = client.start(works.Crowd, {"count": 6, "op": "hold"})
        wait_for(lambda: len(lines(journal, "hold")) == 2, 20)
        executors = [int(row[1]) for row in lines(journal, "hold")]
        assert handle.terminate().status == "ok"
        wait_for(lambda: not any(map(alive, executors)), 10, "they are killed")
        assert client.start(works.Audit, {"shards": 2}).result(20) == sum(range(20))
        assert len(lines(journal, "hold")) == 2
    finally:
        worker.kill()
        worker.communicate()


@on("sqlite", "shared_nodes")
def test_a_stubborn_task_is_killed_after_the_grace_and_the_worker_lives(staff: Staff) -> None:  # P-26
    client, journal = staff.client, staff.journal
    handle = client.start(works.Crowd, {"count": 1, "op": "hold"})
    wait_for(lambda: lines(journal, "hold"), 20)
    [task] = [one for one in client.store.tasks(job_id=handle.job_id) if one.op == works.hold.name]
    executor = int(lines(journal, "hold")[0][1])
    asked = time.monotonic()
    assert handle.abort("too slow", grace=30).state == "cancelled"
    assert client.task(task.task_id).state == "cancelled"
    wait_for(lambda: not alive(executor), 30)
    assert time.monotonic() - asked > BRISK.grace - 0.5  # it was asked first, and given that time
    assert all(worker.alive for worker in staff.workers)
    stubborn = client.start(works.Account)
    assert stubborn.signal(works.AddFunds(1), timeout=20).value == 1
    assert stubborn.abort("stubborn", grace=0.5).state == "terminated"
    assert client.start(works.Audit, {"shards": 2}).result(20) == sum(range(20))


@on("redis", "shared_nodes")
def test_a_cancel_handler_has_the_grace_and_no_more(staff: Staff) -> None:  # A-31, X5.1
    client = staff.client
    results = {reason: client.start(works.Account) for reason in ("stubborn", "exit", "raise")}
    for handle in results.values():
        assert handle.signal(works.AddFunds(1), timeout=20).value == 1
    for reason, handle in results.items():
        handle.cancel(reason, timeout=0)
    for reason, handle in results.items():
        record = handle.wait(20)
        assert record.state == "cancelled"
        assert record.reason.startswith(reason)
    assert "killed" in results["stubborn"].record().reason
    assert "exit code 1" in results["exit"].record().reason


def test_an_operation_that_fails_the_job_fails_no_other(staff: Staff) -> None:  # P-22, P-27
    client, journal = staff.client, staff.journal
    other = client.start(works.Audit, {"shards": 20, "seconds": 0.05})
    handle = client.start(works.Hasty, {"count": 300, "bad": 10})
    with pytest.raises(ValueError, match="number 10 is bad") as caught:
        handle.result(20)
    assert "in vital" in caught.value.traceback_text  # type: ignore[attr-defined]
    ran = len(lines(journal, "vital"))
    assert other.result(20) == sum(range(200))
    assert len(lines(journal, "vital")) <= ran + 2  # at most those that were in flight
    assert ran < 100


def test_a_timeout_ends_the_job_and_no_task_of_it_runs_afterwards(staff: Staff) -> None:  # P-28
    client, journal = staff.client, staff.journal
    client.start(works.Audit, {"shards": 1}).result(20)  # the worker is there
    with pytest.raises(JobTimeout, match="not ended within 2 s"):
        client.run(works.Crowd, {"count": 8, "op": "hold"}, timeout=2)
    began = len(lines(journal, "hold"))
    assert began == 2
    assert client.run(works.Audit, {"shards": 4}, timeout=20) == sum(range(40))
    assert len(lines(journal, "hold")) == began


def test_of_finish_and_cancel_at_once_one_wins(staff: Staff) -> None:
    client = staff.client
    for _ in range(5):
        handle = client.start(works.Account)
        assert handle.signal(works.AddFunds(1), timeout=20).value == 1
        replies: dict[str, Reply] = {}

        def send(what: str, signal: object, job_id: str, replies: dict[str, Reply]) -> None:
            with Client(client.store.url, settings=FAST) as mine:
                replies[what] = mine.signal(job_id, signal, timeout=20)

        senders = [
            threading.Thread(target=send, args=(what, signal, handle.job_id, replies))
            for what, signal in [("finished", Finish()), ("cancelled", Cancel())]
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        won = [what for what, reply in replies.items() if reply.status == "ok"]
        assert len(won) == 1, replies
        record = handle.record()
        assert record.state == won[0]
        for reply in replies.values():
            assert reply.job is not None
            assert reply.job.state == record.state
        ends = [
            e for e in all_events(client.store)
            if e.kind == "job-state" and e.subject == handle.job_id and e.detail.split()[1] in ("finished", "cancelled")
        ]  # fmt: skip
        assert len(ends) == 1


def test_a_killed_executor_costs_a_turn_nothing_but_time(staff: Staff) -> None:
    client = staff.client
    handle = client.start(works.Account)
    assert handle.signal(works.AddFunds(5), timeout=20).value == 5
    pid = handle.signal(works.Ask("pid"), timeout=5).value
    os.kill(pid, os_signals.SIGKILL)
    assert handle.signal(works.AddFunds(5), timeout=20).value == 10
    assert handle.signal(works.Ask("exit"), timeout=20).status == "ended"  # it takes every process with it
    record = handle.wait(20)
    assert (record.state, "WorkerLost" in str(record.error)) == ("failed", True)


def test_a_job_whose_tasks_take_all_slots_still_answers(staff: Staff) -> None:
    client, journal = staff.client, staff.journal
    handle = client.start(works.Crowd, {"count": 5, "op": "hold"})
    wait_for(lambda: len(lines(journal, "hold")) == 2, 20)
    assert handle.signal(works.Ask("anything"), timeout=10).status == "unknown"
    account = client.start(works.Account)
    assert account.signal(works.AddFunds(5), timeout=10).value == 5
    assert len(lines(journal, "hold")) == 2


def test_turns_are_dealt_like_tasks(client: Client, group: Nodes, journal: Path) -> None:  # G-09
    client.store.put("dispatch", "assign")
    group.worker(slots=2)
    group.coordinator()
    assert client.start(works.Audit, {"shards": 4}).result(30) == sum(range(40))
    handle = client.start(works.Crowd, {"count": 4, "op": "hold"})
    wait_for(lambda: len(lines(journal, "hold")) == 2, 20)
    assert handle.cancel(timeout=10).status == "ok"
    assert client.start(works.Account).signal(works.AddFunds(5), timeout=20).value == 5


# ------------------------------------------------------------------------------------------------ other processes


_READS = """
import sys
from cluster import Client
from tests.cluster import works
handle = Client(sys.argv[1]).attach_job(sys.argv[2])
print(handle.result(30))
"""


def in_a_process(code: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True)


def test_another_process_reads_what_a_job_found(staff: Staff) -> None:
    client = staff.client
    handle = client.start(works.Audit, {"shards": 20, "seconds": 0.02})
    reader = in_a_process(_READS, client.store.url, handle.job_id)
    assert reader.communicate(timeout=50)[0].strip() == str(sum(range(200)))
    workers = {task.worker for task in client.store.tasks(job_id=handle.job_id)}
    assert workers == {"worker-1", "worker-2"}
    check_journal(all_events(client.store))


_ADDS = """
import sys
from cluster import Client
from cluster.testing import FAST
from tests.cluster import works
client = Client(sys.argv[1], settings=FAST)
for number in range(int(sys.argv[3])):
    for attempt in range(100):  # as one does who must know: the same id until there is an answer
        reply = client.signal(sys.argv[2], works.AddFunds(1), timeout=0.3, id=f"{sys.argv[4]}-{number}")
        if reply.status == "ok":
            break
    else:
        sys.exit(f"{number}: {reply}")
print(reply.value)
"""


def host_of(client: Client, job_id: str) -> str | None:
    """Who has the job's turn now."""
    return next((row.node for row in client.store.assignments() if row.task_id == job_id), None)


@pytest.mark.timeout(240)  # for its full size
def test_1000_increments_by_four_processes_are_1000(
    client: Client, group: Nodes, journal: Path, full_size: bool
) -> None:
    """A-32, A-33: and the node that has the handler is killed, time and again."""
    each = 250 if full_size else 60
    kills = 8 if full_size else 2
    nodes: dict[str, NodeProcess] = {}

    def add_worker() -> None:
        node = group.worker(slots=1)
        nodes[node.name] = node

    group.coordinator()
    for _ in range(2):
        add_worker()
    handle = client.start(works.Account, max_losses=100)
    clients = [in_a_process(_ADDS, client.store.url, handle.job_id, str(each), str(n)) for n in range(4)]
    for number in range(kills):
        wait_for(lambda: handle.data.get("balance", 0) > number * each // 3, 30, "some are added")  # noqa: B023
        victim = wait_for(lambda: host_of(client, handle.job_id), 10, "somebody has the turn")
        nodes[victim].kill()
        add_worker()
    for one in clients:
        one.communicate(timeout=50)
        assert one.returncode == 0
    assert handle.data["balance"] == 4 * each
    assert handle.record().done == 0
    began = {row[4] for row in lines(journal, "begin")}
    assert len(began) == 4 * each
    turns: list[tuple[str, str]] = []  # handlers of one turn follow each other, and no two turns overlap
    for row in sorted(lines(journal, "begin") + lines(journal, "end"), key=lambda row: float(row[0])):
        if row[2] == "end":
            assert turns
            assert turns[-1] == (row[1], row[4])
        turns.append((row[1], row[4]))
    check_journal(all_events(client.store))


def test_the_turn_of_a_frozen_worker_counts_for_nothing(client: Client, group: Nodes, journal: Path) -> None:
    """A-32, A-21: its lease runs out, another takes the turn, and what it reports when it thaws is refused."""
    group.coordinator()
    frozen = group.worker(slots=1)
    handle = client.start(works.Account)
    assert handle.signal(works.AddFunds(1), timeout=20).value == 1
    handle.signal(works.Ask("slowly"), timeout=0, id="slow")
    wait_for(lambda: lines(journal, "slowly"), 20)
    freeze(frozen)
    group.worker(slots=1)
    reply = wait_for(lambda: client.reply(handle.job_id, "slow"), 30)
    assert (reply.value, len(lines(journal, "slowly"))) == (2, 2)
    frozen.thaw()
    wait_for(lambda: client.stats().counters.get("stale_completions", 0) >= 1, 20, "its end is refused")
    assert handle.signal(works.AddFunds(1), timeout=20).value == 3
    check_journal(all_events(client.store))


@pytest.mark.timeout(180)
def test_workers_that_die_between_any_two_writes_of_a_turn_change_nothing(
    client: Client, group: Nodes
) -> None:  # A-32, P-30, X2
    points = ("claimed:2", "executed:2", "before-finish:2", "after-finish:2", "renewed:3")
    group.coordinator()
    handle = client.start(works.Account, max_losses=100)
    adding = [in_a_process(_ADDS, client.store.url, handle.job_id, "60", str(n)) for n in range(2)]
    doomed = [group.worker(slots=1, fail=f"worker-{point}") for point in points]
    doomed.append(group.worker(slots=1, fail="finish-committed:2"))
    assert [node.wait(40) for node in doomed] == [-os_signals.SIGKILL] * 6
    group.worker(slots=1)
    for one in adding:
        one.communicate(timeout=50)
        assert one.returncode == 0
    assert handle.data["balance"] == 120
    check_journal(all_events(client.store))


def test_signals_are_handled_elsewhere_when_the_host_dies(client: Client, group: Nodes) -> None:
    group.coordinator()
    nodes = {node.name: node for node in (group.worker(slots=1), group.worker(slots=1))}
    wait_for(lambda: len(client.members()) == 3, 20)
    handle = client.start(works.Account)
    host = handle.signal(works.Ask("worker"), timeout=20).value
    nodes[host].kill()
    began = time.monotonic()
    other = handle.signal(works.Ask("worker"), timeout=20)
    assert other.value in set(nodes) - {host}
    assert time.monotonic() - began < 10 * FAST.member_ttl  # it had no turn: nothing has to run out first


# ------------------------------------------------------------------------------------------------ the dormant ones


def resident(pid: int) -> int:
    """Bytes of memory of a process and its children."""
    total = 0
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        total += process.memory_info().rss
    return total


@pytest.mark.timeout(600)  # for its full size
def test_dormant_jobs_cost_nothing_and_wake_on_time_after_a_restart(
    client: Client, group: Nodes, journal: Path, full_size: bool
) -> None:
    """A-43, A-44: all nodes end and begin again while they sleep; two nodes, each due job wakes on exactly one."""
    dormant, due = (10_000, 500) if full_size else (400, 50)
    if full_size:
        faulthandler.cancel_dump_traceback_later()  # it takes longer than a test may that hangs; its own limit is above
    before = group.worker(slots=2)
    probe = client.start(works.Audit, {"shards": 2})
    probe.result(20)
    memory = resident(before.pid)
    for _ in range(dormant):
        client.start(works.Sleeper, {"after": 86_400.0 * 3})
    asleep = lambda: client.stats().count("idle")  # noqa: E731
    wait_for(lambda: asleep() == dormant, 300, "all sleep")
    growth = resident(before.pid) - memory
    assert growth < 50e6, growth
    print(f"{dormant} dormant jobs: {growth / 1e6:.1f} MB more in a worker and its executors")
    handles = [client.start(works.Sleeper, {"after": 3.0}) for _ in range(due)]
    wait_for(lambda: asleep() == dormant + due or lines(journal, "wake"), 60)
    before.kill()
    group.coordinator()
    for _ in range(2):
        group.worker(slots=1)
    for handle in handles:
        handle.wait(60)
    assert client.stats().count("idle") == dormant
    woken = [row[3] for row in lines(journal, "wake")]
    assert len(set(woken)) == due
    turns = [e.subject for e in all_events(client.store) if e.kind == "turn"]
    assert all(turns.count(handle.job_id) == 2 for handle in handles)  # its start, and its step
    late = [
        record.ended - record.created - 3.0
        for record in (handle.record() for handle in handles)
        if record.ended is not None
    ]
    assert min(late) >= 0
    assert len(woken) - len(set(woken)) <= 3  # a step whose node was killed is repeated, and counts once
