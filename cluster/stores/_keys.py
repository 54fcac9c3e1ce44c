"""What both engines make of keys: the line a task waits in, and the bucket of its partition key."""

from __future__ import annotations

import zlib

from cluster.records import BUCKETS, Task
from net import values


def bucket_of(partition_key: str) -> int:
    """The bucket of a key, the same in every process and release."""
    return zlib.crc32(partition_key.encode("utf-8", "surrogatepass")) % BUCKETS


def lane_of(queue: str, op: str, partition_key: str | None) -> str:
    """The name of the line that a task waits in. Everything in it can be served by the same members."""
    return f"{queue}\x1f{op}\x1f{'' if partition_key is None else bucket_of(partition_key)}"


def split_lane(lane: str) -> tuple[str, str, str]:
    """Queue, operation and bucket ("" without a partition key) of a line."""
    queue, op, bucket = lane.split("\x1f")
    return queue, op, bucket


def worker_lost(task: Task, losses: int, node: str, reason: str) -> bytes:
    """The error of a task that is dead because workers died with it."""
    return values.dumps(
        {
            "kind": "WorkerLost",
            "message": f"{losses} workers died while they ran it, the last one {node} ({reason})",
            "traceback": "",
            "task_id": task.task_id,
            "operation": task.op,
            "worker": node,
            "attempts": task.attempts + losses,
        }
    )


def task_cancelled(task_id: str) -> bytes:
    """The error of the results that a cancelled task leaves."""
    return values.dumps(
        {
            "kind": "TaskCancelled",
            "message": f"task {task_id} was cancelled",
            "traceback": "",
            "task_id": task_id,
            "operation": "",
            "worker": "",
            "attempts": 0,
        }
    )
