"""What a promised time may be on this machine now.

    assert monotonic() - began < here(1.0)

A promise is for a machine that is free. Where several processes per core want to run, each has its share of a core, and
everything takes that much longer; this way the promise is held to the letter on a calm machine, and a busy one (two
tests at a time, somebody's build) makes no test fail.
"""

from __future__ import annotations

import os
from pathlib import Path


def here(seconds: float) -> float:
    """The seconds that something promised within `seconds` may take, by how many want to run per core."""
    return seconds * max(1.0, wanting() / (os.cpu_count() or 1))


def wanting() -> float:
    """How many threads want to run: in the last minute on average, or now if that is more."""
    average = os.getloadavg()[0]
    try:
        now = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    except OSError:  # only Linux has it
        return average
    return max(average, now)
