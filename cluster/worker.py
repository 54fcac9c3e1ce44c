"""A worker: an agent that claims tasks and renews leases, and executor processes that run them.

    Worker("sqlite:///work.db", imports=["myops"], slots=4).run()

The agent never runs user code, so a task that computes, crashes or hangs never costs a heartbeat. The pieces are
public: `Store.claim`, `executor.execute` and `Store.finish` make a worker of twenty lines (docs/cluster.md has one).
"""

from __future__ import annotations

import logging
import os
import random
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event as Flag

from cluster import _decide, _frames as frames, _slots
from cluster._failpoints import fail_point
from cluster._identity import new_incarnation, new_member, new_name, opened
from cluster._slots import InlineSlot, Slot
from cluster._turns import forced_cancel
from cluster.errors import LeaseLost, NameTaken, StoreError
from cluster.executor import end_of, told_of
from cluster.records import Claim, Ending, Finish, JobState, Result
from cluster.settings import Settings
from cluster.stores import Store

if TYPE_CHECKING:
    from cluster.healing import Healer

log = logging.getLogger("cluster")

UNHEARD = (
    2  # heartbeats that a row must be ours without our knowing it, before we say that the claim was lost
)
# Seconds that all slots are taken before turns of jobs are given one more. So a job can be signalled and cancelled
# although its own tasks take all slots, and where tasks are short no claim more is made.
FULL = 0.05


