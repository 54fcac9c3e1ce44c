"""The Redis engine: many processes on many machines, by a server that people already run.

Every call is one Lua script (redis.lua), so it happens entirely or not at all, and reads the server's clock.
Sockets are gevent's, so a tasklet that waits for the server holds up no other; nothing is patched.

The server has to keep what it is given: `maxmemory-policy noeviction`, and `appendonly yes` to survive its own
end. With `appendfsync everysec`, Redis's default, a power cut may lose the last second; a killed server none.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlsplit

import gevent
import msgpack
import redis
from gevent import socket, ssl
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
    TaskState,
)
from cluster.stores._keys import lane_of, split_lane, worker_lost
from cluster.stores.base import Listener

_SCRIPT: Final = (files("cluster.stores") / "redis.lua").read_text(encoding="utf-8")
_GROUPS: Final = "tk:groups"
_SCHEMA: Final = "tk:schema"
_GROWING: Final = frozenset({"submit", "put", "configure_queue"})
_CALL_SECONDS: Final = (
    2.0  # for one answer; a server that froze for longer is asked again on a new connection
)


class _Connection(redis.Connection):
    """redis-py's connection on gevent's socket."""

    def _connect(self) -> Any:
        connection = socket.create_connection((self.host, self.port), timeout=self.socket_connect_timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(self.socket_timeout)
        return connection


class _TlsConnection(redis.SSLConnection, _Connection):
    """The same with TLS. The url says what to trust: `rediss://HOST:PORT/0?ssl_ca_certs=/etc/ca.pem`."""

    def _connect(self) -> Any:
        context = self._tls()
        plain = _Connection._connect(self)
        try:
            return context.wrap_socket(plain, server_hostname=self.host)
        except ssl.SSLError as error:
            plain.close()
            raise redis.AuthenticationError(str(error)) from error  # to try again would not help
        except OSError:
            plain.close()
            raise

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = bool(self.check_hostname)
        context.verify_mode = ssl.VerifyMode(self.cert_reqs)
        try:
            if self.ca_certs or self.ca_path or self.ca_data:
                context.load_verify_locations(self.ca_certs, self.ca_path, self.ca_data)
            else:
                context.load_default_certs()
            if self.certfile:
                context.load_cert_chain(self.certfile, self.keyfile, self.certificate_password)
        except OSError as error:  # a file that is not there, or holds no certificate
            files = ", ".join(filter(None, [self.ca_certs, self.ca_path, self.certfile, self.keyfile]))
            raise redis.AuthenticationError(f"{files}: {error}") from error
        return context


class _UnixConnection(redis.UnixDomainSocketConnection):
    """The same for a Unix socket."""

    def _connect(self) -> Any:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self.socket_connect_timeout)
        connection.connect(self.path)
        connection.settimeout(self.socket_timeout)
        return connection


_CONNECTIONS: Final = {"redis": _Connection, "rediss": _TlsConnection, "unix": _UnixConnection}


class RedisStore:
    """See `cluster.stores.base.Store`."""

    def __init__(self, url: str, group: str, *, patience: float = 10.0) -> None:
        self.url = _without_password(url)
        self.group = group
        self._patience = patience
        self._prefix = f"tk:{{{group}}}:"
        try:
            pool = redis.ConnectionPool.from_url(
                url,
                connection_class=_CONNECTIONS[urlsplit(url).scheme],
                socket_timeout=_CALL_SECONDS,
                socket_connect_timeout=_CALL_SECONDS,
                retry=Retry(NoBackoff(), 0),  # we repeat calls ourselves
                health_check_interval=0,
            )
        except ValueError as error:
            raise BadStoreUrl(f"{self.url!r}: {error}; write redis://HOST:PORT/DB") from error
        self._redis = redis.Redis(connection_pool=pool)
        self._scripts = (_SCRIPT, _SCRIPT)  # for calls that store more, and for those that let work end
        self._shas: dict[str, str] = {}
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
                self._scripts = (_SCRIPT, f"#!lua flags=allow-oom\n{_SCRIPT}")
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
        packed = _packed(arguments)
        try:
            answer = msgpack.unpackb(self._evaluate(call, packed), raw=True, strict_map_key=False)
        except redis.ResponseError as error:
            raise self._translated(error) from error
        if isinstance(answer, list) and answer and answer[0] == b"\x1frefused":
            raise self._refusal(*answer[1:])
        return answer

    def _evaluate(self, name: str, packed: bytes) -> bytes:
        script = self._scripts[name not in _GROWING]
        sha = self._shas.get(script)
        if sha is None:
            sha = self._shas[script] = self._command("SCRIPT LOAD", script)
        try:
            return self._command("EVALSHA", sha, 1, self._prefix, name, packed)  # type: ignore[no-any-return]
        except redis.exceptions.NoScriptError:  # the server was restarted, or its scripts flushed
            return self._command("EVAL", script, 1, self._prefix, name, packed)  # type: ignore[no-any-return]

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
        outcomes = self._call("submit", tasks=[_new(task) for task in tasks], guard=guard)
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
        return [Claim(_task(row), fence) for row, fence in claims], None if due < 0 else due

    def assigned(self, node: str, incarnation: str) -> list[Claim]:
        rows = self._call("assigned", node=node, incarnation=incarnation)
        return [Claim(_task(row), fence) for row, fence in rows or ()]

    def finish(self, node: str, ends: Sequence[Finish]) -> list[bool]:
        if not ends:
            return []
        outcomes = self._call("finish", node=node, ends=[self._end(node, end) for end in ends])
        fail_point("finish-committed")
        return [bool(outcome) for outcome in outcomes]

    def _end(self, node: str, end: Finish) -> dict[str, Any]:
        row = asdict(end)
        row["children"] = [_new(child) for child in end.children]
        if end.ending == "lost":  # the script cannot write an error, so it is given the one it may need
            task = self.task(end.task_id)
            if task is not None:
                row["payload"] = worker_lost(task, task.losses + 1, node, "the process that ran it died")
        return row

    def cancel(self, task_id: str) -> bool:
        return bool(self._call("cancel", task_id=task_id))

    def replay(self, task_ids: Sequence[str]) -> int:
        return int(self._call("replay", task_ids=list(task_ids)))

    def task(self, task_id: str) -> Task | None:
        row = self._call("task", task_id=task_id)
        return _task(row) if row else None

    def tasks(
        self, *, state: str | None = None, queue: str | None = None, limit: int = 100, after: str = ""
    ) -> list[Task]:
        return [
            _task(row)
            for row in self._call("tasks", state=state, queue=queue, limit=limit, after=after) or ()
        ]

    def assignments(self, node: str | None = None) -> list[Assignment]:
        return [_assignment(row) for row in self._call("assignments", node=node) or ()]

    def statistics(self) -> Statistics:
        tally, counters, oldest_rows = self._call("statistics")
        tasks: dict[str, dict[str, int]] = {}
        for name, number in _pairs(tally).items():
            queue, _, state = name.partition("\x1f")
            if int(number):
                tasks.setdefault(queue, {})[state] = int(number)
        oldest: dict[str, float] = {}
        for lane, age in oldest_rows or ():
            queue = split_lane(lane.decode())[0]
            oldest[queue] = max(oldest.get(queue, 0.0), float(age))
        return Statistics(tasks, {name: int(value) for name, value in _pairs(counters).items()}, oldest)

    def configure_queue(
        self, queue: str, *, max_waiting: int | None = None, paused: bool | None = None
    ) -> None:
        self.declare_group()
        self._call("configure_queue", queue=queue, max_waiting=max_waiting, paused=paused)

    def queues(self) -> dict[str, dict[str, int]]:
        rows = _pairs(self._call("queues") or [])
        return {
            name: {key.decode(): value for key, value in msgpack.unpackb(packed, raw=True).items()}
            for name, packed in rows.items()
        }

    # -- members -------------------------------------------------------------------------------------------

    def reserve(
        self, node: str, role: str, *, spawn_id: str, grace: float, limit: int, by: str = "", host: str = ""
    ) -> bool:
        member = _member_row(Member(node, "", role, "joining", spawn_id=spawn_id, host=host))
        return bool(self._call("reserve", member=member, spawn_id=spawn_id, grace=grace, limit=limit, by=by))

    def join(self, member: Member, ttl: float) -> None:
        self._declare_if_there_is_room()
        self._call("join", member=_member_row(member), ttl=ttl)

    def renew(self, member: Member, ttl: float, lease: float, running: Sequence[str] = ()) -> Beat:
        now, held, state = self._call("renew", member=_member_row(member), ttl=ttl, lease=lease)
        self._offset = now - time.monotonic()
        self._declare_if_there_is_room()
        return Beat(now, tuple((i.decode(), fence, bool(on)) for i, fence, on in held or ()), state.decode())

    def leave(self, node: str, incarnation: str, reason: str = "") -> None:
        self._call("leave", node=node, incarnation=incarnation, reason=reason)

    def drain(self, node: str) -> bool:
        return bool(self._call("drain", node=node))

    def members(self) -> list[Member]:
        found = [_member(row) for row in self._call("members") or ()]
        return sorted(found, key=lambda m: (m.joined, m.node))

    # -- locks ---------------------------------------------------------------------------------------------

    def acquire(self, name: str, holder: str, ttl: float) -> Lock:
        return _lock(self._call("acquire", name=name, holder=holder, ttl=ttl))

    def renew_lock(self, name: str, fence: int, ttl: float) -> bool:
        return bool(self._call("renew_lock", name=name, fence=fence, ttl=ttl))

    def release(self, name: str, fence: int) -> bool:
        return bool(self._call("release", name=name, fence=fence))

    def lock(self, name: str) -> Lock | None:
        row = self._call("lock", name=name)
        return _lock(row) if row else None

    # -- the coordinator -----------------------------------------------------------------------------------

    def promote(self, limit: int, *, guard: Guard | None = None) -> int:
        return int(self._call("promote", limit=limit, guard=guard))

    def survey(self, limit: int, *, unknown_after: float) -> Survey:
        rows = {
            k.decode(): v for k, v in self._call("survey", limit=limit, unknown_after=unknown_after).items()
        }
        return Survey(
            rows["now"],
            tuple(_member(row) for row in rows["expired_members"]),
            tuple(_assignment(row) for row in rows["expired"]),
            tuple(_assignment(row) for row in rows["orphans"]),
            tuple(tuple(_assignment(row) for row in several) for several in rows["duplicates"]),
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
            row = {key: value.decode() for key, value in _pairs(flat).items()}
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


# -- rows ----------------------------------------------------------------------------------------------------------


def _packed(arguments: dict[str, Any]) -> bytes:
    # The script's msgpack is of the old kind, which has one type for text and bytes.
    return msgpack.packb(  # type: ignore[no-any-return]
        {key: value for key, value in arguments.items() if value is not None},
        use_bin_type=False,
        unicode_errors="surrogatepass",
    )


def _new(task: NewTask) -> dict[str, Any]:
    row = {name: getattr(task, name) for name in NewTask.__slots__}
    row["lane"] = lane_of(task.queue, task.op, task.partition_key)
    return {name: value for name, value in row.items() if value is not None}


def _pairs(flat: list[bytes]) -> dict[str, bytes]:
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}


def _text(row: dict[str, bytes], name: str) -> str | None:
    value = row.get(name)
    return None if value is None else value.decode("utf-8", "surrogatepass")


def _task(row: list[Any]) -> Task:
    task_id, flat, more = row
    f = _pairs(flat)
    return Task(
        task_id=task_id.decode(),
        queue=_text(f, "queue") or "",
        op=_text(f, "op") or "",
        args=f.get("args", b""),
        state=TaskState(f["state"].decode()),
        priority=int(f["priority"]),
        created=float(f["created"]),
        due=float(f["due"]),
        attempts=int(f.get("attempts", 0)),
        losses=int(f.get("losses", 0)),
        max_losses=int(f["max_losses"]),
        step=_text(f, "step") or "",
        data=f.get("data", b""),
        partition_key=_text(f, "partition_key"),
        ordering_key=_text(f, "ordering_key"),
        coalesce_key=_text(f, "coalesce_key"),
        deadline=float(f["deadline"]) if "deadline" in f else None,
        job_id=_text(f, "job") or "",
        meta=f.get("meta", b""),
        more=tuple(more or ()),
        merged_into=_text(f, "merged_into") or "",
        ended=float(f["ended"]) if "ended" in f else None,
        result=f.get("result"),
        error=f.get("error"),
        worker=_text(f, "worker") or "",
    )


def _assignment(row: dict[bytes, Any]) -> Assignment:
    f = {key.decode(): value for key, value in row.items()}
    return Assignment(
        f["task_id"].decode(),
        f["node"].decode(),
        f["incarnation"].decode(),
        f["fence"],
        f["attempt"],
        f["since"],
        f["lease_until"],
        bool(f["running"]),
        f["by"].decode(),
    )


def _member_row(member: Member) -> dict[str, Any]:
    row = asdict(member)
    for name in ("ops", "queues", "labels"):
        row[name] = "\n".join(row[name])
    return row


def _member(row: dict[bytes, Any]) -> Member:
    f: dict[str, Any] = {
        key.decode(): value.decode() if isinstance(value, bytes) else value for key, value in row.items()
    }
    for name in ("ops", "queues", "labels"):
        f[name] = tuple(f[name].split("\n")) if f[name] else ()
    return Member(**f)


def _lock(row: dict[bytes, Any]) -> Lock:
    f: dict[str, Any] = {
        key.decode(): value.decode() if isinstance(value, bytes) else value for key, value in row.items()
    }
    return Lock(f["name"], f["holder"], f["fence"], f["lease_until"])


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "*?[]\\" else c for c in text)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":***@")
