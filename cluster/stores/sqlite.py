"""The SQLite engine: one file for many processes of one machine, and the whole of `memory:`.

Every call is one `BEGIN IMMEDIATE` transaction in a thread of its own, so a tasklet that waits for the disk
holds up no other. `memory:` is the same code on SQLite's in-memory database, without the thread.

Not for network file systems: SQLite's locks do not hold there.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from gevent.threadpool import ThreadPool

from cluster._failpoints import fail_point
from cluster.errors import (
    BadStoreUrl,
    StoreError,
    StoreUnavailable,
)
from cluster.records import (
    Assignment,
    Claim,
    Event,
    Finish,
    Guard,
    NewTask,
    Repair,
    Statistics,
    Survey,
    Task,
    TaskState,
    check_names,
)
from cluster.stores._bells import Bells
from cluster.stores._file import clock_offset, prepare, transact, translated
from cluster.stores._keys import split_lane
from cluster.stores._memory import Memory, MemoryListener
from cluster.stores._schema import OF_GROUPS
from cluster.stores._sqlite_jobs import SqliteJobs
from cluster.stores._sqlite_members import SqliteMembers
from cluster.stores._tasks import TASK, task_of
from cluster.stores._transaction import Transaction
from cluster.stores.base import Listener

T = TypeVar("T")

# What one claim does for jobs whose state has changed (see `_jobs`); the next one goes on.
_CARRIED_ON: Final = 100
_PASSED_OVER: Final = 300


class SqliteStore(SqliteJobs, SqliteMembers):
    """See `cluster.stores.base.Store`."""

    def __init__(
        self, url: str, group: str, *, path: str = "", memory: str | None = None, patience: float = 10.0
    ) -> None:
        self.url = url
        self.group = group
        self._patience = patience
        self._memory: Memory | None = None
        self._pool: ThreadPool | None = None
        self._bells: Bells | None = None
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._offset = 0.0
        if memory is not None:
            self._memory = Memory.open(memory)
        else:
            if not Path(path).absolute().parent.is_dir():
                raise BadStoreUrl(
                    f"{url!r}: there is no folder {Path(path).absolute().parent}; make it first"
                )
            self._pool = ThreadPool(1)  # one connection, used by one thread
            self._bells = Bells(path, group)
            try:
                self._pool.apply(self._open)
            except BaseException:
                self.close()
                raise

    def __repr__(self) -> str:
        return f"<SqliteStore {self.url} group={self.group!r} {'open' if self._pool or self._memory else 'closed'}>"

    # -- the file ------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            # timeout=0: SQLite's own waiting sleeps up to 100 ms at a time; ours is quicker and fairer.
            db = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(f"{self.url}: {error}") from error
        self._db = db
        self._patiently(lambda: prepare(db, self.url))
        self._offset = self._patiently(lambda: clock_offset(db))

    def _patiently(self, call: Callable[[], T]) -> T:
        """Repeat a call while another process writes; runs in the store's thread."""
        deadline = time.monotonic() + self._patience
        pause = 0.0005
        while True:
            try:
                return call()
            except sqlite3.OperationalError as error:
                code = error.sqlite_errorcode & 0xFF
                if code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > deadline:
                    raise translated(self.url, error) from error
            except sqlite3.Error as error:
                raise translated(self.url, error) from error
            time.sleep(pause * random.random())
            pause = min(0.01, pause * 1.5)

    def _call(self, function: Callable[[Transaction], T], *, writes: bool = True) -> T:
        if self._memory is not None:
            with self._memory.turn:
                result, topics = transact(self._memory.db, self.group, 0.0, function, writes)
        else:
            pool = self._pool
            if pool is None:
                raise StoreError(f"{self.url} was closed; open it again with open_store()")
            outcome = pool.apply(self._transact_in_thread, (function, writes))
            if isinstance(outcome, Exception):
                raise outcome
            result, topics = outcome
        for topic in topics:
            self.ring(topic)
        return result

    def _transact_in_thread(
        self, function: Callable[[Transaction], T], writes: bool
    ) -> tuple[T, set[str]] | Exception:
        db = self._db
        assert db is not None
        try:
            return self._patiently(lambda: transact(db, self.group, self._offset, function, writes))
        except Exception as error:  # noqa: BLE001  gevent would print what is raised here, as nobody's
            return error

    def close(self) -> None:
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.release()
        pool, self._pool = self._pool, None
        if pool is not None:
            if self._db is not None:
                pool.apply(self._db.close)
            pool.kill()
        if self._bells is not None:
            self._bells.close()

    def now(self) -> float:
        return time.monotonic() + self._offset if self._memory is None else time.time()

    def groups(self) -> tuple[str, ...]:
        return self._call(
            lambda t: tuple(name for (name,) in t.db.execute("SELECT name FROM grp ORDER BY name")),
            writes=False,
        )

    def declare_group(self) -> None:
        self._call(lambda t: t.declare())

    def wipe(self) -> None:
        def wipe(t: Transaction) -> None:
            for table in OF_GROUPS:
                t.db.execute(f"DELETE FROM {table} WHERE grp = ?", (t.grp,))  # noqa: S608  a name of ours
            t.db.execute("DELETE FROM grp WHERE name = ?", (t.grp,))

        self._call(wipe)

    # -- hints ---------------------------------------------------------------------------------------------

    def listen(self, *topics: str) -> Listener:
        names = tuple(set(map(_shared, topics)))
        if self._memory is not None:
            return MemoryListener(self._memory, {f"{self.group}\x1f{name}" for name in names})
        assert self._bells is not None
        return self._bells.listen(names)

    def ring(self, topic: str) -> None:
        topic = _shared(topic)
        if self._memory is not None:
            self._memory.ring(f"{self.group}\x1f{topic}")
        elif self._bells is not None:
            self._bells.ring(topic)

    # -- tasks ---------------------------------------------------------------------------------------------

    def submit(self, tasks: Sequence[NewTask], *, guard: Guard | None = None) -> list[str]:
        def submit(t: Transaction) -> list[str]:
            t.check(guard)
            t.check_room(tasks)
            outcomes = []
            for index, task in enumerate(tasks):
                outcomes.append(t.insert(task))
                if index == 0:
                    fail_point("submit-first-row")
            return outcomes

        outcomes = self._call(submit)
        fail_point("submit-committed")
        return outcomes

    def claim(
        self,
        node: str,
        incarnation: str,
        count: int,
        *,
        queues: Sequence[str],
        ops: Iterable[str],
        buckets: Iterable[int] | None = None,
        lease: float,
        by: str = "",
        ends: Sequence[Finish] = (),
        guard: Guard | None = None,
    ) -> tuple[list[Claim], float | None]:
        known = frozenset(ops)
        ours = None if buckets is None else frozenset(map(str, buckets))

        def claim(t: Transaction) -> tuple[list[Claim], float | None]:
            t.check(guard)
            t.check_member(node, incarnation)
            for end in ends:
                t.finish(node, end)
            t.carry_on_all(max(count, _CARRIED_ON))
            due = t.next_due()
            if due == 0.0:
                t.promote(100)
                due = t.next_due()
            claims: list[Claim] = []
            passed = 0  # over, for their jobs do not let them run
            for queue in queues:
                more = True
                while more and len(claims) < count and passed < _PASSED_OVER:
                    more = False
                    for task_id, job_id in t.heads(queue, known, ours, count - len(claims)):
                        if not job_id or t.admit(task_id, job_id):
                            claims.append(t.give(task_id, node, incarnation, lease, by))
                        else:
                            passed += 1
                            more = True
            return claims, 0.0 if passed >= _PASSED_OVER or t.resuming() else due

        claims, due = self._call(claim)
        if ends:
            fail_point("finish-committed")
            self.ring("ended")
        if claims and by:
            self.ring(f"node:{node}")
        return claims, due

    def assigned(self, node: str, incarnation: str) -> list[Claim]:
        def assigned(t: Transaction) -> list[Claim]:
            t.check_member(node, incarnation)
            rows = t.db.execute(
                "SELECT task_id, fence FROM assignment WHERE grp = ? AND node = ? AND running = 0",
                (t.grp, node),
            ).fetchall()
            t.db.execute("UPDATE assignment SET running = 1 WHERE grp = ? AND node = ?", (t.grp, node))
            found = ((t.task(task_id), fence) for task_id, fence in rows)
            return [
                Claim(task, fence, t.turn_of(task))
                for task, fence in found
                if task and task.state == TaskState.ASSIGNED
            ]

        return self._call(assigned)

    def finish(self, node: str, ends: Sequence[Finish]) -> list[bool]:
        if not ends:
            return []
        outcomes = self._call(lambda t: [t.finish(node, end) for end in ends])
        fail_point("finish-committed")
        self.ring("ended")
        return outcomes

    def cancel(self, task_id: str) -> bool:
        return self._call(lambda t: t.cancel(task_id))

    def replay(self, task_ids: Sequence[str]) -> int:
        return self._call(lambda t: sum(map(t.replay, task_ids)))

    def task(self, task_id: str) -> Task | None:
        return self._call(lambda t: t.task(task_id, whole=True), writes=False)

    def tasks(
        self,
        *,
        state: str | None = None,
        queue: str | None = None,
        job_id: str | None = None,
        limit: int = 100,
        after: str = "",
    ) -> list[Task]:
        def tasks(t: Transaction) -> list[Task]:
            where, values = "grp = ? AND id > ?", [t.grp, after]
            if state == TaskState.DEAD:
                where += " AND state = 'dead'"  # as a literal, so that SQLite takes the index of the dead
            elif state is not None:
                where, values = f"{where} AND state = ?", [*values, state]
            if queue is not None:
                where, values = f"{where} AND queue = ?", [*values, queue]
            if job_id:
                where, values = f"{where} AND job = ? AND job <> ''", [*values, job_id]
            return [
                task_of(row)
                for row in t.db.execute(
                    f"SELECT {TASK} FROM task WHERE {where} ORDER BY id LIMIT ?",  # noqa: S608  names of ours
                    (*values, limit),
                )
            ]

        return self._call(tasks, writes=False)

    def assignments(self, node: str | None = None) -> list[Assignment]:
        return self._call(
            lambda t: t.assignments("node = ?" if node is not None else "?", True if node is None else node),
            writes=False,
        )

    def statistics(self) -> Statistics:
        def statistics(t: Transaction) -> Statistics:
            tasks: dict[str, dict[str, int]] = {}
            for queue, state, count in t.db.execute(
                "SELECT queue, state, n FROM tally WHERE grp = ?", (t.grp,)
            ):
                if count:
                    tasks.setdefault(queue, {})[state] = count
            counters = dict(
                t.db.execute("SELECT name, value FROM counter WHERE grp = ? AND name NOT LIKE '#%'", (t.grp,))
            )
            oldest: dict[str, float] = {}
            for lane in t.lanes(""):
                since = t.db.execute(
                    "SELECT ready_since FROM task WHERE grp = ? AND lane = ? AND state = 'ready' ORDER BY rank LIMIT 1",
                    (t.grp, lane),
                ).fetchone()[0]
                queue = split_lane(lane)[0]
                oldest[queue] = max(oldest.get(queue, 0.0), t.now - since)
            return Statistics(tasks, counters, oldest)

        return self._call(statistics, writes=False)

    def configure_queue(
        self, queue: str, *, max_waiting: int | None = None, paused: bool | None = None
    ) -> None:
        check_names(queue=queue)

        def configure(t: Transaction) -> None:
            t.declare()
            t.db.execute("INSERT OR IGNORE INTO queue (grp, name) VALUES (?, ?)", (t.grp, queue))
            if max_waiting is not None:
                t.db.execute(
                    "UPDATE queue SET max_waiting = ? WHERE grp = ? AND name = ?", (max_waiting, t.grp, queue)
                )
            if paused is not None:
                t.db.execute("UPDATE queue SET paused = ? WHERE grp = ? AND name = ?", (paused, t.grp, queue))

        self._call(configure)
        self.ring("ready")

    def queues(self) -> dict[str, dict[str, int]]:
        return self._call(
            lambda t: {
                name: {"max_waiting": limit, "paused": paused}
                for name, limit, paused in t.db.execute(
                    "SELECT name, max_waiting, paused FROM queue WHERE grp = ?", (t.grp,)
                )
            },
            writes=False,
        )

    # -- the coordinator -----------------------------------------------------------------------------------

    def promote(self, limit: int, *, guard: Guard | None = None) -> int:
        def promote(t: Transaction) -> int:
            t.check(guard)
            return t.promote(limit)

        return self._call(promote)

    def survey(self, limit: int, *, unknown_after: float) -> Survey:
        return self._call(lambda t: t.survey(limit, unknown_after), writes=False)

    def repair(self, repairs: Sequence[Repair], *, guard: Guard | None = None) -> int:
        def repair(t: Transaction) -> int:
            t.check(guard)
            by = guard.lock if guard else ""
            return sum(t.repair(one, by) for one in repairs)

        applied = self._call(repair)
        for one in repairs:
            if one.node:
                self.ring(f"node:{one.node}")
        if applied:
            self.ring("ended")
        return applied

    def purge(self, older_than: float, limit: int, *, journal: int, guard: Guard | None = None) -> int:
        def purge(t: Transaction) -> int:
            t.check(guard)
            t.db.execute(
                "DELETE FROM event WHERE grp = ? AND seq <= (SELECT max(seq) FROM event WHERE grp = ?) - ?",
                (t.grp, t.grp, journal),
            )
            done = t.db.execute(
                "DELETE FROM task WHERE rowid IN (SELECT rowid FROM task WHERE grp = ? AND ended < ? "
                "AND ended IS NOT NULL AND state <> 'dead' LIMIT ?)",
                (t.grp, t.now - older_than, limit),
            ).rowcount
            return done + t.purge_jobs(older_than, limit - done)

        return self._call(purge)

    # -- the journal ---------------------------------------------------------------------------------------

    def note(self, kind: str, subject: str, by: str = "", detail: str = "") -> None:
        self._call(lambda t: t.note(kind, subject, by, detail))

    def events(self, *, after: str = "", limit: int = 1000) -> list[Event]:
        return self._call(
            lambda t: [
                Event(f"{seq:016d}", *rest)
                for seq, *rest in t.db.execute(
                    "SELECT seq, at, kind, subject, by, detail FROM event WHERE grp = ? AND seq > ? "
                    "ORDER BY seq LIMIT ?",
                    (t.grp, int(after or 0), limit),
                )
            ],
            writes=False,
        )

    def put(self, key: str, value: str) -> None:
        def put(t: Transaction) -> None:
            t.declare()
            if value:
                t.db.execute("INSERT OR REPLACE INTO config VALUES (?, ?, ?)", (t.grp, key, value))
            else:
                t.db.execute("DELETE FROM config WHERE grp = ? AND key = ?", (t.grp, key))

        self._call(put)

    def get(self, key: str) -> str:
        def get(t: Transaction) -> str:
            row = t.db.execute("SELECT value FROM config WHERE grp = ? AND key = ?", (t.grp, key)).fetchone()
            return row[0] if row else ""

        return self._call(get, writes=False)

    # -- for tests: what no call of the contract would do

    def plant(self, task_id: str, node: str, incarnation: str) -> int:
        """Write an assignment that nobody decided."""

        def plant(t: Transaction) -> int:
            fence = t.draw("#fence")
            t.db.execute(
                "INSERT INTO assignment VALUES (?, ?, ?, ?, ?, 1, ?, ?, 1, 'test')",
                (t.grp, task_id, node, incarnation, fence, t.now, t.now + 60),
            )
            return fence

        return self._call(plant)

    def inventory(self) -> dict[str, int]:
        """How many rows there are of the group in each table that has some, but for counts and the journal."""

        def inventory(t: Transaction) -> dict[str, int]:
            counts = {
                table: t.db.execute(f"SELECT count(*) FROM {table} WHERE grp = ?", (t.grp,)).fetchone()[0]  # noqa: S608
                for table in OF_GROUPS
                if table not in ("event", "counter", "tally")
            }
            return {table: count for table, count in counts.items() if count}

        return self._call(inventory, writes=False)

    def unassign(self, task_id: str) -> None:
        """Lose the assignments of a task."""
        self._call(
            lambda t: t.db.execute("DELETE FROM assignment WHERE grp = ? AND task_id = ?", (t.grp, task_id))
        )


def _shared(topic: str) -> str:
    """A client waits for one task or job; here all of those share the topic."""
    kind, colon, _ = topic.partition(":")
    return kind if colon and kind in ("ended", "job") else topic
