"""What `memory:` has instead of a file: a database in this process, and hints that are events."""

from __future__ import annotations

import sqlite3
import threading

from gevent import sleep
from gevent.event import Event as Flag

from cluster.stores._file import statements
from cluster.stores._schema import TABLES


class Memory:
    """An in-memory database and its listeners, shared by the handles of one name."""

    _by_name: dict[str, Memory] = {}  # noqa: RUF012  a registry

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        for statement in statements(TABLES):
            self.db.execute(statement)
        self.turn = threading.Lock()  # its one connection has one transaction at a time, whatever thread asks
        self.listeners: set[MemoryListener] = set()

    @classmethod
    def named(cls, name: str) -> Memory:
        if not name:
            return cls()
        found = cls._by_name.get(name)
        return found if found is not None else cls._by_name.setdefault(name, cls())

    def ring(self, topic: str) -> None:
        for listener in list(self.listeners):
            if topic in listener.topics:
                listener.flag.set()


class MemoryListener:
    def __init__(self, memory: Memory, topics: set[str]) -> None:
        self.topics = topics
        self.flag = Flag()
        self._memory = memory
        memory.listeners.add(self)

    def wait(self, timeout: float) -> bool:
        rung = bool(self.flag.wait(max(0.0, timeout)))
        self.flag.clear()
        sleep(0)
        return rung

    def close(self) -> None:
        self._memory.listeners.discard(self)
