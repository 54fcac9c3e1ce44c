"""The commands, as a person or a script runs them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster.cli import cluster
from cluster.records import Member
from cluster.stores import open_store
from cluster.testing import FAST, environ_of, wait_for as wait

pytestmark = pytest.mark.real

OPS = """
import os
from cluster import operation

@operation
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)

@operation
def crash(): os._exit(3)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "myops.py").write_text(OPS)
    return tmp_path


def variables(url: str) -> dict[str, str]:
    path = str(Path(__file__).parents[2])
    return {**environ_of(FAST), "CLUSTER_STORE": url, "PYTHONPATH": path, "COLUMNS": "200"}


def run(folder: Path, url: str, *words: str, code: int = 0, **more: str | None) -> str:
    """Run a command in this process; return what it printed."""
    with contextlib.chdir(folder):
        done = CliRunner().invoke(
            cluster, words, env={**variables(url), **more}, prog_name="tasklets cluster"
        )
    assert done.exit_code == code, done.output
    return done.output


def run_apart(folder: Path, url: str, *words: str) -> str:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "cluster", *words]
    environ = {**os.environ, **variables(url)}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=40)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_group_goes_up_works_and_goes_down(folder: Path, url: str) -> None:  # A-38, G-27, G-33, X6
    try:
        out = run_apart(folder, url, "up", "--import", "myops", "--min", "2", "--max", "2", "--slots", "1")
        assert "2 workers with 2 slots" in out
        assert run(folder, url, "submit", "myops:fib", "20", "--wait") == "6765\n"
        assert "WorkerLost" in run(folder, url, "submit", "myops:crash", "--wait", "20", code=1)
        status = json.loads(run(folder, url, "status", "--json"))
        assert (status["workers"], status["slots"], status["counters"]["completed"]) == (2, 2, 1)
        assert (status["wanted"], status["bounds"]) == (2, [2, 2])
        assert "2 workers (2 wanted, 2 to 2 allowed), 2 slots" in run(folder, url, "status")
        assert status["leader"].startswith("coordinator-")
        assert "1 dead letters" in status["remarks"][0]
        members = json.loads(run(folder, url, "members", "--json"))
        assert sorted(m["role"] for m in members) == ["coordinator", "worker", "worker"]
        (letter,) = json.loads(run(folder, url, "dead", "--json"))
        assert letter["losses"] == 3
        assert letter["task"] in run(folder, url, "dead", "--traceback")
        assert "1 tasks are ready" in run(folder, url, "replay", letter["task"])
        wait(lambda: json.loads(run(folder, url, "dead", "--json")))
        assert "none of nothing is a dead letter" in run(folder, url, "replay", "nothing", code=1)
        assert "6765" in run(folder, url, "tasks", "--state", "done", "--json")
        assert "myops:fib" in run(folder, url, "tasks")
        assert "worker" in run(folder, url, "members")
        kinds = {json.loads(line)["kind"] for line in run(folder, url, "events", "--json").splitlines()}
        assert {"spawn", "join", "lock", "assign", "done", "dead", "lost"} <= kinds
    finally:
        out = run_apart(folder, url, "down")
    assert "is down; 0 tasks wait" in out
    assert json.loads(run(folder, url, "members", "--json")) == []


def test_up_counts_no_worker_that_may_be_dead(folder: Path) -> None:  # G-27
    url = f"sqlite:///{folder}/work.db"
    words = ("up", "--import", "myops", "--slots", "1")
    try:
        run_apart(folder, url, *words)
        (before,) = (m for m in json.loads(run(folder, url, "members", "--json")) if m["role"] == "worker")
        os.kill(before["pid"], signal.SIGKILL)
        assert "1 workers" in run_apart(folder, url, *words)
        members = json.loads(run(folder, url, "members", "--json"))
        assert [m["pid"] != before["pid"] for m in members if m["role"] == "worker"] == [True]
    finally:
        run_apart(folder, url, "down")


