"""Both engines answer the same, and leave the same, whatever is done with jobs and tasks: drawn at random, by seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cluster.errors import ClusterError
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
    Task,
    TaskState,
    Timer,
    TurnEnd,
)
from cluster.stores import Store, open_store
from tests.cluster.conftest import shared_redis

NODES = ("w1", "w2")


class Pair:
    """Does the same with two stores, and looks whether it came to the same."""

    def __init__(self, stores: tuple[Store, Store], rng: random.Random) -> None:
        self.stores = stores
        self.rng = rng
        self.done: list[str] = []  # for the message when something differs
        self.held: list[tuple[str, Claim, Claim]] = []  # node, the claims of both
        self.jobs: list[str] = []
        self.tasks: list[str] = []
        self.signals = 0
        for store in stores:
            for node in NODES:
                store.join(Member(node, "i", "worker"), 600)

    def call(self, method: str, *arguments: Any, **options: Any) -> tuple[Any, Any]:
        self.done.append(f"{method} {arguments} {options}")
        answers = []
        for store in self.stores:
            try:
                answers.append(getattr(store, method)(*arguments, **options))
            except ClusterError as error:
                answers.append(f"{type(error).__name__}: {error}")
        return answers[0], answers[1]

    def same(self, method: str, *arguments: Any, **options: Any) -> Any:
        first, second = self.call(method, *arguments, **options)
        assert first == second, "\n".join(self.done)
        return first

    # -- what is done

    def step(self) -> None:
        weights = {
            self.start: 2, self.submit: 4, self.claim: 6, self.finish: 8, self.cancel: 1, self.change: 2,
            self.signal: 3, self.close: 1, self.feed: 0.5, self.delete: 0.3, self.replay: 1, self.purge: 0.5,
            self.acknowledge: 1, self.checkpoint: 2,
        }  # fmt: skip
        self.rng.choices(list(weights), list(weights.values()))[0]()

    def new_task(self, job_id: str) -> NewTask:
        rng = self.rng
        task = NewTask(
            rng.choice(["op", "op2"]),
            b"%d" % len(self.tasks),
            task_id=f"t{len(self.tasks):04}",
            priority=rng.choice([0, 0, 1]),
            delay=rng.choice([0.0, 0.0, 0.0, 60.0]),
            ordering_key=rng.choice([None, None, "k"]),
            coalesce_key=rng.choice([None, None, None, "c"]),
            job_id=job_id,
            index=rng.choice([None, 4 * len(self.tasks)]),
            weight=rng.choice([1, 4]),
            max_losses=2,
        )
        self.tasks.append(task.task_id)
        return task

    def some_job(self) -> str:
        return self.rng.choice([*self.jobs[-4:], "no such job"])

    def start(self) -> None:
        rng = self.rng
        job_id = f"j{len(self.jobs):04}"
        job = NewJob(
            rng.choice(["", "Job", "Job"]),
            b"p",
            job_id,
            name=rng.choice(["", "", "Name", "nAME"]),
            notify=rng.choice(list(Notify)),
            fail_fast=rng.random() < 0.3,
            closed=rng.random() < 0.3,
            ttl=rng.choice([None, 0.0]),
            feed_ttl=rng.choice([None, None, None, 0.0, 60.0]),
            max_losses=2,
        )
        self.jobs.append(job_id)
        tasks = [self.new_task("") for _ in range(rng.randrange(4))]
        self.same("start", job, tasks)
        if rng.random() < 0.2:
            self.same("start", job, tasks)

    def submit(self) -> None:
        job_id = self.some_job()
        self.same("submit", [self.new_task(job_id) for _ in range(self.rng.randrange(1, 4))])

    def claim(self) -> None:
        node = self.rng.choice(NODES)
        options = {
            "queues": ["default"],
            "ops": self.rng.choice([["Job"], ["op", "op2"], ["op"]]),
            "lease": 60.0,
        }
        first, second = self.call("claim", node, "i", self.rng.randrange(1, 4), **options)
        assert [self.of_claim(c) for c in first[0]] == [self.of_claim(c) for c in second[0]], self.done
        assert (first[1] is None) == (second[1] is None)
        self.held += [(node, a, b) for a, b in zip(first[0], second[0], strict=True)]

    def of_claim(self, claim: Claim) -> Any:
        turn = claim.turn and (
            self.of_job(claim.turn.job),
            [replace(row, seq=0, at=0.0) for row in claim.turn.inbox],
        )
        return self.of_task(claim.task), turn

    def finish(self) -> None:
        if not self.held:
            return
        node, *claims = self.held[self.rng.randrange(len(self.held))]
        if self.rng.random() < 0.9:
            self.held.remove((node, *claims))  # type: ignore[arg-type]
        first = claims[0]
        ending = self.rng.choice([Ending.DONE] * 4 + [e for e in Ending if e != Ending.TURN])
        turn: dict[str, Any] | None = None
        if first.turn is not None and self.rng.random() < 0.8:
            ending = Ending.TURN
            turn = self.a_turn(first)
        children = tuple(self.new_task(self.some_job()) for _ in range(self.rng.choice([0, 0, 2])))
        results = self.some_results(first.task) if ending == Ending.DONE else ()
        failed = self.rng.random() < 0.5
        answers = []
        for store, claim in zip(self.stores, claims, strict=True):
            of_turn = None
            if turn is not None and claim.turn is not None:
                rows = claim.turn.inbox
                consumed = rows[min(turn["rows"], len(rows)) - 1].seq if rows and turn["rows"] else 0
                of_turn = TurnEnd(consumed, **{k: v for k, v in turn.items() if k != "rows"})
            end = Finish(
                claim.task.task_id, claim.fence, ending, b"payload", failed=failed, children=children, results=results,
                turn=of_turn,
            )  # fmt: skip
            answers.append(store.finish(node, [end]))
        self.done.append(f"finish {first.task.task_id} {ending} {turn} {children} {results} {answers}")
        assert answers[0] == answers[1], "\n".join(self.done)

    def a_turn(self, claim: Claim) -> dict[str, Any]:
        assert claim.turn is not None
        rng = self.rng
        states = [None] * 8 + [s for s in JobState if s != JobState.CREATED]
        signals = [row.row_id for row in claim.turn.inbox if row.kind == "signal"]
        return {
            "rows": rng.choice([100, 100, 1, 0]),
            "data": b"%d" % len(self.done),
            "state": rng.choice(states),
            "reason": "r",
            "result": rng.choice([None, b"result"]),
            "replies": tuple((signal, b"reply") for signal in signals),
            "timers": (Timer(rng.choice("ab"), rng.choice([0.0, 60.0, None])),) if rng.random() < 0.4 else (),
            "close": rng.random() < 0.2,
        }

    def some_results(self, task: Task) -> tuple[Result, ...]:
        if task.index is None:
            return ()
        low = task.index + self.rng.randrange(task.weight)
        high = self.rng.randrange(low, task.index + task.weight) + 1
        return (Result(low, high - low, b"v", failed=self.rng.random() < 0.2),)

    def checkpoint(self) -> None:
        if not self.held:
            return
        node, first, second = self.rng.choice(self.held)
        results = self.some_results(first.task)
        answers = [
            store.checkpoint(node, claim.task.task_id, claim.fence, results, b"d")
            for store, claim in zip(self.stores, (first, second), strict=True)
        ]
        self.done.append(f"checkpoint {first.task.task_id} {results}")
        assert answers[0] == answers[1], "\n".join(self.done)

    def cancel(self) -> None:
        self.same("cancel", self.rng.choice([*self.tasks[-9:], *self.jobs[-2:], "no such task"]))

    def change(self) -> None:
        state = self.rng.choice([*JobState, JobState.RUNNING, JobState.PAUSED, JobState.RUNNING])
        first, second = self.call("change_job", self.some_job(), state, by="me", reason="why")
        assert self.of_job(first) == self.of_job(second), "\n".join(self.done)

    def signal(self) -> None:
        self.signals += self.rng.random() < 0.8
        kind = self.rng.choice(["signal"] * 4 + ["cancel", "finish"])
        self.same("signal", self.some_job(), NewSignal(kind, "S", b"b", f"s{self.signals}", "me"))

    def close(self) -> None:
        self.same("close_job", self.some_job())

    def feed(self) -> None:
        self.same("feed", self.some_job())

    def delete(self) -> None:
        self.same("delete_job", self.some_job())

    def replay(self) -> None:
        self.same("replay", self.tasks[-9:])

    def purge(self) -> None:
        counts = self.call("purge", 600, 1000, journal=1000)  # of rows, which each engine has its own of
        assert max(counts) < 1000

    def acknowledge(self) -> None:
        job_id = self.some_job()
        rows = self.call("results", job_id, limit=self.rng.randrange(1, 4))
        for store, of_store in zip(self.stores, rows, strict=True):
            if of_store:
                store.acknowledge(job_id, of_store[-1].seq, forget=len(self.done) % 2 == 0)

    # -- what is compared: all but times and numbers that an engine draws in its own way

    def of_job(self, job: Any) -> Any:
        if job is None or isinstance(job, str):
            return job
        return replace(job, created=0, updated=0, ended=job.ended is not None, acknowledged=0, version=0)

    def of_task(self, task: Task) -> Task:
        late = task.due > self.stores[0].now() + 1
        key = None if task.merged_into else task.ordering_key  # it is in no line any more
        ended = float(task.ended is not None)
        return replace(task, created=0, due=float(late), ended=ended, ordering_key=key)

    def compare(self) -> None:
        left, right = (self.picture(store) for store in self.stores)
        for what in left:
            if left[what] != right[what]:
                only = [repr(each) for each in left[what] if each not in right[what]]
                only += ["but"] + [repr(each) for each in right[what] if each not in left[what]]
                pytest.fail("\n".join([*self.done, what, *only]))

    def picture(self, store: Store) -> dict[str, Any]:
        statistics = store.statistics()
        results = {job_id: store.results(job_id) for job_id in self.jobs}
        return {
            "jobs": [self.of_job(job) for job in store.jobs(limit=1000)],
            "by state": [[job.job_id for job in store.jobs(state=state, limit=1000)] for state in JobState],
            "tasks": [replace(self.of_task(t), more=()) for t in store.tasks(limit=10_000)],
            "tasks by state": [
                [
                    [task.task_id for task in store.tasks(state=state, job_id=of, limit=10_000)]
                    for of in ("", *self.jobs)
                ]
                for state in TaskState
            ],
            "results": {job_id: [replace(r, seq=0) for r in rows] for job_id, rows in results.items()},
            "by index": {j: [replace(r, seq=0) for r in store.results_at(j, 3, 10**9)] for j in self.jobs},
            "counts": statistics.tasks,
            "counters": statistics.counters,
            "named": self.of_job(store.job_named("NAME")),
            "replies": [store.reply(j, f"s{n}") for j in self.jobs for n in range(self.signals)],
            "journal": [(e.kind, e.subject, e.by) for e in store.events(limit=100_000)],
            "assignments": sorted((a.task_id, a.node, a.running) for a in store.assignments()),
        }


@pytest.fixture
def stores() -> Iterator[tuple[Store, Store]]:
    pair = (open_store("memory:", "same"), open_store(shared_redis().url, "same"))
    pair[1].wipe()
    yield pair
    for store in pair:
        store.wipe()
        store.close()


def test_both_engines_do_the_same(stores: tuple[Store, Store], full_size: bool) -> None:  # U4, U5, A-29
    for seed in range(200 if full_size else 12):
        for store in stores:
            store.wipe()
        pair = Pair(stores, random.Random(seed))
        pair.done.append(f"seed {seed}")
        for number in range(60):
            pair.step()
            if number % 6 == 5:
                pair.compare()
        pair.compare()
