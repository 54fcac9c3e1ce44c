"""A job's inbox, its timers and its results, within a transaction of the SQLite engine."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from cluster.records import Inbox, Result, Task, Timer
from cluster.stores._tasks import Tasks

TURN_ROWS: Final = 100  # of the inbox for one turn
TURN_BYTES: Final = 1 << 20  # and so much of their bodies, if one has not more
_INBOX: Final = "seq, kind, row_id, name, body, state, idx, weight, meta, by, at"
_RESULT: Final = "idx, count, value, failed, seq, task_id"


class Inboxes(Tasks):
    """The steps that concern what comes for a job and what it leaves. `Jobs` says when."""

    def __init__(self, db: sqlite3.Connection, grp: str, now: float) -> None:
        super().__init__(db, grp, now)
        self._gathered: dict[str, dict[str, int]] = {}  # job id -> what to add to its counts
        self._by: dict[str, str] = {}  # job id -> who did that

    # -- the inbox

    def put(
        self,
        job_id: str,
        kind: str,
        row_id: str,
        *,
        name: str = "",
        body: bytes = b"",
        state: str = "",
        index: int | None = None,
        weight: int = 1,
        meta: bytes = b"",
        by: str = "",
        at: float | None = None,
        once: str | None = None,
        consumed: bool = False,
    ) -> None:
        """Write a row. One with `once` stays when it was consumed, so that it is known when it comes again."""
        self.db.execute(
            f"INSERT INTO inbox (grp, job, {_INBOX}, once, consumed) "  # noqa: S608
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.grp, job_id, self.draw("#inbox"), kind, row_id, name, body, state, index, weight, meta, by,
                self.now if at is None else at, once, self.now if consumed else None,
            ),
        )  # fmt: skip

    def taken(self, job_id: str, once: str) -> bool:
        """Whether a signal is known."""
        return (
            self.db.execute(
                "SELECT 1 FROM inbox WHERE grp = ? AND once = ? AND job = ?", (self.grp, once, job_id)
            ).fetchone()
            is not None
        )

    def restarted(self, new_id: str) -> tuple[str] | None:
        """The job that a start with this id was merged into."""
        return self.db.execute(  # type: ignore[no-any-return]
            "SELECT job FROM inbox WHERE grp = ? AND once = ?", (self.grp, restart_of(new_id))
        ).fetchone()

    def next_row(self, job_id: str) -> float | None:
        """When the next row of a job is due: 0 when one is there."""
        if self.db.execute(
            "SELECT 1 FROM inbox WHERE grp = ? AND job = ? AND consumed IS NULL LIMIT 1", (self.grp, job_id)
        ).fetchone():
            return 0.0
        (due,) = self.db.execute(
            "SELECT min(due) FROM timer WHERE grp = ? AND job = ?", (self.grp, job_id)
        ).fetchone()
        return None if due is None else float(due)

    def take(self, job_id: str) -> tuple[Inbox, ...]:
        """What a turn is given. Timers that are due take their places in the order first."""
        due = self.db.execute(
            "SELECT name, due, body FROM timer WHERE grp = ? AND job = ? AND due <= ? ORDER BY due, rowid",
            (self.grp, job_id, self.now),
        ).fetchall()
        for name, at, body in due:
            self.put(job_id, "timer", name, body=body, at=at)
        self.db.execute(
            "DELETE FROM timer WHERE grp = ? AND job = ? AND due <= ?", (self.grp, job_id, self.now)
        )
        rows: list[Inbox] = []
        room = TURN_BYTES
        for row in self.db.execute(
            f"SELECT {_INBOX} FROM inbox WHERE grp = ? AND job = ? AND consumed IS NULL ORDER BY seq LIMIT ?",  # noqa: S608
            (self.grp, job_id, TURN_ROWS),
        ):
            room -= len(row[4])
            if room < 0 and rows:
                break
            rows.append(Inbox(*row))
        return tuple(rows)

    def consume(self, job_id: str, seq: int) -> None:
        done = (self.grp, job_id, seq)
        self.db.execute(
            "DELETE FROM inbox WHERE grp = ? AND job = ? AND seq <= ? AND consumed IS NULL AND once IS NULL",
            done,
        )
        self.db.execute(
            "UPDATE inbox SET consumed = ? WHERE grp = ? AND job = ? AND seq <= ? AND consumed IS NULL",
            (self.now, *done),
        )

    def answer(self, job_id: str, replies: Sequence[tuple[str, bytes]]) -> None:
        self.db.executemany(
            "UPDATE inbox SET reply = ? WHERE grp = ? AND once = ? AND job = ?",
            [(reply, self.grp, signal_id, job_id) for signal_id, reply in replies],
        )

    def reply(self, job_id: str, signal_id: str) -> bytes | None:
        row = self.db.execute(
            "SELECT reply FROM inbox WHERE grp = ? AND once = ? AND job = ?", (self.grp, signal_id, job_id)
        ).fetchone()
        return row[0] if row else None

    def set_timers(self, job_id: str, timers: Sequence[Timer]) -> None:
        for timer in timers:
            key = (self.grp, job_id, timer.name)
            self.db.execute(  # it was due, and is not consumed yet
                "DELETE FROM inbox WHERE grp = ? AND job = ? AND consumed IS NULL AND kind = 'timer' AND row_id = ?",
                key,
            )
            if timer.after is None:
                self.db.execute("DELETE FROM timer WHERE grp = ? AND job = ? AND name = ?", key)
            else:
                self.db.execute(
                    "INSERT OR REPLACE INTO timer VALUES (?, ?, ?, ?, ?)",
                    (*key, self.now + timer.after, timer.body),
                )

    def purge_inboxes(self, older_than: float, limit: int) -> int:
        return self.db.execute(
            "DELETE FROM inbox WHERE rowid IN (SELECT rowid FROM inbox WHERE grp = ? AND consumed < ? "
            "AND consumed IS NOT NULL LIMIT ?)",
            (self.grp, self.now - older_than, limit),
        ).rowcount

    # -- results

    def put_result(self, job_id: str, row: Result, task_id: str) -> bool:
        """Keep a result, unless something of its inputs has one: rows never overlap."""
        before = self.db.execute(
            "SELECT idx + count FROM result WHERE grp = ? AND job = ? AND idx < ? ORDER BY idx DESC LIMIT 1",
            (self.grp, job_id, row.index + row.count),
        ).fetchone()
        if before is not None and before[0] > row.index:
            return False
        self.db.execute(
            "INSERT INTO result (grp, job, seq, idx, count, value, failed, task_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.grp, job_id, self.draw("#result"), row.index, row.count, row.value, row.failed, task_id,
            ),
        )  # fmt: skip
        return True

    def keep_results(self, task: Task, results: Sequence[Result]) -> bytes | None:
        counted = self.db.execute(
            "SELECT counted FROM task WHERE grp = ? AND id = ?", (self.grp, task.task_id)
        ).fetchone()[0]
        if not results or not counted:
            return None
        kept = [row for row in results if self.put_result(task.job_id, row, task.task_id)]
        self.db.execute(
            "UPDATE task SET recorded = recorded + ?, unwell = unwell + ? WHERE grp = ? AND id = ?",
            (
                sum(row.count for row in kept), sum(row.count for row in kept if row.failed), self.grp, task.task_id,
            ),
        )  # fmt: skip
        self.topics.add(f"job:{task.job_id}")
        return next((row.value for row in kept if row.failed), None)

    def fill_results(self, job_id: str, task_id: str, index: int, weight: int, error: bytes) -> None:
        """Leave a failed result for the inputs of a task that have none."""
        there = self.results_at(job_id, index, index + weight, with_forgotten=True)
        start = index
        for low, high in (*((row.index, row.index + row.count) for row in there), (index + weight, 0)):
            if low > start:
                self.put_result(job_id, Result(start, low - start, error, failed=True), task_id)
            start = max(start, high)
        self.topics.add(f"job:{job_id}")

    def results(self, job_id: str, after: int, limit: int, max_bytes: int) -> list[Result]:
        return self._results("seq > ? AND forgotten = 0 ORDER BY seq", [job_id, after], limit, max_bytes)

    def results_at(
        self,
        job_id: str,
        low: int,
        high: int,
        limit: int = -1,
        max_bytes: int = 1 << 62,
        *,
        with_forgotten: bool = False,
    ) -> list[Result]:
        # Rows never overlap, so of those that begin before, only the last can reach so far.
        (first,) = self.db.execute(
            "SELECT max(idx) FROM result WHERE grp = ? AND job = ? AND idx <= ?", (self.grp, job_id, low)
        ).fetchone()
        return self._results(
            f"idx >= ? AND idx < ? AND idx + count > ? {'' if with_forgotten else 'AND forgotten = 0'} ORDER BY idx",
            [job_id, low if first is None else first, high, low],
            limit,
            max_bytes,
        )

    def _results(self, condition: str, values: list[int | str], limit: int, max_bytes: int) -> list[Result]:
        found: list[Result] = []
        for index, count, value, failed, seq, task_id in self.db.execute(
            f"SELECT {_RESULT} FROM result WHERE grp = ? AND job = ? AND {condition} LIMIT ?",  # noqa: S608
            (self.grp, *values, limit),
        ):
            max_bytes -= len(value)
            if max_bytes < 0 and found:
                break
            found.append(Result(index, count, value, bool(failed), seq, task_id))
        return found

    def acknowledge(self, job_id: str, seq: int, forget: bool) -> None:
        self.db.execute(
            "UPDATE job SET acknowledged = max(acknowledged, ?), version = version + 1 WHERE grp = ? AND id = ?",
            (seq, self.grp, job_id),
        )
        self.topics.add(f"job:{job_id}")
        if forget:
            # Of a task that has not ended the place is kept, so that the inputs get no second result.
            seen = (self.grp, job_id, seq)
            self.db.execute(
                "DELETE FROM result WHERE grp = ? AND job = ? AND seq <= ? AND NOT EXISTS (SELECT 1 FROM task "
                "WHERE task.grp = result.grp AND task.id = result.task_id AND task.ended IS NULL)",
                seen,
            )
            self.db.execute(
                "UPDATE result SET value = x'', forgotten = 1 WHERE grp = ? AND job = ? AND seq <= ?", seen
            )


def restart_of(new_id: str) -> str:
    """Under what the restart by a start with this id is known, which no signal's id may be mistaken for."""
    return f"restart\x1f{new_id}"
