"""What goes on in a node: its sessions, its channels, who waits. For programs (`net.status()`) and for `tasklets top`.

It is collected when somebody asks, from what the node keeps anyway: nothing is counted for it.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Final

from net._handshake import name_methods
from net._references import RemoteChannel
from net.errors import NetError
from net.node import get_node
from tasklets import channel, debug, getruncount, message, tasklet

if TYPE_CHECKING:
    from types import FrameType

    from net._link import Link
    from net.node import Node

NAME: Final = "net.status"  # under which a peer looks up a channel with one message: the status as it is then
MAX_LISTED: Final = (
    200  # channels, and waiting tasklets, of one status: what fits on screens, and into a message
)
MAX_WAIT_CHARS: Final = 200

log = logging.getLogger("net")

_LIBRARY: Final = tuple(
    os.path.dirname(os.path.abspath(path)) + os.sep for path in (__file__, debug.__file__)
)
_STARTED: Final = time.time()  # near enough: this is imported with the package


@message(name="net.SessionStatus")
class SessionStatus:
    """One session of a node, as the node sees it."""

    peer: str  # the name of the node at the other end, and where it is
    state: str  # "opening", "open" or "lost"
    proved_by: str  # "a secret", "certificates (TLS)", both, or empty: nothing was asked for
    certificate: str  # the name in the peer's certificate
    messages_sent: int  # by `send` of this node, since the session began
    messages_received: int  # by `send` of the peer
    channels_held: int  # of this node, which the peer may use
    waits_here: int  # operations of this node that wait for the peer
    waits_there: int  # receives and rendezvous sends of the peer that wait for somebody here
    spawned: int  # tasklets that run here for the peer


@message(name="net.ChannelStatus")
class ChannelStatus:
    """A channel that lives at a node and that the network knows, or a reference of the node's to one elsewhere."""

    name: str  # its own, or the first digits of its id
    home: str  # "here", or the peer where it lives
    published_as: tuple[str, ...]
    capacity: int
    balance: int  # messages and senders that wait, or minus the receivers
    open: bool
    holders: int  # how many peers hold it


@message(name="net.WaitStatus")
class WaitStatus:
    """A tasklet that waits."""

    tasklet: str
    waits_for: str
    where: str  # file and line


@message(name="net.NodeStatus")
class NodeStatus:
    """A node, when it was asked."""

    name: str
    node_id: str
    pid: int
    at: float  # seconds since 1970, by its clock
    seconds_up: float
    addresses: tuple[str, ...]
    starts_functions: bool
    stopping: bool
    half_open: int  # connections that have not proved who they are
    runnable: int  # tasklets that want to run
    sessions: tuple[SessionStatus, ...]
    channels: tuple[ChannelStatus, ...]  # the first 200
    channel_count: int
    waiting: tuple[WaitStatus, ...]  # the first 200
    waiting_count: int


def collect(node: Node) -> NodeStatus:
    """Return what goes on in a node of the calling OS thread."""
    channels = _channels(node)
    blocked = debug.waiting()
    return NodeStatus(
        name=node.name,
        node_id=node.id.hex(),
        pid=os.getpid(),
        at=time.time(),
        seconds_up=time.time() - _STARTED,
        addresses=node.addresses,
        starts_functions=node.accepts_spawn,
        stopping=node.stopping,
        half_open=len(node.gate),
        runnable=getruncount() - 1,  # not the one who asks
        sessions=tuple(sorted((_session(link) for link in node.links), key=lambda one: one.peer)),
        channels=tuple(channels[:MAX_LISTED]),
        channel_count=len(channels),
        waiting=tuple(_wait(one) for one in blocked[:MAX_LISTED]),
        waiting_count=len(blocked),
    )


def status() -> NodeStatus:
    """Return what goes on in this process, as a node of the network: its sessions, its channels, who waits."""
    return collect(get_node())


def _session(link: Link) -> SessionStatus:
    identity = link.identity
    return SessionStatus(
        peer=link.name,
        state=link.state,
        proved_by=name_methods(identity.security.methods) if identity is not None else "",
        certificate=identity.name if identity is not None else "",
        messages_sent=link.messages_sent,
        messages_received=link.messages_received,
        channels_held=len(link.grants),
        waits_here=len(link.operations) + sum(max(0, user.balance) for user in link.users),
        waits_there=len(link.requests) + len(link.unsettled),
        spawned=len(link.spawned),
    )


def _channels(node: Node) -> list[ChannelStatus]:
    """The published ones, those that peers hold, and references to others'; each once."""
    held: dict[channel, int] = {}
    for link in node.links:
        for granted in link.grants.values():
            held[granted.channel] = held.get(granted.channel, 0) + 1
    published: dict[channel, list[str]] = {}
    for name, one in node.names.items():
        published.setdefault(one, []).append(name)
    references = [user for link in node.links for user in link.users]
    return [
        ChannelStatus(
            name=one.name or node.id_of(one).hex()[:8],
            home=_home(one),
            published_as=tuple(published.get(one, ())),
            capacity=one.capacity,
            balance=one.balance,
            open=not one.closing,
            holders=held.get(one, 0),
        )
        for one in dict.fromkeys([*published, *held, *references])
        if one.name != NAME
    ]


def _home(one: channel) -> str:
    if not isinstance(one, RemoteChannel):
        return "here"
    return one._link.name if one._link is not None else "another node"


def _wait(one: tasklet) -> WaitStatus:
    return WaitStatus(one.name or hex(id(one)), one.waits_for[:MAX_WAIT_CHARS], _where(one)[-MAX_WAIT_CHARS:])


def _where(one: tasklet) -> str:
    """File and line at which a tasklet stands, outside of this library."""
    frame: FrameType | None = one.frame
    while frame is not None and os.path.abspath(frame.f_code.co_filename).startswith(_LIBRARY):
        frame = frame.f_back
    return (
        f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}" if frame is not None else ""
    )


def offer(node: Node) -> channel:
    """Return a channel with one message: the status of the node, in a moment."""
    answers = channel(1, NAME, copy=True)
    teller = tasklet(_tell)(node, answers)
    teller.name = "status"
    return answers


def _tell(node: Node, answers: channel) -> None:
    try:
        answers.send(collect(node))
    except Exception as error:  # who only looks must not end a program
        log.exception("the status cannot be told")
        answers.send_exception(
            NetError, f"{node.name} cannot tell its status: {type(error).__name__}: {error}"
        )
