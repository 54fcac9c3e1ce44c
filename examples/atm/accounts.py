"""The table of accounts: looking them up, checking pins, locking after too many wrong ones."""

from __future__ import annotations

from typing import Any

from examples.atm.database import Database
from examples.atm.messages import Reason
from examples.atm.orders import Account, DeclinedBecause
from examples.atm.pins import Pins

WRONG_PINS = 3  # in a row; then the account is locked (ATM-10)


class AccountTable:
    """The accounts as orders.decide() asks for them (orders.Accounts), on behalf of one txn of one ATM.

    The names of accounts that it locks are added to `locked`.
    """

    def __init__(self, db: Database, pins: Pins, txn: str, atm: str, locked: list[str]) -> None:
        self._db = db
        self._pins = pins
        self._txn = txn
        self._atm = atm
        self._locked = locked

    def open(self, owner: str, pin: str) -> str:
        number = next_number(self._db)
        while self._db.execute("SELECT 1 FROM accounts WHERE name = ?", (str(1000 + number),)).fetchone():
            number += 1
        name = str(1000 + number)
        insert_account(self._db, number, name, owner, self._pins.hash(self._txn, pin), 0)
        return name

    def find(self, name: str) -> Account:
        return _account(self._row(name))

    def unlock(self, name: str, pin: str) -> Account:
        row = self._row(name)
        account, kept, wrong = _account(row), row[5], row[6]
        if wrong >= WRONG_PINS:
            raise DeclinedBecause(Reason.LOCKED)
        right = self._pins.check(pin, kept)
        if wrong or not right:
            # A declined order is committed like any other: three tries are three tries, also across a crash.
            wrong = 0 if right else wrong + 1
            self._db.execute("UPDATE accounts SET wrong_pins = ? WHERE number = ?", (wrong, account.number))
        if not right:
            if wrong == WRONG_PINS:
                self._locked.append(name)
            raise DeclinedBecause(Reason.WRONG_PIN)
        return account

    def withdrawal(self, txn: str, account: str) -> tuple[int, int, int]:
        row = self._db.execute(
            "SELECT t.seq, p.account, -p.amount FROM transactions t JOIN postings p ON p.seq = t.seq"
            " WHERE t.txn = ? AND t.atm = ? AND t.account = ? AND t.kind = 'Withdraw' AND p.amount < 0",
            (txn, self._atm, account),
        ).fetchone()
        if row is None:
            raise DeclinedBecause(Reason.UNKNOWN_TXN)
        if self._db.execute("SELECT 1 FROM transactions WHERE reverses = ?", (row[0],)).fetchone():
            raise DeclinedBecause(Reason.ALREADY_REVERSED)
        seq, number, amount = row
        return seq, number, amount

    def balance(self, name: str) -> int:
        """Return the balance now, frozen or not."""
        return self._db.execute("SELECT balance FROM accounts WHERE name = ?", (name,)).fetchone()[0]  # type: ignore[no-any-return]

    def _row(self, name: str) -> Any:
        return self._db.execute(
            "SELECT number, name, balance, overdraft, frozen, pin, wrong_pins FROM accounts WHERE name = ?",
            (name,),
        ).fetchone()


def _account(row: Any) -> Account:
    if row is None:
        raise DeclinedBecause(Reason.UNKNOWN_ACCOUNT)
    if row[4]:
        raise DeclinedBecause(Reason.FROZEN)
    return Account(*row[:5])


def next_number(db: Database) -> int:
    """Return a number that no account has."""
    return db.execute("SELECT max(number) + 1 FROM accounts").fetchone()[0]  # type: ignore[no-any-return]


def insert_account(db: Database, number: int, name: str, owner: str, pin: bytes, overdraft: int) -> None:
    """Add an account with nothing in it."""
    db.execute(
        "INSERT INTO accounts (number, name, owner, pin, overdraft, balance) VALUES (?, ?, ?, ?, ?, 0)",
        (number, name, owner, pin, overdraft),
    )
