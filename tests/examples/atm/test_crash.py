"""A bank that is killed: what was answered is in the books, what was not is settled; ATM-04..06, 09, 13."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest

import net
from examples.atm.atm import Atm, BankAway
from examples.atm.customers import serve_one
from examples.atm.ledger import open_ledger
from examples.atm.messages import Balance, Declined, Deposit, Ok, Reply
from tasklets import TaskletError, channel, message, tasklet
from tests.examples.atm.processes import Process, running, running_bank

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

    assert took < 3
    assert "\n" not in str(away.value)
    assert atm.drawer.paid_out == 1000
    with running_bank(ledger_path, address(url)):
        assert balance(atm) == 49000


def test_kills_while_four_atms_work_lose_no_ok_and_double_none(ledger_path: Path) -> None:  # ATM-06
    pins = {"alice": "1111", "bob": "2222", "carol": "3333"}
    answers, done = channel(1000), channel(4)
    seen: list[Reply] = []

    def customers(atm: Atm, dice: random.Random) -> None:
        for _ in range(60):
            serve_one(atm, dice, pins)
        done.send(atm)

    def kill_after(count: int, bank: Process) -> None:
        seen.extend(answers.receive() for _ in range(count))
        bank.kill()
        bank.wait()

    with running_bank(ledger_path) as (bank, url):
        for number in range(4):
            atm = Atm(
                f"atm-{number}",
                lambda: net.connect(url),
                on_answer=lambda order, reply: answers.send(reply),
                patience=30,
            )
            tasklet(customers)(atm, random.Random(number))
        kill_after(40, bank)
    for _ in range(2):
        with running_bank(ledger_path, address(url)) as (bank, _):
            kill_after(60, bank)
    with running_bank(ledger_path, address(url)):
        machines = [done.receive() for _ in range(4)]
        seen.extend(answers.receive() for _ in range(4 * 60 - len(seen)))

    with open_ledger(ledger_path) as ledger:  # refuses books that do not balance
        for reply in seen:
            kept = ledger._recorded(reply.txn)
            assert (kept["reason"] is None) == (not isinstance(reply, Declined))
            assert kept["balance"] == getattr(reply, "balance", None)
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
