"""The machine: when it pays, when it asks again, what it sets right later; ATM-04, 05, 09."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from examples.atm.atm import Atm, BankAway, Drawer, Jammed
from examples.atm.bank import Bank
from examples.atm.ledger import Ledger
from examples.atm.messages import Balance, Declined, Deposit, Ok, Reason, Request
from net.errors import PeerLost
from tasklets import NotSendable, channel, run, sleep, tasklet


class Line:
    """A line to the bank on which each send is what the next word of the script says.

    fine; lost (the request does not arrive); deaf (it arrives, the answer does not); twice;
    cut (PeerLost before it arrives); shot (PeerLost after it arrived).
    """

    def __init__(self, bank: channel, script: str) -> None:
        self.bank = bank
        self.script = iter(script.split())
        self.sent: list[Request] = []
        self.dialled = 0

    def dial(self) -> channel:
        self.dialled += 1
        return self  # type: ignore[return-value]

    def send(self, request: Request) -> None:
        self.sent.append(request)
        fate = next(self.script, "fine")
        if fate == "cut":
            raise PeerLost("cut")
        if fate == "deaf":
            request = Request(request.txn, request.atm, request.at, request.order, channel(1))
        for _ in range({"lost": 0, "twice": 2}.get(fate, 1)):
            self.bank.send(request)
        if fate == "shot":
            raise PeerLost("shot")


class JammingDrawer(Drawer):
    """Nothing comes out."""

    def pay_out(self, amount: int) -> None:
        raise Jammed


@pytest.fixture
def bank(ledger: Ledger) -> Iterator[channel]:
    requests = channel(copy=True)
    tasklet(Bank(ledger).serve)(requests)
    yield requests
    requests.close()
    run()


MakeAtm = Callable[..., tuple[Atm, Line]]


@pytest.fixture
def make_atm(bank: channel) -> MakeAtm:
    def make(script: str = "", drawer: Drawer | None = None, **options: Any) -> tuple[Atm, Line]:
        line = Line(bank, script)
        return Atm("atm-1", line.dial, drawer, **{"patience": 2.0, "ask_again": 0.02, **options}), line

    return make


def balance(atm: Atm) -> int:
    reply = atm.ask(Balance("alice", "1111"))
    assert isinstance(reply, Ok)
    return reply.balance


def test_cash_comes_out_after_ok(make_atm: MakeAtm) -> None:  # ATM-04
    atm, _ = make_atm()

    reply = atm.withdraw("alice", "1111", 500)

    assert isinstance(reply, Ok)
    assert atm.drawer.paid_out == 500


def test_no_cash_comes_out_after_declined(make_atm: MakeAtm) -> None:  # ATM-04
    atm, _ = make_atm()

    reply = atm.withdraw("alice", "1111", 10**6)

    assert isinstance(reply, Declined)
    assert reply.reason is Reason.INSUFFICIENT_FUNDS
    assert atm.drawer.paid_out == 0


def test_the_answer_to_another_txn_pays_nothing(make_atm: MakeAtm) -> None:  # ATM-04
    atm, _ = make_atm()
    atm._replies.send(Ok("some other txn", 10**6))

    assert isinstance(atm.withdraw("alice", "1111", 10**6), Declined)
    assert atm.drawer.paid_out == 0


@pytest.mark.parametrize(
    "fate", ["lost", "deaf", "twice", "cut", "shot", "deaf deaf lost twice", "shot cut deaf"]
)
def test_whatever_becomes_of_the_line_a_withdrawal_is_done_once(
    make_atm: MakeAtm, fate: str
) -> None:  # ATM-05
    atm, line = make_atm(fate)

    atm.withdraw("alice", "1111", 500)

    assert atm.drawer.paid_out == 500
    assert len({request.txn for request in line.sent}) == 1
    assert balance(atm) == 9500


def test_after_a_cut_the_atm_dials_again(make_atm: MakeAtm) -> None:  # ATM-05, ATM-09
    atm, line = make_atm("cut shot fine")

    assert atm.deposit("alice", 500).balance == 10500  # type: ignore[union-attr]
    assert line.dialled == 3
    assert atm.asked_again == 2


def test_the_customer_hears_in_time_that_the_bank_is_away(make_atm: MakeAtm) -> None:  # ATM-09
    atm, _ = make_atm("cut " * 100, patience=0.1)

    with pytest.raises(BankAway, match=r"the bank is away, no answer within 0\.1 s \(cut\)"):
        atm.withdraw("alice", "1111", 500)

    assert atm.drawer.paid_out == 0


def test_a_withdrawal_given_up_is_booked_back_before_the_next_order(
    make_atm: MakeAtm,
) -> None:  # ATM-04, ATM-09
    atm, _ = make_atm("deaf " * 5, patience=0.1)
    with pytest.raises(BankAway):
        atm.withdraw("alice", "1111", 500)
    assert len(atm.unsettled) == 1

    assert balance(atm) == 10000
    assert atm.drawer.paid_out == 0
    assert atm.unsettled == ()


@pytest.mark.parametrize("fate", ["deaf", "lost", "cut"])
def test_a_deposit_given_up_is_kept_and_booked_before_the_next_order(
    make_atm: MakeAtm, fate: str
) -> None:  # ATM-09
    atm, _ = make_atm(f"{fate} " * 5, patience=0.1, ask_again=0.025)
    with pytest.raises(BankAway):
        atm.deposit("alice", 500)
    assert atm.drawer.taken_in == 0
    atm.patience = 1.0

    assert balance(atm) == 10500
    assert atm.drawer.taken_in == 500


def test_a_jam_is_booked_back_once(make_atm: MakeAtm, ledger: Ledger) -> None:  # ATM-04
    atm, _ = make_atm("fine deaf shot", drawer=JammingDrawer())

    with pytest.raises(Jammed):
        atm.withdraw("alice", "1111", 500)

    assert balance(atm) == 10000
    assert ledger.books().ok["Reverse"] == 1


def test_what_cannot_travel_is_refused_and_leaves_nothing_to_settle(make_atm: MakeAtm) -> None:
    atm, _ = make_atm()

    with pytest.raises(NotSendable):
        atm.ask(Deposit("alice", lambda: 5))  # type: ignore[arg-type]

    assert atm.unsettled == ()
    assert balance(atm) == 10000


def test_a_bank_that_is_slow_to_dial_is_reached_all_the_same(bank: channel) -> None:  # ATM-09
    def dial() -> channel:
        sleep(0.1)
        return bank

    atm = Atm("atm-1", dial, patience=2.0, ask_again=0.02)

    assert isinstance(atm.ask(Balance("alice", "1111")), Ok)


def test_what_cannot_travel_is_refused_and_nothing_to_settle(bank: channel) -> None:  # ATM-12
    atm = Atm("atm-1", lambda: bank)

    with pytest.raises(NotSendable):
        atm.ask(Deposit("alice", object()))  # type: ignore[arg-type]
    assert atm.unsettled == ()
    assert isinstance(atm.ask(Balance("alice", "1111")), Ok)
