"""What the package logs: one line each, whoever has written parts of it."""

from __future__ import annotations

import logging

from net._printable import printable


class OneLine(logging.Filter):
    """Lets each message of a logger be one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if not message.isprintable():
            record.msg, record.args = printable(message), ()
        return True


logging.getLogger("net").addFilter(OneLine())
