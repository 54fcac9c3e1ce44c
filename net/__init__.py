"""The channels of `tasklets` across processes and machines.

    with net.serve("tcp://127.0.0.1:7000", bank=requests): ...      publish a channel
    bank = net.connect("tcp://127.0.0.1:7000/bank")                  use it from anywhere, like a local one
    with net.open_place("processes:4") as place: ...                 spread a program's tasklets

Not here: microthreads and channels themselves (package `tasklets`).
"""

from pathlib import Path as _Path

from net._hot import HOT as _HOT, SOURCES as _SOURCES
from tasklets._which_form import choose as _choose_form

_choose_form("net", _Path(__file__).resolve().parent, _HOT, _SOURCES, needs="tasklets._core")

from net import _dispatch as _dispatch, _logging as _logging
from net._monitors import Down
from net._status import ChannelStatus, NodeStatus, SessionStatus, WaitStatus, status
from net.errors import (
    AddressInUse,
    AuthenticationError,
    BadAddress,
    BadCredentials,
    LocalProtocolError,
    NameNotFound,
    NetError,
    NotAllowed,
    NotImportable,
    PeerLost,
    PeerUnreachable,
    ProtocolError,
    RemoteProtocolError,
)
from net.facets import receive_only, send_only
from net.places import NodeLost, Place, Spawned, open_place
from net.security import Tls
from net.serving import Server, configure, connect, serve
from net.settings import Settings
from net.watching import monitor, watch_dead_letters

__all__ = [
    "AddressInUse",
    "AuthenticationError",
    "BadAddress",
    "BadCredentials",
    "ChannelStatus",
    "Down",
    "LocalProtocolError",
    "NameNotFound",
    "NetError",
    "NodeLost",
    "NodeStatus",
    "NotAllowed",
    "NotImportable",
    "PeerLost",
    "PeerUnreachable",
    "Place",
    "ProtocolError",
    "RemoteProtocolError",
    "Server",
    "SessionStatus",
    "Settings",
    "Spawned",
    "Tls",
    "WaitStatus",
    "configure",
    "connect",
    "monitor",
    "open_place",
    "receive_only",
    "send_only",
    "serve",
    "status",
    "watch_dead_letters",
]
