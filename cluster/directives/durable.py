"""Directives on a store: a job whose tasks are chunks, so that it finishes whoever dies.

Inputs whose number is known are stored with the job, in one transaction, before anything runs: then the job needs its
client no more. Others are fed while results come, under the bound of what may be in flight, and an attached client can
go on feeding. A map is a job without a class, whose results are read as they come; a fold is a `FoldJob`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import gevent

from cluster import codecs
from cluster._identity import whoami
from cluster._job_handle import JobClient, JobHandle
from cluster.directives import chunks
from cluster.directives.chunks import RAISE, Program
from cluster.directives.feeding import Cutter, Feed, slots_of
from cluster.directives.plans import Options, Plan
from cluster.directives.results import Results, outputs_of
from cluster.directives.session import Receiver
from cluster.directives.sizes import even, guided
from cluster.errors import (
    ClusterError,
    JobCancelled,
    JobTimeout,
    ResultTimeout,
)
from cluster.jobs import new_job
from cluster.records import JOB_ENDED, Job, JobState, NewJob, NewTask, Notify, make_id
from net import values
from tasklets import ChannelClosed

_MARK = "directive"  # in the meta of its job


# ------------------------------------------------------------------------------------------------ begin


def run(plan: Plan, client: JobClient, options: Options) -> Run:
    """Begin a plan that ends with its results."""
    handle = _begin(plan, client, options, "stream", client.settings.feed_lease)
    if handle._feed is not None:
        handle._feed.keep()
    return Run(handle)


def start(plan: Plan, client: JobClient, options: Options, shape: str) -> Handle:
    """Begin a plan that goes on when this process ends; `shape` is "literal" or "stream"."""
    plan.check()
    handle = _begin(plan, client, options, shape)
    handle._start_feed()
    return handle


def _begin(
    plan: Plan, client: JobClient, options: Options, shape: str, feed_ttl: float | None = None
) -> Handle:
    client._check_group()
    program = plan.program(options)
    meta = values.dumps(
        {
            _MARK: "fold" if plan.fold else shape,
            "many": program.many,
            "on_error": program.on_error,
            "default": options.default,
            "op": program.op,
            "queue": options.queue or plan.queue,
            "priority": options.priority,
            "max_in_flight": options.max_in_flight,
            "chunk": plan.chunk,
        }
    )
    common: dict[str, Any] = {
        "name": options.name, "by": whoami(), "fail_fast": program.on_error == RAISE, "ttl": options.ttl,
        "meta": meta, "description": _text_of(program), "feed_ttl": feed_ttl,
    }  # fmt: skip
    job_id = options.id or make_id()
    cutter = Cutter(
        program, job_id, options.queue or plan.queue, options.priority, client.settings.max_payload
    )
    tasks: list[NewTask] = []
    if plan.total is not None:
        sizes = even(plan.total, plan.chunk) if plan.chunk else guided(plan.total, slots_of(client))
        inputs = iter(plan.inputs)
        for size in sizes:
            tasks += cutter.cut(list(itertools.islice(inputs, size)))
    closed = plan.total is not None
    if plan.fold is None:
        new = NewJob(job_id=job_id, notify=Notify.NEVER, closed=closed, **common)
    else:
        params = {
            "fold": tuple(plan.fold), "fan_in": plan.fan_in, "empty": plan.empty, "on_error": program.on_error,
            "default": options.default, "leaves": cutter.leaves if closed else None,
            "queue": options.queue or plan.queue, "priority": options.priority,
        }  # fmt: skip
        common["queue"] = options.queue or plan.queue
        new = new_job("cluster.Fold", params, id=job_id, closed=closed, **common)
    started = client.start_job(new, tasks, timeout=options.timeout)
    if started.started != "new":
        return attach(client, started.job_id)
    handle = Handle(client, job_id)
    handle.options, handle.on_error = options, program.on_error
    handle.many, handle.shape = program.many, "fold" if plan.fold else shape
    if plan.total is None:
        handle._feed = Feed(client, plan, cutter, iter(plan.inputs), options.max_in_flight, feed_ttl)
    return handle


def _text_of(program: Program) -> str:
    words = [f"{step.kind} {step.op}" for step in program.steps]
    return ", ".join([*words, *([f"fold {program.fold.op}"] if program.fold else [])])


# ------------------------------------------------------------------------------------------------ attach


def is_directive(job: Job) -> bool:
    """Whether a job is a directive's."""
    return bool(job.meta) and _MARK in _meta(job)


