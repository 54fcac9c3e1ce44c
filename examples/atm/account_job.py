"""The bank as jobs: an account sleeps in a store, and any worker does what comes for it (ATM-14).

    tasklets cluster worker --store sqlite:///bank.db --import examples.atm.account_job

A transaction is a signal to the account's job, with its txn as the signal's id. A job takes an id once and answers it
as often as it is asked, and what a handler changes counts together with that answer or not at all. So each effect
comes once, whichever worker dies. A transfer takes two accounts, and so two steps, neither of which can be lost:

    alice                                                bob
    takes 5 out, notes it as under way  --- Arriving ->  puts 5 in, or refuses: frozen, too full
    answers Ok, or puts it back         <-- Settled ---
    and answers Declined

Each arrow is a task that appears together with the turn that it leaves from, or not at all. It may run twice: it puts
a signal under a fixed id into an inbox, which takes it once. The money is in one of the accounts or under way, never in
both or in none. What cannot arrive, as there is no such account, is put back as well.
"""

from __future__ import annotations

import hmac
import os
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import quote, unquote

from cluster import LATER, Client, Job, Retry, TaskEnded, job, operation
from examples.atm.accounts import WRONG_PINS
from examples.atm.checking import fingerprint_of
from examples.atm.ledger import LINES
from examples.atm.messages import (
    Declined,
    Extract,
    Line,
    Ok,
    Open,
    Opened,
    Order,
    Reason,
    Reply,
    Statement,
    Transfer,
    Withdraw,
)
from examples.atm.money import MOST
from examples.atm.orders import CASH, Account as Row, DeclinedBecause, decide
from tasklets import message

OWN, OTHER = 1, 2  # numbers that decide() knows this account by, and the one that a transfer goes to
KEPT = 100  # withdrawals that can still be booked back
OFFICE = "office"  # the job of the class Office

PATIENTLY = Retry(max=1000, base=0.2, cap=10.0)  # money that is under way does not give up


@message(name="atm.Instruction")
class Instruction:
    """An order of a customer, with its key in place of the pin (job_bank.py); the signal's id is its txn."""

    atm: str
    at: datetime
    order: Any  # an Order, as in messages.py


@message(name="atm.Answer")
class Answer:
    """What an Instruction is answered: the reply for the machine, and what the bank's desk wants to know."""

    fingerprint: bytes  # of what was asked first under this txn
    reply: Any
    locked: bool = False  # by this order


@message(name="atm.Arriving")
class Arriving:
    """Money from another account of this bank."""

    txn: str
    account: str  # that it comes from
    amount: int


@message(name="atm.Settled")
class Settled:
    """The money has arrived; or it has not, for this reason."""

    txn: str
    reason: Reason | None


@operation(retry=PATIENTLY)
def post(account: str, signal: Any, signal_id: str) -> bool:
    """Put a signal into an account's inbox, once; False when there is no such account."""
    # A txn begins with no dot (job_bank.py), so that no machine can take such an id.
    return _bank().signal(job_id_of(account), signal, id=f".{signal_id}", timeout=0).status != "not_found"


@cache
def _bank() -> Client:
    """The way of this process to the jobs. Workers that were started by hand need CLUSTER_STORE, too."""
    return Client(os.environ["CLUSTER_STORE"], os.environ.get("CLUSTER_GROUP", "default"))


def job_id_of(account: str) -> str:
    """Return the id of an account's job.

    Not its name, which is told apart from others without regard to case: a signal for ALICE is not for alice. Quoted,
    for an account's name may hold what an id may not, such as the end of a line.
    """
    return f"account:{quote(account)}"


def account_of(job_id: str) -> str:
    """Return the account whose job has an id."""
    return unquote(job_id.removeprefix(job_id_of("")))


def job_name_of(account: str) -> str:
    """Return the name of an account's job, for people: tasklets cluster job "account alice"."""
    return f"account {quote(account, safe=' ')}"


