"""Stores for the tests of `cluster`: files of their own, and one Redis server for the whole run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import Client
from cluster.stores import Store, open_store
from cluster.testing import FAST, Nodes
from tests.cluster.redis_server import RedisServer

_servers: list[RedisServer] = []


def shared_redis() -> RedisServer:
    """The server that all tests share which do not hurt it."""
    return _servers[0]


@pytest.fixture(scope="session", autouse=True)
def _shared_redis() -> Iterator[None]:
    _servers.append(RedisServer())
    yield
    _servers.pop().close()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server that may be hurt."""
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The url of an empty store, for each engine that serves many processes."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/work.db"
        return
    server = shared_redis()
    yield server.url
    probe = open_store(server.url)
    groups = {*probe.groups(), "default"}  # which need not be declared
    probe.close()
    for group in groups:
        store = open_store(server.url, group)
        store.wipe()
        store.close()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    handle = open_store(url)
    yield handle
    handle.close()


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the operations of `tests.cluster.ops` write to."""
    path = tmp_path / "journal"
    path.touch()
    monkeypatch.setenv("JOURNAL", str(path))
    return path


@pytest.fixture
def full_size() -> bool:
    """Whether to repeat as often as the requirements say, and not as often as the suite has time for."""
    return os.environ.get("TASKLETS_FULL") == "1"


@pytest.fixture
def nodes(url: str, journal: Path) -> Iterator[Nodes]:
    with Nodes(url, imports=["tests.cluster.ops"]) as started:
        yield started


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, settings=FAST) as made:
        yield made


def journal_lines(journal: Path) -> list[list[str]]:
    """The journal's lines: time, pid, kind, and what was written."""
    return [line.split(" ") for line in journal.read_text(encoding="utf-8").splitlines()]


def lines(journal: Path, word: str) -> list[list[str]]:
    """The journal's lines of a kind."""
    return [row for row in journal_lines(journal) if row[2] == word]
