"""One process's recording as data from which several are merged: what `save("run.json")` adds for that.

Times are seconds since the recording began; `wall` and `monotonic` are that moment by two clocks. Processes with the
same `clock` have the same monotonic one: a boot of one machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tasklets.trace._events import Crossing, Event, Line, Message

FORMAT: Final = 1
KEY: Final = "tasklets"  # beside "traceEvents"


@dataclass(frozen=True, slots=True)
class Document:
    """What one process has recorded."""

    node: str
    pid: int
    clock: str  # empty: of no known machine
    wall: float
    monotonic: float
    dropped: int
    events: tuple[Event, ...]
    crossings: tuple[Crossing, ...]


def this_clock() -> str:
    """The `clock` of this process."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def encode(document: Document) -> dict[str, Any]:
    """Return it as JSON has it."""
    lines: dict[int, Line] = {}
    messages: dict[int, Message] = {}
    for event in document.events:
        lines[event.line.number] = event.line
        if event.message is not None:
            messages[event.message.number] = event.message
    for crossing in document.crossings:
        if crossing.message is not None:
            messages[crossing.message.number] = crossing.message
    for message in messages.values():
        for line in (message.sender, message.receiver):
            if line is not None:
                lines[line.number] = line
    return {
        "format": FORMAT,
        "node": document.node,
        "pid": document.pid,
        "clock": document.clock,
        "wall": document.wall,
        "monotonic": document.monotonic,
        "dropped": document.dropped,
        "lines": [[line.number, line.name, line.thread] for line in lines.values()],
        "messages": [
            [
                each.number,
                each.sender and each.sender.number,
                each.receiver and each.receiver.number,
                each.channel,
                each.text,
            ]
            for each in messages.values()
        ],
        "events": [
            [event.time, event.kind, event.line.number, event.text, event.message and event.message.number]
            for event in document.events
        ],
        "crossings": [
            [each.time, each.leaves, each.key, each.message and each.message.number]
            for each in document.crossings
        ],
    }


def decode(data: Any) -> Document:
    """The other way. Raises ValueError when it is something else, or of another release."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else None
        raise ValueError(f"format {FORMAT} of a recording is wanted, not {found!r}")
    try:
        lines = {number: Line(number, name, thread) for number, name, thread in data["lines"]}
        messages: dict[int, Message] = {}
        for number, sender, receiver, channel, text in data["messages"]:
            one = messages[number] = Message(number, lines.get(sender), channel, text)
            one.receiver = lines.get(receiver)
        return Document(
            data["node"],
            data["pid"],
            data["clock"],
            float(data["wall"]),
            float(data["monotonic"]),
            data["dropped"],
            tuple(
                Event(time, kind, lines[line], text, messages.get(message))
                for time, kind, line, text, message in data["events"]
            ),
            tuple(
                Crossing(time, leaves, key, messages.get(message))
                for time, leaves, key, message in data["crossings"]
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"what is said of the recording is damaged: {error!r}") from None


def read(path: Path) -> Document:
    """Read a file that `save` wrote. Raises ValueError naming the file and what is wrong, OSError."""
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(whole, dict) or KEY not in whole:
            raise ValueError(
                'there is no recording of tasklets in it; write one with recording.save("run.json")'
            )
        return decode(whole[KEY])
    except ValueError as error:  # also of the JSON
        raise ValueError(f"{path} cannot be merged: {error}") from None
