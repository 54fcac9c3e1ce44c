"""What a recording is made of: events, the lines of the tasklets they happen to, the messages between these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

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
