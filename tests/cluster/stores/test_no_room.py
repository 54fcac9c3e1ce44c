"""A store without room takes neither a job nor a signal, and keeps nothing of it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import redis

from cluster.errors import StoreFull
from cluster.records import Member, NewJob, NewSignal, NewTask
from cluster.stores import Store, open_store
from tests.cluster.redis_server import RedisServer

LARGE = NewJob("test:Job", bytes(100_000), job_id="large", name="large")


def refuse(store: Store) -> None:
    """Whatever a full store is asked to keep, it refuses, and nothing is left of it."""
    with pytest.raises(StoreFull, match="nothing was written"):
        store.start(LARGE, [NewTask("op", bytes(10_000)) for _ in range(20)])
    with pytest.raises(StoreFull, match="nothing was written"):
        store.signal("kept", NewSignal(body=bytes(100_000), signal_id="s"))
    assert store.job("large") is None
    assert store.job_named("large") is None
    assert [job.job_id for job in store.jobs()] == ["kept"]
    assert store.statistics().count("ready") == 1  # the turn


def accept(store: Store) -> None:
    """With room again, the same calls are taken, and for the first time."""
    assert store.signal("kept", NewSignal(body=b"b", signal_id="s")) == "taken"
    assert store.start(LARGE) == ("large", "new")
    store.join(Member("w", "i", "worker"), 60)
    (claim, _) = store.claim("w", "i", 2, queues=["default"], ops=["test:Job"], lease=60)[0]
    assert claim.turn is not None
    assert [row.kind for row in claim.turn.inbox] == ["start", "signal"]


def test_a_full_disk_takes_no_job(tmp_path: Path) -> None:  # X2
    store = open_store(f"sqlite:///{tmp_path}/work.db")
    store.start(NewJob("test:Job", job_id="kept"))
    db = store._db  # type: ignore[attr-defined]
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    (most,) = db.execute("PRAGMA max_page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages + 3}")  # as a full disk does
    refuse(store)
    db.execute(f"PRAGMA max_page_count = {most}")
    accept(store)
    store.close()


def test_a_server_without_memory_takes_no_job(own_redis: RedisServer) -> None:  # X2
    store = open_store(own_redis.url)
    store.start(NewJob("test:Job", job_id="kept"))
    with closing(redis.Redis(port=own_redis.port)) as admin:
        admin.config_set("maxmemory", 1)
        refuse(store)
        admin.config_set("maxmemory", 0)
    accept(store)
    store.close()
