"""The program as a person runs it, and its workers in real processes (PRI-03, 06, 08, 09, 10)."""

import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from examples.console import exit_code
from examples.primes.__main__ import main
from examples.primes.arithmetic import primes_in
from examples.primes.search import WorkersLost, find_primes
from net import open_place
from tests.examples.primes.programs import Program, needs_proc, worker_process
from tests.machine import here

ENDLESS = "100000000"  # an upper end that no test waits for


pytestmark = [needs_proc]


# --------------------------------------------------------------------------- PRI-03: the same list anywhere


@pytest.mark.real
@pytest.mark.parametrize("ordered", [True, False])
def test_pri03_processes_find_the_sequential_list(ordered: bool) -> None:
    with open_place("processes:2") as place:
        answers = list(find_primes(place, -5, 60_000, chunk=1_000, ordered=ordered))
    primes = [prime for answer in answers for prime in answer.primes]
    assert (primes if ordered else sorted(primes)) == list(primes_in(-5, 60_000))
    assert len({worker_process(answer) for answer in answers}) == 2, "both did some of it"
    assert os.getpid() not in {worker_process(answer) for answer in answers}


# -------------------------------------------------------------------- PRI-06: workers that are lost or hang


@pytest.mark.real
def test_pri06_sigkill_of_a_worker_loses_nothing_and_repeats_nothing() -> None:
    notices: list[str] = []
    with open_place("processes:2") as place:
        answers = find_primes(place, 0, 200_000, chunk=2_000, notice=notices.append)
        found = [next(answers) for _ in range(3)]
        os.kill(worker_process(found[-1]), signal.SIGKILL)
        found += answers
    assert [prime for answer in found for prime in answer.primes] == list(primes_in(0, 200_000))
    (notice,) = notices
    assert "was lost" in notice
    again = [answer for answer in found if answer.attempt == 2]
    assert 1 <= len(again) <= 2, "the chunk in work, and the one at the door"
    assert all(f"[{answer.lo}, {answer.hi})" in notice for answer in again)


@pytest.mark.real
def test_pri06_when_every_worker_is_killed_the_search_says_so() -> None:
    with open_place("processes:2") as place:
        answers = find_primes(place, 0, 10_000_000, chunk=2_000)
        workers: set[int] = set()
        while len(workers) < 2:
            workers.add(worker_process(next(answers)))
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkersLost, match=r"every worker was lost, worker [12] as the last of 2"):
            list(answers)


@pytest.mark.real
def test_pri06_a_worker_that_hangs_loses_its_chunk_after_the_lease() -> None:
    with open_place("processes:2") as place:
        answers = find_primes(place, 0, 100_000, chunk=2_000, lease=0.5)
        found = [next(answers)]
        hung = worker_process(found[0])
        os.kill(hung, signal.SIGSTOP)
        found += answers
    assert [prime for answer in found for prime in answer.primes] == list(primes_in(0, 100_000))
    with pytest.raises(ProcessLookupError):
        os.kill(hung, 0)  # the place has ended it, though it could not listen


@pytest.mark.real
def test_pri06_the_program_says_that_all_workers_are_lost(start: type[Program]) -> None:
    program = start("1", ENDLESS, "--on", "processes:2", "--chunk", "2000", "--list", "-")
    program.first_line()
    for pid in program.relatives():
        if pid != program.process.pid:
            os.kill(pid, signal.SIGKILL)
    code, _, err = program.finish()
    assert code == 1
    assert err.splitlines()[-1].startswith("error: every worker was lost, worker ")
    assert "Traceback" not in err


# ---------------------------------------------------------------------------------- PRI-09, PRI-10: the end


@pytest.mark.real
@pytest.mark.parametrize("place", ["here", "processes:2", "processes:3"])
def test_pri09_the_program_ends_with_0_and_leaves_no_process(start: type[Program], place: str) -> None:
    program = start("1", "100000", "--count", "--chunk", "5000", "--on", place)
    assert program.finish() == (0, "9592\n", "")
    assert program.relatives() == []


@pytest.mark.real
@pytest.mark.parametrize("place", ["here", "processes:2"])
def test_pri09_ctrl_c_ends_everything_within_a_second(start: type[Program], place: str) -> None:
    program = start("1", ENDLESS, "--list", "-", "--chunk", "10000", "--on", place)
    assert program.first_line() == "2\n"
    began = time.monotonic()
    os.killpg(program.process.pid, signal.SIGINT)  # as a terminal does: to all of them
    code, _, err = program.finish()
    assert time.monotonic() - began < here(1.0)
    assert (code, err) == (130, "")
    assert program.relatives() == []


@pytest.mark.real
def test_pri10_workers_end_when_the_master_is_killed(start: type[Program]) -> None:
    program = start("1", ENDLESS, "--list", "-", "--chunk", "2000", "--on", "processes:2")
    program.first_line()
    assert len(program.relatives()) >= 3
    program.process.kill()
    program.finish()
    deadline = time.monotonic() + 5
    while program.relatives() and time.monotonic() < deadline:
        time.sleep(0.02)  # there is no event to wait for: they are not our children
    assert program.relatives() == []