def test_status_says_why_a_task_does_not_run(folder: Path, url: str) -> None:  # X6
    task = run(folder, url, "submit", "myops:fib", "1").strip()
    assert "there is no worker" in run(folder, url, "status", task)
    assert "there is no worker" in run(folder, url, "status")
    run(folder, url, "config", "--pause", "default")
    assert "is paused" in json.loads(run(folder, url, "status", task, "--json"))["why"]
    out = run(folder, url, "config", "--resume", "default", "--max-waiting", "default=7")
    assert "max_waiting=7" in out
    later = json.loads(run(folder, url, "submit", "myops:fib", "1", "--delay", "50", "--json"))["task"]
    assert "its time comes in" in run(folder, url, "status", later)


def test_a_second_submit_of_an_id_is_the_same_task(folder: Path, url: str) -> None:
    words = ("submit", "myops:fib", "1", "--id", "x")
    assert run(folder, url, *words) == run(folder, url, *words) == "x\n"
    assert json.loads(run(folder, url, "status", "--json"))["tasks"] == {"default": {"ready": 1}}


def test_ids_are_never_broken(folder: Path) -> None:  # X6
    url = f"sqlite:///{folder}/work.db"
    task, operation, node = (
        "part-00017/" + 20 * "x",
        "reports.monthly:summarise_region",
        "build-server-1-4711-ab12",
    )
    store = open_store(url)
    store.join(Member(node, "i", "worker", slots=1, host="build-server-1", pid=4711, queues=("default",)), 60)
    store.close()
    run(folder, url, "submit", operation, "--id", task, "--queue", "of the month")

    narrow = run(folder, url, "tasks", COLUMNS="80")
    assert max(map(len, narrow.splitlines())) <= 80
    assert task in narrow
    assert "ready" in narrow
    assert operation not in narrow  # folded
    assert node in run(folder, url, "members", COLUMNS="80")
    for width in ({"COLUMNS": "40"}, {"COLUMNS": None}):  # not even the ids fit; a pipe
        head, row = run(folder, url, "tasks", **width).splitlines()
        assert head.split() == ["task", "operation", "queue", "state"]  # and none has a worker
        assert row.split("  ") == [task, operation, "of the month", "ready"]


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (("status", "--store", "nowhere"), "is no store", 1),
        (("status", "unknown-task"), "no task 'unknown-task'", 1),
        (("replay",), "name the tasks, or say --all", 2),
        (("worker", "--set", "heartbeat"), "write --set NAME=VALUE", 2),
        (("worker", "--set", "hartbeat=1"), "is no setting", 1),
        (("submit", "myops:fib", "1", "--group", "unheard"), "no group 'unheard'", 1),
    ],
)
def test_a_mistake_is_one_clear_line(folder: Path, words: tuple[str, ...], message: str, code: int) -> None:
    text = run(folder, f"sqlite:///{folder}/work.db", *words, code=code)
    assert message in text
    assert "Traceback" not in text


def test_config_says_where_each_setting_comes_from(folder: Path) -> None:  # P-36
    (folder / "c.toml").write_text("[cluster]\nretention = 5\n")
    more = {"CLUSTER_CONFIG": str(folder / "c.toml"), "CLUSTER_SCAN": "3"}
    out = run(folder, "memory:", "config", "--json", "--set", "poll=2", **more)
    found = json.loads(out)
    sources = {name: found[name]["from"] for name in ("poll", "scan", "retention", "max_losses")}
    assert sources["poll"] == "argument"
    assert sources["scan"] == "CLUSTER_SCAN"
    assert found["poll"]["value"] == 2.0


def test_ctrl_c_ends_a_watch_at_once(folder: Path) -> None:
    url = f"sqlite:///{folder}/work.db"
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster", "status", "--store", url, "--watch", "0.1"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=folder,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    assert process.wait(5) == 130
    process.stdout.close()


def test_the_console_command_has_the_group() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "net.cli", "cluster", "--help"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    commands = "up down worker coordinator status members tasks submit dead replay events config"
    for command in commands.split():
        assert f"\n  {command} " in done.stdout
