"""The agent's side of its executors: start, feed, limit, kill, replace."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gevent
import msgpack
from gevent import socket, subprocess

from cluster import _frames as frames
from cluster.executor import execute
from cluster.policy import Policy, Retry
from cluster.records import Claim
from cluster.registry import operations

if TYPE_CHECKING:
    from cluster.settings import Settings

log = logging.getLogger("cluster")

# What a slot reports: the claim it had, how it ended (one of _frames' words, or LOST / OVERRAN), and details.
LOST = "lost"  # its process died
OVERRAN = "overran"  # its process was killed, for it had passed its hard limit
DROPPED = "dropped"  # its process was killed, for it did not obey a cancellation
Report = Callable[[Any, Claim, str, dict[str, Any]], None]  # the slot first
Recorded = Callable[..., None]  # claim, results of a task that goes on, and its data, if that is to be kept


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """A process that is started in the block hears no Ctrl-C before it can say that it ignores it (`executor.main`)."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:  # not as it was: another slot may be starting its own at the same time
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class Slot:
    """One executor process at a time, and the task it runs. `only_turns`: none but turns of jobs."""

    only_turns = False

    def __init__(
        self,
        number: int,
        imports: Sequence[str],
        settings: Settings,
        report: Report,
        changed: Callable[[], None],
        recorded: Recorded,
    ) -> None:
        self.number = number
        self.claim: Claim | None = None
        self.policies: dict[str, Policy] = {}
        self.ready = False
        self.asked = False  # the operation that runs, or ran last, was asked to stop
        self.failures = 0  # starts in a row that ended before the hello
        self.last_words = ""
        self.progress: tuple[float, float] | None = None
        self._imports = imports
        self._settings = settings
        self._report = report
        self._changed = changed
        self._recorded = recorded
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: Any = None
        self._verdict = LOST  # what it means when the process ends now
        self._timers: list[Any] = []
        self._closed = False
        self._runner = gevent.spawn(self._live)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "busy" if self.claim else "free" if self.ready else "starting"
        return f"<Slot {self.number} {state} pid={self.pid}>"

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def free(self) -> bool:
        return self.ready and self.claim is None

    # -- its life

    def _live(self) -> None:
        while not self._closed:
            try:
                self._start()
            except OSError as error:  # no more processes, or descriptors, for the moment
                log.warning("slot %d: an executor could not be started: %s", self.number, error)
                gevent.sleep(1.0)
                continue
            self._serve()
            self._bury()
            if self._closed:
                return
            if self.failures:
                # It cannot even start: an import fails, say. Not in a hot loop.
                gevent.sleep(min(30.0, 0.2 * 2.0 ** min(self.failures - 1, 16)))

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        alive, lifeline = os.pipe()
        with theirs, _deaf_to_ctrl_c():
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "cluster.executor",
                    str(theirs.fileno()),
                    str(alive),
                    *self._imports,
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), alive],
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
                },
            )
        os.close(alive)
        self._lifeline = lifeline
        self._socket = ours
        self._verdict = LOST
        self.failures += 1

    def _serve(self) -> None:
        unpacked = frames.Frames()
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                return
            try:
                for frame in unpacked.feed(data):
                    self._heard(*frame)
            except (msgpack.BufferFull, ValueError, TypeError) as error:  # user code wrote into our socket
                log.warning("slot %d: its process does not make sense any more: %r", self.number, error)
                return

    def _heard(self, kind: str, *rest: Any) -> None:
        if kind == frames.HELLO:
            self.policies = {name: _policy(row) for name, row in rest[0].items()}
            self.ready = True
            self.failures = 0
            self._changed()
        elif kind == frames.PROGRESS:
            if self.claim is not None and rest[0] == self.claim.task.task_id:
                self.progress = (rest[1], rest[2])
        elif kind == frames.RECORDED:
            if self.claim is not None and rest[0] == self.claim.task.task_id:
                self._recorded(self.claim, *rest[1:])
        elif kind == frames.ENDED and self.claim is not None and self.claim.task.task_id == rest[0]:
            self._ended(rest[1], rest[2])

    def _ended(self, kind: str, details: dict[str, Any]) -> None:
        claim, self.claim, self.progress = self.claim, None, None
        self._stop_timers()
        if claim is not None:
            self._report(self, claim, kind, details)

    def _bury(self) -> None:
        self.ready = False
        assert self._process is not None
        self._socket.close()
        os.close(self._lifeline)
        if self._process.poll() is None:
            try:
                self._process.wait(0.2)
            except subprocess.TimeoutExpired:
                self._process.kill()
        code = self._process.wait()
        died = f"signal {-code}" if code < 0 else f"exit code {code}"
        if self._closed:
            self.claim = None
            return
        self._ended(self._verdict, {"why": f"its process (pid {self._process.pid}) ended with {died}"})
        self.last_words = died

    # -- what it is told

    def run(self, claim: Claim, told: dict[str, Any]) -> None:
        """Let it run a task. Only when it is free."""
        task = claim.task
        policy = self.policies[task.op]
        self.claim = claim
        self.asked = False
        self._verdict = LOST
        hard = policy.hard_limit
        if hard is None and policy.time_limit is not None:
            hard = policy.time_limit + self._settings.grace
        if hard is not None and task.index is not None:
            hard *= task.weight  # a limit is that of one input
        if claim.turn is not None and any(row.kind == "cancel" for row in claim.turn.inbox):
            # Its handler is told to stop after the grace; if it does not, the job is cancelled without it.
            hard = min(hard or float("inf"), 2 * self._settings.grace)
        if hard is not None:
            self._timers.append(gevent.spawn_later(hard, self.kill, OVERRAN))
        self._send(
            frames.RUN, task.task_id, task.op, task.args, list(task.more), told, policy.time_limit,
            self._settings.max_payload,
        )  # fmt: skip

    def cancel(self) -> None:
        """Ask the running operation to stop; kill its process if it has not within the grace."""
        if self.claim is not None and not self.asked:
            self.asked = True
            self._send(frames.CANCEL, self.claim.task.task_id)
            self._timers.append(gevent.spawn_later(self._settings.grace, self.kill, DROPPED))

    def kill(self, verdict: str = LOST) -> None:
        """End the process, whatever it does."""
        self._verdict = verdict
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def close(self) -> None:
        """End it for good, without a report. Blocks until the process is gone."""
        self._closed = True
        self._stop_timers()
        self.kill()
        self._runner.join(5.0)
        self._runner.kill()

    def _send(self, *frame: Any) -> None:
        try:
            self._socket.sendall(frames.packed(*frame))
        except OSError:
            pass  # it is dying; its end will be noticed

    def _stop_timers(self) -> None:
        me = gevent.getcurrent()
        for timer in self._timers:
            if timer is not me:
                timer.kill(block=False)
        self._timers.clear()


