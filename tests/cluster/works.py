"""Job classes, and their signals and operations, that the tests let workers run."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from cluster import Cancel, Fatal, Finish, Job, Next, Notify, Reply, Retry, TaskEnded, job, operation
from tasklets import message
from tests.cluster.ops import QUICK, write


@message
class AddFunds:
    amount: int


@message
class Ask:
    what: str


@message
class Unheard:
    """No job handles it."""


@operation
def check(ctx: Any, shard: int, seconds: float = 0.0) -> int:
    """The partial sum of a shard."""
    ctx.log.info("shard %d", shard)
    time.sleep(seconds)
    return sum(range(shard * 10, shard * 10 + 10))


class Audit(Job):
    """Sums what its tasks find."""

    def start(self, params: Any) -> None:
        for shard in range(params["shards"]):
            self.spawn(check, shard, params.get("seconds", 0.0))

    def on_task_done(self, task: TaskEnded, result: int) -> None:
        self.data["sum"] = self.data.get("sum", 0) + result
        self.data["checked"] = self.data.get("checked", 0) + 1

    def on_all_done(self) -> None:
        self.log.info("all %d shards are checked", self.done)
        self.finish(self.data.get("sum", 0), f"{self.data.get('checked', 0)} shards")


@job(retry=QUICK)
class Account(Job):
    """Reacts to signals, and writes when its handlers begin and end."""

    def start(self, params: Any) -> None:
        self.data.update(balance=0, starts=1, names=())

    def on_restart(self, params: Any) -> None:
        self.data["starts"] += 1
        self.data["names"] += (params,)

    def on_signal_AddFunds(self, signal: AddFunds) -> int:
        write("begin", self.job_id, self.signal_id)
        self.data["balance"] += signal.amount
        if signal.amount < 0:
            self.spawn(check, 1)
            self.after(0.0, "never")
            raise ValueError(f"no negative amount: {signal.amount}")
        write("end", self.job_id, self.signal_id)
        return int(self.data["balance"])

    def on_signal_Ask(self, signal: Ask) -> Any:
        match signal.what:
            case "sender":
                return self.sender
            case "worker":
                return self.worker
            case "pid":
                return os.getpid()
            case "reply":
                return Reply({"free": "form"}, status="ok")
            case "large":
                self.data["large"] = "x" * (2 << 20)
            case "finish":
                self.finish(self.data["balance"], "asked to")
            case "object":
                return object()
            case "slowly":
                write("slowly", self.worker)
                time.sleep(1)
                self.data["balance"] += 1
                return int(self.data["balance"])
            case "exit":
                os._exit(1)
        return None

    def on_timer(self, name: str, body: Any) -> None:
        raise AssertionError(f"the timer {name} was undone")

    def on_finish(self, signal: Finish) -> str:
        if signal.text == "not yet":
            raise ValueError("it is too early")
        self.finish(self.data["balance"])
        return "goodbye"

    def on_cancel(self, signal: Cancel) -> str:
        write("cancel", self.job_id)
        if signal.reason == "stubborn":
            with contextlib.suppress(Exception):
                time.sleep(60)
            time.sleep(60)
        if signal.reason == "raise":
            raise ValueError("I will not")
        if signal.reason == "exit":
            os._exit(1)
        self.data["cleaned"] = True
        return "cleaned up"


@operation
def hold(mark: str, seconds: float = 60.0) -> None:
    """Run for long, and not hear of anything."""
    write("hold", mark)
    time.sleep(seconds)
    write("held", mark)


@operation
def obey(ctx: Any, mark: str) -> None:
    """Run until it is asked to stop."""
    write("obey", mark)
    try:
        while True:
            ctx.check()
            time.sleep(0.01)
    finally:
        write("obeyed", mark)


class Crowd(Job):
    """Has tasks that do not end by themselves."""

    def start(self, params: Any) -> None:
        for number in range(params["count"]):
            self.spawn({"hold": hold, "obey": obey}[params["op"]], f"{params.get('mark', '')}{number}")

    def on_cancel(self, signal: Cancel) -> None:
        write("cleanup", self.job_id)


@operation(retry=Retry(max=0))
def must(ok: bool, error: str = "it cannot be") -> str:
    if not ok:
        raise Fatal(error)
    return "fine"


@operation(retry=Retry(max=0), on_failure="terminate")
def vital(number: int, bad: int) -> int:
    write("vital", number)
    if number == bad:
        raise ValueError(f"number {number} is bad")
    return number


@operation(retry=Retry(max=0), on_failure="ignore")
def optional(number: int, bad: int) -> int:
    if number == bad:
        raise ValueError(f"number {number} is bad")
    return number


class Tolerant(Job):
    """Counts what fails, if it is told."""

    def start(self, params: Any) -> None:
        op = {"must": must, "vital": vital, "optional": optional}[params["op"]]
        for number in range(params["count"]):
            if op is must:
                self.spawn(op, number != params["bad"], meta=f"m{number}")
            else:
                self.spawn(op, number, params["bad"])
        self.data["errors"] = ()

    def on_task_done(self, task: TaskEnded, result: Any) -> None:
        self.data["good"] = self.data.get("good", 0) + 1

    def on_task_failed(self, task: TaskEnded, error: Exception) -> None:
        self.data["errors"] += ((type(error).__name__, str(error), task.meta, task.state),)

    def on_all_done(self) -> None:
        self.finish((self.done, self.failed, self.data["errors"]))


@job(retry=QUICK, notify=Notify.LAST)
class Counted(Job):
    """Is told only when all is over."""

    def start(self, params: int) -> None:
        for number in range(params):
            self.spawn(check, number, index=number)

    def on_all_done(self) -> None:
        self.finish((self.done, self.failed, self.total))


@job(fail_fast=True, retry=QUICK)
class Hasty(Job):
    """Fails with its first task."""

    def start(self, params: Any) -> None:
        for number in range(params["count"]):
            self.spawn(vital, number, params["bad"], index=number)


@job(retry=QUICK)
class Clumsy(Job):
    """Raises where it is told to, and so often."""

    def start(self, params: Any) -> None:
        write("start", self.job_id)
        if params["where"] == "start":
            raise ValueError("start failed")
        if params["where"] == "once" and not os.path.exists(params["path"]):
            open(params["path"], "w").close()
            raise ValueError("start failed once")
        self.data["started"] = True
        if params["where"] == "task":
            self.spawn(check, 1)
        if params["where"] == "return":
            return 5  # type: ignore[return-value]
        if params["where"] == "step":
            return Next("nowhere")  # type: ignore[return-value]
        if params["where"] in ("once", "finish"):
            self.finish("started")
        return None

    def on_task_done(self, task: TaskEnded, result: int) -> None:
        self.data["told"] = True
        raise ValueError("told of it, and failed")


@job(retry=QUICK)
class Sleeper(Job):
    """Sleeps between its steps."""

    def start(self, params: Any) -> Next:
        self.data["slices"] = 0
        return Next("wake", after=params["after"])

    def step_wake(self) -> Next | None:
        write("wake", self.job_id, self.worker)
        self.data["slices"] += 1
        if self.data["slices"] < self.params.get("slices", 1):
            return Next("wake", after=self.params["after"])
        self.finish(self.data["slices"])
        return None

    def on_signal_Ask(self, signal: Ask) -> int:
        return int(self.data["slices"])


class Clock(Job):
    """Sets timers, replaces one, and forgets one."""

    def start(self, params: Any) -> None:
        self.data["rang"] = ()
        self.after(0.05, "first", {"n": 1})
        self.after(60, "replaced", "late")
        self.after(0.2, "replaced", "soon")
        self.after(0.1, "forgotten")
        self.cancel_timer("forgotten")

    def on_timer(self, name: str, body: Any) -> None:
        self.data["rang"] += ((name, body),)
        if name == "replaced":
            self.finish(self.data["rang"])
