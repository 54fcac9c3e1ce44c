"""The channels of `tasklets` across processes and machines.

    with net.serve("tcp://127.0.0.1:7000", bank=requests): ...      publish a channel
    bank = net.connect("tcp://127.0.0.1:7000/bank")                  use it from anywhere, like a local one
    with net.open_place("processes:4") as place: ...                 spread a program's tasklets

Not here: microthreads and channels themselves (package `tasklets`).
"""

from net._status import ChannelStatus, NodeStatus, SessionStatus, WaitStatus
from net.errors import (
    AddressInUse,
    AuthenticationError,
    BadAddress,
    BadCredentials,
    LocalProtocolError,
    NameNotFound,
    NetError,
    NotImportable,
    PeerLost,
    PeerUnreachable,
    ProtocolError,
    RemoteProtocolError,
)
from net.node import status
from net.places import NodeLost, Place, Spawned, open_place
from net.security import Tls
from net.serving import Server, connect, serve

__all__ = [
    "AddressInUse",
    "AuthenticationError",
    "BadAddress",
    "BadCredentials",
    "ChannelStatus",
    "LocalProtocolError",
    "NameNotFound",
    "NetError",
    "NodeLost",
    "NodeStatus",
    "NotImportable",
    "PeerLost",
    "PeerUnreachable",
    "Place",
    "ProtocolError",
    "RemoteProtocolError",
    "Server",
    "SessionStatus",
    "Spawned",
    "Tls",
    "WaitStatus",
    "connect",
    "open_place",
    "serve",
    "status",
]
