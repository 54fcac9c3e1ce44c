"""The demo: the same program in three places, and what its books would show if something were wrong."""

from __future__ import annotations

import ast
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from examples.atm.customers import Tally
from examples.atm.demo import Outcome, run_demo
from examples.atm.messages import Books
from examples.atm.report import Comparison
from tests.examples.atm.processes import ROOT, run, running

BEFORE = Books("a", 1000, 1000, {"Deposit": 10}, {}, 0, ())
AFTER = Books("b", 1300, 1300, {"Deposit": 14, "Withdraw": 1}, {"wrong-pin": 2}, 3, ())
TALLIES = (
    Tally("atm-1", {"Deposit": 4}, {"wrong-pin": 1}, 500, 0, 1),
    Tally("atm-2", {"Withdraw": 1}, {"wrong-pin": 1}, 0, 200, 0),
)
OUTCOME = Outcome(BEFORE, AFTER, TALLIES, 1.0)


def test_books_that_agree_have_no_faults() -> None:
    comparison = Comparison(OUTCOME)

    assert comparison.faults == []
    assert comparison.ok == {"Deposit": (4, 4), "Withdraw": (1, 1)}
    assert comparison.declined == {"wrong-pin": (2, 2)}
    assert comparison.repeats == 3


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (replace(OUTCOME, after=replace(AFTER, customers=1299)), "-0.01 EUR came from nowhere or went there"),
        (replace(OUTCOME, tallies=TALLIES[:1]), "Ok Withdraw: the machines counted 0, the bank 1"),
        (
            replace(OUTCOME, after=replace(AFTER, declined={})),
            "declined wrong-pin: the machines counted 2, the bank 0",
        ),
        (replace(OUTCOME, after=replace(AFTER, faults=("account 1 is off",))), "account 1 is off"),
    ],
    ids=["money lost", "an Ok too many", "a declined one too few", "the bank's own check"],
)
def test_books_that_disagree_say_where(wrong: Outcome, fault: str) -> None:
    assert fault in Comparison(wrong).faults


def test_the_customers_of_a_seed_are_the_same_ones_again(tmp_path: Path) -> None:
    first, again, other = (
        run_demo("here", tmp_path / f"{number}.sqlite", 1, 25, seed, lambda served: None)
        for number, seed in enumerate([5, 5, 6])
    )

    assert Comparison(first).faults == []
    assert [t.ok for t in first.tallies] == [t.ok for t in again.tallies] != [t.ok for t in other.tallies]


def test_a_demo_on_an_old_ledger_counts_only_its_own(tmp_path: Path) -> None:
    path = tmp_path / "bank.sqlite"
    for seed in (1, 2):
        outcome = run_demo("here", path, 1, 12, seed, lambda served: None)

    assert outcome.before.customers > 200_00 * 10
    assert Comparison(outcome).faults == []


@pytest.mark.real
@pytest.mark.parametrize("place", ["here", "processes:2", "hosts"])
def test_the_books_balance_in_every_place(tmp_path: Path, place: str) -> None:  # T-07, ATM-05, ATM-08
    with ExitStack() as hosts:
        if place == "hosts":
            node = ("net.cli", "node", "--listen", "127.0.0.1:0")
            nodes = [hosts.enter_context(running(*node, cwd=tmp_path)) for _ in range(2)]
            place = "hosts:" + ",".join(node.wait_for_line("listening at tcp://") for node in nodes)
        code, stdout, stderr = run("demo", "--on", place, "--atms", "3", "--transactions", "30", cwd=tmp_path)

    assert (code, stderr) == (0, "")
    assert "The books balance." in stdout
    assert "90 customers at 3 machines" in stdout
    assert list(tmp_path.iterdir()) == []


def test_nothing_in_the_example_asks_where_it_runs() -> None:  # architecture: only the placement changes
    for file in (ROOT / "examples" / "atm").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Match):
                asked = node.subject if isinstance(node, ast.Match) else node.test
                names = {name.id for name in ast.walk(asked) if isinstance(name, ast.Name)}
                assert not names & {"on", "place"}, f"{file.name}:{node.lineno}"
