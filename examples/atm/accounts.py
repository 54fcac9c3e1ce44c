"""The table of accounts: looking them up, checking pins, locking after too many wrong ones."""

from __future__ import annotations

import sqlite3

from examples.atm.messages import Reason
from examples.atm.orders import Account, DeclinedBecause
from examples.atm.pins import Pins

WRONG_PINS = 3  # in a row; then the account is locked (ATM-10)


class AccountTable:
    """The accounts as orders.decide() asks for them (orders.Accounts), on behalf of one ATM."""

    def __init__(self, connection: sqlite3.Connection, pins: Pins, atm: str) -> None:
        self._db = connection
        self._pins = pins
        self._atm = atm

    def open(self, owner: str, pin: str) -> str:
        (number,) = self._db.execute("SELECT max(number) + 1001 FROM accounts").fetchone()
        while self._db.execute("SELECT 1 FROM accounts WHERE name = ?", (str(number),)).fetchone():
            number += 1
        insert_account(self._db, str(number), owner, self._pins.hash(pin), 0)
        return str(number)

    def find(self, name: str) -> Account:
        row = self._db.execute(
            "SELECT number, name, balance, overdraft, frozen FROM accounts WHERE name = ?", (name,)
        ).fetchone()
        if row is None:
            raise DeclinedBecause(Reason.UNKNOWN_ACCOUNT)
        account = Account(*row)
        if account.frozen:
            raise DeclinedBecause(Reason.FROZEN)
        return account

    def unlock(self, name: str, pin: str) -> Account:
        account = self.find(name)
        kept, wrong = self._db.execute(
            "SELECT pin, wrong_pins FROM accounts WHERE number = ?", (account.number,)
        ).fetchone()
        if wrong >= WRONG_PINS:
            raise DeclinedBecause(Reason.LOCKED)
        right = self._pins.check(pin, kept)
        if wrong or not right:
            # A declined order is committed like any other: three tries are three tries, also across a crash.
            self._db.execute(
                "UPDATE accounts SET wrong_pins = ? WHERE number = ?",
                (0 if right else wrong + 1, account.number),
            )
        if not right:
            raise DeclinedBecause(Reason.WRONG_PIN)
        return account

    def withdrawal(self, txn: str, account: str) -> tuple[int, int, int]:
        row = self._db.execute(
            "SELECT seq, postings.account, -amount FROM transactions JOIN postings USING (seq)"
            " WHERE txn = ? AND atm = ? AND transactions.account = ? AND kind = 'Withdraw' AND amount < 0",
            (txn, self._atm, account),
        ).fetchone()
        if row is None:
            raise DeclinedBecause(Reason.UNKNOWN_TXN)
        if self._db.execute("SELECT 1 FROM transactions WHERE reverses = ?", (row[0],)).fetchone():
            raise DeclinedBecause(Reason.ALREADY_REVERSED)
        seq, number, amount = row
        return seq, number, amount


def insert_account(db: sqlite3.Connection, name: str, owner: str, pin: bytes, overdraft: int) -> None:
    """Add an account with nothing in it."""
    db.execute(
        "INSERT INTO accounts (name, owner, pin, overdraft, balance) VALUES (?, ?, ?, ?, 0)",
        (name, owner, pin, overdraft),
    )
