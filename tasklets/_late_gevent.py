"""Notice that gevent is imported, whoever does it and whenever: `import tasklets` does not.

gevent asks the greenlet that is about to wait for a method `switch_out`, and resumes it by `switch` or `throw`. The
greenlets of tasklets have these only when they may be needed: they cost memory and time in each of them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tasklets._core import welcome_gevent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class _Notice:
    """Finds no module itself. The import system asks it first, and once."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "gevent":
            sys.meta_path.remove(self)
            welcome_gevent()
        return None


def watch_imports() -> None:
    """Let the core know when gevent is there, now or later."""
    if "gevent" in sys.modules:
        welcome_gevent()
    else:
        sys.meta_path.insert(0, _Notice())
