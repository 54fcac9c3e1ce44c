"""Signals: typed messages to a job, which handles them one at a time and answers.

    @message
    class AddFunds:
        amount: int

    reply = client.signal(job_id, AddFunds(5), timeout=2)      # Reply(status="ok", value=...)

Any `@message` class is a signal, known by its name; `Signal("add", 5)` is one without a class. Those below have a
meaning of their own. Not here: what a job does about them, which is `cluster.jobs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cluster import codecs
from cluster.errors import InvalidArguments
from cluster.records import Inbox, Job, JobState, NewSignal, make_id
from net import values
from tasklets import NotSendable
from tasklets.messages import message_names, message_types


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal without a class: a name, and a value that can travel."""

    name: str
    body: Any = None


@dataclass(frozen=True, slots=True)
class _WithReason:
    reason: str = ""


class Cancel(_WithReason):
    """End the job: `on_cancel` may clean up, within the grace, and may not refuse; then its tasks are cancelled."""


@dataclass(frozen=True, slots=True)
class Finish:
    """End the job normally, with a text: after `on_finish`."""

    text: str = ""


class Terminate(_WithReason):
    """End the job at once, without a word of its own; what runs of it is killed."""


@dataclass(frozen=True, slots=True)
class Finalize:
    """End the job, and forget it with all that is its own."""


class Pause(_WithReason):
    """Start no more of its tasks. Signals are answered, what runs goes on."""


class Suspend(_WithReason):
    """Start no more of its tasks, and handle no signals either, until it is resumed."""


class Resume(_WithReason):
    """Go on after Pause or Suspend."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a signal. A handler returns one to say more than a value.

    - "ok": it was handled, `value` is what the handler returned
    - "unknown": the job's class has no handler for it
    - "failed": its handler raised; `error` has kind, message and traceback. What it had changed is undone
    - "ended": the job has ended, before or instead
    - "not_found": there is no such job (any more)
    - "timeout": no reply within the time. The signal stays in the inbox; `client.reply(job_id, signal_id)` reads
      what it is answered later, and sending it again with the same id changes nothing
    """

    value: Any = None
    status: str = "ok"
    error: Mapping[str, Any] | None = None
    signal_id: str = ""
    job: Job | None = field(default=None, repr=False)  # as it was after that; too long to be read in a line


# A handler returns it when the answer is still to come, by `Job.reply`, in a later turn; the sender waits for that.
LATER: Final = Reply(status="later")

# What the store does by itself, without a turn of the job.
CHANGES: Final = {
    Terminate: JobState.TERMINATED,
    Pause: JobState.PAUSED,
    Suspend: JobState.SUSPENDED,
    Resume: JobState.RUNNING,
}
BY_NAME: Final = {
    cls.__name__.lower(): cls for cls in (Cancel, Finish, Terminate, Finalize, Pause, Suspend, Resume)
}


def to_send(signal: Any, *, signal_id: str | None = None, by: str = "") -> NewSignal:
    """What the inbox gets of a signal. Raises InvalidArguments for what is none, or cannot travel."""
    kind, name, body, reason = "signal", "", signal, ""
    if isinstance(signal, Cancel | Finish):
        kind, name = type(signal).__name__.lower(), type(signal).__name__
        body = reason = signal.reason if isinstance(signal, Cancel) else signal.text
    elif isinstance(signal, Signal):
        name, body = signal.name, signal.body
    elif type(signal) in message_types:
        name = message_types[type(signal)].name
    else:
        raise InvalidArguments(
            f"{signal!r} is no signal; send an instance of a @message class, Signal(name, value), or one of "
            f"{', '.join(cls.__name__ for cls in BY_NAME.values())}"
        )
    if not name:
        raise InvalidArguments("a signal needs a name: Signal('add', 5)")
    try:
        data = codecs.encode(body)
    except NotSendable as error:
        raise InvalidArguments(f"the signal {name} cannot travel: {error}") from error
    return NewSignal(kind, name, data, signal_id or make_id(), by, reason)


def received(row: Inbox) -> Any:
    """The signal of an inbox row, as its handler is given it.

    A mapping under a registered message's name becomes that message, so that JSON can be sent for one.
    Raises what reading it raises: its class may be unknown here.
    """
    value = codecs.decode(row.body) if row.body else None
    if row.kind == "cancel":
        return Cancel(value or "")
    if row.kind == "finish":
        return Finish(value or "")
    known = message_names.get(row.name)
    if known is not None and isinstance(value, known.cls):
        return value
    if known is not None and isinstance(value, Mapping):
        return known.cls(**value)
    return Signal(row.name, value)


def packed_reply(reply: Reply) -> bytes:
    """The bytes that are kept of a reply. Raises NotSendable."""
    return values.dumps({"status": reply.status, "value": reply.value, "error": reply.error})


def unpacked_reply(data: bytes, signal_id: str, job: Job | None = None) -> Reply:
    """The reply of its bytes. Raises net.values.Unreadable."""
    kept = values.loads(data)
    return Reply(kept["value"], kept["status"], kept["error"], signal_id, job)
