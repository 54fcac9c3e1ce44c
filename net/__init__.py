"""The channels of `tasklets` across processes and machines.

    with net.serve("tcp://127.0.0.1:7000", bank=requests): ...      publish a channel
    bank = net.connect("tcp://127.0.0.1:7000/bank")                  use it from anywhere, like a local one
    with net.open_place("processes:4") as place: ...                 spread a program's tasklets

Not here: microthreads and channels themselves (package `tasklets`).
"""

from net.errors import (
    AddressInUse,
    BadAddress,
    LocalProtocolError,
    NameNotFound,
    NetError,
    NotImportable,
    PeerLost,
    PeerUnreachable,
    ProtocolError,
    RemoteProtocolError,
)
from net.places import Place, Spawned, open_place
from net.serving import Server, configure, connect, serve
from net.settings import Settings

__all__ = [
    "AddressInUse",
    "BadAddress",
    "LocalProtocolError",
    "NameNotFound",
    "NetError",
    "NotImportable",
    "PeerLost",
    "PeerUnreachable",
    "Place",
    "ProtocolError",
    "RemoteProtocolError",
    "Server",
    "Settings",
    "Spawned",
    "configure",
    "connect",
    "open_place",
    "serve",
]
