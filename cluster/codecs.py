"""How arguments and results become bytes: the values of `net`, unless a task names a codec of your own.

    register_codec("json", lambda value: json.dumps(value).encode(), json.loads)     in the client and in the workers
    client.with_options(codec="json").submit(op, 1)

The name travels with the bytes, so tasks of several codecs share a queue. A result goes back in its task's codec.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from cluster.errors import ClusterError, UnknownCodec
from net import values
from tasklets import NotSendable

_MARK: Final = b"\xc1"  # the one byte that no msgpack value begins with
_LONGEST: Final = 255


class _Codec(NamedTuple):
    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]


_registry: dict[str, _Codec] = {}


def register_codec(name: str, dumps: Callable[[Any], bytes], loads: Callable[[bytes], Any]) -> None:
    """Make a codec known to this process. It is given the arguments as (tuple, dict, dict), and each result.

    What `loads` returns may have lists for tuples. Raises ClusterError for a name that is empty or long.
    """
    if not 0 < len(name.encode()) <= _LONGEST:
        raise ClusterError(f"a codec's name has 1 to {_LONGEST} bytes, and not as {name!r}")
    _registry[name] = _Codec(dumps, loads)


def encode(value: Any, codec: str = "") -> bytes:
    """The bytes of a value. Raises NotSendable, UnknownCodec."""
    if not codec:
        return values.dumps(value)
    dumps = _find(codec).dumps
    try:
        body = dumps(value)
    except Exception as error:
        raise NotSendable(f"codec {codec!r}: {type(error).__name__}: {error}") from error
    name = codec.encode()
    return b"".join((_MARK, bytes((len(name),)), name, body))


def decode(data: bytes) -> Any:
    """The value of bytes. Raises UnknownCodec, and what their codec raises."""
    name = codec_of(data)
    return _find(name).loads(data[2 + len(name.encode()) :]) if name else values.loads(data)


def codec_of(data: bytes) -> str:
    """The name of the codec that made these bytes; "" is the default one."""
    return data[2 : 2 + data[1]].decode() if data.startswith(_MARK) else ""


def _find(name: str) -> _Codec:
    codec = _registry.get(name)
    if codec is None:
        known = ", ".join(sorted(_registry)) or "none"
        raise UnknownCodec(f"no codec {name!r} is registered here; those that are: {known}")
    return codec
