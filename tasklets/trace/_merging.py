"""Put the recordings of several processes into one: who has which clock, which message is which, what came first.

Clocks. What leaves one process and arrives in another (a `Crossing`, known by its key) says that the second clock, put
right, was not behind the first then. From both directions together that is an interval for the difference of the two
clocks; its middle is taken, as NTP does, since nothing says which way was the slower one. Between clocks with traffic
in one direction only, the wall clocks are believed as far as that allows. Processes of one boot of one machine have
one clock.

Order. Each process's events keep their order, and are put between those of others by time, but no message is received
before it was sent: an event of which the (drifting) clocks say so is moved behind.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import TYPE_CHECKING

from tasklets.trace import _document
from tasklets.trace._events import Event, Line, Message
from tasklets.trace._recording import Recording

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tasklets.trace._document import Document

INFINITY = float("inf")


def merge(paths: Iterable[str | Path]) -> Recording:
    """Put recordings that were saved as .json by several processes into one, to be shown or saved as any other.

    Messages that crossed the network are joined; clocks are corrected by them, so that none is received before it was
    sent. Raises ValueError naming the file that holds no recording, OSError.
    """
    return merge_documents([_document.read(Path(path)) for path in paths])


def merge_documents(documents: Sequence[Document]) -> Recording:
    names = _names(documents)
    lines = {
        (index, line.number): Line(0, line.name, line.thread, names[index])
        for index, document in enumerate(documents)
        for line in _lines(document)
    }
    for number, line in enumerate(lines.values(), 1):
        line.number = number
    messages = _join(documents, lines)
    merged = Recording(max(1, sum(len(document.events) for document in documents)))
    merged.node = ", ".join(names)
    for at, index, event in _in_order(documents, starts(documents), messages):
        message = messages[index, event.message.number] if event.message is not None else None
        line = lines[index, event.line.number]
        merged._events.append(Event(at, event.kind, line, event.text, message))
    merged._total = len(merged._events) + sum(document.dropped for document in documents)
    return merged


def _names(documents: Sequence[Document]) -> list[str]:
    """A name for each process that no other has."""
    names: list[str] = []
    for document in documents:
        name, number = document.node, 1
        while name in names:
            number += 1
            name = f"{document.node}#{number}"
        names.append(name)
    return names


def _lines(document: Document) -> list[Line]:
    found: dict[int, Line] = {}
    for event in document.events:
        several = [event.line]
        if event.message is not None:
            several += [line for line in (event.message.sender, event.message.receiver) if line is not None]
        for line in several:
            found.setdefault(line.number, line)
    return list(found.values())


# -- messages --------------------------------------------------------------------------------------------------------


def _join(
    documents: Sequence[Document], lines: Mapping[tuple[int, int], Line]
) -> dict[tuple[int, int], Message]:
    """(process, number of a message there) -> the message, one for all the processes that it passed through."""
    joined: dict[tuple[int, int], Message] = {}
    by_key: dict[str, Message] = {}
    crossings = [
        (crossing, index)
        for index, document in enumerate(documents)
        for crossing in document.crossings
        if crossing.message is not None
    ]
    # Who sends knows better what it is: first those which leave.
    for crossing, index in sorted(crossings, key=lambda each: not each[0].leaves):
        assert crossing.message is not None
        place = index, crossing.message.number
        known, other = joined.get(place), by_key.get(crossing.key)
        if known is None:
            known = joined[place] = other or Message(0, None, crossing.message.channel, crossing.message.text)
        elif other is not None and other is not known:  # it went on from where it came to
            for where in [where for where, each in joined.items() if each is known]:
                joined[where] = other
            for key in [key for key, each in by_key.items() if each is known]:
                by_key[key] = other
            known = other
        by_key[crossing.key] = known
    for index, document in enumerate(documents):
        for event in document.events:
            if event.message is None:
                continue
            one = joined.setdefault(
                (index, event.message.number), Message(0, None, event.message.channel, event.message.text)
            )
            if event.message.sender is not None:
                one.sender = one.sender or lines[index, event.message.sender.number]
            if event.message.receiver is not None:
                one.receiver = lines[index, event.message.receiver.number]
    for number, one in enumerate(dict.fromkeys(joined.values()), 1):
        one.number = number
    return joined


# -- clocks ----------------------------------------------------------------------------------------------------------


def starts(documents: Sequence[Document]) -> list[float]:
    """When each recording began, by one clock that is put right for all: seconds, of which the first is 0 or later."""
    clocks = [document.clock or f"of recording {index}" for index, document in enumerate(documents)]
    names = list(dict.fromkeys(clocks))
    # When a clock showed 0, by its wall clock; of several of one machine the first one's.
    zero: dict[str, float] = {}
    for clock, document in zip(clocks, documents, strict=True):
        zero.setdefault(clock, document.wall - document.monotonic)
    began = [zero[clock] + document.monotonic for clock, document in zip(clocks, documents, strict=True)]
    least = _least_differences(documents, [names.index(clock) for clock in clocks], began, len(names))
    corrections = correct(least)
    begins = [start + corrections[names.index(clock)] for start, clock in zip(began, clocks, strict=True)]
    first = min(begins, default=0.0)
    return [each - first for each in begins]


def _least_differences(
    documents: Sequence[Document], clock_of: Sequence[int], began: Sequence[float], count: int
) -> list[list[float]]:
    """[a][b]: by how much clock b must be put forward at least, relative to a, for what a sent to arrive afterwards."""
    left: dict[str, tuple[int, float]] = {}
    for index, document in enumerate(documents):
        for crossing in document.crossings:
            if crossing.leaves:
                left[crossing.key] = index, began[index] + crossing.time
    least = [[-INFINITY] * count for _ in range(count)]
    for index, document in enumerate(documents):
        for crossing in document.crossings:
            sent = left.get(crossing.key) if not crossing.leaves else None
            if sent is not None:
                a, b = clock_of[sent[0]], clock_of[index]
                least[a][b] = max(least[a][b], sent[1] - (began[index] + crossing.time))
    return least


def correct(least: Sequence[Sequence[float]]) -> list[float]:
    """By how much to put each clock forward, so that each pair differs by at least `least[a][b]`.

    Where that is not possible, because clocks drift, it comes close.
    """
    count = len(least)
    tight = [list(row) for row in least]
    for clock in range(count):
        tight[clock][clock] = 0.0
    for via in range(count):  # what is known about a and b by way of others
        for a in range(count):
            for b in range(count):
                tight[a][b] = max(tight[a][b], tight[a][via] + tight[via][b])
    placed: dict[int, float] = {}

    def interval(clock: int) -> tuple[float, float]:
        low = max((at + tight[other][clock] for other, at in placed.items()), default=-INFINITY)
        high = min((at - tight[clock][other] for other, at in placed.items()), default=INFINITY)
        return low, high

    while len(placed) < count:
        # The one that is known best first; those of which nothing is known last, in their order.
        ranges = {clock: interval(clock) for clock in range(count) if clock not in placed}
        clock = min(ranges, key=lambda each: (ranges[each][1] - ranges[each][0], each))
        low, high = ranges[clock]
        if low > -INFINITY and high < INFINITY:
            placed[clock] = (low + high) / 2
        else:  # traffic in one direction, or none: believe the wall clock as far as it goes
            placed[clock] = min(max(0.0, low), high)
    return [placed[clock] for clock in range(count)]


# -- order -----------------------------------------------------------------------------------------------------------


def _in_order(
    documents: Sequence[Document], begins: Sequence[float], messages: Mapping[tuple[int, int], Message]
) -> Iterable[tuple[float, int, Event]]:
    """All events by corrected time: (time, process, event). None is received before it was sent."""
    unsent = {
        messages[index, event.message.number].number
        for index, document in enumerate(documents)
        for event in document.events
        if event.kind == "send" and event.message is not None
    }
    queues = [list(reversed(document.events)) for document in documents]
    heads = [(begins[index] + queue[-1].time, index) for index, queue in enumerate(queues) if queue]
    heapify(heads)
    held: list[tuple[float, int]] = []  # processes whose next event receives what was not sent yet
    now = 0.0
    while heads or held:
        if not heads:  # damaged: they wait for each other
            heads, held = held, []
            unsent.clear()
            heapify(heads)
        at, index = heappop(heads)
        event = queues[index][-1]
        number = messages[index, event.message.number].number if event.message is not None else 0
        if event.kind == "receive" and number in unsent:
            held.append((at, index))
            continue
        queues[index].pop()
        now = max(now, at)
        yield now, index, event
        if queues[index]:
            heappush(heads, (begins[index] + queues[index][-1].time, index))
        if event.kind == "send" and number in unsent:
            unsent.discard(number)
            for each in held:
                heappush(heads, each)
            held.clear()
