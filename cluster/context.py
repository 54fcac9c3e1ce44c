"""The context of an execution: what an operation is told, and what it may ask for while it runs.

    @operation
    def crawl(ctx, url):
        for link in links_of(url):
            ctx.check()
            ctx.submit(crawl, link)

Not here: how an execution is run, which is `cluster.executor`.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any, Protocol

from cluster import _frames as frames
from cluster._logs import IdsLog
from cluster._recorder import Recorder, results_of
from cluster.errors import Cancelled, Fatal
from cluster.records import NewTask, Result
from cluster.tasks import task_of
from net import values


class Context:
    """What an operation is told about its execution, and what it may ask for.

    `task_id` and `fence` guard what it does outside: a system that remembers the largest fence can refuse an older
    one. `attempt` counts from 1, `step` and `data` are what the last step left, `batch` the arguments of all tasks
    that this one stands for.

    A task with an `index` stands for the inputs [index, index + weight) of its job; of the first `recorded` of them the
    job has results already.
    """

    def __init__(
        self,
        told: dict[str, Any],
        batch: tuple[tuple[Any, ...], ...],
        link: Link | None,
        *,
        codec: str = "",
        max_payload: int = 1 << 20,
    ) -> None:
        self.task_id: str = told["task_id"]
        self.fence: int = told["fence"]
        self.attempt: int = told["attempt"]
        self.step: str = told["step"]
        self.job_id: str = told["job_id"]
        self.meta: bytes = told["meta"]
        self.worker: str = told["worker"]
        self.batch = batch
        data = told["data"]
        self.data: dict[str, Any] = dict(values.loads(data)) if data else {}
        self.children: list[NewTask] = []
        self._link = link
        self._stopped = False
        self.index: int | None = told.get("index")
        self.weight: int = told.get("weight", 1)
        self._recorder = (
            None
            if self.index is None
            else Recorder(
                self.index,
                self.weight,
                told.get("recorded", 0),
                codec,
                max_payload,
                self._keep_results if link is not None else None,
            )
        )

    @classmethod
    def local(cls) -> Context:
        """The context of a plain call."""
        told = {
            "task_id": "",
            "fence": 0,
            "attempt": 1,
            "step": "",
            "job_id": "",
            "meta": b"",
            "worker": "",
            "data": b"",
        }
        return cls(told, (), None)

    def submit(self, op: Any, /, *args: Any, id: str | None = None, **kwargs: Any) -> str:
        """Submit a task; it appears when this execution's end counts, or not at all. Returns its id.

        Options go in `with_options`, as for `Client.submit`.
        """
        return self.with_options(id=id).submit(op, *args, **kwargs)

    def with_options(self, **options: Any) -> _Submitter:
        """`ctx.with_options(queue="mail", delay=5).submit(send, address)`."""
        return _Submitter(self, {"job_id": self.job_id, **options})

    def cancelled(self) -> bool:
        """True when this execution should stop: the task was cancelled, or is somebody else's by now."""
        if not self._stopped and self._link is not None:
            self._stopped = self._link.is_cancelled(self.task_id)
        return self._stopped

    def check(self) -> None:
        """Raise Cancelled when this execution should stop."""
        if self.cancelled():
            raise Cancelled(f"task {self.task_id} was cancelled")

    @property
    def recorded(self) -> int:
        """Of how many of its inputs there are results by now."""
        return self._recorder.recorded if self._recorder is not None else 0

    def record(self, value: Any) -> None:
        """Keep the result of the next input. It is stored within half a second, and a crash after that repeats it not.

        Raises Fatal for a task without an index, for one result too many, or one that is too large.
        """
        self._recorder_of_inputs().add(value)

    def record_failure(self, error: BaseException | dict[str, Any]) -> None:
        """Keep that the next input failed."""
        self._recorder_of_inputs().add_failure(error)

    def _recorder_of_inputs(self) -> Recorder:
        if self._recorder is None:
            raise Fatal("only a task with an index records results: client.with_options(job_id=..., index=0)")
        return self._recorder

    def _keep_results(self, results: list[Result]) -> None:
        if results and self._link is not None:
            self._link.send(frames.RECORDED, self.task_id, [asdict(one) for one in results])

    def keep_recorded(self) -> None:
        """Have stored what was recorded until now: the next attempt goes on after it."""
        if self._recorder is not None:
            self._keep_results(self._recorder.rest())

    def results(self, returned: Any) -> list[Result]:
        """What is left to be kept of its inputs' results when the operation has returned."""
        return [] if self._recorder is None else list(results_of(returned, self._recorder))

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines carry the ids of the task and of its job."""
        job = f" of job {self.job_id}" if self.job_id else ""
        return IdsLog(logging.getLogger("cluster.task"), {"ids": f"task {self.task_id}{job}"})

    def progress(self, done: float, total: float) -> None:
        """Say how far it is; `cluster tasks` shows it."""
        if self._link is not None:
            self._link.send(frames.PROGRESS, self.task_id, done, total)


class Link(Protocol):
    """Where a context asks and tells: the agent's socket, or its stand-in within one process."""

    def send(self, *frame: Any) -> None:
        """Tell the agent something."""

    def is_cancelled(self, task_id: str) -> bool:
        """Whether the execution should stop."""


class _Submitter:
    def __init__(self, context: Context, options: dict[str, Any]) -> None:
        self._context = context
        self._options = options

    def submit(self, op: Any, /, *args: Any, **kwargs: Any) -> str:
        task = task_of(op, args, kwargs, self._options)
        self._context.children.append(task)
        return task.task_id
