"""Turn what the scheduler tells into the events of a recording."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from itertools import count
from reprlib import Repr
from threading import get_ident
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from tasklets._core import bomb, getcurrent
from tasklets._watch import change_watch, watch
from tasklets.trace._events import Crossing, Line, Message
from tasklets.trace._recording import MAX_EVENTS, Recording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasklets._core import Entry, channel, tasklet

MAX_TEXT = 60  # characters of a message's repr


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


class Border(Protocol):
    """Sees messages of this process go to others, and theirs arrive, while something is recorded."""

    def end(self) -> None:
        """Look no more."""

    def message_of(self, entry: Entry) -> Message | None:
        """The message that waits in the queue of a channel for somebody elsewhere. It is asked for once."""


# What makes the border of a process to others, for a recording that begins: the package `net`, once it is imported.
borders: list[Callable[[Watcher], Border]] = []


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
