"""Jobs: durable contexts of larger works. A class says what to do when a task ends, a signal comes, a time is there.

    class Audit(Job):
        def start(self, params):
            for shard in range(params["shards"]):
                self.spawn(check, shard)

        def on_task_done(self, task, result):
            self.data["sum"] = self.data.get("sum", 0) + result

        def on_all_done(self):
            self.finish(self.data["sum"])

    client.start(Audit, {"shards": 20}).result(timeout=60)

A job sleeps in the store and costs nothing there. What comes for it waits in its inbox, and is handled in order by
*turns*, of which there is never more than one, on whichever worker is free. A turn happens entirely or not at all:
`data`, new tasks, timers, replies, the end. So a handler may run again after a crash, and what it did to the job
counts once. The instance is made anew for each turn: only `data` lasts.

Not here: how a turn goes through an inbox, which is `cluster._turns`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cluster import codecs
from cluster._failures import failure_of
from cluster._logs import IdsLog
from cluster.errors import (
    ClusterError,
    Fatal,
    InvalidArguments,
    OperationError,
    TaskCancelled,
    UnknownOperation,
    make_operation_error,
)
from cluster.operations import Next
from cluster.policy import RETRY, Policy, Retry
from cluster.records import Job as JobRecord, JobState, NewJob, NewTask, Notify, Timer
from cluster.registry import Registered, name_of, operations, register
from cluster.signals import Cancel, Finish, Reply, packed_reply
from cluster.tasks import task_of
from net import values
from tasklets import NotSendable

if TYPE_CHECKING:
    from cluster.records import Inbox

C = TypeVar("C", bound="type[Job]")

STEP: Final = ".step"  # the timer of the next step; a user's timers begin with no dot
_NEW_TASK: Final = frozenset(one.name for one in fields(NewTask)) - {"op", "args", "job_id", "task_id"}
_NEW_JOB: Final = frozenset(one.name for one in fields(NewJob)) - {"cls", "params", "job_id"}


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """Of which task a handler is told."""

    task_id: str
    op: str
    index: int | None = None
    weight: int = 1
    meta: bytes = b""
    state: str = "done"  # done | dead | cancelled


@dataclass(slots=True)
class Effects:
    """What the handlers of a turn did so far. All of it happens, or nothing."""

    data: dict[str, Any] = field(default_factory=dict)
    children: list[NewTask] = field(default_factory=list)
    timers: dict[str, Timer] = field(default_factory=dict)
    replies: dict[str, bytes] = field(default_factory=dict)  # signal id -> what it is answered
    close: bool = False
    state: JobState | None = None  # how the job ended
    reason: str = ""
    result: bytes | None = None
    error: bytes | None = None
    # Inputs of tasks whose ends the handlers were told of. The store's counts run ahead of them.
    done: int = 0
    failed: int = 0
    cancelled: int = 0


class Job:
    """See above. Override what you need; each handler is called in a turn, never two at once.

    An exception in `start`, a step, `on_task_*`, `on_timer`, `on_restart` or `on_all_done` undoes the whole turn, which
    is tried again by the class's `retry`; after that the job has failed, with the error. One in `on_signal_*` or
    `on_finish` undoes what that handler did, and its sender is answered "failed".
    """

    _record: JobRecord
    _effects: Effects
    sender: str = ""  # who sent the signal that is being handled
    signal_id: str = ""
    worker: str = ""  # where the turn runs

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        register(JobOperation(cls, name_of(cls), Policy(turns=True)))

    # -- handlers ------------------------------------------------------------------------------------------

    def start(self, params: Any) -> Next | None:
        """Begin. Return Next("name", after=seconds) to have `step_name()` called later, None to wait for what comes."""

    def on_restart(self, params: Any) -> Next | None:
        """Somebody started a job of this name again, while this one lives: once for each start."""

    def on_task_done(self, task: TaskEnded, result: Any) -> Next | None:
        """A task of this job has ended well."""

    def on_task_failed(self, task: TaskEnded, error: Exception) -> Next | None:
        """A task of this job is a dead letter (OperationError), or was cancelled (TaskCancelled).

        Not called when its operation's `on_failure` is "terminate": then the job fails with the error.
        """

    def on_all_done(self) -> Next | None:
        """All tasks that the job has by now have ended, and their ends were handled; or it has none to begin with."""

    def on_timer(self, name: str, body: Any) -> Next | None:
        """A time set by `after` has come."""

    def on_signal(self, signal: Any) -> Any:
        """A signal for whose type there is no `on_signal_TYPE` has come. Return a value to answer, a Reply, LATER."""
        return Reply(status="unknown")

    def on_cancel(self, signal: Cancel) -> Any:
        """The job is about to be cancelled: clean up. It has the settings' `grace`, and cannot refuse."""

    def on_finish(self, signal: Finish) -> Any:
        """Somebody asks the job to finish. Call `finish` to give a result; it ends after this, unless it raises."""

    # -- what it knows -------------------------------------------------------------------------------------

    @property
    def job_id(self) -> str:
        """Its id."""
        return self._record.job_id

    @property
    def name(self) -> str:
        """Its name; empty if it has none."""
        return self._record.name

    @property
    def params(self) -> Any:
        """What it was started with."""
        return codecs.decode(self._record.params) if self._record.params else None

    @property
    def data(self) -> dict[str, Any]:
        """What it remembers from turn to turn: values that can travel. Lists become tuples after each handler."""
        return self._effects.data

    @data.setter
    def data(self, value: Mapping[str, Any]) -> None:
        self._effects.data = dict(value)

    @property
    def done(self) -> int:
        """How many inputs of its tasks have ended well, of those that its handlers were told of."""
        return self._effects.done if self._counts_itself else self._record.done

    @property
    def failed(self) -> int:
        """How many have failed, of those that its handlers were told of."""
        return self._effects.failed if self._counts_itself else self._record.failed

    @property
    def total(self) -> int:
        """How many it has, with those of this turn."""
        return self._record.total + sum(
            inputs_of(child.index, child.weight) for child in self._effects.children
        )

    @property
    def left(self) -> int:
        """How many inputs have not ended, or the handlers have not been told of."""
        return self.total - self.done - self.failed - self._effects.cancelled

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines carry the job's id."""
        return IdsLog(logging.getLogger("cluster.job"), {"ids": f"job {self.job_id}"})

    @property
    def _counts_itself(self) -> bool:
        return self._record.notify == Notify.EACH

    # -- what it does --------------------------------------------------------------------------------------

    def spawn(
        self,
        op: Any,
        *args: Any,
        index: int | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> str:
        """Give the job a task: the operation called with `args` (and `kwargs`). It appears when the turn counts.

        Options are those of `Client.with_options`, such as `queue`, `priority`, `delay`, `id`. With an `index` the
        job keeps the result under it. Returns the task's id. Raises InvalidArguments.
        """
        unknown = set(options) - _NEW_TASK - {"id", "codec"}
        if unknown:
            raise InvalidArguments(
                f"spawn() has no option {', '.join(sorted(unknown))}; keywords for the operation go in kwargs={{...}}"
            )
        options.update(job_id=self.job_id, index=index)
        task = task_of(op, args, dict(kwargs or {}), options)
        self._effects.children.append(task)
        return task.task_id

    def after(self, seconds: float, name: str, body: Any = None) -> None:
        """Have `on_timer(name, body)` called after so many seconds. A timer of the same name is replaced."""
        if not name or name.startswith("."):
            raise InvalidArguments(f"a timer's name is a text that begins with no dot, and not {name!r}")
        self._effects.timers[name] = Timer(name, max(0.0, seconds), codecs.encode(body))

    def cancel_timer(self, name: str) -> None:
        """Forget a timer; one that is not set is no error."""
        self._effects.timers[name] = Timer(name, None)

    def reply(self, signal_id: str, value: Any) -> None:
        """Answer a signal whose handler returned LATER: with a value, or a Reply. Raises NotSendable.

        `self.signal_id` is the signal that is being handled. When the job ends, signals without an answer get "ended".
        """
        self._effects.replies[signal_id] = packed_reply(value if isinstance(value, Reply) else Reply(value))

    def close(self) -> None:
        """Say that no more tasks come from outside."""
        self._effects.close = True

    def finish(self, result: Any = None, text: str = "") -> None:
        """End the job with this result. The first end counts, and what comes after it in the turn is not handled.

        Raises NotSendable.
        """
        if self._effects.state is None:
            self._effects.result = codecs.encode(result)
            self._effects.state, self._effects.reason = JobState.FINISHED, text

    def fail(self, error: Exception | str) -> None:
        """End the job with this error, which `JobHandle.result` raises."""
        if self._effects.state is None:
            described = error_of(error, self)
            self._effects.error = values.dumps(described)
            self._effects.state = JobState.FAILED
            self._effects.reason = f"{described['kind']}: {described['message']}"[:500]


def error_of(error: Exception | str, job: Job) -> dict[str, Any]:
    """What is kept of an error that a job ends with."""
    if isinstance(error, OperationError):  # one of its task's, passed on
        return {
            "kind": error.kind,
            "message": error.message,
            "traceback": error.traceback_text,
            "task_id": error.task_id,
            "operation": error.operation,
            "worker": error.worker,
            "attempts": error.attempts,
        }
    where = {"task_id": job.job_id, "operation": job._record.cls, "worker": job.worker}
    if isinstance(error, str):
        return {"kind": "JobFailed", "message": error, "traceback": "", **where}
    return {**failure_of(error), **where}


def error_of_task(row: Inbox) -> Exception:
    """The error that `on_task_failed` is given for a task that ended dead or cancelled."""
    if row.state == "cancelled":
        return TaskCancelled(f"task {row.row_id} ({row.name}) was cancelled")
    failure = dict(values.loads(row.body)) if row.body else {}
    return make_operation_error({"task_id": row.row_id, "operation": row.name, **failure})


# ------------------------------------------------------------------------------------------------ among the operations


class JobOperation(Registered):
    """A job class among the operations: workers advertise it, and are given its jobs' turns."""

    def __init__(
        self,
        cls: type[Job],
        name: str,
        policy: Policy,
        *,
        transient: tuple[type[BaseException], ...] = (Exception,),
        fatal: tuple[type[BaseException], ...] = (),
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(cls, name, policy, transient=transient, fatal=fatal)
        self.job_class = cls
        self.defaults = dict(defaults or {})  # of NewJob's fields

    def make_task(self, *_: Any, **__: Any) -> NewTask:
        """A job is started, not submitted. Raises InvalidArguments."""
        raise InvalidArguments(f"{self.name} is a job class; start it: client.start({self.name!r}, params)")

    def bind(self, call: tuple[Any, ...]) -> Callable[[Any], Any]:
        """Only turns run it. Raises Fatal."""
        raise Fatal(
            f"{self.name} is a job class, and this is a task; start it: client.start({self.name!r}, params)"
        )


def job(
    *,
    name: str | None = None,
    queue: str = "default",
    priority: int = 1,
    retry: Retry = RETRY,
    transient: tuple[type[BaseException], ...] = (Exception,),
    fatal: tuple[type[BaseException], ...] = (),
    time_limit: float | None = None,
    hard_limit: float | None = None,
    max_losses: int = 3,
    notify: Notify | str = Notify.EACH,
    fail_fast: bool = False,
    ttl: float | None = None,
) -> Callable[[C], C]:
    """Say more about a job class: `@job(queue="audit", retry=Retry(max=1))`. Without it, a class has the defaults.

    - `name`: under which jobs are stored, "module:Class" if not given. Keep it, and the class may be renamed.
    - `queue`, `priority`, `retry`, `transient`, `fatal`, `time_limit`, `hard_limit`, `max_losses`: of its turns, as
      for `@operation`.
    - `notify`: "each" end of a task is told to it, only the "last", or "never".
    - `fail_fast`: its first task that is a dead letter fails the job, at once and without a turn.
    - `ttl`: seconds that a job is kept after its end; None is the settings' retention.
    """

    def decorate(cls: C) -> C:
        policy = Policy(queue, retry, time_limit, hard_limit, max_losses, turns=True)
        defaults = {"priority": priority, "notify": Notify(notify), "fail_fast": fail_fast, "ttl": ttl}
        operation = JobOperation(
            cls, name or name_of(cls), policy, transient=transient, fatal=fatal, defaults=defaults
        )
        register(operation, instead_of=name_of(cls))
        return cls

    return decorate


def find_job_class(what: type[Job] | str) -> JobOperation | None:
    """The registered job class of this name, or of this class; None for a name that is not known here.

    Raises UnknownOperation for what is registered as something else.
    """
    found: Registered | None
    if isinstance(what, str):
        found = operations().get(what)
        if found is None:
            return None
    else:
        found = next((op for op in operations().values() if op.function is what), None)
    if not isinstance(found, JobOperation):
        raise UnknownOperation(f"{what!r} is no job class; make it one: class Audit(Job)")
    return found


def new_job(what: type[Job] | str, params: Any = None, *, id: str | None = None, **options: Any) -> NewJob:
    """A job of a class, or of the name of one that need not be known here; options are NewJob's fields.

    Raises InvalidArguments, UnknownOperation.
    """
    unknown = set(options) - _NEW_JOB - {"codec"}
    if unknown:
        raise InvalidArguments(
            f"a job has no option {', '.join(sorted(unknown))}; the options are: id, {', '.join(sorted(_NEW_JOB))}"
        )
    operation = find_job_class(what)
    chosen: dict[str, Any] = {"closed": True}  # tasks come from its own turns, unless said otherwise
    if operation is not None:
        doc = (operation.job_class.__doc__ or "").strip()
        chosen.update(
            queue=operation.policy.queue, max_losses=operation.policy.max_losses, **operation.defaults
        )
        chosen["description"] = doc.splitlines()[0] if doc else ""
    chosen.update({key: value for key, value in options.items() if value is not None})
    name = operation.name if operation is not None else str(what)
    try:
        data = codecs.encode(params, chosen.pop("codec", ""))
    except NotSendable as error:
        raise InvalidArguments(f"the parameters of job {name} cannot travel: {error}") from error
    if isinstance(chosen.get("meta"), str):
        chosen["meta"] = chosen["meta"].encode()
    if "notify" in chosen:
        chosen["notify"] = Notify(chosen["notify"])
    made = NewJob(name, data, **chosen)
    if id is not None:
        if not id:
            raise InvalidArguments("a job's id is a text that is not empty")
        made = replace(made, job_id=id)
    return made


def inputs_of(index: int | None, weight: int) -> int:
    """How many inputs a task counts for in its job."""
    return 1 if index is None else weight


def kept_data(data: Mapping[str, Any], effects: Effects) -> bytes:
    """The bytes of a job's data: its own, and how far its handlers were told. Raises NotSendable, Fatal."""
    if "." in data:
        raise Fatal('the key "." of a job\'s data is its own; choose another')
    told = (effects.done, effects.failed, effects.cancelled)
    whole = {**data, ".": told} if any(told) else data
    return values.dumps(whole) if whole else b""


def split_data(kept: bytes) -> tuple[dict[str, Any], tuple[int, int, int]]:
    """What `kept_data` made bytes of."""
    if not kept:
        return {}, (0, 0, 0)
    data = thawed(values.loads(kept))
    if not isinstance(data, dict):
        raise ClusterError(f"a job's data is a dict, and not {data!r}")
    done, failed, cancelled = data.pop(".", (0, 0, 0))
    return data, (done, failed, cancelled)


def thawed(value: Any) -> Any:
    """The value with dicts for the read-only mappings in it, so that a job can change what it keeps."""
    if isinstance(value, Mapping):
        return {key: thawed(one) for key, one in value.items()}
    if type(value) is tuple:
        return tuple(map(thawed, value))
    return value
