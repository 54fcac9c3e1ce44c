"""Jobs as a class sees them: by hand, in one process, and from several clients."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from cluster import (
    Cancel,
    Client,
    ClusterError,
    InvalidArguments,
    Job,
    JobCancelled,
    JobNotFound,
    JobStateError,
    JobTimeout,
    Next,
    OperationError,
    Pause,
    ResultTimeout,
    Resume,
    Retry,
    Suspend,
    UnknownOperation,
    Worker,
    job,
    operation,
)
from cluster._job_handle import Progress
from cluster._turns import forced_cancel, take_turn
from cluster.jobs import new_job, split_data
from cluster.records import Inbox, Job as JobRecord, JobState, Turn
from cluster.signals import BY_NAME, CHANGES
from cluster.testing import FAST, all_events, run_inline, wait_for
from net import values
from tests.cluster import ops, works


@pytest.fixture
def inline() -> Iterator[Client]:
    with Client("memory:", workers=3, settings=FAST) as client:
        yield client


@pytest.fixture
def idle() -> Iterator[Client]:
    with Client("memory:") as client:
        yield client


# ------------------------------------------------------------------------------------------------ a turn, as a function


def turn_of(*rows: Inbox, data: dict[str, object] | None = None, total: int = 0) -> Turn:
    record = JobRecord("j1", "works:Account", JobState.RUNNING, data=values.dumps(data or {}), total=total)
    return Turn(record, rows)


def add(seq: int, amount: int) -> Inbox:
    return Inbox(seq, "signal", f"s{seq}", "AddFunds", values.dumps(works.AddFunds(amount)))


def test_a_turn_handles_its_rows_in_order() -> None:  # U4
    end, children = take_turn(works.Account, turn_of(add(4, 1), add(5, 2), data={"balance": 0}))
    assert (end.consumed, children, end.state) == (5, (), None)
    assert split_data(end.data)[0] == {"balance": 3}
    assert [(row, values.loads(reply)["value"]) for row, reply in end.replies] == [("s4", 1), ("s5", 3)]


def test_a_signal_that_fails_is_undone_alone() -> None:
    end, children = take_turn(works.Account, turn_of(add(1, 1), add(2, -7), add(3, 2), data={"balance": 0}))
    assert split_data(end.data)[0] == {"balance": 3}
    assert (children, end.timers) == ((), ())
    assert [values.loads(reply)["status"] for _, reply in end.replies] == ["ok", "failed", "ok"]
    assert values.loads(end.replies[1][1])["error"]["message"] == "no negative amount: -7"


def test_what_comes_after_the_end_in_a_turn_is_answered_so() -> None:
    ask = Inbox(1, "signal", "s1", "Ask", values.dumps(works.Ask("finish")))
    end, _ = take_turn(works.Account, turn_of(ask, add(2, 1), data={"balance": 4}))
    assert (end.state, end.result, end.consumed) == (JobState.FINISHED, values.dumps(4), 2)
    assert [values.loads(reply)["status"] for _, reply in end.replies] == ["ok", "ended"]


def test_a_job_is_cancelled_although_its_turn_fails() -> None:  # X5.1
    turn = turn_of(add(1, 1), Inbox(2, "cancel", "s2", "Cancel", values.dumps("enough"), by="me"))
    end = forced_cancel(turn, "its process died")
    assert end is not None
    assert (end.state, end.consumed) == (JobState.CANCELLED, 2)
    assert end.reason == "enough, asked by me (its handlers failed: its process died)"
    assert forced_cancel(turn_of(add(1, 1)), "") is None


# ------------------------------------------------------------------------------------------------ by hand


def test_a_class_is_tested_by_hand() -> None:
    run = run_inline(works.Audit, {"shards": 3})
    assert [(task.op, task.args[0]) for task in run.tasks] == [(works.check.name, n) for n in range(3)]
    run.done(run.tasks[1].task_id, 7)
    assert (run.state, run.data["sum"], len(run.tasks)) == ("running", 7, 2)
    assert run.run_tasks() == 2
    assert (run.state, run.result, run.record.reason) == ("finished", 7 + 45 + 245, "3 shards")


def test_a_class_sleeps_for_hours_by_hand() -> None:
    run = run_inline(works.Sleeper, {"after": 3600, "slices": 3})
    run.advance(3599)
    assert (run.data["slices"], run.timers) == (0, {".step": 1.0})
    assert run.signal(works.Ask("slices")).value == 0
    run.advance(3601)
    assert run.data["slices"] == 2
    run.advance(3600)
    assert (run.state, run.result, run.now) == ("finished", 3, 10_800)


def test_timers_are_replaced_and_forgotten_by_hand() -> None:
    run = run_inline(works.Clock)
    run.advance(1)
    assert run.result == (("first", {"n": 1}), ("replaced", "soon"))


def test_signals_by_hand_are_those_of_a_store() -> None:
    run = run_inline(works.Account)
    assert run.signal(works.AddFunds(5), id="a").value == 5
    assert run.signal(works.AddFunds(5), id="a").value == 5  # once
    assert run.signal(works.Unheard()).status == "unknown"
    run.restart("again")
    assert (run.data["balance"], run.data["starts"]) == (5, 2)
    reply = run.signal(Cancel("enough"))
    assert (reply.value, run.state, run.signal(works.AddFunds(1)).status) == (
        "cleaned up",
        "cancelled",
        "ended",
    )


def test_failed_tasks_are_told_by_hand() -> None:
    run = run_inline(works.Tolerant, {"op": "must", "count": 2, "bad": 0})
    run.run_tasks()
    done, failed, errors = run.result
    assert (done, failed) == (1, 1)
    assert errors[0][0] == "OperationError"
    assert errors[0][2:] == (b"m0", "dead")
    vital = run_inline(works.Tolerant, {"op": "vital", "count": 3, "bad": 1})
    vital.run_tasks()
    assert vital.state == "failed"
    assert vital.error is not None
    assert vital.error["message"] == "number 1 is bad"
    with pytest.raises(InvalidArguments, match="no task 'x'"):
        run_inline(works.Audit, {"shards": 1}).done("x")


def test_a_failing_handler_is_seen_by_hand() -> None:
    with pytest.raises(ValueError, match="start failed"):
        run_inline(works.Clumsy, {"where": "start"})
    with pytest.raises(Exception, match="returned 5; return None or Next"):
        run_inline(works.Clumsy, {"where": "return"})


# ------------------------------------------------------------------------------------------------ in one process


def test_a_job_folds_what_its_tasks_find(inline: Client) -> None:
    handle = inline.start(works.Audit, {"shards": 20})
    assert handle.result(20) == sum(range(200))
    record = inline.attach_job(handle.job_id).record()
    assert (record.state, record.done, record.failed, record.total) == ("finished", 20, 0, 20)
    assert handle.data == {"sum": sum(range(200)), "checked": 20}
    assert handle.progress() == Progress(done=20, failed=0, total=20)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_job_may_be_told_of_the_last_end_only(inline: Client, count: int) -> None:
    handle = inline.start(works.Counted, count)
    assert handle.result(10) == (count, 0, count)
    assert sorted((r.index, r.value) for r in handle.results()) == [
        (n, sum(range(n * 10, n * 10 + 10))) for n in range(count)
    ]


def test_an_empty_job_is_told_that_all_is_done(inline: Client) -> None:
    assert inline.start(works.Audit, {"shards": 0}).result(10) == 0


def test_results_come_while_the_job_runs(inline: Client) -> None:
    @job(queue="nowhere")  # its turns wait, its tasks run: the first result is there before the job has begun
    class Lazy(Job):
        pass

    new = new_job(Lazy, closed=False)
    tasks = [
        inline.with_options(index=n, job_id=new.job_id).make(op, *args)
        for n, (op, args) in enumerate([(works.check, (1,)), (works.vital, (2, 2))])
    ]
    handle = inline.start_job(new, tasks)
    found = {}
    with pytest.raises(ResultTimeout, match="no new result"):
        found.update((r.index, r) for r in _collected(handle.results(timeout=1.0), found))
    assert found[0].value == 145
    assert found[1].error is not None
    assert found[1].error.kind == "ValueError"
    assert handle.state == "created"


def _collected(results, found):  # type: ignore[no-untyped-def]
    for one in results:
        found[one.index] = one
        yield one


def test_a_task_records_its_inputs_one_by_one(inline: Client) -> None:  # D-21
    @operation
    def chunk(ctx, items):  # type: ignore[no-untyped-def]
        for item in items[ctx.recorded :]:
            if item < 0:
                ctx.record_failure(ValueError(f"{item} is negative"))
            else:
                ctx.record(item * item)

    @operation
    def listed(items):  # type: ignore[no-untyped-def]
        return [item + 1 for item in items]

    @job(notify="last", queue="default")
    class Chunks(Job):
        def start(self, params):  # type: ignore[no-untyped-def]
            self.spawn(chunk, (1, -2, 3), index=0, weight=3)
            self.spawn(listed, (7, 8), index=3, weight=2)

        def on_all_done(self) -> None:
            self.finish((self.done, self.failed, self.total))

    handle = inline.start(Chunks)
    assert handle.result(10) == (4, 1, 5)
    found = {r.index: r.error.message if r.error else r.value for r in handle.results()}
    assert found == {0: 1, 1: "-2 is negative", 2: 9, 3: 8, 4: 9}


def test_a_failed_attempt_keeps_what_it_has_recorded(inline: Client) -> None:  # D-21
    computed = []

    @operation(retry=ops.QUICK)
    def chunk(ctx, items):  # type: ignore[no-untyped-def]
        for item in items[ctx.recorded :]:
            computed.append((ctx.attempt, item))
            if item == 3 and ctx.attempt == 1:
                raise ValueError("not now")
            ctx.record(item)

    @job(notify="last")
    class Chunk(Job):
        def start(self, params):  # type: ignore[no-untyped-def]
            self.spawn(chunk, (0, 1, 2, 3, 4), index=0, weight=5)

        def on_all_done(self) -> None:
            self.finish((self.done, self.failed))

    handle = inline.start(Chunk)
    assert handle.result(10) == (5, 0)
    assert computed == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 3), (2, 4)]
    assert [r.value for r in handle.results()] == [0, 1, 2, 3, 4]


def test_a_failed_task_is_told_to_the_class_or_fails_the_job(inline: Client) -> None:  # P-22, P-23
    told = inline.start(works.Tolerant, {"op": "must", "count": 5, "bad": 2}).result(10)
    assert told[:2] == (4, 1)
    assert told[2][0][2:] == (b"m2", "dead")
    ignored = inline.start(works.Tolerant, {"op": "optional", "count": 5, "bad": 2})
    assert ignored.result(10)[:2] == (4, 1)
    assert [task.op for task in inline.dead()] == [works.must.name, works.optional.name]
    failed = inline.start(works.Tolerant, {"op": "vital", "count": 5, "bad": 2})
    with pytest.raises(ValueError, match="number 2 is bad") as caught:
        failed.result(10)
    error = caught.value
    assert isinstance(error, OperationError)
    assert (error.kind, error.operation) == ("ValueError", works.vital.name)
    assert "in vital" in error.traceback_text
    assert failed.record().reason == "ValueError: number 2 is bad"


def test_what_a_failing_handler_did_is_undone_and_tried_again(inline: Client, tmp_path: Path) -> None:
    handle = inline.start(works.Clumsy, {"where": "once", "path": str(tmp_path / "seen")})
    assert handle.result(10) == "started"
    with pytest.raises(ValueError, match="start failed"):
        inline.start(works.Clumsy, {"where": "start"}).result(10)
    told = inline.start(works.Clumsy, {"where": "task"})
    with pytest.raises(ValueError, match="told of it"):
        told.result(10)
    assert told.data == {"started": True}
    for where, message in [("return", "returned 5"), ("step", "no method step_nowhere")]:
        with pytest.raises(OperationError, match=message):
            inline.start(works.Clumsy, {"where": where}).result(10)


def test_a_turn_is_tried_again_as_often_as_its_class_says(
    inline: Client, journal: Path
) -> None:  # the class's Retry
    handle = inline.start(works.Clumsy, {"where": "start"})
    with pytest.raises(OperationError, match="after 3 attempts"):
        handle.result(10)
    assert journal.read_text().count(" start ") == 1 + ops.QUICK.max


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_a_turn_is_never_behind_the_tasks_that_take_the_slots(prefetch: int) -> None:
    url = f"memory:{os.urandom(4).hex()}"
    worker = Worker(url, slots=1, inline=True, prefetch=prefetch, settings=FAST)
    running = gevent.spawn(worker.run)
    with Client(url, settings=FAST) as client:
        crowd = client.start(works.Crowd, {"count": 8, "op": "obey"})
        wait_for(lambda: worker.running, sleep=gevent.sleep)
        accounts = [client.start(works.Account) for _ in range(5)]
        assert [a.signal(works.AddFunds(n), timeout=10).value for n, a in enumerate(accounts)] == [*range(5)]
        assert len(worker.running) <= 1 + prefetch + 1
        assert crowd.cancel(timeout=10).status == "ok"
        assert client.start(works.Audit, {"shards": 3}).result(10) == sum(range(30))
        worker.stop()
        running.join()
    worker.store.close()


def test_steps_and_timers_come_at_their_times(inline: Client) -> None:
    sleeper = inline.start(works.Sleeper, {"after": 0.1, "slices": 3})
    clock = inline.start(works.Clock)
    assert sleeper.result(10) == 3
    record = sleeper.record()
    assert record.ended is not None
    assert record.ended - record.created >= 0.3
    assert clock.result(10) == (("first", {"n": 1}), ("replaced", "soon"))


def test_a_job_shows_who_did_what_and_when(inline: Client) -> None:
    handle = inline.start(works.Account, name="main", description="the main account")
    wait_for(lambda: handle.state == "running", sleep=gevent.sleep)
    first = handle.record()
    assert (first.name, first.description, first.cls) == (
        "main",
        "the main account",
        "tests.cluster.works:Account",
    )
    assert re.fullmatch(r"inline-\d", first.by)
    assert 0 < first.created <= first.updated
    handle.signal(Cancel("closing down"), timeout=5)
    last = handle.record()
    assert re.fullmatch(r"closing down, asked by \w+@.+@.+", last.reason)
    assert last.ended is not None
    assert last.ended >= first.updated
    changes = [e for e in all_events(inline.store) if e.kind == "job-state" and e.subject == handle.job_id]
    assert [e.detail.split()[:2] for e in changes] == [["created", "running"], ["running", "cancelled"]]
    assert all(e.by and e.at for e in changes)


def test_a_name_is_one_living_job(inline: Client) -> None:
    first = inline.start(works.Account, name="Nightly")
    again = [inline.start(works.Account, n, name="nightly") for n in range(3)]
    assert [h.started for h in (first, *again)] == ["new", "merged", "merged", "merged"]
    assert {h.job_id for h in again} == {first.job_id}
    wait_for(lambda: first.data.get("starts") == 4, sleep=gevent.sleep)
    assert first.data["names"] == (0, 1, 2)
    assert inline.job("NIGHTLY").job_id == first.job_id
    first.cancel(timeout=5)
    second = inline.start(works.Account, name="nightly")
    assert second.started == "new"
    assert second.job_id != first.job_id
    assert inline.job("nightly").job_id == second.job_id


def test_an_id_is_started_once(idle: Client) -> None:
    first = idle.start(works.Audit, {"shards": 1}, id="one")
    assert (first.job_id, first.started) == ("one", "new")
    assert idle.start(works.Audit, {"shards": 9}, id="one").started == "known"
    assert len(idle.jobs()) == 1


def test_a_caller_who_waits_too_short_ends_the_job(inline: Client) -> None:  # P-28
    with pytest.raises(JobTimeout, match=r"not ended within 0\.2 s.*terminated"):
        inline.run(works.Crowd, {"count": 20, "op": "obey"}, timeout=0.2)
    [record] = inline.jobs()
    assert (record.state, record.reason) == ("terminated", "not finished within 0.2 s")
    wait_for(lambda: not inline.store.assignments(), sleep=gevent.sleep)
    assert inline.run(works.Audit, {"shards": 2}, timeout=10) == sum(range(20))


def test_an_interrupted_caller_ends_the_job(inline: Client) -> None:  # P3.9
    caller = gevent.spawn(inline.run, works.Crowd, {"count": 1, "op": "obey"})
    wait_for(inline.jobs, sleep=gevent.sleep)
    caller.kill()
    assert [record.state for record in inline.jobs()] == ["terminated"]
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.2):
        inline.run(works.Crowd, {"count": 1, "op": "obey"})
    assert [record.state for record in inline.jobs()] == ["terminated"] * 2


def test_one_waits_for_less_than_it_takes(idle: Client) -> None:
    handle = idle.start(works.Audit, {"shards": 1})
    with pytest.raises(ResultTimeout, match="it is created, and 0 of 0 have ended"):
        handle.result(0.05)
    assert handle.state == "created"


def test_bad_jobs_never_reach_the_store(idle: Client) -> None:
    for call, message in [
        (lambda: idle.start(works.Audit, object()), "cannot travel"),
        (lambda: idle.start(works.Audit, "x" * (2 << 20)), "are allowed"),
        (lambda: idle.start(works.Audit, {}, colour=1), "no option colour"),
        (lambda: idle.start(works.Audit, {}, id=""), "not empty"),
        (lambda: idle.submit(works.Audit.__module__ + ":Audit"), "client.start"),
    ]:
        with pytest.raises(InvalidArguments, match=message):
            call()
    with pytest.raises(UnknownOperation, match="no job class"):
        idle.start(works.check.name)
    assert idle.jobs() == []


def test_an_unknown_job_is_not_found(idle: Client) -> None:
    for call in (idle.job, idle.attach_job):
        with pytest.raises(JobNotFound, match="no job 'x'"):
            call("x")
    with pytest.raises(InvalidArguments, match="'asleep' is no state"):
        idle.jobs(state="asleep")


def test_wrong_calls_in_a_job_say_what_is_right() -> None:
    class Wrong(Job):
        def start(self, params):  # type: ignore[no-untyped-def]
            if params == "option":
                self.spawn(works.check, 1, color=3)
            self.after(1, ".mine")

    with pytest.raises(InvalidArguments, match=r"no option color; keywords .* kwargs="):
        run_inline(Wrong, "option")
    with pytest.raises(InvalidArguments, match="begins with no dot"):
        run_inline(Wrong)


def test_data_is_a_dict_of_the_job() -> None:
    class Keeps(Job):
        def start(self, params):  # type: ignore[no-untyped-def]
            self.data = {"nested": {"list": [1, 2]}}

        def on_signal_Ask(self, signal):  # type: ignore[no-untyped-def]
            self.data["nested"]["more"] = signal.what  # a dict still, in the next turn, too
            self.data["."] = 1

    run = run_inline(Keeps)
    assert run.data == {"nested": {"list": (1, 2)}}
    reply = run.signal(works.Ask("x"))
    assert (reply.status, run.data) == ("failed", {"nested": {"list": (1, 2)}})


def test_on_failure_is_one_of_two_words() -> None:
    with pytest.raises(ClusterError, match="and not 'explode'"):
        operation(on_failure="explode")(lambda: 1)


def test_a_class_keeps_its_name_and_says_its_policy() -> None:
    @job(name="audit-v1", queue="audit", retry=Retry(max=7), ttl=60, notify="last", fail_fast=True)
    class Renamed(Job):
        """What it is for."""

    new = new_job("audit-v1")
    assert (new.cls, new.queue, new.ttl, new.notify, new.fail_fast) == ("audit-v1", "audit", 60, "last", True)
    assert new.description == "What it is for."
    assert new_job(Renamed).cls == "audit-v1"
    assert new_job("somewhere:Else").cls == "somewhere:Else"  # workers may know it


# ------------------------------------------------------------------------------------------------ states


_CHANGES = ["pause", "suspend", "resume", "terminate"]


@pytest.mark.parametrize(
    ("state", "allowed"),
    [
        (
            "running",
            {"pause": "paused", "suspend": "suspended", "resume": "running", "terminate": "terminated"},
        ),
        (
            "paused",
            {"pause": "paused", "suspend": "suspended", "resume": "running", "terminate": "terminated"},
        ),
        (
            "suspended",
            {"pause": "paused", "suspend": "suspended", "resume": "running", "terminate": "terminated"},
        ),
        ("finished", {}),
        ("cancelled", {}),
        ("terminated", {}),
        ("failed", {}),
    ],
)
def test_only_legal_changes_are_made(inline: Client, state: str, allowed: dict[str, str]) -> None:
    for change in _CHANGES:
        handle = inline.start(works.Account)
        wait_for(lambda: handle.state == "running", sleep=gevent.sleep)  # noqa: B023
        match state:
            case "finished" | "cancelled":
                handle.signal(BY_NAME[{"finished": "finish", "cancelled": "cancel"}[state]](), timeout=5)
            case "failed":
                handle = inline.start(works.Clumsy, {"where": "return"})
                handle.wait(10)
            case "terminated":
                handle.terminate()
            case "paused" | "suspended":
                handle.signal(BY_NAME[{"paused": "pause", "suspended": "suspend"}[state]]())
        assert handle.state == state
        reply = handle.signal(BY_NAME[change]())
        assert reply.status == ("ok" if change in allowed else "ended")
        assert handle.state == allowed.get(change, state)
        if not allowed:
            with pytest.raises(JobStateError, match=f"it is {state}"):
                inline.store.change_job(handle.job_id, CHANGES[BY_NAME[change]])
        handle.terminate()


def test_a_paused_job_answers_and_its_tasks_wait(inline: Client) -> None:
    handle = inline.start(works.Account)
    handle.signal(works.AddFunds(1), timeout=5)
    assert handle.signal(Pause("for now")).job == handle.record()
    assert handle.signal(works.AddFunds(1), timeout=5).value == 2
    assert (handle.state, handle.record().reason) == ("paused", "for now")
    task = inline.with_options(job_id=handle.job_id).submit(works.check, 1)
    gevent.sleep(0.3)
    assert task.state == "held"
    handle.signal(Suspend())
    assert handle.signal(works.AddFunds(1), timeout=0.2, id="late").status == "timeout"
    handle.signal(Resume())
    assert task.result(5) == 145
    late = wait_for(lambda: inline.reply(handle.job_id, "late"), sleep=gevent.sleep)
    assert late.value == 3


def test_ended_jobs_raise_what_they_ended_with(inline: Client) -> None:
    handle = inline.start(works.Account)
    handle.cancel("enough", timeout=5)
    with pytest.raises(JobCancelled, match="was cancelled: enough") as caught:
        handle.result(5)
    assert caught.value.job_state == "cancelled"
    killed = inline.start(works.Account)
    killed.terminate("now")
    with pytest.raises(JobCancelled, match="was terminated: now") as caught:
        killed.result(5)
    assert caught.value.job_state == "terminated"


# ------------------------------------------------------------------------------------------------ on both engines


def test_500_jobs_are_paged_without_gap_or_repeat(client: Client) -> None:
    middle = 0.0
    started = []
    for number in range(500):
        if number == 200:
            middle = client.store.now()
        started.append(client.start(works.Account, name=f"n{number % 50}" if number < 50 else None).job_id)
    found: list[str] = []
    while page := client.jobs(limit=37, after=found[-1] if found else ""):
        assert len(page) <= 37
        found.extend(record.job_id for record in page)
        if len(found) == 74:
            client.start(works.Account, id="zzz-a-late-one")  # does not disturb the others
    assert found == [*sorted(started), "zzz-a-late-one"]
    client.attach_job(started[7]).terminate()
    assert [r.job_id for r in client.jobs(state="terminated")] == [started[7]]
    assert [r.name for r in client.jobs(name="N8")] == ["n8"]
    since = client.jobs(since=middle, limit=1000)
    assert [r.job_id for r in since] == [*sorted(started[200:]), "zzz-a-late-one"]


_STARTS = """
import sys
from cluster import Client
from tests.cluster import works
client = Client(sys.argv[1])
for n in range(5):
    print(client.start(works.Account, n, name="nightly").job_id)
"""


@pytest.mark.real
def test_a_name_started_by_many_at_once_is_one_job(url: str, client: Client) -> None:
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", _STARTS, url], stdout=subprocess.PIPE, text=True, env={**os.environ}
        )
        for _ in range(4)
    ]
    found = {line for process in clients for line in process.communicate(timeout=50)[0].split()}
    assert [process.returncode for process in clients] == [0] * 4
    assert found == {record.job_id for record in client.jobs()}
    assert len(found) == 1


def test_a_step_may_not_be_an_unknown_one() -> None:
    class Lost(Job):
        def start(self, params: object) -> Next:
            return Next("nowhere")

    with pytest.raises(Exception, match="Lost has no method step_nowhere"):
        run_inline(Lost)
