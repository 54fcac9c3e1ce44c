"""Tracebacks from the user's code on: how that was called is of no interest."""

from __future__ import annotations

import os
import traceback

_OURS = os.path.dirname(__file__) + os.sep
_LONGEST = 20_000


def traceback_from_theirs(error: BaseException) -> str:
    """The text of an error's traceback without the first frames, which are ours; empty when all are."""
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_OURS):
        tb = tb.tb_next
    if tb is None:
        return ""
    try:
        return "".join(traceback.format_exception(type(error), error, tb))[-_LONGEST:]
    except Exception:  # noqa: BLE001  a broken __str__; the caller has a text that avoids it
        return ""
