"""The books in a PostgreSQL database, for a bank that has outgrown one file (needs psycopg 3).

    python -m examples.atm bank --ledger postgresql://bank@db.example/books

They are kept in a schema of their own, `atm`, by one bank at a time, which holds an advisory lock. A server that
restarts costs the bank some declined requests and a new connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from examples.atm.checking import BadRequest
from examples.atm.database import SCHEMA, VERSION, LedgerRefused, Rows

try:
    import psycopg
    from psycopg.errors import LockNotAvailable
    from psycopg.pq import TransactionStatus
except ImportError as _missing:
    raise LedgerRefused(
        "a ledger in PostgreSQL needs psycopg; install it: pip install 'tasklets[postgres]', or name a file"
    ) from _missing

DIALECT = {"bytes": "BYTEA", "serial": "BIGSERIAL PRIMARY KEY", "clustered": ""}
LOCK = 0x41544D31  # "ATM1", as in the header of a ledger file
CONNECT_SECONDS = 5
STATEMENT_MS = 30_000  # a server that takes longer is as good as gone

# The lock of a bank that has just ended is held until the server has noticed, which takes a while on a busy machine.
LOCK_MS = 2_000


class LedgerServer:
    """A Database on a PostgreSQL server (see database.py)."""

    error = psycopg.Error
    is_remote = True
    commit_waits = True

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection = _connect(url)

    def execute(self, sql: str, args: Sequence[Any] = (), /) -> Rows:
        """Run one statement, with ? for its arguments."""
        if any(isinstance(arg, str) and "\0" in arg for arg in args):
            raise BadRequest("this bank's database keeps every character but NUL; leave that out")
        return self._connection.execute(_translate(sql), args)

    def insert(self, sql: str, args: Sequence[Any], /) -> int:
        """Run an INSERT into transactions and return the seq of the new row."""
        return self.execute(f"{sql} RETURNING seq", args).fetchone()[0]  # type: ignore[no-any-return]

    def begin(self) -> None:
        """Begin a transaction, over a new connection when the last one broke."""
        if self._connection.closed:
            self._connection = _connect(self._url)
        self._connection.execute("BEGIN")

    def commit(self) -> None:
        """Make the transaction last."""
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        """Take the transaction back. When the connection broke, the server has done it."""
        if not self._connection.closed and self._connection.info.transaction_status != TransactionStatus.IDLE:
            with suppress(psycopg.Error):
                self._connection.execute("ROLLBACK")

    def maintain(self) -> None:
        """Do nothing: the server looks after itself."""

    def close(self) -> None:
        """Let go of the books."""
        self._connection.close()


def open_server(url: str) -> LedgerServer:
    """Open the books at `url`, made when they are missing, and keep them for this process alone.

    Raises LedgerRefused: no server, no such database, the schema is another program's, or open in another bank.
    """
    try:
        server = LedgerServer(url)
        try:
            _prepare(server)
        except BaseException:
            server.close()
            raise
    except psycopg.Error as error:
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise LedgerRefused(
            f"cannot use this database as a ledger ({why[-1].strip()});"
            " is the server up, and is the URL postgresql://USER:PASSWORD@HOST:PORT/DATABASE right?"
        ) from error
    return server


class _InUse(psycopg.OperationalError):
    """Another bank has the books."""


def _connect(url: str) -> psycopg.Connection[Any]:
    connection: psycopg.Connection[Any] = psycopg.connect(
        url,
        autocommit=True,  # BEGIN and COMMIT are said by ourselves
        connect_timeout=CONNECT_SECONDS,
        options=f"-c search_path=atm -c statement_timeout={STATEMENT_MS}",
        application_name="atm bank",
    )
    # Two banks would each decide by what the other has not committed yet. The lock ends with the connection.
    try:
        connection.execute(f"SET lock_timeout = {LOCK_MS}".encode())
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        connection.execute("RESET lock_timeout")
    except BaseException as error:
        connection.close()
        if isinstance(error, LockNotAvailable):
            raise _InUse(
                "the ledger is open in another bank; stop that one, or name another database"
            ) from error
        raise
    return connection


def _prepare(server: LedgerServer) -> None:
    if server.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'atm'").fetchone() is None:
        with server._connection.transaction():
            server._connection.execute("CREATE SCHEMA atm")
            server._connection.execute(SCHEMA.format(**DIALECT))
            server._connection.execute(f"CREATE TABLE ledger_version AS SELECT {VERSION} AS version")
    if server.execute("SELECT to_regclass('atm.ledger_version')").fetchone()[0] is None:
        raise LedgerRefused(
            "the schema 'atm' in this database is some other program's; name another database"
        )
    version = server.execute("SELECT version FROM ledger_version").fetchone()[0]
    if version != VERSION:
        raise LedgerRefused(
            f"this database holds a ledger of version {version}, this bank keeps version {VERSION};"
            " open it with the bank that made it, or name another database"
        )


@lru_cache
def _translate(sql: str) -> Any:
    return sql.replace("?", "%s")
