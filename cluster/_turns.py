"""A turn of a job: its handlers over what waits in its inbox, in order.

Pure but for what the handlers do: (job class, Turn) -> (TurnEnd, children). No store, no clock. So the executor, a
worker within one process and `cluster.testing.run_inline` all run jobs alike.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from cluster import codecs
from cluster._failures import failure_of
from cluster.errors import ClusterError, Fatal, TimeLimit
from cluster.jobs import (
    STEP,
    Effects,
    Job,
    TaskEnded,
    error_of_task,
    inputs_of,
    kept_data,
    split_data,
)
from cluster.operations import Next
from cluster.records import Inbox, JobState, NewTask, Timer, Turn, TurnEnd
from cluster.registry import operations
from cluster.signals import LATER, Cancel, Reply, packed_reply, received

Limited = Callable[
    [float], AbstractContextManager[Any]
]  # raises TimeLimit in its block after so many seconds


def take_turn(
    cls: type[Job],
    turn: Turn,
    *,
    worker: str = "",
    max_payload: int = 1 << 20,
    grace: float = 0.0,
    limited: Limited | None = None,
) -> tuple[TurnEnd, tuple[NewTask, ...]]:
    """Run the handlers; return what is to be kept, and the new tasks. Raises what a handler raises that fails the turn.

    `limited` bounds the time of `on_cancel` to `grace`.
    """
    taken = _Taken(cls, turn, worker, max_payload)
    for row in turn.inbox:
        taken.handle(row, grace, limited)
    return taken.end()


def forced_cancel(turn: Turn, why: str) -> TurnEnd | None:
    """The end of a turn that failed, if the job was asked to be cancelled in it: it cannot refuse by failing."""
    row = next((row for row in turn.inbox if row.kind == "cancel"), None)
    if row is None:
        return None
    reply = Reply(status="failed", error={"kind": "TurnFailed", "message": why, "traceback": ""})
    return TurnEnd(
        turn.inbox[-1].seq,
        turn.job.data,
        JobState.CANCELLED,
        f"{_reason_of(row)} (its handlers failed: {why})".strip()[:500],
        replies=((row.row_id, packed_reply(reply)),),
    )


def _reason_of(row: Inbox) -> str:
    """Why, and who asked: the store notes as the author of a change whose turn it was."""
    text = str(codecs.decode(row.body) or "") if row.body else ""
    return ", ".join(filter(None, (text, row.by and f"asked by {row.by}")))


class _Taken:
    """One turn under way."""

    def __init__(self, cls: type[Job], turn: Turn, worker: str, max_payload: int) -> None:
        self.turn = turn
        self.max_payload = max_payload
        self.replies: list[tuple[str, bytes]] = []
        self.kept = turn.job.data
        data, (done, failed, cancelled) = split_data(self.kept)
        self.job = cls()
        self.job._record = turn.job
        self.job._effects = Effects(data, done=done, failed=failed, cancelled=cancelled)
        self.job.worker = worker

    @property
    def effects(self) -> Effects:
        return self.job._effects

    def handle(self, row: Inbox, grace: float, limited: Limited | None) -> None:
        if self.effects.state is not None:  # an end: what comes after it in the turn is not handled
            if row.kind in ("signal", "cancel", "finish"):
                self.replies.append((row.row_id, packed_reply(Reply(status="ended"))))
            return
        job = self.job
        match row.kind:
            case "start":
                self.call(job.start, job.params)
                if not self.turn.job.total and not self.effects.children and not self.effects.timers:
                    self.call_if_all_done()
            case "restart":
                self.call(job.on_restart, codecs.decode(row.body) if row.body else None)
            case "ended":
                self.task_ended(row)
            case "all-ended":
                self.call(job.on_all_done)
            case "timer" if row.row_id == STEP:
                self.call(self.step_named(codecs.decode(row.body)))
            case "timer":
                self.call(job.on_timer, row.row_id, codecs.decode(row.body) if row.body else None)
            case "signal":
                self.answer(row, lambda: self.signalled(row))
            case "finish":
                self.answer(row, lambda: self.finished(row))
            case "cancel":
                self.cancelled(row, grace, limited or (lambda _: nullcontext()))
            case _:
                raise ClusterError(
                    f"job {job.job_id} has an inbox row of kind {row.kind!r}; is the worker older?"
                )

    def end(self) -> tuple[TurnEnd, tuple[NewTask, ...]]:
        effects = self.effects
        ended = effects.state is not None
        return (
            TurnEnd(
                self.turn.inbox[-1].seq if self.turn.inbox else 0,
                self.kept,
                effects.state,
                effects.reason,
                effects.result,
                effects.error,
                (*self.replies, *effects.replies.items()),
                () if ended else tuple(effects.timers.values()),
                effects.close,
            ),
            () if ended else tuple(effects.children),
        )

    # -- handlers whose failure fails the turn

    def call(self, handler: Callable[..., Any], *args: Any) -> None:
        result = handler(*args)
        if isinstance(result, Next):
            self.step_named(result.step)
            self.effects.timers[STEP] = Timer(STEP, max(0.0, result.after), codecs.encode(result.step))
        elif result is not None:
            raise Fatal(
                f"{handler.__qualname__} returned {result!r}; return None or Next('step'), and end a job with "
                "self.finish(result)"
            )
        self.keep()

    def step_named(self, name: str) -> Callable[[], Any]:
        step: Callable[[], Any] | None = getattr(self.job, f"step_{name}", None)
        if step is None:
            raise Fatal(f"{type(self.job).__name__} has no method step_{name}")
        return step

    def task_ended(self, row: Inbox) -> None:
        task = TaskEnded(row.row_id, row.name, row.index, row.weight, row.meta, row.state)
        effects, count = self.effects, inputs_of(row.index, row.weight)
        if row.state == "done":
            effects.done += count
            self.call(self.job.on_task_done, task, codecs.decode(row.body) if row.body else None)
        else:
            if row.state == "cancelled":
                effects.cancelled += count
            else:
                effects.failed += count
            error = error_of_task(row)
            operation = operations().get(row.name)
            if row.state == "dead" and operation is not None and operation.policy.on_failure == "terminate":
                self.job.fail(error)
                self.keep()
            else:
                self.call(self.job.on_task_failed, task, error)
        self.call_if_all_done()

    def call_if_all_done(self) -> None:
        """The store's counts are asked too: a dead letter that was replayed has been told of once already."""
        job, record = self.job, self.turn.job
        known = record.done + record.failed + self.effects.cancelled
        if job._counts_itself and self.effects.state is None and job.left <= 0 and known >= record.total:
            self.call(job.on_all_done)

    def keep(self) -> None:
        """Take over what a handler left in `data`, as it will be in the next turn."""
        kept = kept_data(self.effects.data, self.effects)
        if len(kept) > self.max_payload:
            raise Fatal(
                f"the data of job {self.job.job_id} has {len(kept)} bytes, and {self.max_payload} are allowed; "
                "put it where the job can read it, and keep where that is"
            )
        if kept != self.kept:
            self.kept = kept
            self.effects.data = split_data(kept)[0]

    # -- signals, whose failure is their own

    def signalled(self, row: Inbox) -> Any:
        named = "".join(c if c.isalnum() else "_" for c in row.name)
        handler: Callable[[Any], Any] = getattr(self.job, f"on_signal_{named}", self.job.on_signal)
        if getattr(handler, "__func__", None) is Job.on_signal:  # its class may be unknown here, too
            return Reply(status="unknown")
        return handler(received(row))

    def answer(self, row: Inbox, handle: Callable[[], Any]) -> None:
        was = self.effects
        before = replace(was, children=list(was.children), timers=dict(was.timers), replies=dict(was.replies))
        kept = self.kept
        self.job.sender, self.job.signal_id = row.by, row.row_id
        try:
            value = handle()
            if value is LATER:
                self.keep()
                return
            reply = packed_reply(value if isinstance(value, Reply) else Reply(value))
            if len(reply) > self.max_payload:
                raise Fatal(f"the reply has {len(reply)} bytes, and {self.max_payload} are allowed")
            self.keep()
        except TimeLimit:
            raise  # the turn's
        except Exception as error:  # noqa: BLE001  the sender is told
            self.kept = kept
            self.job._effects = before
            before.data = split_data(kept)[0]
            reply = self.failure(error)
        finally:
            self.job.sender = self.job.signal_id = ""
        self.replies.append((row.row_id, reply))

    def failure(self, error: BaseException) -> bytes:
        return packed_reply(Reply(status="failed", error=failure_of(error)))

    def finished(self, row: Inbox) -> Any:
        value = self.job.on_finish(received(row))
        effects = self.effects
        if effects.state is None:
            effects.state = JobState.FINISHED
        effects.reason = effects.reason or _reason_of(row)
        return value

    def cancelled(self, row: Inbox, grace: float, limited: Limited) -> None:
        """Its handler may clean up, and keep a result; the job is cancelled whatever it does."""

        def handle() -> Any:
            try:
                signal = received(row)
            except Exception:  # noqa: BLE001  its reason cannot be read here, and is all that is lost
                signal = Cancel()
            with limited(grace):
                try:
                    return self.job.on_cancel(signal)
                except TimeLimit as error:
                    raise Fatal(f"on_cancel took longer than the grace of {grace:g} s") from error

        self.answer(row, handle)
        self.effects.state = JobState.CANCELLED
        self.effects.reason = _reason_of(row)
