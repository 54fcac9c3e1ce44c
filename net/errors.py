"""What can go wrong between processes: one class per reaction a caller could have."""

import errno

from tasklets import TaskletError


class NetError(TaskletError):
    """The root of what this package raises."""


class PeerLost(NetError, ConnectionError):
    """The process at the other end died, or the link to it broke.

    `peer` names it. `outcome` says what became of the message of the interrupted operation: "taken", "not
    taken" or "unknown".
    """

    def __init__(self, message: str, *, peer: str = "", outcome: str = "unknown") -> None:
        super().__init__(message)
        self.peer = peer
        self.outcome = outcome


class PeerUnreachable(NetError, ConnectionError):
    """Nobody answers at an address: nothing listens there, or it cannot be reached."""


class AuthenticationError(NetError, PermissionError):
    """One end did not prove to the other that it may talk to it: a wrong secret, none, a bad certificate.

    To try again does not help before the secret or the certificate is mended.
    """


class BadCredentials(NetError, ValueError):
    """A secret or a certificate that must not be used: too short, missing, readable by other users."""


class AddressInUse(NetError, OSError):
    """Another program listens at the address already."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.EADDRINUSE


class BadAddress(NetError, ValueError):
    """An address or a place that does not follow the syntax, or must not be used so."""


class NameNotFound(NetError, LookupError):
    """The node that was asked publishes no channel of this name."""


class NotAllowed(NetError, PermissionError):
    """A reference is not good for what was to be done with it: it can only send, or only receive."""


class NotImportable(NetError, ImportError):
    """A function cannot be named by an import, or cannot be imported on the other side."""


class ProtocolError(NetError):
    """The rules of the wire were broken; see the two subclasses for by whom."""


class LocalProtocolError(ProtocolError):
    """This side used the protocol wrongly: a bug here."""


class RemoteProtocolError(ProtocolError):
    """The other side sent what the protocol does not allow: garbage, another version, or a bug there."""