class InlineSlot:
    """A slot that runs operations in the agent's own process: for `memory:` and tests, where nothing is killed."""

    only_turns = False
    pid = 0
    asked = False
    failures = 0
    last_words = ""
    progress: tuple[float, float] | None = None

    def __init__(self, number: int, settings: Settings, report: Report, recorded: Recorded) -> None:
        self.number = number
        self.claim: Claim | None = None
        self._settings = settings
        self._report = report
        self._greenlet: Any = None
        self._link = _InlineLink(self, recorded)
        self.ready = True

    @property
    def policies(self) -> dict[str, Policy]:
        return {name: op.policy for name, op in operations().items()}

    @property
    def free(self) -> bool:
        return self.claim is None

    def run(self, claim: Claim, told: dict[str, Any]) -> None:
        self.claim = claim
        self.asked = self._link.cancelled = False
        self._greenlet = gevent.spawn(self._run, claim, told)

    def _run(self, claim: Claim, told: dict[str, Any]) -> None:
        task = claim.task
        kind, details = execute(
            task.op,
            task.args,
            list(task.more),
            told,
            self._link,
            None,
            self._settings.max_payload,
        )
        self.claim = None
        self._report(self, claim, kind, details)

    def cancel(self) -> None:
        self.asked = self._link.cancelled = True

    def kill(self, verdict: str = LOST) -> None:
        self.cancel()

    def close(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()


class _InlineLink:
    def __init__(self, slot: InlineSlot, recorded: Recorded) -> None:
        self.cancelled = False
        self._slot = slot
        self._recorded = recorded

    def is_cancelled(self, task_id: str) -> bool:
        gevent.sleep(0)
        return self.cancelled

    def send(self, *frame: Any) -> None:
        """Results that a task records. Progress is for processes."""
        if frame[0] == frames.RECORDED and self._slot.claim is not None:
            self._recorded(self._slot.claim, *frame[2:])


def _policy(row: dict[str, Any]) -> Policy:
    return Policy(**{**row, "retry": Retry(**row["retry"])})
