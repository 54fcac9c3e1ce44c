"""Collect what the scheduler tells, within bounds of memory."""

from __future__ import annotations

import os
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from reprlib import Repr
from threading import get_ident
from time import perf_counter, time
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from tasklets._core import bomb, change_watch, getcurrent, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasklets._core import Entry, channel, tasklet

MAX_EVENTS = 20_000  # 3 MB or so
MAX_TEXT = 60  # characters of a message's repr

Kind = Literal["start", "run", "yield", "wait", "send", "receive", "end", "fail"]


class Line:
    """One tasklet, as long as an event speaks of it."""

    __slots__ = ("name", "node", "number", "thread")

    def __init__(self, number: int, name: str, thread: int, node: str = "") -> None:
        self.number = number
        self.name = name
        self.thread = thread
        self.node = node  # the process it is in, where several are shown together

    def __repr__(self) -> str:
        return f"<Line {self.number} {self.label!r}>"

    @property
    def label(self) -> str:
        """The name, and where it is when there are several processes."""
        return f"{self.name} at {self.node}" if self.node else self.name


class Message:
    """One message on its way. Who sends or receives outside of what is recorded stays None."""

    __slots__ = ("channel", "number", "receiver", "sender", "text")

    def __init__(self, number: int, sender: Line | None, channel: str, text: str) -> None:
        self.number = number
        self.sender = sender
        self.receiver: Line | None = None
        self.channel = channel
        self.text = text


class Crossing(NamedTuple):
    """Something left for another process, or came from one. Both ends have the same `key`, and nothing else has it.

    What is no message (a question, an answer) says by it how the two clocks stand to each other.
    """

    time: float  # seconds since the recording began
    leaves: bool  # or arrives
    key: str
    message: Message | None


class Border(Protocol):
    """Sees messages of this process go to others, and theirs arrive, while something is recorded."""

    def end(self) -> None:
        """Look no more."""

    def message_of(self, entry: Entry) -> Message | None:
        """The message that waits in the queue of a channel for somebody elsewhere. It is asked for once."""


