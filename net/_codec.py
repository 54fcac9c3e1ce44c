"""Frames to bytes and back. Only a closed list of types passes: no pickle, and no class path on the wire.

    codec.decode(codec.encode((SEND, channel_id, value)))[0][2]  ==  freeze(value)

msgpack does the work: plain values are msgpack's own, atoms such as a UUID are extensions, and a value with
parts that msgpack does not know (a message, a set) is a map of one entry, whose key is an extension that
says what it is and whose value is the array of the parts. So everything is read in one pass, without a copy
per level and without recursion here. docs/wire.md says it to the byte.

Both directions stand together, although the module is long: each rule has a half in either.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from types import MappingProxyType
from typing import Any, Final

import msgpack

from net._apart import Head, head_of
from net._extensions import DECODERS, ENCODERS, Meaningless, encode_enum
from net._wire import (
    ACK,
    FRAMES,
    ID_BYTES,
    MAX_ADDRESSES,
    MAX_TEXT_CHARS,
    MAY_RECEIVE,
    MAY_SEND,
    PART,
    SEND,
    SMALL_BYTES,
    Frame,
    check_frame,
    shorten,
)
from net.errors import RemoteProtocolError
from tasklets import NotSendable, RemoteError, channel, freeze
from tasklets.freezing import ATOMS, MAX_DEPTH, builtin_exceptions, exception_args, freeze_named
from tasklets.messages import (
    MAX_NAME_BYTES,
    MessageType,
    message_names,
    message_types,
)

# How a node describes one of its channels: node id, channel id, capacity, name, addresses of the node, rights.
Description = tuple[bytes, bytes, int, str | None, tuple[str, ...], int]

# Extensions that are the key of a map of one entry, and say what its value makes.
MESSAGE: Final = 16
FROZENSET: Final = 17
EXCEPTION: Final = 18
REMOTE_ERROR: Final = 19
CHANNEL: Final = 20

# msgpack makes room for an array when it reads its header. Up to here a batch is parsed at once: what
# headers can promise (8 bytes an item, on each of 1024 levels) is 30 MiB at worst. Larger ones are first
# walked over without making anything, so that no promise is believed.
_TRUSTED_BYTES: Final = 4096
_MAX_BUFFER_BYTES: Final = (1 << 31) - 1  # msgpack's own; who calls `decode` has checked a smaller one
_KEPT_BYTES: Final = 1024 * 1024  # a buffer that grew beyond this for one large batch or frame is given back

# The bytes that open an array or a map. A frame with fewer of them than levels are allowed cannot be too
# deep.
_OPENERS: Final = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
_COUNTED_BYTES: Final = 1024  # counting is cheaper than walking the value up to about here


def send_head(channel_id: bytes) -> bytes:
    """The bytes of a SEND to a channel, without its value."""
    packed: bytes = msgpack.packb((SEND, channel_id, None))
    return packed[:-1]


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Stands for a value that is well formed but means nothing here: an unknown message class, say."""

    reason: str


