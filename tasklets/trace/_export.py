"""A recording as data for Perfetto or Chrome, and as a page."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from tasklets.trace._diagram import PAGE_STYLE, draw

if TYPE_CHECKING:
    from tasklets.trace._recording import Event, Recording


def chrome(recording: Recording) -> str:
    """The Trace Event Format: a track per tasklet with its turns and waits, an arrow (flow) per message."""
    out: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "args": {"name": "tasklets"}}
    ]
    tracks: dict[int, int] = {}  # number of a line -> tid
    began: dict[int, tuple[str, float]] = {}  # tid -> what it does, and since when
    last = 0.0
    for event in recording.events:
        if event.line.number not in tracks:
            tid = tracks[event.line.number] = len(tracks) + 1
            out.append(_meta("thread_name", tid, {"name": event.tasklet}))
            out.append(_meta("thread_sort_index", tid, {"sort_index": tid}))
        tid, last = tracks[event.line.number], event.time
        if event.kind in ("run", "yield", "wait", "end", "fail"):
            _end_slice(out, began, tid, event.time)
        if event.kind == "run":
            began[tid] = ("runs", event.time)
        elif event.kind == "wait":
            began[tid] = (f"waits: {event.text}", event.time)
        elif event.kind in ("send", "receive"):
            out.extend(_flow(event, tid))
        else:
            out.append(_instant(event, tid))
    for tid in list(began):
        _end_slice(out, began, tid, last)
    return json.dumps({"traceEvents": out, "displayTimeUnit": "ns"}, indent=0)


def _meta(name: str, tid: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": 1, "tid": tid, "args": args}


def _end_slice(out: list[dict[str, Any]], began: dict[int, tuple[str, float]], tid: int, now: float) -> None:
    if tid in began:
        name, since = began.pop(tid)
        out.append(
            {"ph": "X", "name": name, "cat": "turn" if name == "runs" else "wait", "pid": 1, "tid": tid}
            | {"ts": since * 1e6, "dur": max(0.001, (now - since) * 1e6)}
        )


def _flow(event: Event, tid: int) -> list[dict[str, Any]]:
    message = event.message
    assert message is not None
    common = {"pid": 1, "tid": tid, "ts": event.time * 1e6, "cat": "message"}
    mark = {"ph": "i", "s": "t", "name": event.describe(), **common}
    arrow: dict[str, Any] = {"ph": "s" if event.kind == "send" else "f", "id": message.number, **common}
    arrow |= {"name": message.channel}
    if event.kind == "receive":
        arrow["bp"] = "e"
    return [mark, arrow]


def _instant(event: Event, tid: int) -> dict[str, Any]:
    return {"ph": "i", "s": "t", "name": event.describe(), "cat": "life", "pid": 1, "tid": tid} | {
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
