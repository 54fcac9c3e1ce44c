"""The commands of docs/cluster.md, "By HTTP", do what they say."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.cluster.gateway.conftest import Shared

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]
TEXT = (Path(__file__).parents[3] / "docs" / "cluster.md").read_text(encoding="utf-8")
SECTION = TEXT[TEXT.index("## By HTTP") : TEXT.index("### Who may ask")]


def said_by(commands: str, url: str) -> list[str]:
    """What each command prints, run by a shell, as written but for the address and the operation."""
    text = commands.replace("localhost:30000", url).replace("myops:fib", "tests.cluster.ops:tolerant")
    joined = re.sub(r"\\\n", " ", text)
    answers = []
    for command in re.split(r"\n(?=curl)", joined.strip()):
        done = subprocess.run(
            ["bash", "-c", command.replace("curl ", "curl -sS --fail-with-body ", 1)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        answers.append(done.stdout)
    return answers


@pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
def test_the_commands_of_the_documentation_run(shared: Shared) -> None:
    blocks = [block for block in re.findall(r"```sh\n(.*?)```", SECTION, re.S) if block.startswith("curl")]
    assert len(blocks) == 2
    operations, scripts = blocks
    lines = re.split(r"\n(?=curl)", re.sub(r"\\\n", " ", operations.strip()))
    first = said_by(lines[0], shared.gateway.url)
    shared.gateway.ended("three-numbers")
    rest = said_by("\n".join(lines[1:]), shared.gateway.url)

    assert set(json.loads(first[0])) == {"id", "state", "url"}
    assert json.loads(rest[0])["state"] == "finished"
    assert [one["value"] for one in json.loads(rest[1])["results"]] == [20, 21, 22]
    assert json.loads(rest[2])["status"] == "ended"
    assert rest[3] == ""
    assert shared.gateway.get("/jobs/three-numbers").status == 404

    submit, results = re.split(r"\n(?=curl)", scripts.strip())
    said_by(submit, shared.gateway.url)
    shared.gateway.ended("count-words")
    [found] = said_by(results, shared.gateway.url)
    counts = [one["value"] for one in json.loads(found)["results"]]
    assert set(counts[0]) == {"exit", "stdout", "stderr", "duration"}
    assert int(counts[0]["stdout"]) >= 1


def test_every_path_of_the_table_is_there(shared: Shared) -> None:
    described = shared.gateway.get("/openapi.json").json()["paths"]
    named = re.findall(r"(?:GET|POST|DELETE|PATCH) (/[a-zA-Z/.-]*)", SECTION)

    for path in named:
        plain = (
            path.replace("jobs/ID", "jobs/{job_id}")
            .replace("tasks/ID", "tasks/{task_id}")
            .replace("NAME", "{name}")
        )
        assert plain in described, path
