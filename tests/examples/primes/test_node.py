"""Workers that join a running program, leave it, hang, or are slow; all in real processes (PRI-05..07, 09, 11, 12)."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from examples.primes.algorithms import ALGORITHMS
from examples.primes.arithmetic import primes_in
from examples.primes.backlog import Answer
from examples.primes.messages import Chunk, Join, Progress
from examples.primes.search import find_primes
from examples.primes.worker import BEAT_SECONDS, work
from net import open_place
from tests.examples.primes.programs import Program, needs_proc, worker_process
from tests.machine import here

ENDLESS = "100000000"  # an upper end that no test waits for
pytestmark = [pytest.mark.real, needs_proc]


class Node(Program):
    """`python -m examples.primes.node ...`"""

    module = "examples.primes.node"


def listening(program: Program) -> str:
    """Return the URL that workers join at, as the program prints it."""
    assert program.process.stderr is not None
    for line in program.process.stderr:
        if found := re.search(r"examples\.primes\.node (\S+)", line):
            return found[1]
    raise AssertionError("it ended")


def wait_for_line(program: Program, text: str) -> str:
    assert program.process.stderr is not None
    for line in program.process.stderr:
        if text in line:
            return line
    raise AssertionError(f"it ended without {text!r}")


@pytest.fixture
def join() -> Iterator[object]:
    nodes: list[Node] = []

    def begin(*arguments: str) -> Node:
        nodes.append(Node(*arguments))
        return nodes[-1]

    yield begin
    for node in nodes:
        node.clean()


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_pri07_nodes_join_and_leave_while_the_search_runs(start: type[Program], join: type[Node]) -> None:
    program = start("1", "1600000", "--on", "nobody", "--listen", "tcp://127.0.0.1:0", "--list", "-")
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(program.process.stdout or ()))
    reader.start()
    url = listening(program)
    first = join(url, "--name", "first")
    wait_for_line(program, "first (process")
    second = join(url, "--name", "second")
    wait_for_line(program, "second (process")
    time.sleep(0.5)  # it works for a while
    first.process.send_signal(signal.SIGINT)
    assert first.finish()[0] == 0
    assert "leaves" in wait_for_line(program, "first (process")

    assert second.finish()[0] == 0
    assert program.process.wait(30) == 0
    reader.join()
    assert [int(line) for line in lines] == [
        prime for primes in ALGORITHMS["sieve"](1, 1_600_000) for prime in primes
    ]


def test_pri07_without_nodes_the_program_waits_and_computes_nothing(
    start: type[Program], join: type[Node]
) -> None:
    program = start("1", "100000", "--on", "nobody", "--listen", "tcp://127.0.0.1:0", "--count")
    url = listening(program)
    time.sleep(0.2)  # what it does at the start
    before = cpu_ticks(program.process.pid)
    time.sleep(1.0)
    assert cpu_ticks(program.process.pid) - before <= 2, "hundredths of a second"
    join(url)
    assert program.process.communicate(timeout=100)[0] == "9592\n"


def test_pri06_a_node_that_is_killed_or_hangs_is_overtaken(start: type[Program], join: type[Node]) -> None:
    program = start(
        "1", "1500000", "--on", "nobody", "--listen", "tcp://127.0.0.1:0", "--count", "--lease", "1"
    )
    url = listening(program)
    killed, hung = join(url, "--name", "killed"), join(url, "--name", "hung")
    for _ in range(2):
        wait_for_line(program, "has joined")
    killed.process.kill()
    hung.process.send_signal(signal.SIGSTOP)
    join(url, "--name", "good")
    said, notes = program.process.communicate(timeout=100)
    assert said == "114155\n"
    assert program.process.returncode == 0
    assert re.search(r"killed .* was lost", notes)
    assert re.search(r"hung .* has been silent for too long; \[.* done again", notes)


def test_pri10_without_its_search_a_node_ends_and_with_stay_it_joins_the_next(
    start: type[Program], join: type[Node]
) -> None:
    program = start("1", ENDLESS, "--on", "nobody", "--listen", "tcp://127.0.0.1:0", "--count")
    url = listening(program)
    leaver, stayer = join(url, "--name", "leaver"), join(url, "--name", "stayer", "--stay")
    for _ in range(2):
        wait_for_line(program, "has joined")
    program.process.kill()
    code, _, notes = leaver.finish()
    assert code == 1
    assert "error: the search is gone" in notes

    again = start("1", "100000", "--on", "nobody", "--listen", url.rpartition("/")[0], "--count")
    assert again.finish()[:2] == (0, "9592\n")
    stayer.process.send_signal(signal.SIGINT)
    assert stayer.finish()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nonsense",), "error: "),
        (("tcp://127.0.0.1:1/primes",), "the search is gone"),
        ((), "Missing argument"),
    ],
)
def test_a_mistake_is_one_line(join: type[Node], arguments: tuple[str, ...], says: str) -> None:
    code, _, notes = join(*arguments).finish()
    assert code in (1, 2)
    assert says in notes
    assert len(notes.splitlines()) == 1


# --------------------------------------------------------------------------------------- PRI-05, PRI-11: the beat


def test_pri11_a_node_is_heard_while_it_computes_one_long_chunk() -> None:
    """Three seconds here; ten, as the row says, with TASKLETS_FULL=1."""
    hi = 5_000_000 if os.environ.get("TASKLETS_FULL") else 2_000_000
    with open_place("processes:1") as place:
        joins = place.channel()
        place.spawn(work, joins, "worker")
        join = joins.receive()
        assert isinstance(join, Join)
        join.chunks.send(Chunk(0, 1, hi, 1))
        heard = [time.monotonic()]
        while isinstance(join.results.receive(), Progress):
            heard.append(time.monotonic())
        heard.append(time.monotonic())
        join.chunks.close()
    assert len(heard) > 4
    gaps = [later - sooner for sooner, later in pairwise(heard)]
    assert max(gaps) < here(2 * BEAT_SECONDS)


def test_pri05_a_node_that_runs_a_fifth_of_the_time_delays_the_end_by_no_more_than_its_chunk() -> None:
    with open_place("processes:2") as place:
        answers = find_primes(place, 1, 1_500_000)
        found: list[Answer] = [next(answers)]
        slow = worker_process(found[0])
        stop = threading.Event()
        throttle = threading.Thread(target=slow_down, args=(slow, stop))
        throttle.start()
        try:
            found += answers
        finally:
            stop.set()
            throttle.join()
    assert [prime for answer in found for prime in answer.primes] == list(primes_in(1, 1_500_000))
    last = {answer.worker: answer.at for answer in found}
    assert len(last) == 2
    slow_chunks = [answer.seconds for answer in found if worker_process(answer) == slow]
    assert abs(max(last.values()) - min(last.values())) <= max(slow_chunks) + here(0.2)


def slow_down(pid: int, stop: threading.Event) -> None:
    while not stop.is_set():
        os.kill(pid, signal.SIGSTOP)
        stop.wait(0.08)
        os.kill(pid, signal.SIGCONT)
        stop.wait(0.02)


# ------------------------------------------------------------------------------------------------ command line


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_pri03_the_program_counts_the_same_with_every_algorithm(start: type[Program], algorithm: str) -> None:
    program = start("1", "200000", "--count", "--algorithm", algorithm, "--check", "1", "--on", "processes:2")
    assert program.finish()[:2] == (0, "17984\n")


def test_nobody_needs_a_door(start: type[Program]) -> None:
    code, _, notes = start("1", "10", "--on", "nobody").finish()
    assert code == 2
    assert "--on nobody means that others compute; say where they can join" in notes


def test_the_picture_of_a_search_is_drawn(start: type[Program], tmp_path: Path) -> None:
    picture = tmp_path / "search.svg"
    code, said, _ = start("1", "300000", "--on", "processes:2", "--plot", str(picture)).finish()
    assert code == 0
    assert "25997 primes" in said
    assert picture.stat().st_size > 5_000
