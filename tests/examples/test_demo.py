"""What `make demo` says and checks, and the nodes that it starts (PRI-03, T-02)."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from examples import nodes
from examples.atm.demo import run_demo
from examples.atm.money import format_amount
from examples.atm.report import Comparison
from examples.demo import COUNT, LAST, Disagreement, Row, books_of, check, check_books, table_of
from examples.nodes import NodeFailed, open_nodes
from examples.primes.arithmetic import primes_in
from examples.primes.search import find_primes
from net import open_place
from tests.machine import here

ROOT = Path(__file__).resolve().parents[2]

GOOD = [Row("here", COUNT, LAST, 4.0), Row("processes:2", COUNT, LAST, 2.0)]


def test_each_place_has_a_row_with_its_speed_up_over_the_first() -> None:
    screen = Console(file=io.StringIO(), width=100)
    screen.print(table_of(GOOD))
    assert isinstance(screen.file, io.StringIO)
    lines = [line.split() for line in screen.file.getvalue().splitlines()]
    (here,) = [line for line in lines if "here" in line]
    (processes,) = [line for line in lines if "processes:2" in line]
    assert [here[i] for i in (3, 5, 7, 9)] == [str(COUNT), str(LAST), "4.00", "1.00"]
    assert [processes[i] for i in (3, 5, 7, 9)] == [str(COUNT), str(LAST), "2.00", "2.00"]


def test_places_that_agree_on_the_right_answer_pass() -> None:
    check(GOOD)


@pytest.mark.parametrize(
    "wrong", [Row("x", COUNT - 1, LAST, 1.0), Row("x", COUNT, 7, 1.0), Row("x", 0, None, 1.0)]
)
def test_a_place_with_another_answer_is_named(wrong: Row) -> None:
    with pytest.raises(Disagreement, match=f"there are {COUNT} primes .* but x found {wrong.count}"):
        check([*GOOD, wrong])


@pytest.fixture
def books(tmp_path: Path) -> Comparison:
    return Comparison(run_demo("here", tmp_path / "bank.sqlite", 2, 20, 1, lambda served: None))


def test_the_books_stand_side_by_side_with_reasons_and_money(books: Comparison) -> None:
    screen = Console(file=io.StringIO(), width=100)
    screen.print(books_of({"here": books, "hosts:127.0.0.1:1,127.0.0.1:2": books}))
    assert isinstance(screen.file, io.StringIO)
    text = screen.file.getvalue()
    reason, (seen, written) = next(iter(books.declined.items()))
    assert [line.count(f"{seen} / {written}") for line in text.splitlines() if reason in line] == [2]
    assert [line.count("yes") for line in text.splitlines() if "money conserved" in line] == [2]
    assert text.count(format_amount(books.closing)) >= 2


def test_books_that_balance_pass_and_others_are_named(books: Comparison) -> None:
    check_books({"here": books})
    books.faults.append("5.00 EUR came from nowhere")
    with pytest.raises(Disagreement, match=r"do not balance: there: 5\.00 EUR came from nowhere"):
        check_books({"there": books})


@pytest.mark.real
def test_pri03_nodes_over_tcp_find_the_sequential_list() -> None:
    with open_nodes(2) as addresses, open_place(f"hosts:{','.join(addresses)}") as place:
        answers = list(find_primes(place, 0, 60_000, chunk=1_000))
    assert [prime for answer in answers for prime in answer.primes] == list(primes_in(0, 60_000))
    assert len({answer.worker for answer in answers}) == 2


@pytest.mark.real
def test_nodes_serve_one_place_after_the_other() -> None:
    with open_nodes(1) as (address,):
        for _ in range(2):
            with open_place(f"hosts:{address}") as place:
                assert sum(len(answer.primes) for answer in find_primes(place, 0, 1_000)) == 168


@pytest.mark.real
def test_a_node_that_does_not_start_is_an_error_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "COMMAND", [sys.executable, "-c", "print('no such thing')"])
    with pytest.raises(NodeFailed, match="ended before it listened: no such thing"), open_nodes(2):
        pass


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_demonstration_and_its_nodes_within_a_second(number: signal.Signals) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "examples.demo"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert demo.stdout is not None
    demo.stdout.readline()  # the nodes are up, the search begins
    began = time.monotonic()
    demo.send_signal(number)
    _, err = demo.communicate(timeout=10)  # also waits until no child holds the pipes
    assert time.monotonic() - began < here(1.0)
    assert (demo.returncode, err) == (130, "")
    with pytest.raises(ProcessLookupError):
        os.killpg(demo.pid, 0)
