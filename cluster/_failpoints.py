"""Named points at which a test lets this process die: CLUSTER_FAIL=finish-committed:3 kills it at the third pass.

A kill is what a promise about crashes has to be tested with, and where it strikes decides. Several points are
separated by commas. Without the variable a point costs one look into an empty dictionary.
"""

from __future__ import annotations

import os
import signal


def _armed() -> dict[str, int]:
    points = {}
    for entry in os.environ.get("CLUSTER_FAIL", "").split(","):
        name, _, count = entry.partition(":")
        if name:
            points[name] = int(count or 1)
    return points


_points = _armed()


def fail_point(name: str) -> None:
    """Die here, if the environment says so."""
    if name in _points:
        _points[name] -= 1
        if _points[name] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
