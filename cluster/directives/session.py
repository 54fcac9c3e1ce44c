"""Tasks of one's own with a channel of their own for what comes of them: what directives on a store are made of.

    with client.session() as (sender, receiver):
        for path in paths:
            sender.send(measure, path)
        sender.close()                              # the receiver ends when all results were taken
        for index, value in receiver:
            print(paths[index], value)

Nobody else gets these results, whatever else the workers do. They are read a hundred rows at a time, and
*acknowledged* when the next are asked for, or by `acknowledge()`: of a session that was given an `id`, what was not is
delivered again to whoever takes it up (`client.session(id=...)`) after this process died. Leaving the block ends what
is not done and removes everything from the store.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import gevent

from cluster import codecs
from cluster._identity import whoami
from cluster._watch import Watch
from cluster.errors import JobCancelled, JobNotFound, ResultTimeout, StoreError, make_operation_error
from cluster.records import JOB_ENDED, Job, JobState, NewJob, NewTask, Notify, Result, make_id
from cluster.tasks import task_of
from net import values
from tasklets import ChannelClosed

if TYPE_CHECKING:
    from cluster._job_handle import JobClient
    from cluster.stores import Store

PAGE = 100  # rows of results that are read at a time


class Sender:
    """The end where tasks go in."""

    def __init__(self, client: JobClient, job_id: str, first: int = 0) -> None:
        self._client = client
        self._job_id = job_id
        self.sent = first  # how many inputs there are by now
        self.closed = False

    def __repr__(self) -> str:
        return f"<Sender {self._job_id} sent={self.sent} {'closed' if self.closed else 'open'}>"

    def send(self, op: Any, /, *args: Any, **kwargs: Any) -> int:
        """Store a task, and return the index under which its result will come. Blocks while a queue is full.

        Raises ChannelClosed when this end is closed, or the session's job has ended; InvalidArguments.
        """
        task = task_of(op, args, kwargs, {"job_id": self._job_id, "index": self.sent})
        self.send_all([task])
        return self.sent - 1

    def send_all(self, tasks: Sequence[NewTask]) -> None:
        """Store tasks that were made elsewhere, all or none."""
        if self.closed:
            raise ChannelClosed(f"session {self._job_id} is closed for sending; open another one")
        if "ended" in self._client.submit_noting(tasks):
            raise ChannelClosed(f"job {self._job_id} has ended, and takes no more tasks")
        self.sent += sum(task.weight for task in tasks if task.index is not None)

    def close(self) -> None:
        """Say that nothing more comes. Closing twice is fine."""
        if not self.closed:
            self.closed = True
            self._client.store.close_job(self._job_id)


class Receiver:
    """The end where results come out, in the order in which they get ready. Iterate, or call `receive`."""

    def __init__(
        self, client: JobClient, job_id: str, *, after: int = 0, forget: bool = False, acks: bool = True
    ) -> None:
        self._client = client
        self._job_id = job_id
        self._forget = forget  # what was acknowledged is removed from the store
        self._acks = acks
        self._seq = after  # of the last row that was read
        self._rows: list[Result] = []  # read, and not handed out
        self._values: Iterator[tuple[int, Any]] = iter(())  # of the row that is handed out
        self._current: Result | None = None
        self._watch: Watch | None = None

    def __repr__(self) -> str:
        return f"<Receiver {self._job_id} after={self._seq}>"

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        return self

    def __next__(self) -> tuple[int, Any]:
        try:
            return self.receive()
        except ChannelClosed:
            raise StopIteration from None

    def receive(self, timeout: float | None = None) -> tuple[int, Any]:
        """Take the next result, as its index and value. Blocks.

        Raises ChannelClosed at the end, OperationError when an input has failed, ResultTimeout.
        """
        for index, value in self._values:
            return index, value
        while True:
            row = self.receive_row(timeout)
            if row.failed:
                raise make_operation_error({"task_id": row.task_id, **dict(values.loads(row.value))})
            self._values = iter(list(enumerate(codecs.decode(row.value), row.index)))
            for index, value in self._values:
                return index, value

    def receive_row(self, timeout: float | None = None) -> Result:
        """Take the next row of results; if those that were read are used up, they are acknowledged before."""
        if not self._rows:
            self._acknowledge()
            self._read(timeout)
        self._current = self._rows.pop(0)
        return self._current

    def acknowledge(self) -> None:
        """Say that all results that were received so far are done with: they are not delivered again."""
        if self._current is not None:
            self._client.store.acknowledge(self._job_id, self._current.seq, forget=self._forget)

    def _acknowledge(self) -> None:
        if self._acks and self._current is not None:
            self.acknowledge()

    def _read(self, timeout: float | None) -> None:
        store = self._client.store
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            job = store.job(self._job_id)  # looked at first: nothing comes after its end
            if job is not None and job.state not in (JobState.FAILED, JobState.TERMINATED):
                self._rows = store.results(self._job_id, after=self._seq, limit=PAGE)
            if self._rows:
                self._seq = self._rows[-1].seq
                if self._watch is not None:
                    self._watch.begin_anew()
                return
            self._raise_if_ended(job)
            if deadline is not None and time.monotonic() >= deadline:
                raise ResultTimeout(f"no result of job {self._job_id} within {timeout:g} s")
            if self._watch is None:
                self._watch = Watch(store, f"job:{self._job_id}", None)
            self._watch.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def _raise_if_ended(self, job: Job | None) -> None:
        if job is None:
            raise JobNotFound(f"job {self._job_id} was removed while its results were read")
        if job.state == JobState.FAILED:
            failure = dict(values.loads(job.error)) if job.error else {}
            raise make_operation_error({"task_id": job.job_id, **failure})
        if job.state in (JobState.CANCELLED, JobState.TERMINATED):
            why = f": {job.reason}" if job.reason else ""
            raise JobCancelled(f"job {job.job_id} was {job.state}{why}", job_state=job.state.value)
        if job.state in JOB_ENDED:
            raise ChannelClosed(f"job {job.job_id} has ended, and all of its results were received")

    def close(self) -> None:
        """Stop listening."""
        if self._watch is not None:
            self._watch.__exit__()
            self._watch = None


def keep_fed(store: Store, job_id: str, feed_ttl: float) -> None:
    """Say again and again that somebody is there who feeds a job, until it needs that no more. Blocks."""
    while True:
        gevent.sleep(feed_ttl / 4)
        try:
            if not store.feed(job_id):
                return
        except StoreError:
            pass  # the next time


class Session:
    """A sender, a receiver, and the job behind them. Made by `client.session()`."""

    def __init__(self, client: JobClient, *, id: str | None = None, ttl: float | None = None) -> None:
        self._client = client
        self._kept = id is not None
        self.job_id = id or make_id()  # 128 bits: nobody guesses it, and no two are the same (P3.6)
        feed_ttl = (
            client.settings.feed_lease if id is None else None
        )  # one without an id ends with its process
        new = NewJob(
            job_id=self.job_id, notify=Notify.NEVER, ttl=ttl, by=whoami(), description="session", feed_ttl=feed_ttl
        )  # fmt: skip
        client._check_group()
        client.store.start(new)  # one that is there already is attached to
        job = client.job(self.job_id)
        self.sender = Sender(client, self.job_id, job.total)
        self.sender.closed = job.closed
        self.receiver = Receiver(client, self.job_id, after=job.acknowledged, forget=True)
        self._keeper = feed_ttl and gevent.spawn(keep_fed, client.store, self.job_id, feed_ttl)

    def __repr__(self) -> str:
        return f"<Session {self.job_id}>"

    def close(self) -> None:
        """End what is not done, and remove everything of it from the store."""
        self.sender.closed = True
        if self._keeper:
            self._keeper.kill(block=False)
        self.receiver.close()
        self._client.store.delete_job(self.job_id)

    def __enter__(self) -> tuple[Sender, Receiver]:
        return self.sender, self.receiver

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
