"""The Redis engine: many processes on many machines, by a server that people already run.

Every call is one Lua script, cut of redis*.lua by `_script`, so it happens entirely or not at all, and reads the
server's clock. Sockets are gevent's, so a tasklet that waits for the server holds up no other; nothing is patched.

The server has to keep what it is given: `maxmemory-policy noeviction`, and `appendonly yes` to survive its own
end. With `appendfsync everysec`, Redis's default, a power cut may lose the last second; a killed server none.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import urlsplit

import gevent
import msgpack
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cluster._failpoints import fail_point
from cluster.errors import (
    BadStoreUrl,
    LeaseLost,
    NameTaken,
    QueueFull,
    SchemaMismatch,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from cluster.records import (
    SCHEMA,
    Assignment,
    Beat,
    Claim,
    Ending,
    Event,
    Finish,
    Guard,
    Lock,
    Member,
    NewTask,
    Repair,
    Statistics,
    Survey,
    Task,
    check_names,
)
from cluster.stores import _refusals as refusals
from cluster.stores._connections import CONNECTIONS
from cluster.stores._keys import split_lane, task_cancelled, worker_lost
from cluster.stores._packed import (
    assignment_of,
    end_row,
    lock_of,
    member_of,
    member_row,
    new_row,
    packed,
    pairs,
    task_of,
    turn_of,
)
from cluster.stores._redis_jobs import RedisJobs
from cluster.stores._script import script_of
from cluster.stores.base import Listener

_GROUPS: Final = "tk:groups"
_SCHEMA: Final = "tk:schema"
_GROWING: Final = frozenset({"submit", "put", "configure_queue", "start", "signal"})
_CALL_SECONDS: Final = (
    2.0  # for one answer; a server that froze for longer is asked again on a new connection
)


class RedisStore(RedisJobs):
    """See `cluster.stores.base.Store`."""

    def __init__(self, url: str, group: str, *, patience: float = 10.0) -> None:
        self.url = _without_password(url)
        self.group = group
        self._patience = patience
        self._prefix = f"tk:{{{group}}}:"
        try:
            pool = redis.ConnectionPool.from_url(
                url,
                connection_class=CONNECTIONS[urlsplit(url).scheme],
                socket_timeout=_CALL_SECONDS,
                socket_connect_timeout=_CALL_SECONDS,
                retry=Retry(NoBackoff(), 0),  # we repeat calls ourselves
                health_check_interval=0,
            )
        except ValueError as error:
            raise BadStoreUrl(f"{self.url!r}: {error}; write redis://HOST:PORT/DB") from error
        self._redis = redis.Redis(connection_pool=pool)
        self._flags = ""  # of the scripts that let work end, and do not store more
        self._shas: dict[str, str] = {}  # call -> the name of its script in the server
        self._offset = 0.0
        self._declared = False
        try:
            version = int(self._command("GET", _SCHEMA) or 0)
            if version == 0:
                self._command("SETNX", _SCHEMA, SCHEMA)
                version = int(self._command("GET", _SCHEMA))
            if version != SCHEMA:
                raise SchemaMismatch(
                    f"{self.url} has schema {version}, and this release reads {SCHEMA}; "
                    f"{'upgrade this node' if version > SCHEMA else 'finish its work with the older release first'}"
                )
            if int(str(self._redis.info("server")["redis_version"]).split(".")[0]) >= 7:
                # A server without memory refuses what would take more, but work that is there can end.
                self._flags = "#!lua flags=allow-oom\n"
            self.now_exactly()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<RedisStore {self.url} group={self.group!r}>"

    # -- calls ---------------------------------------------------------------------------------------------

    def _command(self, *words: Any) -> Any:
        """Send a command, and again for as long as the server is away."""
        deadline = time.monotonic() + self._patience
        pause = 0.02
        while True:
            try:
                return self._redis.execute_command(*words)  # type: ignore[no-untyped-call]
            except redis.AuthenticationError as error:  # a ConnectionError too, and patience would not help
                raise StoreUnavailable(
                    f"{self.url} refused us, or we it: {error}; what the url says of the user, the password and "
                    "the certificates has to fit the server"
                ) from error
            except (
                redis.ConnectionError,
                redis.TimeoutError,
                redis.exceptions.BusyLoadingError,
                OSError,
            ) as error:
                if time.monotonic() > deadline:
                    raise StoreUnavailable(
                        f"{self.url} did not answer for {self._patience:g} s: {type(error).__name__}: {error}; "
                        "is the server running? Whether the call took effect is not known"
                    ) from error
            gevent.sleep(pause * (0.5 + random.random() / 2))
            pause = min(0.5, pause * 2)

    def _call(self, call: str, /, **arguments: Any) -> Any:
        arguments["group"] = self.group
        guard = arguments.get("guard")
        if guard is not None:
            arguments["guard"] = {"lock": guard.lock, "fence": guard.fence}
        try:
            answer = msgpack.unpackb(self._evaluate(call, packed(arguments)), raw=True, strict_map_key=False)
        except redis.ResponseError as error:
            raise self._translated(error) from error
        if isinstance(answer, list) and answer and answer[0] == b"\x1frefused":
            raise self._refusal(*answer[1:])
        return answer

    def _page(self, call: str, limit: int, after: str, /, **wanted: Any) -> list[Any]:
        """Read rows by a call that looks at so many and then says where to go on."""
        found: list[Any] = []
        more: Any = after
        while more is not False and len(found) < limit:
            rows, more = self._call(call, limit=limit - len(found), after=more, **wanted)
            found += rows or ()
        return found

    def _evaluate(self, name: str, argument: bytes) -> bytes:
        script = script_of(name) if name in _GROWING else self._flags + script_of(name)
        sha = self._shas.get(name)
        if sha is None:
            sha = self._shas[name] = self._command("SCRIPT LOAD", script)
        try:
            return self._command("EVALSHA", sha, 1, self._prefix, name, argument)  # type: ignore[no-any-return]
        except redis.exceptions.NoScriptError:  # the server was restarted, or its scripts flushed
            return self._command("EVAL", script, 1, self._prefix, name, argument)  # type: ignore[no-any-return]

    def _refusal(self, kind: bytes, *values: Any) -> Exception:
        values = tuple(value.decode() if isinstance(value, bytes) else value for value in values)
        if kind == b"lease":
            return LeaseLost(*values)
        if kind == b"name":
            node, pid, host, seconds = values
            return NameTaken(
                f"a node named {node!r} is in group {self.group!r} already (pid {pid} on {host}); "
                f"choose another name, or wait {seconds:.1f} s if it has just died"
            )
        if kind == b"job-missing":
            return refusals.job_missing(values[0], self.group)
        if kind == b"job-id":
            job_id, by_job = values
            return refusals.id_taken(job_id, by_job=bool(by_job))
        if kind == b"job-state":
            return refusals.illegal_change(*values)
        queue, room, number, waiting, limit = values
        return QueueFull(
            f"queue {queue!r} takes {room} more tasks and not {number}: {waiting} wait, its limit is {limit}",
            queue=queue,
            room=room,
        )

    def _translated(self, error: redis.ResponseError) -> StoreError:
        text = str(error)
        if "maxmemory" in text or "MISCONF" in text:
            return StoreFull(
                f"{self.url} has no room: {text}; nothing was written. Give it memory or disk, then repeat"
            )
        if "READONLY" in text:
            return StoreUnavailable(f"{self.url} is a replica: {text}; use the primary's address")
        return StoreError(f"{self.url}: {text}")

    def close(self) -> None:
        self._redis.connection_pool.disconnect()

    def now(self) -> float:
        return time.monotonic() + self._offset

    def now_exactly(self) -> float:
        """Ask the server for its time."""
        seconds, microseconds = self._command("TIME")
        now = int(seconds) + int(microseconds) / 1e6
        self._offset = now - time.monotonic()
        return now

    def groups(self) -> tuple[str, ...]:
        return tuple(sorted(name.decode() for name in self._command("SMEMBERS", _GROUPS)))

    def declare_group(self) -> None:
        try:
            self._command("SADD", _GROUPS, self.group)
        except redis.ResponseError as error:
            raise self._translated(error) from error
        self._declared = True

    def _declare_if_there_is_room(self) -> None:
        """The list of groups is outside the group's slot, so a command of its own; a full server refuses it."""
        if not self._declared:
            try:
                self.declare_group()
            except StoreFull:
                pass  # the next heartbeat tries again

    def wipe(self) -> None:
        cursor = 0
        while True:
            cursor, keys = self._command("SCAN", cursor, "MATCH", _escaped(self._prefix) + "*", "COUNT", 1000)
            if keys:
                self._command("UNLINK", *keys)
            if not int(cursor):
                break
        self._command("SREM", _GROUPS, self.group)

    # -- hints ---------------------------------------------------------------------------------------------

    def listen(self, *topics: str) -> Listener:
        return _RedisListener(self._redis, [self._prefix + topic for topic in topics])

    def ring(self, topic: str) -> None:
        try:
            self._redis.execute_command("PUBLISH", self._prefix + topic, "!")  # type: ignore[no-untyped-call]
        except (redis.RedisError, OSError):
            pass  # a hint

    # -- tasks ---------------------------------------------------------------------------------------------

    def submit(self, tasks: Sequence[NewTask], *, guard: Guard | None = None) -> list[str]:
        outcomes = self._call("submit", tasks=[new_row(task) for task in tasks], guard=guard)
        fail_point("submit-committed")
        return [outcome.decode() for outcome in outcomes]

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
        claims, due = self._call(
            "claim",
            ends=[self._end(node, end) for end in ends] or None,
            node=node,
            incarnation=incarnation,
            count=count,
            queues=list(queues),
            ops=list(ops),
            buckets=None if buckets is None else list(buckets),
            lease=lease,
            by=by,
            guard=guard,
        )
        if ends:
            fail_point("finish-committed")
        return [
            Claim(task_of(row), fence, turn_of(turn)) for row, fence, turn in claims
        ], None if due < 0 else due

    def assigned(self, node: str, incarnation: str) -> list[Claim]:
        rows = self._call("assigned", node=node, incarnation=incarnation)
        return [Claim(task_of(row), fence, turn_of(turn)) for row, fence, turn in rows or ()]

    def finish(self, node: str, ends: Sequence[Finish]) -> list[bool]:
        if not ends:
            return []
        outcomes = self._call("finish", node=node, ends=[self._end(node, end) for end in ends])
        fail_point("finish-committed")
        return [bool(outcome) for outcome in outcomes]

    def _end(self, node: str, end: Finish) -> dict[str, Any]:
        row = end_row(end)
        if end.ending == Ending.LOST:  # the script cannot write an error, so it is given the one it may need
            task = self.task(end.task_id)
            if task is not None:
                row["payload"] = worker_lost(task, task.losses + 1, node, "the process that ran it died")
        elif end.ending == Ending.CANCELLED:
            row["payload"] = end.payload or task_cancelled(end.task_id)
        return row

    def cancel(self, task_id: str) -> bool:
        return bool(self._call("cancel", task_id=task_id, error=task_cancelled(task_id)))

    def replay(self, task_ids: Sequence[str]) -> int:
        return int(self._call("replay", task_ids=list(task_ids)))

    def task(self, task_id: str) -> Task | None:
        row = self._call("task", task_id=task_id)
        return task_of(row) if row else None

    def tasks(
        self,
        *,
        state: str | None = None,
        queue: str | None = None,
        job_id: str | None = None,
        limit: int = 100,
        after: str = "",
    ) -> list[Task]:
        rows = self._page("tasks", limit, after, state=state, queue=queue, job_id=job_id or None)
        return [task_of(row) for row in rows]

    def assignments(self, node: str | None = None) -> list[Assignment]:
        return [assignment_of(row) for row in self._call("assignments", node=node) or ()]

    def statistics(self) -> Statistics:
        tally, counters, oldest_rows = self._call("statistics")
        tasks: dict[str, dict[str, int]] = {}
        for name, number in pairs(tally).items():
            queue, _, state = name.partition("\x1f")
            if int(number):
                tasks.setdefault(queue, {})[state] = int(number)
        oldest: dict[str, float] = {}
        for lane, age in oldest_rows or ():
            queue = split_lane(lane.decode())[0]
            oldest[queue] = max(oldest.get(queue, 0.0), float(age))
        return Statistics(tasks, {name: int(value) for name, value in pairs(counters).items()}, oldest)

    def configure_queue(
        self, queue: str, *, max_waiting: int | None = None, paused: bool | None = None
    ) -> None:
        check_names(queue=queue)
        self.declare_group()
        self._call("configure_queue", queue=queue, max_waiting=max_waiting, paused=paused)

    def queues(self) -> dict[str, dict[str, int]]:
        rows = pairs(self._call("queues") or [])
        return {
            name: {key.decode(): value for key, value in msgpack.unpackb(row, raw=True).items()}
            for name, row in rows.items()
        }

    # -- members -------------------------------------------------------------------------------------------

    def reserve(
        self, node: str, role: str, *, spawn_id: str, grace: float, limit: int, by: str = "", host: str = ""
    ) -> bool:
        member = member_row(Member(node, "", role, "joining", spawn_id=spawn_id, host=host))
        return bool(self._call("reserve", member=member, spawn_id=spawn_id, grace=grace, limit=limit, by=by))

    def join(self, member: Member, ttl: float) -> None:
        self._declare_if_there_is_room()
        self._call("join", member=member_row(member), ttl=ttl)

    def renew(self, member: Member, ttl: float, lease: float, running: Sequence[str] = ()) -> Beat:
        now, held, state = self._call("renew", member=member_row(member), ttl=ttl, lease=lease)
        self._offset = now - time.monotonic()
        self._declare_if_there_is_room()
        return Beat(now, tuple((i.decode(), fence, bool(on)) for i, fence, on in held or ()), state.decode())

    def leave(self, node: str, incarnation: str, reason: str = "") -> None:
        self._call("leave", node=node, incarnation=incarnation, reason=reason)

    def drain(self, node: str) -> bool:
        return bool(self._call("drain", node=node))

    def members(self) -> list[Member]:
        found = [member_of(row) for row in self._call("members") or ()]
        return sorted(found, key=lambda m: (m.joined, m.node))

    # -- locks ---------------------------------------------------------------------------------------------

    def acquire(self, name: str, holder: str, ttl: float) -> Lock:
        return lock_of(self._call("acquire", name=name, holder=holder, ttl=ttl))

    def renew_lock(self, name: str, fence: int, ttl: float) -> bool:
        return bool(self._call("renew_lock", name=name, fence=fence, ttl=ttl))

    def release(self, name: str, fence: int) -> bool:
        return bool(self._call("release", name=name, fence=fence))

    def lock(self, name: str) -> Lock | None:
        row = self._call("lock", name=name)
        return lock_of(row) if row else None

    # -- the coordinator -----------------------------------------------------------------------------------

    def promote(self, limit: int, *, guard: Guard | None = None) -> int:
        return int(self._call("promote", limit=limit, guard=guard))

    def survey(self, limit: int, *, unknown_after: float) -> Survey:
        rows = {
            k.decode(): v for k, v in self._call("survey", limit=limit, unknown_after=unknown_after).items()
        }
        return Survey(
            rows["now"],
            tuple(member_of(row) for row in rows["expired_members"]),
            tuple(assignment_of(row) for row in rows["expired"]),
            tuple(assignment_of(row) for row in rows["orphans"]),
            tuple(tuple(assignment_of(row) for row in several) for several in rows["duplicates"]),
            tuple(i.decode() for i in rows["unassigned"]),
            tuple(i.decode() for i in rows["overdue"]),
            tuple(i.decode() for i in rows["unserved"]),
        )

    def repair(self, repairs: Sequence[Repair], *, guard: Guard | None = None) -> int:
        rows = []
        for one in repairs:
            row = asdict(one)
            if one.loss:
                task = self.task(one.task_id)
                if task is not None:
                    row["payload"] = worker_lost(task, task.losses + 1, one.node, one.reason)
            rows.append(row)
        return int(self._call("repair", repairs=rows, guard=guard))

    def purge(self, older_than: float, limit: int, *, journal: int, guard: Guard | None = None) -> int:
        return int(self._call("purge", older_than=older_than, limit=limit, journal=journal, guard=guard))

    # -- the journal ---------------------------------------------------------------------------------------

    def note(self, kind: str, subject: str, by: str = "", detail: str = "") -> None:
        self._call("note", kind=kind, subject=subject, by=by, detail=detail)

    def events(self, *, after: str = "", limit: int = 1000) -> list[Event]:
        found = []
        for seq, flat in self._call("events", after=after, limit=limit) or ():
            row = {key: value.decode() for key, value in pairs(flat).items()}
            found.append(
                Event(seq.decode(), float(row["at"]), row["kind"], row["subject"], row["by"], row["detail"])
            )
        return found

    def put(self, key: str, value: str) -> None:
        self.declare_group()
        self._call("put", key=key, value=value)

    def get(self, key: str) -> str:
        return str(self._call("get", key=key).decode())

    # -- for tests: what no call of the contract would do

    def plant(self, task_id: str, node: str, incarnation: str) -> int:
        """Write an assignment that nobody decided."""
        return int(self._call("plant", task_id=task_id, node=node, incarnation=incarnation))

    def inventory(self) -> dict[str, int]:
        """How many things there are of each kind of key, but for counts and the journal."""
        keys = list(self._redis.scan_iter(match=_escaped(self._prefix) + "*", count=1000))
        return {kind.decode(): size for kind, size in (self._call("inventory", keys=keys) or {}).items()}

    def unassign(self, task_id: str) -> None:
        """Lose the assignments of a task."""
        self._call("unassign", task_id=task_id)