def _meta(job: Job) -> dict[str, Any]:
    try:
        meta = values.loads(job.meta)
    except values.Unreadable:
        return {}
    return dict(meta) if hasattr(meta, "keys") else {}


def attach(client: JobClient, job_id: str, inputs: Iterable[Any] | None = None) -> Handle:
    """A handle on a directive that somebody started. With `inputs` it is fed on, from where its feeder stopped.

    Those are all of its inputs, from the first one on; the ones that were stored already are passed over. Raises
    JobNotFound, ClusterError for another kind of job.
    """
    job = client.job(job_id)
    meta = _meta(job)
    if _MARK not in meta:
        raise ClusterError(
            f"job {job_id} ({job.cls or 'without a class'}) is no directive: client.attach_job({job_id!r})"
        )
    handle = Handle(client, job.job_id)
    handle.on_error = meta["on_error"]
    handle.options = Options(
        on_error=meta["on_error"], default=meta["default"], max_in_flight=meta["max_in_flight"]
    )
    handle.many, handle.shape = meta["many"], meta[_MARK]
    if inputs is not None and not job.closed and job.state not in JOB_ENDED:
        handle._feed = _feed_on(client, job, meta, inputs)
    return handle


def _feed_on(client: JobClient, job: Job, meta: dict[str, Any], inputs: Iterable[Any]) -> Feed:
    """What is stored says how far the feeder came, and how a chunk is made: everything of one is in its arguments."""
    first = leaves = 0
    sample: NewTask | Any = None
    after = ""
    while page := client.store.tasks(job_id=job.job_id, limit=1000, after=after):
        for task in page:
            if task.index is not None:
                first, leaves, sample = max(first, task.index + task.weight), leaves + 1, task
        after = page[-1].task_id
    if sample is None:
        raise ClusterError(f"of job {job.job_id} nothing was stored yet; start the directive again")
    program, _ = chunks.unpack(codecs.decode(sample.args))
    cutter = Cutter(
        program, job.job_id, meta["queue"], meta["priority"], client.settings.max_payload, first, leaves
    )
    plan = Plan((), program.steps, program.fold, chunk=meta["chunk"])
    remaining = itertools.islice(inputs, first, None)
    return Feed(client, plan, cutter, remaining, meta["max_in_flight"], job.feed_ttl)


# ------------------------------------------------------------------------------------------------ the handle


