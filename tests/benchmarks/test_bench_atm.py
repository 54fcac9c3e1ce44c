"""The bank's measurement runs with every bank, and says what was promised. Its figures are nobody's business here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.real


def test_banks_are_measured_side_by_side(tmp_path: Path) -> None:  # ATM-11
    file = tmp_path / "figures.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "bench_atm.py"), "--rounds", "1", "--atms", "8"]
    command += ["--seconds", "1", "--only", "net", "--only", "pywsgi", "--json", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=50, check=False)

    assert done.returncode == 0, done.stderr
    assert "net NORMAL against gunicorn NORMAL: - (at least 5: not measured)" in done.stdout
    record = json.loads(file.read_text())
    assert set(record["forms"]) == {"net NORMAL", "net FULL", "pywsgi NORMAL", "pywsgi FULL"}
    for form in record["forms"].values():
        assert form["per_second"]["median"] > 0
        assert form["p99_ms"]["median"] >= form["p50_ms"]["median"] > 0
    assert str(Path.home()) not in file.read_text()
