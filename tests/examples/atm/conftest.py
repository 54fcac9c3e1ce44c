"""A ledger with three accounts, and short ways to ask it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from examples.atm.ledger import Ledger, open_ledger
from examples.atm.messages import Order, Reply

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
QUICK = 2  # scrypt rounds: pins are not what these tests are about

Ask = Callable[..., Reply]


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    return tmp_path / "bank.sqlite"


@pytest.fixture
def ledger(ledger_path: Path) -> Iterator[Ledger]:
    """A ledger with alice (100.00), bob (50.00) and carol (nothing); the pins are 1111, 2222, 3333."""
    with open_ledger(ledger_path, now=lambda: NOON, pin_cost=QUICK) as ledger:
        ledger.open_account("alice", "1111", 10000)
        ledger.open_account("bob", "2222", 5000)
        ledger.open_account("carol", "3333")
        yield ledger


@pytest.fixture
def ask(ledger: Ledger) -> Ask:
    """Have one order answered, under a new txn unless one is given."""
    txns = map(str, itertools.count(1))

    def ask(order: Order, *, txn: str | None = None, atm: str = "atm-1") -> Reply:
        return ledger.answer(next(txns) if txn is None else txn, atm, NOON, order)

    return ask
