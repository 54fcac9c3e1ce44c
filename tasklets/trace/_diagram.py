"""The space-time diagram: tasklets side by side, time running down, messages as arrows.

Down the page goes the order of events, not the clock: microseconds of work beside seconds of sleep would leave
nothing to be seen. The clock is written at the left margin. All text and the lines of tasklets are drawn in
currentColor, so that the diagram suits light and dark pages; the tasklets' colours are readable on both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasklets.trace._events import Event, Line, Message

COLOURS = ("#3b82f6", "#e07a1f", "#22a06b", "#c2559d", "#8b6cef", "#0fa3b1", "#b08900", "#e0566b")
RED = "#e5484d"

MARGIN = 72  # left, for the clock
TOP = 46
NODE_HEIGHT = 24  # of the names of nodes, above those of tasklets
BAR = 9  # width of a turn
CHARACTER = 6.1  # width of one at 11 px; text is cut to fit, so an estimate will do
HEIGHTS = {
    "start": 20,
    "run": 5,
    "yield": 4,
    "wait": 6,
    "send": 24,
    "receive": 7,
    "end": 12,
    "fail": 24,
}
CLOCK_EVERY = 44  # pixels

STYLE = """
.tt{font:11px ui-sans-serif,system-ui,"Segoe UI","Helvetica Neue",Arial,"DejaVu Sans",sans-serif}
.tt text{fill:currentColor;stroke:none}
.tt .name{font-weight:600;font-size:12px;text-anchor:middle}
.tt .clock{font-size:10px;text-anchor:end;opacity:.55;font-variant-numeric:tabular-nums}
.tt .quiet{fill-opacity:.6}
"""
# A picture of its own cannot know the page's colour: it brings its own paper.
ALONE = """
svg.tt{color:#1c2024}
.tt .paper{fill:#ffffff}
@media (prefers-color-scheme:dark){svg.tt{color:#e8eaed}.tt .paper{fill:#14171a}}
"""


@dataclass(slots=True)
class _Track:
    """One tasklet's line, while it is drawn."""

    line: Line
    x: float
    colour: str
    top: float
    since: float  # where its present state began
    state: str = "ready"  # "running", "ready", "waiting", "over"
    reason: str = ""
    sends: list[float] = field(default_factory=list)


def draw(events: tuple[Event, ...], left_out: int, *, standalone: bool) -> str:
    """The diagram as an SVG element. It says how many earlier events are left out."""
    return _Diagram(events, left_out).as_svg(standalone)


class _Diagram:
    def __init__(self, events: tuple[Event, ...], left_out: int) -> None:
        self._left_out = left_out
        self._lines: list[str] = []  # below: what tasklets do
        self._arrows: list[str] = []  # above
        self._clock: list[str] = []
        self._tracks: dict[int, _Track] = {}  # from left to right
        self._sent: dict[int, tuple[float, float, Message]] = {}  # number of a message on its way -> x, y
        found = {event.line.number: event.line for event in events}
        for event in events:  # somebody may only be spoken of
            if event.message is not None and event.message.receiver is not None:
                found.setdefault(event.message.receiver.number, event.message.receiver)
        # Those of a node stand together, in the order in which the nodes were merged.
        order = {line.node: number for number, line in sorted(found.items(), reverse=True)}
        found = dict(sorted(found.items(), key=lambda item: order[item[1].node]))
        self._top = TOP + (NODE_HEIGHT if any(order) else 0)  # of the lines of tasklets
        longest = max((len(line.name) for line in found.values()), default=4)
        room = 190.0 if len(found) <= 4 else 146.0 if len(found) <= 9 else 104.0
        self._column = max(room, min(150.0, longest * 7.2 + 18))
        starts = {event.line.number for event in events if event.kind == "start"}
        for index, line in enumerate(found.values()):
            x = MARGIN + self._column * (index + 0.5)
            state = "unborn" if line.number in starts else "ready"
            self._tracks[line.number] = _Track(
                line, x, COLOURS[index % len(COLOURS)], self._top + 8, self._top + 8, state
            )
        self._y = self._top + 10.0
        self._stuck = False  # somebody waits at the end
        self._last_clock = -1e9
        for event in events:
            self._place(event)
        self._y += 20
        self._finish()

    # -- events ------------------------------------------------------------------------------------------------

    def _place(self, event: Event) -> None:
        track = self._tracks[event.line.number]
        self._y += HEIGHTS[event.kind]
        if event.kind in ("start", "send", "fail", "wait") and self._y - self._last_clock >= CLOCK_EVERY:
            self._last_clock = self._y
            self._clock.append(
                f'<text class="clock" x="{MARGIN - 10}" y="{self._y + 3.5:g}">{_time(event.time)}</text>'
            )
        if event.kind == "start":
            track.state, track.since = "ready", self._y
            self._arrows.append(
                f'<circle cx="{track.x:g}" cy="{self._y:g}" r="5.5" fill="{track.colour}">'
                f"{_title(f'{track.line.name} starts at {_time(event.time)}')}</circle>"
            )
        elif event.kind == "run":
            self._change(track, "running")
        elif event.kind == "yield":
            self._change(track, "ready")
        elif event.kind == "wait":
            self._change(track, "waiting", event.text)
            if not event.text.startswith(("receive from", "send to")):
                self._y += 13
                self._label(track, self._y - 2, event.text, quiet=True)
        elif event.kind == "send":
            assert event.message is not None
            self._sent[event.message.number] = (track.x, self._y, event.message)
            self._message_label(track, event.message)
        elif event.kind == "receive":
            assert event.message is not None
            self._arrive(track, event.message)
        elif event.kind == "end":
            self._change(track, "over")
            self._arrows.append(
                f'<path d="M{track.x - 8:g} {self._y:g}h16" stroke="{track.colour}" stroke-width="3" '
                f'stroke-linecap="round">{_title(f"{track.line.name} ends at {_time(event.time)}")}</path>'
            )
        elif event.kind == "fail":
            self._change(track, "over")
            self._arrows.append(
                f'<path d="M{track.x - 6:g} {self._y - 6:g}l12 12m0 -12l-12 12" stroke="{RED}" stroke-width="3" '
                f'stroke-linecap="round">{_title(f"{track.line.name} fails: {event.text}")}</path>'
            )
            self._label(track, self._y + 4, event.text, colour=RED)

    def _change(self, track: _Track, state: str, reason: str = "") -> None:
        """Draw what it has been doing until here."""
        if track.state == "unborn":
            track.since = self._y
        height = self._y - track.since
        if height > 0:
            x, y = f"{track.x:g}", f"{track.since:g}"
            if track.state == "running":
                self._lines.append(
                    f'<rect x="{track.x - BAR / 2:g}" y="{y}" width="{BAR}" height="{height:g}" rx="2.5" '
                    f'fill="{track.colour}">{_title(f"{track.line.name} runs")}</rect>'
                )
            elif track.state == "ready":
                self._lines.append(
                    f'<path d="M{x} {y}v{height:g}" stroke="{track.colour}" stroke-width="2" opacity=".55">'
                    f"{_title(f'{track.line.name} could run')}</path>"
                )
            elif track.state == "waiting":
                self._lines.append(
                    f'<path d="M{x} {y}v{height:g}" stroke="currentColor" stroke-width="1.4" '
                    f'stroke-dasharray="1.5 4.5" stroke-linecap="round" opacity=".7">'
                    f"{_title(f'{track.line.name} waits: {track.reason}')}</path>"
                )
        track.state, track.since, track.reason = state, self._y, reason

    # -- messages ----------------------------------------------------------------------------------------------

    def _message_label(self, track: _Track, message: Message) -> None:
        """Over the beginning of the arrow, in the gap between two lines, on the side to which it goes."""
        receiver = self._tracks.get(message.receiver.number) if message.receiver is not None else None
        leftward = receiver is not None and receiver.x < track.x
        room = int((self._column - 2 * BAR - 8) / CHARACTER)
        text = _cut(message.text, room)
        rest = room - len(text) - 1
        named = not message.channel.startswith("channel ")
        name = _cut(message.channel, rest) if named and rest >= 3 else ""
        suffix = f' <tspan class="quiet">{escape(name)}</tspan>' if name else ""
        x = track.x + (-BAR - 3 if leftward else BAR + 3)
        anchor = ' text-anchor="end"' if leftward else ""
        self._arrows.append(
            f'<text x="{x:g}" y="{self._y - 5:g}"{anchor}>{escape(text)}{suffix}{_title(_about(message))}</text>'
        )

    def _arrive(self, track: _Track, message: Message) -> None:
        begin = self._sent.pop(message.number, None)
        if begin is None:  # its sender is not in the picture
            self._arrows.append(
                f'<path d="M{track.x - 26:g} {self._y:g}h18" stroke="{track.colour}" stroke-width="1.5" '
                f'stroke-dasharray="3 3">{_title(_about(message))}</path>'
                + _head(track.x - 26, self._y, track.x, self._y, track.colour)
            )
            return
        x, y, _ = begin
        colour = self._tracks[message.sender.number].colour if message.sender is not None else "currentColor"
        if x == track.x:
            path = f"M{x + BAR / 2:g} {y:g}c34 0 34 {self._y - y:g} 4 {self._y - y:g}"
            head = _head(x + 30, self._y, x, self._y, colour)
        else:
            side = BAR / 2 if track.x > x else -BAR / 2
            path = f"M{x + side:g} {y:g}L{track.x - 1.6 * side:g} {self._y:g}"
            head = _head(x, y, track.x, self._y, colour)
        self._arrows.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6">{_title(_about(message))}</path>{head}'
        )

    # -- the end -----------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        for x, y, message in self._sent.values():
            self._arrows.append(
                f'<path d="M{x + BAR / 2:g} {y:g}h20" stroke="currentColor" stroke-width="1.4" stroke-dasharray="3 3" '
                f'opacity=".7"/><circle cx="{x + BAR / 2 + 23:g}" cy="{y:g}" r="3" fill="none" stroke="currentColor" '
                f'opacity=".7">{_title("not received: " + _about(message))}</circle>'
            )
        for track in self._tracks.values():
            state, reason = track.state, track.reason
            if state != "over":
                self._change(track, "over")
            if state == "waiting":
                words = _cut(reason, int(self._column / CHARACTER))
                self._arrows.append(
                    f'<text x="{track.x:g}" y="{self._y + 13:g}" text-anchor="middle" class="quiet" '
                    'font-style="italic">'
                    f'still waits:<tspan x="{track.x:g}" dy="13">{escape(words)}</tspan>{_title(reason)}</text>'
                )
                self._stuck = True

    def _label(self, track: _Track, y: float, text: str, *, colour: str = "", quiet: bool = False) -> None:
        room = int(
            (min(self._column, self._column / 2 + 40 if self._is_last(track) else 1e9) - BAR - 6) / CHARACTER
        )
        style = f' style="fill:{colour}"' if colour else ' class="quiet" font-style="italic"' if quiet else ""
        self._arrows.append(
            f'<text x="{track.x + BAR:g}" y="{y:g}"{style}>{escape(_cut(text, room))}{_title(text)}</text>'
        )

    def _nodes(self, bottom: float) -> list[str]:
        """A field behind the lines of each node, with its name."""
        groups: dict[str, list[_Track]] = {}
        for track in self._tracks.values():
            groups.setdefault(track.line.node, []).append(track)
        fields = []
        for index, (node, tracks) in enumerate(groups.items() if any(groups) else ()):
            left, right = tracks[0].x - self._column / 2 + 2, tracks[-1].x + self._column / 2 - 2
            text = _cut(node, int((right - left - 12) / 7))
            fields.append(
                f"<g>{_title(node)}"
                f'<rect x="{left:g}" y="6" width="{right - left:g}" height="{bottom - 6:g}" rx="8" '
                f'fill="currentColor" fill-opacity="{0.045 if index % 2 else 0.075}"/>'
                f'<text class="name" x="{(left + right) / 2:g}" y="21">{escape(text)}</text></g>'
            )
        return fields

    def _is_last(self, track: _Track) -> bool:
        return all(other.x <= track.x for other in self._tracks.values())

    def as_svg(self, standalone: bool) -> str:
        tracks = list(self._tracks.values())
        width = MARGIN + self._column * max(1, len(tracks)) + 40
        bottom = self._y + (40 if self._stuck else 22)
        again = bottom > 900  # the names, once more at the end of a long picture
        height = bottom + (30 if again else 0) + 22
        names = self._nodes(bottom + (26 if again else 4))
        names += [_name(track, self._top - 20, self._column) for track in tracks]
        if again:
            names += [_name(track, bottom + 12, self._column) for track in tracks]
        note = "thick: runs \u00b7 thin: could run \u00b7 dotted: waits \u00b7 downwards: the order of events"
        if self._left_out:
            note = f"{self._left_out} earlier events left out \u00b7 " + note
        style = STYLE + (ALONE if standalone else "")
        paper = f'<rect class="paper" width="{width:g}" height="{height:g}"/>' if standalone else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="tt" width="{width:g}" height="{height:g}" '
            f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="space-time diagram of {len(tracks)} tasklets">'
            f"<style>{style}</style>{paper}"
            f"<g>{''.join(names)}</g><g>{''.join(self._clock)}</g>"
            f'<g fill="none">{"".join(self._lines)}</g><g>{"".join(self._arrows)}</g>'
            f'<text class="quiet" x="{MARGIN - 56}" y="{height - 8:g}" font-size="10">{note}</text></svg>\n'
        )


def _name(track: _Track, y: float, column: float) -> str:
    text = _cut(track.line.name, int((column - 8) / 7))
    half = min(column / 2 - 4, max(18.0, len(text) * 3.6 + 8))
    return (
        f"<g>{_title(track.line.name)}"
        f'<rect x="{track.x - half:g}" y="{y - 16:g}" width="{2 * half:g}" height="22" rx="6" '
        f'fill="{track.colour}" fill-opacity=".16" stroke="{track.colour}" stroke-opacity=".55"/>'
        f'<text class="name" x="{track.x:g}" y="{y - 1:g}">{escape(text)}</text></g>'
    )


def _head(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    """The head of an arrow that ends at the line x2."""
    dx, dy = x2 - x1, y2 - y1
    length = (dx * dx + dy * dy) ** 0.5 or 1.0
    ux, uy = dx / length, dy / length
    tip_x = x2 - (BAR / 2 + 0.5) * (1 if dx > 0 else -1)
    tip_y = y2
    back_x, back_y = tip_x - 9 * ux, tip_y - 9 * uy
    return (
        f'<path d="M{tip_x:.1f} {tip_y:.1f}L{back_x - 4 * uy:.1f} {back_y + 4 * ux:.1f}'
        f'L{back_x + 4 * uy:.1f} {back_y - 4 * ux:.1f}Z" fill="{colour}" stroke="none"/>'
    )


def _about(message: Message) -> str:
    sender = message.sender.label if message.sender is not None else "?"
    receiver = message.receiver.label if message.receiver is not None else "?"
    return f"{sender} -> {receiver} on {message.channel}: {message.text}"


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(1, room - 1)] + "\u2026"


def _time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} \u00b5s"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.3f} s"
