"""The file behind the ledger: one SQLite database that is ours, sound, and open in one bank at a time."""

from __future__ import annotations

import sqlite3
from pathlib import Path

APPLICATION_ID = 0x41544D31  # "ATM1" in the file's header: how we know a ledger from any other database
VERSION = 1

# Double entry: every transaction moves money between accounts, so the amounts of its postings add up to
# 0, and so do those of the whole file. Account 0 is the bank's own cash box; it has no name, so no
# customer can be called it. A customer's balance is what the bank owes, cash is counted the other way
# round (below 0 when there is some).
SCHEMA = """
CREATE TABLE accounts (
    number     INTEGER PRIMARY KEY,
    name       TEXT UNIQUE,                            -- NULL: the cash box
    owner      TEXT NOT NULL,
    pin        BLOB NOT NULL,                          -- see pins.py
    overdraft  INTEGER NOT NULL CHECK (overdraft >= 0),
    balance    INTEGER NOT NULL,                       -- always the sum of its postings
    wrong_pins INTEGER NOT NULL DEFAULT 0,             -- since the last right one
    frozen     INTEGER NOT NULL DEFAULT 0,
    CHECK (name IS NULL OR balance >= -overdraft)      -- the second line of defence, behind orders.py
);
CREATE TABLE transactions (
    seq         INTEGER PRIMARY KEY,
    txn         TEXT NOT NULL UNIQUE,
    fingerprint BLOB NOT NULL,                         -- of what was asked, to know a repeat from a conflict
    atm         TEXT NOT NULL,
    at          TEXT NOT NULL,                         -- the ATM's clock
    booked      TEXT NOT NULL,                         -- the bank's clock, UTC
    kind        TEXT NOT NULL,
    account     TEXT,                                  -- as asked; need not exist
    since       TEXT,                                  -- of a statement
    reason      TEXT,                                  -- NULL: it was done
    balance     INTEGER,                               -- as it was answered
    reverses    INTEGER UNIQUE REFERENCES transactions (seq),
    asked       INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE postings (
    seq     INTEGER NOT NULL REFERENCES transactions (seq),
    account INTEGER NOT NULL REFERENCES accounts (number),
    amount  INTEGER NOT NULL
);
CREATE INDEX postings_of_account ON postings (account, seq);
CREATE INDEX postings_of_transaction ON postings (seq);
INSERT INTO accounts (number, name, owner, pin, overdraft, balance) VALUES (0, NULL, 'the bank', x'', 0, 0);
"""


class LedgerRefused(Exception):
    """The file cannot serve as a ledger; the message says why and what to do."""


def open_file(path: Path) -> sqlite3.Connection:
    """Open the ledger file, made when it is missing, and keep it for this process alone.

    Raises LedgerRefused: the file is something else, damaged, from a newer version, or open in another bank.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    except (OSError, sqlite3.Error) as error:
        raise LedgerRefused(f"cannot open a ledger at {path} ({error}); name another file") from error
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise LedgerRefused(_explain(error, path)) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    # EXCLUSIVE: two banks on one file would each believe in what they remember. The lock dies with the
    # process. NORMAL with WAL: a killed process loses nothing; a machine without power may lose the
    # last moment, but never half a transaction (ATM-11 wants 2000 transactions/s of it).
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    if _is_empty(connection):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(
            f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {VERSION}; COMMIT"
        )
    _check_ours(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("BEGIN IMMEDIATE")  # takes the lock now, not at the first transaction
    connection.execute("COMMIT")
    damage = [row[0] for row in connection.execute("PRAGMA integrity_check(3)") if row[0] != "ok"]
    if damage:
        what = damage[0].splitlines()[-1]  # SQLite puts a heading above
        raise LedgerRefused(f"{path} is damaged ({what}); restore it from a copy, or name another file")


def _check_ours(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise LedgerRefused(f"{path} is a database of some other program; name another file")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise LedgerRefused(f"{path} is a ledger of version {version}, not {VERSION}; update the bank")


def _is_empty(connection: sqlite3.Connection) -> bool:
    """Say whether the file has just been made: no tables, and no other program's id."""
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return not tables and not connection.execute("PRAGMA application_id").fetchone()[0]


def _explain(error: sqlite3.Error, path: Path) -> str:
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF  # the rest says where in SQLite
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"{path} is open in another bank; stop that one, or name another file"
    if code == sqlite3.SQLITE_NOTADB:
        return f"{path} is not a ledger (not an SQLite database at all); name another file"
    if code == sqlite3.SQLITE_CORRUPT:
        return f"{path} is damaged ({error}); restore it from a copy, or name another file"
    return f"cannot use {path} as a ledger ({error}); name another file"
