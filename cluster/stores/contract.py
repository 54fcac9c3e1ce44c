"""The suite that every engine has to pass: subclass it, say how to open your store, and let pytest collect it.

    class TestMine(StoreContract):
        def open(self, group="default"):
            return MyStore("mine://...", group)      # a handle on the same store each time

Each test closes what it opened. Needs pytest. The tests are about what `base` promises, one promise each.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from cluster.errors import InvalidArguments, LeaseLost, NameTaken, QueueFull
from cluster.records import (
    MAX_PRIORITY,
    PRIORITY_STEP,
    Claim,
    Ending,
    Finish,
    Guard,
    Member,
    NewJob,
    NewSignal,
    NewTask,
    Repair,
    TaskState,
)
from cluster.stores._contract_words import OP
from cluster.stores._keys import bucket_of
from cluster.stores.base import Store
from cluster.stores.contract_jobs import JobContract


class StoreContract(JobContract):
    """See above. What it promises of jobs is in `contract_jobs`."""

    # -- submitting

    def test_a_submitted_task_is_read_back_as_it_was(self) -> None:
        new = NewTask(
            OP,
            b"\x00\xff",
            queue="q",
            priority=3,
            partition_key="pä",
            job_id="j",
            meta=b"\x80m",
            max_losses=7,
        )
        assert self.store.submit([new]) == ["new"]
        task = self.store.task(new.task_id)
        assert task is not None
        assert (task.op, task.args, task.queue, task.priority, task.partition_key) == (
            OP,
            b"\x00\xff",
            "q",
            3,
            "pä",
        )
        assert (task.job_id, task.meta, task.max_losses, task.state) == ("j", b"\x80m", 7, TaskState.READY)
        assert (task.attempts, task.losses, task.ended, task.result, task.error) == (0, 0, None, None, None)

    def test_an_unknown_task_is_none(self) -> None:
        assert self.store.task("no such id") is None

    def test_submitting_an_id_again_changes_nothing(self) -> None:
        new = NewTask(OP, b"first")
        assert self.store.submit([new]) == ["new"]
        assert self.store.submit([NewTask(OP, b"second", task_id=new.task_id)]) == ["known"]
        (claim,) = self.claim(5)
        assert claim.task.args == b"first"
        self.finish(claim, payload=b"result")
        assert self.store.submit([new]) == ["known"]
        assert self.claim() == []

    def test_a_batch_over_the_limit_leaves_nothing(self) -> None:
        self.store.configure_queue("default", max_waiting=10)
        self.submit(4)
        with pytest.raises(QueueFull) as caught:
            self.submit(7)
        assert caught.value.room == 6
        assert self.store.statistics().waiting() == 4
        self.submit(6)
        assert self.store.statistics().waiting() == 10

    def test_a_repeated_batch_needs_no_room(self) -> None:
        self.store.configure_queue("default", max_waiting=3)
        batch = [NewTask(OP, b"") for _ in range(3)]
        self.store.submit(batch)
        assert self.store.submit(batch) == ["known"] * 3

    def test_groups_do_not_see_each_other(self) -> None:
        other = self.again("other")
        self.submit()
        assert other.statistics().waiting() == 0
        assert other.members() == []
        other.declare_group()
        assert "other" in self.store.groups()

    def test_what_stores_put_between_names_is_in_none(self) -> None:
        """Two things with one key would be one thing."""
        wrong: dict[str, Any]
        keys = ("partition_key", "ordering_key", "coalesce_key")
        for field in ("task_id", "op", "queue", "job_id", *keys):
            for text in ("a\x1fb", "a\nb", "\ud800"):
                wrong = {"op": OP, "args": b"", field: text}
                with pytest.raises(InvalidArguments, match=field):
                    self.store.submit([NewTask(**wrong)])
        for field in ("job_id", "cls", "name", "queue"):
            wrong = {field: "a\x1fb"}
            with pytest.raises(InvalidArguments, match=field):
                self.store.start(NewJob(**wrong))
        for field in ("node", "ops", "queues", "labels"):
            wrong = {"node": "n", "incarnation": "i", "role": "worker", field: ("a", "b\nc")}
            with pytest.raises(InvalidArguments, match=field):
                self.store.join(Member(**wrong), 60)
        with pytest.raises(InvalidArguments, match="signal_id"):
            self.store.signal("j", NewSignal(signal_id="a\x1fb"))
        with pytest.raises(InvalidArguments, match="queue"):
            self.store.configure_queue("a\x1fb", paused=True)
        assert self.store.tasks() == []
        assert self.store.jobs() == []
        assert self.store.queues() == {}

    def test_names_that_look_alike_stay_apart(self) -> None:
        names = ["a", "a:b", "a b", "{a}", "a*", "[a]", "a%", "a'", "\xe4", "a\u2028b", "default:a", "a~"]
        for name in names:
            for number in range(2):
                task_id = f"{name}{number}"
                self.store.submit([NewTask(OP, b"", name, task_id, ordering_key=name, partition_key=name)])
        for name in names:
            (claim,) = self.claim(9, queues=[name])
            assert (claim.task.task_id, claim.task.queue) == (f"{name}0", name)
            self.finish(claim)
            (claim,) = self.claim(9, queues=[name])
            assert (claim.task.task_id, claim.task.ordering_key) == (f"{name}1", name)
        tasks = self.store.statistics().tasks
        assert {name: tasks[name]["assigned"] for name in names} == dict.fromkeys(names, 1)
        assert {row.task_id for row in self.store.assignments("w1")} == {f"{name}1" for name in names}

    # -- the line

    def test_tasks_are_claimed_in_order(self) -> None:
        ids = self.submit(20)
        assert [c.task.task_id for c in self.claim(7) + self.claim(13, "w2")] == ids

    def test_a_claim_takes_no_more_than_asked_for_and_marks_the_task(self) -> None:
        (task_id,) = self.submit()
        (claim,) = self.claim(3)
        assert (claim.task.task_id, self.state(task_id)) == (task_id, TaskState.ASSIGNED)
        assert self.claim() == []
        (row,) = self.rows(task_id)
        assert (row.node, row.fence, row.attempt, row.running) == ("w1", claim.fence, 1, True)

    def test_fences_grow(self) -> None:
        self.submit(3)
        fences = [c.fence for c in self.claim(2) + self.claim(1, "w2")]
        assert fences == sorted(set(fences))
        assert self.store.acquire("lock", "me", 10).fence > fences[-1]

    def test_a_higher_priority_goes_first(self) -> None:
        self.submit(20)
        (urgent,) = self.submit(priority=1)
        (claim,) = self.claim()
        assert claim.task.task_id == urgent

    def test_no_priority_starves_the_others(self) -> None:
        (low,) = self.submit()
        self.submit(PRIORITY_STEP - 1, priority=1)
        before = self.claim(PRIORITY_STEP)
        assert low not in [c.task.task_id for c in before[:-1]] or before[-1].task.task_id == low
        self.submit(5, priority=1)
        assert low in {c.task.task_id for c in before + self.claim(1)}

    def test_a_priority_beyond_the_limit_counts_as_the_limit(self) -> None:
        (first,) = self.submit(priority=MAX_PRIORITY)
        self.submit(priority=MAX_PRIORITY * 1000)
        assert self.claim()[0].task.task_id == first

    def test_only_known_operations_and_named_queues_are_claimed(self) -> None:  # P-03, P-35
        self.store.submit([NewTask("other:op", b""), NewTask(OP, b"", queue="elsewhere")])
        assert self.claim(5) == []
        assert len(self.claim(5, ops=["other:op"])) == 1
        assert len(self.claim(5, queues=["elsewhere"])) == 1

    def test_queues_are_served_in_the_order_named(self) -> None:
        self.store.submit([NewTask(OP, b"", queue="a"), NewTask(OP, b"", queue="b")])
        assert [c.task.queue for c in self.claim(2, queues=["b", "a"])] == ["b", "a"]

    def test_a_paused_queue_gives_nothing(self) -> None:
        self.submit()
        self.store.configure_queue("default", paused=True)
        assert self.claim() == []
        assert self.store.queues()["default"]["paused"]
        self.store.configure_queue("default", paused=False)
        assert len(self.claim()) == 1

    def test_partition_keys_go_to_those_who_prefer_them(self) -> None:
        keys = [f"key {i}" for i in range(40)]
        self.store.submit([NewTask(OP, b"", partition_key=key) for key in keys])
        evens = [c.task.partition_key for c in self.claim(100, buckets=range(0, 256, 2))]
        assert sorted(map(str, evens)) == sorted(key for key in keys if bucket_of(key) % 2 == 0)
        assert len(self.claim(100)) == 40 - len(evens)

    # -- time

    def test_a_task_is_not_claimed_before_its_time(self) -> None:
        (task_id,) = self.submit(delay=0.15)
        claims, due = self.store.claim("w1", "w1-1", 1, queues=["default"], ops=[OP], lease=30)
        assert (claims, self.state(task_id)) == ([], TaskState.SCHEDULED)
        assert due is not None
        assert 0 < due <= 0.15
        time.sleep(0.16)
        assert self.claim()[0].task.task_id == task_id

    def test_scheduled_tasks_become_ready_in_the_order_of_their_dates(self) -> None:  # A-06, G-15
        now = self.store.now()
        dates = [0.05, 0.01, 0.04, 0.02, 0.03]
        self.store.submit([NewTask(OP, str(d).encode(), not_before=now + d) for d in dates])
        time.sleep(0.1)
        assert self.store.promote(3) == 3
        assert self.store.promote(3) == 2
        assert [float(c.task.args) for c in self.claim(5)] == sorted(dates)

    # -- ends

    def test_a_result_is_recorded_once(self) -> None:  # U6
        self.submit()
        (claim,) = self.claim()
        assert self.finish(claim, payload=b"42")
        assert not self.finish(claim, payload=b"43")
        task = self.store.task(claim.task.task_id)
        assert task is not None
        assert (task.state, task.result, task.worker) == (TaskState.DONE, b"42", "w1")
        assert self.rows(task.task_id) == []
        counters = self.store.statistics().counters
        assert (counters["completed"], counters["stale_completions"]) == (1, 1)

    def test_another_node_or_fence_ends_nothing(self) -> None:
        self.submit()
        (claim,) = self.claim()
        assert not self.finish(claim, node="w2")
        assert not self.finish(Claim(claim.task, claim.fence + 1))
        assert self.state(claim.task.task_id) == TaskState.ASSIGNED

    def test_a_failed_attempt_comes_back_later_and_counts(self) -> None:
        self.submit()
        (claim,) = self.claim()
        assert self.finish(claim, Ending.AGAIN, failed=True, after=0.05, payload=b"why")
        task = self.store.task(claim.task.task_id)
        assert task is not None
        assert (task.state, task.attempts, task.error) == (TaskState.SCHEDULED, 1, b"why")
        assert self.claim() == []
        time.sleep(0.06)
        (second,) = self.claim()
        assert (second.task.attempts, second.fence > claim.fence) == (1, True)

    def test_a_step_and_its_data_are_kept_and_reset_the_attempts(self) -> None:
        self.submit()
        self.finish(self.claim()[0], Ending.AGAIN, failed=True)
        assert self.finish(self.claim()[0], Ending.AGAIN, step="stamp", data=b"d")
        (claim,) = self.claim()
        assert (claim.task.step, claim.task.data, claim.task.attempts) == ("stamp", b"d", 0)

    def test_a_released_task_keeps_its_place(self) -> None:
        ids = self.submit(3)
        (claim,) = self.claim()
        assert self.finish(claim, Ending.RELEASED)
        assert [c.task.task_id for c in self.claim(3)] == ids

    def test_a_task_that_kills_its_workers_is_dead(self) -> None:  # G-13
        self.submit(max_losses=2)
        self.finish(self.claim()[0], Ending.LOST)
        (claim,) = self.claim()
        assert (claim.task.losses, claim.task.attempts) == (1, 0)
        self.finish(claim, Ending.LOST)
        task = self.store.task(claim.task.task_id)
        assert task is not None
        assert (task.state, task.losses) == (TaskState.DEAD, 2)
        assert b"WorkerLost" in (task.error or b"")

    def test_a_dead_task_is_listed_and_replayed(self) -> None:
        self.submit(2)
        (claim,) = self.claim()
        self.finish(claim, Ending.DEAD, payload=b"boom")
        (dead,) = self.store.tasks(state="dead")
        assert (dead.task_id, dead.error, dead.attempts) == (claim.task.task_id, b"boom", 1)
        assert self.store.replay([dead.task_id, "unknown"]) == 1
        assert self.store.tasks(state="dead") == []
        assert [c.task.attempts for c in self.claim(5) if c.task.task_id == dead.task_id] == [0]

    def test_children_appear_with_the_end_that_counts(self) -> None:
        self.submit()
        (claim,) = self.claim()
        child = NewTask(OP, b"child")
        assert not self.finish(claim, node="w2", children=(child,))
        assert self.store.task(child.task_id) is None
        assert self.finish(claim, children=(child,))
        assert self.state(child.task_id) == TaskState.READY

    def test_ends_of_several_tasks_go_in_one_call(self) -> None:
        self.submit(3)
        claims = self.claim(3)
        ends = [Finish(c.task.task_id, c.fence, Ending.DONE, b"r") for c in claims]
        assert self.store.finish("w1", [*ends, ends[0]]) == [True, True, True, False]
        assert self.store.finish("w1", []) == []

    def test_a_claim_records_the_ends_that_came_with_it_first(self) -> None:
        first, second = self.submit(2, ordering_key="k")
        (claim,) = self.claim(2)
        end = Finish(claim.task.task_id, claim.fence, Ending.DONE, b"r")
        (following,) = self.claim(2, ends=[end])  # its key is free now
        assert (following.task.task_id, self.state(first)) == (second, TaskState.DONE)
        assert self.claim(2, ends=[end]) == []  # said again, after the answer was lost
        assert self.store.statistics().counters["stale_completions"] == 1

    def test_a_claim_of_no_member_records_nothing(self) -> None:
        (task_id,) = self.submit()
        (claim,) = self.claim()
        end = Finish(task_id, claim.fence, Ending.DONE, b"r")
        with pytest.raises(LeaseLost):
            self.store.claim("w1", "another", 1, queues=["default"], ops=[OP], lease=30.0, ends=[end])
        assert self.state(task_id) == TaskState.ASSIGNED

    def test_cancelling_ends_a_waiting_and_a_running_task(self) -> None:
        waiting, running = self.submit(2)
        self.store.cancel(waiting)
        (claim,) = self.claim(2)
        assert claim.task.task_id == running
        assert self.store.cancel(running)
        assert not self.finish(claim)
        assert {self.state(waiting), self.state(running)} == {TaskState.CANCELLED}
        assert not self.store.cancel(running)
        assert not self.store.cancel("unknown")

    # -- ordering keys

    def test_tasks_of_one_key_run_one_at_a_time_and_in_order(self) -> None:
        ids = self.submit(3, ordering_key="k")
        (other,) = self.submit(ordering_key="other")
        claims = self.claim(9)
        assert {c.task.task_id for c in claims} == {ids[0], other}
        assert self.state(ids[1]) == TaskState.BLOCKED
        for expected in ids[1:]:
            self.finish(claims[0])
            claims = self.claim(9)
            assert [c.task.task_id for c in claims] == [expected]

    def test_a_retried_head_blocks_its_key_and_a_dead_one_does_not(self) -> None:  # A3.2, X5.2
        first, second = self.submit(2, ordering_key="k")
        self.finish(self.claim()[0], Ending.AGAIN, failed=True, after=30.0)
        assert self.claim() == []
        assert self.state(second) == TaskState.BLOCKED
        assert self.store.cancel(first)
        (claim,) = self.claim()
        (third,) = self.submit(ordering_key="k")
        self.finish(claim, Ending.DEAD)
        assert self.claim()[0].task.task_id == third

    def test_a_lost_head_stays_the_head(self) -> None:  # A3.3
        first, _ = self.submit(2, ordering_key="k")
        self.finish(self.claim()[0], Ending.LOST)
        assert [c.task.task_id for c in self.claim(9)] == [first]

    def test_cancelling_a_blocked_task_changes_nothing_for_the_others(self) -> None:
        first, second, third, fourth = self.submit(4, ordering_key="k")
        assert self.store.cancel(second)
        for expected in (first, third, fourth):
            (claim,) = self.claim(9)
            assert claim.task.task_id == expected
            self.finish(claim)

    def test_a_replayed_task_goes_behind_its_key(self) -> None:
        first, second = self.submit(2, ordering_key="k")
        self.finish(self.claim()[0], Ending.DEAD)
        (claim,) = self.claim()
        self.store.replay([first])
        assert (claim.task.task_id, self.state(first)) == (second, TaskState.BLOCKED)
        self.finish(claim)
        assert self.claim()[0].task.task_id == first

    # -- coalescing

    def test_a_task_that_is_not_due_absorbs_others_of_its_key(self) -> None:
        tasks = [NewTask(OP, b"%d" % i, coalesce_key="user 7", delay=0.1) for i in range(5)]
        assert [self.store.submit([task])[0] for task in tasks] == ["new"] + ["merged"] * 4
        assert self.store.submit([tasks[2]]) == ["known"]
        time.sleep(0.11)
        (claim,) = self.claim(9)
        assert (claim.task.args, *claim.task.more) == (b"0", b"1", b"2", b"3", b"4")
        merged = self.store.task(tasks[3].task_id)
        assert merged is not None
        assert (merged.state, merged.merged_into) == (TaskState.MERGED, tasks[0].task_id)

    def test_a_task_that_runs_absorbs_nothing(self) -> None:  # A-20, A3.4
        self.submit(coalesce_key="k", delay=0.01)
        time.sleep(0.02)
        assert self.store.submit([NewTask(OP, b"", coalesce_key="k", delay=0.01)]) == ["new"]
        self.claim(1)
        assert self.store.submit([NewTask(OP, b"", coalesce_key="k", delay=5)]) in (["new"], ["merged"])

    # -- members

    def test_a_member_is_listed_until_it_leaves_or_expires(self) -> None:  # G-02, A-37
        self.join("w3", ttl=0.05, host="h", pid=7, labels=("gpu",), queues=("a", "b"))
        member = self.store.members()[-1]
        assert (member.node, member.host, member.pid, member.labels) == ("w3", "h", 7, ("gpu",))
        assert (member.ops, member.queues, member.slots) == ((OP,), ("a", "b"), 4)
        self.store.leave("w1", "w1-1")
        assert [m.node for m in self.store.members()] == ["w2", "w3"]
        time.sleep(0.06)
        assert [m.node for m in self.store.members()] == ["w2"]

    def test_a_live_name_is_taken(self) -> None:  # G-02
        with pytest.raises(NameTaken, match="w1"):
            self.store.join(Member("w1", "another", "worker"), 10)

    def test_a_name_is_free_again_after_the_lease(self) -> None:
        self.join("w3", ttl=0.02)
        time.sleep(0.03)
        self.store.join(Member("w3", "another", "worker"), 10)
        assert self.store.members()[-1].incarnation == "another"

    def test_an_expired_member_neither_renews_nor_claims(self) -> None:  # G-31
        member = self.join("w3", ttl=0.02)
        self.submit()
        time.sleep(0.03)
        with pytest.raises(LeaseLost):
            self.store.renew(member, 10, 10)
        with pytest.raises(LeaseLost):
            self.claim(1, "w3")
        assert self.store.statistics().count("ready") == 1

    def test_a_heartbeat_says_what_is_held_and_renews_it(self) -> None:
        member = self.join("w3")
        self.submit(2)
        (claim,) = self.claim(1, "w3", lease=0.05)
        beat = self.store.renew(member, 10, 20)
        assert beat.held == ((claim.task.task_id, claim.fence, True),)
        (row,) = self.store.assignments("w3")
        assert row.lease_until - beat.now == pytest.approx(20, abs=0.5)
        self.store.cancel(claim.task.task_id)
        assert self.store.renew(member, 10, 20).held == ()

    def test_leaving_gives_back_what_is_held(self) -> None:
        (task_id,) = self.submit()
        (claim,) = self.claim()
        self.store.leave("w1", "w1-1")
        assert self.state(task_id) == TaskState.READY
        assert not self.finish(claim)

    def test_drain_reaches_the_member_with_its_heartbeat(self) -> None:  # G-24
        member = self.join("w3")
        assert self.store.drain("w3")
        assert not self.store.drain("w3")
        assert self.store.renew(member, 10, 10).state == "draining"
        assert self.store.members()[-1].state == "draining"

    def test_reserving_counts_those_on_their_way(self) -> None:  # G-21, A-39
        grace: dict[str, Any] = {"grace": 30.0, "limit": 3}
        assert self.store.reserve("n1", "worker", spawn_id="s1", **grace)
        assert not self.store.reserve("n1b", "worker", spawn_id="s1", **grace)
        assert not self.store.reserve("n2", "worker", spawn_id="s2", **grace)
        assert self.store.reserve("c1", "coordinator", spawn_id="s3", **grace)
        assert [m.state for m in self.store.members()] == ["up", "up", "joining", "joining"]
        self.store.join(Member("real name", "i", "worker", spawn_id="s1"), 10)
        assert {m.node for m in self.store.members()} == {"w1", "w2", "c1", "real name"}

    def test_of_many_that_reserve_at_once_one_succeeds(self) -> None:  # G-26
        won: list[int] = []

        def reserve(number: int) -> None:
            store = self.open()
            if store.reserve(f"c{number}", "coordinator", spawn_id=f"s{number}", grace=30, limit=1):
                won.append(number)
            store.close()

        threads = [threading.Thread(target=reserve, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1

    # -- locks

    def test_a_lock_has_one_holder_and_growing_fences(self) -> None:  # G-05, A-42
        first = self.store.acquire("l", "a", 0.05)
        assert first.holder == "a"
        assert self.store.acquire("l", "b", 10) == first
        time.sleep(0.06)
        assert self.store.lock("l") is None
        second = self.store.acquire("l", "b", 10)
        assert second.holder == "b"
        assert second.fence > first.fence
        assert not self.store.renew_lock("l", first.fence, 10)
        assert not self.store.release("l", first.fence)
        assert self.store.renew_lock("l", second.fence, 10)
        assert self.store.release("l", second.fence)
        assert self.store.lock("l") is None

    def test_taking_ones_own_lock_again_keeps_the_fence(self) -> None:
        first = self.store.acquire("l", "a", 10)
        assert self.store.acquire("l", "a", 20).fence == first.fence

    def test_a_guarded_write_needs_the_lock(self) -> None:  # G-07, A-42
        old = self.store.acquire("l", "a", 0.03)
        guard = Guard("l", old.fence)
        self.store.submit([NewTask(OP, b"")], guard=guard)
        time.sleep(0.04)
        with pytest.raises(LeaseLost, match="nobody"):
            self.store.submit([NewTask(OP, b"")], guard=guard)
        self.store.acquire("l", "b", 10)
        with pytest.raises(LeaseLost, match="b"):
            self.store.promote(10, guard=guard)
        with pytest.raises(LeaseLost):
            self.store.repair([Repair("requeue", "x")], guard=guard)
        with pytest.raises(LeaseLost):
            self.claim(1, by="coordinator", guard=guard)
        assert self.store.statistics().waiting() == 1

    # -- the coordinator

    def test_dealt_tasks_reach_the_member(self) -> None:  # G-09, G-10
        ids = self.submit(2)
        self.claim(2, "w2", by="coordinator")
        assert [row.running for row in self.store.assignments("w2")] == [False, False]
        claims = self.store.assigned("w2", "w2-1")
        assert sorted(c.task.task_id for c in claims) == ids
        assert self.store.assigned("w2", "w2-1") == []
        assert self.finish(claims[0], node="w2")

    def test_a_calm_group_has_nothing_to_repair(self) -> None:
        self.submit(5)
        self.finish(self.claim(2)[0])
        survey = self.store.survey(100, unknown_after=60)
        assert not any(
            (survey.expired_members, survey.expired, survey.orphans, survey.duplicates, survey.unassigned)
        )
        assert not survey.overdue
        assert not survey.unserved

    def test_the_tasks_of_an_expired_member_are_found_and_revoked(self) -> None:  # G-13
        self.join("w3", ttl=0.03)
        ids = self.submit(2)
        claims = self.claim(2, "w3")
        time.sleep(0.04)
        survey = self.store.survey(100, unknown_after=60)
        assert [m.node for m in survey.expired_members] == ["w3"]
        assert sorted(row.task_id for row in survey.expired) == ids
        repairs = [
            Repair("revoke", r.task_id, r.node, r.fence, loss=True, reason="gone") for r in survey.expired
        ]
        repairs.append(Repair("expire", node="w3", reason="w3-1"))
        assert self.store.repair(repairs) == 3
        assert self.store.repair(repairs) == 0
        assert [c.task.losses for c in self.claim(2)] == [1, 1]
        assert not self.finish(claims[0], node="w3")

    def test_a_second_holder_is_found_and_one_is_left(self) -> None:  # G-17
        self.submit()
        (first,) = self.claim()
        second = self.plant(first, "w2")
        (rows,) = self.store.survey(100, unknown_after=60).duplicates
        assert {row.node for row in rows} == {"w1", "w2"}
        assert self.store.repair([Repair("revoke", first.task.task_id, "w2", second, reason="double")]) == 1
        assert self.store.survey(100, unknown_after=60).duplicates == ()
        assert not self.finish(Claim(first.task, second), node="w2")
        assert self.finish(first)

    def test_of_two_holders_the_first_to_end_counts(self) -> None:  # G-20
        self.submit()
        (first,) = self.claim()
        second = self.plant(first, "w2")
        assert self.finish(Claim(first.task, second), node="w2", payload=b"second")
        assert not self.finish(first, payload=b"first")
        assert self.rows(first.task.task_id) == []

    def plant(self, claim: Claim, node: str) -> int:
        """Give a task that somebody has to another node as well, as a split brain would; return the fence."""
        self.store.repair([])
        return plant_assignment(self.store, claim.task.task_id, node, f"{node}-1")

    def test_a_task_that_nobody_has_is_found_and_requeued(self) -> None:  # G-12
        (task_id,) = self.submit()
        self.claim()
        remove_assignments(self.store, task_id)
        assert self.store.survey(100, unknown_after=60).unassigned == (task_id,)
        assert self.store.repair([Repair("requeue", task_id)]) == 1
        assert self.store.repair([Repair("requeue", task_id)]) == 0
        assert self.claim()[0].task.task_id == task_id

    def test_an_assignment_without_a_task_is_found_and_removed(self) -> None:  # G-14
        fence = plant_assignment(self.store, "no such task", "w1", "w1-1")
        (row,) = self.store.survey(100, unknown_after=60).orphans
        assert (row.task_id, row.fence) == ("no such task", fence)
        assert self.store.repair([Repair("revoke", row.task_id, row.node, row.fence, reason="orphan")]) == 1
        assert self.store.assignments() == []

    def test_a_task_past_its_deadline_is_found_and_killed(self) -> None:  # U5
        (late, _) = (*self.submit(deadline=0.02), *self.submit(deadline=60))
        time.sleep(0.03)
        assert self.store.survey(100, unknown_after=60).overdue == (late,)
        assert self.store.repair([Repair("kill", late, payload=b"late")]) == 1
        assert self.store.repair([Repair("kill", late, payload=b"late")]) == 0
        assert self.state(late) == TaskState.DEAD
        assert self.store.survey(100, unknown_after=60).overdue == ()

    def test_an_operation_that_no_member_knows_is_found(self) -> None:  # P-03
        new = NewTask("nobody:knows", b"")
        self.store.submit([new])
        time.sleep(0.02)
        assert self.store.survey(100, unknown_after=60).unserved == ()
        assert self.store.survey(100, unknown_after=0.01).unserved == (new.task_id,)

    def test_a_survey_is_bounded(self) -> None:  # G-16
        self.submit(9, deadline=0.01)
        time.sleep(0.02)
        assert len(self.store.survey(4, unknown_after=60).overdue) == 4

    def test_what_ended_long_ago_is_forgotten_and_the_dead_are_kept(self) -> None:  # G-15
        done, dead, waiting = self.submit(3)
        first, second = self.claim(2)
        self.finish(first)
        self.finish(second, Ending.DEAD)
        assert self.store.purge(60, 100, journal=1000) == 0
        time.sleep(0.01)
        assert self.store.purge(0.005, 100, journal=1000) == 1
        assert self.store.task(done) is None
        assert (self.state(dead), self.state(waiting)) == (TaskState.DEAD, TaskState.READY)
        assert self.store.statistics().tasks["default"] == {"dead": 1, "ready": 1}

    # -- reading

    def test_tasks_are_paged_without_gap_or_repeat(self) -> None:
        ids = self.submit(25)
        pages: list[str] = []
        while page := self.store.tasks(limit=7, after=pages[-1] if pages else ""):
            pages.extend(task.task_id for task in page)
        assert pages == sorted(ids)
        assert [t.task_id for t in self.store.tasks(queue="none")] == []
        assert len(self.store.tasks(state="ready", queue="default")) == 25

    def test_few_of_many_tasks_are_found(self) -> None:
        tasks = [NewTask(OP, b"", "many" if n % 900 else "few") for n in range(2500)]
        self.store.submit(tasks)
        few = [task.task_id for task in tasks if task.queue == "few"]
        assert [task.task_id for task in self.store.tasks(queue="few")] == few
        assert [task.task_id for task in self.store.tasks(queue="few", limit=2)] == few[:2]
        assert [task.task_id for task in self.store.tasks(queue="few", after=few[1])] == few[2:]
        assert self.store.tasks(queue="none") == []

    def test_counts_agree_with_what_happened(self) -> None:
        ids = self.submit(6)
        claims = self.claim(5)
        for claim, ending in zip(
            claims, (Ending.DONE, Ending.DEAD, Ending.AGAIN, Ending.RELEASED), strict=False
        ):
            self.finish(claim, ending, failed=ending == Ending.AGAIN, after=30.0)
        self.store.cancel(ids[5])
        found = self.store.statistics()
        assert found.tasks == {
            "default": {"done": 1, "dead": 1, "scheduled": 1, "ready": 1, "assigned": 1, "cancelled": 1}
        }
        counted = {
            name: found.counters[name] for name in ("submitted", "claimed", "completed", "dead", "failed")
        }
        assert counted == {"submitted": 6, "claimed": 5, "completed": 1, "dead": 1, "failed": 1}

    def test_the_journal_keeps_the_newest_in_order(self) -> None:  # G-33
        for number in range(10):
            self.store.note("test", str(number), "me", "detail")
        mine = [e for e in self.store.events() if e.kind == "test"]
        assert [e.subject for e in mine] == [str(n) for n in range(10)]
        assert (mine[0].by, mine[0].detail) == ("me", "detail")
        assert [e.subject for e in self.store.events(after=mine[7].seq)] == ["8", "9"]
        self.store.purge(60, 1, journal=3)
        assert [e.subject for e in self.store.events()] == ["7", "8", "9"]

    def test_a_text_is_kept(self) -> None:
        assert self.store.get("k") == ""
        self.store.put("k", "välue")
        assert self.again().get("k") == "välue" or self.store.url == "memory:"
        self.store.put("k", "")
        assert self.store.get("k") == ""

    def test_time_moves_and_is_the_same_for_all_handles(self) -> None:
        before = self.store.now()
        assert self.again().now() == pytest.approx(before, abs=0.5)
        assert self.store.now() >= before

    def test_a_listener_hears_of_new_work(self) -> None:
        listener = self.store.listen("ready")
        listener.wait(0.05)
        listener.wait(0)
        time.sleep(0.06)  # the list of listeners may be that old
        self.submit()
        assert listener.wait(2.0)
        assert not listener.wait(0.01)
        listener.close()


def plant_assignment(store: Store, task_id: str, node: str, incarnation: str) -> int:
    """Write an assignment behind the store's back, as a split brain or a lost transaction would leave one."""
    return _engine(store).plant(task_id, node, incarnation)  # type: ignore[no-any-return]


def remove_assignments(store: Store, task_id: str) -> None:
    """Remove a task's assignments behind the store's back."""
    _engine(store).unassign(task_id)


def _engine(store: Any) -> Any:
    if not hasattr(store, "plant"):
        raise TypeError(
            "an engine under test has three more methods: plant(task, node, incarnation), unassign(task) and "
            "inventory()"
        )
    return store