@job(retry=PATIENTLY)
class Account(Job):
    """An account of the bank: who owns it, what is in it, and its last movements."""

    def start(self, params: Any) -> None:
        """Open it with what it was given."""
        self.data.update(params, wrong_pins=0, frozen=False, cash=params["balance"])
        self.data.update(lines=(), withdrawals={}, under_way={}, ok={}, declined={})

    def on_signal_atm_Instruction(self, told: Instruction) -> Any:
        """Do what a customer wants, or decline it."""
        order, wrong = told.order, self.data["wrong_pins"]
        print_of = fingerprint_of(told.atm, order)
        try:
            effect = decide(order, _View(self, told.atm))
        except DeclinedBecause as declined:
            locked = wrong < self.data["wrong_pins"] == WRONG_PINS
            return Answer(print_of, self._decline(declined.reason, declined.balance), locked)
        moved = dict(effect.legs)
        self._move(type(order).__name__, sum(amount for number, amount in effect.legs if number == OWN))
        self.data["cash"] -= moved.get(CASH, 0)
        if isinstance(order, Withdraw):
            self._remember_withdrawal(told.atm, order.amount)
        if isinstance(order, Transfer) and OTHER in moved:
            self.data["under_way"][self.signal_id] = (order.amount, effect.balance, print_of)
            self._post(
                order.to, Arriving(self.signal_id, self._own_name, order.amount), f"arriving {self.signal_id}"
            )
            return LATER
        count_in(self.data["ok"], type(order).__name__)
        if isinstance(order, Statement):
            return Answer(print_of, self._extract(order.since))
        return Answer(print_of, Ok(self.signal_id, effect.balance))

    def on_signal_atm_Arriving(self, money: Arriving) -> None:
        """Take money in, or refuse it, and let the other account know."""
        reason = None
        if self.data["frozen"]:
            reason = Reason.FROZEN
        elif self.data["balance"] + money.amount > MOST:
            reason = Reason.LIMIT
        else:
            self._move("Transfer", money.amount)
        self._post(money.account, Settled(money.txn, reason), f"settled {money.txn}")

    def on_signal_atm_Settled(self, settled: Settled) -> None:
        """A transfer is through, or the money comes back."""
        self._settle(settled.txn, settled.reason)

    def on_task_done(self, task: TaskEnded, result: bool) -> None:
        """A post was delivered; if there is nobody to deliver it to, the money comes back."""
        if result is False and task.meta:
            self._settle(task.meta.decode(), Reason.UNKNOWN_ACCOUNT)

    def on_signal_freeze(self, _signal: Any) -> None:
        """Decline everything from now on."""
        self.data["frozen"] = True

    # -- steps of these

    @property
    def _own_name(self) -> str:
        return account_of(self.job_id)

    def _settle(self, txn: str, reason: Reason | None) -> None:
        under_way = self.data["under_way"].pop(txn, None)
        if under_way is None:
            return
        amount, balance, print_of = under_way
        reply: Reply
        if reason is None:
            count_in(self.data["ok"], Transfer.__name__)
            reply = Ok(txn, balance)
        else:
            self._move("Transfer", amount)
            count_in(self.data["declined"], reason.value)
            reply = Declined(txn, reason, None)
        self.reply(txn, Answer(print_of, reply))

    def _post(self, account: str, signal: Arriving | Settled, signal_id: str) -> None:
        sent_by_us = signal.txn.encode() if isinstance(signal, Arriving) else b""
        self.spawn(post, account, signal, signal_id, meta=sent_by_us, priority=1)

    def _move(self, kind: str, amount: int) -> None:
        if amount:
            self.data["balance"] += amount
            self.data["lines"] = (*self.data["lines"], Line(datetime.now(UTC), kind, amount))[-LINES:]

    def _remember_withdrawal(self, atm: str, amount: int) -> None:
        withdrawals = self.data["withdrawals"]  # txn -> the machine, the amount, whether it was booked back
        withdrawals[self.signal_id] = (atm, amount, False)
        while len(withdrawals) > KEPT:
            del withdrawals[next(iter(withdrawals))]

    def _extract(self, since: datetime | None) -> Extract:
        lines = tuple(line for line in self.data["lines"] if since is None or line.booked >= since)
        return Extract(self.signal_id, self.data["balance"], lines)

    def _decline(self, reason: Reason, balance: int | None) -> Declined:
        count_in(self.data["declined"], reason.value)
        return Declined(self.signal_id, reason, balance)


