"""What `memory:` has instead of a file: a database in this process, and hints that are events."""

from __future__ import annotations

import sqlite3
import threading

from gevent import sleep
from gevent.event import Event as Flag

from cluster.stores._file import statements
from cluster.stores._schema import TABLES


class Memory:
    """An in-memory database and its listeners, shared by the handles of one name as long as one of them is open."""

    _by_name: dict[str, Memory] = {}  # noqa: RUF012  a registry

    def __init__(self, name: str) -> None:
        self._name = name
        self._handles = 1
        self.db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        for statement in statements(TABLES):
            self.db.execute(statement)
        self.turn = threading.Lock()  # its one connection has one transaction at a time, whatever thread asks
        self.listeners: set[MemoryListener] = set()

    @classmethod
    def open(cls, name: str) -> Memory:
        """The one of a name, or a fresh one. To be released."""
        known = cls._by_name.get(name)
        if known is not None:
            known._handles += 1
            return known
        made = cls(name)
        if name:
            cls._by_name[name] = made
        return made

    def release(self) -> None:
        """A handle was closed; with the last one everything is gone."""
        self._handles -= 1
        if not self._handles:
            self._by_name.pop(self._name, None)
            with self.turn:
                self.db.close()

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
