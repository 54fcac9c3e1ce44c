"""A bank that is killed: what was answered is in the books, what was not is settled; ATM-04..06, 09, 13."""

from __future__ import annotations

import os
import random
import socket
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest

import net
from examples.atm.atm import Atm, BankAway, dial
from examples.atm.customers import serve_one
from examples.atm.ledger import open_ledger
from examples.atm.messages import Balance, Declined, Deposit, Ok, Reply
from tasklets import TaskletError, channel, message, sleep, tasklet
from tests.examples.atm.processes import Process, running, running_bank
from tests.machine import here

pytestmark = pytest.mark.real


def address(url: str) -> str:
    """Where a new bank has to listen to be found under the old URL."""
    return url.rpartition("/")[0]


def balance(atm: Atm) -> int:
    reply = atm.ask(Balance("alice", "1111"))
    assert isinstance(reply, Ok)
    return reply.balance


def test_a_txn_answered_by_a_killed_bank_gets_the_same_from_the_next(
    ledger_path: Path,
) -> None:  # ATM-05
    atm = Atm("atm-1", lambda: net.connect(url))
    request = atm._request(Deposit("alice", 700))
    with running_bank(ledger_path) as (bank, url):
        assert atm._deliver(request) == Ok(request.txn, 50700)
        bank.kill()
        bank.wait()

    with running_bank(ledger_path, address(url)):
        assert atm._deliver(request) == Ok(request.txn, 50700)


def test_while_the_bank_is_dead_the_atm_says_so_and_later_settles(ledger_path: Path) -> None:  # ATM-09
    with running_bank(ledger_path) as (bank, url):
        atm = Atm("atm-1", lambda: net.connect(url))
        assert isinstance(atm.withdraw("alice", "1111", 1000), Ok)
        bank.kill()
        bank.wait()
        began = monotonic()
        with pytest.raises(BankAway, match="the bank is away, no answer within 2 s") as away:
            atm.withdraw("alice", "1111", 1000)
        took = monotonic() - began

    assert took < here(3)
    assert "\n" not in str(away.value)
    assert atm.drawer.paid_out == 1000
    with running_bank(ledger_path, address(url)):
        assert balance(atm) == 49000


@pytest.mark.timeout(300)
def test_kills_at_random_moments_lose_no_ok_and_double_none(ledger_path: Path) -> None:  # ATM-06
    """In full size, 20 kills under 4 ATMs x 500 transactions: TASKLETS_FULL=1 (about a minute)."""
    kills, transactions = (20, 500) if os.environ.get("TASKLETS_FULL") else (3, 60)
    pins = {"alice": "1111", "bob": "2222", "carol": "3333"}
    dice = random.Random(6)
    seen: list[Reply] = []
    machines: list[Atm] = []

    def customers(atm: Atm, people: random.Random) -> None:
        for _ in range(transactions):
            serve_one(atm, people, pins)
        machines.append(atm)

    def start(url: str) -> None:
        for number in range(4):
            atm = Atm(
                f"atm-{number}",
                dial(url),
                on_answer=lambda order, reply: seen.append(reply),
                patience=30,
                ask_again=1,  # what a kill leaves unanswered is noticed by the broken line
            )
            tasklet(customers)(atm, random.Random(number))

    per_kill = 4 * transactions // (kills + 1)
    at_kill: list[int] = []
    with running_bank(ledger_path) as (bank, url):
        start(url)
        for _ in range(kills):
            goal = len(seen) + dice.randint(1, per_kill)
            while len(seen) < goal:
                sleep(0.001)
            sleep(dice.uniform(0, 0.005))  # anywhere within a request, and within a commit
            bank.kill()
            bank.wait()
            at_kill.append(len(seen))
            bank.end()
            bank = Process(
                *("examples.atm", "bank", "--listen", address(url), "--ledger", str(ledger_path)),
                cwd=ledger_path.parent,
            )
            bank.wait_for_line("The bank listens at ")
        try:
            while len(machines) < 4:
                sleep(0.01)
        finally:
            bank.end()

    assert len(set(at_kill)) == kills, "between two kills something was done"
    with open_ledger(ledger_path) as ledger:  # refuses books that do not balance
        for reply in seen:
            rows = ledger._db.execute(
                "SELECT reason, balance FROM transactions WHERE txn = ?", (reply.txn,)
            ).fetchall()
            ((reason, balance),) = rows
            assert (reason is None) == (not isinstance(reply, Declined))
            assert balance == getattr(reply, "balance", None)
        doubled = ledger._db.execute("SELECT seq FROM postings GROUP BY seq HAVING count(*) <> 2").fetchall()
        assert doubled == []
        taken_in = sum(atm.drawer.taken_in for atm in machines)
        paid_out = sum(atm.drawer.paid_out for atm in machines)
        assert ledger.books().customers == 75000 + taken_in - paid_out
        assert taken_in > 0 < paid_out


@message(name="test.NobodyKnowsThis")
class NobodyKnowsThis:
    """A message class that the bank's process has never heard of."""

    reply: channel


def test_messages_that_the_bank_cannot_read_leave_it_to_the_others(ledger_path: Path) -> None:  # ATM-12
    with running_bank(ledger_path) as (bank, url):
        line = net.connect(url)
        for nonsense in (5, "alice|CREDIT|5", NobodyKnowsThis(channel(1)), b"x" * 100_000):
            with suppress(TaskletError):  # whether this line survives it is for net to say
                line.send(nonsense)
        with socket.create_connection(
            ("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0]))
        ) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 1000)
        atm = Atm("atm-1", lambda: net.connect(url))

        assert balance(atm) == 50000
        assert bank.poll() is None


def test_an_atm_that_is_killed_leaves_the_bank_to_the_others(ledger_path: Path) -> None:  # ATM-13
    with running_bank(ledger_path) as (_, url):
        with running("examples.atm", "atm", url, cwd=ledger_path.parent) as other:
            assert other.stdin is not None
            other.stdin.write("alice\n1111\ndeposit\n1\n")
            other.stdin.flush()
            other.wait_for_line("Taken in")
            other.kill()
        atm = Atm("atm-1", lambda: net.connect(url))

        assert balance(atm) == 50100
