"""The file of the SQLite engine: made, checked, timed, and one transaction on it at a time."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cluster.errors import SchemaMismatch, StoreError, StoreFull, StoreUnavailable
from cluster.records import SCHEMA
from cluster.stores._schema import TABLES
from cluster.stores._transaction import Transaction

T = TypeVar("T")


def transact(
    db: sqlite3.Connection, grp: str, offset: float, function: Callable[[Transaction], T], writes: bool
) -> tuple[T, set[str]]:
    """Call a function in a transaction; also return the hints to be given now that it is written."""
    with _all_or_nothing(db, "BEGIN IMMEDIATE" if writes else "BEGIN"):
        transaction = Transaction(db, grp, time.monotonic() + offset if offset else time.time())
        result = function(transaction)
        transaction.flush()
    return result, transaction.topics


@contextmanager
def _all_or_nothing(db: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """A transaction, so that the caller may repeat what was in it, also when it was too late for a COMMIT."""
    db.execute(begin)
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # some errors end it
            db.execute("ROLLBACK")
        raise


def prepare(db: sqlite3.Connection, url: str) -> None:
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")  # a killed process loses nothing; a power cut, the last moments
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute("PRAGMA cache_size = -16000")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == 0:
        with _all_or_nothing(db):
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:  # another process may have been quicker
                if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise SchemaMismatch(f"{url} is a SQLite file of another program; choose another file")
                for statement in statements(TABLES):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {SCHEMA}")
        (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA:
        raise SchemaMismatch(
            f"{url} has schema {version}, and this release reads {SCHEMA}; "
            f"{'upgrade this node' if version > SCHEMA else 'finish its work with the older release first'}"
        )


def statements(script: str) -> Iterable[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def clock_offset(db: sqlite3.Connection) -> float:
    """What to add to this machine's monotonic clock, the same for all processes until the machine restarts.

    So a change of the wall clock ends no lease. It is written once per boot.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # not Linux; the monotonic clock is the machine's there too
        boot = "unknown"
    offset = time.time() - time.monotonic()
    with _all_or_nothing(db):
        row = db.execute("SELECT offset FROM clock WHERE boot = ?", (boot,)).fetchone()
        if row is None or (boot == "unknown" and abs(row[0] - offset) > 3600):
            db.execute("DELETE FROM clock")
            db.execute("INSERT INTO clock VALUES (?, ?)", (boot, offset))
        else:
            offset = row[0]
    return float(offset)


def translated(url: str, error: sqlite3.Error) -> StoreError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and "disk" in str(error)):
        return StoreFull(
            f"{url} has no room: {error}; nothing was written. Free some space, then repeat the call"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreUnavailable(f"{url} stayed busy: {error}; another process holds a long transaction on it")
    return StoreUnavailable(f"{url}: {type(error).__name__}: {error}")
