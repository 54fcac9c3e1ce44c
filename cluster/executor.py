"""The process that runs operations: `python -m cluster.executor`, started fresh by a worker's agent.

It has no part in the cluster: it is told what to run and says how that ended. So user code may compute for hours,
crash, or be killed, and only its own process is in danger. When the agent dies, however it dies, this process ends.
"""

from __future__ import annotations

import importlib
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from time import monotonic
from types import FrameType
from typing import Any

from cluster import _frames as frames, codecs
from cluster._failures import described
from cluster._turns import take_turn
from cluster.context import Context, Link
from cluster.directives import (
    chunks,
    fold_job as _fold_job,  # noqa: F401  its class is among the operations of every executor
)
from cluster.errors import Cancelled, Fatal, TimeLimit
from cluster.jobs import JobOperation
from cluster.operations import Next
from cluster.records import (
    Claim,
    Ending,
    Finish,
    Inbox,
    Job,
    JobState,
    NewTask,
    Notify,
    Result,
    Timer,
    Turn,
    TurnEnd,
)
from cluster.registry import Registered, find_operation, operations
from net import values

MAX_CHILDREN_BYTES = frames.MAX_FRAME_BYTES // 2  # of the children of one execution, which go in one frame


class _Link:
    """This process's end of the socket pair. Ends the process when the agent has: nobody would hear of the work."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._frames = frames.Frames(frames.MAX_RUN_BYTES)
        self._waiting: list[list[Any]] = []
        self._cancelled: set[str] = set()

    def send(self, *frame: Any) -> None:
        try:
            self._socket.sendall(frames.packed(*frame))
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)

    def receive(self) -> list[Any]:
        while not self._waiting:
            self._read()
        return self._waiting.pop(0)

    def is_cancelled(self, task_id: str) -> bool:
        while select.select([self._socket], [], [], 0)[0]:
            self._read()
        return task_id in self._cancelled

    def _read(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except ConnectionResetError:  # it ended without having read what we sent
            data = b""
        if not data:
            os._exit(0)
        for frame in self._frames.feed(data):
            if frame[0] == frames.CANCEL:
                self._cancelled.add(frame[1])
            else:
                self._cancelled.clear()
                self._waiting.append(frame)


def main() -> None:
    """Serve one agent until it ends."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C goes to the whole foreground group; the agent decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the agent held it up until here
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.setblocking(True)  # gevent made it otherwise
    lifeline = int(sys.argv[2])
    threading.Thread(target=_hold, args=(lifeline,), name="lifeline", daemon=True).start()
    link = _Link(connection)
    for module in sys.argv[3:]:
        importlib.import_module(module)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")  # unless a module did
    link.send(frames.HELLO, {name: asdict(op.policy) for name, op in operations().items()})
    signal.signal(signal.SIGALRM, _alarm)
    while True:
        _, task_id, name, args, more, told, limit, max_payload = link.receive()
        kind, details = execute(name, args, more, told, link, limit, max_payload)
        link.send(frames.ENDED, task_id, kind, details)


def _hold(lifeline: int) -> None:
    while os.read(lifeline, 64):
        pass
    os._exit(0)


_limited = False  # an operation with a time limit runs now
# Seconds until an alarm that nobody heard comes again. CPython 3.11 overlooks a signal that comes while a thread takes
# the interpreter, between reading one flag and writing another, until it is taken again; whoever computes alone never
# takes it. At the next signal it looks.
REPEAT = 0.1


def _alarm(signum: int, frame: FrameType | None) -> None:
    if _limited:
        _set_alarm(0)  # it was heard: what cleans up now is not disturbed again
        raise TimeLimit("its time limit is over")


