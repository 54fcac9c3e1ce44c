"""The pictures of the tutorial: small drawings in SVG, which every notebook shows without a plug-in or a window.

    table(["players", "seconds"], [[10, 0.2]])
    chart("cost", {"threads": {10: 0.2, 100: 2.1}}, x="players", y="seconds")
    bars("one step", {"a call": 0.1, "a message": 1.2}, "microseconds")
    gantt("the workshop", {"saw": [(0, 5), (5, 10)]}, {"saw": {7: "killed"}})
    tree("who adds what", Node("6", (Node("1"), Node("5", (Node("2"), Node("3"))))))
    cells("who did what", [(0, 4, "Ann"), (4, 7, "Bob")], crosses={5})
    waves({"a": [0, 1, 1], "sum": [0, 0, 1]})
    circuit([Gate("XOR", ("a", "b"), "sum")], [{"a": 1, "b": 0, "sum": 1}])
    movie([{"Ada": Sprite(10, 10)}, {"Ada": Sprite(14, 10)}], 400, 300, seconds=2)
    Live().show(network("master", {"Ann": "busy", "Bob": "lost"}, {"Ann": 17}))

A moving picture moves by itself, in the file (SMIL): it needs no kernel, and where nothing can move it stands
still. Text and lines are drawn in the page's own colour, so that light and dark pages suit.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from time import monotonic
from typing import Any

COLOURS = ("#3b82f6", "#e07a1f", "#22a06b", "#c2559d", "#8b6cef", "#0fa3b1", "#b08900", "#e0566b")
RED, GREEN, GREY = "#e5484d", "#22a06b", "#8a9099"
FONT = 'font-family="system-ui,sans-serif" font-size="12" fill="currentColor"'


class Picture:
    """An SVG drawing that a notebook shows."""

    def __init__(self, width: float, height: float, body: str, title: str) -> None:
        self.title = title
        self._svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
            f'viewBox="0 0 {width:g} {height:g}" role="img" {FONT}><title>{escape(title)}</title>{body}</svg>'
        )

    def __repr__(self) -> str:
        return f"<Picture: {self.title}>"

    def save(self, path: str) -> None:
        """Write it to an .svg file."""
        Path(path).write_text(self._svg + "\n", encoding="utf-8")

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x:auto">{self._svg}</div>'


class Table:
    """Rows and columns, as Markdown."""

    def __init__(self, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        lines = [head, ["---:"] * len(head), *rows]
        self._text = "\n".join("| " + " | ".join(_cell(each) for each in line) + " |" for line in lines)

    def __repr__(self) -> str:
        return self._text

    def _repr_markdown_(self) -> str:
        return self._text


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table; numbers get three digits that count."""
    return Table(head, rows)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


