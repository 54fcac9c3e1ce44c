"""What the ledger needs of a database; ledger_file.py has it from SQLite, postgres.py from a server.

Both keep the same tables, made by the same SCHEMA, and are asked with the same SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

VERSION = 2

# Double entry: every transaction moves money between accounts, so the amounts of its postings add up to
# 0, and so do those of all. Account 0 is the bank's own cash box; it has no name, so no customer can be
# called it. A customer's balance is what the bank owes, and always the sum of his postings. The cash box keeps
# no balance: it would be one row that every deposit and withdrawal has to write.
SCHEMA = """
CREATE TABLE accounts (
    number     BIGINT PRIMARY KEY,
    name       TEXT UNIQUE,                            -- NULL: the cash box
    owner      TEXT NOT NULL,
    pin        {bytes} NOT NULL,                       -- see pins.py
    overdraft  BIGINT NOT NULL CHECK (overdraft >= 0),
    balance    BIGINT NOT NULL,
    wrong_pins INTEGER NOT NULL DEFAULT 0,             -- since the last right one
    frozen     INTEGER NOT NULL DEFAULT 0,
    CHECK (name IS NULL OR balance >= -overdraft)      -- the second line of defence, behind orders.py
);
CREATE TABLE transactions (
    seq         {serial},
    txn         TEXT NOT NULL UNIQUE,
    fingerprint {bytes} NOT NULL,                      -- of what was asked, to know a repeat from a conflict
    atm         TEXT NOT NULL,
    at          TEXT NOT NULL,                         -- the ATM's clock
    booked      TEXT NOT NULL,                         -- the bank's clock, UTC
    kind        TEXT NOT NULL,
    account     TEXT,                                  -- as asked; need not exist
    since       TEXT,                                  -- of a statement
    reason      TEXT,                                  -- NULL: it was done
    balance     BIGINT,                                -- as it was answered
    reverses    BIGINT REFERENCES transactions (seq),
    asked       INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX reversals ON transactions (reverses) WHERE reverses IS NOT NULL;
CREATE TABLE postings (
    seq     BIGINT NOT NULL REFERENCES transactions (seq),
    leg     INTEGER NOT NULL,                          -- 0 gives, 1 takes
    account BIGINT NOT NULL REFERENCES accounts (number),
    amount  BIGINT NOT NULL,
    PRIMARY KEY (seq, leg)
) {clustered};
CREATE INDEX postings_of_account ON postings (account, seq);
INSERT INTO accounts (number, name, owner, pin, overdraft, balance) VALUES (0, NULL, 'the bank', '', 0, 0);
"""


class LedgerRefused(Exception):
    """The books cannot be opened; the message says why and what to do."""


class Rows(Protocol):
    """The answer to a query."""

    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class Database(Protocol):
    """One open set of books, for this process alone. One transaction at a time."""

    @property
    def error(self) -> type[Exception]:
        """What the methods raise when the books cannot be read or written."""

    @property
    def is_remote(self) -> bool:
        """Whether each statement waits for a server; else it takes microseconds."""

    @property
    def commit_waits(self) -> bool:
        """Whether commit() waits for a disk; else it takes microseconds too."""

    def execute(self, sql: str, args: Sequence[Any] = (), /) -> Rows:
        """Run one statement, with ? for its arguments."""

    def insert(self, sql: str, args: Sequence[Any], /) -> int:
        """Run an INSERT into transactions and return the seq of the new row."""

    def begin(self) -> None:
        """Begin a transaction."""

    def commit(self) -> None:
        """Make the transaction last. May be called on another thread than the rest."""

    def maintain(self) -> None:
        """Do what is due now and then, between transactions. May wait for a disk, and be called on any thread."""

    def rollback(self) -> None:
        """Take the transaction back, if there is one."""

    def close(self) -> None:
        """Let go of the books."""