def _set_alarm(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT if seconds else 0)


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimeLimit in the block after so many seconds. One within another does not outlast it."""
    global _limited
    if seconds is None:
        yield
        return
    outer = _limited
    left = signal.getitimer(signal.ITIMER_REAL)[0]
    began = monotonic()
    try:
        _limited = True
        _set_alarm(min(seconds, left) if left else seconds)
        yield
    finally:
        _limited = outer
        # At least a moment: none would mean no limit.
        _set_alarm(max(0.001, left - (monotonic() - began)) if left else 0)


def execute(
    name: str,
    args: bytes,
    more: list[bytes],
    told: dict[str, Any],
    link: Link | None = None,
    limit: float | None = None,
    max_payload: int = 1 << 20,
) -> tuple[str, dict[str, Any]]:
    """Run one operation, or a job's turn; return how it ended. Never raises."""
    operation: Registered | None = None
    context: Context | None = None
    try:
        operation = find_operation(name)
        calls: tuple[Any, ...] = ()
        if "turn" not in told:
            calls = tuple(codecs.decode(one) for one in (args, *more))
            if chunks.is_chunk(calls[0]):  # whose inputs have the time limit, each
                return _did_chunk(calls[0], codecs.codec_of(args), told, link, max_payload)
        with _time_limit(limit if isinstance(link, _Link) else None):
            if "turn" in told:
                return _turned(operation, told, link, max_payload)
            context = Context(
                told,
                tuple(call[0] for call in calls),
                link,
                codec=codecs.codec_of(args),
                max_payload=max_payload,
            )
            result = operation.bind(calls[0])(context)
        children = _packed_children(context.children, max_payload)
        kept = values.dumps(context.data) if context.data else b""
        _check_size("what it keeps for its next step", len(kept), max_payload)
        if isinstance(result, Next):
            details = {"step": result.step, "after": float(result.after), "data": kept, "children": children}
            return frames.CONTINUES, details
        results = [asdict(one) for one in context.results(result)]
        if context.weight > 1:
            result = None  # its job has the results of its inputs
        payload = codecs.encode(result, codecs.codec_of(args))
        _check_size("its result", len(payload), max_payload)
        return frames.RETURNED, {"payload": payload, "children": children, "results": results}
    except Cancelled:
        return frames.STOPPED, {}
    except chunks.InputFailed as failed:  # it was tried again already
        return frames.RAISED, {**failed.details, "transient": False, "after": None}
    except BaseException as error:  # noqa: BLE001  SystemExit and all: the process lives on, the task is told
        if context is not None:
            context.keep_recorded()
        return frames.RAISED, described(error, operation)


def told_of(claim: Claim, worker: str, grace: float = 10.0) -> dict[str, Any]:
    """What `execute` is told of a claimed task besides its arguments. `grace` is what a job's `on_cancel` has."""
    task = claim.task
    told: dict[str, Any] = {
        "task_id": task.task_id,
        "fence": claim.fence,
        "attempt": task.attempts + 1,
        "step": task.step,
        "data": task.data,
        "job_id": task.job_id,
        "meta": task.meta,
        "worker": worker,
        "index": task.index,
        "weight": task.weight,
        "recorded": task.recorded,
    }
    if claim.turn is not None:
        told.update(turn=asdict(claim.turn), grace=grace)
    return told


def end_of(claim: Claim, kind: str, details: dict[str, Any]) -> Finish | None:
    """What to report of an execution that went well; None when it failed, or stopped."""
    task_id, fence = claim.task.task_id, claim.fence
    children = tuple(NewTask(**row) for row in details.get("children", ()))
    match kind:
        case frames.RETURNED:
            results = tuple(Result(**row) for row in details["results"])
            return Finish(task_id, fence, Ending.DONE, details["payload"], children=children, results=results)
        case frames.TURNED:
            return Finish(task_id, fence, Ending.TURN, turn=_turn_end(details["turn"]), children=children)
        case frames.CONTINUES:
            return Finish(
                task_id, fence, Ending.AGAIN, after=details["after"], step=details["step"], data=details["data"],
                children=children,
            )  # fmt: skip
    return None


