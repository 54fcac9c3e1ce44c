"""Which files the bank takes as its ledger, and what it says about the others."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from examples.atm.database import LedgerRefused
from examples.atm.ledger import open_ledger
from examples.atm.ledger_file import open_file
from examples.atm.messages import Deposit, Ok
from tests.examples.atm.conftest import NOON, QUICK


def make_ledger(path: Path) -> None:
    with open_ledger(path, pin_cost=QUICK) as ledger:
        ledger.open_account("alice", "1111", 10000)


def test_a_missing_file_and_its_folder_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "bank.sqlite"

    make_ledger(path)

    with open_ledger(path) as ledger:
        assert ledger.names() == ["alice"]


def test_an_empty_file_becomes_a_ledger(ledger_path: Path) -> None:
    ledger_path.touch()
    make_ledger(ledger_path)


def test_a_file_that_is_no_database_is_refused_and_left_alone(ledger_path: Path) -> None:
    ledger_path.write_text("my shopping list\n" * 100)

    with pytest.raises(LedgerRefused, match=re.escape(f"{ledger_path} is not a ledger")) as refused:
        open_file(ledger_path)

    assert "name another file" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert ledger_path.read_text() == "my shopping list\n" * 100


def test_a_database_of_another_program_is_refused_and_left_alone(ledger_path: Path) -> None:
    other = sqlite3.connect(ledger_path)
    other.execute("CREATE TABLE accounts (name TEXT)")
    other.close()
    before = ledger_path.read_bytes()

    with pytest.raises(LedgerRefused, match="database of some other program; name another file"):
        open_file(ledger_path)

    assert ledger_path.read_bytes() == before


def test_a_ledger_of_another_version_is_refused(ledger_path: Path) -> None:
    make_ledger(ledger_path)
    other = sqlite3.connect(ledger_path, isolation_level=None)
    other.execute("PRAGMA user_version = 99")
    other.close()

    with pytest.raises(
        LedgerRefused, match="version 99, this bank keeps version 2; open it with the bank that made it"
    ):
        open_file(ledger_path)


def test_a_damaged_ledger_is_refused(ledger_path: Path) -> None:
    make_ledger(ledger_path)
    content = bytearray(ledger_path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    ledger_path.write_bytes(content)

    with pytest.raises(LedgerRefused, match=r"is damaged .*; restore it from a copy, or name another file"):
        open_file(ledger_path)


def test_books_that_do_not_balance_are_refused(ledger_path: Path) -> None:
    make_ledger(ledger_path)
    thief = sqlite3.connect(ledger_path, isolation_level=None)
    thief.execute("UPDATE accounts SET balance = balance + 1 WHERE name = 'alice'")
    thief.close()

    with (
        pytest.raises(LedgerRefused, match=r"do not balance .account 1 says 10001, its postings say 10000"),
        open_ledger(ledger_path),
    ):
        pass


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerRefused, match="cannot open a ledger at"):
        open_file(tmp_path)


def test_a_second_bank_on_the_same_file_is_refused(ledger_path: Path) -> None:
    with open_ledger(ledger_path, pin_cost=QUICK) as ledger:
        ledger.open_account("alice", "1111")
        with pytest.raises(LedgerRefused, match="is open in another bank; stop that one"):
            open_file(ledger_path)
        assert ledger.answer("t", "atm-1", NOON, Deposit("alice", 5)) == Ok("t", 5)
