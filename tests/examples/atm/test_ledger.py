"""The ledger: what is declined, what takes effect, and that each txn does so once; ATM-01..05, 08, 10."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

from examples.atm.ledger import Ledger, open_ledger
from examples.atm.messages import (
    Audit,
    Balance,
    Declined,
    Deposit,
    Error,
    Extract,
    Ok,
    Open,
    Opened,
    Reason,
    Reverse,
    Statement,
    Transfer,
    Withdraw,
)
from examples.atm.money import LIMIT, MOST
from tests.examples.atm.conftest import NOON, QUICK, Ask

BAD_AMOUNTS = [0, -5, LIMIT + 1, 10**5000, True, 1.0, math.nan, "5", "ten", None, b"5", (5,), {"a": 1}]


def balances(ask: Ask) -> list[int]:
    replies = [
        ask(Balance(name, pin)) for name, pin in (("alice", "1111"), ("bob", "2222"), ("carol", "3333"))
    ]
    return [reply.balance for reply in replies]  # type: ignore[union-attr, misc]


# -- amounts and accounts


@pytest.mark.parametrize("amount", BAD_AMOUNTS, ids=range(len(BAD_AMOUNTS)))
def test_a_bad_amount_is_declined_and_changes_nothing(ask: Ask, amount: Any) -> None:  # ATM-01
    orders = [
        Deposit("alice", amount),
        Withdraw("alice", "1111", amount),
        Transfer("alice", "1111", "bob", amount),
    ]

    replies = [ask(order, txn=f"t{i}") for i, order in enumerate(orders)]

    assert replies == [Declined(f"t{i}", Reason.BAD_AMOUNT, None) for i in range(3)]
    assert balances(ask) == [10000, 5000, 0]


def test_the_limit_itself_can_be_moved(ask: Ask) -> None:  # ATM-01
    assert ask(Deposit("carol", LIMIT), txn="t") == Ok("t", LIMIT)


def test_an_unknown_account_is_declined_and_not_created(ask: Ask, ledger: Ledger) -> None:  # ATM-02
    assert ask(Deposit("mallory", 5), txn="d") == Declined("d", Reason.UNKNOWN_ACCOUNT, None)
    assert ask(Balance("mallory", "1111"), txn="b") == Declined("b", Reason.UNKNOWN_ACCOUNT, None)
    assert ask(Transfer("alice", "1111", "mallory", 5), txn="t") == Declined(
        "t", Reason.UNKNOWN_ACCOUNT, None
    )
    assert ledger.names() == ["alice", "bob", "carol"]


@pytest.mark.parametrize(
    "name", ["a|b", "CREDIT|alice|5", "line\nend\r\n", "\x00", "🏧", "é", "'; DROP TABLE accounts--", " "]
)
def test_names_hold_any_character(ask: Ask, ledger: Ledger, name: str) -> None:  # ATM-02
    ledger.open_account(name, "9999", 100)

    assert ask(Deposit(name, 5), txn="t") == Ok("t", 105)
    assert ask(Deposit(name + "x", 5), txn="u") == Declined("u", Reason.UNKNOWN_ACCOUNT, None)


def test_the_cash_box_cannot_be_reached_by_any_name(ask: Ask) -> None:  # ATM-02
    for name in ("0", "the bank", "cash", "NULL"):
        assert ask(Deposit(name, 5), txn=name) == Declined(name, Reason.UNKNOWN_ACCOUNT, None)


def test_an_opened_account_gets_a_free_name_and_works(ask: Ask, ledger: Ledger) -> None:
    ledger.open_account("1004", "9999")  # the next number is taken already

    opened = ask(Open("Dave|\n", "4444", "EUR"), txn="o")

    assert opened == Opened("o", "1005")
    assert ask(Deposit("1005", 7)).balance == 7  # type: ignore[union-attr]
    assert ask(Balance("1005", "4444"), txn="b") == Ok("b", 7)


@pytest.mark.parametrize(
    ("order", "what"),
    [
        (Open("Eve", "12", "EUR"), "a pin has 4 to 12 digits"),
        (Open("Eve", "1234", "XYZ"), "accounts in EUR, not in XYZ"),
        (Open("", "1234", "EUR"), "owner must be text of 1 to 200"),
        (Deposit(5, 5), "account must be text"),  # type: ignore[arg-type]
        (Deposit("x" * 201, 5), "account must be text of 1 to 200 characters"),
        (Deposit("\ud800", 5), "account must be text"),
        (Statement("alice", "1111", datetime(2024, 1, 1)), "since must be a datetime with a time zone"),
        (Statement("alice", "1111", datetime(1, 1, 1, tzinfo=UTC)), "since must be a datetime"),
        ("Deposit", "str is not an order"),
        (None, "NoneType is not an order"),
    ],
    ids=str,
)
def test_nonsense_is_an_error_and_is_not_journalled(
    ask: Ask, ledger: Ledger, order: Any, what: str
) -> None:  # ATM-12
    before = ledger.books()

    reply = ask(order, txn="t")

    assert isinstance(reply, Error)
    assert what in reply.text
    assert ledger.books() == before


@pytest.mark.parametrize("txn", ["", "x" * 201, 7, None, b"t"], ids=str)
def test_a_txn_that_is_no_text_is_an_error(ledger: Ledger, txn: Any) -> None:  # ATM-12
    assert isinstance(ledger.answer(txn, "atm-1", NOON, Deposit("alice", 5)), Error)


# -- overdraft


def test_exactly_the_balance_can_be_withdrawn_and_not_one_more(ask: Ask) -> None:  # ATM-03
    assert ask(Withdraw("alice", "1111", 10001), txn="a") == Declined("a", Reason.INSUFFICIENT_FUNDS, 10000)
    assert ask(Withdraw("alice", "1111", 10000), txn="b") == Ok("b", 0)
    assert ask(Withdraw("alice", "1111", 1), txn="c") == Declined("c", Reason.INSUFFICIENT_FUNDS, 0)


def test_an_agreed_overdraft_can_be_used_up_and_not_one_more(ask: Ask, ledger: Ledger) -> None:  # ATM-03
    ledger.open_account("dave", "4444", 100, overdraft=50)

    assert ask(Withdraw("dave", "4444", 151), txn="a") == Declined("a", Reason.INSUFFICIENT_FUNDS, 100)
    assert ask(Transfer("dave", "4444", "bob", 150), txn="b") == Ok("b", -50)
    assert ask(Withdraw("dave", "4444", 1), txn="c") == Declined("c", Reason.INSUFFICIENT_FUNDS, -50)


def test_an_account_holds_no_more_than_an_account_may(ask: Ask, ledger: Ledger) -> None:
    ledger._db.execute("UPDATE accounts SET balance = ? WHERE name = 'carol'", (MOST - 10,))

    assert ask(Deposit("carol", 11), txn="a") == Declined("a", Reason.LIMIT, None)
    assert ask(Transfer("alice", "1111", "carol", 11), txn="b") == Declined("b", Reason.LIMIT, None)
    assert ask(Deposit("carol", 10), txn="c") == Ok("c", MOST)


# -- once


@pytest.mark.parametrize(
    "order",
    [
        Deposit("alice", 500),
        Withdraw("alice", "1111", 500),
        Transfer("alice", "1111", "bob", 500),
        Balance("alice", "1111"),
        Statement("alice", "1111", None),
        Open("Dave", "4444", "EUR"),
        Withdraw("alice", "1111", 10**6),
        Withdraw("alice", "1111", 10**5000),
        Deposit("nobody", 5),
    ],
)
def test_a_repeated_txn_gets_the_same_answer_and_has_its_effect_once(
    ask: Ask, ledger: Ledger, order: Any
) -> None:  # ATM-05
    first = ask(order, txn="t")
    after = balances(ask)
    ask(Deposit("alice", 1))  # whatever happens in between

    assert [ask(order, txn="t") for _ in range(3)] == [first] * 3
    assert balances(ask) == [after[0] + 1, *after[1:]]
    assert ledger.books().repeats == 3


def test_a_repeated_txn_is_answered_the_same_after_a_restart(ledger_path: Path) -> None:  # ATM-05
    with open_ledger(ledger_path, pin_cost=QUICK) as ledger:
        ledger.open_account("alice", "1111")
        first = ledger.answer("t", "atm-1", NOON, Deposit("alice", 500))
    with open_ledger(ledger_path, pin_cost=QUICK) as ledger:
        assert ledger.answer("t", "atm-1", NOON, Deposit("alice", 500)) == first == Ok("t", 500)


@pytest.mark.parametrize(
    ("order", "atm"),
    [
        (Deposit("alice", 501), "atm-1"),
        (Deposit("bob", 500), "atm-1"),
        (Withdraw("alice", "1111", 500), "atm-1"),
        (Deposit("alice", 500), "atm-2"),
    ],
    ids=["other amount", "other account", "other order", "other ATM"],
)
def test_a_txn_used_for_something_else_is_a_conflict(ask: Ask, order: Any, atm: str) -> None:  # ATM-05
    ask(Deposit("alice", 500), txn="t")

    assert ask(order, txn="t", atm=atm) == Declined("t", Reason.TXN_CONFLICT, None)
    assert ask(Deposit("alice", 500), txn="t") == Ok("t", 10500)
    assert balances(ask) == [10500, 5000, 0]


def test_no_txn_is_recorded_when_its_effect_could_not_be(ask: Ask, ledger: Ledger) -> None:  # ATM-05
    ledger._db.execute(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON postings BEGIN SELECT raise(ABORT, 'full'); END"
    )
    with pytest.raises(Exception, match="full"):
        ask(Deposit("alice", 500), txn="t")
    ledger._db.execute("DROP TRIGGER full")

    assert ask(Deposit("alice", 500), txn="t") == Ok("t", 10500)
    assert ledger.books().repeats == 0


# -- reversal


def test_a_withdrawal_that_was_not_paid_out_is_reversed_once(ask: Ask) -> None:  # ATM-04
    ask(Withdraw("alice", "1111", 500), txn="w")

    assert ask(Reverse("alice", "w"), txn="r") == Ok("r", 10000)
    assert ask(Reverse("alice", "w"), txn="r") == Ok("r", 10000)
    assert ask(Reverse("alice", "w"), txn="again") == Declined("again", Reason.ALREADY_REVERSED, None)
    assert balances(ask) == [10000, 5000, 0]


def test_only_the_atm_that_did_it_can_reverse_a_withdrawal_that_was_done(ask: Ask) -> None:  # ATM-04
    ask(Withdraw("alice", "1111", 500), txn="w")
    ask(Withdraw("alice", "1111", 99999), txn="declined")
    ask(Deposit("alice", 500), txn="deposit")
    asked = [("alice", "w", "atm-2"), ("bob", "w", "atm-1")]
    asked += [("alice", txn, "atm-1") for txn in ("declined", "deposit", "never")]

    replies = [ask(Reverse(account, txn), atm=atm) for account, txn, atm in asked]

    assert [reply.reason for reply in replies] == [Reason.UNKNOWN_TXN] * 5  # type: ignore[union-attr]


def test_a_reversal_reaches_an_account_that_was_frozen_meanwhile(ask: Ask, ledger: Ledger) -> None:  # ATM-04
    ask(Withdraw("alice", "1111", 500), txn="w")
    ledger.freeze_account("alice")

    assert ask(Reverse("alice", "w"), txn="r") == Ok("r", 10000)


# -- pins


def test_a_wrong_pin_is_declined_without_telling_the_balance(ask: Ask) -> None:
    assert ask(Withdraw("alice", "2222", 5), txn="t") == Declined("t", Reason.WRONG_PIN, None)


def test_three_wrong_pins_in_a_row_lock_the_account(ask: Ask) -> None:  # ATM-10
    for pin in ("0000", "0001", "1111", "0002", "0003", "0004"):
        last = ask(Balance("alice", pin))
    assert last.reason is Reason.WRONG_PIN  # type: ignore[union-attr]

    assert ask(Balance("alice", "1111"), txn="t") == Declined("t", Reason.LOCKED, None)
    assert ask(Balance("bob", "2222"), txn="u") == Ok("u", 5000)


def test_the_same_wrong_pin_sent_again_counts_once(ask: Ask) -> None:  # ATM-05, ATM-10
    for _ in range(5):
        assert ask(Balance("alice", "0000"), txn="t") == Declined("t", Reason.WRONG_PIN, None)

    assert ask(Balance("alice", "1111"), txn="u") == Ok("u", 10000)


def test_a_frozen_account_declines_everything(ask: Ask, ledger: Ledger) -> None:
    ledger.freeze_account("alice")
    orders = [Balance("alice", "1111"), Deposit("alice", 5), Withdraw("alice", "1111", 5)]
    orders += [Transfer("bob", "2222", "alice", 5)]

    assert [ask(order).reason for order in orders] == [Reason.FROZEN] * 4  # type: ignore[union-attr]


def test_no_pin_can_be_read_in_the_file(ledger_path: Path) -> None:
    with open_ledger(ledger_path, pin_cost=QUICK) as ledger:
        ledger.open_account("alice", "918273645")
        ledger.answer("t", "atm-1", NOON, Withdraw("alice", "918273645", 5))
        ledger.answer("u", "atm-1", NOON, Open("Bob", "546372819", "EUR"))
    kept = b"".join(file.read_bytes() for file in ledger_path.parent.iterdir())

    assert b"918273645" not in kept
    assert b"546372819" not in kept


# -- statements and books


def test_a_statement_tells_what_moved_since_then(ledger_path: Path) -> None:
    clock = [NOON]
    with open_ledger(ledger_path, now=lambda: clock[0], pin_cost=QUICK) as ledger:
        ledger.open_account("alice", "1111", 10000)
        ledger.open_account("bob", "2222")
        clock[0] += timedelta(hours=1)
        ledger.answer("a", "atm-1", NOON, Withdraw("alice", "1111", 500))
        ledger.answer("b", "atm-1", NOON, Transfer("alice", "1111", "bob", 70))
        ledger.answer("c", "atm-1", NOON, Withdraw("alice", "1111", 10**6))

        since = ledger.answer("d", "atm-1", NOON, Statement("alice", "1111", NOON + timedelta(minutes=1)))
        ever = ledger.answer("e", "atm-1", NOON, Statement("alice", "1111", None))

    assert isinstance(since, Extract)
    assert [(line.kind, line.amount) for line in since.lines] == [("Withdraw", -500), ("Transfer", -70)]
    assert since.lines[0].booked == NOON + timedelta(hours=1)
    assert isinstance(ever, Extract)
    assert [line.amount for line in ever.lines] == [10000, -500, -70]
    assert ever.balance == 9430


def test_the_books_count_every_answer_and_conserve_money(ask: Ask) -> None:
    ask(Deposit("bob", 500))
    ask(Withdraw("alice", "1111", 300), txn="w")
    ask(Withdraw("alice", "1111", 300), txn="w")
    ask(Withdraw("alice", "0000", 300))
    ask(Transfer("bob", "2222", "carol", 50))

    books = ask(Audit(), txn="audit")

    assert books.customers == books.cash == 15200  # type: ignore[union-attr]
    assert books.ok == {"Deposit": 3, "Withdraw": 1, "Transfer": 1}  # type: ignore[union-attr]
    assert books.declined == {"wrong-pin": 1}  # type: ignore[union-attr]
    assert books.repeats == 1  # type: ignore[union-attr]
    assert books.faults == ()  # type: ignore[union-attr]


def test_ten_thousand_random_transfers_conserve_every_cent_at_every_statement(
    ledger_path: Path,
) -> None:  # ATM-08
    dice = random.Random(8)
    names = [f"account {i}" for i in range(10)]
    with open_ledger(ledger_path, pin_cost=QUICK) as ledger:
        for name in names:
            ledger.open_account(name, "1111", 1000)
        done = 0
        for i in range(10_000):
            order = Transfer(dice.choice(names), "1111", dice.choice(names), dice.randint(1, 700))
            done += isinstance(ledger.answer(str(i), "atm-1", NOON, order), Ok)
            (total,) = ledger._db.execute("SELECT sum(balance) FROM accounts WHERE number > 0").fetchone()
            assert total == 10_000
        books = ledger.books()

    assert 5_000 < done < 10_000
    assert books.ok["Transfer"] == done
    assert books.faults == ()


NAMES = ("a", "b", "c|\n")
MOVES = st.tuples(
    st.sampled_from(["deposit", "withdraw", "transfer", "reverse"]),
    st.sampled_from([*NAMES, "unknown"]),
    st.sampled_from([*NAMES, "unknown"]),
    st.integers(-1, 40),
    st.integers(0, 25),  # the txn: often one that was used before
)


@settings(max_examples=60, deadline=None)
@given(moves=st.lists(MOVES, max_size=40))
@example(
    moves=[("deposit", "a", "a", 0, 0), ("deposit", "a", "a", -1, 0)]
)  # two bad amounts are two requests
def test_random_orders_agree_with_a_dict(
    tmp_path_factory: pytest.TempPathFactory, moves: list[Any]
) -> None:  # ATM-01..05
    model: dict[str, int] = dict.fromkeys(NAMES, 0)
    seen: dict[str, tuple[Any, Any]] = {}  # txn -> what was asked, what was answered
    taken: dict[str, tuple[str, int]] = {}  # txn of a withdrawal that can be reversed -> account, amount
    with open_ledger(tmp_path_factory.mktemp("model") / "bank.sqlite", pin_cost=QUICK) as ledger:
        for name in NAMES:
            ledger.open_account(name, "1111")
        for move, name, to, amount, number in moves:
            txn, other = str(number), str((number + amount) % 26)
            order = {
                "deposit": Deposit(name, amount),
                "withdraw": Withdraw(name, "1111", amount),
                "transfer": Transfer(name, "1111", to, amount),
                "reverse": Reverse(name, other),
            }[move]
            reply = ledger.answer(txn, "atm-1", NOON, order)
            if txn in seen:
                same, answer = seen[txn]
                assert reply == (answer if same == order else Declined(txn, Reason.TXN_CONFLICT, None))
                continue
            seen[txn] = (order, reply)
            legs: dict[str, int] = {}
            if move == "reverse" and taken.get(other, ("", 0))[0] == name:
                legs = {name: taken.pop(other)[1]}
            elif move == "deposit" and amount > 0:
                legs = {name: amount}
            elif move == "withdraw" and 0 < amount <= model.get(name, 0):
                legs, taken[txn] = {name: -amount}, (name, amount)
            elif move == "transfer" and 0 < amount <= model.get(name, 0) and to in model:
                legs = {name: -amount, to: amount} if to != name else {name: 0}
            if legs and legs.keys() <= model.keys():
                for account, change in legs.items():
                    model[account] += change
                assert reply == Ok(txn, model[name])
            else:
                assert isinstance(reply, Declined)
        held = dict(ledger._db.execute("SELECT name, balance FROM accounts WHERE number > 0"))
        assert held == model
        assert ledger.faults() == ()
