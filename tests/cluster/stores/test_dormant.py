"""Jobs that sleep are rows and nothing else: what a claim does is counted, in steps of the engine, not in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster.records import Ending, Finish, Member, NewJob, NewTask, Timer, TurnEnd
from cluster.stores import Store, open_store
from tests.cluster.conftest import shared_redis

CLS = "test:Job"
Count = Callable[[Callable[[], Any]], int]


@pytest.fixture(params=["sqlite", "redis"])
def counted(request: pytest.FixtureRequest) -> Iterator[tuple[Store, Count]]:
    """A store, and how many steps of its engine a call takes."""
    url = "memory:" if request.param == "sqlite" else shared_redis().url
    store: Any = open_store(url, "dormant")

    def steps_of_sqlite(call: Callable[[], Any]) -> int:
        steps = [0]

        def step() -> int:
            steps[0] += 1
            return 0

        store._memory.db.set_progress_handler(step, 10)  # each 10 instructions of its machine
        call()
        store._memory.db.set_progress_handler(None, 10)
        return steps[0]

    def commands_of_redis(call: Callable[[], Any]) -> int:
        def so_far() -> int:
            return sum(stats["calls"] for stats in store._redis.info("commandstats").values())

        before = so_far()
        call()
        return so_far() - before

    yield store, steps_of_sqlite if request.param == "sqlite" else commands_of_redis
    store.wipe()
    store.close()


def add_dormant(store: Store, count: int) -> None:
    for _ in range(count):
        store.start(NewJob(CLS))
    while claims := store.claim("w", "i", 200, queues=["default"], ops=[CLS], lease=60)[0]:
        ends = []
        for claim in claims:
            assert claim.turn is not None
            turn = TurnEnd(claim.turn.inbox[-1].seq, b"", timers=(Timer("t", 86_400.0),))
            ends.append(Finish(claim.task.task_id, claim.fence, Ending.TURN, turn=turn))
        store.finish("w", ends)


@pytest.mark.parametrize("counted", ["redis"], indirect=True)
def test_listing_what_lives_does_not_pay_for_what_has_ended(counted: tuple[Store, Count]) -> None:
    store, count = counted
    store.join(Member("w", "i", "worker"), 600)
    job_id, _ = store.start(NewJob(""))
    store.submit([NewTask("op", b"", job_id=job_id, index=n) for n in range(300)])
    ended = store.claim("w", "i", 295, queues=["default"], ops=["op"], lease=60)[0]
    store.finish("w", [Finish(claim.task.task_id, claim.fence, Ending.DONE) for claim in ended])
    store.claim("w", "i", 2, queues=["default"], ops=["op"], lease=60)

    def living(job: str) -> list[int]:
        return [len(store.tasks(state=state, job_id=job)) for state in ("ready", "assigned", "scheduled")]

    for job in ("", job_id):
        assert living(job) == [3, 2, 0]
        assert count(lambda job=job: living(job)) < 60


@pytest.mark.timeout(300)
def test_a_claim_does_not_pay_for_dormant_jobs(counted: tuple[Store, Count], full_size: bool) -> None:
    #
    store, count = counted
    store.join(Member("w", "i", "worker"), 600)

    def work() -> None:
        store.submit([NewTask("op", b"")])
        (claim,) = store.claim("w", "i", 9, queues=["default"], ops=["op", CLS], lease=60)[0]
        assert store.finish("w", [Finish(claim.task.task_id, claim.fence, Ending.DONE)]) == [True]
        assert store.promote(10) == 0
        assert store.statistics().waiting() == 0

    add_dormant(store, 20)
    work()
    few = count(work)
    add_dormant(store, 10_000 if full_size else 400)
    many = count(work)
    # 21 or 501 times as many; a part for the depth of the trees.
    assert few > 20
    assert many <= few * 1.5 + 10