class _View:
    """An account as orders.decide() asks for it (orders.Accounts), on behalf of one machine."""

    def __init__(self, account: Account, atm: str) -> None:
        self._account = account
        self._data = account.data
        self._atm = atm

    def open(self, owner: str, pin: str) -> str:
        raise AssertionError("accounts are opened by the office")

    def find(self, name: str) -> Row:
        if name != self._account._own_name:
            return Row(OTHER, name, 0, 0, False)  # it decides for itself, when the money arrives
        if self._data["frozen"]:
            raise DeclinedBecause(Reason.FROZEN)
        return Row(OWN, name, self._data["balance"], self._data["overdraft"], False)

    def unlock(self, name: str, pin: str) -> Row:
        row, data = self.find(name), self._data
        if data["wrong_pins"] >= WRONG_PINS:
            raise DeclinedBecause(Reason.LOCKED)
        if not hmac.compare_digest(pin, data["key"]):
            data["wrong_pins"] += 1
            raise DeclinedBecause(Reason.WRONG_PIN)
        data["wrong_pins"] = 0
        return row

    def balance(self, name: str) -> int:
        return int(self._data["balance"])

    def withdrawal(self, txn: str, account: str) -> tuple[int, int, int]:
        atm, amount, reversed_ = self._data["withdrawals"].get(txn, ("", 0, False))
        if atm != self._atm:
            raise DeclinedBecause(Reason.UNKNOWN_TXN)
        if reversed_:
            raise DeclinedBecause(Reason.ALREADY_REVERSED)
        self._data["withdrawals"][txn] = (atm, amount, True)
        return 0, OWN, amount


class Office(Job):
    """The office of the bank: gives new accounts their numbers, and declines what is for no account."""

    def start(self, params: Any) -> None:
        """Begin with number 1001."""
        self.data.update(next=1001, ok={}, declined={})

    def on_signal_atm_Instruction(self, told: Instruction) -> Answer:
        """Give a new account the next number, or say that there is none of the name."""
        reply: Reply
        if isinstance(told.order, Open):
            reply = Opened(self.signal_id, str(self.data["next"]))
            self.data["next"] += 1
            count_in(self.data["ok"], Open.__name__)
        else:
            reply = Declined(self.signal_id, _reason_of_nobody(told.order), None)
            count_in(self.data["declined"], reply.reason.value)
        return Answer(fingerprint_of(told.atm, told.order), reply)


class _Nobody:
    """What orders.decide() finds where there is no account."""

    def open(self, owner: str, pin: str) -> str:
        raise AssertionError("accounts are opened by the office itself")

    def find(self, name: str) -> Row:
        raise DeclinedBecause(Reason.UNKNOWN_ACCOUNT)

    def unlock(self, name: str, pin: str) -> Row:
        raise DeclinedBecause(Reason.UNKNOWN_ACCOUNT)

    def balance(self, name: str) -> int:
        raise DeclinedBecause(Reason.UNKNOWN_ACCOUNT)

    def withdrawal(self, txn: str, account: str) -> tuple[int, int, int]:
        raise DeclinedBecause(Reason.UNKNOWN_TXN)


def _reason_of_nobody(order: Order) -> Reason:
    try:
        decide(order, _Nobody())
    except DeclinedBecause as declined:
        return declined.reason
    raise AssertionError(f"{order} was done for nobody")


def count_in(counts: dict[str, int], name: str) -> None:
    """Count one more."""
    counts[name] = counts.get(name, 0) + 1
