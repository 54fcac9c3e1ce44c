"""The channels of `tasklets` across processes and machines.

    with net.serve("tcp://127.0.0.1:7000", bank=requests): ...      publish a channel
    bank = net.connect("tcp://127.0.0.1:7000/bank")                  use it from anywhere, like a local one
    with net.open_place("processes:4") as place: ...                 spread a program's tasklets

Not here: microthreads and channels themselves (package `tasklets`).
"""

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
from net.places import NodeLost, Place, Spawned, open_place
from net.security import Tls
from net.serving import Server, connect, serve

__all__ = [
    "AddressInUse",
    "AuthenticationError",
    "BadAddress",
    "BadCredentials",
    "LocalProtocolError",
    "NameNotFound",
    "NetError",
    "NodeLost",
    "NotImportable",
    "PeerLost",
    "PeerUnreachable",
    "Place",
    "ProtocolError",
    "RemoteProtocolError",
    "Server",
    "Spawned",
    "Tls",
    "connect",
    "open_place",
    "serve",
]
