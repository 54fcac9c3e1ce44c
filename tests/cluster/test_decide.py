"""The decisions: pure functions, tested by their properties."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, strategies as st

from cluster._decide import (
    Backlog,
    Bounds,
    Failure,
    Turns,
    backlog_of,
    buckets_of,
    deal,
    delay_after,
    desired_workers,
    lacks_coordinator,
    plan_workers,
    preferred,
    repairs,
    share,
    should_hand_over,
    spawn_pause,
    why_waiting,
    winner,
)
from cluster.policy import Policy, Retry
from cluster.records import BUCKETS, Assignment, Member, Statistics, Survey, Task, TaskState

names = st.text("abcdef", min_size=1, max_size=4)
assignments = st.builds(
    Assignment,
    task_id=st.sampled_from(["t1", "t2", "t3"]),
    node=names,
    incarnation=st.just("i"),
    fence=st.integers(1, 1000),
    attempt=st.just(1),
    since=st.just(0.0),
    lease_until=st.just(0.0),
    running=st.booleans(),
    by=st.just(""),
)


def worker(node: str, **fields: object) -> Member:
    return Member(node, "i", "worker", **{"slots": 2, **fields})  # type: ignore[arg-type]


members = st.lists(
    st.builds(
        Member,
        node=names,
        incarnation=st.just("i"),
        role=st.sampled_from(["worker", "coordinator"]),
        state=st.sampled_from(["joining", "up", "draining"]),
        slots=st.integers(0, 4),
        running=st.integers(0, 4),
        joined=st.floats(0, 100),
        idle_since=st.sampled_from([0.0, 10.0, 95.0]),
    ),
    unique_by=lambda m: m.node,
    max_size=8,
)


@given(st.lists(assignments, min_size=1, max_size=6), st.randoms())
def test_the_winner_does_not_depend_on_the_order(rows: list[Assignment], rnd: object) -> None:  # G-18
    shuffled = rows[:]
    rnd.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = winner(rows), winner(shuffled)
    assert (first.running, first.fence, first.node) == (second.running, second.fence, second.node)
    if any(row.running for row in rows):
        assert first.running


@given(st.lists(assignments, max_size=8, unique_by=lambda a: (a.task_id, a.node)))
def test_of_duplicates_exactly_one_is_left(rows: list[Assignment]) -> None:  # G-17
    by_task: dict[str, list[Assignment]] = {}
    for row in rows:
        by_task.setdefault(row.task_id, []).append(row)
    doubled = tuple(tuple(several) for several in by_task.values() if len(several) > 1)
    revoked = {
        (r.task_id, r.node) for r in repairs(Survey(0.0, duplicates=doubled), b"", b"") if r.kind == "revoke"
    }
    for several in doubled:
        assert sum((row.task_id, row.node) not in revoked for row in several) == 1


@given(st.lists(assignments, max_size=6, unique_by=lambda a: (a.task_id, a.node)))
def test_nothing_is_revoked_twice_in_a_pass(rows: list[Assignment]) -> None:  # G-16
    survey = Survey(
        0.0, expired=tuple(rows), orphans=tuple(rows[:2]), duplicates=(tuple(rows),) if len(rows) > 1 else ()
    )
    revoked = Counter((r.task_id, r.node, r.fence) for r in repairs(survey, b"", b"") if r.kind == "revoke")
    assert not revoked or max(revoked.values()) == 1


@given(st.integers(0, 500), st.integers(1, 9))
def test_shares_partition(total: int, count: int) -> None:
    shares = [share(total, index, count) for index in range(count)]
    assert [n for part in shares for n in part] == list(range(total))
    sizes = [len(part) for part in shares]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


@given(st.lists(names, min_size=2, max_size=6, unique=True), st.data())
def test_a_node_that_leaves_moves_only_its_own_buckets(nodes: list[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(nodes))
    left = [node for node in nodes if node != gone]
    for bucket in range(BUCKETS):
        before = preferred(bucket, nodes)
        if before != gone:
            assert preferred(bucket, left) == before


@given(st.lists(names, min_size=1, max_size=5, unique=True))
def test_every_bucket_has_one_node(nodes: list[str]) -> None:
    assert sorted(b for node in nodes for b in buckets_of(node, nodes)) == list(range(BUCKETS))


def test_two_nodes_get_about_half_of_the_buckets_each() -> None:
    for number in range(50):
        pair = [f"host-{number}", f"host-{number + 1}"]
        assert 0.35 < len(buckets_of(pair[0], pair)) / BUCKETS < 0.65


@given(members, st.integers(0, 100), st.dictionaries(names, st.integers(0, 3)))
def test_dealing_never_passes_the_slots(
    group: list[Member], ready: int, held: dict[str, int]
) -> None:  # G-09
    dealt = deal(group, held, ready)
    by_name = {m.node: m for m in group}
    assert sum(dealt.values()) <= ready
    for node, count in dealt.items():
        member = by_name[node]
        assert (member.role, member.state) == ("worker", "up")
        assert held.get(node, 0) + count <= member.slots


backlogs = st.builds(Backlog, ready=st.integers(0, 100), running=st.integers(0, 50), waits=st.floats(0, 20))


@given(members, st.integers(0, 3), st.integers(0, 5), backlogs, st.integers(1, 4))
def test_a_plan_keeps_within_the_bounds(
    group: list[Member], least: int, more: int, backlog: Backlog, slots: int
) -> None:  # G-21, G-22, G-24, G-27
    bounds = Bounds(least, least + more, slots)
    plan = plan_workers(group, bounds, backlog, 100.0, 30.0)
    there = [m for m in group if m.role == "worker" and m.state != "draining"]
    after = len(there) + plan.spawn - len(plan.retire)
    assert not (plan.spawn and plan.retire)
    assert plan.spawn == 0 or after <= bounds.most
    assert after >= min(len(there), bounds.least)
    if len(there) < bounds.least:
        assert after >= bounds.least
    idle = {m.node for m in there if m.running == 0 and m.idle_since == 10.0}
    assert set(plan.retire) <= idle


@given(backlogs)
def test_what_is_wanted_grows_with_the_backlog_and_with_its_age(backlog: Backlog) -> None:
    bounds = Bounds(1, 10, 2)
    wanted = desired_workers(bounds, backlog)
    assert 1 <= wanted <= 10
    assert desired_workers(bounds, replace(backlog, ready=backlog.ready + 1)) >= wanted
    assert desired_workers(bounds, replace(backlog, waits=backlog.waits + 10.0)) >= wanted


def test_long_tasks_want_a_slot_each() -> None:  # G-22: expected time, as far as the queue shows it
    bounds = Bounds(1, 4, slots=1)
    assert desired_workers(bounds, Backlog(ready=6, running=2, waits=1.0)) == 2
    assert desired_workers(bounds, Backlog(ready=6, running=2, waits=6.0)) == 4
    assert desired_workers(bounds, Backlog(ready=1, running=2, waits=6.0)) == 3
    assert desired_workers(bounds, Backlog(running=4)) == 1  # nothing waits for a slot


def test_what_such_workers_do_not_serve_wants_none_of_them() -> None:  # G-22
    statistics = Statistics(
        {"a": {"ready": 1, "assigned": 5}, "b": {"ready": 10}, "c": {"ready": 100}},
        {},
        {"b": 20.0, "c": 50.0},
    )
    group = [worker("up", running=2), worker("gone", running=3, state="draining")]
    bounds = Bounds(1, 9, queues=["a", "b"])
    assert backlog_of(group, statistics, {}, bounds) == Backlog(11, 2, 20.0)
    assert backlog_of(group, statistics, {"b": {"paused": 1}}, bounds) == Backlog(1, 2, 0.0)
    assert backlog_of(group, statistics, {}, Bounds(1, 9)) == Backlog(111, 2, 50.0)


def test_who_is_on_its_way_counts() -> None:  # A3.10, G-21
    group = [worker("a", state="joining"), worker("b", state="up"), worker("c", state="draining")]
    assert plan_workers(group, Bounds(3, 3), Backlog(), 0.0, 30.0).spawn == 1
    assert lacks_coordinator(group)
    assert not lacks_coordinator([*group, Member("x", "", "coordinator", "joining")])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_handing_over_ends_with_even_numbers(leads: list[int]) -> None:  # G-28
    for _ in range(sum(leads)):
        for giver, its in enumerate(leads):
            others = leads[:giver] + leads[giver + 1 :]
            if should_hand_over(its, others):
                taker = min(range(len(leads)), key=lambda n: leads[n])
                leads[giver] -= 1
                leads[taker] += 1
    assert max(leads) - min(leads) <= 1


@given(st.integers(1, 80), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_to_the_cap_and_are_spread(failures: int, draw: float) -> None:
    retry = Retry(base=0.2, cap=30.0)
    least = min(30.0, 0.2 * 2 ** (failures - 1))
    pause = retry.delay(failures, lambda: draw)
    assert least <= pause <= 2 * least
    assert retry.delay(failures, lambda: 0.9) - retry.delay(failures, lambda: 0.1) > 0.5 * least


def test_three_retries_are_at_most_four_executions() -> None:  # P-19
    failure = Failure("E", "")
    delays = [
        delay_after(failure, Policy(retry=Retry.immediate(3)), attempts, lambda: 0.5) for attempts in range(5)
    ]
    assert delays == [0.0, 0.0, 0.0, None, None]
    assert delay_after(Failure("E", "", transient=False), Policy(), 0, lambda: 0.5) is None  # P-21
    assert delay_after(Failure("E", "", after=7.0), Policy(), 0, lambda: 0.5) == 7.0
    assert Retry.after(2.0).delay(5, lambda: 0.0) == 2.0


def test_failed_starts_pause_ever_longer() -> None:  # G-23
    assert [spawn_pause(n) for n in (0, 1, 2, 3, 4, 100)] == [0.0, 0.2, 0.4, 0.8, 1.6, 30.0]


def test_turns_follow_the_weights() -> None:
    turns = Turns({"a": 4, "b": 2, "c": 1})
    order = []
    for _ in range(70):
        order.append(turns.order()[0])
        turns.served(order[-1])
    assert Counter(order) == {"a": 40, "b": 20, "c": 10}
    assert "".join(order[:7]) != "aaaabbc"


def test_why_a_task_waits_is_a_sentence() -> None:
    def why(task: Task, *group: Member, queues: dict[str, dict[str, int]] | None = None) -> str:
        return why_waiting(task, group, queues or {}, 100.0, 5)

    ready = Task("t", "mail", "m:send", b"", TaskState.READY)
    serving = {"queues": ("mail",), "ops": ("m:send",)}
    assert "no worker;" in why(ready)
    assert "serves queue 'mail'" in why(ready, worker("w", queues=("other",)))
    assert "knows operation 'm:send'" in why(ready, worker("w", queues=("mail",)))
    assert "all 2 slots" in why(ready, worker("w", running=2, **serving))
    assert "2 of 2 slots are free" in why(ready, worker("w", **serving))
    assert "paused" in why(ready, queues={"mail": {"paused": 1}})
    assert "comes in 5.0 s" in why(Task("t", "q", "o", b"", TaskState.SCHEDULED, due=105.0))
    assert "ordering key 'k'" in why(Task("t", "q", "o", b"", TaskState.BLOCKED, ordering_key="k"))
    assert "runs on w" in why(Task("t", "q", "o", b"", TaskState.ASSIGNED, worker="w"))
    assert "signal j1 resume" in why(Task("t", "q", "o", b"", TaskState.HELD, job_id="j1"))
    idle = Task("j1", "q", "o", b"", TaskState.IDLE, job_id="j1")
    assert why(idle) == "it is the turn of a job, and nothing is in the inbox"
    assert "until its time comes in 5.0 s" in why(replace(idle, due=105.0))
    assert "is done" in why(Task("t", "q", "o", b"", TaskState.DONE))
