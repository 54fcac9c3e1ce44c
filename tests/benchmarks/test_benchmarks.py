"""The measurements run, and say what was promised and what is missing. Their figures are nobody's business here."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.running import PATIENCE, ROOT, run

pytestmark = [pytest.mark.real, pytest.mark.timeout(PATIENCE + 10)]


def run_benchmark(script: str, file: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    table = run(script, "--rounds", "1", "--json", str(file), *arguments)
    return table, json.loads(file.read_text())


def test_tasklets_are_measured_beside_greenlet(tmp_path: Path) -> None:
    arguments = ("--scale", "0.001", "--only", "ping-pong", "--only", "spawn", "--only", "pure")
    table, record = run_benchmark("bench_tasklets.py", tmp_path / "figures.json", *arguments)

    assert "ping-pong" in table
    assert "pure: ping-pong against greenlet" in table
    assert set(record["per_operation"]) | set(record["missing"]) == {"greenlet", "pure"}
    for measured in record["per_operation"].values():
        assert measured["spawn"]["median"] > 0


def test_every_program_of_every_form_of_tasklets_ends(tmp_path: Path) -> None:
    arguments = ("--scale", "0.002", "--only", "pure", "--only", "asyncio")
    _, record = run_benchmark("bench_tasklets.py", tmp_path / "figures.json", *arguments)

    programs = {name: set(measured) for name, measured in record["per_operation"].items()}
    assert programs["pure"] == programs["greenlet"] == programs["asyncio"]
    assert len(programs["pure"]) == 8


def test_net_is_measured_beside_bare_sockets(tmp_path: Path) -> None:
    arguments = ("--seconds", "0.02", "--large-bytes", "100000", "--placement", "free")
    only = [word for name in ("net", "net-tls", "gevent", "pipe") for word in ("--only", name)]
    table, record = run_benchmark("bench_net.py", tmp_path / "figures.json", *arguments, *only)

    assert "free: round trip against gevent" in table
    measured = record["placements"]["free"]
    assert set(measured) == {"net", "net-tls", "gevent", "pipe"}
    assert (
        set(measured["net"])
        == set(measured["net-tls"])
        >= {
            "round_trip",
            "requests",
            "one_way",
            "bulk",
            "large_p99",
            "resume",
            "per_connection",
        }
    )
    assert record["targets"]["free: one way against Pipe"]["ratio"] > 0


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    (tmp_path / "execnet.py").write_text("raise ImportError('not here')")
    table = run("bench_net.py", "--quick", "--only", "execnet", path=str(tmp_path))

    assert "not measured: execnet: not here" in table


@pytest.mark.parametrize("script", ["bench_tasklets.py", "bench_net.py"])
def test_results_name_no_machine(script: str, tmp_path: Path) -> None:
    sizes = {
        "bench_tasklets.py": ("--scale", "0.001", "--only", "ping-pong", "--only", "pure"),
        "bench_net.py": ("--seconds", "0.02", "--placement", "free", "--only", "net", "--only", "round-trip"),
    }
    run_benchmark(script, tmp_path / "figures.json", *sizes[script])

    text = (tmp_path / "figures.json").read_text()
    assert os.uname().nodename not in text
    assert str(ROOT) not in text
    assert str(Path.home()) not in text


def test_clusters_are_measured_and_whoever_is_not_installed_is_named(tmp_path: Path) -> None:
    only = [word for name in ("cluster-sqlite", "dramatiq") for word in ("--only", name)]
    table, record = run_benchmark(
        "bench_cluster.py", tmp_path / "figures.json", "--tasks", "20", "--idle-seconds", "0.1", *only
    )

    assert "cluster-sqlite" in table
    assert record["systems"]["cluster-sqlite"]["tasks/s"]["median"] > 0
    assert "dramatiq" in record["systems"] or "dramatiq" in record["missing"]


def test_directives_are_measured_beside_a_pool(tmp_path: Path) -> None:
    only = [word for name in ("sqlite", "pool") for word in ("--only", name)]
    table, record = run_benchmark(
        "bench_directives.py", tmp_path / "figures.json", "--cheap", "2000", "--expensive", "20", *only
    )

    assert "sqlite: seconds of map expensive against pool" in table
    assert set(record["systems"]) == {"sqlite", "pool"}
    for measured in record["systems"].values():
        assert all(program["seconds"]["median"] > 0 for program in measured.values())


def test_a_gateway_is_measured_beside_the_client(tmp_path: Path) -> None:
    table, record = run_benchmark(
        "bench_gateway.py", tmp_path / "figures.json", "--tasks", "10", "--only", "sqlite"
    )

    assert "sqlite http: ms of a look" in table
    assert set(record["forms"]) == {"sqlite python", "sqlite http"}
    for form in record["forms"].values():
        assert all(column["median"] > 0 for column in form.values())
