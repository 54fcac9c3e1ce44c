"""The part of the contract's suite that concerns jobs. Subclass `contract.StoreContract`, which has all of it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cluster.errors import JobNotFound, JobStateError, QueueFull
from cluster.records import (
    JOB_ENDED,
    Claim,
    Ending,
    Inbox,
    Job,
    JobState,
    NewJob,
    NewSignal,
    NewTask,
    Notify,
    Repair,
    Result,
    TaskState,
    Timer,
    TurnEnd,
)
from cluster.stores._contract_words import OP, Words

CLS = "test:Job"


class JobContract(Words):
    """See above."""

    # -- words

    def start(self, cls: str = CLS, tasks: int = 0, *, index: bool = False, **fields: Any) -> str:
        new = NewJob(cls, **fields)
        first = [NewTask(OP, b"%d" % i, index=i if index else None) for i in range(tasks)]
        assert self.store.start(new, first) == (new.job_id, "new")
        return new.job_id

    def job(self, job_id: str) -> Job:
        job = self.store.job(job_id)
        assert job is not None
        return job

    def turn(self, node: str = "w1") -> Claim:
        """Claim the turn that is due; there is one."""
        (claim,) = self.claim(1, node, ops=[CLS])
        assert claim.turn is not None
        return claim

    def no_turn(self) -> bool:
        return self.claim(1, ops=[CLS]) == []

    def rows_of(self, claim: Claim) -> tuple[Inbox, ...]:
        assert claim.turn is not None
        return claim.turn.inbox

    def end_turn(
        self, claim: Claim, children: tuple[NewTask, ...] = (), *, node: str = "w1", **fields: Any
    ) -> bool:
        """End a turn that has applied all that it was given."""
        rows = self.rows_of(claim)
        end = TurnEnd(**{"consumed": rows[-1].seq if rows else 0, "data": b"", **fields})
        return self.finish(claim, Ending.TURN, node, turn=end, children=children)

    def settled(self, cls: str = CLS, **fields: Any) -> str:
        """A job of which the first turn has ended."""
        job_id = self.start(cls, **fields)
        assert self.end_turn(self.turn())
        return job_id

    def child(self, job_id: str, **fields: Any) -> str:
        task = NewTask(OP, b"", job_id=job_id, **fields)
        assert self.store.submit([task]) == ["new"]
        return task.task_id

    def counts(self, job_id: str) -> tuple[int, int, int]:
        job = self.job(job_id)
        return job.done, job.failed, job.total

    # -- starting

    def test_a_started_job_is_read_back_as_it_was(self) -> None:
        new = NewJob(
            CLS,
            b"\x00p",
            name="Nächtlich",
            queue="q",
            description="what for",
            by="user@program@host",
            notify=Notify.LAST,
            fail_fast=True,
            closed=True,
            ttl=7.5,
            meta=b"\xffm",
        )
        before = self.store.now()
        assert self.store.start(new) == (new.job_id, "new")
        job = self.job(new.job_id)
        assert (job.cls, job.params, job.name, job.queue, job.description, job.by, job.meta) == (
            CLS,
            b"\x00p",
            "Nächtlich",
            "q",
            "what for",
            "user@program@host",
            b"\xffm",
        )
        assert (job.notify, job.fail_fast, job.closed, job.ttl) == (Notify.LAST, True, True, 7.5)
        assert (job.state, job.data, job.result, job.error, job.ended) == (
            JobState.CREATED, b"", None, None, None,
        )  # fmt: skip
        assert (job.done, job.failed, job.total, job.acknowledged) == (0, 0, 0, 0)
        assert before - 0.5 <= job.created <= self.store.now() + 0.5

    def test_an_unknown_job_is_none(self) -> None:
        assert self.store.job("no such job") is None
        assert self.store.job_named("no such name") is None
        assert self.store.results("no such job") == []
        assert self.store.reply("no such job", "s") is None
        assert not self.store.close_job("no such job")
        assert not self.store.delete_job("no such job")

    def test_starting_an_id_again_changes_nothing(self) -> None:
        new = NewJob(CLS, b"first", name="n")
        self.store.start(new, [NewTask(OP, b"")])
        again = NewJob(CLS, b"second", job_id=new.job_id, name="n")
        assert self.store.start(again, [NewTask(OP, b"")]) == (new.job_id, "known")
        assert (self.job(new.job_id).params, self.job(new.job_id).total) == (b"first", 1)
        assert len(self.rows_of(self.turn())) == 1

    def test_a_job_that_has_a_task_too_much_is_not_started(self) -> None:
        self.store.configure_queue("default", max_waiting=2)
        new = NewJob(CLS, queue="turns")
        with pytest.raises(QueueFull):
            self.store.start(new, [NewTask(OP, b"") for _ in range(3)])
        assert self.store.job(new.job_id) is None
        assert self.store.statistics().waiting() == 0

    def test_a_job_does_not_take_the_id_of_a_task(self) -> None:
        (task_id,) = self.submit()
        with pytest.raises(JobStateError, match=task_id):
            self.store.start(NewJob(CLS, job_id=task_id))
        assert self.store.job(task_id) is None

    def test_a_living_name_is_restarted_and_not_doubled(self) -> None:
        first = self.start(name="Nightly")
        self.end_turn(self.turn())
        second = NewJob(CLS, b"again", name="nIGHTLY", by="me")
        assert self.store.start(second, [NewTask(OP, b"")]) == (first, "merged")
        assert self.store.job(second.job_id) is None
        claim = self.turn()
        (row,) = self.rows_of(claim)
        assert (row.kind, row.body, row.by, claim.task.task_id) == ("restart", b"again", "me", first)
        assert self.job(first).total == 0

    def test_a_restart_that_is_said_again_comes_once(self) -> None:
        first = self.settled(name="n")
        again = NewJob(CLS, b"again", name="n")
        self.store.start(again)
        self.end_turn(self.turn())
        assert self.store.start(again) == (first, "merged")
        assert self.no_turn()
        self.store.change_job(first, JobState.TERMINATED)
        assert self.store.start(again) == (
            first,
            "merged",
        )  # the answer was lost, and much happened meanwhile

    def test_a_restart_and_a_signal_may_have_the_same_id(self) -> None:
        first = self.settled(name="n")
        assert self.store.signal(first, NewSignal(signal_id="x")) == "taken"
        assert self.store.start(NewJob(CLS, job_id="x", name="n")) == (first, "merged")
        assert [row.kind for row in self.rows_of(self.turn())] == ["signal", "restart"]

    def test_a_name_is_free_when_its_job_has_ended(self) -> None:
        first = self.start(name="n")
        self.store.change_job(first, JobState.TERMINATED)
        named = self.store.job_named("N")
        assert named is not None
        assert (named.job_id, named.state) == (first, JobState.TERMINATED)
        second = self.start(name="n")
        named = self.store.job_named("n")
        assert named is not None
        assert named.job_id == second

    def test_a_job_without_a_class_runs_at_once_and_has_no_turn(self) -> None:
        job_id = self.start("", 2)
        assert self.job(job_id).state == JobState.RUNNING
        assert {c.task.op for c in self.claim(9, ops=[OP, CLS, ""])} == {OP}

    # -- turns

    def test_a_turn_is_given_the_job_and_what_came_for_it(self) -> None:
        job_id = self.start(params=b"p")
        self.store.signal(job_id, NewSignal("signal", "Add", b"5", "s1", by="me"))
        claim = self.turn()
        assert claim.turn is not None
        assert (claim.turn.job.job_id, claim.turn.job.params, claim.turn.job.state) == (
            job_id,
            b"p",
            JobState.CREATED,
        )
        start, signal = claim.turn.inbox
        assert (start.kind, start.body) == ("start", b"p")
        assert (signal.kind, signal.row_id, signal.name, signal.body, signal.by) == (
            "signal", "s1", "Add", b"5", "me",
        )  # fmt: skip
        assert start.seq < signal.seq

    def test_a_job_has_one_turn_at_a_time(self) -> None:
        job_id = self.start()
        claim = self.turn()
        self.store.signal(job_id, NewSignal())
        assert self.no_turn()
        self.end_turn(claim)
        assert [row.kind for row in self.rows_of(self.turn("w2"))] == ["signal"]

    def test_a_turn_keeps_its_data_and_the_job_runs(self) -> None:
        job_id = self.start()
        version = self.job(job_id).version
        self.end_turn(self.turn(), data=b"\x00kept")
        job = self.job(job_id)
        assert (job.data, job.state, job.by) == (b"\x00kept", JobState.RUNNING, "w1")
        assert job.version > version

    def test_a_stale_turn_changes_nothing(self) -> None:  # U6
        job_id = self.start()
        self.store.signal(job_id, NewSignal(signal_id="s"))
        first = self.turn()
        self.finish(first, Ending.RELEASED)
        second = self.turn("w2")
        before = self.job(job_id)
        child = NewTask(OP, b"", job_id=job_id)
        everything: dict[str, Any] = {
            "data": b"stale",
            "state": JobState.FINISHED,
            "result": b"stale",
            "replies": (("s", b"stale"),),
            "timers": (Timer("t", 0.0),),
            "close": True,
        }
        assert not self.end_turn(first, (child,), **everything)
        assert self.job(job_id) == before
        assert self.store.task(child.task_id) is None
        assert self.store.reply(job_id, "s") is None
        assert self.end_turn(second, node="w2")
        assert self.no_turn()
        assert self.store.statistics().counters["stale_completions"] == 1

    def test_a_job_at_rest_is_idle_and_does_not_wait(self) -> None:
        job_id = self.settled()
        assert self.state(job_id) == TaskState.IDLE
        found = self.store.statistics()
        assert (found.waiting(), found.oldest_ready) == (0, {})
        assert self.no_turn()

    def test_a_turn_that_fails_is_tried_again_with_the_same_rows(self) -> None:
        self.start()
        first = self.turn()
        self.finish(first, Ending.AGAIN, failed=True, payload=b"why")
        second = self.turn()
        assert second.task.attempts == 1
        assert self.rows_of(second) == self.rows_of(first)
        self.end_turn(second)
        (task,) = self.store.tasks()
        assert task.attempts == 0  # the next turn has all its attempts before it

    def test_a_turn_that_waits_to_be_tried_again_is_not_hurried(self) -> None:
        job_id = self.start()
        self.finish(self.turn(), Ending.AGAIN, failed=True, after=30.0)
        self.store.signal(job_id, NewSignal())
        assert self.no_turn()

    def test_a_turn_whose_worker_died_is_given_to_another(self) -> None:
        self.start()
        first = self.turn()
        self.finish(first, Ending.LOST)
        second = self.turn("w2")
        assert (self.rows_of(second), second.task.losses) == (self.rows_of(first), 1)

    def test_a_dead_turn_fails_the_job(self) -> None:
        job_id = self.start(tasks=1)
        self.finish(self.turn(), Ending.DEAD, payload=b"boom")
        job = self.job(job_id)
        assert (job.state, job.error, job.by) == (JobState.FAILED, b"boom", "w1")
        assert self.claim(9) == []
        assert self.store.replay([job_id]) == 0  # it has ended for good

    def test_a_turn_that_kills_its_workers_fails_the_job(self) -> None:  # P-24
        job_id = self.start(max_losses=2)
        self.finish(self.turn(), Ending.LOST)
        self.finish(self.turn(), Ending.LOST)
        assert self.job(job_id).state == JobState.FAILED
        assert b"WorkerLost" in (self.job(job_id).error or b"")

    def test_cancelling_the_turn_terminates_the_job(self) -> None:
        job_id = self.settled()
        assert self.store.cancel(job_id)
        assert self.job(job_id).state == JobState.TERMINATED

    def test_a_turn_that_is_dealt_is_given_with_its_rows(self) -> None:  # G-09
        self.start()
        self.claim(1, ops=[CLS], by="coordinator")
        (claim,) = self.store.assigned("w1", "w1-1")
        assert [row.kind for row in self.rows_of(claim)] == ["start"]
        assert self.end_turn(claim)

    # -- the inbox

    def test_rows_come_in_the_order_of_their_arrival(self) -> None:
        job_id = self.settled()
        for number in range(30):
            self.store.signal(job_id, NewSignal(name=str(number)))
        rows = self.rows_of(self.turn())
        assert [row.name for row in rows] == [str(n) for n in range(30)]
        assert [row.seq for row in rows] == sorted({row.seq for row in rows})

    def test_what_a_turn_did_not_consume_comes_again(self) -> None:
        job_id = self.settled()
        for number in range(3):
            self.store.signal(job_id, NewSignal(name=str(number)))
        claim = self.turn()
        self.end_turn(claim, consumed=self.rows_of(claim)[0].seq)
        assert [row.name for row in self.rows_of(self.turn())] == ["1", "2"]

    def test_a_turn_is_given_at_most_a_hundred_rows(self) -> None:
        job_id = self.settled()
        for number in range(130):
            self.store.signal(job_id, NewSignal(name=str(number)))
        claim = self.turn()
        assert len(self.rows_of(claim)) == 100
        self.end_turn(claim)
        assert [row.name for row in self.rows_of(self.turn())] == [str(n) for n in range(100, 130)]

    def test_a_turn_is_given_at_most_a_mebibyte_but_one_row_always(self) -> None:
        job_id = self.settled()
        for size in (2 << 20, 600_000, 400_000, 400_000):
            self.store.signal(job_id, NewSignal(body=bytes(size)))
        sizes = []
        for _ in range(3):
            claim = self.turn()
            sizes.append([len(row.body) for row in self.rows_of(claim)])
            self.end_turn(claim)
        assert sizes == [[2 << 20], [600_000, 400_000], [400_000]]

    def test_a_signal_is_taken_once(self) -> None:
        job_id = self.settled()
        signal = NewSignal(name="Add", signal_id="s1")
        assert self.store.signal(job_id, signal) == "taken"
        assert self.store.signal(job_id, signal) == "known"
        claim = self.turn()
        assert len(self.rows_of(claim)) == 1
        self.end_turn(claim, replies=(("s1", b"5"),))
        assert self.store.signal(job_id, signal) == "known"
        assert self.no_turn()
        assert self.store.reply(job_id, "s1") == b"5"

    def test_a_signal_is_known_until_it_is_purged(self) -> None:
        job_id = self.settled()
        self.store.signal(job_id, NewSignal(signal_id="waits"))
        self.store.signal(job_id, NewSignal(signal_id="s"))
        claim = self.turn()
        self.end_turn(claim, replies=(("s", b"r"),))
        self.store.signal(job_id, NewSignal(signal_id="waits too"))
        time.sleep(0.01)
        self.store.purge(60, 100, journal=10)
        assert self.store.signal(job_id, NewSignal(signal_id="s")) == "known"
        self.store.purge(0.005, 100, journal=10)
        assert self.store.reply(job_id, "s") is None
        assert [row.row_id for row in self.rows_of(self.turn())] == ["waits too"]

    def test_the_same_signal_id_is_anothers_for_another_job(self) -> None:
        first, second = self.start(), self.start()
        assert self.store.signal(first, NewSignal(signal_id="s")) == "taken"
        assert self.store.signal(second, NewSignal(signal_id="s")) == "taken"

    def test_a_reply_may_come_with_a_later_turn(self) -> None:
        job_id = self.settled()
        self.store.signal(job_id, NewSignal(signal_id="s"))
        self.end_turn(self.turn())
        assert self.store.reply(job_id, "s") is None
        self.store.signal(job_id, NewSignal())
        self.end_turn(self.turn(), replies=(("s", b"late"),))
        assert self.store.reply(job_id, "s") == b"late"

    def test_a_signal_to_nobody_is_said_to_be_so(self) -> None:
        job_id = self.start()
        self.store.signal(job_id, NewSignal(signal_id="s"))
        self.store.change_job(job_id, JobState.TERMINATED)
        assert self.store.signal("no such job", NewSignal()) == "missing"
        assert self.store.signal(job_id, NewSignal()) == "ended"
        assert self.store.signal(job_id, NewSignal(signal_id="s")) == "known"

    def test_a_job_without_a_class_obeys_at_once(self) -> None:
        first, second = self.start("", 3), self.start("", 1)
        assert self.store.signal(first, NewSignal("cancel", "Cancel", by="me", reason="too dear")) == "taken"
        assert self.store.signal(second, NewSignal("finish", "Finish", by="me")) == "taken"
        job = self.job(first)
        assert (job.state, job.by, job.reason) == (JobState.CANCELLED, "me", "too dear")
        assert (self.job(second).state, self.job(second).reason) == (JobState.FINISHED, "")
        assert self.claim(9) == []

    # -- timers

    def test_a_timer_wakes_a_job_when_it_is_due(self) -> None:
        job_id = self.start()
        self.end_turn(self.turn(), timers=(Timer("later", 0.1, b"body"),))
        claims, due = self.store.claim("w1", "w1-1", 1, queues=["default"], ops=[CLS], lease=30)
        assert (claims, self.state(job_id)) == ([], TaskState.IDLE)
        assert due is not None
        assert 0 < due <= 0.1
        time.sleep(0.11)
        (row,) = self.rows_of(self.turn())
        assert (row.kind, row.row_id, row.body) == ("timer", "later", b"body")

    def test_a_coordinator_promotes_what_is_due(self) -> None:
        job_id = self.start()
        self.end_turn(self.turn(), timers=(Timer("t", 0.01),))
        time.sleep(0.02)
        assert self.store.promote(10) == 1
        assert self.state(job_id) == TaskState.READY

    def test_timers_come_in_the_order_of_their_times(self) -> None:
        self.start()
        self.end_turn(self.turn(), timers=(Timer("b", 0.02), Timer("a", 0.01), Timer("c", 0.03)))
        time.sleep(0.04)
        assert [row.row_id for row in self.rows_of(self.turn())] == ["a", "b", "c"]

    def test_a_timer_replaces_one_of_its_name(self) -> None:
        self.start()
        self.end_turn(self.turn(), timers=(Timer("t", 0.0, b"old"), Timer("t", 0.01, b"new")))
        time.sleep(0.02)
        claim = self.turn()
        assert [row.body for row in self.rows_of(claim)] == [b"new"]
        self.end_turn(claim)
        assert self.no_turn()

    def test_a_timer_is_removed(self) -> None:
        self.start()
        self.end_turn(self.turn(), timers=(Timer("t", 0.01),))
        self.store.signal(self.store.jobs()[0].job_id, NewSignal())
        self.end_turn(self.turn(), timers=(Timer("t", None), Timer("never set", None)))
        time.sleep(0.02)
        assert self.no_turn()

    def test_a_signal_before_a_timer_leaves_the_timer(self) -> None:
        job_id = self.start()
        self.end_turn(self.turn(), timers=(Timer("t", 0.05),))
        self.store.signal(job_id, NewSignal())
        self.end_turn(self.turn())
        assert self.no_turn()
        time.sleep(0.06)
        assert [row.kind for row in self.rows_of(self.turn())] == ["timer"]

    def test_dormant_jobs_are_rows_only(self) -> None:
        for _ in range(200):
            self.store.start(NewJob(CLS))
        for claim in self.claim(200, ops=[CLS]):
            self.end_turn(claim, timers=(Timer("t", 3600.0),))
        found = self.store.statistics()
        assert (found.waiting(), found.count("idle")) == (0, 200)
        due = self.store.claim("w1", "w1-1", 9, queues=["default"], ops=[CLS], lease=30)[1]
        assert due is not None
        assert 3500 < due <= 3600

    # -- the tasks of a job

    def test_children_of_a_turn_appear_with_it(self) -> None:
        job_id = self.start()
        children = tuple(NewTask(OP, b"", job_id=job_id) for _ in range(3))
        self.end_turn(self.turn(), children)
        assert self.counts(job_id) == (0, 0, 3)
        assert [t.task_id for t in self.store.tasks(job_id=job_id, state="ready")] == sorted(
            c.task_id for c in children
        )
        assert self.store.tasks(job_id="another") == []

    def test_each_end_of_a_task_is_told(self) -> None:
        job_id = self.settled()
        done = self.child(job_id, index=7, weight=2, meta=b"m")
        dead, cancelled = self.child(job_id), self.child(job_id)
        first, second, _ = self.claim(3)
        self.finish(first, payload=b"result")
        self.finish(second, Ending.DEAD, payload=b"error")
        self.store.cancel(cancelled)
        rows = self.rows_of(self.turn())
        assert [(r.kind, r.row_id, r.state) for r in rows] == [
            ("ended", done, "done"),
            ("ended", dead, "dead"),
            ("ended", cancelled, "cancelled"),
        ]
        assert (rows[0].body, rows[0].index, rows[0].weight, rows[0].meta, rows[0].name) == (
            b"result", 7, 2, b"m", OP,
        )  # fmt: skip
        assert (rows[1].body, rows[1].index) == (b"error", None)

    def test_a_job_that_asked_so_is_told_once_at_the_end(self) -> None:
        job_id = self.settled(notify=Notify.LAST)
        for _ in range(2):
            self.child(job_id)
        claims = self.claim(2)
        self.finish(claims[0])
        self.finish(claims[1])
        assert self.no_turn()  # more may come
        assert self.store.close_job(job_id)
        claim = self.turn()
        assert [row.kind for row in self.rows_of(claim)] == ["all-ended"]
        self.end_turn(claim)
        self.store.close_job(job_id)
        assert self.no_turn()

    def test_a_closed_job_is_not_told_of_an_end_before_its_first_turn(self) -> None:
        job_id = self.start(notify=Notify.LAST, closed=True)
        claim = self.turn()
        assert [row.kind for row in self.rows_of(claim)] == ["start"]
        self.end_turn(claim, (NewTask(OP, b"", job_id=job_id),))
        assert self.no_turn()
        self.finish(self.claim()[0])
        assert [row.kind for row in self.rows_of(self.turn())] == ["all-ended"]

    def test_a_closed_job_without_tasks_is_told_after_its_first_turn(self) -> None:
        self.start(notify=Notify.LAST)
        self.end_turn(self.turn(), close=True)
        assert [row.kind for row in self.rows_of(self.turn())] == ["all-ended"]

    def test_a_job_that_asked_so_is_told_nothing(self) -> None:
        job_id = self.settled(notify=Notify.NEVER)
        self.child(job_id)
        self.finish(self.claim()[0])
        self.store.close_job(job_id)
        assert self.no_turn()
        assert self.counts(job_id) == (1, 0, 1)

    def test_counts_are_of_inputs(self) -> None:  # D-14, D-15
        job_id = self.start("")
        self.child(job_id, index=0, weight=10)
        self.child(job_id, index=10, weight=5)
        self.child(job_id, weight=99)  # without an index it is one
        assert self.counts(job_id) == (0, 0, 16)
        first, second, third = self.claim(3)
        self.finish(first)
        self.finish(second, Ending.DEAD, payload=b"e")
        self.finish(third)
        assert self.counts(job_id) == (11, 5, 16)

    def test_a_job_without_a_class_finishes_exactly_when_all_have_ended(self) -> None:  # D-15
        job_id = self.start("", 3)
        first, second, third = self.claim(3)
        self.finish(first)
        self.store.close_job(job_id)
        self.finish(second, Ending.DEAD, payload=b"e")
        assert self.job(job_id).state == JobState.RUNNING
        self.finish(third)
        job = self.job(job_id)
        assert (job.state, job.done, job.failed, job.total) == (JobState.FINISHED, 2, 1, 3)
        assert job.ended is not None

    def test_a_closed_job_without_tasks_finishes_at_once(self) -> None:
        assert self.job(self.start("", closed=True)).state == JobState.FINISHED
        job_id = self.start("")
        assert self.store.close_job(job_id)
        assert self.job(job_id).state == JobState.FINISHED
        assert not self.store.close_job(job_id)

    def test_a_cancelled_task_keeps_no_job_from_finishing(self) -> None:
        job_id = self.start("", 2, closed=True)
        (claim, other) = self.claim(2)
        self.store.cancel(claim.task.task_id)
        self.finish(other)
        assert self.job(job_id).state == JobState.FINISHED
        assert self.counts(job_id) == (1, 0, 2)

    def test_a_task_of_a_closed_job_may_have_children(self) -> None:
        job_id = self.start("", 1, closed=True)
        self.finish(self.claim()[0], children=(NewTask(OP, b"", job_id=job_id),))
        assert self.job(job_id).state == JobState.RUNNING
        self.finish(self.claim()[0])
        assert self.job(job_id).state == JobState.FINISHED

    def test_a_dead_task_that_is_replayed_counts_anew(self) -> None:
        job_id = self.start("", 1, index=True)
        (claim,) = self.claim()
        self.finish(claim, Ending.DEAD, payload=b"e")
        assert self.counts(job_id) == (0, 1, 1)
        assert self.store.replay([claim.task.task_id]) == 1
        assert self.counts(job_id) == (0, 0, 1)
        self.finish(self.claim()[0], results=(Result(0, 1, b"v"),))
        assert self.counts(job_id) == (1, 0, 1)
        assert [(r.value, r.failed) for r in self.store.results(job_id)] == [(b"v", False)]

    def test_a_task_of_no_job_works_as_ever(self) -> None:
        (task_id,) = self.submit(job_id="nobody's")
        (claim,) = self.claim()
        late = self.start("", job_id="nobody's")
        assert self.finish(claim, payload=b"r", results=(Result(0, 1, b"v"),))
        assert self.state(task_id) == TaskState.DONE
        assert self.counts(late) == (0, 0, 0)
        assert self.store.results(late) == []

    def test_a_job_takes_no_tasks_after_its_end(self) -> None:  # P-25
        job_id = self.start("", 1)
        (claim,) = self.claim()
        self.store.change_job(job_id, JobState.TERMINATED)
        late = NewTask(OP, b"", job_id=job_id)
        assert self.store.submit([late, NewTask(OP, b"")]) == ["ended", "new"]
        assert self.store.task(late.task_id) is None
        assert not self.finish(claim, children=(late,))
        assert self.store.task(late.task_id) is None

    def test_children_of_a_turn_that_ends_the_job_are_not_stored(self) -> None:
        job_id = self.start()
        child = NewTask(OP, b"", job_id=job_id)
        assert self.end_turn(self.turn(), (child,), state=JobState.FINISHED)
        assert self.store.task(child.task_id) is None

    # -- the end of a job

    def test_a_turn_ends_the_job(self) -> None:
        job_id = self.start(tasks=2)
        self.end_turn(self.turn(), data=b"d", state=JobState.FINISHED, reason="done with it", result=b"r")
        job = self.job(job_id)
        assert (job.state, job.reason, job.result, job.data, job.by) == (
            JobState.FINISHED, "done with it", b"r", b"d", "w1",
        )  # fmt: skip
        assert self.state(job_id) == TaskState.DONE
        assert self.claim(9) == []

    def test_terminating_cancels_the_turn_and_all_tasks(self) -> None:
        job_id = self.start(tasks=3)
        turn = self.turn()
        running = self.claim(1)[0]
        self.child(job_id, delay=60.0)
        job = self.store.change_job(job_id, JobState.TERMINATED, by="me", reason="enough")
        assert (job.state, job.by, job.reason) == (JobState.TERMINATED, "me", "enough")
        assert self.store.assignments() == []
        assert {t.state for t in self.store.tasks(job_id=job_id)} == {TaskState.CANCELLED}
        assert not self.end_turn(turn, data=b"late")
        assert not self.finish(running)
        assert self.job(job_id) == job

    def test_other_jobs_are_not_touched(self) -> None:  # P-22
        first, second = self.start("", 2), self.start("", 2)
        self.store.change_job(first, JobState.TERMINATED)
        assert {c.task.job_id for c in self.claim(9)} == {second}

    def test_a_terminal_state_never_changes(self) -> None:
        for ended in JOB_ENDED:
            job_id = self.start()
            self.end_turn(self.turn(), state=ended, reason="first")
            before = self.job(job_id)
            for state in JobState:
                with pytest.raises(JobStateError, match=job_id) as caught:
                    self.store.change_job(job_id, state)
                assert caught.value.job_state == ended
            assert self.store.signal(job_id, NewSignal("cancel")) == "ended"
            assert self.job(job_id) == before

    def test_legal_changes_from_outside(self) -> None:
        order = [
            JobState.PAUSED, JobState.SUSPENDED, JobState.RUNNING, JobState.SUSPENDED, JobState.PAUSED,
            JobState.RUNNING, JobState.RUNNING, JobState.TERMINATED,
        ]  # fmt: skip
        job_id = self.settled()
        assert [self.store.change_job(job_id, state).state for state in order] == order

    def test_illegal_changes_from_outside_are_refused(self) -> None:
        job_id = self.settled()
        for state in (JobState.CREATED, JobState.FINISHED, JobState.FAILED, JobState.CANCELLED):
            with pytest.raises(JobStateError, match="running"):
                self.store.change_job(job_id, state)
        with pytest.raises(JobNotFound, match="no such job"):
            self.store.change_job("no such job", JobState.PAUSED)

    def test_every_change_of_state_is_in_the_journal(self) -> None:
        job_id = self.settled()
        self.store.change_job(job_id, JobState.PAUSED, by="me", reason="lunch")
        self.store.change_job(job_id, JobState.TERMINATED, by="you", reason="over")
        noted = [(e.by, e.detail) for e in self.store.events() if e.kind == "job-state"]
        assert noted == [
            ("w1", "created running "),
            ("me", "running paused lunch"),
            ("you", "paused terminated over"),
        ]

    def test_the_first_dead_task_fails_a_job_that_wants_it(self) -> None:  # P-22
        job_id = self.start("", 5, index=True, fail_fast=True)
        first, second = self.claim(2)
        self.finish(first, Ending.DEAD, payload=b"boom")
        job = self.job(job_id)
        assert (job.state, job.error, job.failed) == (JobState.FAILED, b"boom", 1)
        assert self.claim(9) == []
        assert not self.finish(second)

    def test_the_first_failed_result_fails_a_job_that_wants_it(self) -> None:  # P-22
        job_id = self.start("", 2, index=True, fail_fast=True)
        (claim,) = self.claim()
        assert self.finish(claim, results=(Result(0, 1, b"boom", failed=True),))
        assert (self.job(job_id).state, self.job(job_id).error) == (JobState.FAILED, b"boom")
        assert self.state(claim.task.task_id) == TaskState.DONE

    def test_a_cancelled_task_fails_no_job(self) -> None:
        job_id = self.start("", 2, index=True, fail_fast=True)
        self.store.cancel(self.claim()[0].task.task_id)
        assert self.job(job_id).state == JobState.RUNNING

    def test_the_end_of_a_large_job_comes_in_steps(self) -> None:  # P-25
        job_id = self.start("", 2500)
        (running,) = self.claim(1, "w2")
        self.store.change_job(job_id, JobState.TERMINATED)
        assert self.store.statistics().count("cancelled") == 1001  # 1,000, and the one that ran
        assert not self.finish(running, node="w2")
        (other,) = self.submit()
        claims: list[Claim] = []
        for _ in range(20):
            claims += self.claim(5)
        assert [c.task.task_id for c in claims] == [other]  # none of the ended job was given
        while self.store.purge(60, 700, journal=10) == 700:
            pass
        assert self.store.statistics().tasks["default"] == {"cancelled": 2500, "assigned": 1}

    # -- pausing

    def test_a_paused_job_gives_no_tasks_and_answers_signals(self) -> None:
        job_id = self.settled()
        for _ in range(2):
            self.child(job_id)
        (running,) = self.claim()
        self.store.change_job(job_id, JobState.PAUSED)
        assert self.claim(9) == []
        assert self.store.statistics().count("held") == 1
        self.store.signal(job_id, NewSignal())
        assert self.end_turn(self.turn())
        assert self.finish(running)
        assert self.job(job_id).state == JobState.PAUSED

    def test_a_suspended_job_takes_signals_and_does_not_answer(self) -> None:  # U5
        job_id = self.settled()
        self.store.change_job(job_id, JobState.SUSPENDED)
        assert self.store.signal(job_id, NewSignal(name="s")) == "taken"
        self.child(job_id)
        assert self.no_turn()
        assert self.claim(9) == []
        assert self.state(job_id) == TaskState.IDLE
        self.store.change_job(job_id, JobState.RUNNING)
        assert [row.name for row in self.rows_of(self.turn())] == ["s"]
        assert len(self.claim(9)) == 1

    def test_a_turn_that_is_ready_when_its_job_is_suspended_is_not_given(self) -> None:
        job_id = self.start()
        self.store.change_job(job_id, JobState.SUSPENDED)
        assert self.no_turn()
        self.store.change_job(job_id, JobState.RUNNING)
        assert [row.kind for row in self.rows_of(self.turn())] == ["start"]

    def test_a_timer_of_a_suspended_job_waits(self) -> None:
        job_id = self.start()
        self.end_turn(self.turn(), timers=(Timer("t", 0.01),), state=JobState.SUSPENDED)
        time.sleep(0.02)
        assert self.no_turn()
        self.store.change_job(job_id, JobState.RUNNING)
        assert [row.row_id for row in self.rows_of(self.turn())] == ["t"]

    def test_resuming_keeps_the_order(self) -> None:
        job_id = self.start("", 5)
        before = [t.task_id for t in self.store.tasks(job_id=job_id)]
        (other,) = self.submit()
        self.store.change_job(job_id, JobState.PAUSED)
        late = self.child(job_id)
        assert self.state(late) == TaskState.HELD
        self.store.change_job(job_id, JobState.RUNNING)
        assert [c.task.task_id for c in self.claim(9)] == [*before, other, late]

    def test_a_held_head_stays_the_head_of_its_key(self) -> None:
        job_id = self.start("")
        first, second = self.child(job_id, ordering_key="k"), self.child(job_id, ordering_key="k")
        self.store.change_job(job_id, JobState.PAUSED)
        (third,) = self.submit(ordering_key="k")
        assert (self.state(first), self.state(second), self.state(third)) == ("held", "blocked", "blocked")
        self.store.change_job(job_id, JobState.RUNNING)
        for expected in (first, second, third):
            (claim,) = self.claim(9)
            assert claim.task.task_id == expected
            self.finish(claim)

    def test_what_becomes_ready_in_a_paused_job_is_held(self) -> None:
        job_id = self.start("", 2)
        first, second = self.claim(2)
        later = self.child(job_id, delay=0.01)
        self.store.change_job(job_id, JobState.PAUSED)
        self.finish(first, Ending.RELEASED)
        self.finish(second, Ending.AGAIN, failed=True)
        time.sleep(0.02)
        assert self.claim(9) == []
        assert {self.state(i) for i in (first.task.task_id, second.task.task_id, later)} == {"held"}

    def test_a_held_task_can_be_cancelled_and_be_too_late(self) -> None:
        job_id = self.start("")
        first, second = self.child(job_id), self.child(job_id, deadline=0.01)
        self.store.change_job(job_id, JobState.PAUSED)
        time.sleep(0.02)
        assert self.store.cancel(first)
        assert self.store.survey(9, unknown_after=60).overdue == (second,)
        assert self.store.repair([Repair("kill", second, payload=b"late")]) == 1
        assert self.counts(job_id) == (0, 1, 2)

    def test_a_large_job_is_paused_and_resumed_in_steps(self) -> None:
        job_id = self.start("", 1300)
        self.store.change_job(job_id, JobState.PAUSED)
        assert self.store.statistics().count("held") == 1000
        assert self.claim(500) == []
        assert self.claim(500) == []
        assert self.store.statistics().count("held") == 1300
        self.store.change_job(job_id, JobState.RUNNING)
        given = [c.task.task_id for _ in range(4) for c in self.claim(400)]
        assert given == [t.task_id for t in self.store.tasks(job_id=job_id, limit=2000)]

    def test_what_comes_while_a_large_job_is_resumed_passes_nothing(self) -> None:
        job_id = self.start("", 1500)
        self.store.change_job(job_id, JobState.PAUSED)
        while self.store.purge(60, 1000, journal=10):
            pass
        assert self.store.statistics().count("held") == 1500
        self.store.change_job(job_id, JobState.RUNNING)
        late = self.child(job_id)
        given: list[str] = []
        while claims := self.claim(700):
            given += [c.task.task_id for c in claims]
        assert given == [t.task_id for t in self.store.tasks(job_id=job_id, limit=2000)]
        assert given[-1] == late

    # -- results

    def test_results_come_in_the_order_of_their_arrival(self) -> None:
        job_id = self.start("", 3, index=True)
        for claim in reversed(self.claim(3)):
            index = claim.task.index
            assert index is not None
            self.finish(claim, results=(Result(index, 1, b"r%d" % index),))
        rows = self.store.results(job_id)
        assert [(r.index, r.count, r.value, r.failed) for r in rows] == [
            (2, 1, b"r2", False), (1, 1, b"r1", False), (0, 1, b"r0", False),
        ]  # fmt: skip
        assert [r.seq for r in rows] == sorted({r.seq for r in rows})
        assert rows[0].seq > 0
        assert self.store.results(job_id, after=rows[1].seq) == rows[2:]
        assert self.store.results(job_id, limit=2) == rows[:2]
        assert self.store.tasks(job_id=job_id)[2].task_id == rows[0].task_id

    def test_a_page_of_results_is_bounded_in_bytes(self) -> None:
        job_id = self.start("", 4, index=True)
        for index, claim in enumerate(self.claim(4)):
            self.finish(claim, results=(Result(index, 1, bytes(100)),))
        assert len(self.store.results(job_id, max_bytes=250)) == 2
        assert len(self.store.results(job_id, max_bytes=10)) == 1
        assert len(self.store.results_at(job_id, 0, 4, max_bytes=250)) == 2

    def test_results_are_found_by_index(self) -> None:
        job_id = self.start("")
        for index, weight in ((20, 10), (0, 10), (10, 10)):
            self.child(job_id, index=index, weight=weight)
        for claim in self.claim(3):
            assert claim.task.index is not None
            self.finish(claim, results=(Result(claim.task.index, 10, b"v"),))

        def at(low: int, high: int) -> list[int]:
            return [r.index for r in self.store.results_at(job_id, low, high)]

        assert at(0, 30) == [0, 10, 20]
        assert at(5, 6) == [0]
        assert at(9, 11) == [0, 10]
        assert at(10, 20) == [10]
        assert at(29, 99) == [20]
        assert at(30, 99) == []

    def test_an_input_has_one_result(self) -> None:  # D-21
        job_id = self.start("")
        self.child(job_id, index=0, weight=4)
        self.child(job_id, index=0, weight=4)
        first, second = self.claim(2)
        self.finish(first, results=(Result(0, 2, b"first"), Result(1, 1, b"over"), Result(2, 2, b"rest")))
        self.finish(second, results=(Result(3, 1, b"second"), Result(0, 4, b"second")))
        assert [(r.index, r.count, r.value) for r in self.store.results(job_id)] == [
            (0, 2, b"first"),
            (2, 2, b"rest"),
        ]

    def test_a_dead_task_leaves_a_failed_result_for_what_has_none(self) -> None:  # P-23
        job_id = self.start("")
        self.child(job_id, index=10, weight=10)
        (claim,) = self.claim()
        kept = (Result(12, 2, b"a"), Result(17, 1, b"b", failed=True))
        assert self.store.checkpoint("w1", claim.task.task_id, claim.fence, kept)
        self.finish(claim, Ending.DEAD, payload=b"boom")
        rows = self.store.results_at(job_id, 0, 100)
        assert [(r.index, r.count, r.failed, r.value) for r in rows] == [
            (10, 2, True, b"boom"), (12, 2, False, b"a"), (14, 3, True, b"boom"), (17, 1, True, b"b"),
            (18, 2, True, b"boom"),
        ]  # fmt: skip
        assert self.counts(job_id) == (2, 8, 10)

    def test_a_cancelled_task_leaves_failed_results(self) -> None:
        job_id = self.start("", 2, index=True)
        running = self.claim()[0]
        self.store.cancel(running.task.task_id)
        (other,) = self.claim()
        self.finish(other, Ending.CANCELLED)
        rows = self.store.results(job_id)
        assert [(r.index, r.failed) for r in rows] == [(0, True), (1, True)]
        assert all(b"TaskCancelled" in r.value for r in rows)

    def test_a_checkpoint_is_found_by_the_next_execution(self) -> None:  # D-21
        job_id = self.start("")
        task_id = self.child(job_id, index=0, weight=5)
        (claim,) = self.claim()
        assert self.store.checkpoint("w1", task_id, claim.fence, [Result(0, 2, b"v")], b"data")
        assert [r.count for r in self.store.results(job_id)] == [2]
        self.finish(claim, Ending.LOST)
        (claim,) = self.claim(node="w2")
        assert (claim.task.recorded, claim.task.data) == (2, b"data")
        self.finish(claim, node="w2", results=(Result(2, 3, b"v"),))
        assert self.counts(job_id) == (5, 0, 5)
        assert [(r.index, r.count) for r in self.store.results(job_id)] == [(0, 2), (2, 3)]

    def test_a_checkpoint_of_a_stale_execution_keeps_nothing(self) -> None:  # D-21, U6
        job_id = self.start("")
        task_id = self.child(job_id, index=0, weight=5)
        (claim,) = self.claim()
        self.finish(claim, Ending.LOST)
        assert not self.store.checkpoint("w1", task_id, claim.fence, [Result(0, 2, b"v")], b"data")
        assert self.store.results(job_id) == []
        task = self.store.task(task_id)
        assert task is not None
        assert (task.recorded, task.data) == (0, b"")

    def test_results_with_failures_count_as_such(self) -> None:  # P-23
        job_id = self.start("", closed=False)
        self.child(job_id, index=0, weight=4)
        (claim,) = self.claim()
        self.finish(claim, results=(Result(0, 3, b"v"), Result(3, 1, b"e", failed=True)))
        assert self.counts(job_id) == (3, 1, 4)

    def test_what_was_read_can_be_forgotten(self) -> None:
        job_id = self.start("", 3, index=True)
        for index, claim in enumerate(self.claim(3)):
            self.finish(claim, results=(Result(index, 1, b"v"),))
        rows = self.store.results(job_id)
        self.store.acknowledge(job_id, rows[0].seq)
        assert (self.job(job_id).acknowledged, len(self.store.results(job_id))) == (rows[0].seq, 3)
        self.store.acknowledge(job_id, rows[1].seq, forget=True)
        self.store.acknowledge(job_id, rows[0].seq, forget=True)
        assert self.store.results(job_id) == rows[2:]
        assert self.store.results_at(job_id, 0, 3) == rows[2:]
        assert self.job(job_id).acknowledged == rows[1].seq

    def test_what_was_forgotten_gets_no_second_result(self) -> None:
        job_id = self.start("")
        task_id = self.child(job_id, index=0, weight=3)
        (claim,) = self.claim()
        self.store.checkpoint("w1", task_id, claim.fence, [Result(0, 2, b"v")])
        self.store.acknowledge(job_id, self.store.results(job_id)[0].seq, forget=True)
        assert self.store.results(job_id) == []
        self.finish(claim, Ending.DEAD, payload=b"e")
        assert [(r.index, r.count) for r in self.store.results(job_id)] == [(2, 1)]

    # -- reading and forgetting

    def test_jobs_are_paged_without_gap_or_repeat(self) -> None:
        ids = [self.start("", name=f"n{i % 2}" if i < 2 else "") for i in range(25)]
        pages: list[str] = []
        while page := self.store.jobs(limit=7, after=pages[-1] if pages else ""):
            pages.extend(job.job_id for job in page)
        assert pages == sorted(ids)

    def test_jobs_are_chosen_by_state_name_and_time(self) -> None:
        first, second = self.start("", name="A"), self.start("")
        self.store.change_job(first, JobState.TERMINATED)
        third = self.start("", name="a")
        assert [j.job_id for j in self.store.jobs(state="running")] == [second, third]
        assert [j.job_id for j in self.store.jobs(name="a")] == [first, third]
        assert [j.job_id for j in self.store.jobs(name="a", state="terminated")] == [first]
        created = self.job(third).created
        assert [j.job_id for j in self.store.jobs(since=created)] == [third]
        assert self.store.jobs(since=created + 1) == []

    def test_a_deleted_job_is_gone(self) -> None:
        job_id = self.start(tasks=3, index=True, name="n")
        turn = self.turn()
        claim = self.claim()[0]
        self.finish(claim, results=(Result(0, 1, b"v"),))
        assert self.store.delete_job(job_id)
        assert not self.store.delete_job(job_id)
        assert self.store.job(job_id) is None
        assert self.store.job_named("n") is None
        assert self.store.jobs() == []
        assert self.store.tasks(job_id=job_id) == []
        assert self.store.task(job_id) is None
        assert self.store.results(job_id) == []
        assert self.store.signal(job_id, NewSignal()) == "missing"
        assert not self.end_turn(turn)
        assert self.store.assignments() == []

    def test_a_large_job_is_deleted_at_once_and_removed_in_steps(self) -> None:
        job_id = self.start("", 3000)
        assert self.store.delete_job(job_id)
        assert (self.store.job(job_id), self.store.jobs()) == (None, [])
        assert self.claim(5) == []
        with pytest.raises(JobStateError, match=job_id):
            self.store.start(NewJob(job_id=job_id))
        while self.store.purge(60, 500, journal=10) == 500:
            pass
        assert self.store.statistics().tasks == {}
        self.start("", job_id=job_id)

    def test_jobs_are_forgotten_with_all_that_is_theirs(self) -> None:  # D-24
        before = self.everything()
        for name in ("n", ""):
            job_id = self.start(tasks=3, name=name, ttl=0.0, index=True, closed=True)
            self.store.signal(job_id, NewSignal(signal_id="s"))
            turn = self.turn()
            self.end_turn(turn, timers=(Timer("t", 60.0),), replies=(("s", b"r"),))
            done, dead, running = self.claim(3)
            self.finish(done, results=(Result(0, 1, b"v"),))
            self.finish(dead, Ending.DEAD, payload=b"e")
            self.store.start(NewJob(CLS, name="n"))
            self.store.change_job(job_id, JobState.SUSPENDED)
            self.child(job_id, ordering_key="k")
            self.store.change_job(job_id, JobState.TERMINATED)
            assert not self.finish(running)
            for other in self.store.jobs(name="n", state="created"):
                self.store.delete_job(other.job_id)
        time.sleep(0.01)
        while self.store.purge(60.0, 3, journal=0) == 3:
            pass
        assert self.everything() == before

    def everything(self) -> dict[str, int]:
        """How many rows or keys of each kind there are, but for counters and the journal."""
        return self.store.inventory()  # type: ignore[attr-defined, no-any-return]

    def test_a_job_that_nobody_feeds_any_more_is_terminated(self) -> None:
        fed = self.start("", 2, feed_ttl=60.0)
        assert self.job(fed).feed_ttl == 60.0
        left, turns = self.start("", 2, feed_ttl=0.0), self.start(feed_ttl=0.0)
        time.sleep(0.01)
        assert self.store.feed(fed)
        self.store.purge(60.0, 100, journal=100)
        for job_id in (left, turns):
            job = self.job(job_id)
            assert (job.state, job.reason) == (JobState.TERMINATED, "nobody has fed it for 0 s")
            assert not self.store.feed(job_id)
        assert self.job(fed).state == JobState.RUNNING
        assert len(self.claim(9)) == 2
        assert self.no_turn()

    def test_only_a_job_that_is_open_has_to_be_fed(self) -> None:
        plain, closed, ended = self.start(""), self.start("", 1, feed_ttl=0.0), self.start("", feed_ttl=0.0)
        begun = self.start("", 1, closed=True, feed_ttl=0.0)
        closing = self.start(tasks=1, feed_ttl=0.0)
        self.end_turn(self.turn(), close=True)
        self.store.close_job(closed)
        self.store.close_job(ended)
        time.sleep(0.01)
        for job_id in (plain, closed, ended, begun, closing, "no such job"):
            assert not self.store.feed(job_id)
        self.store.purge(60.0, 100, journal=100)
        assert self.job(ended).state == JobState.FINISHED
        for job_id in (plain, closed, begun, closing):
            assert self.job(job_id).state == JobState.RUNNING

    def test_one_who_feeds_again_in_time_is_in_time(self) -> None:
        job_id = self.start("", feed_ttl=0.2)
        for _ in range(3):
            time.sleep(0.08)
            assert self.store.feed(job_id)
            self.store.purge(60.0, 100, journal=100)
        assert self.job(job_id).state == JobState.RUNNING

    def test_the_time_to_live_is_the_jobs_or_the_stores(self) -> None:  # D-24
        long, short, default = self.start("", ttl=60.0), self.start("", ttl=0.0), self.start("")
        living = self.start("", ttl=0.0)
        for job_id in (long, short, default):
            self.store.change_job(job_id, JobState.TERMINATED)
        time.sleep(0.01)
        self.store.purge(60.0, 100, journal=10)
        assert [j.job_id for j in self.store.jobs()] == sorted([long, default, living])
        self.store.purge(0.005, 100, journal=10)
        assert [j.job_id for j in self.store.jobs()] == sorted([long, living])

    def test_wiping_a_group_leaves_nothing_of_its_jobs(self) -> None:
        before = self.everything()
        other = self.again("other")
        job_id = other.start(NewJob(CLS, name="n"), [NewTask(OP, b"", index=0)])[0]
        other.signal(job_id, NewSignal())
        other.wipe()
        assert other.jobs() == []
        assert other.job_named("n") is None
        assert other.inventory() == {}  # type: ignore[attr-defined]
        assert self.everything() == before

    # -- hints

    def test_a_listener_hears_of_every_change_of_a_job(self) -> None:
        job_id = self.start(tasks=1, index=True, notify=Notify.NEVER)
        listener = self.store.listen(f"job:{job_id}")
        listener.wait(0.05)
        listener.wait(0)
        time.sleep(0.06)  # the list of listeners may be that old

        turn, claim = self.turn(), self.claim()[0]
        fence = claim.fence
        for change in (
            lambda: self.end_turn(turn),
            lambda: self.store.checkpoint("w1", claim.task.task_id, fence, [Result(0, 1, b"v")]),
            lambda: self.finish(claim),
            lambda: self.store.signal(job_id, NewSignal()),
            lambda: self.store.change_job(job_id, JobState.PAUSED),
            lambda: self.store.change_job(job_id, JobState.TERMINATED),
        ):
            change()
            assert listener.wait(2.0)
            while listener.wait(0.01):
                pass
        listener.close()

    def test_the_workers_of_an_ended_job_are_told(self) -> None:  # P-25
        job_id = self.start("", 1)
        self.claim(1, "w2")
        listener = self.store.listen("node:w2")
        listener.wait(0.05)
        listener.wait(0)
        time.sleep(0.06)
        self.store.change_job(job_id, JobState.TERMINATED)
        assert listener.wait(2.0)
        listener.close()
