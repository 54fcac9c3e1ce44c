"""The commands about jobs, as a person or a script runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster import Client
from cluster.cli import cluster
from cluster.testing import FAST, Nodes, environ_of, wait_for
from tests.cluster.conftest import lines

pytestmark = pytest.mark.real

AUDIT, ACCOUNT, CROWD = (f"tests.cluster.works:{name}" for name in ("Audit", "Account", "Crowd"))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/work.db"  # the engines differ in nothing that a command shows


def run(url: str, *words: str, code: int = 0, answer: str = "") -> str:
    """Run a command in this process; return what it printed."""
    environ = {**environ_of(FAST), "CLUSTER_STORE": url, "COLUMNS": "200"}
    done = CliRunner().invoke(cluster, words, env=environ, prog_name="tasklets cluster", input=answer)
    assert done.exit_code == code, done.output
    return done.output


def test_a_job_by_commands(url: str, client: Client, nodes: Nodes, journal: Path) -> None:
    nodes.imports = ("tests.cluster.works",)
    nodes.worker(slots=2)
    assert run(url, "start", AUDIT, '{"shards": 3}', "--wait", "20") == "435\n"
    started = run(url, "start", ACCOUNT, "--name", "main", "--json")
    job_id = json.loads(started)["job"]
    assert json.loads(run(url, "start", ACCOUNT, "--name", "MAIN", "--json")) == {
        "job": job_id,
        "started": "merged",
    }
    assert run(url, "signal", "main", "AddFunds", '{"amount": 5}') == "5\n"
    assert run(url, "signal", "main", "AddFunds", '{"amount": -5}', code=1) == (
        "failed: ValueError: no negative amount: -5\n"
    )
    assert json.loads(run(url, "signal", job_id, "Nonsense", "--json", code=1))["status"] == "unknown"
    assert run(url, "signal", "nobody", "cancel", code=1) == "not_found\n"
    run(url, "signal", "main", "pause", "for a while")
    shown = json.loads(run(url, "job", "main", "--json"))
    assert (shown["state"], shown["reason"], shown["turn"]) == ("paused", "for a while", "idle")
    assert "{'balance': 5" in shown["data"].replace("mappingproxy(", "")
    table = run(url, "job", "main")
    assert "for a while" in table
    rows = json.loads(run(url, "jobs", "--json"))
    assert [(row["class"], row["state"], row["done"]) for row in rows] == [
        (AUDIT, "finished", 3),
        (ACCOUNT, "paused", 0),
    ]
    assert AUDIT in run(url, "jobs", "--state", "finished")
    assert ACCOUNT not in run(url, "jobs", "--state", "finished")
    assert "no job 'x'" in run(url, "job", "x", code=1)
    assert run(url, "signal", "main", "finish", "month end") == "'goodbye'\n"


def test_a_trace_is_the_timeline_of_one_job(url: str, client: Client, nodes: Nodes) -> None:  # P-39
    nodes.imports = ("tests.cluster.works",)
    worker = nodes.worker("--debug", slots=1)
    others = client.start("tests.cluster.works:Audit", {"shards": 1})
    job_id = run(url, "start", AUDIT, '{"shards": 2}').strip()
    assert client.attach_job(job_id).result(20) == 190
    others.result(20)
    rows = json.loads(run(url, "trace", job_id, "--json"))
    tasks = [task.task_id for task in client.store.tasks(job_id=job_id) if task.task_id != job_id]
    assert len(tasks) == 2
    for task in tasks:
        assert [row["what"] for row in rows if row["task"] == task][-2:] == ["assign", "done"]
    of_job = [row["what"] for row in rows if not row["task"]]
    assert of_job[0] == "job"
    assert of_job.count("turn") >= 2
    assert [row["detail"].split()[:2] for row in rows if row["what"] == "job-state"] == [
        ["created", "running"],
        ["running", "finished"],
    ]
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)
    assert {row["job"] for row in rows} == {job_id}
    assert "tests.cluster.works:check" in run(url, "trace", job_id)
    log = wait_for(lambda: worker.output() if all(task in worker.output() for task in tasks) else "")
    assert f"job {job_id}: all 2 shards are checked" in log
    assert all(f"task {task} of job {job_id}: shard" in log for task in tasks)
    assert all(any(task in line and job_id in line for line in log.splitlines()) for task in tasks)


def test_abort_ends_jobs_and_leaves_workers(url: str, client: Client, nodes: Nodes, journal: Path) -> None:
    """P-26: of all jobs only when that is said twice."""
    nodes.imports = ("tests.cluster.works",)
    worker = nodes.worker(slots=2)
    polite = run(url, "start", CROWD, '{"count": 1, "op": "obey"}').strip()
    wait_for(lambda: lines(journal, "obey"), 20)
    assert run(url, "abort", polite) == f"{polite} cancelled\n"
    wait_for(lambda: lines(journal, "obeyed"))
    jobs = [run(url, "start", CROWD, '{"count": 1, "op": "hold"}').strip() for _ in range(2)]
    wait_for(lambda: len(lines(journal, "hold")) == 2, 20)
    assert "name the jobs, or say --all" in run(url, "abort", code=2)
    assert "Abort all 2 jobs" in run(url, "abort", "--all", answer="n\n", code=1)
    assert {client.job(one).state for one in jobs} == {"running"}
    run(url, "abort", "--all", code=1)  # nobody there to ask
    ended = json.loads(run(url, "abort", "--all", "--yes", "--now", "--json"))
    assert {row["job"]: row["state"] for row in ended} == dict.fromkeys(jobs, "terminated")
    assert run(url, "abort", "--all", "--yes") == ""
    assert worker.alive
    assert client.start("tests.cluster.works:Audit", {"shards": 1}).result(20) == 45