class Handle(JobHandle):
    """A directive in a store, wherever it runs."""

    options: Options
    on_error: str
    many: bool
    shape: str  # stream | literal | fold

    def __init__(self, client: JobClient, job_id: str) -> None:
        super().__init__(client, job_id)
        self._feed: Feed | None = None

    def __repr__(self) -> str:
        return f"<Handle {self.job_id} of a {self.shape}>"

    def result(self, timeout: float | None = None) -> Any:
        """Wait for what it comes to: the value of a fold or a literal, a stream's values in their order. Blocks.

        Raises ResultTimeout, and then it goes on; OperationError, JobCancelled.
        """
        if self.shape == "fold":
            self._start_feed()
            try:
                return super().result(timeout)
            except JobCancelled:
                self._check_feed()  # which may be the reason
                raise
        found = self.stream(timeout=timeout).values_sorted()
        return found[0] if self.shape == "literal" and not self.many else found

    def stream(self, *, resume: bool = False, timeout: float | None = None) -> Results:
        """Its results as they come, from the first one on, or only those that nobody has acknowledged (`resume`).

        Closing it leaves the job as it is. `timeout`: seconds until ResultTimeout is raised.
        """
        if self.shape == "fold":
            raise ClusterError(f"job {self.job_id} is a fold, and has one result: handle.result()")
        after = self.record().acknowledged if resume else 0
        receiver = Receiver(self._client, self.job_id, after=after)
        if self._feed is not None:
            self._feed.read_from(start=not resume)
        deadline = None if timeout is None else time.monotonic() + timeout
        return Results(
            self._pairs(receiver, deadline), self._stop_feed, on_error=self.on_error, job_id=self.job_id
        )

    # -- results

    def _pairs(self, receiver: Receiver, deadline: float | None) -> Generator[tuple[int, Any], None, None]:
        self._start_feed()
        try:
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                try:
                    row = receiver.receive_row(left)
                except ChannelClosed:
                    self._check_feed()
                    return
                except JobCancelled:
                    self._check_feed()  # which may be the reason
                    raise
                if self._feed is not None:
                    self._feed.came(row.count, len(row.value))
                yield from self._pairs_of(row)
        finally:
            receiver.close()

    def _pairs_of(self, row: Any) -> Iterator[tuple[int, Any]]:
        found = outputs_of(
            row.index, row.count, row.value, failed=row.failed, many=self.many, on_error=self.on_error,
            default=self.options.default,
        )  # fmt: skip
        for index, outputs in found:
            self._deliver()
            for one in outputs:
                yield index, one

    # -- feeding

    def _deliver(self) -> None:
        if self._feed is not None:
            self._feed.deliver()

    def _start_feed(self) -> None:
        if self._feed is not None:
            self._feed.start()

    def _stop_feed(self) -> None:
        if self._feed is not None:
            self._feed.stop()

    def _check_feed(self) -> None:
        if self._feed is not None and self._feed.error is not None:
            raise self._feed.error


class Run:
    """A directive in a store that ends with its results: what an evaluation offers."""

    def __init__(self, handle: Handle) -> None:
        self.many = handle.many
        self._handle = handle
        self._over = False  # it has ended, as far as is known here
        handle._client.evaluations.add(self)

    def results(self) -> Results:
        """The results of a map."""
        handle = self._handle
        fed = (
            handle._feed is not None
        )  # then there may be no end of them: what was taken is removed from the store
        receiver = Receiver(handle._client, handle.job_id, forget=fed, acks=fed)
        return Results(self._pairs(receiver), self.cancel, on_error=handle.on_error, job_id=handle.job_id)

    def _pairs(self, receiver: Receiver) -> Generator[tuple[int, Any], None, None]:
        timeout = self._handle.options.timeout
        try:
            yield from self._handle._pairs(receiver, None if timeout is None else time.monotonic() + timeout)
        except ResultTimeout:
            raise self._timed_out() from None
        self._over = True

    def value(self) -> Any:
        """Wait for the value of a fold. Blocks."""
        try:
            value = self._handle.result(self._handle.options.timeout)
        except ResultTimeout:
            raise self._timed_out() from None
        except BaseException:
            self.cancel()
            raise
        self._over = True
        return value

    def _timed_out(self) -> JobTimeout:
        self.cancel("its time was over")
        job, timeout = self._handle.record(), self._handle.options.timeout
        return JobTimeout(
            f"job {job.job_id} was not done within {timeout:g} s, and was terminated; {job.done} of {job.total} "
            "inputs have results"
        )

    def cancel(self, reason: str = "its client wants no more of it") -> None:
        """End it, unless it has ended. Never raises."""
        self._handle._stop_feed()
        if self._over:
            return
        self._over = True
        if (
            gevent.getcurrent() is gevent.get_hub()
        ):  # the collector may call from anywhere; the loop must not wait
            gevent.spawn(self._terminate, reason)
        else:
            self._terminate(reason)

    def _terminate(self, reason: str) -> None:
        handle = self._handle
        try:
            handle._client.store.change_job(handle.job_id, JobState.TERMINATED, by=whoami(), reason=reason)
        except ClusterError:
            pass  # it has ended; or the store is away, and then the job goes on
