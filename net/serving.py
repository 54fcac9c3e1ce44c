"""serve and connect: channels published under names, and how others get a reference to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from net._sockets import CONNECT_SECONDS
from net.addresses import parse_address, parse_url
from net.errors import NetError
from net.node import get_node
from net.security import SecretSource, Security, Tls, choose_security
from net.settings import Settings, change
from tasklets import channel

if TYPE_CHECKING:
    from types import TracebackType


class Server:
    """An open address and the channels published by `serve`. Leaving the with-block closes it."""

    def __init__(
        self, address: str, channels: dict[str, channel], security: Security | None, *, insecure: bool
    ) -> None:
        node = get_node()
        for name in channels:
            if not isinstance(channels[name], channel):
                raise TypeError(f"what is published is a channel; {name} is {channels[name]!r}")
            if name in node.names:
                raise NetError(f"this process publishes a channel as {name!r} already; choose another name")
        self._listener = node.listen(parse_address(address), security, insecure=insecure)
        self._names = tuple(channels)
        node.names.update(channels)

    def __repr__(self) -> str:
        return f"<Server {self.address} {', '.join(self._names)}>"

    @property
    def address(self) -> str:
        """Where it listens; the real port when port 0 was asked for."""
        return str(self._listener.address)

    def url(self, name: str) -> str:
        """What to pass to `connect` for one of the channels."""
        return f"{self.address}/{name}"

    def close(self) -> None:
        """Take the names back, stop listening, say goodbye to those that came in here.

        The channels stay open for this process.
        """
        for name in self._names:
            self._listener.node.names.pop(name, None)
        self._listener.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def serve(
    address: str,
    /,
    *,
    secret: SecretSource | None = None,
    tls: Tls | None = None,
    insecure: bool = False,
    **channels: channel,
) -> Server:
    """Publish channels under names, at an address such as "tcp://127.0.0.1:7000" (port 0: the system chooses).

    Who connects must know `secret` (a text, or a path: the file that holds it), or show a certificate that
    `tls` trusts, or both. Without either the environment's are asked for (`net.security.choose_security`); without
    those nothing is, which only addresses of this machine allow unless `insecure`. A Unix socket is open to its
    owner only.

    It serves while tasklets run: `with serve(...): run()` goes on until Ctrl-C, since others may always send.

    Raises BadAddress (also for an address that other machines can reach and nothing protects), BadCredentials,
    AddressInUse, NetError when a name is published already.
    """
    return Server(address, channels, choose_security(secret, tls, insecure=insecure), insecure=insecure)


def connect(
    url: str,
    /,
    *,
    secret: SecretSource | None = None,
    tls: Tls | None = None,
    insecure: bool = False,
    timeout: float = CONNECT_SECONDS,
) -> channel:
    """Get a reference to a channel that is published at "tcp://HOST:PORT/NAME". Blocks.

    Both ends prove to each other that they know `secret`, and show certificates to `tls`. What was given must be asked
    for there, and nothing else; the environment's counts as given, unless `insecure`.

    Raises BadAddress, BadCredentials, PeerUnreachable when nobody listens there or answers in time,
    AuthenticationError when one of the ends is not content with the other, NameNotFound, PeerLost.
    """
    address, name = parse_url(url)
    return get_node().find(address, name, timeout, choose_security(secret, tls, insecure=insecure))


def configure(**changes: Any) -> Settings:
    """Change settings of this process's network, as far as they are named; return them all. See net.settings.

    They hold for what is opened from then on: `configure(patience=60, max_message_bytes=1 << 30)`.

    Raises TypeError for a setting that there is not, ValueError for a value that makes no sense.
    """
    node = get_node()
    node.settings = change(node.settings, changes)
    return node.settings
