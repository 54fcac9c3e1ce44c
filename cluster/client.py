"""The client: submits tasks, waits for their results, looks after a group. Its part about jobs is in `_job_handle`.

client = Client("sqlite:///work.db")
print(client.submit(fib, 30).result(timeout=5))
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import gevent

from cluster import codecs
from cluster._attempts import submitted
from cluster._identity import new_name
from cluster._job_handle import JobClient, JobHandle
from cluster.directives.session import Session
from cluster.directives.stream import Directive
from cluster.errors import (
    InvalidArguments,
    LeaseLost,
    QueueFull,
    ResultTimeout,
    TaskCancelled,
    TaskNotFound,
    UnknownGroup,
    make_operation_error,
)
from cluster.healing import Healer
from cluster.records import Event, Guard, Lock, Member, NewTask, Statistics, Task, TaskState
from cluster.settings import Settings
from cluster.stores import Store, open_store
from cluster.tasks import task_of
from net import values

if TYPE_CHECKING:
    from cluster.directives.durable import Run

SUBMIT_PAUSE = 0.02  # seconds; grows while a queue stays full


class TaskHandle:
    """A submitted task, wherever it is."""

    def __init__(self, client: Client, task_id: str) -> None:
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
        deadline = None if timeout is None else monotonic() + timeout
        task = self._ended()
        if task is not None:
            return task
        listener = self._client.store.listen(f"ended:{self.task_id}")
        pause = 0.02
        try:
            while (
                task := self._ended()
            ) is None:  # looked at once more: it may have ended before we listened
                left = pause if deadline is None else min(pause, deadline - monotonic())
                if left <= 0:
                    task = self.record()
                    raise ResultTimeout(
                        f"task {self.task_id} ({task.op}) has not ended within {timeout:g} s; it is {task.state}. "
                        f"Why: tasklets cluster status {self.task_id}"
                    )
                if not listener.wait(left):
                    pause = min(1.0, pause * 1.5)
            return task
        finally:
            listener.close()

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


class Lease:
    """A lock that is held. Call `check` before each write that depends on it, or pass `guard` along."""

    def __init__(self, store: Store, lock: Lock, ttl: float) -> None:
        self._store = store
        self._ttl = ttl
        self.name = lock.name
        self.fence = lock.fence

    @property
    def guard(self) -> Guard:
        """What makes a write conditional: `client.submit_all(tasks, guard=lease.guard)`."""
        return Guard(self.name, self.fence)

    def check(self) -> None:
        """Hold it for another `ttl`. Raises LeaseLost when somebody else may have it."""
        if not self._store.renew_lock(self.name, self.fence, self._ttl):
            raise LeaseLost(
                f"the lock {self.name!r} (fence {self.fence}) was not renewed within {self._ttl:g} s and is lost; "
                "what follows must not be written"
            )


class Client(JobClient):
    """A handle on one group. With `ensure=True` it has a coordinator before anything else: see `revive`."""

    def __init__(
        self,
        store: str | Store,
        group: str = "default",
        *,
        workers: int = 0,
        ensure: bool = False,
        settings: Settings | None = None,
    ) -> None:
        self.settings = settings or Settings()
        url = f"memory:{os.urandom(6).hex()}" if store == "memory:" else store
        self.store = (
            open_store(url, group, patience=self.settings.store_patience) if isinstance(url, str) else url
        )
        self._known = group == "default"
        self._running: list[Any] = []
        self.evaluations: WeakSet[Run] = WeakSet()  # what ends with this client
        self._inline: list[Any] = []
        if workers:
            self._start_inline(url if isinstance(url, str) else self.store, workers)
        if ensure:
            self.revive()

    def __repr__(self) -> str:
        return f"<Client {self.store.url} group={self.store.group!r}>"

    def _start_inline(self, store: str | Store, count: int) -> None:
        from cluster.coordinator import Coordinator
        from cluster.worker import Worker

        group = self.store.group
        self._inline = [
            Worker(store, group, slots=1, inline=True, name=f"inline-{n}", settings=self.settings)
            for n in range(count)
        ]
        self._inline.append(Coordinator(store, group, settings=self.settings))
        self._running = [gevent.spawn(node.run) for node in self._inline]

    def close(self) -> None:
        """End the directives that it runs and the workers that it was made with, and give its connections back."""
        for evaluation in list(self.evaluations):
            evaluation.cancel("its client was closed")
        for node in self._inline:
            node.stop()
        gevent.joinall(self._running)
        for node in self._inline:
            node.store.close()
        self._inline, self._running = [], []
        self.store.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def revive(self) -> bool:
        """Start a coordinator if none is alive, as `tasklets cluster up` has left it; that one starts the rest. Blocks.

        True: it was started, and has joined. Where the members were killed a moment ago, this waits until it is known:
        `member_ttl` at most. That nothing could be started is in the log.
        """
        healer = Healer(self.store, self.settings, f"client-{socket.gethostname()}-{os.getpid()}")
        return healer.revive()

    # -- directives ----------------------------------------------------------------------------------------

    def run(self, what: Any, params: Any = None, **options: Any) -> Any:
        """Run a directive, or a job of a class, and return what comes of it; what is interrupted is ended. Blocks.

        The options of a directive are those of `cluster.directives.Options`. Raises OperationError, JobTimeout, and
        what `start` raises.
        """
        if isinstance(what, Directive):
            return what.run(self, **options)
        return super().run(what, params, **options)

    def start(self, what: Any, params: Any = None, **options: Any) -> Any:
        """Start a job of a class, see `JobClient.start`; or a directive, which goes on when this process ends."""
        if isinstance(what, Directive):
            return what.start(self, **options)
        return super().start(what, params, **options)

    def session(self, *, id: str | None = None, ttl: float | None = None) -> Session:
        """A sender of tasks and a receiver of what comes of them, which are nobody else's; see `Session`.

        With an `id` that is known, the session is taken up again: what was not acknowledged is delivered again.
        """
        return Session(self, id=id, ttl=ttl)

    # -- tasks ---------------------------------------------------------------------------------------------

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
            if len(task.args) > self.settings.max_payload:
                raise InvalidArguments(
                    f"the arguments of {task.op} have {len(task.args)} bytes, and {self.settings.max_payload} are "
                    "allowed; put the data where the workers can read it, and pass its address"
                )
        deadline = None if timeout is None else monotonic() + timeout
        pause = SUBMIT_PAUSE
        while True:
            try:
                return submitted(
                    f"a batch of {len(tasks)} tasks",
                    self.settings.submit_attempts,
                    lambda: self.store.submit(tasks, guard=guard),
                )
            except QueueFull as error:
                limit = self.store.queues().get(error.queue, {}).get("max_waiting", 0)
                hopeless = sum(task.queue == error.queue for task in tasks) > limit
                if hopeless or (deadline is not None and monotonic() + pause > deadline):
                    raise
            gevent.sleep(pause)
            pause = min(0.5, pause * 1.5)

    def _check_group(self) -> None:
        if not self._known:
            groups = self.store.groups()
            if self.store.group not in groups:
                raise UnknownGroup(
                    f"no group {self.store.group!r} is in {self.store.url}; there are: {', '.join(groups) or 'none'}. "
                    "Start a worker with --group, or declare it: client.store.declare_group()"
                )
            self._known = True

    def attach(self, id: str, *, inputs: Iterable[Any] | None = None) -> Any:
        """A handle on what somebody submitted or started, by its id: a task, a job, a directive.

        A directive whose inputs had no known number goes on being fed if they are given: all of them, from the first
        one on. Raises TaskNotFound.
        """
        job = self.store.job(id)
        if job is None:
            self.task(id)
            return TaskHandle(self, id)
        from cluster.directives import durable

        return durable.attach(self, id, inputs) if durable.is_directive(job) else JobHandle(self, id)

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

    # -- the group -----------------------------------------------------------------------------------------

    def stats(self) -> Statistics:
        """Counts of tasks by queue and state, and of what happened."""
        return self.store.statistics()

    def members(self) -> list[Member]:
        """Who is in the group."""
        return self.store.members()

    def events(self, after: str = "", limit: int = 1000) -> list[Event]:
        """The journal from `after` on."""
        return self.store.events(after=after, limit=limit)

    @contextmanager
    def lock(self, name: str, *, ttl: float = 10.0, timeout: float | None = None) -> Iterator[Lease]:
        """Hold a lock of the whole group: `with client.lock("month-end", ttl=2) as lease: ... lease.check()`.

        It is lost when it is not checked for `ttl` seconds. Blocks; raises ResultTimeout when it is not free within
        `timeout`.
        """
        holder = f"{new_name()}-{os.urandom(4).hex()}"
        deadline = None if timeout is None else monotonic() + timeout
        listener = self.store.listen("lead")
        try:
            while True:
                lock = self.store.acquire(f"user:{name}", holder, ttl)
                if lock.holder == holder:
                    break
                if deadline is not None and monotonic() >= deadline:
                    raise ResultTimeout(
                        f"the lock {name!r} was not free within {timeout:g} s; {lock.holder} holds it"
                    )
                wait = max(0.01, lock.lease_until - self.store.now())
                listener.wait(min(wait, 1.0) if deadline is None else min(wait, 1.0, deadline - monotonic()))
        finally:
            listener.close()
        try:
            yield Lease(self.store, lock, ttl)
        finally:
            self.store.release(lock.name, lock.fence)


class Submitter:
    """A client with options for the tasks that are submitted through it."""

    def __init__(
        self, client: Client, options: dict[str, Any], timeout: float | None, guard: Guard | None
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
