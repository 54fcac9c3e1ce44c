"""What can be done. Workers import this file, and so does the leader."""

from __future__ import annotations

from cluster import operation
from cluster.directives import monoid


@operation
def letter(code: int) -> str:
    """Return the letter of a number."""
    return chr(code)


@monoid
class Join:
    """Put texts together."""

    def empty(self) -> str:
        """Return what changes nothing."""
        return ""

    def combine(self, a: str, b: str) -> str:
        """Put b behind a."""
        return a + b
