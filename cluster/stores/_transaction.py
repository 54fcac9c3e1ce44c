"""What is out of order and its repair, within a transaction of the SQLite engine."""

from __future__ import annotations

from cluster.errors import StoreError
from cluster.records import Repair, Survey, TaskState
from cluster.stores._jobs import Jobs
from cluster.stores._keys import split_lane
from cluster.stores._members import ASSIGNMENT, MEMBER, assignment_of, member_of
from cluster.stores._tasks import LIVING


class Transaction(Jobs):
    """One transaction on the database: all that the calls of the contract are made of."""

    def survey(self, limit: int, unknown_after: float) -> Survey:
        here = (self.grp, limit)
        expired_members = tuple(
            member_of(row)
            for row in self.db.execute(
                f"SELECT {MEMBER} FROM member WHERE grp = ? AND lease_until <= ? LIMIT ?",  # noqa: S608
                (self.grp, self.now, limit),
            )
        )
        expired = tuple(
            assignment_of(row)
            for row in self.db.execute(
                f"SELECT {ASSIGNMENT} FROM assignment AS a WHERE grp = ? AND (lease_until <= ? OR NOT EXISTS ("  # noqa: S608
                "SELECT 1 FROM member AS m WHERE m.grp = a.grp AND m.node = a.node AND m.incarnation = a.incarnation "
                "AND m.lease_until > ?)) LIMIT ?",
                (self.grp, self.now, self.now, limit),
            )
        )
        orphans = tuple(
            assignment_of(row)
            for row in self.db.execute(
                f"SELECT {ASSIGNMENT} FROM assignment AS a WHERE grp = ? AND NOT EXISTS ("  # noqa: S608
                "SELECT 1 FROM task WHERE task.grp = a.grp AND task.id = a.task_id AND state = 'assigned') LIMIT ?",
                here,
            )
        )
        doubled = self.db.execute(
            "SELECT task_id FROM assignment WHERE grp = ? GROUP BY task_id HAVING count(*) > 1 LIMIT ?", here
        ).fetchall()
        unassigned = self.db.execute(
            "SELECT id FROM task AS t WHERE grp = ? AND state = 'assigned' AND NOT EXISTS ("
            "SELECT 1 FROM assignment AS a WHERE a.grp = t.grp AND a.task_id = t.id) LIMIT ?",
            here,
        ).fetchall()
        overdue = self.db.execute(
            "SELECT id FROM task WHERE grp = ? AND deadline IS NOT NULL AND ended IS NULL AND deadline <= ? LIMIT ?",
            (self.grp, self.now, limit),
        ).fetchall()
        return Survey(
            self.now,
            expired_members,
            expired,
            orphans,
            tuple(tuple(self.assignments("task_id = ?", task_id)) for (task_id,) in doubled),
            tuple(i for (i,) in unassigned),
            tuple(i for (i,) in overdue),
            tuple(self.unserved(limit, unknown_after)),
        )

    def unserved(self, limit: int, unknown_after: float) -> list[str]:
        known = {op for member in self.members() for op in member.ops}
        if not known:
            return []  # nobody is there at all: the work is kept
        found: list[str] = []
        for lane in self.lanes(""):
            if split_lane(lane)[1] not in known:
                found.extend(
                    i
                    for (i,) in self.db.execute(
                        "SELECT id FROM task WHERE grp = ? AND lane = ? AND state = 'ready' AND ready_since < ? "
                        "ORDER BY rank LIMIT ?",
                        (self.grp, lane, self.now - unknown_after, limit - len(found)),
                    )
                )
        return found

    def repair(self, one: Repair, by: str) -> bool:
        if one.kind == "expire":
            gone = self.db.execute(
                "DELETE FROM member WHERE grp = ? AND node = ? AND incarnation = ? AND lease_until <= ?",
                (self.grp, one.node, one.reason, self.now),
            ).rowcount
            if gone:
                self.note("expire", one.node, by)
            return bool(gone)
        if one.kind == "revoke":
            task = self.task(one.task_id)
            if one.loss and task is not None:
                return self.lose(task, one.node, one.fence, one.reason, by)
            before = len(self._events)
            self.drop(one.task_id, one.node, one.fence, one.reason, by)
            return len(self._events) > before
        state = self.state(one.task_id)
        if one.kind == "requeue":
            rows = self.db.execute(
                "SELECT 1 FROM assignment WHERE grp = ? AND task_id = ? LIMIT 1", (self.grp, one.task_id)
            ).fetchone()
            if state != TaskState.ASSIGNED or rows:
                return False
            self.back_in_line(one.task_id)
            self.count("requeued")
            self.note("requeue", one.task_id, by)
            return True
        if one.kind == "kill":
            if state not in LIVING:
                return False
            self.die(one.task_id, one.payload, by)
            return True
        raise StoreError(f"{one.kind!r} is no repair")
