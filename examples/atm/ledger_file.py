"""The books in one SQLite file that is ours, sound, and open in one bank at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from examples.atm.database import SCHEMA, VERSION, LedgerRefused

APPLICATION_ID = 0x41544D31  # "ATM1" in the file's header: how we know a ledger from any other database
DIALECT = {"bytes": "BLOB", "serial": "INTEGER PRIMARY KEY", "clustered": "WITHOUT ROWID"}

# How sure an answer is. A killed process loses nothing either way, and half a transaction is never seen. When the
# machine loses power, NORMAL may lose the last moment, FULL waits for the disk at each commit and loses nothing.
Synchronous = Literal["NORMAL", "FULL"]


class LedgerFile:
    """A Database in a file (see database.py)."""

    error = sqlite3.Error
    is_remote = False

    def __init__(self, connection: sqlite3.Connection, synchronous: Synchronous) -> None:
        self._connection = connection
        self.commit_waits = synchronous == "FULL"
        self.execute = connection.execute

    def insert(self, sql: str, args: Sequence[Any], /) -> int:
        """Run an INSERT and return the number of the new row."""
        seq = self.execute(sql, args).lastrowid
        assert seq is not None
        return seq

    def begin(self) -> None:
        """Begin a transaction."""
        self.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Write the transaction to the file."""
        self.execute("COMMIT")

    def maintain(self) -> None:
        """Move what is in the log into the file, so that the log begins anew."""
        with suppress(sqlite3.Error):  # a full disk: the log goes on, and the next transaction will say so
            self.execute("PRAGMA wal_checkpoint").fetchall()

    def rollback(self) -> None:
        """Take the transaction back; after some errors (a full disk) SQLite has done it by itself."""
        if self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def open_file(path: Path, synchronous: Synchronous = "NORMAL") -> LedgerFile:
    """Open the ledger file, made when it is missing, and keep it for this process alone.

    Raises LedgerRefused: the file is something else, damaged, from another version, or open in another bank.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not bound to this thread: commits wait for the disk on another one, never two at once.
        connection = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise LedgerRefused(f"cannot open a ledger at {path} ({error}); name another file") from error
    try:
        _prepare(connection, path, synchronous)
    except sqlite3.Error as error:
        connection.close()
        raise LedgerRefused(_explain(error, path)) from error
    except BaseException:
        connection.close()
        raise
    return LedgerFile(connection, synchronous)


def _prepare(connection: sqlite3.Connection, path: Path, synchronous: Synchronous) -> None:
    # EXCLUSIVE: two banks on one file would each believe in what they remember. The lock dies with the process.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    if _is_empty(connection):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(
            f"BEGIN IMMEDIATE; {SCHEMA.format(**DIALECT)} PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {VERSION}; COMMIT"
        )
    _check_ours(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # it waits for the disk; see maintain()
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
        raise LedgerRefused(
            f"{path} is a ledger of version {version}, this bank keeps version {VERSION};"
            " open it with the bank that made it, or name another file"
        )


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
