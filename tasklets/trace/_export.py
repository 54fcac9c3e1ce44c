"""A recording as data for Perfetto or Chrome, and as a page."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from tasklets.trace._document import KEY, encode

if TYPE_CHECKING:
    from tasklets.trace._document import Document
    from tasklets.trace._events import Event

PAGE_STYLE = """
:root{color-scheme:light dark}
body{margin:0;font:14px system-ui,sans-serif;color:#1c2024;background:#ffffff}
main{padding:24px;overflow-x:auto}
pre{font-size:12px}
@media (prefers-color-scheme:dark){body{color:#e8eaed;background:#14171a}}
"""


def chrome(document: Document) -> str:
    """The Trace Event Format: a process per node, in it a track per tasklet with its turns and waits, an arrow (flow)
    per message. Beside it stands what `merge` reads.
    """
    out: list[dict[str, Any]] = []
    nodes: dict[str, int] = {}  # name -> pid
    tracks: dict[int, _Track] = {}  # by the number of the line
    began: dict[_Track, tuple[str, float]] = {}  # what it does, and since when
    last = 0.0
    for event in document.events:
        line = event.line
        if line.node not in nodes:
            nodes[line.node] = len(nodes) + 1
            out.append(_meta("process_name", (nodes[line.node], 0), {"name": line.node or document.node}))
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
        whole[KEY] = encode(document)
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


def page(headline: str, diagram: str, table: str) -> str:
    """A page with the diagram and the table."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>tasklets: {escape(headline)}</title>
<style>{PAGE_STYLE}</style></head>
<body><main>{diagram}
<details><summary>as a table</summary><pre>{escape(table)}</pre></details></main></body></html>
"""
