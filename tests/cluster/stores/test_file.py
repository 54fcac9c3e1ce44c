"""The file of the SQLite engine while several open it at once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cluster.stores._file import clock_offset, prepare


def test_who_comes_too_late_to_commit_may_try_again(tmp_path: Path) -> None:
    with (
        closing(sqlite3.connect(tmp_path / "work.db", timeout=0, isolation_level=None)) as first,
        closing(sqlite3.connect(tmp_path / "work.db", timeout=0, isolation_level=None)) as second,
    ):
        prepare(first, "sqlite:///work.db")
        # As it is for a moment while the file is made: who reads holds up who has written.
        first.execute("PRAGMA journal_mode = DELETE")
        second.execute("BEGIN")
        second.execute("SELECT count(*) FROM clock").fetchone()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            clock_offset(first)
        second.execute("COMMIT")
        assert clock_offset(first) == clock_offset(second)
