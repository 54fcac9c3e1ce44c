"""What a promised time may be on this machine now.

    assert monotonic() - began < here(1.0)

A promise is for a machine that is free. Where several processes per core want to run, each has its share of a core, and
everything takes that much longer; this way the promise is held to the letter on a calm machine, and a busy one (two
tests at a time, somebody's build) makes no test fail.
"""

from __future__ import annotations

import os
from pathlib import Path

# As many tests run at a time (pytest-xdist), so each has at best its share of the machine. What the others want is seen
# by `wanting` too late or not at all: they start five processes and are done with it before anybody looks.
TESTS_AT_A_TIME = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def here(seconds: float) -> float:
    """The seconds that something promised within `seconds` may take, by how many want to run per core."""
    return seconds * max(TESTS_AT_A_TIME, wanting() / (os.cpu_count() or 1))


def wanting() -> float:
    """How many threads want to run: in the last minute on average, or now if that is more."""
    average = os.getloadavg()[0]
    try:
        now = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    except OSError:  # only Linux has it
        return average
    return max(average, now)
