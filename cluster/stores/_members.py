"""Members and assignments, within a transaction of the SQLite engine."""

from __future__ import annotations

from typing import Any, Final

from cluster.errors import LeaseLost
from cluster.records import Assignment, Member
from cluster.stores._ledger import Ledger

ASSIGNMENT: Final = "task_id, node, incarnation, fence, attempt, since, lease_until, running, by"
MEMBER: Final = (
    "node, incarnation, role, state, slots, running, host, pid, version, ops, queues, labels, spawn_id, joined, "
    "lease_until, idle_since"
)


class Members(Ledger):
    """The steps that concern who is there and who has what."""

    def check_member(self, node: str, incarnation: str) -> str:
        row = self.db.execute(
            "SELECT incarnation, lease_until, state FROM member WHERE grp = ? AND node = ?", (self.grp, node)
        ).fetchone()
        if row is None or row[0] != incarnation or row[1] <= self.now:
            raise LeaseLost(
                f"{node} is no member of group {self.grp!r} any more: its lease ran out; join again"
            )
        return str(row[2])

    def members(self) -> list[Member]:
        return [
            member_of(row)
            for row in self.db.execute(
                f"SELECT {MEMBER} FROM member WHERE grp = ? AND lease_until > ? ORDER BY joined, node",  # noqa: S608
                (self.grp, self.now),
            )
        ]

    def put_member(
        self, m: Member, ttl: float, *, joined: float | None = None, state: str | None = None
    ) -> None:
        self.db.execute(
            "INSERT OR REPLACE INTO member VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.grp, m.node, m.incarnation, m.role, state or m.state, m.slots, m.running, m.host, m.pid, m.version,
                "\n".join(m.ops), "\n".join(m.queues), "\n".join(m.labels), m.spawn_id,
                m.joined if joined is None else joined, self.now + ttl, m.idle_since,
            ),
        )  # fmt: skip

    def assignments(self, where: str, value: Any) -> list[Assignment]:
        return [
            assignment_of(row)
            for row in self.db.execute(
                f"SELECT {ASSIGNMENT} FROM assignment WHERE grp = ? AND {where}",  # noqa: S608  conditions of ours
                (self.grp, value),
            )
        ]


def assignment_of(row: tuple[Any, ...]) -> Assignment:
    task_id, node, incarnation, fence, attempt, since, lease_until, running, by = row
    return Assignment(task_id, node, incarnation, fence, attempt, since, lease_until, bool(running), by)


def member_of(row: tuple[Any, ...]) -> Member:
    values = list(row)
    for index in (9, 10, 11):
        values[index] = tuple(values[index].split("\n")) if values[index] else ()
    return Member(*values)
