"""What a node does about each type of frame. The modules that say it know links; the table is put together here."""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING

from net import _exports, _large, _operations, _references, _spawning, _status, _wire as wire
from net._printable import printable
from net._protocol import Hello
from net.errors import NameNotFound, NetError
from net.node import Node, _here

if TYPE_CHECKING:
    from net._link import Link

MAX_STATUSES = 64  # that one peer holds: each takes some KB here until it lets go of it


def _on_hello(link: Link, frame: wire.Frame) -> None:
    link.greet(Hello.from_features(frame[1]))


def _on_goodbye(link: Link, frame: wire.Frame) -> None:
    reason = printable(frame[1])
    # What it took it said before. So what it did not say it did not take.
    link.lose(f"it ended: {reason}" if reason else "it ended", "not taken")


def _on_lookup(link: Link, frame: wire.Frame) -> None:
    _, op, name = frame
    node = link.node
    if name == _status.NAME:
        held = sum(granted.channel.name == name for granted in link.grants.values())
        if held >= MAX_STATUSES:
            link.tell(
                (wire.RAISE, op), NetError(f"{held} statuses of {node.name} were not read; let go of them")
            )
            return
    found = _status.offer(node) if name == _status.NAME else node.names.get(name)
    if found is not None:
        link.send((wire.FOUND, op, found))
        return
    published = ", ".join(sorted(node.names)) or "nothing"
    link.tell(
        (wire.RAISE, op),
        NameNotFound(f"no channel is published as {name!r} at {node.name}; published: {published}"),
    )


def _on_spawn(link: Link, frame: wire.Frame) -> None:
    if link.node.network is None:
        _spawning.HANDLERS[wire.SPAWN](link, frame)
    else:  # of several nodes in this thread it belongs to this one
        context = copy_context()
        context.run(_here.set, link.node)
        context.run(_spawning.HANDLERS[wire.SPAWN], link, frame)


Node.handlers = {
    wire.HELLO: _on_hello,
    wire.GOODBYE: _on_goodbye,
    wire.LOOKUP: _on_lookup,
    **_operations.HANDLERS,
    **_large.HANDLERS,
    **_exports.HANDLERS,
    **_references.HANDLERS,
    **_spawning.HANDLERS,
    wire.SPAWN: _on_spawn,
    wire.KILL: _exports.in_turn(_spawning.HANDLERS[wire.KILL]),
}
Node.take_message = staticmethod(_exports.take_message)
