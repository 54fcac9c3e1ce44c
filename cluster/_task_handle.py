"""The client's side of tasks: submit them, wait for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cluster import codecs
from cluster._attempts import submitted_with_room
from cluster._watch import Watch
from cluster.errors import (
    InvalidArguments,
    ResultTimeout,
    TaskCancelled,
    TaskNotFound,
    UnknownGroup,
    make_operation_error,
)
from cluster.records import Task, TaskState
from cluster.tasks import task_of
from net import values

if TYPE_CHECKING:
    from cluster.records import Guard, NewTask
    from cluster.settings import Settings
    from cluster.stores import Store


class TaskHandle:
    """A submitted task, wherever it is."""

    def __init__(self, client: TaskClient, task_id: str) -> None:
        self._client = client
        self.task_id = task_id

    def __repr__(self) -> str:
        return f"<TaskHandle {self.task_id}>"

    def result(self, timeout: float | None = None) -> Any:
        """Wait for what the operation returned. Blocks.

        Raises ResultTimeout, OperationError when it failed for good, TaskCancelled, TaskNotFound, UnknownCodec.
        """
        task = self.wait(timeout)
        if task.state == TaskState.DONE:
            return codecs.decode(task.result or b"")
        if task.state == TaskState.CANCELLED:
            raise TaskCancelled(f"task {self.task_id} ({task.op}) was cancelled")
        failure = dict(values.loads(task.error)) if task.error else {}
        raise make_operation_error(
            {"task_id": task.task_id, "operation": task.op, "attempts": task.attempts, **failure}
        )

    def wait(self, timeout: float | None = None) -> Task:
        """Wait until the task has ended, and return its record. Blocks. Raises ResultTimeout, TaskNotFound."""
        with Watch(self._client.store, f"ended:{self.task_id}", timeout) as watch:
            while (task := self._ended()) is None:
                if not watch.wait():
                    task = self.record()
                    raise ResultTimeout(
                        f"task {self.task_id} ({task.op}) has not ended within {timeout:g} s; it is {task.state}. "
                        f"Why: tasklets cluster status {self.task_id}"
                    )
            return task

    def _ended(self) -> Task | None:
        task = self.record()
        while task.state == TaskState.MERGED:
            absorber = self._client.store.task(task.merged_into)
            if absorber is None:
                raise TaskNotFound(
                    f"task {task.merged_into}, which absorbed {self.task_id}, was forgotten already"
                )
            task = absorber
        return task if task.ended is not None else None

    def record(self) -> Task:
        """The task as the store has it. Raises TaskNotFound."""
        return self._client.task(self.task_id)

    @property
    def state(self) -> str:
        """Where it is now."""
        return self.record().state.value

    def cancel(self) -> bool:
        """End it before it ends; False when it has ended already."""
        return self._client.store.cancel(self.task_id)


class TaskClient:
    """What a client can do with tasks."""

    store: Store
    settings: Settings
    _known = False  # that its group exists

    def submit(self, op: Any, /, *args: Any, **kwargs: Any) -> TaskHandle:
        """Store a task for an operation, and return at once. `op` is an operation or the name of one."""
        return self.with_options().submit(op, *args, **kwargs)

    def map(self, op: Any, arguments: Iterable[Any]) -> list[TaskHandle]:
        """Store a task for each argument: all of them, or none. For millions of them, see `IndexedStream`."""
        return self.with_options().map(op, arguments)

    def with_options(
        self, *, timeout: float | None = None, guard: Guard | None = None, **options: Any
    ) -> Submitter:
        """Say more about the tasks that follow: `client.with_options(priority=5).submit(op, 1)`.

        - `id`: submitting the same id again changes nothing and succeeds
        - `queue`, `priority` (a level overtakes up to 1000 tasks), `max_losses`, `job_id`, `meta`
        - `codec`: the name of one that `register_codec` made known here and in the workers
        - `delay` or `not_before`, `deadline` (seconds)
        - `partition_key`: tasks with it prefer one worker; `ordering_key`: they run one at a time, in order;
          `coalesce_key`: a task that is not due yet absorbs others
        - `timeout`: seconds to wait for room in a full queue, None for ever, 0 to get QueueFull at once
        - `guard`: store only while a lock is held
        """
        return Submitter(self, options, timeout, guard)

    def submit_all(
        self, tasks: Sequence[NewTask], *, timeout: float | None = None, guard: Guard | None = None
    ) -> list[TaskHandle]:
        """Store all tasks, or none. Blocks while a queue is full.

        While the store is away it tries again, `submit_attempts` times (the settings').

        Raises QueueFull, InvalidArguments, UnknownGroup, StoreFull, SubmitError, LeaseLost.
        """
        self.submit_noting(tasks, timeout=timeout, guard=guard)
        return [TaskHandle(self, task.task_id) for task in tasks]

    def submit_noting(
        self, tasks: Sequence[NewTask], *, timeout: float | None = None, guard: Guard | None = None
    ) -> list[str]:
        """Store all tasks, or none, and return what became of each: see `Store.submit`. Blocks and raises as above."""
        self._check_group()
        for task in tasks:
            self._check_size(f"the arguments of {task.op}", task.args)
        return submitted_with_room(
            self.store,
            f"a batch of {len(tasks)} tasks",
            self.settings.submit_attempts,
            lambda: self.store.submit(tasks, guard=guard),
            wanted=lambda queue: sum(task.queue == queue for task in tasks),
            timeout=timeout,
        )

    def _check_group(self) -> None:
        if not self._known:
            groups = self.store.groups()
            if self.store.group not in groups:
                raise UnknownGroup(
                    f"no group {self.store.group!r} is in {self.store.url}; there are: {', '.join(groups) or 'none'}. "
                    "Start a worker with --group, or declare it: client.store.declare_group()"
                )
            self._known = True

    def task(self, task_id: str) -> Task:
        """Read a task. Raises TaskNotFound."""
        task = self.store.task(task_id)
        if task is None:
            raise TaskNotFound(
                f"{self.store.url} has no task {task_id!r} in group {self.store.group!r}; "
                f"what ended more than {self.settings.retention:g} s ago is forgotten"
            )
        return task

    def dead(self, limit: int = 1000) -> Iterator[Task]:
        """The dead letters."""
        after = ""
        while page := self.store.tasks(state="dead", limit=min(limit, 100), after=after):
            for task in page:
                yield task
                limit -= 1
                if limit == 0:
                    return
            after = page[-1].task_id

    def replay(self, task_ids: Iterable[str]) -> int:
        """Make dead letters ready again; return how many were."""
        return self.store.replay(list(task_ids))

    def _check_size(self, what: str, data: bytes) -> None:
        if len(data) > self.settings.max_payload:
            raise InvalidArguments(
                f"{what}: {len(data)} bytes, and {self.settings.max_payload} are allowed; put the data where the "
                "workers can read it, and pass its address"
            )


class Submitter:
    """A client with options for the tasks that are submitted through it."""

    def __init__(
        self, client: TaskClient, options: dict[str, Any], timeout: float | None, guard: Guard | None
    ) -> None:
        self._client = client
        self._options = options
        self._timeout = timeout
        self._guard = guard

    def make(self, op: Any, /, *args: Any, **kwargs: Any) -> NewTask:
        """Make a task without storing it, for `Client.submit_all`."""
        return task_of(op, args, kwargs, dict(self._options))

    def submit(self, op: Any, /, *args: Any, **kwargs: Any) -> TaskHandle:
        """Store a task. Raises what `Client.submit_all` raises."""
        task = self.make(op, *args, **kwargs)
        return self._client.submit_all([task], timeout=self._timeout, guard=self._guard)[0]

    def map(self, op: Any, arguments: Iterable[Any]) -> list[TaskHandle]:
        """Store a task for each argument: all of them, or none."""
        tasks = [self.make(op, argument) for argument in arguments]
        return self._client.submit_all(tasks, timeout=self._timeout, guard=self._guard)