class Codec:
    """Turns frames into bytes and back, for one thread.

    `export(channel)` returns a channel's Description, and is called while a frame is encoded; it must not
    use the codec. `resolve(description)` returns a channel, and is called while a frame is decoded; what it
    raises makes the value Undecodable. After `encode`, also when it raised, `exported` lists the channels it
    described.
    """

    def __init__(
        self, export: Callable[[channel], Description], resolve: Callable[[Description], channel]
    ) -> None:
        self.exported: list[channel] = []
        self.sizes: dict[
            int, int
        ] = {}  # of the frames last decoded: index -> bytes, those beyond SMALL_BYTES
        self._export = export
        self._resolve = resolve
        self._tags_open = 0  # extensions read that must still turn out to be the key of a map of one entry
        self._trouble: str | None = None  # why the value of the frame being read is undecodable
        self._renew_packers()
        self._renew_unpacker()

    # -------------------------------------------------------------------------------------------- to bytes

    def encode(self, frame: Frame) -> bytes:
        """Return a frame's bytes.

        Raises NotSendable, with the path inside the field (`value.items[3]`, `args[0]`), for what cannot
        travel.
        """
        if self.exported:
            self.exported = []
        fields = list(frame)
        if type(fields[-1]) is tuple:  # nearly every message; spares msgpack the question what to do with it
            fields[-1] = list(fields[-1])
        try:
            data = self._pack(fields)
        except Exception:  # noqa: BLE001  the thorough way raises it again with its path, or cures it
            return self._encode_thoroughly(frame)
        size = len(data)
        if size > MAX_DEPTH:  # every level takes a byte
            if size > _KEPT_BYTES:
                self._renew_packers()
            if _may_be_deep(data) and _too_deep(frame, MAX_DEPTH + 1):
                return self._encode_thoroughly(frame)
        return data

    def encode_send(self, head: bytes, value: Any) -> bytes:
        """The same for a SEND, the most frequent frame by far, with `head` standing before its value (`send_head`)."""
        if self.exported:
            self.exported = []
        try:
            data = head + self._pack(list(value) if type(value) is tuple else value)
        except Exception:  # noqa: BLE001  as above
            return self._encode_thoroughly((SEND, head[-ID_BYTES:], value))
        size = len(data)
        if size > MAX_DEPTH:
            if size > _KEPT_BYTES:
                self._renew_packers()
            if _may_be_deep(data) and _too_deep((value,), MAX_DEPTH + 1):
                return self._encode_thoroughly((SEND, head[-ID_BYTES:], value))
        return data

    def _encode_thoroughly(self, frame: Frame) -> bytes:
        """Encode what the fast way did not: freeze subclasses and odd texts, or find the offending part."""
        self.exported = []
        self._renew_packers()  # the failed one may keep what it packed before it failed
        fields = FRAMES[frame[0]].fields
        frozen = [freeze_named(value, name) for (name, _), value in zip(fields, frame[1:], strict=True)]
        try:
            return self._pack_odd([frame[0], *frozen])
        except (ValueError, OverflowError) as failure:
            self._renew_packers()
            raise NotSendable(f"{fields[-1][0]}: {failure}; send it in parts", fields[-1][0]) from failure

    def _renew_packers(self) -> None:
        # strict_types: an IntEnum is no int, a namedtuple no tuple; everything inexact comes to
        # _encode_other.
        self._pack: Callable[[Any], bytes] = msgpack.Packer(
            default=self._encode_other, strict_types=True, buf_size=4096
        ).pack
        # Texts with lone surrogates (file names have them) need an error handler, which makes every text
        # slower.
        self._pack_odd: Callable[[Any], bytes] = msgpack.Packer(
            default=self._encode_other, strict_types=True, buf_size=256, unicode_errors="surrogatepass"
        ).pack

    def _encode_other(self, value: Any) -> Any:
        """Return something msgpack knows for a value it does not."""
        kind = type(value)
        if kind is tuple:
            return list(value)
        message_type = message_types.get(kind)
        if message_type is not None:
            tag = _message_tags.get(kind)
            if tag is None:
                tag = _message_tags[kind] = msgpack.ExtType(MESSAGE, message_type.name.encode())
            return {tag: list(message_type.values_of(value))}
        encoder = _ENCODERS.get(kind)
        if encoder is not None:
            return encoder(value)
        if isinstance(value, channel):
            self.exported.append(value)
            return {_CHANNEL_TAG: list(self._export(value))}
        if isinstance(value, Enum):
            return encode_enum(value)
        if isinstance(value, BaseException):
            return _encode_exception(value)
        raise TypeError(f"{kind.__name__} needs freezing first")

    # ------------------------------------------------------------------------------------------ from bytes

    def decode(self, batch: bytes | bytearray | memoryview) -> list[Frame]:
        """Return the frames of a batch, each checked against the table.

        A value that means nothing here is Undecodable, and the other frames are not touched by it.

        Raises RemoteProtocolError for everything malformed, and nothing else.
        """
        if self.sizes:
            self.sizes = {}
        try:
            if len(batch) > _TRUSTED_BYTES:
                head = head_of(batch, len(batch))
                if head is not None:
                    self.sizes[0] = len(batch)
                    return [self.frame_apart(head, bytes(batch[head[2] :]))]
                _walk(batch)
            unpacker = self._unpacker
            unpack, tell = unpacker.unpack, unpacker.tell
            start = tell()
            end = start + len(batch)
            unpacker.feed(batch)
            frames: list[Frame] = []
            while start < end:
                frame = unpack()
                # SEND and ACK, nearly all of the traffic, are checked here without a call.
                if not (
                    type(frame) is tuple
                    and len(frame) == 3
                    and (
                        frame[0] == SEND
                        or (frame[0] == ACK and type(frame[2]) is int and 0 < frame[2] < 1 << 64)
                    )
                    and type(frame[0]) is int
                    and type(frame[1]) is bytes
                    and len(frame[1]) == ID_BYTES
                ):
                    check_frame(frame)
                if self._tags_open:
                    raise RemoteProtocolError("a tag extension that is not the only key of a map")
                now = tell()
                size = now - start
                if size > MAX_DEPTH:
                    if _too_deep_at(batch, start - end, now - end, frame):
                        raise RemoteProtocolError(f"a value nested more than {MAX_DEPTH} levels deep")
                    if size > SMALL_BYTES:
                        self.sizes[len(frames)] = size
                if self._trouble is not None:
                    frame, self._trouble = _without_value(frame, self._trouble), None
                frames.append(frame)
                start = now
        except RemoteProtocolError:
            self._renew_unpacker()
            raise
        except Exception as failure:
            self._renew_unpacker()
            text = str(failure) or "it ends in the middle of a frame, or promises more than it has"
            raise RemoteProtocolError(f"malformed batch of {len(batch)} bytes: {text}") from failure
        if len(batch) > _KEPT_BYTES:
            self._renew_unpacker()
        return frames

    def frame_apart(self, head: Head, body: bytes) -> Frame:
        """The frame that ends with large bytes, of what stands before them and of these. Raises RemoteProtocolError."""
        kind, subject, _, _ = head
        frame: Frame = (kind, subject, body)
        if (type(subject) is bytes) != (kind == SEND) or kind == PART:  # else it is as the table says
            check_frame(frame)
        return frame

    def _renew_unpacker(self) -> None:
        self._tags_open = 0
        self._trouble = None
        self._unpacker = _make_unpacker(self._decode_extension, self._decode_map)

    def _decode_extension(self, code: int, data: bytes) -> Any:
        if code == MESSAGE:
            self._tags_open += 1
            name = str(data, "utf-8")
            return message_names.get(name) or _Unknown(_checked_name(name, data))
        decoder = DECODERS.get(code)
        if decoder is not None:
            try:
                return decoder(data)
            except Meaningless as failure:
                return self._give_up(str(failure))
        tag = _make_tag(code, data)
        self._tags_open += 1
        return tag

    def _decode_map(self, entries: dict[Any, Any]) -> Any:
        if len(entries) == 1:
            for key, value in entries.items():  # noqa: B007  the fastest way to the only one
                break
            kind = type(key)
            if kind is str:  # most maps
                return MappingProxyType(entries)
            builder = _BUILDERS.get(kind)
            if builder is not None:
                self._tags_open -= 1
                if type(value) is not tuple:
                    raise RemoteProtocolError(
                        f"the parts of a tagged value are an array, not {shorten(value)}"
                    )
                try:
                    return builder(self, key, value)
                except Meaningless as failure:
                    return self._give_up(str(failure))
        return MappingProxyType(entries)

    def _give_up(self, reason: str) -> None:
        self._trouble = self._trouble or reason

    def _build_message(self, message_type: MessageType, values: tuple[Any, ...]) -> Any:
        if len(values) != len(message_type.fields):
            raise Meaningless(
                f"message {message_type.name!r} came with {len(values)} fields, but has "
                f"{len(message_type.fields)} here {message_type.fields}; run the same release on both sides"
            )
        if self._trouble is not None:
            return None  # a stand-in among the values would only make the class complain
        try:
            return message_type.build(*values)
        except Exception as failure:
            raise Meaningless(
                f"message {message_type.name!r} refuses its fields: {type(failure).__name__}: {failure}"
            ) from failure

    def _build_tagged(self, tag: "_Tag", values: tuple[Any, ...]) -> Any:
        if tag.code == CHANNEL:
            return self._build_channel(values)
        if tag.code == FROZENSET:
            return frozenset(values)
        if tag.code == REMOTE_ERROR:
            if len(values) != 3 or not all(type(value) is str for value in values):
                raise RemoteProtocolError("a remote error has three texts")
            return RemoteError(*values)
        try:
            return builtin_exceptions[tag.name](*values)
        except Exception:  # noqa: BLE001  unknown to this Python, or made differently: it still says what failed
            return RemoteError(tag.name, ", ".join(map(str, values)))

    def _build_channel(self, values: tuple[Any, ...]) -> Any:
        if not _is_description(values):
            raise RemoteProtocolError(f"malformed channel reference: {', '.join(map(shorten, values))}")
        if self._trouble is not None:
            return None  # the frame is lost already: nobody would ever let go of the reference
        try:
            return self._resolve(values)  # just checked
        except Exception as failure:
            raise Meaningless(f"channel reference: {type(failure).__name__}: {failure}") from failure

    def _build_unknown(self, unknown: "_Unknown", values: tuple[Any, ...]) -> Any:
        raise Meaningless(
            f"no message class is registered as {unknown.name!r} here; "
            "import the module that defines it on this side too"
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Tag:
    """A received extension that says what the array beside it makes."""

    code: int
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class _Unknown:
    """The tag of a message class that this side does not know."""

    name: str


_BUILDERS: Final[dict[type, Callable[[Codec, Any, tuple[Any, ...]], Any]]] = {
    MessageType: Codec._build_message,
    _Tag: Codec._build_tagged,
    _Unknown: Codec._build_unknown,
}

_message_tags: dict[type, Any] = {}
_CHANNEL_TAG: Final = msgpack.ExtType(CHANNEL, b"")
_FROZENSET_TAG: Final = msgpack.ExtType(FROZENSET, b"")
_REMOTE_ERROR_TAG: Final = msgpack.ExtType(REMOTE_ERROR, b"")


def _make_unpacker(extension: Any, mapping: Any) -> Any:
    return msgpack.Unpacker(
        use_list=False,
        strict_map_key=False,
        timestamp=3,  # msgpack's own time stamp, which every language has, is read as a UTC datetime
        unicode_errors="surrogatepass",
        ext_hook=extension,
        object_hook=mapping,
        max_buffer_size=_MAX_BUFFER_BYTES,
    )


def _walk(batch: bytes | bytearray | memoryview) -> None:
    """Read over a batch without making anything of it: fails if a header promises more than there is."""
    walker = msgpack.Unpacker(max_buffer_size=_MAX_BUFFER_BYTES)
    walker.feed(batch)
    skip, tell, size = walker.skip, walker.tell, len(batch)
    while tell() < size:
        skip()


def _may_be_deep(data: bytes) -> bool:
    return len(data) > _COUNTED_BYTES or len(data) - len(data.translate(None, _OPENERS)) > MAX_DEPTH


def _too_deep_at(batch: bytes | bytearray | memoryview, start: int, end: int, frame: Frame) -> bool:
    """Say whether the frame at these offsets from the batch's end is too deep."""
    # A frame of more bytes than are worth counting is walked at once, so it need not be cut out.
    if end - start <= _COUNTED_BYTES and not _may_be_deep(bytes(batch[start : end or None])):
        return False
    return _too_deep(frame, MAX_DEPTH + 1)


def _too_deep(value: Any, room: int) -> bool:
    """Say whether containers are nested more than `room` deep; one rule with `freeze`."""
    kind = type(value)
    items: Iterable[Any]
    if kind in _PLAIN_CONTAINERS:
        items = value
    elif kind is dict or kind is MappingProxyType:
        items = chain(value, value.values())
    elif kind in message_types:
        items = message_types[kind].values_of(value)
    elif isinstance(value, BaseException):
        items = value.args
    else:
        return False
    return any(type(item) not in ATOMS and (room <= 1 or _too_deep(item, room - 1)) for item in items)


_PLAIN_CONTAINERS: Final = frozenset({tuple, list, frozenset, set})


def _without_value(frame: Frame, reason: str) -> Frame:
    """Return the frame with an Undecodable for what could not be read."""
    changed: list[Any] = [frame[0]]
    for (_, kind), value in zip(FRAMES[frame[0]].fields, frame[1:], strict=True):
        if kind in ("value", "args", "kwargs"):
            changed.append(Undecodable(reason))
        elif kind in ("error", "error or nil") and value is not None:
            changed.append(value[:3])
        else:
            changed.append(value)
    if tuple(changed) == frame:
        raise RemoteProtocolError(f"{FRAMES[frame[0]].name}: {reason}")
    return tuple(changed)


def _is_description(values: tuple[Any, ...]) -> bool:
    if len(values) != 6:
        return False
    node_id, channel_id, capacity, name, addresses, rights = values
    return (
        type(node_id) is type(channel_id) is bytes
        and len(node_id) == len(channel_id) == ID_BYTES
        and type(capacity) is int
        and 0 <= capacity < 1 << 63
        and (name is None or (type(name) is str and len(name) <= MAX_TEXT_CHARS))
        and type(addresses) is tuple
        and len(addresses) <= MAX_ADDRESSES
        and all(type(address) is str and len(address) <= MAX_TEXT_CHARS for address in addresses)
        and type(rights) is int
        and 0 < rights <= MAY_SEND | MAY_RECEIVE
    )


def _make_tag(code: int, data: bytes) -> _Tag:
    if code == EXCEPTION:
        return _Tag(code, _checked_name(str(data, "utf-8"), data))
    if code in (FROZENSET, REMOTE_ERROR, CHANNEL) and not data:
        return _Tag(code, "")
    raise RemoteProtocolError(f"extension {code} of {len(data)} bytes is unknown")


def _checked_name(name: str, data: bytes) -> str:
    if not 0 < len(data) <= MAX_NAME_BYTES:
        raise RemoteProtocolError(f"a name of {len(data)} bytes; at most {MAX_NAME_BYTES} are allowed")
    return name


def _encode_exception(exc: BaseException) -> Any:
    frozen = freeze(exc)
    if type(frozen) is RemoteError:
        return {_REMOTE_ERROR_TAG: [frozen.kind, frozen.message, frozen.traceback_text]}
    return {msgpack.ExtType(EXCEPTION, type(frozen).__name__.encode()): list(exception_args(frozen))}


_ENCODERS: Final[dict[type, Callable[[Any], Any]]] = {
    **ENCODERS,
    MappingProxyType: dict,
    frozenset: lambda value: {_FROZENSET_TAG: list(value)},
    set: lambda value: {_FROZENSET_TAG: list(value)},
}
