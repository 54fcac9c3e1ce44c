"""What every transaction of the SQLite engine has: a time, numbers to draw, counts, the journal, hints, locks."""

from __future__ import annotations

import sqlite3

from cluster.errors import LeaseLost
from cluster.records import Guard, Lock


class Ledger:
    """The base of a transaction; what is gathered is written by `flush`, just before the end."""

    def __init__(self, db: sqlite3.Connection, grp: str, now: float) -> None:
        self.db = db
        self.grp = grp
        self.now = now
        self.topics: set[str] = set()  # the hints to be given when all is written
        self._drawn: dict[str, int] = {}  # "#name" -> its new value
        self._counts: dict[str, int] = {}  # name -> to be added
        self._events: list[tuple[str, float, str, str, str, str]] = []

    def flush(self) -> None:
        """Write what was gathered, just before the end."""
        if self._drawn:
            self.db.executemany(
                "INSERT OR REPLACE INTO counter VALUES (?, ?, ?)",
                [(self.grp, n, v) for n, v in self._drawn.items()],
            )
        if self._counts:
            self.db.executemany(
                "INSERT INTO counter VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
                [(self.grp, n, v) for n, v in self._counts.items()],
            )
        if self._events:
            self.db.executemany(
                "INSERT INTO event (grp, at, kind, subject, by, detail) VALUES (?, ?, ?, ?, ?, ?)",
                self._events,
            )

    def draw(self, name: str) -> int:
        value = self._drawn.get(name)
        if value is None:
            row = self.db.execute(
                "SELECT value FROM counter WHERE grp = ? AND name = ?", (self.grp, name)
            ).fetchone()
            value = row[0] if row else 0
        self._drawn[name] = value + 1
        return value + 1

    def count(self, name: str, by: int = 1) -> None:
        self._counts[name] = self._counts.get(name, 0) + by

    def note(self, kind: str, subject: str, by: str = "", detail: str = "") -> None:
        self._events.append((self.grp, self.now, kind, subject, by, detail))

    def declare(self) -> None:
        self.db.execute("INSERT OR IGNORE INTO grp VALUES (?)", (self.grp,))

    # -- what a call is conditional on

    def check(self, guard: Guard | None) -> None:
        if guard is None:
            return
        held = self.lock(guard.lock)
        if held is None or held.fence != guard.fence or held.lease_until <= self.now:
            who = (
                "nobody"
                if held is None or held.lease_until <= self.now
                else f"{held.holder} (fence {held.fence})"
            )
            raise LeaseLost(f"the lock {guard.lock!r} with fence {guard.fence} is lost: {who} holds it now")

    def lock(self, name: str) -> Lock | None:
        row = self.db.execute(
            "SELECT name, holder, fence, lease_until FROM lock WHERE grp = ? AND name = ?", (self.grp, name)
        ).fetchone()
        return Lock(*row) if row else None
