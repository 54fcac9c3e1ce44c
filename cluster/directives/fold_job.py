"""A durable fold: a job that is told of every chunk's end, and lets neighbours be combined, until one value is left.

Its turns only count and pass on: values are combined in tasks. What they come to waits in the job's data until its
neighbours are there.
"""

from __future__ import annotations

from typing import Any

from cluster.directives import chunks
from cluster.directives.chunks import DEFAULT, RAISE, Program, Step
from cluster.directives.folding import Folding, Group, Part
from cluster.jobs import Job, TaskEnded, job
from cluster.records import NewTask
from cluster.signals import Signal
from net import values

CLOSED = "cluster.closed"  # the signal that says how many chunks there are


def label(level: int, number: int) -> bytes:
    """A task's place in the tree, as its `meta` has it."""
    return values.dumps((level, number))


@job(name="cluster.Fold")
class FoldJob(Job):
    """A fold of a stream."""

    def start(self, params: Any) -> None:
        folding = Folding(params["fan_in"])
        self.data["folding"] = folding.dump()
        if params["leaves"] is not None:
            self._go_on(folding, folding.close(params["leaves"]))

    def on_signal(self, signal: Any) -> Any:
        if not isinstance(signal, Signal) or signal.name != CLOSED:
            return super().on_signal(signal)
        folding = self._folding()
        self._go_on(folding, folding.close(signal.body))
        return None

    def on_task_done(self, task: TaskEnded, result: Any) -> None:
        self._came(task, tuple(result))

    def on_task_failed(self, task: TaskEnded, error: Exception) -> None:
        params = self.params
        if params["on_error"] == RAISE or task.index is None:  # of a combination nothing can be left out
            self.fail(error)
        elif params["on_error"] == DEFAULT:
            self._came(task, (params["default"],))
        else:
            self._came(task, ())

    def _folding(self) -> Folding:
        return Folding.load(self.data["folding"])

    def _came(self, task: TaskEnded, part: Part) -> None:
        level, number = values.loads(task.meta)
        folding = self._folding()
        self._go_on(folding, folding.combined(level, number, part))

    def _go_on(self, folding: Folding, groups: list[Group]) -> None:
        params = self.params
        step = Step(*params["fold"])
        for group in groups:
            chunk = chunks.pack(Program(fold=step), group.values)
            self._effects.children.append(
                NewTask(
                    step.op,
                    chunk,
                    params["queue"],
                    priority=params["priority"]
                    + 1,  # before more is mapped: what waits here is as little as can be
                    job_id=self.job_id,
                    meta=label(group.level, group.number),
                )
            )
        self.data["folding"] = folding.dump()
        if folding.result is not None:
            self.finish(folding.result[0] if folding.result else params["empty"])