class Source:
    """The text of a function or module, coloured."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def _repr_markdown_(self) -> str:
        return f"```python\n{self._text}\n```"


def source(*things: Any) -> Source:
    """Show how functions, classes or modules are written."""
    return Source("\n\n".join(inspect.getsource(thing).strip() for thing in things))


# -- measured figures ----------------------------------------------------------------------------------------


def chart(title: str, lines: Mapping[str, Mapping[float, float]], *, x: str, y: str) -> Picture:
    """Lines over a logarithmic plane: ten times as much is always the same step."""
    width, height, left, right, top, bottom = 620.0, 300.0, 64.0, 150.0, 34.0, 42.0
    xs = [math.log10(at) for line in lines.values() for at in line]
    ys = [math.log10(value) for line in lines.values() for value in line.values()]
    x0, x1, y0, y1 = math.floor(min(xs)), math.ceil(max(xs)), math.floor(min(ys)), math.ceil(max(ys))
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)

    def place(at: float, value: float) -> tuple[float, float]:
        across = (math.log10(at) - x0) / (x1 - x0) * (width - left - right)
        up = (math.log10(value) - y0) / (y1 - y0) * (height - top - bottom)
        return left + across, height - bottom - up

    parts = [f'<text x="{left:g}" y="18" font-weight="600">{escape(title)}</text>']
    for power in range(y0, y1 + 1):
        _, at_y = place(10**x0, 10.0**power)
        parts.append(
            f'<path d="M{left:g} {at_y:.1f}H{width - right:g}" stroke="{GREY}" stroke-opacity=".3"/>'
        )
        parts.append(f'<text x="{left - 8:g}" y="{at_y + 4:.1f}" text-anchor="end">{_power(power)}</text>')
    for power in range(x0, x1 + 1):
        at_x, _ = place(10.0**power, 10**y0)
        parts.append(f'<text x="{at_x:.1f}" y="{height - 22:g}" text-anchor="middle">{_power(power)}</text>')
    parts.append(
        f'<text x="{(left + width - right) / 2:g}" y="{height - 5:g}" text-anchor="middle">{x}</text>'
    )
    parts.append(
        f'<text transform="translate(13 {height / 2:g}) rotate(-90)" text-anchor="middle">{y}</text>'
    )
    ends: list[float] = []
    for index, (name, line) in sorted(
        enumerate(lines.items()), key=lambda each: -list(each[1][1].values())[-1]
    ):
        colour = COLOURS[index % len(COLOURS)]
        points = [place(at, value) for at, value in line.items()]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.2"/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.4" fill="{colour}"/>' for px, py in points]
        label_y = max([points[-1][1] + 4, *(end + 15 for end in ends)])
        ends.append(label_y)
        parts.append(
            f'<text x="{points[-1][0] + 9:.1f}" y="{label_y:.1f}" fill="{colour}">{escape(name)}</text>'
        )
    return Picture(width, height, "".join(parts), title)


def _power(power: int) -> str:
    return f"{10**power:,}" if power >= 0 else f"{10.0**power:g}"


def bars(title: str, values: Mapping[str, float], unit: str) -> Picture:
    """One bar for each name."""
    most, left = max(values.values()), 20 + 7.2 * max(map(len, values))
    parts = [f'<text x="8" y="18" font-weight="600">{escape(title)}</text>']
    for row, (name, value) in enumerate(values.items()):
        y, length = 32 + 26 * row, max(2.0, 340 * value / most)
        parts.append(f'<text x="{left - 8:g}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        parts.append(
            f'<rect x="{left:g}" y="{y}" width="{length:.1f}" height="19" rx="3" fill="{COLOURS[row % len(COLOURS)]}"/>'
        )
        parts.append(
            f'<text x="{left + length + 7:.1f}" y="{y + 14}">{_cell(float(value))} {escape(unit)}</text>'
        )
    return Picture(left + 460, 40 + 26 * len(values), "".join(parts), title)


def gantt(
    title: str,
    rows: Mapping[str, Sequence[tuple[float, float]]],
    marks: Mapping[str, Mapping[float, str]] | None = None,
) -> Picture:
    """Who was busy, from when to when. `marks` says what happened: row -> moment -> text; "killed" is a red cross."""
    marks = marks or {}
    left = 20 + 7.2 * max(map(len, rows))
    end = max(
        [
            0.1,
            *(to for spans in rows.values() for _, to in spans),
            *(at for row in marks.values() for at in row),
        ]
    )
    scale = 560 / end
    parts = [f'<text x="8" y="18" font-weight="600">{escape(title)}</text>']
    step = next(step for step in (0.1, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if end / step <= 14)
    for number in range(int(end / step) + 1):
        x = left + number * step * scale
        parts.append(f'<path d="M{x:.1f} 34v{26 * len(rows)}" stroke="{GREY}" stroke-opacity=".35"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{52 + 26 * len(rows)}" text-anchor="middle">{number * step:g}</text>'
        )
    for row, (name, spans) in enumerate(rows.items()):
        y = 37 + 26 * row
        parts.append(f'<text x="{left - 8:g}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        parts += [
            f'<rect x="{left + since * scale + 1:.1f}" y="{y}" width="{max(1.0, (to - since) * scale - 2):.1f}" '
            f'height="19" rx="3" fill="{COLOURS[row % len(COLOURS)]}"/>'
            for since, to in spans
        ]
        parts += [
            _mark(left + at * scale, y + 9.5, text, 6 * (-1) ** number)  # neighbours' texts shall not overlap
            for number, (at, text) in enumerate(sorted(marks.get(name, {}).items()), 1)
        ]
    return Picture(left + (660 if marks else 590), 62 + 26 * len(rows), "".join(parts), title)


def _mark(x: float, y: float, text: str, lower: float) -> str:
    if text == "killed":
        return _cross(x, y, 8)
    return (
        f'<path d="M{x:.1f} {y - 7:g}l6 7l-6 7l-6 -7z" fill="{RED}"/>'
        f'<text x="{x + 10:.1f}" y="{y + 4 + lower:g}">{escape(text)}</text>'
    )


def _cross(x: float, y: float, size: float) -> str:
    path = (
        f"M{x - size:.1f} {y - size:.1f}l{2 * size:g} {2 * size:g}m0 {-2 * size:g}l{-2 * size:g} {2 * size:g}"
    )
    return f'<path d="{path}" stroke="{RED}" stroke-width="4" fill="none"/>'


# -- divided work --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Node:
    """A part of a tree: what stands in it, and what it was made of."""

    text: str
    made_of: tuple[Node, ...] = ()


def tree(title: str, root: Node) -> Picture:
    """What was made of what: the leaves above, and below what they were put together to."""
    wide, high = 74.0, 58.0
    parts: list[str] = []
    leaves = 0
    tall = _height(root)

    def draw(node: Node, level: int) -> tuple[float, float]:
        nonlocal leaves
        y = 52 + high * level
        if node.made_of:
            places = [draw(each, _height(each)) for each in node.made_of]
            x = sum(at for at, _ in places) / len(places)
            parts.extend(
                f'<path d="M{at:.1f} {above + 14:g}L{x:.1f} {y - 14:g}" stroke="{GREY}" stroke-width="1.6"/>'
                for at, above in places
            )
        else:
            x = 20 + wide * (leaves + 0.5)
            leaves += 1
        colour = COLOURS[level % len(COLOURS)]
        width = max(34.0, 12 + 7.4 * len(node.text))
        parts.append(
            f'<rect x="{x - width / 2:.1f}" y="{y - 14:g}" width="{width:.1f}" height="28" rx="8" fill="{colour}"/>'
            f'<text x="{x:.1f}" y="{y + 4:g}" text-anchor="middle" fill="#fff" font-weight="600">'
            f"{escape(node.text)}</text>"
        )
        return x, y

    draw(root, tall)
    heading = f'<text x="8" y="18" font-weight="600">{escape(title)}</text>'
    return Picture(40 + wide * leaves, 90 + high * tall, heading + "".join(parts), title)


def _height(node: Node) -> int:
    return 1 + max(map(_height, node.made_of)) if node.made_of else 0


def cells(title: str, parts: Sequence[tuple[int, int, str]], crosses: Iterable[int] = ()) -> Picture:
    """A list in parts: (from, up to, who did it). One colour for each who; a red cross for what failed."""
    whose = {who: COLOURS[number % len(COLOURS)] for number, who in enumerate(sorted({p[2] for p in parts}))}
    count, bad = max(high for _, high, _ in parts), set(crosses)
    size = min(22.0, 600 / count)
    drawn = [f'<text x="8" y="18" font-weight="600">{escape(title)}</text>']
    for number, (low, high, who) in enumerate(sorted(parts)):
        for index in range(low, high):
            x = 10 + size * index + 5 * number
            drawn.append(
                f'<rect x="{x:.1f}" y="34" width="{size - 2:.1f}" height="26" rx="3" fill="{whose[who]}"/>'
                + (_cross(x + size / 2 - 1, 47, size / 4) if index in bad else "")
            )
    x = 10.0
    for who, colour in whose.items():
        drawn.append(
            f'<rect x="{x:g}" y="74" width="13" height="13" rx="3" fill="{colour}"/>'
            f'<text x="{x + 19:g}" y="85">{escape(who)}</text>'
        )
        x += 40 + 7.4 * len(who)
    return Picture(30 + size * count + 5 * len(parts), 98, "".join(drawn), title)


# -- circuits ------------------------------------------------------------------------------------------------


def waves(signals: Mapping[str, Sequence[int]], step: float = 34.0) -> Picture:
    """What each wire carried at each moment: high is 1, low is 0."""
    left = 16 + 7.2 * max(map(len, signals))
    parts = []
    moments = max(len(levels) for levels in signals.values())
    for moment in range(moments):
        x = left + step * (moment + 0.5)
        parts.append(f'<text x="{x:g}" y="14" text-anchor="middle" fill-opacity=".6">{moment}</text>')
    for row, (name, levels) in enumerate(signals.items()):
        base, colour = 46 + 34 * row, COLOURS[row % len(COLOURS)]
        path = f"M{left:g} {base - 20 * levels[0]}"
        for level in levels:
            path += f"V{base - 20 * level}h{step:g}"
        parts.append(f'<text x="{left - 8:g}" y="{base - 5}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<path d="M{left:g} {base}h{step * moments:g}" stroke="{GREY}" stroke-opacity=".35"/>')
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2.2"/>')
    return Picture(left + step * moments + 16, 56 + 34 * len(signals), "".join(parts), "levels over time")


@dataclass(frozen=True)
class Gate:
    """One gate of a drawn circuit: what it is, the wires that go in, the wire that comes out."""

    kind: str
    inputs: tuple[str, ...]
    output: str


def circuit(gates: Sequence[Gate], history: Sequence[Mapping[str, int]]) -> Picture:
    """Gates and wires, each wire green while it carries 1. Of several moments, each is shown for a second."""
    made_by = {gate.output: gate for gate in gates}
    outside = list(dict.fromkeys(wire for gate in gates for wire in gate.inputs if wire not in made_by))
    column: dict[str, int] = dict.fromkeys(outside, 0)

    def depth(wire: str) -> int:
        if wire not in column:
            column[wire] = 1 + max(depth(each) for each in made_by[wire].inputs)
        return column[wire]

    last = max(depth(gate.output) for gate in gates)
    rows: dict[int, list[str]] = {}
    for wire in (*outside, *made_by):
        rows.setdefault(column[wire], []).append(wire)
    tall = max(map(len, rows.values()))
    place = {
        wire: (40 + 120 * level, 30 + 56 * tall * (index + 0.5) / len(wires))
        for level, wires in rows.items()
        for index, wire in enumerate(wires)
    }
    used = {wire for gate in gates for wire in gate.inputs}
    parts = []
    for gate in gates:
        x, y = place[gate.output]
        for index, wire in enumerate(gate.inputs):
            from_x, from_y = place[wire]
            start = from_x + (6 if wire in outside else 26)
            end_y = y + 16 * (index - (len(gate.inputs) - 1) / 2)
            path = f"M{start:g} {from_y:.1f}C{start + 45:g} {from_y:.1f} {x - 66:g} {end_y:.1f} {x - 26:g} {end_y:.1f}"
            parts.append(_wire(path, [moment.get(wire, 0) for moment in history]))
    for gate in gates:
        x, y = place[gate.output]
        parts.append(
            f'<rect x="{x - 26:g}" y="{y - 17:.1f}" width="52" height="34" rx="7" fill="{GREY}" fill-opacity=".18" '
            f'stroke="currentColor" stroke-opacity=".6"/><text x="{x:g}" y="{y + 4:.1f}" text-anchor="middle" '
            f'font-weight="600">{escape(gate.kind)}</text>'
        )
        if gate.output not in used:
            parts.append(_wire(f"M{x + 26:g} {y:.1f}h34", [moment.get(gate.output, 0) for moment in history]))
            parts.append(f'<text x="{x + 64:g}" y="{y + 4:.1f}">{escape(gate.output)}</text>')
    for wire in outside:
        x, y = place[wire]
        parts.append(f'<text x="{x - 2:g}" y="{y + 4:.1f}" text-anchor="end">{escape(wire)}</text>')
    return Picture(40 + 120 * last + 130, 50 + 56 * tall, "".join(parts), "a circuit and its levels")


def _wire(path: str, levels: Sequence[int]) -> str:
    colours = [GREEN if level else GREY for level in levels]
    moving = ""
    if len(set(colours)) > 1:
        moving = (
            f'<animate attributeName="stroke" calcMode="discrete" dur="{len(levels)}s" repeatCount="indefinite" '
            f'values="{";".join(colours)}"/>'
        )
    return f'<path d="{path}" fill="none" stroke-width="2.6" stroke="{colours[-1]}">{moving}</path>'


# -- things that move ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sprite:
    """Where a thing is in one frame, which way it looks (degrees), and how full of life it is (0 to 1)."""

    x: float
    y: float
    angle: float = 0.0
    life: float = 1.0
    shape: str = "robot"
    colour: str = COLOURS[0]


SHAPES = {
    "robot": '<circle r="13" fill="{c}"/><circle cx="5" cy="-5" r="3" fill="#fff"/><circle cx="5" cy="5" r="3" '
    'fill="#fff"/><path d="M13 0l7 0" stroke="{c}" stroke-width="4" stroke-linecap="round"/>',
    "mine": '<circle r="6" fill="{c}"/><path d="M-9 0h18M0 -9v18" stroke="{c}" stroke-width="2"/>',
    "blast": '<circle r="26" fill="{c}" fill-opacity=".75"/><circle r="13" fill="#ffd166"/>',
}


def movie(
    frames: Sequence[Mapping[str, Sprite]],
    width: float,
    height: float,
    seconds: float,
    title: str = "the world",
) -> Picture:
    """Play frames for ever, within `seconds`. Whoever is not in a frame is not seen in it."""
    first: dict[str, Sprite] = {}
    for frame in frames:
        for name, sprite in frame.items():
            first.setdefault(name, sprite)
    parts = [f'<rect width="{width:g}" height="{height:g}" rx="10" fill="{GREY}" fill-opacity=".16"/>']
    for name, sprite in first.items():
        seen = [name in frame for frame in frames]
        track, last = [], sprite
        for frame in frames:
            last = frame.get(name, last)
            track.append(last)
        moves = _smooth([(at.x, at.y) for at in track], seconds)
        turns = _jumps(
            [f"{at.angle:.0f}" for at in track], seconds, 'Transform attributeName="transform" type="rotate"'
        )
        lives = [
            f"{0.25 + 0.75 * at.life:.2f}" if there else "0" for at, there in zip(track, seen, strict=True)
        ]
        fades = _jumps(lives, seconds, ' attributeName="opacity"')
        label = f'<text y="-20" text-anchor="middle">{escape(name)}</text>' if sprite.shape == "robot" else ""
        parts.append(
            f'<g transform="translate({sprite.x:.0f} {sprite.y:.0f})" opacity="{lives[0]}">'
            f"<title>{escape(name)}</title>{moves}{fades}"
            f'<g transform="rotate({sprite.angle:.0f})">{turns}{SHAPES[sprite.shape].replace("{c}", sprite.colour)}</g>'
            f"{label}</g>"
        )
    return Picture(width, height, "".join(parts), title)


def _smooth(points: Sequence[tuple[float, float]], seconds: float) -> str:
    """Move along points; of a straight way only the ends are written down."""
    kept = [
        index
        for index, (x, y) in enumerate(points)
        if index in (0, len(points) - 1)
        or abs(points[index - 1][0] + points[index + 1][0] - 2 * x) > 0.05
        or abs(points[index - 1][1] + points[index + 1][1] - 2 * y) > 0.05
    ]
    if len(set(points)) == 1:
        return ""
    values = ";".join(f"{points[index][0]:.0f} {points[index][1]:.0f}" for index in kept)
    times = ";".join(f"{index / (len(points) - 1):.4g}" for index in kept)
    return (
        f'<animateTransform attributeName="transform" type="translate" dur="{seconds:g}s" repeatCount="indefinite" '
        f'values="{values}" keyTimes="{times}"/>'
    )


def _jumps(values: Sequence[str], seconds: float, what: str) -> str:
    """Let something be as `values` say; what stays is not written down again."""
    kept = [index for index, value in enumerate(values) if index == 0 or value != values[index - 1]]
    if len(kept) == 1:
        return ""
    times = ";".join(f"{index / len(values):.4g}" for index in kept)
    return (
        f'<animate{what} calcMode="discrete" dur="{seconds:g}s" repeatCount="indefinite" '
        f'values="{";".join(values[index] for index in kept)}" keyTimes="{times}"/>'
    )


# -- who talks to whom ---------------------------------------------------------------------------------------


def network(centre: str, around: Mapping[str, str], counts: Mapping[str, int], title: str = "") -> Picture:
    """One in the middle, the others around; `around` says how each is: "idle", "busy" or "lost"."""
    width, height = 560.0, 300.0
    middle_x, middle_y = width / 2, height / 2 + 14
    parts = [f'<text x="10" y="18" font-weight="600">{escape(title)}</text>']
    most = max([1, *counts.values()])
    for index, (name, state) in enumerate(around.items()):
        angle = 2 * math.pi * index / len(around) + (math.pi if len(around) == 2 else -math.pi / 2)
        x, y = middle_x + 200 * math.cos(angle), middle_y + 95 * math.sin(angle)
        colour = RED if state == "lost" else GREEN if state == "busy" else GREY
        count = counts.get(name, 0)
        dash = ' stroke-dasharray="3 5"' if state == "lost" else ""
        label = f"{name}: lost" if state == "lost" else name
        label_y = y + 40 if y > middle_y - 20 else y - 32
        parts.append(
            f'<path d="M{middle_x:g} {middle_y:g}L{x:.1f} {y:.1f}" stroke="{colour}" stroke-opacity=".75" '
            f'stroke-width="{1.5 + 6 * count / most:.1f}"{dash}/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="25" fill="{colour}"/>'
            f'<text x="{x:.1f}" y="{y + 5:.1f}" text-anchor="middle" fill="#fff" font-weight="600">{count}</text>'
            f'<text x="{x:.1f}" y="{label_y:.1f}" text-anchor="middle">{escape(label)}</text>'
        )
        if state == "lost":
            parts.append(
                f'<path d="M{x - 17:.1f} {y - 17:.1f}l34 34m0 -34l-34 34" stroke="#fff" stroke-width="4" opacity=".8"/>'
            )
    parts.append(
        f'<circle cx="{middle_x:g}" cy="{middle_y:g}" r="30" fill="{COLOURS[0]}"/>'
        f'<text x="{middle_x:g}" y="{middle_y + 4:g}" text-anchor="middle" fill="#fff" font-weight="600">'
        f"{escape(centre)}</text>"
    )
    return Picture(width, height, "".join(parts), title or "who talks to whom")


class Live:
    """A picture that is drawn anew while a cell runs: `live.show(picture)`, at most 20 times a second."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._next = 0.0

    def show(self, picture: Picture, *, now: bool = False) -> None:
        """Draw, or leave it when the last one was drawn just now; with `now` draw in any case."""
        if monotonic() < self._next and not now:
            return
        self._next = monotonic() + 0.05
        if self._handle is None:
            from IPython.display import display

            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)