class Worker:
    """See above. `run` blocks until it has drained."""

    def __init__(
        self,
        store: str | Store,
        group: str = "default",
        *,
        imports: Sequence[str] = (),
        slots: int | None = None,
        queues: Sequence[str] | Mapping[str, int] = ("default",),
        labels: Sequence[str] = (),
        name: str | None = None,
        spawn_id: str = "",
        prefetch: int = 0,
        dispatch: str = "pull",
        inline: bool = False,
        settings: Settings | None = None,
        healer: Healer | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.store = opened(store, group, self.settings)
        self.name = name or new_name()
        weights = queues if isinstance(queues, Mapping) else dict.fromkeys(queues, 1)
        self._turns = _decide.Turns(weights)
        self._imports = tuple(imports)
        self._inline = inline
        self._prefetch = prefetch
        self._dispatch = dispatch
        self._healer = healer
        self._count = slots if slots is not None else os.cpu_count() or 1
        self._member = new_member(
            self.name, "worker", slots=self._count, queues=tuple(weights), labels=labels, spawn_id=spawn_id
        )
        self._slots: list[Slot | InlineSlot] = []
        self._held: deque[Claim] = deque()  # claimed, and no slot free yet
        self._ends: list[tuple[str, Finish]] = []  # incarnation, end: to be reported
        self._recorded: list[
            tuple[Claim, list[Result], bytes | None]
        ] = []  # of tasks that go on, and their data: to be kept before their ends
        self._work = Flag()  # there may be something to do
        self._draining = False
        self._last_call: Any = None  # when a drain has lasted for the grace
        self._stopped = Flag()
        self._leased_until = 0.0  # on our own clock, so too early rather than too late
        self._unheard: dict[str, int] = {}  # task id -> heartbeats
        self._nodes: tuple[str, ...] = ()
        self._next_due: float | None = None
        self._idle_since = 0.0
        self._full_since: float | None = None  # all slots have tasks, by our own clock
        self._asked = 0

    def __repr__(self) -> str:
        return f"<Worker {self.name} running={len(self.running)}/{self._count}>"

    @property
    def running(self) -> tuple[str, ...]:
        """The ids of the tasks that it has."""
        return tuple(claim.task.task_id for claim in self._claims())

    # -- its life ------------------------------------------------------------------------------------------

    def run(self, *, signals: bool = False) -> None:
        """Work until `stop`. Blocks. With `signals`, SIGTERM and SIGINT drain it, and a second one stops it at once.

        Raises NameTaken, StoreError when it cannot join.
        """
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                gevent.signal_handler(number, self._signalled)
        self._join(patiently=bool(self._member.spawn_id))
        self._slots = [self._make_slot(number) for number in range(self._count)]
        loops = [
            gevent.spawn(loop)
            for loop in (self._beat_loop, self._work_loop, self._listen_loop, self._hear_loop)
        ]
        try:
            gevent.joinall(loops[:2], count=1)  # neither ends before the worker does
            for loop in loops[:2]:
                if loop.ready():
                    loop.get()
        finally:
            gevent.killall(loops)
            if self._last_call is not None:
                self._last_call.kill()
            gevent.joinall([gevent.spawn(slot.close) for slot in self._slots])
            self._leave()

    def stop(self) -> None:
        """Drain: claim nothing more, finish what runs within the grace, give the rest back, leave."""
        if not self._draining:
            self._draining = True
            self._member = replace(self._member, state="draining")
            self._last_call = gevent.spawn_later(self.settings.grace, self._stopped.set)
            self._work.set()

    def _signalled(self) -> None:
        self._asked += 1
        if self._asked > 1:
            self._stopped.set()
        self.stop()
        self._work.set()

    def _make_slot(self, number: int) -> Slot | InlineSlot:
        if self._inline:
            return InlineSlot(number, self.settings, self._report, self._record)
        return Slot(number, self._imports, self.settings, self._report, self._work.set, self._record)

    def _join(self, *, patiently: bool = False) -> None:
        asked = monotonic()
        deadline = asked + 2 * self.settings.member_ttl
        while True:
            try:
                self.store.join(self._member, self.settings.member_ttl)
                break
            except NameTaken:
                if not patiently or monotonic() > deadline:
                    raise
                gevent.sleep(self.settings.heartbeat)
        self._leased_until = asked + self.settings.member_ttl

    def _leave(self) -> None:
        ends = [end for incarnation, end in self._ends if incarnation == self._member.incarnation]
        try:
            self.store.finish(self.name, ends)
            self.store.leave(self.name, self._member.incarnation, "drained")
        except (StoreError, LeaseLost) as error:
            log.warning("%s could not say goodbye, its lease will run out: %s", self.name, error)

    # -- heartbeat -----------------------------------------------------------------------------------------

    def _beat_loop(self) -> None:
        while True:
            gevent.sleep(self.settings.heartbeat * (0.9 + 0.2 * random.random()))
            try:
                self._beat()
            except LeaseLost:
                self._start_anew()
            except StoreError as error:
                log.warning("%s cannot renew its lease: %s", self.name, error)
            if self._draining and not self.running and not self._ends:
                self._work.set()

    def _beat(self) -> None:
        now = self.store.now()
        running = self.running
        self._idle_since = 0.0 if running else self._idle_since or now
        ops = sorted({name for slot in self._slots for name in slot.policies})
        self._member = replace(
            self._member, running=len(running), ops=tuple(ops), idle_since=self._idle_since
        )
        asked = monotonic()
        before = {(claim.task.task_id, claim.fence) for claim in self._claims()}
        beat = self.store.renew(self._member, self.settings.member_ttl, self.settings.task_lease, running)
        fail_point("worker-renewed")
        self._leased_until = asked + self.settings.member_ttl
        if beat.state == "draining" and not self._draining:
            log.info("%s was asked to drain", self.name)
            self.stop()
        self._compare(beat.held, before)
        members = self.store.members()
        self._nodes = tuple(
            m.node
            for m in members
            if m.role == "worker" and m.state == "up" and set(m.queues) & set(self._turns.weights)
        )
        if self._healer is not None and not self._draining:
            self._healer.look_for_coordinator(members)

    def _claims(self) -> list[Claim]:
        return [*(slot.claim for slot in self._slots if slot.claim is not None), *self._held]

    def _compare(self, held: Sequence[tuple[str, int, bool]], before: set[tuple[str, int]]) -> None:
        """Bring what we run in line with what the store says that we have.

        `before` is what we had when the store was asked: of what came since, its answer knows nothing.
        """
        rows = {task_id: fence for task_id, fence, _ in held}
        reported = {end.task_id for _, end in self._ends}
        self._drop({(task_id, fence) for task_id, fence in before if rows.get(task_id) != fence})
        ours = set(self.running) | reported
        if any(not running for _, _, running in held):
            for claim in self.store.assigned(self.name, self._member.incarnation):
                self._take(claim)
        unheard = {}
        for task_id, fence, running in held:
            if running and task_id not in ours:
                unheard[task_id] = self._unheard.get(task_id, 0) + 1
                if unheard[task_id] >= UNHEARD:  # the answer to the claim was lost on its way
                    self._end(Finish(task_id, fence, Ending.RELEASED))
        self._unheard = unheard
        self._work.set()

    def _drop(self, gone: set[tuple[str, int]]) -> None:
        """Stop what was cancelled, or revoked: its result would not count."""
        for slot in self._slots:
            claim = slot.claim
            if claim is None or (claim.task.task_id, claim.fence) not in gone:
                continue
            if claim.turn is not None or self._is_terminated(claim.task.job_id):
                slot.kill(_slots.DROPPED)
            else:
                slot.cancel()
        self._held = deque(claim for claim in self._held if (claim.task.task_id, claim.fence) not in gone)

    def _is_terminated(self, job_id: str) -> bool:
        """Whether a task's job was ended without a word of its own: then neither has the task any (A-31)."""
        if not job_id:
            return False
        try:
            job = self.store.job(job_id)
        except StoreError:
            return False
        return job is not None and job.state == JobState.TERMINATED

    def _start_anew(self) -> None:
        """Our lease ran out, we were frozen or cut off: what we run is no longer ours."""
        log.warning("%s lost its lease; it drops what it runs and joins again", self.name)
        for slot in self._slots:
            if slot.claim is not None:
                slot.kill(_slots.DROPPED)
        self._held.clear()
        ends, self._ends = [end for _, end in self._ends], []
        self._member = replace(self._member, incarnation=new_incarnation(), spawn_id="", joined=0.0)
        try:
            self.store.finish(self.name, ends)  # those that nobody has taken over meanwhile count
            self._join()
        except (NameTaken, StoreError) as error:
            log.warning("%s cannot join again yet: %s", self.name, error)
        self._work.set()

    # -- work ----------------------------------------------------------------------------------------------

    def _listen_loop(self) -> None:
        self._hear(("ready",), self._work.set)

    def _hear_loop(self) -> None:
        self._hear((f"node:{self.name}",), self._look_at_ours)

    def _hear(self, topics: tuple[str, ...], do: Callable[[], object]) -> None:
        listener = self.store.listen(*topics)
        try:
            while True:
                if listener.wait(self.settings.poll * 10):
                    do()
        finally:
            listener.close()

    def _look_at_ours(self) -> None:
        """Something about our tasks changed: some were dealt to us, or taken from us (P-25)."""
        try:
            if self._dispatch == "assign":
                for claim in self.store.assigned(self.name, self._member.incarnation):
                    self._take(claim)
            before = {(claim.task.task_id, claim.fence) for claim in self._claims()}
            if before:
                self._drop(before - {(row.task_id, row.fence) for row in self.store.assignments(self.name)})
        except (StoreError, LeaseLost):
            pass  # the next heartbeat sees it
        self._work.set()

    def _work_loop(self) -> None:
        pause = 0.05
        while True:
            self._work.clear()
            try:
                self._run_held()
                self._keep_recorded()
                busy = self._claim() + self._report_ends()
                pause = 0.05
            except LeaseLost:
                self._leased_until = 0.0  # no claims until the heartbeat has joined again
                busy = 0
            except StoreError as error:
                log.warning("%s: %s", self.name, error)
                gevent.sleep(pause)
                pause = min(2.0, pause * 2)
                continue
            if self._draining and (self._stopped.is_set() or not (self.running or self._ends)):
                self._give_up_rest()
                return
            if not busy and not self._ends:
                self._work.wait(self._idle_seconds())

    def _idle_seconds(self) -> float:
        wait = self.settings.poll
        if self._next_due is not None:
            wait = min(wait, self._next_due + 0.001)
        if self._full_since is not None:
            left = FULL - (monotonic() - self._full_since)
            wait = min(wait, left + 0.001) if left > 0 else wait
        return wait

    def _report_ends(self) -> int:
        reported = 0
        while self._ends:
            with self._reporting() as (ends, count):
                self.store.finish(self.name, ends)
            reported += count
        return reported

    @contextmanager
    def _reporting(self) -> Iterator[tuple[list[Finish], int]]:
        """The ends for one call, and how many are done with after it; those of an earlier life are not sent."""
        self._keep_recorded()
        batch = self._ends[: self.settings.batch]
        ours = [end for incarnation, end in batch if incarnation == self._member.incarnation]
        if ours:
            fail_point("worker-before-finish")
        yield ours, len(batch)
        if ours:
            fail_point("worker-after-finish")
        told = set(map(id, batch))  # others came, or all went, while the store was asked
        self._ends = [end for end in self._ends if id(end) not in told]

    def _record(self, claim: Claim, rows: list[dict[str, Any]], data: bytes | None = None) -> None:
        self._recorded.append((claim, [Result(**row) for row in rows], data))
        self._work.set()

    def _keep_recorded(self) -> None:
        """Store what running tasks have recorded. Before their ends are: results after those would not count."""
        while self._recorded:
            claim, results, data = self._recorded[0]
            ours = self.store.checkpoint(self.name, claim.task.task_id, claim.fence, results, data)
            self._recorded.pop(0)
            if not ours:
                self._drop({(claim.task.task_id, claim.fence)})

    def _claim(self) -> int:
        if self._draining or monotonic() >= self._leased_until:
            return 0
        wanted, ops = self._wanted()
        if wanted <= 0 or not ops:
            return 0
        buckets = (
            _decide.buckets_of(self.name, self._nodes)
            if self.name in self._nodes and len(self._nodes) > 1
            else None
        )
        # One call tells how the last tasks ended and takes the next ones: a slot waits for it, and for no other.
        with self._reporting() as (ends, reported):
            claims, self._next_due = self.store.claim(
                self.name,
                self._member.incarnation,
                wanted,
                queues=self._turns.order(),
                ops=sorted(ops),
                buckets=buckets,
                lease=self.settings.task_lease,
                ends=ends,
            )
        fail_point("worker-claimed")
        for claim in claims:
            self._turns.served(claim.task.queue)
            self._held.append(claim)
        self._run_held()
        if any(claim.turn is not None for claim in self._held) and not any(
            slot.free or slot.only_turns for slot in self._slots
        ):
            slot = self._make_slot(len(self._slots))
            slot.only_turns = True
            self._slots.append(slot)
            self._work.set()
        return len(claims) + reported

    def _wanted(self) -> tuple[int, set[str]]:
        """How many tasks to claim, and of which operations."""
        free = sum(slot.free for slot in self._slots if not slot.only_turns) - len(self._held)
        wanted = free + (self._prefetch if free >= 0 else max(0, self._prefetch - len(self._held)))
        now = monotonic()
        self._full_since = None if free > 0 else self._full_since or now
        if wanted > 0 and self._dispatch != "assign":
            return wanted, {name for slot in self._slots for name in slot.policies}
        if self._full_since is None:
            return 0, set()
        taken = any(slot.only_turns and not slot.free for slot in self._slots)
        if now - self._full_since < FULL or taken or any(claim.turn is not None for claim in self._held):
            return 0, set()
        return 1, {name for slot in self._slots for name, policy in slot.policies.items() if policy.turns}

    def _take(self, claim: Claim) -> None:
        if claim.task.task_id not in self.running:
            if self._draining or not any(claim.task.op in slot.policies for slot in self._slots):
                self._end(Finish(claim.task.task_id, claim.fence, Ending.RELEASED))  # G-11
            else:
                self._held.append(claim)
                self._work.set()

    def _run_held(self) -> None:
        for slot in sorted(self._slots, key=lambda slot: not slot.only_turns):
            if not slot.free:
                continue
            for number, claim in enumerate(self._held):
                task = claim.task
                if task.op in slot.policies and (claim.turn is not None or not slot.only_turns):
                    del self._held[number]
                    log.debug("task %s (%s)%s starts", task.task_id, task.op, _of_job(claim))
                    slot.run(claim, told_of(claim, self.name, self.settings.grace))
                    break

    def _report(self, slot: Slot | InlineSlot, claim: Claim, kind: str, details: dict[str, Any]) -> None:
        fail_point("worker-executed")
        log.debug("task %s (%s)%s: %s", claim.task.task_id, claim.task.op, _of_job(claim), kind)
        if kind == _slots.DROPPED or (kind == frames.STOPPED and slot.asked):
            # It was not ours any more, so this says nothing new; should it be ours after all, it is to run again.
            self._end(Finish(claim.task.task_id, claim.fence, Ending.RELEASED))
        else:
            end = end_of(claim, kind, details)
            self._end(end or self._failed(claim, kind, details, slot.policies.get(claim.task.op)))

    def _failed(self, claim: Claim, kind: str, details: dict[str, Any], policy: Any) -> Finish:
        task, fence = claim.task, claim.fence
        failure = _failure(kind, details)
        log.warning(
            "task %s (%s)%s on %s: %s: %s", task.task_id, task.op, _of_job(claim), self.name, failure.kind,
            failure.message,
        )  # fmt: skip
        if claim.turn is not None:
            end = forced_cancel(claim.turn, f"{failure.kind}: {failure.message}")
            if end is not None:
                return Finish(task.task_id, fence, Ending.TURN, turn=end)
        if kind == frames.STOPPED:
            return Finish(task.task_id, fence, Ending.CANCELLED)
        if kind == _slots.LOST:
            return Finish(task.task_id, fence, Ending.LOST)
        error = _decide.failure_bytes(failure, task, self.name)
        delay = _decide.delay_after(failure, policy, task.attempts, random.random)
        if delay is None:
            return Finish(task.task_id, fence, Ending.DEAD, error)
        return Finish(task.task_id, fence, Ending.AGAIN, error, after=delay, failed=True)

    def _end(self, end: Finish) -> None:
        self._ends.append((self._member.incarnation, end))
        self._work.set()

    def _give_up_rest(self) -> None:
        """The grace is over: what still runs is killed, and given back as if it had not been claimed."""
        for slot in self._slots:
            if slot.claim is not None:
                self._ends.append(
                    (
                        self._member.incarnation,
                        Finish(slot.claim.task.task_id, slot.claim.fence, Ending.RELEASED),
                    )
                )
        for claim in self._held:
            self._ends.append(
                (self._member.incarnation, Finish(claim.task.task_id, claim.fence, Ending.RELEASED))
            )


def _failure(kind: str, details: dict[str, Any]) -> _decide.Failure:
    match kind:
        case frames.STOPPED:
            return _decide.Failure("Cancelled", "it stopped by itself")
        case _slots.LOST:
            return _decide.Failure("WorkerLost", details["why"])
        case _slots.OVERRAN:
            return _decide.Failure("TimeLimit", f"it passed its hard limit and was killed: {details['why']}")
        case _:
            return _decide.Failure(
                details["kind"],
                details["message"],
                details["traceback"],
                details["transient"],
                details["after"],
            )


def _of_job(claim: Claim) -> str:
    if claim.turn is not None:
        return f", a turn over {len(claim.turn.inbox)} rows,"
    return f" of job {claim.task.job_id}" if claim.task.job_id else ""


def run_workers(workers: Sequence[Worker], *, signals: bool = True) -> None:
    """Run several workers, of several groups, in one process. Blocks until all have drained."""
    running = [gevent.spawn(worker.run) for worker in workers]
    if signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, _signal_all(workers))
    gevent.joinall(running, raise_error=True)


def _signal_all(workers: Sequence[Worker]) -> Callable[[], None]:
    def signalled() -> None:
        for worker in workers:
            worker._signalled()

    return signalled
