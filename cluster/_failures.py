"""Failures: what is told, and kept, of an error that user code raised."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING, Any

from cluster.errors import (
    Fatal,
    InvalidArguments,
    TimeLimit,
    Transient,
    UnknownCodec,
    UnknownOperation,
)
from tasklets import NotSendable
from tasklets.freezing import describe_exception

if TYPE_CHECKING:
    from cluster.registry import Registered

_OURS = os.path.dirname(__file__) + os.sep
_LONGEST = 20_000


def failure_of(error: BaseException) -> dict[str, Any]:
    """Kind, message and traceback of an error, as texts; `make_operation_error` makes an error of them again."""
    kind, message, text = describe_exception(error)
    return {"kind": kind, "message": message, "traceback": _traceback_from_theirs(error) or text}


def described(error: BaseException, operation: Registered | None) -> dict[str, Any]:
    """What an execution tells of its failure: also whether another one may help, and after how long."""
    after = error.after if isinstance(error, Transient) else None
    return {**failure_of(error), "transient": _is_transient(error, operation), "after": after}


def _is_transient(error: BaseException, operation: Registered | None) -> bool:
    if isinstance(error, Transient | TimeLimit | MemoryError | InvalidArguments):
        return True  # of arguments: another worker may run another release
    if operation is None or isinstance(
        error, (Fatal, NotSendable, UnknownCodec, UnknownOperation, *operation.fatal)
    ):
        return False
    return isinstance(error, operation.transient)


def _traceback_from_theirs(error: BaseException) -> str:
    """The traceback from the user's code on, since how that was called is of no interest; empty when all is ours."""
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_OURS):
        tb = tb.tb_next
    if tb is None:
        return ""
    try:
        return "".join(traceback.format_exception(type(error), error, tb))[-_LONGEST:]
    except Exception:  # noqa: BLE001  a broken __str__; the caller has a text that avoids it
        return ""
