"""Failures that cross the wire in an answer, as (kind, message, traceback_text); exceptions again on arrival.

Only names in the tables here become a class again; every other kind is a RemoteError. No class path ever
travels.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from net.errors import (
    AddressInUse,
    AuthenticationError,
    BadAddress,
    BadCredentials,
    NameNotFound,
    NetError,
    NotAllowed,
    NotImportable,
    PeerLost,
    PeerUnreachable,
)
from tasklets import ChannelClosed, DeadlockError, NotSendable, RemoteError, TaskletError, Timeout, freeze
from tasklets.freezing import builtin_exceptions, describe_exception as describe_exception, exception_args

# Ours, made from their message alone.
OWN_ERRORS: Final[Mapping[str, type[Exception]]] = MappingProxyType(
    {
        cls.__name__: cls
        for cls in (
            AddressInUse,
            AuthenticationError,
            BadAddress,
            BadCredentials,
            ChannelClosed,
            DeadlockError,
            NameNotFound,
            NetError,
            NotAllowed,
            NotImportable,
            NotSendable,
            PeerLost,
            PeerUnreachable,
            TaskletError,
            Timeout,
        )
    }
)


def error_of(exc: BaseException) -> tuple[Any, ...]:
    """Return what an error field holds for an exception: (kind, message, traceback_text, args or None)."""
    extra: Any = None
    if type(exc) is builtin_exceptions.get(type(exc).__name__):
        try:
            extra = freeze(exception_args(exc))
        except NotSendable:
            pass  # the failure is told without them
    elif isinstance(exc, PeerLost):
        extra = exc.outcome
    return (*describe_exception(exc), extra)


def rebuild_exception(kind: str, message: str, traceback_text: str = "", extra: Any = None) -> Exception:
    """Return the exception that an error field describes: `raise rebuild_exception(*error)`.

    One of our own classes or a builtin one where the kind is its name, with `traceback_text` as a note, so
    that it is seen where the failure came from; a RemoteError otherwise. `extra` is a builtin one's
    arguments, a PeerLost's outcome.
    """
    exc: Exception
    if kind in OWN_ERRORS:
        cls = OWN_ERRORS[kind]
        exc = PeerLost(message, outcome=extra) if cls is PeerLost and isinstance(extra, str) else cls(message)
    elif kind in builtin_exceptions:
        try:
            exc = builtin_exceptions[kind](*(extra if isinstance(extra, tuple) else (message,)))
        except Exception:  # noqa: BLE001  made differently in this Python: it still says what failed
            return RemoteError(kind, message, traceback_text)
    else:
        return RemoteError(kind, message, traceback_text)
    if traceback_text:
        exc.add_note(f"It happened in another process:\n{traceback_text}")
    return exc
