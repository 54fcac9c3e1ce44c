"""What `tasklets top` shows: the statuses of some nodes, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from net._status import NodeStatus, SessionStatus

MAX_ROWS: Final = 30  # of one table; who has more looks at --json

Rates = Mapping[str, tuple[float, float]]  # peer -> messages per second sent, received


def rates(before: NodeStatus | None, now: NodeStatus) -> dict[str, tuple[float, float]]:
    """Return the messages per second of each session between two statuses of a node."""
    if before is None or before.node_id != now.node_id or now.at <= before.at:
        return {}
    earlier = {one.peer: one for one in before.sessions}
    seconds = now.at - before.at
    return {
        one.peer: (
            max(0, one.messages_sent - earlier[one.peer].messages_sent) / seconds,
            max(0, one.messages_received - earlier[one.peer].messages_received) / seconds,
        )
        for one in now.sessions
        if one.peer in earlier
    }


def draw(address: str, status: NodeStatus | None, problem: str, per_second: Rates) -> RenderableType:
    """Return what is shown of one node: its status, or the problem of asking for it."""
    if status is None:
        return Text(f"{address}: ", style="red").append_text(_plain(problem))
    parts: list[RenderableType] = [_headline(address, status)]
    if status.sessions:
        parts.append(_sessions(status.sessions, per_second))
    if status.channels:
        parts.append(_channels(status))
    if status.waiting:
        parts.append(_waiting(status))
    return Group(*parts, Text())


def _headline(address: str, status: NodeStatus) -> Text:
    line = _plain(status.name)
    line.stylize("bold")
    line.append(
        f" at {', '.join(status.addresses) or address}, pid {status.pid}, up {_duration(status.seconds_up)}",
        "",
    )
    line.append(
        f"; {status.runnable} runnable, {status.waiting_count} waiting, {status.half_open} half open",
        style="not bold",
    )
    if status.stopping:
        line.append("; stopping", style="yellow")
    return line


def _duration(seconds: float) -> str:
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="dim", expand=True, show_edge=False)
    for column in columns:
        text = column in (
            "peer",
            "proved by",
            "channel",
            "home",
            "published",
            "tasklet",
            "waits for",
            "at",
            "state",
        )
        table.add_column(column, justify="left" if text else "right", overflow="fold")
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*map(_plain, cells))


def _plain(text: str) -> Text:
    """What another program says of itself, without the power over a terminal that it may hold."""
    return Text("".join(char if char.isprintable() else "?" for char in text))


def _sessions(sessions: Sequence[SessionStatus], per_second: Rates) -> Table:
    counts = ("sent/s", "received/s", "sent", "received", "channels", "waits here", "waits there", "spawned")
    table = _table(f"{len(sessions)} sessions", "peer", "state", "proved by", *counts)
    for one in sessions[:MAX_ROWS]:
        sent, received = per_second.get(one.peer, (None, None))
        _add(
            table,
            one.peer,
            one.state,
            one.proved_by + (f": {one.certificate}" if one.certificate else ""),
            "" if sent is None else f"{sent:,.0f}",
            "" if received is None else f"{received:,.0f}",
            *(f"{count:,}" for count in (one.messages_sent, one.messages_received, one.channels_held)),
            *(f"{count:,}" for count in (one.waits_here, one.waits_there, one.spawned)),
        )
    return table


def _channels(status: NodeStatus) -> Table:
    table = _table(
        f"{status.channel_count} channels", "channel", "home", "published", "capacity", "balance", "holders"
    )
    for one in status.channels[:MAX_ROWS]:
        _add(
            table,
            one.name + ("" if one.open else " (closed)"),
            one.home,
            ", ".join(one.published_as),
            f"{one.capacity:,}",
            f"{one.balance:+,}" if one.balance else "0",
            f"{one.holders:,}",
        )
    return table


def _waiting(status: NodeStatus) -> Table:
    table = _table(f"{status.waiting_count} waiting", "tasklet", "waits for", "at")
    for one in status.waiting[:MAX_ROWS]:
        _add(table, one.tasklet, one.waits_for, one.where)
    return table
