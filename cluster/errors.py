"""What can go wrong with durable work: one class per reaction a caller could have."""

from __future__ import annotations

from typing import Any

from tasklets import TaskletError
from tasklets.freezing import builtin_exceptions


class ClusterError(TaskletError):
    """The root of what this package raises."""


class StoreError(ClusterError):
    """The root of what a store raises."""


class BadStoreUrl(StoreError, ValueError):
    """A store url that does not follow the syntax, or an engine that is not installed."""


class StoreUnavailable(StoreError, ConnectionError):
    """The store cannot be reached, or stays busy. Whether the interrupted call took effect is not known."""


class SubmitError(StoreUnavailable):
    """The store stayed away in all attempts to submit. Submit again with the same `id`, and it happens once.

    `attempts` is how many there were.
    """

    def __init__(self, message: str, *, attempts: int = 0) -> None:
        super().__init__(message)
        self.attempts = attempts


class StoreFull(StoreError, OSError):
    """The store has no room: its disk is full, or its memory. Nothing of the refused call was written."""


class SchemaMismatch(StoreError):
    """The store was made by a release that this one does not understand."""


class QueueFull(ClusterError):
    """The queue holds as many waiting tasks as it may. `room` is how many more it takes now."""

    def __init__(self, message: str, *, queue: str = "", room: int = 0) -> None:
        super().__init__(message)
        self.queue = queue
        self.room = room


class LeaseLost(ClusterError):
    """A lock, or a membership, is no longer held: it expired, or somebody else has it by now."""


class NameTaken(ClusterError):
    """A live node of the group has this name already."""


class UnknownGroup(ClusterError, LookupError):
    """No group of this name was declared, and no node has joined one."""


class UnknownOperation(ClusterError, LookupError):
    """No operation is registered under this name here."""


class UnknownCodec(ClusterError, LookupError):
    """Bytes of a codec, or a wish for one, that is not registered in this process."""


class InvalidArguments(ClusterError, ValueError):
    """The arguments of a task were refused before it was submitted; the store is unchanged."""


class TaskNotFound(ClusterError, LookupError):
    """The store has no task of this id: it never had, or it ended longer ago than the retention."""


class TaskCancelled(ClusterError):
    """The task was cancelled before it had a result."""


class JobNotFound(ClusterError, LookupError):
    """The store has no job of this id or name: it never had, or it was finalized, or its time to live is over."""


class JobStateError(ClusterError):
    """The job's state allows no such change. `job_state` is what it is."""

    def __init__(self, message: str, *, job_state: str = "") -> None:
        super().__init__(message)
        self.job_state = job_state


class JobCancelled(ClusterError):
    """The job was cancelled or terminated before it had a result; `job_state` says which."""

    def __init__(self, message: str, *, job_state: str = "cancelled") -> None:
        super().__init__(message)
        self.job_state = job_state


class JobTimeout(ClusterError, TimeoutError):
    """The job had not ended within the time that its caller gave it, and was terminated."""


class ResultTimeout(ClusterError, TimeoutError):
    """The task or job has not ended within the time; it goes on."""


class SpawnFailed(ClusterError):
    """A process that was to become a node did not."""


class WorkerLost(ClusterError):
    """The process that ran the task died. Also the `kind` of such a failure in a dead letter."""


# ------------------------------------------------------------------------------------------------ in an operation


class Transient(ClusterError):
    """Raise it in an operation: this execution failed, another may succeed. `after` overrides the pause."""

    def __init__(self, message: str = "", *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Fatal(ClusterError):
    """Raise it in an operation: no execution of this task can succeed. It is a dead letter at once."""


class TimeLimit(ClusterError, TimeoutError):
    """Raised inside an operation that runs for longer than its time limit."""


class Cancelled(ClusterError):
    """Raised by `ctx.check()` when the task was cancelled, or belongs to another worker by now."""


# ------------------------------------------------------------------------------------------------ of an operation


class OperationError(ClusterError):
    """A task is a dead letter: its operation failed for good.

    Where the failure's class is a builtin one, the error raised is an instance of that class too, so that
    `except ValueError` works as if the operation had been called here. `kind`, `message` and
    `traceback_text` are the failure's; `task_id`, `operation`, `worker` and `attempts` say where it was.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        traceback_text: str = "",
        *,
        task_id: str = "",
        operation: str = "",
        worker: str = "",
        attempts: int = 0,
    ) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message
        self.traceback_text = traceback_text
        self.task_id = task_id
        self.operation = operation
        self.worker = worker
        self.attempts = attempts

    def __str__(self) -> str:
        where = f" on {self.worker}" if self.worker else ""
        which = f" {self.task_id}" if self.task_id else ""
        text = (
            f"task{which} ({self.operation}) failed for good after {self.attempts} "
            f"attempt{'s' if self.attempts != 1 else ''}{where}: {self.kind}: {self.message}"
        )
        return f"{text}\n\n{self.traceback_text}" if self.traceback_text else text


_as_builtin: dict[str, type[OperationError]] = {}


def make_operation_error(failure: dict[str, Any]) -> OperationError:
    """Return the OperationError that a dead letter's error describes."""
    kind = str(failure.get("kind", "Exception"))
    cls = _as_builtin.get(kind)
    if cls is None:
        cls = OperationError
        base = builtin_exceptions.get(kind)
        if base is not None:
            try:
                cls = type("OperationError", (OperationError, base), {"__module__": "cluster"})
                cls(kind, "")
            except TypeError:  # its memory layout, or its arguments, go with no other class
                cls = OperationError
        _as_builtin[kind] = cls
    return cls(
        kind,
        str(failure.get("message", "")),
        str(failure.get("traceback", "")),
        task_id=str(failure.get("task_id", "")),
        operation=str(failure.get("operation", "")),
        worker=str(failure.get("worker", "")),
        attempts=int(failure.get("attempts", 0)),
    )
