"""A job driven by hand: for unit tests of its class. No store, no worker, no waiting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cluster import _frames as frames, codecs
from cluster._failures import failure_of
from cluster._turns import take_turn
from cluster.errors import ClusterError, InvalidArguments
from cluster.executor import execute
from cluster.jobs import Job, find_job_class, inputs_of, new_job, split_data
from cluster.records import (
    JOB_ENDED,
    Inbox,
    Job as JobRecord,
    JobState,
    NewTask,
    Notify,
    Timer,
    Turn,
    make_id,
)
from cluster.signals import CHANGES, Finalize, Reply, to_send, unpacked_reply
from net import values

_MOST_STEPS = 10_000  # of one task, or turns at one moment: more of them do not end by themselves


@dataclass(frozen=True, slots=True)
class Spawned:
    """A task that the job has spawned and that has not ended."""

    task_id: str
    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    task: NewTask = field(repr=False)


class InlineJob:
    """See `run_inline`."""

    def __init__(self, cls: type[Job], params: Any = None, **options: Any) -> None:
        operation = find_job_class(cls)
        assert operation is not None
        new = new_job(cls, params, **options)
        self.now = 0.0  # seconds since the start
        self.turns = 0
        self._class = cls
        self.record = JobRecord(
            new.job_id, new.cls, JobState.CREATED, new.name, new.queue, new.description, params=new.params,
            closed=new.closed, notify=new.notify, fail_fast=new.fail_fast, ttl=new.ttl, meta=new.meta,
        )  # fmt: skip
        self._tasks: dict[str, NewTask] = {}
        self._inbox: list[Inbox] = []
        self._timers: dict[str, tuple[float, int, Timer]] = {}  # name -> due, the order of setting, timer
        self._taken: set[str] = set()  # ids of signals
        self._replies: dict[str, bytes] = {}
        self._seq = 0
        self._put("start", new.job_id)

    def __repr__(self) -> str:
        return f"<InlineJob {self.record.cls} {self.record.state} now={self.now:g} tasks={len(self._tasks)}>"

    # -- what there is

    @property
    def state(self) -> str:
        """Where the job is."""
        return self.record.state.value

    @property
    def data(self) -> dict[str, Any]:
        """What it keeps."""
        return split_data(self.record.data)[0]

    @property
    def result(self) -> Any:
        """What it finished with."""
        return codecs.decode(self.record.result) if self.record.result else None

    @property
    def error(self) -> Mapping[str, Any] | None:
        """What it failed with: kind, message, traceback."""
        return dict(values.loads(self.record.error)) if self.record.error else None

    @property
    def tasks(self) -> list[Spawned]:
        """The tasks that have not ended, in the order in which they were spawned."""
        found = []
        for task in self._tasks.values():
            args, kwargs, _ = codecs.decode(task.args)
            found.append(Spawned(task.task_id, task.op, args, kwargs, task))
        return found

    @property
    def timers(self) -> dict[str, float]:
        """The timers that are set, and in how many seconds each is due."""
        return {name: due - self.now for name, (due, _, _) in sorted(self._timers.items())}

    # -- what happens to it

    def signal(self, signal: Any, *, id: str | None = None, by: str = "") -> Reply:
        """Signal it, and return the reply; a status as from `Client.signal`."""
        change = CHANGES.get(type(signal))
        if isinstance(signal, Finalize):
            raise InvalidArguments("a job that is driven by hand is forgotten by forgetting it")
        if self.record.state in JOB_ENDED:
            return Reply(status="ended", job=self.record)
        if change is not None:
            self._to_state(change, signal.reason)
            self._turn()
            return Reply(job=self.record)
        new = to_send(signal, signal_id=id, by=by)
        if new.signal_id not in self._taken:
            self._taken.add(new.signal_id)
            self._put(new.kind, new.signal_id, name=new.name, body=new.body, by=by)
        data = self._replies.get(new.signal_id)
        if data is None:
            return Reply(status="ended" if self.record.state in JOB_ENDED else "timeout", job=self.record)
        return unpacked_reply(data, new.signal_id, self.record)

    def restart(self, params: Any = None) -> None:
        """Start it again under its name."""
        self._put("restart", make_id(), body=codecs.encode(params))

    def done(self, task_id: str, result: Any = None) -> None:
        """Let a task end well."""
        self._end_task(task_id, "done", codecs.encode(result))

    def dead(self, task_id: str, error: BaseException) -> None:
        """Let a task end as a dead letter."""
        self._end_task(task_id, "dead", values.dumps({**failure_of(error), "attempts": 1}))

    def run_tasks(self) -> int:
        """Run the tasks here, once each, with those that they and the job spawn meanwhile; return how many.

        One that fails is a dead letter: nothing is tried again.
        """
        count = 0
        while self._tasks and self.record.state not in JOB_ENDED:
            task = next(iter(self._tasks.values()))
            kind, details = self._execute(task)
            count += 1
            for child in details.get("children", ()):
                self._add(NewTask(**child))
            if kind == frames.RETURNED:
                self._end_task(task.task_id, "done", details["payload"])
            else:
                self._end_task(task.task_id, "dead", values.dumps({**details, "attempts": 1}))
        return count

    def advance(self, seconds: float) -> None:
        """Let so much time pass: timers that become due ring one after the other, each at its own time."""
        until = self.now + seconds
        for _ in range(_MOST_STEPS):
            due = min(self._timers.values(), default=None, key=lambda one: one[:2])
            if due is None or due[0] > until or self._rests:
                break
            self.now = max(self.now, due[0])
            del self._timers[due[2].name]
            self._put("timer", due[2].name, body=due[2].body)
        else:
            raise ClusterError(f"{self!r} has set {_MOST_STEPS} timers within {seconds:g} s")
        self.now = until

    # -- what a store would do

    @property
    def _rests(self) -> bool:
        return self.record.state in JOB_ENDED or self.record.state == JobState.SUSPENDED

    def _put(self, kind: str, row_id: str, **more: Any) -> None:
        self._seq += 1
        self._inbox.append(Inbox(self._seq, kind, row_id, at=self.now, **more))
        self._turn()

    def _turn(self) -> None:
        while self._inbox and not self._rests:
            end, children = take_turn(
                self._class, Turn(self.record, tuple(self._inbox)), worker="inline", grace=float("inf")
            )
            self.turns += 1
            self._inbox = [row for row in self._inbox if row.seq > end.consumed]
            self._replies.update(end.replies)
            self.record = replace(
                self.record, data=end.data, result=end.result, error=end.error,
                closed=self.record.closed or end.close, version=self.record.version + 1,
            )  # fmt: skip
            for timer in end.timers:
                self._timers.pop(timer.name, None)
                if timer.after is not None:
                    self._timers[timer.name] = (self.now + timer.after, self._seq, timer)
            for child in children:
                self._add(child)
            if end.state is not None:
                self._to_state(end.state, end.reason)
            elif self.record.state == JobState.CREATED:
                self.record = replace(self.record, state=JobState.RUNNING)
            if self.turns == 1 or children:
                self._tell_if_all_ended()

    def _add(self, task: NewTask) -> None:
        self._tasks[task.task_id] = task
        self.record = replace(self.record, total=self.record.total + inputs_of(task.index, task.weight))

    def _to_state(self, state: JobState, reason: str) -> None:
        self.record = replace(self.record, state=state, reason=reason, updated=self.now)
        if state in JOB_ENDED:
            self.record = replace(self.record, ended=self.now)
            self._tasks.clear()
            self._timers.clear()
            self._inbox.clear()

    def _end_task(self, task_id: str, state: str, body: bytes) -> None:
        task = self._tasks.pop(task_id, None)
        if task is None:
            raise InvalidArguments(
                f"no task {task_id!r} of this job is to end; those are: {', '.join(self._tasks)}"
            )
        count = inputs_of(task.index, task.weight)
        if state == "done":
            self.record = replace(self.record, done=self.record.done + count)
        else:
            self.record = replace(self.record, failed=self.record.failed + count)
            if self.record.fail_fast:
                self.record = replace(self.record, error=body)
                self._to_state(JobState.FAILED, "a task failed")
                return
        if self.record.notify == Notify.EACH:
            self._put(
                "ended", task_id, name=task.op, body=body, state=state, index=task.index, weight=task.weight,
                meta=task.meta,
            )  # fmt: skip
        self._tell_if_all_ended()

    def _tell_if_all_ended(self) -> None:
        if self.record.notify == Notify.LAST and self.record.closed and not self._tasks and not self._rests:
            self._put("all-ended", "")

    def _execute(self, task: NewTask) -> tuple[str, dict[str, Any]]:
        told: dict[str, Any] = {
            "task_id": task.task_id, "fence": 1, "attempt": 1, "step": "", "data": b"", "job_id": task.job_id,
            "meta": task.meta, "worker": "inline", "index": task.index, "weight": task.weight,
        }  # fmt: skip
        for _ in range(_MOST_STEPS):
            kind, details = execute(task.op, task.args, [], told)
            if kind != frames.CONTINUES:
                return kind, details
            for child in details["children"]:
                self._add(NewTask(**child))
            told.update(step=details["step"], data=details["data"])
        raise ClusterError(f"task {task.task_id} ({task.op}) has not ended after {_MOST_STEPS} steps")


def run_inline(cls: type[Job], params: Any = None, **options: Any) -> InlineJob:
    """Start a job in this process, with a clock that only `advance` moves; what it does is seen at once.

        run = run_inline(Audit, {"shards": 2})
        run.done(run.tasks[0].task_id, 10)           # or run.run_tasks()
        assert run.signal(Ask("sum")).value == 10
        run.advance(3600)                            # its timers and steps of an hour

    Everything goes through bytes, as with a store. What a handler raises that would fail its turn is raised here.
    Options are those of `Client.start`.
    """
    return InlineJob(cls, params, **options)
