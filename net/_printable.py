"""Texts of strangers, without the power over a terminal or a log file that they may hold.

A node's name, a reason to end, an error message come from the other side. A line break in them would make a second line
of the log that nobody has written, an escape sequence change what a terminal shows.
"""

from __future__ import annotations

import logging


def printable(text: str) -> str:
    """Return a text with everything escaped that is not printed as a character: `\\n`, `\\x1b`, `\\u202e`."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


class OneLine(logging.Filter):
    """Lets each message of a logger be one line, whoever has written parts of it."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if not message.isprintable():
            record.msg, record.args = printable(message), ()
        return True


logging.getLogger("net").addFilter(OneLine())
