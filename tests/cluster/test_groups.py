"""Groups: who leads, what is repaired, how lost nodes are replaced. Real processes and signals; what an engine
may do in its own way, on both."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import gevent
import pytest

from cluster import Client, Coordinator, Membership, OperationError, TaskHandle
from cluster._decide import Bounds
from cluster.errors import LeaseLost, NameTaken
from cluster.healing import Healer, write_bounds
from cluster.provision import NodeTemplate, Started
from cluster.records import Member
from cluster.stores import open_store
from cluster.stores.contract import plant_assignment
from cluster.testing import FAST, Nodes, all_events, check_journal, environ_of, lock_history, wait_for
from tests.cluster import ops
from tests.cluster.conftest import freeze, lines, on
from tests.machine import here

pytestmark = pytest.mark.real


def leader(client: Client) -> str | None:
    lock = client.store.lock("coordinator")
    return lock.holder.split("#")[0] if lock else None


def recorders(client: Client, task_ids: Sequence[str]) -> set[str | None]:
    """The workers that recorded the results there are of these tasks."""
    tasks = [client.task(task_id) for task_id in task_ids]
    return {task.worker for task in tasks if task.state == "done"}


def kinds(client: Client, *wanted: str) -> list[str]:
    return [event.kind for event in all_events(client.store) if event.kind in wanted]


# ------------------------------------------------------------------------------------------------ members


def test_a_killed_worker_is_gone_and_its_tasks_run_elsewhere(
    client: Client, nodes: Nodes, journal: Path
) -> None:  # G-02, G-13, A-37
    first = nodes.worker(slots=2)
    handles = [client.submit(ops.nap, 1.0, f"t{n}") for n in range(2)]
    wait_for(lambda: len(lines(journal, "start")) == 2)
    nodes.worker()
    nodes.coordinator()
    first.kill()
    killed = time.monotonic()
    assert [h.result(15) for h in handles] == ["t0", "t1"]
    restarted = [float(line[0]) for line in lines(journal, "start")[2:]]
    assert len(restarted) == 2
    assert max(restarted) - killed < FAST.member_ttl + 2 * FAST.scan + here(
        2.5
    )  # the new nodes start meanwhile
    assert [h.record().losses for h in handles] == [1, 1]
    check_journal(all_events(client.store), task_ids=[h.task_id for h in handles])


def test_a_frozen_worker_is_fenced_and_joins_again(
    client: Client, nodes: Nodes, journal: Path
) -> None:
    frozen = nodes.worker("--name", "frozen", slots=1)
    handle = client.submit(ops.nap, 0.5, "t")
    wait_for(lambda: lines(journal, "start"))
    before = client.members()[0].incarnation
    nodes.coordinator()
    freeze(frozen)
    # Its executor is another process and finishes; that result must not count.
    wait_for(lambda: kinds(client, "expire"), 10)
    nodes.worker("--name", "other", slots=1)
    assert handle.result(15) == "t"
    assert handle.record().worker == "other"
    frozen.thaw()
    wait_for(lambda: [m for m in client.members() if m.node == "frozen" and m.incarnation != before], 10)
    check_journal(all_events(client.store), task_ids=[handle.task_id])
    assert client.submit(ops.add, 1, 2).result(5) == 3


@pytest.mark.timeout(300)
def test_a_worker_that_flaps_loses_no_task(
    url: str, client: Client, journal: Path, full_size: bool
) -> None:
    brisk = replace(FAST, heartbeat=0.1, member_ttl=0.5, task_lease=1.0)
    with Nodes(url, imports=["tests.cluster.ops"], settings=brisk) as nodes:
        flapping = nodes.worker("--name", "flapping", slots=2)
        nodes.worker("--name", "steady", slots=1)
        nodes.coordinator()
        flaps = 10 if full_size else 3
        handles = client.with_options(max_losses=1000).map(ops.nap, [0.03] * (80 * flaps))
        wait_for(lambda: len(client.members()) == 3)
        for _ in range(flaps):
            known = {m.incarnation for m in client.members() if m.node == "flapping"}
            wait_for(lambda: any(m.running for m in client.members() if m.node == "flapping"))
            freeze(flapping)
            wait_for(lambda: "flapping" not in {m.node for m in client.members()})
            flapping.thaw()
            wait_for(
                lambda known=known: any(
                    m.node == "flapping" and m.incarnation not in known for m in client.members()
                )
            )
        for handle in handles:
            handle.wait(30)
        check_journal(all_events(client.store), task_ids=[h.task_id for h in handles])
        assert flapping.alive


@on("redis")
def test_a_second_node_of_a_name_is_refused(client: Client, nodes: Nodes) -> None:  # G-02
    nodes.worker("--name", "same")
    wait_for(lambda: client.members())
    second = nodes.worker("--name", "same")
    assert second.wait() == 1
    assert "choose another name" in second.output()
    assert len(client.members()) == 1


@on("redis")
def test_two_releases_work_together_and_say_which_they_are(
    url: str, client: Client, tmp_path: Path
) -> None:  # G-32; that a store of another schema refuses them is tested in test_client.py
    newer = tmp_path / "newer"
    copy_of_a_later_release(newer)
    patient = replace(FAST, idle_retire=60.0)  # one worker more than there are to be
    with (
        Nodes(url, imports=["tests.cluster.ops"], settings=patient) as old,
        Nodes(url, imports=["tests.cluster.ops"], settings=patient, folder=str(newer)) as new,
    ):
        coordinator, _ = old.coordinator("--name", "c-old"), old.worker("--name", "w-old")
        wait_for(lambda: leader(client) == "c-old" and len(client.members()) == 2)
        begun = client.store.now()
        for name, record in (
            ("bounds", Bounds(1, 1)),
            ("template:worker", NodeTemplate("worker", url, "default")),
        ):
            client.store.put(name, json.dumps({**asdict(record), "later": "what only the newer one knows"}))
        assert NodeTemplate.loads(client.store.get("template:worker")).role == "worker"
        new.coordinator("--name", "c-new")
        leaving = new.worker("--name", "w-new")
        wait_for(lambda: len(client.members()) == 4)
        wait_for(lambda: (lock := client.store.lock("coordinator")) and lock.lease_until > begun + 2.0)
        assert leader(client) == "c-old"  # whatever it has read, for its lease would be over
        versions = {member.node: member.version for member in client.members()}
        assert versions["w-new"] == versions["c-new"] == "99.0" != versions["w-old"] == versions["c-old"]
        error = client.submit(ops.fail, "value")
        # Only now that both are there: else the older one is done with all of it before the newer one has started.
        ids = [h.task_id for h in client.with_options(max_losses=100).map(ops.nap, [0.02] * 100)]
        wait_for(lambda: len(recorders(client, ids)) == 2)
        coordinator.kill()  # the newer one takes over, for both workers
        wait_for(lambda: leader(client) == "c-new")
        leaving.kill()  # and the older worker what the newer one had
        wait_for(lambda: client.stats().count("done") == len(ids), 30)
        check_journal(all_events(client.store), task_ids=ids)
        assert recorders(client, ids) == {"w-old", "w-new"}
        with pytest.raises(OperationError, match="no such value"):
            error.result(5)


def copy_of_a_later_release(folder: Path) -> None:
    """Make a copy of the package that says and writes more than this one; it understands the same stores."""
    root = Path(__file__).parents[2]
    shutil.copytree(root / "cluster", folder / "cluster", ignore=shutil.ignore_patterns("__pycache__"))
    for module, old, new in (
        ("_identity.py", 'return version("tasklets")', 'return "99.0"'),
        ("_decide.py", "    least: int = 1\n", "    least: int = 1\n    later: str = 'new'\n"),
        ("_decide.py", '"attempts": task.attempts + 1,', '"attempts": task.attempts + 1, "later": 1,'),
        ("provision.py", '    python: str = ""\n', '    python: str = ""\n    later: str = "new"\n'),
    ):
        source = folder / "cluster" / module
        text = source.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{module} has changed; change this test too"
        source.write_text(text.replace(old, new), encoding="utf-8")


def test_a_worker_serves_two_groups(url: str, client: Client, nodes: Nodes) -> None:  # G-01, A-35
    nodes.worker("--group", "other", slots=1)
    with Client(url, "other", settings=FAST) as other:
        wait_for(lambda: other.members() and client.members())
        assert other.submit(ops.add, 1, 2).result(10) == 3
        assert client.submit(ops.add, 3, 4).result(10) == 7
        assert client.stats().counters["submitted"] == 1


def test_shares_cover_everything_once(url: str) -> None:
    stores = [open_store(url, "indexers") for _ in range(3)]
    members = [Membership(store, name=f"m{n}", settings=FAST) for n, store in enumerate(stores)]
    for member in members:
        member.__enter__()
    for total in (0, 1, 2, 3, 10, 1000):
        assert sorted(n for m in members for n in m.my_share(total)) == list(range(total))
    members[1].__exit__()
    assert sorted(n for m in (members[0], members[2]) for n in m.my_share(10)) == list(range(10))
    for member in (members[0], members[2]):
        member.__exit__()
    for store in stores:
        store.close()


def test_a_lock_excludes_and_a_lost_one_says_so(url: str, client: Client) -> None:
    with Client(url) as other:
        with client.lock("month-end", ttl=1.0) as lease:
            with pytest.raises(TimeoutError, match="month-end"), other.lock("month-end", timeout=0.05):
                pass
            lease.check()
            time.sleep(1.1)  # as a frozen process would
            with other.lock("month-end", ttl=5):
                with pytest.raises(LeaseLost):
                    lease.check()
                with pytest.raises(LeaseLost):
                    client.with_options(guard=lease.guard).submit(ops.add, 1, 2)
        assert client.stats().waiting() == 0


# ------------------------------------------------------------------------------------------------ the coordinator


def test_one_leads_and_a_successor_is_quick(client: Client, nodes: Nodes) -> None:  # G-05, G-06
    standby = [nodes.coordinator("--name", f"c{n}") for n in range(3)]
    by_name = {f"c{n}": node for n, node in enumerate(standby)}
    first = wait_for(lambda: leader(client))
    wait_for(lambda: len(client.members()) == 3)
    time.sleep(0.3)  # let the standbys listen
    began = time.monotonic()
    by_name[first].terminate()
    second = wait_for(lambda: leader(client) not in (None, first) and leader(client))
    assert time.monotonic() - began < here(0.5)
    by_name[str(second)].kill()
    began = time.monotonic()
    wait_for(lambda: leader(client) not in (None, first, second))
    assert time.monotonic() - began < 2 * FAST.coordinator_lease + here(0.3)
    history = lock_history(all_events(client.store), "coordinator")
    assert len({holder for holder, _ in history}) == 3


def test_a_zombie_coordinator_changes_nothing(client: Client, nodes: Nodes) -> None:  # G-07
    nodes.settings = replace(FAST, coordinator_lease=0.5)
    zombie = nodes.coordinator("--name", "zombie")
    wait_for(lambda: leader(client) == "zombie")
    freeze(zombie)
    nodes.coordinator("--name", "heir")
    wait_for(lambda: leader(client) == "heir", 10)
    time.sleep(2 * nodes.settings.coordinator_lease)  # so that it stands still for three
    zombie.thaw()
    time.sleep(3 * FAST.scan)  # in which it would write, if it led
    assert leader(client) == "heir"
    history = lock_history(all_events(client.store), "coordinator")
    assert [holder.split("#")[0] for holder, _ in history] == ["zombie", "heir"]
    wait_for(lambda: {m.node for m in client.members()} == {"zombie", "heir"})


def test_a_planted_second_holder_is_removed(
    client: Client, nodes: Nodes, tmp_path: Path
) -> None:  # G-14, G-17, G-19
    for name in ("w1", "w2"):
        nodes.worker("--name", name, slots=1)
    nodes.coordinator()
    members = {m.node: m for m in wait_for(lambda: len(client.members()) == 3 and client.members())}
    gate = tmp_path / "gate"
    running = client.submit(ops.until, str(gate))
    (holder,) = wait_for(lambda: client.store.assignments())
    other = "w2" if holder.node == "w1" else "w1"
    fence = plant_assignment(client.store, running.task_id, other, members[other].incarnation)
    plant_assignment(client.store, "no such task", other, members[other].incarnation)
    wait_for(lambda: [a.node for a in client.store.assignments()] == [holder.node], 5)
    gate.touch()
    # By the coordinator, or by the other itself, which does not know of it: whoever was first.
    revoked = [
        e.detail for e in all_events(client.store) if e.kind == "revoke" and e.subject == running.task_id
    ]
    assert revoked in ([f"{other} {fence} duplicate"], [f"{other} {fence} released"])
    assert running.wait(15).worker == holder.node
    check_journal(all_events(client.store), task_ids=[running.task_id])


def test_locks_spread_over_coordinators_and_the_one_left_takes_them_all(
    url: str, nodes: Nodes
) -> None:  # G-28
    groups = ("default", "second", "third", "fourth")
    more = [word for group in groups[1:] for word in ("--group", group)]
    first = nodes.coordinator("--name", "c1", *more)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(url, group, settings=FAST)) for group in groups]
        wait_for(lambda: [leader(client) for client in clients] == ["c1"] * 4)
        nodes.coordinator("--name", "c2", *more)
        wait_for(lambda: sorted(filter(None, map(leader, clients))) == ["c1", "c1", "c2", "c2"])
        first.kill()
        wait_for(lambda: [leader(client) for client in clients] == ["c2"] * 4)


def test_leaders_of_many_changes_never_overlap(url: str) -> None:  # G-05
    settings = replace(FAST, coordinator_lease=0.3, scan=0.01)
    with ExitStack() as stack:
        probe = stack.enter_context(Client(url, settings=FAST))
        contenders = [Coordinator(url, name=f"c{n}", settings=settings) for n in range(5)]
        for one in contenders:
            stack.callback(one.store.close)
        loops = [gevent.spawn(one.run) for one in contenders]
        stack.callback(gevent.joinall, loops)
        for one in contenders:
            stack.callback(one.stop)
        for _ in range(50):
            lock = wait_for(lambda: probe.store.lock("coordinator"), sleep=lambda _: gevent.sleep(0.002))
            probe.store.release("coordinator", lock.fence)  # its holder finds out, and steps down
            wait_for(
                lambda lock=lock: (probe.store.lock("coordinator") or lock).fence != lock.fence,
                sleep=lambda _: gevent.sleep(0.002),
            )
    with Client(url, settings=FAST) as probe:
        events = all_events(probe.store)
    history = lock_history(events, "coordinator")
    assert len(history) > 50
    assert len({holder for holder, _ in history}) > 1
    turns = [
        e.kind for e in events if e.subject == "coordinator" and e.kind in ("lock", "unlock", "lock-expired")
    ]
    assert [kind == "lock" for kind in turns] == [n % 2 == 0 for n in range(len(turns))]


def test_dealt_tasks_run(client: Client, nodes: Nodes) -> None:  # G-09, G-10
    client.store.put("dispatch", "assign")
    nodes.worker("--name", "w1", slots=2)
    nodes.worker("--name", "w2", slots=2)
    wait_for(
        lambda: sum(bool(m.ops) for m in client.members()) == 2, what="both workers, with what they know"
    )
    nodes.coordinator("--name", "dealer")
    handles = client.with_options().map(ops.MultiplyBy(2), range(16))
    assert [h.result(20) for h in handles] == [2 * n for n in range(16)]
    assigned = [event for event in all_events(client.store) if event.kind == "assign"]
    assert {event.by for event in assigned} == {"dealer"}
    assert {event.detail.split(" ")[0] for event in assigned} == {"w1", "w2"}


def test_deadlines_and_unknown_operations_end_in_dead_letters(
    url: str, client: Client, journal: Path
) -> None:  # P-03
    with Nodes(url, imports=["tests.cluster.ops"], settings=replace(FAST, unknown_after=0.5)) as nodes:
        worker = nodes.worker(slots=1)
        nodes.coordinator()
        unknown = client.submit("nobody:knows", 1)
        client.submit(ops.nap, 1.0, "busy")
        late = client.with_options(deadline=0.5).submit(ops.add, 1, 2)
        for handle, kind in ((unknown, "UnknownOperation"), (late, "DeadlineExceeded")):
            with pytest.raises(OperationError) as caught:
                handle.result(10)
            assert caught.value.kind == kind
        assert worker.alive


# ------------------------------------------------------------------------------------------------ keys


@pytest.mark.timeout(120)
@pytest.mark.parametrize("dies", [False, True], ids=["calm", "one dies"])
def test_tasks_of_a_key_run_in_order_one_at_a_time(
    client: Client, nodes: Nodes, journal: Path, dies: bool, full_size: bool
) -> None:
    count = 100 if full_size else 15
    nodes.coordinator()
    first, _ = nodes.worker(), nodes.worker()
    wait_for(lambda: len([m for m in client.members() if m.ops]) == 2)
    handles = [
        client.with_options(ordering_key=key, max_losses=100).submit(ops.nap, 0.05, f"{key}{number}")
        for number in range(count)
        for key in "abc"
    ]
    killed = math.inf
    if dies:
        wait_for(lambda: len(lines(journal, "end")) >= count)
        first.kill()
        killed = time.monotonic()
    for handle in handles:
        handle.result(60)

    ends = {(line[1], line[3]): float(line[0]) for line in lines(journal, "end")}
    spans = [
        (line[3][0], int(line[3][1:]), float(line[0]), ends.get((line[1], line[3]), killed))
        for line in lines(journal, "start")
    ]
    for key in "abc":
        numbers = [number for one, number, _, _ in spans if one == key]
        assert numbers == sorted(numbers)
        assert set(numbers) == set(range(count))
        own = [(begin, end) for one, _, begin, end in spans if one == key]
        assert all(end <= begin for (_, end), (begin, _) in pairwise(own)), "two of a key at once"
    if not dies:  # keys overlap: side by side they take less than one after the other
        took = max(end for *_, end in spans) - min(begin for *_, begin, _ in spans)
        assert took < here(0.7) * sum(end - begin for *_, begin, end in spans)


@pytest.mark.timeout(600)
def test_keys_keep_their_worker_and_move_when_it_dies(
    client: Client, nodes: Nodes, full_size: bool
) -> None:
    count = 1000 if full_size else 100
    workers = {name: nodes.worker("--name", name, slots=2) for name in ("w1", "w2")}
    nodes.coordinator()
    wait_for(lambda: len([m for m in client.members() if m.ops]) == 2)
    time.sleep(3 * FAST.heartbeat)  # until both know of each other

    def placed() -> dict[int, str]:
        handles = {
            n: client.with_options(partition_key=f"key {n}").submit(ops.add, n, 0) for n in range(count)
        }
        return {n: h.wait(30).worker for n, h in handles.items()}

    first = placed()
    assert placed() == first
    assert 0.35 <= sum(worker == "w1" for worker in first.values()) / count <= 0.65
    workers["w1"].kill()
    wait_for(lambda: len(client.members()) == 2)
    assert set(placed().values()) == {"w2"}


def test_mails_of_a_user_are_one(url: str, client: Client, nodes: Nodes, journal: Path) -> None:
    nodes.worker()
    wait_for(lambda: [m for m in client.members() if m.ops], 10)
    with ExitStack() as stack:
        submitters = [stack.enter_context(Client(url)) for _ in range(4)]

        def submit(submitter: Client) -> list[TaskHandle]:
            return [submitter.with_options(coalesce_key="user 7").submit(ops.mail, 7, 1) for _ in range(25)]

        began = time.monotonic()
        submitting = [gevent.spawn(submit, submitter) for submitter in submitters]
        handles = [handle for one in submitting for handle in one.get()]
        took = time.monotonic() - began
        assert {handle.wait(10).state for handle in handles} == {"done"}
    late = client.with_options(coalesce_key="user 7").submit(ops.mail, 7, 1)
    late.result(10)
    totals = [int(line[4]) for line in lines(journal, "mail")]
    assert sum(totals) == 101
    assert (
        len(totals) <= 3 + took / 0.4
    )  # as often as the delay passed while they were submitted, and the late one


def test_queues_are_served_by_weight(client: Client, nodes: Nodes) -> None:
    for queue in "abc":
        client.with_options(queue=queue).map(ops.MultiplyBy(1), range(140))
    nodes.worker("--queue", "a=4", "--queue", "b=2", "--queue", "c=1", slots=1)
    wait_for(lambda: client.stats().count("done") >= 140, 20)
    client.store.configure_queue("a", paused=True)
    order = [e.subject for e in all_events(client.store) if e.kind == "assign"][:140]
    queues = {task.task_id: task.queue for task in client.store.tasks(limit=500)}
    counts = {queue: sum(queues[i] == queue for i in order) for queue in "abc"}
    assert counts["a"] == pytest.approx(80, rel=0.2)
    assert counts["b"] == pytest.approx(40, rel=0.2)
    assert counts["c"] == pytest.approx(20, rel=0.2)


def test_dedicated_workers_do_what_they_are_for_and_nothing_else(
    client: Client, nodes: Nodes
) -> None:  # P-35, D-19
    nodes.worker("--name", "for all")
    nodes.worker("--name", "for blocks", "--queue", "block")
    wait_for(lambda: len(client.members()) == 2)
    blocks = client.with_options().map(ops.block_of, range(20))
    sums = [client.submit(ops.add, number, 1) for number in range(20)]
    asked = client.with_options(queue="block").submit(ops.add, 1, 1)  # who submits may choose, too
    assert [handle.result(10) for handle in blocks] == [number // 10 for number in range(20)]
    assert {handle.wait(10).worker for handle in sums} == {"for all"}
    assert {handle.record().worker for handle in [*blocks, asked] if handle.wait(10)} == {"for blocks"}


def test_a_retried_priority_and_a_date(client: Client, nodes: Nodes, journal: Path) -> None:
    low = [client.submit(ops.nap, 0, f"low{n}") for n in range(10)]
    high = client.with_options(priority=1).submit(ops.nap, 0, "high")
    asked = time.monotonic()
    dated = client.with_options(delay=1.5).submit(ops.nap, 0, "dated")  # the worker is there by then, or soon
    nodes.worker(slots=1)
    for handle in [*low, high, dated]:
        handle.wait(10)
    started = [(line[3], float(line[0])) for line in lines(journal, "start")]
    assert started[0][0] == "high"
    assert started[-1][0] == "dated"
    due = max(asked + 1.5, started[-2][1])
    assert asked + 1.5 <= started[-1][1] <= due + here(0.5)


# ------------------------------------------------------------------------------------------------ healing


@pytest.fixture
def healing(url: str, client: Client, journal: Path) -> Iterator[Client]:
    """A client of a group whose nodes start each other; ends whatever is there."""
    environ = {**environ_of(FAST), "JOURNAL": str(journal)}
    folder = str(Path(__file__).parents[2])
    common = {"store": url, "group": "default", "folder": folder, "environ": environ}
    options = ("--import", "tests.cluster.ops", "--slots", "1")
    client.store.put("template:worker", NodeTemplate("worker", options=options, **common).dumps())
    client.store.put("template:coordinator", NodeTemplate("coordinator", **common).dumps())
    yield client
    client.store.put("bounds", "")
    for role in ("worker", "coordinator"):
        client.store.put(f"template:{role}", "")
    deadline = time.monotonic() + 15
    while members := client.members():
        for member in members:
            if member.pid:
                with_pid(member.pid, signal.SIGKILL)
            client.store.leave(member.node, member.incarnation)
        assert time.monotonic() < deadline, members
        time.sleep(0.05)


def with_pid(pid: int, number: int) -> None:
    assert pid != os.getpid(), "a member of this process"
    try:
        os.kill(pid, number)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def counts(client: Client) -> tuple[int, int]:
    members = client.members()
    return (
        sum(m.role == "worker" and m.state == "up" for m in members),
        sum(m.role == "coordinator" and m.state == "up" for m in members),
    )


def test_the_group_heals_in_both_directions(healing: Client, journal: Path) -> None:  # G-21, G-25, G-26, G-27
    client = healing
    write_bounds(client.store, Bounds(3, 3))
    most = [0, 0]

    def settled() -> bool:
        workers, coordinators = counts(client)
        most[0], most[1] = max(most[0], workers), max(most[1], coordinators)
        return (workers, coordinators) == (3, 1) and leader(client) is not None

    assert client.revive()
    assert not client.revive()
    wait_for(settled, 15, "3 workers and a coordinator")
    workers = [m for m in client.members() if m.role == "worker"]
    for member in workers[:2]:
        with_pid(member.pid, signal.SIGKILL)
    wait_for(lambda: counts(client)[0] < 3)
    wait_for(settled, 15, "the killed workers are replaced")
    for member in client.members():
        if member.node != workers[2].node:  # mutual extinction, but for one worker
            with_pid(member.pid, signal.SIGKILL)
    wait_for(lambda: counts(client) != (3, 1))
    wait_for(settled, 15, "the last worker brings everybody back")
    spawned = [e.subject for e in all_events(client.store) if e.kind == "spawn" and e.detail == "coordinator"]
    assert len(spawned) == 2
    assert most == [3, 1]


def test_a_client_brings_back_a_group_of_which_everybody_was_just_killed(
    healing: Client, url: str
) -> None:  # G-27: their leases still run, so that nobody knows yet
    write_bounds(healing.store, Bounds(1, 1))
    assert healing.revive()
    wait_for(lambda: counts(healing) == (1, 1), 10)
    began = time.monotonic()
    assert not healing.revive()
    assert time.monotonic() - began < here(FAST.heartbeat)  # one that lives says so when it is asked
    dead = healing.members()
    for member in dead:
        with_pid(member.pid, signal.SIGKILL)
    handle = healing.submit(ops.add, 1, 2)
    began = time.monotonic()
    with Client(url, ensure=True, settings=FAST) as client:
        assert time.monotonic() - began < FAST.member_ttl + here(5.0)  # a process starts
        (coordinator,) = [m for m in client.members() if m.role == "coordinator"]
        assert coordinator.state == "up"
        assert coordinator.pid not in [m.pid for m in dead]
    assert handle.result(15) == 3


@on("redis")
def test_whose_process_on_this_machine_is_gone_is_not_waited_for(
    healing: Client, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # G-27
    monkeypatch.setattr("cluster.healing.SILENCE", 0.2)
    slow, gate = replace(FAST, member_ttl=60.0, coordinator_lease=60.0), tmp_path / "gate"
    with Nodes(url, imports=["tests.cluster.ops"], settings=slow) as nodes:
        coordinator, worker = nodes.coordinator("--name", "c"), nodes.worker("--name", "w", slots=1)
        handle = healing.submit(ops.until, str(gate))
        wait_for(lambda: leader(healing) == "c" and healing.store.assignments())
        healing.store.join(Member("far", "i", "worker", host="elsewhere", pid=worker.pid), 60.0)
        coordinator.kill()
        worker.process.kill()  # nobody has waited for it: it stays as a zombie
        write_bounds(healing.store, Bounds(2, 2))
        began = time.monotonic()
        assert healing.revive()
        wait_for(lambda: leader(healing) not in (None, "c") and counts(healing) == (2, 1))
        assert time.monotonic() - began < here(slow.member_ttl / 4)
        gate.touch()
        assert {m.node for m in healing.members()}.isdisjoint({"c", "w"})
        assert handle.wait(10).losses == 1  # as if its lease had run out: max_losses holds
        healing.store.leave("far", "i")


def test_a_coordinator_hears_at_once_that_it_is_asked_and_drained(url: str, client: Client) -> None:  # G-27
    slow = replace(FAST, heartbeat=60.0, member_ttl=200.0)
    coordinator = Coordinator(url, name="c", settings=slow)
    running = gevent.spawn(coordinator.run)
    wait_for(client.members, sleep=gevent.sleep)
    began = time.monotonic()
    assert not client.revive()
    assert client.store.drain("c")
    running.get(timeout=here(2.0))
    assert time.monotonic() - began < here(2.0)
    assert client.members() == []
    coordinator.store.close()


def test_reviving_what_nobody_has_started_says_what_to_do(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:  # G-27
    assert not client.revive()
    assert "tasklets cluster up" in caplog.text


class _Counting:
    """A provisioner that starts nothing, and counts."""

    def __init__(self) -> None:
        self.started: list[tuple[str, str]] = []

    def start(self, template: NodeTemplate, node: str, spawn_id: str) -> Started:
        self.started.append((node, spawn_id))
        return self

    def poll(self) -> int | None:
        return None

    def tail(self) -> str:
        return ""

    def stop(self) -> None:
        pass


def test_of_five_that_miss_a_coordinator_one_starts_it(url: str, client: Client) -> None:  # G-26, A-39
    client.store.put("template:coordinator", NodeTemplate("coordinator", url, "default").dumps())
    settings = replace(FAST, coordinator_missing=0.0, coordinator_jitter=0.0)
    counting = _Counting()
    stores = [open_store(url) for _ in range(5)]
    for repetition in range(1, 21):
        healers = [
            Healer(store, settings, f"w{n}", find_provisioner=lambda _: counting)
            for n, store in enumerate(stores)
        ]
        for _ in range(2):  # the first look notices, the second acts
            gevent.joinall(
                [gevent.spawn(healer.look_for_coordinator, []) for healer in healers], raise_error=True
            )
        assert len(counting.started) == repetition
        node, spawn_id = counting.started[-1]
        (coming,) = client.members()
        assert (coming.node, coming.spawn_id, coming.state) == (node, spawn_id, "joining")
        client.store.leave(node, "")
    assert kinds(client, "spawn") == ["spawn"] * 20
    for store in stores:
        store.close()


def test_a_start_that_never_joins_is_given_up_and_tried_again_later(
    url: str, client: Client
) -> None:  # A-39, G-23
    client.store.put("template:worker", NodeTemplate("worker", url, "default").dumps())
    counting = _Counting()
    healer = Healer(client.store, replace(FAST, spawn_grace=0.1), "w", find_provisioner=lambda _: counting)
    assert healer.spawn("worker", 1)
    assert not healer.spawn("worker", 1)  # one is on its way

    def checked() -> list[str]:
        healer.check(client.members())
        return kinds(client, "spawn-failed")

    wait_for(checked)
    assert not healer.spawn("worker", 1)  # not in a hot loop
    wait_for(lambda: healer.spawn("worker", 1), 2)
    first, second = (e.at for e in all_events(client.store) if e.kind == "spawn")
    assert second - first >= 0.3
    assert len(counting.started) == 2


@on("sqlite")
@pytest.mark.timeout(300)
def test_five_workers_replace_a_coordinator_by_one(
    healing: Client, nodes: Nodes, full_size: bool
) -> None:  # G-25, G-26
    client = healing
    client.store.put("template:worker", "")
    for _ in range(5):
        nodes.worker(slots=1)
    wait_for(lambda: counts(client) == (5, 1), 20)
    for repetition in range(20 if full_size else 1):
        (old,) = [m for m in client.members() if m.role == "coordinator"]
        with_pid(old.pid, signal.SIGKILL)
        assert client.submit(ops.add, repetition, 1).result(10) == repetition + 1
        wait_for(lambda old=old: leader(client) not in (None, old.node) and counts(client) == (5, 1), 15)
        assert kinds(client, "spawn") == ["spawn"] * (repetition + 2)


@on("sqlite")
@pytest.mark.timeout(120)
def test_backlog_grows_the_group_and_idleness_shrinks_it(
    healing: Client, full_size: bool
) -> None:  # A-40, G-22, G-24
    client = healing
    write_bounds(client.store, Bounds(1, 3, slots=1))
    client.revive()
    handles = client.with_options().map(ops.nap, [0.05] * (500 if full_size else 120))
    wait_for(lambda: counts(client)[0] == 3, 20)
    for handle in handles:
        handle.result(60)
    wait_for(lambda: counts(client) == (1, 1), 20, "idle workers go")
    events = all_events(client.store)
    # Whoever was retired has finished what it ran: no task was given to a second worker.
    assert check_journal(events, task_ids=[h.task_id for h in handles])["executions"] == len(handles)
    there, most = set(), 0
    for event in events:
        if event.kind == "join" and event.detail == "worker":
            there.add(event.subject)
        elif event.kind in ("leave", "expire"):
            there.discard(event.subject)
        most = max(most, len(there))
    assert most == 3


@on("redis")
def test_long_tasks_get_a_slot_each_also_when_one_of_them_is_killed(
    healing: Client, tmp_path: Path
) -> None:  # G-22
    client, gate = healing, tmp_path / "gate"
    write_bounds(client.store, Bounds(1, 2, slots=1, patience=0.2))
    client.revive()
    handles = [client.submit(ops.until, str(gate)) for _ in range(3)]

    def at_work() -> list[Member]:
        return [m for m in client.members() if m.role == "worker" and m.running]

    wait_for(lambda: len(at_work()) == 2)
    victim = at_work()[0]
    with_pid(victim.pid, signal.SIGKILL)
    wait_for(lambda: len([m for m in at_work() if m.node != victim.node]) == 2)
    assert counts(client)[0] == 2  # as many as are allowed
    gate.touch()
    for handle in handles:
        handle.wait(10)


@on("redis")
def test_a_template_that_cannot_start_is_tried_ever_more_rarely(healing: Client) -> None:  # G-23
    client = healing
    template = NodeTemplate.loads(client.store.get("template:worker"))
    broken = NodeTemplate(
        **{**{n: getattr(template, n) for n in template.__slots__}, "options": ("--no-such-option",)}
    )
    client.store.put("template:worker", broken.dumps())
    write_bounds(client.store, Bounds(1, 1))
    client.revive()
    wait_for(lambda: len(kinds(client, "spawn-failed")) >= 3, 20)
    failures = [e for e in all_events(client.store) if e.kind == "spawn-failed"]
    assert "no-such-option" in failures[0].detail
    spawns = [e.at for e in all_events(client.store) if e.kind == "spawn" and e.detail == "worker"]
    assert spawns[2] - spawns[1] > 0.2
    assert counts(client)[0] == 0


@on("sqlite")
def test_spawning_by_ssh_runs_the_command_there(
    url: str, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Path
) -> None:  # by the system's own ssh; here one that runs the command on this machine
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(
        '#!/bin/sh\necho "$3" >> "$(dirname "$0")/hosts"\necho "$@" >> "$(dirname "$0")/words"\nexec sh -c "$4"\n'
    )
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{ssh.parent}{os.pathsep}{os.environ['PATH']}")
    template = NodeTemplate(
        "worker", url, "default", ("--import", "tests.cluster.ops", "--slots", "1"), str(Path(__file__).parents[2]),
        environ_of(FAST), "elsewhere", sys.executable,
    )  # fmt: skip
    client.store.put("template:worker", template.dumps())
    healer = Healer(client.store, FAST, "test")
    assert healer.spawn("worker", 1)
    assert not healer.spawn("worker", 1)
    assert client.submit(ops.add, 1, 2).result(15) == 3
    (member,) = client.members()
    assert (ssh.parent / "hosts").read_text() == "elsewhere\n"
    assert (
        url not in (ssh.parent / "words").read_text()
    )  # it may hold a password, and command lines are public
    client.store.drain(member.node)
    wait_for(lambda: not client.members(), 10)
    wait_for(lambda: healer.check([]) or not healer._spawns, 10)


def test_a_name_taken_is_an_error_of_its_own(client: Client) -> None:
    from cluster import Worker

    worker = Worker(client.store, name="w", inline=True, slots=1, settings=FAST)
    worker._join()
    with pytest.raises(NameTaken):
        Worker(client.store, name="w", inline=True, slots=1, settings=FAST)._join()
    worker._leave()
