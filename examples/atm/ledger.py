"""The ledger: the only authority on who has what. Each txn takes effect once and gets one answer.

    with open_ledger(Path("bank.sqlite")) as ledger:
        ledger.answer(txn, "atm-1", at, Deposit("alice", 500))    # Ok(txn, balance=500)
        ledger.answer(txn, "atm-1", at, Deposit("alice", 500))    # the same Ok; nothing moved

The effect and the answer are written in one SQLite transaction: after a crash there are both or neither
(ATM-05, ATM-06). answer() never switches tasklets, so no two orders ever mix.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from examples.atm import orders
from examples.atm.accounts import AccountTable, insert_account
from examples.atm.checking import BadRequest, check, fingerprint_of, is_text
from examples.atm.ledger_file import LedgerRefused, open_file
from examples.atm.messages import (
    Audit,
    Books,
    Declined,
    Deposit,
    Error,
    Extract,
    Line,
    Ok,
    Open,
    Opened,
    Order,
    Reason,
    Reply,
    Statement,
)
from examples.atm.money import MOST, is_amount
from examples.atm.orders import CASH, DeclinedBecause, Effect
from examples.atm.pins import COST, Pins, is_pin

LINES = 20  # of a statement, the newest


@contextmanager
def open_ledger(
    path: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), pin_cost: int = COST
) -> Iterator[Ledger]:
    """Open the ledger at `path`, made when missing, and check that its books balance.

    Raises LedgerRefused, see ledger_file; also when the books do not balance.
    """
    connection = open_file(path)
    try:
        ledger = Ledger(connection, now, Pins(pin_cost))
        faults = ledger.faults()
        if faults:
            raise LedgerRefused(f"the books in {path} do not balance ({faults[0]}); restore it from a copy")
        yield ledger
    finally:
        connection.close()


class Ledger:
    """Accounts, the journal of transactions and their postings, in one SQLite file."""

    def __init__(self, connection: sqlite3.Connection, now: Callable[[], datetime], pins: Pins) -> None:
        self._db = connection
        self._now = now
        self._pins = pins

    def __repr__(self) -> str:
        return f"<Ledger of {len(self.names())} accounts>"

    # -- what ATMs ask for

    def answer(self, txn: str, atm: str, at: datetime, order: Order) -> Reply:
        """Do what `order` says, or find that it was done before, and return the answer.

        A txn that was used for another order, or by another ATM, is declined as a conflict.
        Raises sqlite3.Error when the file cannot be written; then nothing has happened.
        """
        try:
            check(txn, atm, at, order)
        except BadRequest as error:
            return Error(txn if isinstance(txn, str) else "", str(error))
        if isinstance(order, Audit):
            return self.books(txn)
        with self._transaction():
            fingerprint = fingerprint_of(atm, order)
            row = self._recorded(txn)
            if row is None:
                self._do(txn, atm, at, order, fingerprint)
                row = self._recorded(txn)
            elif row["fingerprint"] != fingerprint:
                return Declined(txn, Reason.TXN_CONFLICT, None)
            else:
                self._db.execute("UPDATE transactions SET asked = asked + 1 WHERE seq = ?", (row["seq"],))
        return self._reply(row)

    def _do(self, txn: str, atm: str, at: datetime, order: Order, fingerprint: bytes) -> None:
        effect = Effect("")
        reason = balance = None
        try:
            effect = orders.decide(order, AccountTable(self._db, self._pins, atm))
        except DeclinedBecause as declined:
            reason, balance = declined.reason.value, declined.balance
        # The answer is read from this row, the first time too: what is repeated cannot differ from it.
        account = effect.account if isinstance(order, Open) else order.account  # type: ignore[union-attr]
        since = getattr(order, "since", None)
        seq = self._db.execute(
            "INSERT INTO transactions (txn, fingerprint, atm, at, booked, kind, account, since, reason,"
            " reverses) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(txn, fingerprint, atm, at.isoformat(), self._now().isoformat(), type(order).__name__),
                *(account, since and since.astimezone(UTC).isoformat(), reason, effect.reverses),
            ),
        ).lastrowid
        for number, amount in effect.legs:
            self._db.execute("INSERT INTO postings VALUES (?, ?, ?)", (seq, number, amount))
            self._db.execute("UPDATE accounts SET balance = balance + ? WHERE number = ?", (amount, number))
        if reason is None:
            (balance,) = self._db.execute(
                "SELECT balance FROM accounts WHERE name = ?", (account,)
            ).fetchone()
        self._db.execute("UPDATE transactions SET balance = ? WHERE seq = ?", (balance, seq))

    def _recorded(self, txn: str) -> Any:
        cursor = self._db.cursor()
        cursor.row_factory = sqlite3.Row
        return cursor.execute("SELECT * FROM transactions WHERE txn = ?", (txn,)).fetchone()

    def _reply(self, row: Any) -> Reply:
        if row["reason"] is not None:
            return Declined(row["txn"], Reason(row["reason"]), row["balance"])
        if row["kind"] == Open.__name__:
            return Opened(row["txn"], row["account"])
        if row["kind"] == Statement.__name__:
            return Extract(row["txn"], row["balance"], self._lines(row))
        return Ok(row["txn"], row["balance"])

    def _lines(self, row: Any) -> tuple[Line, ...]:
        """Collect the lines of a statement; only those before it, so that a repeat reads the same."""
        newest = self._db.execute(
            "SELECT booked, kind, amount FROM postings JOIN transactions USING (seq)"
            " WHERE postings.account = (SELECT number FROM accounts WHERE name = ?)"
            " AND seq < ? AND booked >= ? ORDER BY seq DESC, postings.rowid DESC LIMIT ?",
            (row["account"], row["seq"], row["since"] or "", LINES),
        ).fetchall()
        return tuple(
            Line(datetime.fromisoformat(when), kind, amount) for when, kind, amount in reversed(newest)
        )

    # -- what the bank's own people do

    def open_account(self, name: str, pin: str, amount: int = 0, *, overdraft: int = 0) -> None:
        """Open an account under a name of our choice, with an amount paid in. Raises ValueError."""
        if not is_text(name) or not is_pin(pin):
            raise ValueError(f"account {name!r} cannot be opened; give a name and a pin of 4 to 12 digits")
        if (amount and not is_amount(amount)) or not 0 <= overdraft <= MOST:
            raise ValueError(f"account {name!r} cannot be opened with {amount}; give 0 or an amount in range")
        if name in self.names():
            raise ValueError(f"account {name!r} exists already; choose another name")
        with self._transaction():
            insert_account(self._db, name, name, self._pins.hash(pin), overdraft)
            if amount:
                self._do(uuid4().hex, "the bank", self._now(), Deposit(name, amount), b"")

    def freeze_account(self, name: str) -> None:
        """Decline everything on this account from now on. Raises ValueError when there is none."""
        if not self._db.execute("UPDATE accounts SET frozen = 1 WHERE name = ?", (name,)).rowcount:
            raise ValueError(f"there is no account {name!r} to freeze")

    def names(self) -> list[str]:
        """Return the names of all customers' accounts."""
        return [row[0] for row in self._db.execute("SELECT name FROM accounts WHERE name IS NOT NULL")]

    def books(self, txn: str = "") -> Books:
        """Add everything up."""

        def count(what: str, where: str) -> dict[str, int]:
            return dict(
                self._db.execute(f"SELECT {what}, count(*) FROM transactions WHERE {where} GROUP BY 1")
            )

        (customers,) = self._db.execute(
            "SELECT coalesce(sum(balance), 0) FROM accounts WHERE number <> ?", (CASH,)
        ).fetchone()
        (cash,) = self._db.execute("SELECT -balance FROM accounts WHERE number = ?", (CASH,)).fetchone()
        (repeats,) = self._db.execute("SELECT coalesce(sum(asked - 1), 0) FROM transactions").fetchone()
        ok, declined = count("kind", "reason IS NULL"), count("reason", "reason IS NOT NULL")
        return Books(txn, customers, cash, ok, declined, repeats, self.faults())

    def faults(self) -> tuple[str, ...]:
        """Name what does not add up; nothing ever should."""
        lopsided = self._db.execute(
            "SELECT 'transaction ' || seq || ' makes or loses ' || sum(amount) FROM postings"
            " GROUP BY seq HAVING sum(amount) <> 0 LIMIT 3"
        )
        drifted = self._db.execute(
            "SELECT 'account ' || number || ' says ' || balance || ', its postings say ' || posted FROM"
            " (SELECT number, balance, coalesce((SELECT sum(amount) FROM postings"
            "  WHERE account = number), 0) AS posted FROM accounts) WHERE balance <> posted LIMIT 3"
        )
        return tuple(row[0] for rows in (lopsided.fetchall(), drifted.fetchall()) for row in rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            # Only when something went wrong; after some errors (a full disk) SQLite has done it by itself.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
