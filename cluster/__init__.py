"""Work that finishes although processes die.

    @operation
    def fib(n): ...

    client = Client("sqlite:///work.db")            # or redis://host/0, for many machines
    print(client.submit(fib, 30).result())          # run by: tasklets cluster up --import mymodule

Tasks are stored before they run, and run by workers that may die at any moment: execution is at least once, what
it returned is recorded at most once. docs/cluster.md tells the rest.

Not here: channels between processes (package `net`), microthreads (package `tasklets`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cluster.codecs import register_codec
from cluster.context import Context
from cluster.directives import IndexedStream, Literal, Skipped, check_monoid, monoid
from cluster.errors import (
    BadStoreUrl,
    Cancelled,
    ClusterError,
    Fatal,
    InvalidArguments,
    JobCancelled,
    JobNotFound,
    JobStateError,
    JobTimeout,
    LeaseLost,
    NameTaken,
    OperationError,
    QueueFull,
    ResultTimeout,
    SchemaMismatch,
    SpawnFailed,
    StoreError,
    StoreFull,
    StoreUnavailable,
    SubmitError,
    TaskCancelled,
    TaskNotFound,
    TimeLimit,
    Transient,
    UnknownCodec,
    UnknownGroup,
    UnknownOperation,
    WorkerLost,
)
from cluster.jobs import Job, TaskEnded, job
from cluster.operations import Next, Operation, operation
from cluster.policy import Retry
from cluster.records import Notify
from cluster.signals import LATER, Cancel, Finalize, Finish, Pause, Reply, Resume, Signal, Suspend, Terminate

if TYPE_CHECKING:
    from cluster._job_handle import JobHandle
    from cluster._task_handle import TaskHandle
    from cluster.client import Client, Lease
    from cluster.coordinator import Coordinator
    from cluster.groups import Membership
    from cluster.settings import Settings, read_settings
    from cluster.stores import Store, open_store
    from cluster.worker import Worker

# Loaded when first asked for: an executor needs none of them, and starts faster without gevent and tomllib.
_LATER = {
    "Client": "cluster.client",
    "Coordinator": "cluster.coordinator",
    "JobHandle": "cluster._job_handle",
    "Lease": "cluster.client",
    "Membership": "cluster.groups",
    "Settings": "cluster.settings",
    "Store": "cluster.stores",
    "TaskHandle": "cluster._task_handle",
    "Worker": "cluster.worker",
    "open_store": "cluster.stores",
    "read_settings": "cluster.settings",
}

__all__ = [
    "LATER",
    "BadStoreUrl",
    "Cancel",
    "Cancelled",
    "Client",
    "ClusterError",
    "Context",
    "Coordinator",
    "Fatal",
    "Finalize",
    "Finish",
    "IndexedStream",
    "InvalidArguments",
    "Job",
    "JobCancelled",
    "JobHandle",
    "JobNotFound",
    "JobStateError",
    "JobTimeout",
    "Lease",
    "LeaseLost",
    "Literal",
    "Membership",
    "NameTaken",
    "Next",
    "Notify",
    "Operation",
    "OperationError",
    "Pause",
    "QueueFull",
    "Reply",
    "ResultTimeout",
    "Resume",
    "Retry",
    "SchemaMismatch",
    "Settings",
    "Signal",
    "Skipped",
    "SpawnFailed",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "SubmitError",
    "Suspend",
    "TaskCancelled",
    "TaskEnded",
    "TaskHandle",
    "TaskNotFound",
    "Terminate",
    "TimeLimit",
    "Transient",
    "UnknownCodec",
    "UnknownGroup",
    "UnknownOperation",
    "Worker",
    "WorkerLost",
    "check_monoid",
    "job",
    "monoid",
    "open_store",
    "operation",
    "read_settings",
    "register_codec",
]


def __getattr__(name: str) -> Any:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module 'cluster' has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)
