"""What each order means: which accounts it looks at, when it is declined, which amounts it moves.

    decide(order, accounts) -> Effect, or raises DeclinedBecause

Nothing here writes postings or knows of txns; ledger.py does that, in the one transaction that decide()
runs in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from examples.atm.messages import (
    Balance,
    Deposit,
    Open,
    Order,
    Reason,
    Reverse,
    Statement,
    Transfer,
    Withdraw,
)
from examples.atm.money import MOST, is_amount

CASH = 0  # the number of the bank's cash box


@dataclass(frozen=True, slots=True)
class Account:
    """One row of accounts, as an order sees it."""

    number: int
    name: str
    balance: int
    overdraft: int
    frozen: bool


@dataclass(frozen=True, slots=True)
class Effect:
    """What an accepted order does."""

    account: str  # whose balance the answer tells
    balance: int  # of it, afterwards
    legs: tuple[tuple[int, int], ...] = ()  # (account number, amount); the amounts add up to 0
    reverses: int | None = None  # seq of the withdrawal that is booked back


class DeclinedBecause(Exception):
    """The order is declined, for this reason."""

    def __init__(self, reason: Reason, balance: int | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.balance = balance


class Accounts(Protocol):
    """What decide() needs of the ledger. Each look-up raises DeclinedBecause when the answer is no."""

    def open(self, owner: str, pin: str) -> str:
        """Open an account and return its name."""

    def find(self, name: str) -> Account:
        """Look up an account: UNKNOWN_ACCOUNT, FROZEN."""

    def unlock(self, name: str, pin: str) -> Account:
        """Look up an account with its pin: also WRONG_PIN, which is counted, and LOCKED."""

    def balance(self, name: str) -> int:
        """Look up what is in an account, frozen or not."""

    def withdrawal(self, txn: str, account: str) -> tuple[int, int, int]:
        """Look up (seq, account number, amount) of the asking ATM's own: UNKNOWN_TXN, ALREADY_REVERSED."""


def decide(order: Order, accounts: Accounts) -> Effect:
    """Say what the order does. Raises DeclinedBecause."""
    match order:
        case Open(owner, pin):
            return Effect(accounts.open(owner, pin), 0)
        case Balance(name, pin) | Statement(name, pin):
            return Effect(name, accounts.unlock(name, pin).balance)
        case Deposit(name, amount):
            amount = _amount(amount)
            account = accounts.find(name)
            _has_room(account, amount)
            return Effect(name, account.balance + amount, _move(CASH, account.number, amount))
        case Withdraw(name, pin, amount):
            account = accounts.unlock(name, pin)
            amount = _amount(amount)
            _has_funds(account, amount)
            return Effect(name, account.balance - amount, _move(account.number, CASH, amount))
        case Transfer(name, pin, to, amount):
            account = accounts.unlock(name, pin)
            amount = _amount(amount)
            receiver = accounts.find(to)
            _has_funds(account, amount)
            _has_room(receiver, amount)
            left = account.balance - (amount if receiver.number != account.number else 0)
            return Effect(name, left, _move(account.number, receiver.number, amount))
        case Reverse(name, withdrawal):
            # Not find(): what was never paid out goes back to a frozen account too.
            seq, number, amount = accounts.withdrawal(withdrawal, name)
            return Effect(name, accounts.balance(name) + amount, _move(CASH, number, amount), reverses=seq)
    raise AssertionError(f"{type(order).__name__} is not for decide(); see Ledger.answer")


def _move(source: int, target: int, amount: int) -> tuple[tuple[int, int], ...]:
    return ((source, -amount), (target, amount))


def _amount(amount: object) -> int:
    if not is_amount(amount):
        raise DeclinedBecause(Reason.BAD_AMOUNT)
    return amount


def _has_funds(account: Account, amount: int) -> None:
    if amount > account.balance + account.overdraft:
        raise DeclinedBecause(Reason.INSUFFICIENT_FUNDS, account.balance)


def _has_room(account: Account, amount: int) -> None:
    if account.balance + amount > MOST:
        raise DeclinedBecause(Reason.LIMIT)
