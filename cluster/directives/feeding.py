"""Feeds a job with inputs whose number is not known: makes tasks of them while results are taken.

No more inputs are taken than may be in flight, whatever they cost to make (P-15, P3.8).
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent.event import Event as Flag

from cluster import codecs
from cluster._identity import whoami
from cluster.directives import chunks
from cluster.directives.chunks import Program
from cluster.directives.fold_job import CLOSED, label
from cluster.directives.plans import Plan
from cluster.directives.session import Sender, keep_fed
from cluster.directives.sizes import Pace, in_flight
from cluster.errors import ClusterError, InvalidArguments, JobNotFound
from cluster.records import JOB_ENDED, JobState, NewSignal, NewTask
from tasklets import ChannelClosed

if TYPE_CHECKING:
    from cluster._job_handle import JobClient

GENERATE_SECONDS: Final = (
    0.02  # that making the inputs of one chunk may take, before the first of them is stored
)
LOOK_SECONDS: Final = 0.05  # between two looks whether a fold has room for more


def slots_of(client: JobClient) -> int:
    """How many tasks run at a time in a group; a guess while nobody is there."""
    slots = sum(
        member.slots for member in client.store.members() if member.role == "worker" and member.state == "up"
    )
    return slots or os.cpu_count() or 1


@dataclass
class Cutter:
    """Makes chunks of inputs tasks of the job."""

    program: Program
    job_id: str
    queue: str
    priority: int
    max_payload: int
    taken: int = 0
    leaves: int = 0

    def cut(self, inputs: list[Any]) -> list[NewTask]:
        """The tasks of these inputs: one, or several if they are too large for one."""
        if not inputs:
            return []
        packed = chunks.pack(self.program, inputs)
        if len(packed) > self.max_payload:
            if len(inputs) == 1:
                raise InvalidArguments(
                    f"input {self.taken} has {len(packed)} bytes, and {self.max_payload} are allowed; put the data "
                    "where the workers can read it, and pass its address"
                )
            half = len(inputs) // 2
            return self.cut(inputs[:half]) + self.cut(inputs[half:])
        task = NewTask(
            self.program.op,
            packed,
            self.queue,
            priority=self.priority,
            job_id=self.job_id,
            meta=label(0, self.leaves),
            index=self.taken,
            weight=len(inputs),
        )
        self.taken += len(inputs)
        self.leaves += 1
        return [task]


class Feed:
    """Stores inputs while results are taken; a greenlet of its own, so that a generator may wait for what it likes."""

    def __init__(
        self,
        client: JobClient,
        plan: Plan,
        cutter: Cutter,
        inputs: Iterator[Any],
        max_in_flight: int | None,
        feed_ttl: float | None = None,
    ) -> None:
        self.error: Exception | None = None
        self._delivered = 0  # of a map: inputs whose results were handed on
        self._room = Flag()
        self._client = client
        self._job_id = cutter.job_id
        self._plan = plan
        self._cutter = cutter
        self._inputs = inputs
        self._max_in_flight = max_in_flight
        self._slots = slots_of(client)
        self._pace = Pace()
        self._making = Pace()
        self._sender = Sender(client, self._job_id)
        self._came_at = 0.0
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._feed_ttl = feed_ttl
        self._keeper: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        """Begin, unless it has begun."""
        self.keep()
        if self._greenlet is None:
            self._came_at = time.monotonic()
            self._greenlet = gevent.spawn(self._run)

    def keep(self) -> None:
        """See to it that the job is not ended because nothing is taken for long, from now until the feed stops."""
        if self._keeper is None and self._feed_ttl is not None:
            self._keeper = gevent.spawn(keep_fed, self._client.store, self._job_id, self._feed_ttl)

    def stop(self) -> None:
        """Take no more inputs."""
        for greenlet in (self._greenlet, self._keeper):
            if greenlet is not None and greenlet is not gevent.getcurrent():
                greenlet.kill(block=False)

    def came(self, count: int, size_bytes: int) -> None:
        """Results of so many inputs have come: learn how long one takes, and how large it is."""
        now = time.monotonic()
        self._pace.learn(count, (now - self._came_at) * self._slots, size_bytes)
        self._came_at = now

    def read_from(self, *, start: bool) -> None:
        """Results are handed on from now on: from the first one, or those only that nobody has had."""
        self._delivered = 0 if start else self._cutter.taken
        self._room.set()

    def deliver(self) -> None:
        """The result of one input was handed on, so another may be taken."""
        self._delivered += 1
        self._room.set()

    def _run(self) -> None:
        try:
            while taken := self._take():
                self._sender.send_all(self._cutter.cut(taken))
            if (
                self._plan.fold is not None
            ):  # before the job is closed: else it would not be fed on if we died here
                body = codecs.encode(self._cutter.leaves)
                signal = NewSignal("signal", CLOSED, body, f"{self._job_id}-closed")
                self._client.store.signal(self._job_id, signal)
            self._sender.close()
        except ChannelClosed:
            pass  # the job has ended: its error is what is to be seen
        except Exception as error:  # noqa: BLE001  the generator's, or the store's: whoever waits for results is told
            self.error = error
            try:
                self._client.store.change_job(
                    self._job_id,
                    JobState.TERMINATED,
                    by=whoami(),
                    reason=f"its inputs failed: {error!r}",
                )
            except ClusterError:
                pass
        finally:
            if self._keeper is not None:
                self._keeper.kill(block=False)

    def _take(self) -> list[Any]:
        """The inputs of the next chunk, as soon as they may be taken; none when there are no more. Blocks."""
        limit = self._max_in_flight
        size = self._plan.chunk or min(self._pace.size(self._slots, None, limit), self._makeable())
        while (room := in_flight(limit, self._slots, size) - self._out()) <= 0:
            self._room.clear()
            self._room.wait(LOOK_SECONDS if self._plan.fold is not None else 1.0)
        began = time.monotonic()
        taken = list(itertools.islice(self._inputs, min(size, room)))
        self._making.learn(len(taken), time.monotonic() - began)
        return taken

    def _makeable(self) -> int:
        seconds = self._making.seconds_per_input
        return max(1, int(GENERATE_SECONDS / seconds)) if seconds > 0 else 1

    def _out(self) -> int:
        """How many inputs are on their way."""
        if self._plan.fold is None:
            return self._cutter.taken - self._delivered
        job = self._client.store.job(self._job_id)
        if job is None:
            raise JobNotFound(f"job {self._job_id} was removed while it was fed")
        if job.state in JOB_ENDED:
            raise ChannelClosed("its job has ended")
        return job.total - job.done - job.failed
