"""The bank's measurement runs with every bank, and says what was promised. Its figures are nobody's business here."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.running import PATIENCE, run

pytestmark = [pytest.mark.real, pytest.mark.timeout(PATIENCE + 10)]


def test_banks_are_measured_side_by_side(tmp_path: Path) -> None:  # ATM-11
    file = tmp_path / "figures.json"
    size = ("--rounds", "1", "--atms", "2", "--seconds", "0.5")
    table = run("bench_atm.py", *size, "--only", "net", "--only", "pywsgi", "--json", str(file))

    assert "net NORMAL against gunicorn NORMAL: - (at least 5: not measured)" in table
    record = json.loads(file.read_text())
    assert set(record["forms"]) == {"net NORMAL", "net FULL", "pywsgi NORMAL", "pywsgi FULL"}
    for form in record["forms"].values():
        assert form["per_second"]["median"] > 0
        assert form["p99_ms"]["median"] >= form["p50_ms"]["median"] > 0
    assert str(Path.home()) not in file.read_text()
