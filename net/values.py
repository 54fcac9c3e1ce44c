"""Values as bytes, for those who keep them instead of sending them: in a file, a database, a queue.

    values.loads(values.dumps({"account": 17, "since": date(2026, 1, 1)}))  ==  freeze(the same)

The same closed list of types, limits and errors as on the wire, and no pickle. A channel cannot be kept: it
lives as long as its process.
"""

from __future__ import annotations

import threading
from typing import Any, Final, NoReturn

from net._codec import Codec, Undecodable
from net._wire import ID_BYTES, SEND
from net.errors import NetError
from tasklets import NotSendable

_ID: Final = bytes(ID_BYTES)


class Unreadable(NetError, ValueError):
    """Bytes that are no value, or one that means nothing here, such as a message class nobody registered."""


def _refuse(_: object) -> NoReturn:
    raise NotSendable("a channel cannot be kept: it lives as long as its process; keep an address or a name")


class _PerThread(threading.local):
    """A codec keeps a buffer, and belongs to one thread."""

    def __init__(self) -> None:
        self.codec = Codec(_refuse, _refuse)
        self.head = self.codec.encode((SEND, _ID, None))[:-1]


_ours = _PerThread()


def dumps(value: Any) -> bytes:
    """Return the bytes of `freeze(value)`.

    Raises NotSendable, with the path to the part, for what cannot travel.
    """
    return _ours.codec.encode((SEND, _ID, value))[len(_ours.head) :]


def loads(data: bytes) -> Any:
    """Return the value that `dumps` made bytes of. Raises Unreadable."""
    try:
        value = _ours.codec.decode(_ours.head + data)[0][2]
    except NetError as error:
        raise Unreadable(f"{len(data)} bytes are no value: {error}") from error
    if isinstance(value, Undecodable):
        raise Unreadable(value.reason)
    return value