@pytest.mark.real
def test_pri08_a_reader_that_has_seen_enough_ends_the_search_quietly(start: type[Program]) -> None:
    program = start("1", ENDLESS, "--list", "-", "--chunk", "2000", "--on", "processes:2")
    assert program.first_line() == "2\n"
    assert program.process.stdout is not None
    program.process.stdout.close()
    assert program.process.wait(10) == 1
    assert program.process.stderr is not None
    assert program.process.stderr.read() == ""


# --------------------------------------------------------------------------------------------------- output


def run(*arguments: str) -> tuple[int, str, str]:
    """Run the command in this process; return the exit code, stdout and stderr."""
    with CliRunner().isolation() as (out, err, _):
        code = exit_code(main, arguments)
        return code, out.getvalue().decode(), err.getvalue().decode()


def test_the_summary_says_count_last_prime_rates_and_shares() -> None:
    code, out, err = run("1", "10000", "--chunk", "3000")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "1229 primes in [1, 10000), the last one 9973"
    assert re.fullmatch(r"\d+\.\d\d s, [\d,]+ numbers/s, [\d,]+ primes/s", lines[1])
    assert re.fullmatch(
        r"  worker 1 \(process \d+\)  100\.0% .* 1229 primes in 4 chunks, busy .* s", lines[2]
    )


def test_count_prints_the_count_and_nothing_else() -> None:
    assert run("1", "10_000", "--count") == (0, "1229\n", "")


def test_list_to_stdout_prints_the_primes_and_nothing_else() -> None:
    assert run("-5", "12", "--list", "-") == (0, "2\n3\n5\n7\n11\n", "")


def test_list_writes_a_file_and_count_still_counts(tmp_path: Path) -> None:
    path = tmp_path / "primes.txt"
    assert run("0", "100", "--chunk", "7", "--count", "--list", str(path)) == (0, "25\n", "")
    assert path.read_text() == "".join(f"{prime}\n" for prime in primes_in(0, 100))


@pytest.mark.parametrize(("lo", "hi"), [("7", "7"), ("-9", "2"), ("24", "29")])
def test_pri01_a_range_without_primes_is_no_error(lo: str, hi: str) -> None:
    assert run(lo, hi, "--count") == (0, "0\n", "")
    code, out, _ = run(lo, hi)
    assert (code, out.splitlines()[0]) == (0, f"0 primes in [{lo}, {hi})")


def test_unordered_lists_the_same_primes() -> None:
    _, out, _ = run("1", "5000", "--chunk", "100", "--unordered", "--list", "-")
    assert sorted(map(int, out.split())) == list(primes_in(1, 5000))


# ------------------------------------------------------------------------------------------------ bad input


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["10", "1"], 2, ["ends at 1, before it starts at 10", "smaller number first"]),
        (["1", "many"], 2, ["'many' is not a whole number", "write it like"]),
        (["1.5", "10"], 2, ["'1.5' is not a whole number"]),
        (["1"], 2, ["HI"]),
        (["--cuont", "1", "10"], 2, ["no option --cuont"]),
        (["1", "10", "--chunk", "0"], 2, ["--chunk", "0"]),
        (["1", "10", "--window", "-1"], 2, ["--window", "-1"]),
        (["1", "10", "--lease", "0"], 2, ["--lease"]),
        (["1", "10", "--count", "--list", "-"], 2, ["both want stdout"]),
        (
            ["1", "10", "--list", "/no/such/folder/file"],
            1,
            ["cannot write", "/no/such/folder/file", "name a file"],
        ),
        (["1", "10", "--on", "the moon"], 1, ["the moon"]),
        (["1", "10", "--on", "processes:0"], 1, ["processes:0"]),
        (["1", "10", "--on", "processes:two"], 1, ["processes:two"]),
        (["1", "10", "--on", "hosts:"], 1, ["hosts:"]),
        (["1", "10", "--on", "hosts:127.0.0.1"], 1, ["127.0.0.1"]),
        (["1", "10", "--algorithm", "magic"], 2, ["'magic' is not one of"]),
        (["1", "10", "--check", "101"], 2, ["101.0 is not in the range"]),
        (["1", "10", "--plot", "search.gif"], 1, ["'search.gif'", "name a file that ends in"]),
        (["1", "10", "--plot", "/no/such/folder/x.png"], 1, ["there is no folder /no/such/folder"]),
        (["1", "10", "--listen", "nowhere"], 1, ["nowhere"]),
        (["1", "10", "--listen", "tcp://0.0.0.0:0"], 1, ["0.0.0.0"]),
    ],
)
def test_bad_input_gives_one_clear_line(arguments: list[str], code: int, words: list[str]) -> None:
    got, out, err = run(*arguments)
    assert (got, out) == (code, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert [word for word in words if word not in err] == []


@pytest.mark.real
def test_an_address_that_nobody_listens_on_gives_one_clear_line() -> None:
    port = unused_port()
    code, out, err = run("1", "10", "--on", f"hosts:127.0.0.1:{port}")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert f"127.0.0.1:{port}" in err


def test_debug_shows_the_traceback() -> None:
    _, _, err = run("1", "10", "--on", "the moon", "--debug")
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: ")


def test_help_teaches_with_examples() -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert "python -m examples.primes 1 2000000 --on processes:2" in out
