"""The ledger: the only authority on who has what. Each txn takes effect once and gets one answer.

    with open_ledger("bank.sqlite") as ledger:
        ledger.answer(txn, "atm-1", at, Deposit("alice", 500))    # Ok(txn, balance=500)
        ledger.answer(txn, "atm-1", at, Deposit("alice", 500))    # the same Ok; nothing moved

The effect and the answer are written in one database transaction: after a crash there are both or neither
(ATM-05, ATM-06). Many requests may share one transaction: begin(), take() for each, commit(); none is answered
before the commit. See group_commit.py. Which database keeps the books is open_books()'s to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from examples.atm import orders
from examples.atm.accounts import AccountTable, insert_account, next_number
from examples.atm.checking import BadRequest, check, fingerprint_of, is_text
from examples.atm.database import Database, LedgerRefused
from examples.atm.ledger_file import Synchronous, open_file
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
from examples.atm.pins import COST, NotHashedYet, Pins, is_pin

LINES = 20  # of a statement, the newest


@contextmanager
def open_ledger(
    where: Path | str,
    *,
    synchronous: Synchronous = "NORMAL",
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    pin_cost: int = COST,
) -> Iterator[Ledger]:
    """Open the ledger at `where`, made when missing, and check that its books balance.

    `where` is a file, or the URL of a database, postgresql://...; `synchronous` is for files, see ledger_file.py.
    Raises LedgerRefused: it is something else, damaged, open in another bank, or its books do not balance.
    """
    database = open_books(where, synchronous)
    try:
        ledger = Ledger(database, now, Pins(pin_cost))
        faults = ledger.faults()
        if faults:
            raise LedgerRefused(
                f"the books in {where} do not balance ({faults[0]}); restore them from a copy"
            )
        yield ledger
    finally:
        database.close()


def open_books(where: Path | str, synchronous: Synchronous) -> Database:
    """Open the database that keeps the books. Raises LedgerRefused."""
    if str(where).startswith(("postgresql:", "postgres:")):
        from examples.atm.postgres import open_server  # needs psycopg, which nobody else does

        return open_server(str(where))
    return open_file(Path(where), synchronous)


class Ledger:
    """Accounts, the journal of transactions and their postings."""

    def __init__(self, database: Database, now: Callable[[], datetime], pins: Pins) -> None:
        self.database = database
        self.locked: list[str] = []  # accounts that were locked since begin()
        self._db = database
        self._now = now
        self._pins = pins

    def __repr__(self) -> str:
        return f"<Ledger of {len(self.names())} accounts>"

    # -- what ATMs ask for

    def answer(self, txn: str, atm: str, at: datetime, order: Order) -> Reply:
        """Do what `order` says in a transaction of its own, or find that it was done before; return the answer.

        Hashes pins here and now. Raises `database.error` when nothing can be written; then nothing has happened.
        """
        if isinstance(order, Audit):
            return self.books(txn)
        while True:
            try:
                with self._transaction():
                    return self.take(txn, atm, at, order)
            except NotHashedYet as wanted:
                wanted.work()

    def begin(self) -> None:
        """Begin the transaction that the next requests are taken into."""
        self.locked = []
        self._db.begin()

    def take(self, txn: str, atm: str, at: datetime, order: Order) -> Reply:
        """Take one request into the transaction and return its answer, which is true once that is committed.

        A txn that was used for another order, or by another ATM, is declined as a conflict. Never switches
        tasklets. Raises NotHashedYet, and then has changed nothing: the others in the transaction need not mind.
        """
        try:
            check(txn, atm, at, order)
            return self._take(txn, atm, at, order)
        except BadRequest as error:
            return Error(txn if isinstance(txn, str) else "", str(error))

    def _take(self, txn: str, atm: str, at: datetime, order: Order) -> Reply:
        fingerprint = fingerprint_of(atm, order)
        row = self._db.execute(
            "SELECT fingerprint, seq, kind, account, since, reason, balance FROM transactions WHERE txn = ?",
            (txn,),
        ).fetchone()
        if row is None:
            return self._reply(txn, *self._do(txn, atm, at, order, fingerprint))
        if bytes(row[0]) != fingerprint:
            return Declined(txn, Reason.TXN_CONFLICT, None)
        self._db.execute("UPDATE transactions SET asked = asked + 1 WHERE seq = ?", (row[1],))
        return self._reply(txn, *row[1:])

    def commit(self) -> None:
        """Make everything that was taken last. May wait for a disk, on any thread."""
        self._db.commit()

    def rollback(self) -> None:
        """Take nothing of it, if the transaction is still there."""
        self._db.rollback()

    def _do(self, txn: str, atm: str, at: datetime, order: Order, fingerprint: bytes) -> tuple[Any, ...]:
        """Carry a new order out; return the columns from seq to balance as the journal keeps them."""
        kind, reason, effect = type(order).__name__, None, None
        balance: int | None
        try:
            effect = orders.decide(order, AccountTable(self._db, self._pins, txn, atm, self.locked))
            account, balance = effect.account, effect.balance
        except DeclinedBecause as declined:
            reason, balance = declined.reason.value, declined.balance
            account = "" if isinstance(order, Open) else order.account  # type: ignore[union-attr]
        since = getattr(order, "since", None)
        since = since and since.astimezone(UTC).isoformat()
        seq = self._db.insert(
            "INSERT INTO transactions (txn, fingerprint, atm, at, booked, kind, account, since, reason,"
            " balance, reverses) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(
                    txn,
                    fingerprint,
                    atm,
                    at.isoformat(),
                    self._now().isoformat(),
                    kind,
                    account,
                    since,
                    reason,
                ),
                *(balance, effect and effect.reverses),
            ),
        )
        if effect is not None and effect.legs:
            self._post(seq, effect)
        return seq, kind, account, since, reason, balance

    def _post(self, seq: int, effect: Effect) -> None:
        giver, taker = effect.legs
        self._db.execute("INSERT INTO postings VALUES (?, 0, ?, ?), (?, 1, ?, ?)", (seq, *giver, seq, *taker))
        for number, amount in effect.legs:
            if number != CASH:
                self._db.execute(
                    "UPDATE accounts SET balance = balance + ? WHERE number = ?", (amount, number)
                )

    def _reply(
        self,
        txn: str,
        seq: int,
        kind: str,
        account: str,
        since: str | None,
        reason: str | None,
        balance: int,
    ) -> Reply:
        if reason is not None:
            return Declined(txn, Reason(reason), balance)
        if kind == Open.__name__:
            return Opened(txn, account)
        if kind == Statement.__name__:
            return Extract(txn, balance, self._lines(seq, account, since))
        return Ok(txn, balance)

    def _lines(self, seq: int, account: str, since: str | None) -> tuple[Line, ...]:
        """Collect the lines of a statement; only those before it, so that a repeat reads the same."""
        newest = self._db.execute(
            "SELECT booked, kind, amount FROM postings p JOIN transactions t ON t.seq = p.seq"
            " WHERE p.account = (SELECT number FROM accounts WHERE name = ?)"
            " AND p.seq < ? AND booked >= ? ORDER BY p.seq DESC, p.leg DESC LIMIT ?",
            (account, seq, since or "", LINES),
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
        txn = uuid4().hex
        while True:
            try:
                with self._transaction():
                    pin_hash = self._pins.hash(txn, pin)
                    insert_account(self._db, next_number(self._db), name, name, pin_hash, overdraft)
                    if amount:
                        self._do(txn, "the bank", self._now(), Deposit(name, amount), b"")
                return
            except NotHashedYet as wanted:
                wanted.work()

    def freeze_account(self, name: str) -> None:
        """Decline everything on this account from now on. Raises ValueError when there is none."""
        if name not in self.names():
            raise ValueError(f"there is no account {name!r} to freeze")
        with self._transaction():
            self._db.execute("UPDATE accounts SET frozen = 1 WHERE name = ?", (name,))

    def names(self) -> list[str]:
        """Return the names of all customers' accounts."""
        rows = self._db.execute("SELECT name FROM accounts WHERE name IS NOT NULL").fetchall()
        return [row[0] for row in rows]

    def books(self, txn: str = "") -> Books:
        """Add everything up."""

        def count(what: str, where: str) -> dict[str, int]:
            query = f"SELECT {what}, count(*) FROM transactions WHERE {where} GROUP BY 1"
            return dict(self._db.execute(query).fetchall())

        def total(query: str) -> int:
            return int(self._db.execute(query).fetchone()[0])  # a server adds up decimals

        customers = total("SELECT coalesce(sum(balance), 0) FROM accounts")
        cash = total(f"SELECT coalesce(-sum(amount), 0) FROM postings WHERE account = {CASH}")
        repeats = total("SELECT coalesce(sum(asked - 1), 0) FROM transactions")
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
            "  WHERE account = number), 0) AS posted FROM accounts WHERE name IS NOT NULL) AS sums"
            " WHERE balance <> posted LIMIT 3"
        )
        return tuple(row[0] for rows in (lopsided.fetchall(), drifted.fetchall()) for row in rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.begin()
        try:
            yield
            self.commit()
        except BaseException:
            self.rollback()
            raise
