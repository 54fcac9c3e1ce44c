"""The bank as a tasklet beside its ATMs; ATM-05, 07, 08, 12, 13."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from examples.atm.bank import Bank
from examples.atm.checking import FIELDS
from examples.atm.ledger import Ledger
from examples.atm.messages import (
    Attach,
    Balance,
    Declined,
    Deposit,
    Error,
    Frozen,
    Ok,
    Order,
    Reason,
    Reply,
    Request,
    Transfer,
    Withdraw,
)
from tasklets import channel, message, run, tasklet
from tests.examples.atm.conftest import NOON


@message(name="test.Other")
class Other:
    """A message that the bank does not know, with a way to answer."""

    reply: channel


class Counter:
    """A bank at work, and customers who write notes to it."""

    def __init__(self, ledger: Ledger, before: Callable[[Request], None] | None = None) -> None:
        self.requests = channel(copy=True)
        self.bank = tasklet(Bank(ledger, before).serve)(self.requests)
        self.txns = iter(range(10**9))

    def hand_in(self, order: Any, reply: Any = None, **other: Any) -> channel:
        """Hand in one request and return the channel that its answer comes to."""
        reply = reply or channel(1)
        txn = other.get("txn", f"t{next(self.txns)}")
        self.requests.send(Request(txn, "atm-1", NOON, order, reply))
        return reply  # type: ignore[no-any-return]

    def ask(self, order: Order, **other: Any) -> Reply:
        """Hand in one request and wait for its answer."""
        return self.hand_in(order, **other).receive()  # type: ignore[no-any-return]


@pytest.fixture(params=[None, lambda request: None], ids=["at once", "in tasklets"])
def counter(ledger: Ledger, request: pytest.FixtureRequest) -> Iterator[Counter]:
    """A bank for each of the two ways that requests take in it."""
    counter = Counter(ledger, request.param)
    yield counter
    assert counter.bank.alive, "the bank ended"
    counter.requests.close()
    run()
    assert not counter.bank.alive


def test_an_answer_comes_back_over_the_channel_in_the_request(counter: Counter) -> None:  # T-09
    assert counter.ask(Deposit("alice", 500), txn="mine") == Ok("mine", 10500)


def test_a_repeated_request_is_answered_over_the_new_reply_channel(counter: Counter) -> None:  # ATM-05
    first, second = channel(1), channel(1)
    counter.hand_in(Deposit("alice", 500), first, txn="t")

    assert counter.ask(Deposit("alice", 500), reply=second, txn="t") == Ok("t", 10500)
    assert first.receive() == Ok("t", 10500)


def test_ten_atms_at_one_account_get_exactly_what_is_there(counter: Counter) -> None:  # ATM-07
    answers: list[Reply] = []
    for _ in range(10):
        tasklet(lambda: answers.append(counter.ask(Withdraw("alice", "1111", 2000))))()
    run()

    assert sorted(answer.balance for answer in answers if isinstance(answer, Ok)) == [
        0,
        2000,
        4000,
        6000,
        8000,
    ]
    assert [a.reason for a in answers if isinstance(a, Declined)] == [Reason.INSUFFICIENT_FUNDS] * 5
    assert counter.ask(Balance("alice", "1111"), txn="end") == Ok("end", 0)


def test_an_observer_that_fails_costs_no_answer(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    requests, reply = channel(copy=True), channel(1)
    tasklet(Bank(ledger, after=lambda request, reply: 1 / 0).serve)(requests)  # type: ignore[arg-type, return-value]
    requests.send(Request("mine", "atm-1", NOON, Deposit("alice", 1), reply))

    assert reply.receive() == Ok("mine", 10001)
    assert "ZeroDivisionError" in caplog.text
    requests.close()
    run()


def test_a_slow_account_holds_up_only_itself(ledger: Ledger) -> None:  # ATM-07
    go_on = channel()
    counter = Counter(ledger, lambda request: go_on.receive() if request.order.account == "alice" else None)
    slow = [counter.hand_in(order) for order in (Deposit("alice", 1), Transfer("bob", "2222", "alice", 2))]

    assert counter.ask(Deposit("carol", 5), txn="quick") == Ok("quick", 5)
    assert [reply.balance for reply in slow] == [0, 0]  # nothing has come
    go_on.send(None)

    assert [reply.receive().balance for reply in slow] == [10001, 4998]


def test_transfers_both_ways_at_once_end_and_conserve_money(counter: Counter) -> None:  # ATM-08
    there, back = Transfer("alice", "1111", "bob", 7), Transfer("bob", "2222", "alice", 5)
    replies = [counter.hand_in(order) for _ in range(100) for order in (there, back)]

    assert {type(reply.receive()) for reply in replies} == {Ok}
    assert counter.ask(Balance("alice", "1111"), txn="end") == Ok("end", 10000 - 200)


@pytest.mark.parametrize(
    "nonsense", [None, 5, "alice|CREDIT|5", (), {"txn": "t"}, Deposit("alice", 5)], ids=repr
)
def test_nonsense_does_not_end_the_bank(counter: Counter, nonsense: Any) -> None:  # ATM-12
    counter.requests.send(nonsense)
    run()

    assert counter.ask(Deposit("alice", 5), txn="t") == Ok("t", 10005)


def test_an_unknown_message_with_a_reply_channel_is_answered_with_an_error(
    counter: Counter,
) -> None:  # ATM-12
    reply = channel(1)
    counter.requests.send(Other(reply))

    answer = reply.receive()

    assert isinstance(answer, Error)
    assert answer.text.startswith("Other is not a request")


def test_an_order_of_the_wrong_type_is_answered_with_an_error(counter: Counter) -> None:  # ATM-12
    answer = counter.ask("give me everything", txn="t")  # type: ignore[arg-type]

    assert answer == Error("t", "str is not an order; send one of examples.atm.messages.Order")


@pytest.mark.parametrize("reply", [7, "a channel", ()], ids=repr)
def test_a_request_without_a_channel_for_the_answer_is_journalled_all_the_same(
    counter: Counter, reply: Any
) -> None:  # ATM-12
    counter.requests.send(Request("t", "atm-1", NOON, Deposit("alice", 5), reply))
    run()

    assert counter.ask(Deposit("alice", 5), txn="t") == Ok("t", 10005)


def test_an_atm_that_hung_up_does_not_end_the_bank(counter: Counter) -> None:  # ATM-13
    gone = channel()
    gone.close()
    counter.hand_in(Deposit("alice", 5), gone, txn="t")
    run()

    assert counter.ask(Deposit("alice", 5), txn="t") == Ok("t", 10005)


def test_an_atm_that_does_not_listen_holds_up_nobody(counter: Counter) -> None:  # ATM-13, T8.10
    deaf = counter.hand_in(Deposit("alice", 5), channel(0))

    assert counter.ask(Deposit("alice", 5), txn="t") == Ok("t", 10010)
    assert deaf.receive().balance == 10005


def test_a_ledger_that_cannot_be_written_declines_and_is_not_the_end(
    counter: Counter, ledger: Ledger
) -> None:
    real, ledger.commit = ledger.commit, broken  # type: ignore[method-assign]
    assert counter.ask(Deposit("alice", 5), txn="t") == Declined("t", Reason.UNAVAILABLE, None)
    ledger.commit = real  # type: ignore[method-assign]

    assert counter.ask(Deposit("alice", 5), txn="t") == Ok("t", 10005)


def broken() -> None:
    raise sqlite3.OperationalError("disk I/O error")


def test_closing_the_channel_finishes_what_was_begun(ledger: Ledger) -> None:
    go_on = channel()
    counter = Counter(ledger, lambda request: go_on.receive())
    reply = counter.hand_in(Deposit("alice", 5), txn="t")
    counter.requests.close()
    run()
    assert counter.bank.alive
    go_on.send(None)

    assert reply.receive() == Ok("t", 10005)
    run()
    assert not counter.bank.alive


# -- news (ATM-10)


def test_three_wrong_pins_at_one_machine_are_heard_at_all(counter: Counter) -> None:  # ATM-10
    heard: list[tuple[str, str]] = []
    for name in ("atm-1", "atm-2", "atm-3"):
        news = channel(4)
        counter.requests.send(Attach(name, news))
        tasklet(lambda name=name, news=news: heard.append((name, news.receive().account)))()
    for pin in ("0000", "0001"):
        counter.ask(Balance("alice", pin))
    assert heard == []
    counter.ask(Balance("alice", "0002"))
    run()

    assert sorted(heard) == [("atm-1", "alice"), ("atm-2", "alice"), ("atm-3", "alice")]


def test_a_machine_that_hung_up_is_forgotten_and_delays_no_other(ledger: Ledger) -> None:  # ATM-10, ATM-13
    bank = Bank(ledger)
    gone, there = channel(1), channel(1)
    gone.close()
    bank._attach(Attach("atm-1", gone))
    bank._attach(Attach("atm-2", there))
    bank._tell_all("alice")

    assert there.receive() == Frozen("alice")
    assert list(bank.attached) == ["atm-2"]


@pytest.mark.parametrize("attach", [Attach(5, channel(1)), Attach("atm-1", "news"), Attach(None, None)])
def test_nonsense_is_not_attached(ledger: Ledger, attach: Attach) -> None:  # ATM-12
    bank = Bank(ledger)
    bank._attach(attach)

    assert bank.attached == {}


# -- every field of every message

GARBAGE = [
    None,
    True,
    -1,
    10**400,
    1.5,
    math.nan,
    "",
    "x" * 100_000,
    "\0",
    b"x",
    (),
    {"a": 1},
    NOON,
    Ok("t", 1),
]
EXAMPLES = {
    "owner": "eve",
    "pin": "1111",
    "currency": "EUR",
    "account": "alice",
    "to": "bob",
    "amount": 5,
    "since": None,
    "withdrawal": "t",
}


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
def test_garbage_in_any_field_of_an_order_is_answered_and_moves_nothing(
    counter: Counter, ledger: Ledger, kind: Any
) -> None:  # ATM-01, ATM-12
    for field in FIELDS[kind]:
        good = {name: EXAMPLES[name] for name in FIELDS[kind]}
        for garbage in GARBAGE:
            if garbage == good[field] or (field, garbage) in (("since", NOON), ("owner", "\0")):
                continue  # names may hold any character (ATM-02)
            reply = counter.ask(kind(**good | {field: garbage}))
            assert isinstance(reply, Error | Declined), f"{field}={garbage!r}: {reply}"
            ledger._db.execute("UPDATE accounts SET wrong_pins = 0")
    books = ledger.books()
    assert books.customers == 15000
    assert books.faults == ()


@pytest.mark.parametrize("field", ["txn", "atm", "at"])
def test_garbage_in_any_field_of_a_request_is_answered_and_moves_nothing(
    counter: Counter, ledger: Ledger, field: str
) -> None:  # ATM-12
    for garbage in GARBAGE:
        if (field == "at" and garbage == NOON) or (field != "at" and garbage == "\0"):
            continue
        reply: channel = channel(1)
        good = {"txn": "t", "atm": "atm-1", "at": NOON, "order": Deposit("alice", 5), "reply": reply}
        counter.requests.send(Request(**good | {field: garbage}))  # type: ignore[arg-type]
        assert isinstance(reply.receive(), Error)
    assert ledger.books().customers == 15000
