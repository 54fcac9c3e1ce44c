"""Log lines that carry ids, so that one search finds all that is about a job or a task (P-39)."""

from __future__ import annotations

import logging
from typing import Any


class IdsLog(logging.LoggerAdapter):  # type: ignore[type-arg]  # it is not generic when the program runs
    """A logger that begins its lines with ids."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        return f"{(self.extra or {})['ids']}: {msg}", kwargs
