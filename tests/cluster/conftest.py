"""Stores for the tests of `cluster`: files of their own, and one Redis server for the whole run."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cluster import Client
from cluster.stores import Store, open_store
from cluster.testing import FAST, NodeProcess, Nodes, wait_for
from tests.cluster.redis_server import RedisServer

ENGINES = ("sqlite", "redis")
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


@pytest.fixture(params=ENGINES)
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


def on(engine: str, fixture: str = "url") -> pytest.MarkDecorator:
    """For a test of what is the same for every engine: one of them; all, in full size."""
    engines = ENGINES if os.environ.get("TASKLETS_FULL") == "1" else (engine,)
    return pytest.mark.parametrize(fixture, engines, indirect=True)


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


def freeze(node: NodeProcess) -> None:
    """SIGSTOP, but not in the middle of a write: SQLite's file would be locked for everybody until the end of time."""
    command = list(map(str, node.process.args))  # type: ignore[arg-type]
    url = command[command.index("--store") + 1]
    while True:
        node.freeze()
        wait_for(lambda: thread_states(node.pid) <= {"T"}, what="all its threads stand still")
        if not url.startswith("sqlite") or is_free(url.removeprefix("sqlite:///")):
            return
        node.thaw()


def thread_states(pid: int) -> set[str]:
    """The states of a process's threads, as far as this system tells them."""
    stats = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {stat.rpartition(")")[2].split()[0] for stat in stats}


def is_free(path: str) -> bool:
    """Whether one can write to a file of SQLite's: whoever lives and does is done within this second."""
    with closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
    return True


def journal_lines(journal: Path) -> list[list[str]]:
    """The journal's lines: time, pid, kind, and what was written."""
    return [line.split(" ") for line in journal.read_text(encoding="utf-8").splitlines()]


def lines(journal: Path, word: str) -> list[list[str]]:
    """The journal's lines of a kind."""
    return [row for row in journal_lines(journal) if row[2] == word]