# What makes the border of a process to others, for a recording that begins: the package `net`, once it is imported.
borders: list[Callable[[Watcher], Border]] = []


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one tasklet.

    `kind`: "start", "run" (its turn begins), "yield" and "wait" (its turn
    ends), "send", "receive", "end", "fail". `text` says what it waits for, or how it failed.
    """

    time: float  # seconds since the recording began
    kind: Kind
    line: Line
    text: str = ""
    message: Message | None = None

    @property
    def tasklet(self) -> str:
        return self.line.name

    def describe(self) -> str:
        """What happened, in words."""
        message = self.message
        if message is not None and self.kind == "send":
            onto = f" to {message.receiver.label}" if message.receiver is not None else ""
            return f"sends {message.text}{onto} on {message.channel}"
        if message is not None:
            source = f" from {message.sender.label}" if message.sender is not None else ""
            return f"receives {message.text}{source} on {message.channel}"
        words = {
            "start": "starts",
            "run": "runs",
            "yield": "lets others run",
            "end": "ends",
        }
        if self.kind == "wait":
            return f"waits: {self.text}"
        if self.kind == "fail":
            return f"fails: {self.text}"
        return words[self.kind]


@contextmanager
def record(limit: int = MAX_EVENTS) -> Iterator[Recording]:
    """Record what tasklets do in a block: `with trace.record() as recording: run()`.

    Of more than `limit` events the last are kept. Records all OS threads. Messages are kept as short reprs,
    never as objects. Recording costs some microseconds per event, and may be nested; not inside `testing.explore`.
    """
    recording = Recording(limit)
    watcher = Watcher(recording)
    watcher.begin()
    try:
        yield recording
    finally:
        watcher.end()


class Recording:
    """What was recorded: `events` in their order. Shows itself as a diagram in notebooks, as a table by print()."""

    def __init__(self, limit: int = MAX_EVENTS) -> None:
        self.node = f"pid {os.getpid()}"  # what a merged picture calls this process
        self._events: deque[Event] = deque(maxlen=limit)
        self._crossings: deque[Crossing] = deque(maxlen=limit)
        self._total = 0
        self._wall = time()  # of the beginning, by two clocks
        self._began = perf_counter()

    @property
    def events(self) -> tuple[Event, ...]:
        """The events that were kept, oldest first."""
        return tuple(self._events)

    @property
    def dropped(self) -> int:
        """How many older events there was no room for."""
        return self._total - len(self._events)

    def __len__(self) -> int:
        return len(self._events)

    def __repr__(self) -> str:
        names = {event.line.number for event in self._events}
        older = f", {self.dropped} older ones dropped" if self.dropped else ""
        return f"<Recording events={len(self)} tasklets={len(names)}{older}>"

    def __str__(self) -> str:
        from tasklets.trace._table import as_text

        return as_text(self)

    def svg(self, *, max_events: int = 800) -> str:
        """The space-time diagram: a line per tasklet, time running down, an arrow per message.

        Of more than `max_events` events the last are drawn.
        """
        from tasklets.trace._diagram import draw

        return draw(self, max_events, standalone=True)

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_html_(self) -> str:
        from tasklets.trace._diagram import draw

        return f'<div style="overflow:auto;max-height:640px">{draw(self, 800, standalone=False)}</div>'

    def save(self, path: str | Path) -> None:
        """Write the diagram (.svg), a page with it (.html), or the data for Perfetto (.json).

        A .json can also be merged with those of other processes: `trace.merge`, `tasklets trace merge`.
        """
        from tasklets.trace import _export

        target = Path(path)
        if target.suffix == ".svg":
            text = self.svg()
        elif target.suffix == ".html":
            text = _export.page(self)
        elif target.suffix == ".json":
            text = _export.chrome(self)
        else:
            raise ValueError(f"save() writes .svg, .html and .json, not {target.name!r}")
        target.write_text(text, encoding="utf-8")

    def now(self) -> float:
        """Seconds since the recording began."""
        return perf_counter() - self._began

    def _add(
        self,
        kind: Kind,
        line: Line,
        text: str = "",
        message: Message | None = None,
        at: float | None = None,
    ) -> None:
        self._total += 1
        self._events.append(Event(self.now() if at is None else at, kind, line, text, message))


_short = Repr()
_short.maxstring = _short.maxother = _short.maxlong = MAX_TEXT
_short.maxlevel = 3


def short(value: object) -> str:
    """A repr of bounded length that never raises."""
    try:
        if type(value) is bomb:
            text = f"! {_short.repr(value.value)}"
        else:
            text = _short.repr(value)
    except Exception:  # noqa: BLE001  a repr of somebody else's
        text = f"<{type(value).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."


class Watcher:
    """Turns the callbacks of the scheduler into events. An exception here would hit the program: there is none."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._lines: WeakKeyDictionary[tasklet, Line] = WeakKeyDictionary()
        self._names: dict[str, int] = {}
        self._channels: WeakKeyDictionary[channel, str] = WeakKeyDictionary()
        self._numbers = count(1)
        # The messages that are somewhere: with a sender that waits, in a channel, or with a receiver that was woken.
        self._offered: WeakKeyDictionary[tasklet, Message] = WeakKeyDictionary()
        self._in_room: WeakKeyDictionary[channel, deque[Message]] = WeakKeyDictionary()
        self._arriving: WeakKeyDictionary[tasklet, Message] = WeakKeyDictionary()
        self._borders: list[Border] = []
        # What its sender has just given to somebody who is no tasklet here: it may be about to leave the process.
        self.in_hand: Message | None = None

    def begin(self) -> None:
        self._recording._add("run", self._line(getcurrent()))
        self._borders = [make(self) for make in borders]
        change_watch(switched=(*watch.switched, self.switched), acting=(*watch.acting, self.acting))

    def end(self) -> None:
        change_watch(
            switched=tuple(each for each in watch.switched if each != self.switched),
            acting=tuple(each for each in watch.acting if each != self.acting),
        )
        for border in self._borders:
            border.end()

    # -- callbacks ---------------------------------------------------------------------------------------------

    def switched(self, previous: tasklet | None, following: tasklet) -> None:
        """Before each switch."""
        if previous is not None:
            self._leaves(previous, following)
        is_new = following not in self._lines
        line = self._line(following)
        if is_new and following._call is not None:
            self._recording._add("start", line)
        self._recording._add("run", line)
        message = self._arriving.pop(following, None)
        if message is not None:
            self._recording._add("receive", line, message=message)

    def _leaves(self, one: tasklet, following: tasklet) -> None:
        add, line = self._recording._add, self._line(one)
        if one.blocked:
            add("wait", line, self._wait_of(one))
        elif one.alive:
            add("yield", line)
        else:
            failure = self._failure_of(one, following)
            if failure is not None and not isinstance(failure, SystemExit):
                add("fail", line, short(failure))
            else:
                add("end", line)
            self._offered.pop(one, None)

    def _failure_of(self, one: tasklet, following: tasklet) -> BaseException | None:
        """What left a tasklet: it has just been handed to the one that goes on, or to its nursery."""
        found: BaseException | None = getattr(one, "_failure", None)
        if found is None and type(following.tempval) is bomb and following not in self._arriving:
            handed: BaseException = following.tempval.value
            # One without a traceback was raised nowhere: a kill, or a channel that was closed.
            found = handed if handed.__traceback__ is not None else None
        return found

    def acting(self, where: channel, me: tasklet, sending: int, will_block: int) -> None:
        """Before each action on a channel."""
        if sending:
            self._sends(where, me, bool(will_block))
        elif not will_block:
            self._receives(where, me)

    def _sends(self, where: channel, me: tasklet, will_block: bool) -> None:
        message = self._message(self._line(me), where, me.tempval)
        if will_block:
            if where.closing or me.block_trap:
                return  # it will be refused
            self._offered[me] = message
        elif where._balance < 0:
            self._give(where.queue, message)
        else:
            self._in_room.setdefault(where, deque()).append(message)
        self._recording._add("send", self._line(me), message=message)

    def _give(self, receiver: tasklet | None, message: Message) -> None:
        """Somebody who waits is given a message: a tasklet here, or somebody who is none."""
        self.in_hand = message if receiver is None else None
        if receiver is not None:
            message.receiver = self._line(receiver)
            self._arriving[receiver] = message

    def _receives(self, where: channel, me: tasklet) -> None:
        message = self.next_of(where)
        if message is not None:
            message.receiver = self._line(me)
            self._recording._add("receive", self._line(me), message=message)

    def next_of(self, where: channel) -> Message | None:
        """The message that is about to be taken out of a channel; None when there is none."""
        if where._buffer:
            waiting = self._in_room.get(where)
            message = waiting.popleft() if waiting else self._message(None, where, where._buffer[0])
            if where._balance > 0:  # the first sender's message moves in
                self._in_room.setdefault(where, deque()).append(self._offer_of(where))
            return message
        return self._offer_of(where) if where._balance > 0 else None

    def _offer_of(self, where: channel) -> Message:
        """The message of the first sender in the queue of a channel."""
        sender = where.queue
        found = self._offered.pop(sender, None) if sender is not None else None
        for border in self._borders if sender is None else ():
            found = found or border.message_of(where._first)
        if found is None:  # it waits since before the recording, or in a select
            line = self._line(sender) if sender is not None else None
            found = self._message(line, where, where._first.tempval)
            if line is not None:
                self._recording._add("send", line, message=found)
        return found

    # -- messages from and to other processes ------------------------------------------------------------------

    def now(self) -> float:
        """Seconds since the recording began."""
        return self._recording.now()

    def crosses(self, key: str, message: Message | None, *, leaves: bool, at: float | None = None) -> None:
        """Something has left for another process, or has come from one."""
        at = self._recording.now() if at is None else at
        self._recording._crossings.append(Crossing(at, leaves, key, message))

    def sends_away(self, sender: tasklet | None, where: channel, value: object) -> Message:
        """A tasklet (None: nobody is known) sends a message to a channel that lives elsewhere."""
        message = self._message(self._line(sender) if sender is not None else None, where, value)
        if message.sender is not None:
            self._recording._add("send", message.sender, message=message)
        return message

    def comes_from_away(self, where: channel, value: object) -> Message:
        """A message has come from another process. Who gets it is told by `arrives_for` or `arrives_in`."""
        return self._message(None, where, value)

    def arrives_for(self, receiver: tasklet, message: Message) -> None:
        """It is given to a tasklet that waits for it."""
        self._give(receiver, message)
        if (
            receiver._scheduler.last_run is receiver
        ):  # nobody has run since it began to wait: no switch is announced
            del self._arriving[receiver]
            line, events = self._line(receiver), self._recording._events
            since = events[-1].time if events and events[-1].line is line else self.now()
            self._recording._add("wait", line, f"receive from {message.channel}", at=since)
            self._recording._add("run", line)
            self._recording._add("receive", line, message=message)

    def arrives_in(self, where: channel, message: Message) -> bool:
        """It comes to a channel that lives here; False when there is neither a receiver nor room."""
        if where._balance < 0:
            receiver = where.queue
            if receiver is not None:
                self.arrives_for(receiver, message)
            else:
                self._give(None, message)
        elif where._buffer is not None and len(where._buffer) < where.capacity:
            self._in_room.setdefault(where, deque()).append(message)
        else:
            return False
        return True

    def comes_back(self, where: channel, message: Message) -> None:
        """Somebody elsewhere did not take it: it is the first again of those that have room."""
        if where._buffer is not None:
            self._in_room.setdefault(where, deque()).appendleft(message)

    def call_process(self, name: str) -> None:
        """Name this process in merged pictures."""
        self._recording.node = name

    # -- names -------------------------------------------------------------------------------------------------

    def _message(self, sender: Line | None, where: channel, value: object) -> Message:
        return Message(next(self._numbers), sender, self._channel(where), short(value))

    def _line(self, one: tasklet) -> Line:
        line = self._lines.get(one)
        if line is None:
            name = one.name.rpartition("<locals>.")[2] or "tasklet"
            number = self._names[name] = self._names.get(name, 0) + 1
            if number > 1:
                name = f"{name}#{number}"
            line = self._lines[one] = Line(next(self._numbers), name, get_ident())
        return line

    def _channel(self, where: channel) -> str:
        label = self._channels.get(where)
        if label is None:
            label = self._channels[where] = where.name or f"channel {len(self._channels) + 1}"
        return label

    def _wait_of(self, one: tasklet) -> str:
        where = one._channel
        if where is None:
            return " ".join(one.waits_for.split())[: 2 * MAX_TEXT]
        return f"{'receive from' if where._balance < 0 else 'send to'} {self._channel(where)}"
