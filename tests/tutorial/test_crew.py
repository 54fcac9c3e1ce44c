"""The processes of chapters 12 to 15 end with their notebook, in whatever way that ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.testing import wait_for

TUTORIAL = Path(__file__).parents[2] / "tutorial"
LINUX = Path("/proc/self/stat").exists()
# A notebook's kernel, as far as this goes. What `up` starts are no children of it: only the store knows them.
KERNEL = """
import sys
from crew import open_group

group = open_group()
print(group.tell("up", "--import", "kitchen", "--min", "1", "--slots", "1"))
print(group.folder, *[member.pid for member in group.client.members()], flush=True)
sys.stdin.read()
"""


def exists(pid: int) -> bool:
    """Whether a process runs. One that has ended and was waited for by nobody does not."""
    try:
        os.kill(pid, 0)
        return not LINUX or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.real
@pytest.mark.timeout(180)
@pytest.mark.skipif(
    not os.path.exists("/proc/self/stat"), reason="processes of others are looked up in /proc"
)
def test_nothing_is_left_of_a_group_when_its_notebook_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KERNEL],
        cwd=TUTORIAL, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    ) as kernel:  # fmt: skip
        assert kernel.stdout is not None
        assert "1 workers" in kernel.stdout.readline()
        folder, *pids = kernel.stdout.readline().split()
        assert all(exists(int(pid)) for pid in pids)
        kernel.kill()
        kernel.wait()

    assert len(pids) == 2  # a coordinator and a worker
    wait_for(lambda: not any(exists(int(pid)) for pid in pids), 60, f"{pids} are gone")
    wait_for(lambda: not Path(folder).exists(), 60, f"{folder} is gone")
