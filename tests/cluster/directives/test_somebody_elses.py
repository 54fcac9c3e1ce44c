"""Directives on a real Dask cluster of two processes, and on Ray where it is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import WorkerLost
from cluster.directives.crews import dask_crew

ROOT = Path(__file__).resolve().parents[3]


def run_on(name: str) -> None:
    """In a process of its own: both warn, fork and log as they like."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster.directives.somebody_elses", name],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("all is well")


@pytest.mark.timeout(120)
def test_dask() -> None:
    run_on("dask")


def test_a_dask_cluster_without_workers_is_refused() -> None:
    class Empty:
        def nthreads(self) -> dict[str, int]:
            return {}

    with pytest.raises(WorkerLost, match="no workers"):
        dask_crew(Empty())


@pytest.mark.timeout(120)
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason='pip install "tasklets[ray]", which is large')
def test_ray() -> None:
    run_on("ray")
