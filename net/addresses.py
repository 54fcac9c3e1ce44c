"""Addresses and places as people write them.

tcp://127.0.0.1:7000        127.0.0.1:7000        unix:///tmp/bank.sock        an address
tcp://127.0.0.1:7000/bank                                                      a channel published there
here        processes:4     hosts:alpha:7000,beta:7000                         a place
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TypeAlias

from net.errors import BadAddress

MAX_PROCESSES = 1024  # of one place; beyond it somebody mistyped a number

_NO_HOST = frozenset("[] \t\r\n\0/")  # what no host name holds
_SYNTAX = 'write it as "tcp://HOST:PORT", "HOST:PORT" or "unix:///PATH"'


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host (name or IP address) and a port; port 0 lets the system choose when listening."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True when only programs on this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a Unix socket: only programs on this machine that may open the file can reach it."""

    path: str

    def __str__(self) -> str:
        return f"unix://{self.path}"

    @property
    def is_loopback(self) -> bool:
        return True


Address: TypeAlias = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """Read an address. Raises BadAddress, which shows the syntax."""
    if text.startswith("unix://"):
        path = text.removeprefix("unix://")
        if "\0" in path:
            raise BadAddress(f"{text!r} is no address: a path holds no zero byte; {_SYNTAX}")
        if not path.startswith("/"):
            raise BadAddress(f"{text!r} is no address: the path of a Unix socket is absolute; {_SYNTAX}")
        return UnixAddress(path)
    scheme, found, rest = text.partition("://")
    if found and scheme != "tcp":
        raise BadAddress(f"{text!r} is no address: the scheme {scheme!r} is unknown; {_SYNTAX}")
    return _parse_tcp(rest if found else text, text)


def _parse_tcp(rest: str, text: str) -> TcpAddress:
    host, colon, port = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]  # around an IPv6 address
    if not colon or not host or not _NO_HOST.isdisjoint(host + port):
        raise BadAddress(f"{text!r} is no address; {_SYNTAX}")
    if not (port.isascii() and port.isdigit() and len(port) <= 5) or int(port) > 65535:
        raise BadAddress(f"{text!r} is no address: {port!r} is no port (0 to 65535); {_SYNTAX}")
    return TcpAddress(host, int(port))


def parse_url(text: str) -> tuple[Address, str]:
    """Read the address of a published channel, `tcp://HOST:PORT/NAME`. Raises BadAddress."""
    base, slash, name = text.rpartition("/")
    if not slash or not name or base.endswith("/") or base in ("tcp:", "unix:"):
        raise BadAddress(f'{text!r} names no channel; write it as "tcp://HOST:PORT/NAME"')
    return parse_address(base), name


@dataclass(frozen=True, slots=True)
class PlaceSpec:
    """What `open_place` was asked for: one process, `processes` children, or nodes at `hosts`."""

    text: str
    processes: int = 0
    hosts: tuple[Address, ...] = ()


def parse_place(text: str) -> PlaceSpec:
    """Read "here", "processes:N" or "hosts:A,B,...". Raises BadAddress, which lists the three."""
    kind, colon, rest = text.partition(":")
    if text == "here":
        return PlaceSpec(text)
    if kind == "processes" and colon:
        if not (rest.isascii() and rest.isdigit() and len(rest) <= 4) or not 1 <= int(rest) <= MAX_PROCESSES:
            raise BadAddress(f"{text!r}: the number of processes is 1 to {MAX_PROCESSES}, not {rest!r}")
        return PlaceSpec(text, processes=int(rest))
    if kind == "hosts" and colon:
        listed = [part.strip() for part in rest.split(",")]
        if not all(listed):
            raise BadAddress(
                f'{text!r} lists no address, or an empty one; write it as "hosts:alpha:7000,beta:7000"'
            )
        return PlaceSpec(text, hosts=tuple(parse_address(part) for part in listed))
    raise BadAddress(
        f'{text!r} is no place; it is one of "here", "processes:4", "hosts:alpha:7000,beta:7000"'
    )
