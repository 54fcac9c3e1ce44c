"""What a store promises of jobs to processes that come at the same time, or die; with real processes.

Four processes are started once for all tests. They wait for the word on their standard input, so that what they do
coincides, and say what came of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.records import (
    Claim,
    Ending,
    Finish,
    JobState,
    Member,
    NewJob,
    NewSignal,
    NewTask,
    Notify,
    Result,
    TaskState,
    TurnEnd,
)
from cluster.stores import Store

PROCESSES = 4
CLS = "test:Job"

# What one of the processes does, by the word that it is given with arguments as JSON.
PROGRAM = """
import json, sys
from cluster.errors import JobStateError, JobNotFound
from cluster.records import *
from cluster.stores import open_store

number = int(sys.argv[1])
node = f"w{number}"

def use(url):
    global store
    store = open_store(url)
    store.join(Member(node, "i", "worker"), 600)

def close():
    store.close()

def claim(count, op):
    return store.claim(node, "i", count, queues=["default"], ops=[op], lease=60)[0]

def start(name):
    return store.start(NewJob("test:Job", b"%d" % number, name=name))

def work():
    ended = 0
    while claims := claim(5, "op"):
        for c in claims:
            result = Result(c.task.index, 1, b"v")
            ended += sum(store.finish(node, [Finish(c.task.task_id, c.fence, Ending.DONE, results=(result,))]))
    return ended

def end(job_id):
    if number % 2:
        try:
            return store.change_job(job_id, JobState.TERMINATED, by=node).by
        except JobStateError as error:
            return error.job_state
    return store.signal(job_id, NewSignal("cancel", "Cancel", by=node))

def add(job_id, count):
    # A handler of signals in all processes at once: whoever gets the turn counts what came.
    for i in range(count):
        store.signal(job_id, NewSignal("signal", "Add", signal_id=f"{number}-{i}"))
        for c in claim(1, "test:Job"):
            rows = c.turn.inbox
            data = b"%d" % (int(c.turn.job.data or 0) + sum(row.kind == "signal" for row in rows))
            turn = TurnEnd(rows[-1].seq if rows else 0, data)
            store.finish(node, [Finish(c.task.task_id, c.fence, Ending.TURN, turn=turn)])

print("ready", flush=True)
for line in sys.stdin:
    word, *arguments = json.loads(line)
    print(json.dumps(globals()[word](*arguments)), flush=True)
