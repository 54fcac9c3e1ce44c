"""A recording as data for Perfetto or Chrome, and as a page."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from tasklets.trace import _document
from tasklets.trace._diagram import PAGE_STYLE, draw

if TYPE_CHECKING:
    from tasklets.trace._recording import Event, Recording


def chrome(recording: Recording) -> str:
    """The Trace Event Format: a process per node, in it a track per tasklet with its turns and waits, an arrow (flow)
    per message. Beside it stands what `merge` reads.
    """
    out: list[dict[str, Any]] = []
    nodes: dict[str, int] = {}  # name -> pid
    tracks: dict[int, _Track] = {}  # by the number of the line
    began: dict[_Track, tuple[str, float]] = {}  # what it does, and since when
    last = 0.0
    for event in recording.events:
        line = event.line
        if line.node not in nodes:
            nodes[line.node] = len(nodes) + 1
            out.append(_meta("process_name", (nodes[line.node], 0), {"name": line.node or recording.node}))
        if line.number not in tracks:
            track = tracks[line.number] = nodes[line.node], len(tracks) + 1
            out.append(_meta("thread_name", track, {"name": event.tasklet}))
            out.append(_meta("thread_sort_index", track, {"sort_index": track[1]}))
        track, last = tracks[line.number], event.time
        if event.kind in ("run", "yield", "wait", "end", "fail"):
            _end_slice(out, began, track, event.time)
        if event.kind == "run":
            began[track] = ("runs", event.time)
        elif event.kind == "wait":
            began[track] = (f"waits: {event.text}", event.time)
        elif event.kind in ("send", "receive"):
            out.extend(_flow(event, track))
        else:
            out.append(_instant(event, track))
    for track in list(began):
        _end_slice(out, began, track, last)
    whole: dict[str, Any] = {"traceEvents": out, "displayTimeUnit": "ns"}
    if not any(nodes):  # what was merged is not merged again
        whole[_document.KEY] = _document.encode(_document.of(recording))
    return json.dumps(whole, indent=0)


_Track = tuple[int, int]  # pid, tid


def _meta(name: str, track: _Track, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": track[0], "tid": track[1], "args": args}


def _end_slice(
    out: list[dict[str, Any]], began: dict[_Track, tuple[str, float]], track: _Track, now: float
) -> None:
    if track in began:
        name, since = began.pop(track)
        pid, tid = track
        out.append(
            {"ph": "X", "name": name, "cat": "turn" if name == "runs" else "wait", "pid": pid, "tid": tid}
            | {"ts": since * 1e6, "dur": max(0.001, (now - since) * 1e6)}
        )


def _flow(event: Event, track: _Track) -> list[dict[str, Any]]:
    message = event.message
    assert message is not None
    common = {"pid": track[0], "tid": track[1], "ts": event.time * 1e6, "cat": "message"}
    mark = {"ph": "i", "s": "t", "name": event.describe(), **common}
    arrow: dict[str, Any] = {"ph": "s" if event.kind == "send" else "f", "id": message.number, **common}
    arrow |= {"name": message.channel}
    if event.kind == "receive":
        arrow["bp"] = "e"
    return [mark, arrow]


def _instant(event: Event, track: _Track) -> dict[str, Any]:
    pid, tid = track
    return {"ph": "i", "s": "t", "name": event.describe(), "cat": "life", "pid": pid, "tid": tid} | {
        "ts": event.time * 1e6
    }


def page(recording: Recording) -> str:
    """A page with the diagram and the table."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>tasklets: {escape(repr(recording))}</title>
<style>{PAGE_STYLE}</style></head>
<body><main>{draw(recording, 2000, standalone=False)}
<details><summary>as a table</summary><pre>{escape(str(recording))}</pre></details></main></body></html>
"""
