"""To hear of what goes wrong elsewhere: the end of a channel, and messages that nobody gets.

down = net.monitor(requests)
index, value = select([answers, down])
if value.__class__ is net.Down: ...          # value.reason says why
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from net._monitors import Down, tell_end
from net._references import RemoteChannel
from net.errors import PeerLost
from net.node import get_node
from tasklets import channel

if TYPE_CHECKING:
    from collections.abc import Callable


def monitor(ref: channel) -> channel:
    """Get a channel on which `Down(ref, reason)` arrives once: when `ref` is closed, or its node is lost.

    It arrives at once when that is so already. Blocks when a reference from a third node has to be connected first.
    While the channel returned here exists, it keeps `ref` alive.
    """
    if not isinstance(ref, channel):
        raise TypeError(f"what is monitored is a channel, not {ref!r}")
    told = channel(1, f"monitor of {ref.name or 'a channel'}")
    node = get_node()
    if isinstance(ref, RemoteChannel):
        try:
            link = ref._connected()
        except PeerLost as error:
            tell_end(told, Down(ref, str(error)))
            return told
        if link.lost is not None:
            tell_end(told, Down(ref, str(link.lost)))
            return told
    else:
        node.id_of(ref)
    if ref.closing:
        tell_end(told, Down(ref, "it was closed"))
    else:
        node.monitors.add(ref, told)
    return told


def watch_dead_letters(hook: Callable[[Any, str], object] | None) -> int:
    """Let `hook(value, reason)` be called for every message that arrives here and that nobody can get.

    That is a message for a channel which nobody holds any more, which was closed, or whose receiver's node was lost
    after it had asked for it. Its sender is told, too. The hook is called in the event loop: it must not block. Returns
    how many there were so far; None for the hook only counts.
    """
    node = get_node()
    node.on_dead_letter = hook
    return node.dead_letters