"""


class Four:
    """Four processes that do the same at the same time."""

    def __init__(self) -> None:
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[3],
            )
            for number in range(PROCESSES)
        ]
        for process in self.processes:
            assert self._line(process) == "ready"

    def __call__(self, word: str, *arguments: Any) -> list[Any]:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps([word, *arguments]) + "\n")
            process.stdin.flush()
        return [json.loads(self._line(process)) for process in self.processes]

    @staticmethod
    def _line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def close(self) -> None:
        for process in self.processes:
            process.communicate()


@pytest.fixture(scope="module")
def _four() -> Iterator[Four]:
    processes = Four()
    yield processes
    processes.close()


@pytest.fixture
def four(_four: Four, url: str, store: Store) -> Iterator[Four]:
    _four("use", url)
    yield _four
    _four("close")


def claim_all(store: Store, op: str, count: int = 1000) -> list[Claim]:
    return store.claim("here", "i", count, queues=["default"], ops=[op], lease=60)[0]


@pytest.fixture(autouse=True)
def _member(store: Store) -> None:
    store.join(Member("here", "i", "worker"), 600)


def test_a_name_started_by_four_at_once_is_one_job(store: Store, four: Four, full_size: bool) -> None:
    #
    for round_ in range(20 if full_size else 5):
        name = f"Nightly {round_}"
        outcomes = four("start", name)
        assert Counter(outcome for _, outcome in outcomes) == {"new": 1, "merged": PROCESSES - 1}
        (job_id,) = {job_id for job_id, _ in outcomes}
        (claim,) = claim_all(store, CLS)
        assert claim.turn is not None
        rows = claim.turn.inbox
        # Each start is told, exactly once: the first by "start", and before all others.
        assert [row.kind for row in rows] == ["start"] + ["restart"] * (PROCESSES - 1)
        assert sorted(row.body for row in rows) == [b"%d" % n for n in range(PROCESSES)]
        store.delete_job(job_id)


def test_of_a_cancel_and_a_termination_at_once_exactly_one_wins(
    store: Store, four: Four, full_size: bool
) -> None:
    #
    for _ in range(20 if full_size else 5):
        job_id, _ = store.start(NewJob())
        outcomes = four("end", job_id)
        job = store.job(job_id)
        assert job is not None
        winner = int(job.by[1:])
        for number, outcome in enumerate(outcomes):
            won = f"w{number}" if number % 2 else "taken"
            lost = str(job.state) if number % 2 else "ended"
            assert outcome == (won if number == winner else lost)
        assert job.state == (JobState.TERMINATED if winner % 2 else JobState.CANCELLED)
        ends = [e for e in store.events() if e.kind == "job-state" and e.subject == job_id]
        assert len(ends) == 1


def test_counts_are_exact_when_two_hundred_tasks_end_in_four_processes(
    store: Store, four: Four, full_size: bool
) -> None:
    # D-14, D-15, D-16
    for _ in range(20 if full_size else 3):
        job_id, _ = store.start(NewJob(closed=True), [NewTask("op", b"", index=i) for i in range(200)])
        assert sum(four("work")) == 200
        job = store.job(job_id)
        assert job is not None
        assert (job.done, job.failed, job.total, job.state) == (200, 0, 200, JobState.FINISHED)
        assert sorted(row.index for row in store.results(job_id)) == list(range(200))


def test_a_class_is_told_once_that_two_hundred_tasks_have_ended(store: Store, four: Four) -> None:  # D-15
    tasks = [NewTask("op", b"", index=i) for i in range(200)]
    store.start(NewJob(CLS, closed=True, notify=Notify.LAST), tasks)
    (first,) = claim_all(store, CLS)
    assert first.turn is not None
    turn = TurnEnd(first.turn.inbox[-1].seq, b"")
    store.finish("here", [Finish(first.task.task_id, first.fence, Ending.TURN, turn=turn)])
    four("work")
    (second,) = claim_all(store, CLS)
    assert second.turn is not None
    assert [row.kind for row in second.turn.inbox] == ["all-ended"]


def test_signals_of_four_processes_are_applied_once_and_one_at_a_time(
    store: Store, four: Four, full_size: bool
) -> None:
    #
    each = 250 if full_size else 40
    job_id, _ = store.start(NewJob(CLS))
    four("add", job_id, each)
    for claim in claim_all(store, CLS):  # what came after the last turn of anybody
        assert claim.turn is not None
        rows = claim.turn.inbox
        data = b"%d" % (int(claim.turn.job.data or 0) + sum(row.kind == "signal" for row in rows))
        turn = TurnEnd(rows[-1].seq, data)
        assert store.finish("here", [Finish(job_id, claim.fence, Ending.TURN, turn=turn)]) == [True]
    job = store.job(job_id)
    task = store.task(job_id)
    assert job is not None
    assert task is not None
    assert (int(job.data), task.state) == (PROCESSES * each, TaskState.IDLE)
    # Handlers never overlap: between two assignments of the turn there is its end.
    mine = [e.kind for e in store.events(limit=100_000) if e.subject == job_id]
    turns = [kind for kind in mine if kind in ("assign", "turn")]
    assert turns == ["assign", "turn"] * (len(turns) // 2)


def test_a_process_that_dies_right_after_a_start_has_started_the_job(
    url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # stored entirely, although nobody was told
    monkeypatch.setenv("CLUSTER_FAIL", "submit-committed")
    code = (
        "from cluster.records import *; from cluster.stores import open_store\n"
        f"open_store({url!r}).start(NewJob('test:Job', job_id='j'), [NewTask('op', b'') for _ in range(50)])"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=30, cwd=Path(__file__).parents[3])
    assert done.returncode == -9
    job = store.job("j")
    assert job is not None
    assert job.total == 50
    assert store.start(NewJob(CLS, job_id="j"), [NewTask("op", b"")]) == ("j", "known")
    assert len(claim_all(store, "op")) == 50


@pytest.mark.parametrize(("point", "happened"), [("turn-half", False), ("finish-committed", True)])
def test_a_process_that_dies_in_a_turns_end_has_done_all_of_it_or_nothing(
    url: str, store: Store, monkeypatch: pytest.MonkeyPatch, point: str, happened: bool
) -> None:
    #
    if url.startswith("redis"):  # a script is one step for the server, so there is no point inside
        point, happened = "finish-committed", True
    store.start(NewJob(CLS, job_id="j"))
    store.signal("j", NewSignal(signal_id="s"))
    monkeypatch.setenv("CLUSTER_FAIL", point)
    code = (
        "from cluster.records import *; from cluster.stores import open_store\n"
        f"store = open_store({url!r})\n"
        "(c,) = store.claim('here', 'i', 1, queues=['default'], ops=['test:Job'], lease=60)[0]\n"
        "turn = TurnEnd(c.turn.inbox[-1].seq, b'data', JobState.PAUSED, replies=(('s', b'reply'),),\n"
        "               timers=(Timer('t', 0.0),), close=True)\n"
        "child = NewTask('op', b'', task_id='child', job_id='j')\n"
        "store.finish('here', [Finish('j', c.fence, Ending.TURN, turn=turn, children=(child,))])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=30, cwd=Path(__file__).parents[3])
    assert done.returncode == -9
    job = store.job("j")
    assert job is not None
    seen = (
        job.data == b"data",
        job.state == JobState.PAUSED,
        job.closed,
        job.total == 1,
        store.reply("j", "s") == b"reply",
        store.task("child") is not None,
        store.assignments() == [],
    )
    assert seen == (happened,) * 7
    store.leave("here", "i")  # gives back what it has
    store.join(Member("here", "i2", "worker"), 60)
    (claim,) = store.claim("here", "i2", 1, queues=["default"], ops=[CLS], lease=60)[0]
    assert claim.turn is not None
    assert [row.kind for row in claim.turn.inbox] == (["timer"] if happened else ["start", "signal"])


@pytest.mark.timeout(300)
def test_the_end_of_a_large_job_is_a_short_call(store: Store, full_size: bool) -> None:  # P-25
    count, step = (100_000, 1000) if full_size else (2_500, 300)
    job_id, _ = store.start(NewJob())
    for _ in range(count // 500):
        store.submit([NewTask("op", b"", job_id=job_id) for _ in range(500)])
    running = claim_all(store, "op", 20)
    store.change_job(job_id, JobState.TERMINATED)
    # Bounded by count, and so in time: the call has ended 1,000 waiting tasks, and all that ran.
    assert store.statistics().count("cancelled") == 1020
    ends = [Finish(c.task.task_id, c.fence, Ending.DONE, results=(Result(0, 1, b""),)) for c in running]
    assert store.finish("here", ends) == [False] * 20
    assert claim_all(store, "op", 5) == []
    assert store.signal(job_id, NewSignal()) == "ended"
    before = store.statistics().count("cancelled")  # the claim has gone on with it, a little
    assert 1020 < before < 1500
    for _ in range(3):
        assert store.purge(600, step, journal=1000) == step
    assert store.statistics().count("cancelled") == before + 3 * step
