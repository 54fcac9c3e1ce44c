"""The contract of a store: the truth of a cluster, one transaction per call.

An engine is a class with these methods; `cluster.stores.contract` is the suite of tests that it has to pass.

Rules that hold for every engine
1. A call happens entirely or not at all, also when the process dies in it or the store has no room left.
2. Time is the store's: `now()`. Leases end by it, and only differences of it mean anything.
3. Fences of a group come from one counter that only grows.
4. A worker's end of a task counts only while the row (task, node, fence) exists and the task has not ended.
5. A write with a guard happens only while that lock is held with that fence; otherwise LeaseLost is raised
   and nothing is written.
6. A ready task is in a line by its rank. A claim costs no more than the logarithm of the line's length, and
   a member of a line by queue, operation and bucket of its partition key that it cannot serve costs nothing.
7. A task's end counts in its job, keeps its result there, and writes to the job's inbox, all in the same transaction.
   A job's turn is a task with the job's id: so it is claimed, leased, fenced, lost and tried again like any other.
   There is never more than one.
8. What ends, pauses or resumes a job takes effect at once for whoever asks, and reaches its tasks in bounded steps:
   so many in the call itself (all that are assigned among them), the rest with the claims and purges that follow. No
   claim gives a task that it has not reached. A job that has ended is told nothing more: its counts, its inbox and
   its results stay as they are.
9. Ids, names and keys are texts without control characters: the records refuse others, so an engine may join them with
   one. `configure_queue` is given no record, and refuses by `check_names`.
10. Every call blocks the calling tasklet only, and may be repeated: submitting, ending, renewing, releasing
   and repairing twice is the same as once.

Raises everywhere: StoreUnavailable, and where something is written StoreFull.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from cluster.records import (
    Assignment,
    Beat,
    Claim,
    Event,
    Finish,
    Guard,
    Job,
    JobState,
    Lock,
    Member,
    NewJob,
    NewSignal,
    NewTask,
    Repair,
    Result,
    Statistics,
    Survey,
    Task,
)


class Listener(Protocol):
    """Hears hints. A hint may be lost or come for nothing, so whoever waits looks for itself afterwards."""

    def wait(self, timeout: float) -> bool:
        """Block until a hint comes, at most `timeout` seconds; True when one came."""

    def close(self) -> None:
        """Stop listening."""


class Store(Protocol):
    """One group's part of a store."""

    url: str
    group: str

    # -- the store itself

    def now(self) -> float:
        """The store's time."""

    def close(self) -> None:
        """Give connections and threads back. What is stored stays."""

    def groups(self) -> tuple[str, ...]:
        """The names of all groups in this store."""

    def declare_group(self) -> None:
        """Make this group known."""

    def wipe(self) -> None:
        """Remove everything of this group."""

    # -- hints

    def listen(self, *topics: str) -> Listener:
        """Hear of "ready" (work for workers), "ended" or "ended:TASK", "job:JOB", "node:NAME", "lead"."""

    def ring(self, topic: str) -> None:
        """Give a hint. Never raises: a lost hint costs latency only."""

    # -- tasks

    def submit(self, tasks: Sequence[NewTask], *, guard: Guard | None = None) -> list[str]:
        """Store all tasks or none; return for each "new", "known" (the id exists), "merged", or "ended".

        "ended": its job has ended, and it was not stored. A `job_id` that no job has is only kept, also when a job
        with this id is started later. Only tasks of the same job are merged.

        Raises QueueFull when a queue's limit would be passed; LeaseLost.
        """

    def claim(
        self,
        node: str,
        incarnation: str,
        count: int,
        *,
        queues: Sequence[str],
        ops: Iterable[str],
        buckets: Iterable[int] | None = None,
        lease: float,
        by: str = "",
        ends: Sequence[Finish] = (),
        guard: Guard | None = None,
    ) -> tuple[list[Claim], float | None]:
        """Give up to `count` ready tasks to a member; also returns the seconds until the next scheduled one.

        `ends` are what became of its last ones, recorded first, as by `finish`: a busy worker needs one call for
        both. Queues are served in their order. `buckets` are those of the partition keys to serve; None serves all.
        Those whose time has come become ready first. With 0.0 seconds there is more to be had, though nothing may have
        been given: jobs that have ended or are paused have taken this call's time. Raises LeaseLost when the member's
        lease is over, or its incarnation is another one.
        """

    def assigned(self, node: str, incarnation: str) -> list[Claim]:
        """What is dealt to a member and not marked as running yet; marks it."""

    def finish(self, node: str, ends: Sequence[Finish]) -> list[bool]:
        """Report ends of executions; for each, whether it counts.

        A task with an index that ends dead or cancelled leaves a failed result for those of its inputs that have none,
        so every index of a job is accounted for. Results that have something of an input that has one are ignored.
        The turn of a job that is dead fails the job; one that is cancelled from outside terminates it.
        """

    def cancel(self, task_id: str) -> bool:
        """End a task that has not ended. Its worker finds out at its next heartbeat. False: it has ended."""

    def replay(self, task_ids: Sequence[str]) -> int:
        """Make dead tasks ready again, with fresh counts of attempts; return how many.

        Their job counts them anew, and forgets the failed results that they left. Those of a job that has ended stay.
        """

    def task(self, task_id: str) -> Task | None:
        """Read a task."""

    def tasks(
        self,
        *,
        state: str | None = None,
        queue: str | None = None,
        job_id: str | None = None,
        limit: int = 100,
        after: str = "",
    ) -> list[Task]:
        """Read tasks by id, those after `after`."""

    def assignments(self, node: str | None = None) -> list[Assignment]:
        """Read who has what."""

    def statistics(self) -> Statistics:
        """Read the counts. Costs no more with more tasks."""

    def configure_queue(
        self, queue: str, *, max_waiting: int | None = None, paused: bool | None = None
    ) -> None:
        """Set a queue's limit (0: none), or pause it; what is None stays as it is."""

    def queues(self) -> dict[str, dict[str, int]]:
        """The queues and what was configured for them."""

    # -- jobs

    def start(self, job: NewJob, tasks: Sequence[NewTask] = ()) -> tuple[str, str]:
        """Start a job with its first tasks, all or nothing; return its id and "new", "known" or "merged".

        "known": the id exists, and nothing was done. "merged": a living job has the name; its id is returned, the
        params were put into its inbox (kind "restart", once for each id), and the tasks were not stored. A job with a
        class gets a row of kind "start". The tasks get the job's id. Raises QueueFull; JobStateError when the id is
        that of a task, or of a job that is being deleted.
        """

    def close_job(self, job_id: str) -> bool:
        """Say that no more tasks come from outside. A job without a class finishes when all have ended.

        False: there is no such job, or it has ended.
        """

    def feed(self, job_id: str) -> bool:
        """Say that somebody is there who feeds a job, for another `feed_ttl`.

        One that is not closed, and of which nobody has said so for longer, is terminated by the next purge. False: it
        needs that no more, for it is closed or has ended, or it never did.
        """

    def signal(self, job_id: str, signal: NewSignal) -> str:
        """Put a signal into a job's inbox: "taken", "known" (its id was there before), "ended" or "missing".

        A job without a class obeys "cancel" and "finish" at once, and has the signal's reason then.
        """

    def reply(self, job_id: str, signal_id: str) -> bytes | None:
        """Read what a signal was answered; None when it was not yet, or is not known (any more)."""

    def change_job(self, job_id: str, state: JobState, *, by: str = "", reason: str = "") -> Job:
        """Pause, suspend, resume (to RUNNING) or terminate a job from outside, without a turn.

        Terminating cancels all its tasks, and its turn. Raises JobNotFound, and JobStateError when its state allows
        no such change; the one it is in already is no error, but for the terminal ones.
        """

    def delete_job(self, job_id: str) -> bool:
        """End a job, and forget it with its tasks, results and inbox. False: there is none."""

    def job(self, job_id: str) -> Job | None:
        """Read a job."""

    def job_named(self, name: str) -> Job | None:
        """Read the living job with this name, or the last one that had it."""

    def jobs(
        self,
        *,
        state: str | None = None,
        name: str | None = None,
        since: float | None = None,
        limit: int = 100,
        after: str = "",
    ) -> list[Job]:
        """Read jobs by id, those after `after`; `since`: created at this time of the store or later."""

    def results(
        self, job_id: str, *, after: int = 0, limit: int = 1000, max_bytes: int = 8 << 20
    ) -> list[Result]:
        """Read a job's results in the order of their arrival, those after the sequence number `after`.

        At least one, if there is one, and then as many as have `max_bytes` together.
        """

    def results_at(
        self, job_id: str, low: int, high: int, *, limit: int = 1000, max_bytes: int = 8 << 20
    ) -> list[Result]:
        """Read the results that have something of the inputs [low, high), by index."""

    def acknowledge(self, job_id: str, seq: int, *, forget: bool = False) -> None:
        """Note that the results up to `seq` were taken by their reader; with `forget` they are removed.

        Their inputs get no second result for that.
        """

    def checkpoint(
        self, node: str, task_id: str, fence: int, results: Sequence[Result], data: bytes | None = None
    ) -> bool:
        """Keep results of a running task, and its data, before its end. False: it is not this worker's any more.

        The next execution of the task starts with `recorded` and `data` as they are then.
        """

    # -- members

    def reserve(
        self, node: str, role: str, *, spawn_id: str, grace: float, limit: int, by: str = "", host: str = ""
    ) -> bool:
        """Note that a node is being started, unless `limit` of its role are there or on their way already.

        The note counts as a member that is joining, for `grace` seconds. A spawn id is reserved once.
        """

    def join(self, member: Member, ttl: float) -> None:
        """Make a node a member; takes the place of the note with its spawn id. Raises NameTaken."""

    def renew(self, member: Member, ttl: float, lease: float, running: Sequence[str] = ()) -> Beat:
        """Renew a member's lease, those of its assignments, and what is known of it.

        Raises LeaseLost when its lease is over or it is another incarnation: it has to join anew, and what it
        runs is no longer its own.
        """

    def leave(self, node: str, incarnation: str, reason: str = "") -> None:
        """Remove a member, or a note, and give back what it has."""

    def drain(self, node: str) -> bool:
        """Ask a member to finish what it runs and leave; it learns so at its next heartbeat."""

    def members(self) -> list[Member]:
        """Read the members whose lease runs."""

    # -- locks

    def acquire(self, name: str, holder: str, ttl: float) -> Lock:
        """Take a lock, or say who has it: the result's holder is who holds it now.

        Taking one's own lock again renews it, with the same fence, if it has not run out.
        """

    def renew_lock(self, name: str, fence: int, ttl: float) -> bool:
        """Hold it for longer. False when it is lost."""

    def release(self, name: str, fence: int) -> bool:
        """Let it go. False when it was lost before."""

    def lock(self, name: str) -> Lock | None:
        """Read who holds a lock."""

    # -- the coordinator

    def promote(self, limit: int, *, guard: Guard | None = None) -> int:
        """Make scheduled tasks whose time has come ready."""

    def survey(self, limit: int, *, unknown_after: float) -> Survey:
        """Read what is out of order."""

    def repair(self, repairs: Sequence[Repair], *, guard: Guard | None = None) -> int:
        """Carry out what was decided; return how many still applied.

        revoke: remove the assignment (task, node, fence); when none is left the task is ready again, or dead
        after too many losses. requeue: a task marked as assigned that nobody has is ready again. kill: a task
        that has not ended is dead, with this error. expire: a member (incarnation in `reason`) whose lease
        is over is removed.
        """

    def purge(self, older_than: float, limit: int, *, journal: int, guard: Guard | None = None) -> int:
        """Do at most `limit` of what is to be forgotten or carried on; less was done when nothing is left.

        It forgets tasks that ended before so many seconds (dead ones stay), and all but the newest events.

        Also jobs that ended before their ttl with all that is theirs, and inbox rows that were consumed so long ago.
        It terminates jobs that nobody feeds any more, and cancels what is left of the tasks of jobs that have ended.
        """

    # -- the journal and what is configured

    def note(self, kind: str, subject: str, by: str = "", detail: str = "") -> None:
        """Add a line to the journal."""

    def events(self, *, after: str = "", limit: int = 1000) -> list[Event]:
        """Read the journal from `after` on, oldest first."""

    def put(self, key: str, value: str) -> None:
        """Keep a text for the group under a name; an empty one removes it."""

    def get(self, key: str) -> str:
        """Read it; empty when there is none."""
