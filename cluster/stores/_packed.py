"""Records as the Redis engine's script is given and answers them: msgpack of the old kind, hashes as flat lists."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgpack

from cluster.records import (
    Assignment,
    Finish,
    Inbox,
    Job,
    JobState,
    Lock,
    Member,
    NewJob,
    NewTask,
    Notify,
    Result,
    Task,
    TaskState,
    Turn,
)
from cluster.stores._keys import lane_of


def packed(arguments: dict[str, Any]) -> bytes:
    # The script's msgpack is of the old kind, which has one type for text and bytes.
    return msgpack.packb(  # type: ignore[no-any-return]
        {key: value for key, value in arguments.items() if value is not None},
        use_bin_type=False,
        unicode_errors="surrogatepass",
    )


def new_row(task: NewTask) -> dict[str, Any]:
    row = {name: getattr(task, name) for name in NewTask.__slots__}
    row["lane"] = lane_of(task.queue, task.op, task.partition_key)
    return {name: value for name, value in row.items() if value is not None}


def end_row(end: Finish) -> dict[str, Any]:
    row = asdict(end)
    row["children"] = [new_row(child) for child in end.children]
    return row


def job_row(job: NewJob) -> dict[str, Any]:
    row = {name: getattr(job, name) for name in NewJob.__slots__}
    return {**row, "folded": job.name.casefold()}


def turn_row(job: NewJob) -> dict[str, Any]:
    """The task that a job's turns are."""
    return new_row(
        NewTask(
            job.cls, b"", job.queue, job.job_id, job.priority, max_losses=job.max_losses, job_id=job.job_id
        )
    )


def pairs(flat: list[bytes]) -> dict[str, bytes]:
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}


def text(row: dict[str, bytes], name: str) -> str | None:
    value = row.get(name)
    return None if value is None else value.decode("utf-8", "surrogatepass")


def task_of(row: list[Any]) -> Task:
    task_id, flat, more = row
    f = pairs(flat)
    return Task(
        task_id=task_id.decode(),
        queue=text(f, "queue") or "",
        op=text(f, "op") or "",
        args=f.get("args", b""),
        state=TaskState(f["state"].decode()),
        priority=int(f["priority"]),
        created=float(f["created"]),
        due=float(f["due"]),
        attempts=int(f.get("attempts", 0)),
        losses=int(f.get("losses", 0)),
        max_losses=int(f["max_losses"]),
        step=text(f, "step") or "",
        data=f.get("data", b""),
        partition_key=text(f, "partition_key"),
        ordering_key=text(f, "ordering_key"),
        coalesce_key=text(f, "coalesce_key"),
        deadline=float(f["deadline"]) if "deadline" in f else None,
        job_id=text(f, "job") or "",
        meta=f.get("meta", b""),
        index=int(f["index"]) if "index" in f else None,
        weight=int(f.get("weight", 1)),
        recorded=int(f.get("recorded", 0)),
        more=tuple(more or ()),
        merged_into=text(f, "merged_into") or "",
        ended=float(f["ended"]) if "ended" in f else None,
        result=f.get("result"),
        error=f.get("error"),
        worker=text(f, "worker") or "",
    )


def job_of(row: list[Any]) -> Job:
    job_id, flat = row
    f = pairs(flat)
    return Job(
        job_id=job_id.decode(),
        cls=text(f, "cls") or "",
        state=JobState(f["state"].decode()),
        name=text(f, "name") or "",
        queue=text(f, "queue") or "",
        description=text(f, "description") or "",
        created=float(f["created"]),
        updated=float(f["updated"]),
        ended=float(f["ended"]) if "ended" in f else None,
        by=text(f, "by") or "",
        reason=text(f, "reason") or "",
        params=f["params"],
        data=f.get("data", b""),
        result=f.get("result"),
        error=f.get("error"),
        total=int(f["total"]),
        done=int(f["done"]),
        failed=int(f["failed"]),
        closed=f["closed"] == b"1",
        notify=Notify(f["notify"].decode()),
        fail_fast=f["fail_fast"] == b"1",
        ttl=float(f["ttl"]) if "ttl" in f else None,
        meta=f["meta"],
        acknowledged=int(f.get("acknowledged", 0)),
        version=int(f["version"]),
        feed_ttl=float(f["feed_ttl"]) if "feed_ttl" in f else None,
    )


def inbox_of(row: dict[bytes, Any]) -> Inbox:
    f = {key.decode(): value for key, value in row.items()}
    return Inbox(
        seq=f["seq"],
        kind=f["kind"].decode(),
        row_id=text(f, "row_id") or "",
        name=text(f, "name") or "",
        body=f.get("body", b""),
        state=text(f, "state") or "",
        index=f.get("index"),
        weight=f.get("weight", 1),
        meta=f.get("meta", b""),
        by=text(f, "by") or "",
        at=float(f["at"]),
    )


def turn_of(row: Any) -> Turn | None:
    if not row:
        return None
    job, inbox = row
    return Turn(job_of(job), tuple(inbox_of(each) for each in inbox or ()))


def result_of(row: dict[bytes, Any]) -> Result:
    f = {key.decode(): value for key, value in row.items()}
    return Result(f["index"], f["count"], f["value"], bool(f["failed"]), f["seq"], f["task_id"].decode())


def assignment_of(row: dict[bytes, Any]) -> Assignment:
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


def member_row(member: Member) -> dict[str, Any]:
    row = asdict(member)
    for name in ("ops", "queues", "labels"):
        row[name] = "\n".join(row[name])
    return row


def member_of(row: dict[bytes, Any]) -> Member:
    f: dict[str, Any] = {
        key.decode(): value.decode() if isinstance(value, bytes) else value for key, value in row.items()
    }
    for name in ("ops", "queues", "labels"):
        f[name] = tuple(f[name].split("\n")) if f[name] else ()
    return Member(**f)


def lock_of(row: dict[bytes, Any]) -> Lock:
    f: dict[str, Any] = {
        key.decode(): value.decode() if isinstance(value, bytes) else value for key, value in row.items()
    }
    return Lock(f["name"], f["holder"], f["fence"], f["lease_until"])
