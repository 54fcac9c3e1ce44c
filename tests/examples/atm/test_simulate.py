"""A short day with real kills and cuts, its picture, and the wire that loses answers; ATM-05, 06, 09."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from examples.atm.atm import Atm, dial
from examples.atm.demo import Outcome
from examples.atm.faults import BankFailed, BankProcess, Fault, Wire
from examples.atm.ledger import open_ledger
from examples.atm.messages import Balance, Books, Ok
from examples.atm.plot import draw_day
from examples.atm.report import Comparison, make_day_table, quantile
from examples.atm.simulate import Day
from examples.pictures import CannotPlot, check_plot
from net.security import make_secret
from tests.examples.atm.processes import ROOT, run, running, running_bank

NOTHING = Books("b", 0, 0, {}, {}, 0, ())


def make_day() -> Day:
    day = Day(Outcome(NOTHING, NOTHING, (), 1.0), began=100.0)
    day.moments, day.seconds = [100.5, 101.0, 102.0], [0.001, 0.002, 1.0]
    day.faults = [Fault("kill", 101.5, 102.0), Fault("cut", 100.2, 100.2), Fault("hang", 100.7, 101.7)]
    return day


# -- the wire


@dataclass
class Address:
    port: int


@pytest.mark.real
@pytest.mark.timeout(120)
def test_two_hundred_deposits_over_a_line_that_loses_answers_are_done_once_each(
    ledger_path: Path,
) -> None:  # ATM-05
    """Every fifth time the line breaks after the request has been delivered, before anything comes back."""

    class Losing(Wire):
        lost = 0
        armed = False

        def lets_through(self, data: bytes) -> bool:
            if self.armed:
                self.armed = False
                self.lost += 1
                return False
            return True

    with running_bank(ledger_path) as (_, url):
        wire = Losing(Address(int(url.rpartition(":")[2].partition("/")[0])))
        with closing(wire):
            atm = Atm("atm-1", dial(wire.url), patience=20)
            for number in range(200):
                if number % 5 == 0:
                    atm.connect()
                    wire.armed = True
                assert isinstance(atm.deposit("alice", 1 + number), Ok)
            reply = atm.ask(Balance("alice", "1111"))

    assert isinstance(reply, Ok)
    assert reply.balance == 50000 + sum(range(1, 201))
    assert wire.lost == 40
    with open_ledger(ledger_path) as ledger:
        assert ledger.books().ok["Deposit"] == 2 + 200  # alice and bob began with something
        assert ledger.books().faults == ()


@pytest.mark.real
def test_a_cut_breaks_a_line_that_is_dialled_again(ledger_path: Path) -> None:  # ATM-09
    with running_bank(ledger_path) as (_, url):
        wire = Wire(Address(int(url.rpartition(":")[2].partition("/")[0])))
        with closing(wire):
            atm = Atm("atm-1", dial(wire.url), patience=20)
            for number in range(5):
                reply = atm.deposit("alice", 1)
                assert isinstance(reply, Ok)
                assert reply.balance == 50001 + number
                wire.cut(random.Random(number))


@pytest.mark.real
def test_a_bank_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(BankFailed, match="the bank did not start: error: cannot open a ledger at"):
        BankProcess(str(tmp_path))


# -- the day


def rows_of(said: str) -> dict[str, str]:
    """Read the tables of two columns."""
    cells = [line.split("│") for line in said.splitlines()]
    return {row[1].strip(): row[2].strip() for row in cells if len(row) == 4}


@pytest.mark.real
@pytest.mark.timeout(120)
def test_the_books_balance_after_a_day_of_faults(tmp_path: Path) -> None:  # ATM-05, ATM-06, ATM-09
    picture = tmp_path / "day.svg"
    code, said, notes = run(
        *("simulate", "--atms", "10", "--customers", "60", "--faults", "--day", "6"),
        *("--seed", "3", "--plot", str(picture)),
        cwd=tmp_path,
    )

    assert code == 0, notes
    assert "The books balance." in said
    assert rows_of(said)["visits"] == "300"
    assert notes.count("note: ") >= 2
    assert "one visit (300)" in picture.read_text() or picture.stat().st_size > 10_000
    assert [path for path in tmp_path.iterdir() if path != picture] == [], "no ledger is left"


@pytest.mark.real
def test_a_day_without_faults_has_none_and_a_secret_reaches_all_its_processes(tmp_path: Path) -> None:
    trust = "--secret-file", str(make_secret(tmp_path / "cluster.secret"))
    code, said, notes = run(
        *("simulate", "--atms", "3", "--customers", "10", "--day", "1", *trust), cwd=tmp_path
    )

    assert code == 0, notes
    rows = rows_of(said)
    assert rows["visits that ended without an answer"] == rows["bank killed"] == rows["lines cut"] == "0"
    assert "note:" not in notes


@pytest.mark.real
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_day_can_be_stopped_and_leaves_nothing(tmp_path: Path, by: int) -> None:
    arguments = ("simulate", "--atms", "8", "--customers", "20", "--faults", "--day", "60")
    with running("examples.atm", *arguments, cwd=tmp_path) as day:
        assert day.stderr is not None
        day.stderr.readline()  # the first fault
        if by == signal.SIGTERM:
            day.send_signal(by)  # only to itself; what it started is its own business
            code, _, _ = day.finish()
        else:
            code, _, _ = day.interrupt(by)
        assert code == 130
        assert day.survivors() == []
    assert list(tmp_path.iterdir()) == []


def test_the_day_is_told_in_a_table() -> None:
    day = make_day()
    day.gave_up = 7
    console = Console(width=100, file=StringIO())
    console.print(make_day_table(day, Comparison(day.outcome)))

    assert isinstance(console.file, StringIO)
    rows = rows_of(console.file.getvalue())
    assert rows["bank killed"] == rows["lines cut"] == rows["bank hung"] == "1"
    assert rows["visits"] == "3"
    assert rows["visits that ended without an answer"] == "7"
    assert rows["p50 of a visit"] == "2.0 ms"
    assert rows["p99 of a visit"] == "1000.0 ms"


def test_a_quantile_of_nothing_is_no_number() -> None:
    assert quantile([], 99) == "-"


# -- the picture


@pytest.mark.parametrize("name", ["day.png", "day.svg", "day.pdf"])
def test_the_picture_is_drawn(tmp_path: Path, name: str) -> None:
    draw_day(make_day(), tmp_path / name)

    assert (tmp_path / name).stat().st_size > 5_000


@pytest.mark.parametrize(
    ("name", "says"),
    [("day.gif", "name a file that ends in .png, .svg, .pdf"), ("no/day.png", "there is no folder")],
)
def test_a_picture_that_cannot_be_drawn_is_refused_before_the_day(
    tmp_path: Path, name: str, says: str
) -> None:
    with pytest.raises(CannotPlot, match=says):
        check_plot(tmp_path / name)


def test_without_matplotlib_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from examples.atm.commands import main\nfrom examples.console import run_program\n"
        "run_program(main, ['simulate', '--plot', 'day.png'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stderr == "error: drawing needs matplotlib; install it: pip install 'tasklets[plot]'\n"