class _RedisListener:
    """A subscription on a connection of its own; after a reconnect it says that a hint came, for some were lost."""

    def __init__(self, client: redis.Redis, channels: list[str]) -> None:
        self._pubsub = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._channels = channels
        self._subscribed = False

    def wait(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        try:
            if not self._subscribed:
                self._pubsub.subscribe(*self._channels)
                # What was published until the server has read the subscription is lost: look once more.
                self._subscribed = True
                return True
            # Not redis-py's timeout, which is the socket's: one that is due together with a hint would be raised
            # in a later wait. An interrupted read goes on where it was.
            rung = False
            with gevent.Timeout(max(0.001, timeout), False):  # type: ignore[arg-type]
                while not rung:
                    rung = self._heard()
            if rung:
                while self._pubsub.get_message(timeout=0) is not None:
                    pass  # any number of hints is one
            return rung
        except (redis.RedisError, OSError):
            self._subscribed = False
            self._pubsub.reset()
            gevent.sleep(min(max(0.0, deadline - time.monotonic()), 0.1))
            return True

    def _heard(self) -> bool:
        try:
            return self._pubsub.get_message(timeout=None) is not None
        except redis.TimeoutError:  # nothing for as long as an answer may take
            return False

    def close(self) -> None:
        try:
            self._pubsub.close()
        except (redis.RedisError, OSError):
            pass


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "*?[]\\" else c for c in text)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":***@")
