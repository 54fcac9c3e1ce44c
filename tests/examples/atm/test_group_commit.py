"""Many requests, one commit: each answered after it, and one that fails takes no other with it; ATM-06, 07."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from examples.atm.atm import Atm, BankAway, dial
from examples.atm.group_commit import GroupCommit
from examples.atm.ledger import Ledger, open_ledger
from examples.atm.messages import (
    Audit,
    Balance,
    Books,
    Declined,
    Deposit,
    Ok,
    Open,
    Opened,
    Order,
    Reason,
    Reply,
    Request,
    Transfer,
)
from tasklets import channel, run, sleep, tasklet
from tests.examples.atm.conftest import NOON
from tests.examples.atm.processes import running_bank


def ask_together(books: GroupCommit, *orders: Order) -> list[Reply]:
    """Have all these asked before the first is answered; return the answers in their order."""
    replies: list[Any] = [None] * len(orders)

    def ask(number: int, order: Order) -> None:
        replies[number] = books.answer(Request(f"t{number}", "atm-1", NOON, order, channel(1)))

    for number, order in enumerate(orders):
        tasklet(ask)(number, order)
    run()
    return replies


def test_requests_that_wait_together_share_a_commit(ledger: Ledger) -> None:
    books = GroupCommit(ledger)
    replies = ask_together(books, *[Deposit("alice", 1) for _ in range(50)])

    assert [reply.balance for reply in replies] == list(range(10001, 10051))  # type: ignore[union-attr]
    assert books.groups == 1


def test_nobody_is_answered_before_the_commit(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    books, committed = GroupCommit(ledger), []
    real = ledger.commit

    def commit() -> None:
        assert not answered
        real()
        committed.append(True)

    answered: list[Reply] = []

    def ask(number: int) -> None:
        answered.append(books.answer(Request(f"t{number}", "a", NOON, Deposit("bob", 1), channel(1))))
        assert committed

    monkeypatch.setattr(ledger, "commit", commit)
    for number in range(3):
        tasklet(ask)(number)
    run()

    assert len(answered) == 3


def test_who_is_answered_sees_what_others_in_the_group_did_before(ledger: Ledger) -> None:
    replies = ask_together(
        GroupCommit(ledger),
        Deposit("alice", 500),
        Deposit("carol", 1),
        Deposit("alice", 70),
        Deposit("nobody", 5),
    )

    assert replies == [
        Ok("t0", 10500),
        Ok("t1", 1),
        Ok("t2", 10570),
        Declined("t3", Reason.UNKNOWN_ACCOUNT, None),
    ]


def test_one_that_the_database_refuses_takes_no_other_with_it(ledger: Ledger) -> None:
    ledger._db.execute(
        "CREATE TEMP TRIGGER picky BEFORE INSERT ON transactions WHEN new.kind = 'Transfer'"
        " BEGIN SELECT raise(ABORT, 'not this one'); END"
    )
    books = GroupCommit(ledger)
    replies = ask_together(
        books,
        Deposit("alice", 500),
        Transfer("bob", "2222", "alice", 5),
        Deposit("carol", 1),
    )

    assert replies == [Ok("t0", 10500), Declined("t1", Reason.UNAVAILABLE, None), Ok("t2", 1)]
    assert ledger.books().faults == ()
    ledger._db.execute("DROP TRIGGER picky")
    assert ask_together(books, Deposit("alice", 500), Transfer("bob", "2222", "alice", 5))[1] == Ok(
        "t1", 4995
    )


def test_an_error_that_is_not_the_databases_reaches_the_asker_alone(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    books, failed = GroupCommit(ledger), []
    real = ledger.take

    def take(txn: str, *rest: Any) -> Reply:
        if txn == "t1":
            raise ZeroDivisionError("a bug")
        return real(txn, *rest)

    monkeypatch.setattr(ledger, "take", take)

    def ask(number: int) -> None:
        try:
            books.answer(Request(f"t{number}", "a", NOON, Deposit("bob", 1), channel(1)))
        except ZeroDivisionError:
            failed.append(number)

    for number in range(3):
        tasklet(ask)(number)
    run()

    assert failed == [1]
    assert ledger.books().customers == 15002


def test_pins_are_hashed_while_the_loop_goes_on(ledger_path: Path) -> None:
    with open_ledger(ledger_path, pin_cost=2**14) as ledger:  # some 40 ms each
        books = GroupCommit(ledger)
        ticks = []

        def tick() -> None:
            for _ in range(200):
                sleep(0.001)
                ticks.append(len(replies))

        replies: list[Reply] = []
        tasklet(tick)()
        for number in range(3):
            order = Open("Eve", "918273", "EUR")
            request = Request(f"o{number}", "a", NOON, order, channel(1))
            tasklet(lambda request=request: replies.append(books.answer(request)))()
        run()

    assert [type(reply) for reply in replies] == [Opened] * 3
    assert len([count for count in ticks if count < 3]) > 10, "the others ran meanwhile"


def test_an_audit_is_read_after_the_group_that_it_waited_with(ledger: Ledger) -> None:
    *_, books = ask_together(GroupCommit(ledger), Deposit("alice", 500), Audit())

    assert isinstance(books, Books)
    assert books.customers == books.cash == 15500


# -- a disk that is full


def test_a_full_disk_declines_and_keeps_the_books_whole(ledger: Ledger) -> None:
    books = GroupCommit(ledger)
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    replies = ask_together(books, *[Deposit("alice", 1) for _ in range(200)])

    full = [reply for reply in replies if isinstance(reply, Declined)]
    assert full
    assert {reply.reason for reply in full} == {Reason.UNAVAILABLE}
    done = [reply for reply in replies if isinstance(reply, Ok)]
    assert ledger.books().customers == 15000 + len(done)
    assert ledger.faults() == ()

    ledger._db.execute("PRAGMA max_page_count = 1000000")
    again = ask_together(books, *[Deposit("alice", 1) for _ in range(200)])
    assert {type(reply) for reply in again} == {Ok}
    assert ledger.books().customers == 15200
    assert ledger.faults() == ()


@pytest.mark.real
def test_a_bank_whose_disk_fills_up_tells_its_atms_and_goes_on_when_there_is_room(ledger_path: Path) -> None:
    """The limit on the size of files stands for the disk: both fail the write in the middle of a transaction."""
    with running_bank(ledger_path) as (bank, url):
        atm = Atm("atm-1", dial(url), patience=0.5)
        assert isinstance(atm.withdraw("alice", "1111", 100), Ok)
        size = max(file.stat().st_size for file in ledger_path.parent.glob("bank.sqlite*"))
        resource.prlimit(bank.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        with pytest.raises(BankAway, match="it cannot write its books"):
            withdraw_for_ever(atm)
        paid = atm.drawer.paid_out
        resource.prlimit(bank.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        reply = atm.ask(Balance("alice", "1111"))  # settles first
        assert isinstance(reply, Ok)
        assert reply.balance == 50000 - paid
        assert bank.poll() is None
    with open_ledger(ledger_path) as ledger:
        assert ledger.books().customers == 75000 - paid


def withdraw_for_ever(atm: Atm) -> None:
    while True:
        atm.withdraw("alice", "1111", 100)
