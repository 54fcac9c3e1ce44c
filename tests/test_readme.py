"""What the README shows runs as shown."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMAND = Path(sys.executable).with_name("tasklets")
PROGRAMS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def write(program: str, folder: Path) -> Path:
    path = folder / "hello.py"
    path.write_text(program)
    return path


def output_of(path: Path, *arguments: str) -> list[str]:
    command = [sys.executable, str(path), *arguments]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.splitlines()


def check_greetings(lines: list[str], processes: set[int]) -> None:
    greeted = [re.fullmatch(r"hello (\w+), from process (\d+)", line) for line in lines]
    assert all(greeted)
    assert {found[1] for found in greeted if found} == {"moon", "sun", "mars", "venus"}
    assert len({found[2] for found in greeted if found}) in processes


@pytest.mark.real
@pytest.mark.parametrize(("place", "processes"), [("here", {1}), ("processes:2", {1, 2})])
def test_the_first_program_runs_in_one_process_and_in_several(
    place: str, processes: set[int], tmp_path: Path
) -> None:
    check_greetings(output_of(write(PROGRAMS[0], tmp_path), place), processes)


@pytest.mark.real
def test_the_first_program_runs_on_two_nodes(tmp_path: Path) -> None:
    """T-02: the address is the only change."""
    path = write(PROGRAMS[0], tmp_path)
    with ExitStack() as nodes:
        addresses = []
        for _ in range(2):
            node = nodes.enter_context(
                subprocess.Popen(
                    [str(COMMAND), "node", "--listen", "127.0.0.1:0"],
                    cwd=tmp_path,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            nodes.callback(node.terminate)
            assert node.stdout is not None
            addresses.append(node.stdout.readline().split("tcp://")[1].strip())
        check_greetings(output_of(path, f"hosts:{','.join(addresses)}"), {1, 2})


def test_the_second_program_runs(tmp_path: Path) -> None:
    assert output_of(write(PROGRAMS[1], tmp_path)) == ["tick 0", "tick 1", "tick 2"]