def _turn_end(row: dict[str, Any]) -> TurnEnd:
    return TurnEnd(
        **{
            **row,
            "state": None if row["state"] is None else JobState(row["state"]),
            "replies": tuple((signal_id, reply) for signal_id, reply in row["replies"]),
            "timers": tuple(Timer(**one) for one in row["timers"]),
        }
    )


def _packed_children(children: Sequence[NewTask], max_payload: int) -> list[dict[str, Any]]:
    for child in children:
        _check_size(f"the arguments of its child {child.task_id} ({child.op})", len(child.args), max_payload)
    together = sum(len(child.args) for child in children)
    _check_size(f"the arguments of its {len(children)} children", together, MAX_CHILDREN_BYTES)
    return [asdict(child) for child in children]


def _turned(
    operation: Registered, told: dict[str, Any], link: Link | None, max_payload: int
) -> tuple[str, dict[str, Any]]:
    if not isinstance(operation, JobOperation):
        raise Fatal(
            f"{operation.name} is the class of a job, and an operation here; does the worker have another release?"
        )
    end, children = take_turn(
        operation.job_class,
        turn_of(told["turn"]),
        worker=told["worker"],
        max_payload=max_payload,
        grace=told["grace"],
        limited=_time_limit if isinstance(link, _Link) else None,
    )
    for what, data in (("its result", end.result), ("its data", end.data)):
        _check_size(f"job {told['task_id']}: {what}", len(data or b""), max_payload)
    return frames.TURNED, {"turn": asdict(end), "children": _packed_children(children, max_payload)}


def _did_chunk(
    call: Sequence[Any], codec: str, told: dict[str, Any], link: Link | None, max_payload: int
) -> tuple[str, dict[str, Any]]:
    """Do a chunk of a directive. What it has done is recorded now and then, so that a crash repeats little."""
    context = Context(told, (), link)
    program, inputs = chunks.unpack(call)
    index, folds = told.get("index") or 0, program.fold is not None

    def rows_of(rows: Sequence[chunks.Row]) -> list[dict[str, Any]]:
        return [asdict(Result(index + row.offset, row.size, row.value, row.failed)) for row in rows]

    def keep(rows: Sequence[chunks.Row], done: int, part: tuple[Any, ...]) -> None:
        assert link is not None
        data = values.dumps({"done": done, "part": part}) if folds else None
        if len(data or b"") <= max_payload:
            link.send(frames.RECORDED, told["task_id"], rows_of(rows), data)

    around = chunks.Surroundings(
        context,
        codec,
        alone=len(inputs) == 1 or (folds and not program.steps and told.get("index") is None),
        recorded=context.data.get("done", 0) if folds else told.get("recorded", 0),
        part=context.data.get("part", ()),
        max_bytes=max_payload,
        keep=keep if link is not None else None,
        limited=_time_limit if isinstance(link, _Link) else None,
    )
    produced = chunks.run_chunk(program, inputs, around)
    payload = codecs.encode(produced.part if folds else None, codec)
    _check_size("what it was folded to", len(payload), max_payload)
    children = _packed_children(context.children, max_payload)
    return frames.RETURNED, {"payload": payload, "children": children, "results": rows_of(produced.rows)}


def turn_of(row: dict[str, Any]) -> Turn:
    """The turn of what a frame has of it: `dataclasses.asdict`, whatever that went through."""
    job = Job(
        **{**row["job"], "state": JobState(row["job"]["state"]), "notify": Notify(row["job"]["notify"])}
    )
    return Turn(job, tuple(Inbox(**one) for one in row["inbox"]))


def _check_size(what: str, size: int, limit: int) -> None:
    if size > limit:
        raise Fatal(
            f"{what} has {size} bytes, and {limit} are allowed; put it where others can read it, and say where"
        )


if __name__ == "__main__":
    # As a module of its own name, so that what user code imports is the same code.
    from cluster.executor import main as _main

    _main()
