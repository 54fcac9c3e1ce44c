"""What ATMs and the bank say to each other. Every message is typed and read-only.

    ATM -> bank    Attach(atm, news)                       when a machine has dialled
    ATM -> bank    Request(txn, atm, at, order, reply)     order is one of the Orders below
    bank -> ATM    Ok | Opened | Extract | Books | Declined | Error     over the request's own reply channel
    bank -> ATM    Frozen(account)                         over the news channel of every machine attached

The txn is made by the ATM before the first send and stays the same however often the request is sent
again. That is what lets the bank do it once and answer it as often as it is asked (ATM-05).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum

from tasklets import channel, message, register


@message(name="atm.Open")
class Open:
    """Open an account for `owner`; the bank chooses its name."""

    owner: str
    pin: str
    currency: str


@message(name="atm.Balance")
class Balance:
    """How much is there?"""

    account: str
    pin: str


@message(name="atm.Deposit")
class Deposit:
    """Cash went into the ATM. Needs no pin: whoever knows an account may give to it."""

    account: str
    amount: int


@message(name="atm.Withdraw")
class Withdraw:
    """Cash is to leave the ATM; it does so after Ok for this txn and not before (ATM-04)."""

    account: str
    pin: str
    amount: int


@message(name="atm.Transfer")
class Transfer:
    """Move money between two accounts of this bank, both or neither (ATM-08)."""

    account: str
    pin: str
    to: str
    amount: int


@message(name="atm.Statement")
class Statement:
    """What happened on the account since a moment (None: since it was opened)?"""

    account: str
    pin: str
    since: datetime | None


@message(name="atm.Reverse")
class Reverse:
    """The withdrawal `withdrawal` (its txn) of this ATM was not paid out; book it back, once (ATM-04)."""

    account: str
    withdrawal: str


@message(name="atm.Audit")
class Audit:
    """The books of the whole bank. Changes nothing, is not journalled."""


Order = Open | Balance | Deposit | Withdraw | Transfer | Statement | Reverse | Audit


@message(name="atm.Request")
class Request:
    """One order under its transaction id; `reply` is the channel that the answer goes to."""

    txn: str
    atm: str
    at: datetime
    order: Order
    reply: channel


@message(name="atm.Attach")
class Attach:
    """A machine is on the line; `news` is the channel that it hears from the bank over, unasked."""

    atm: str
    news: channel


@message(name="atm.Frozen")
class Frozen:
    """The account has just been locked or frozen: whoever is using it, at any machine, is to stop (ATM-10)."""

    account: str


@register
class Reason(Enum):
    """Why the bank declined."""

    UNKNOWN_ACCOUNT = "unknown-account"
    WRONG_PIN = "wrong-pin"
    INSUFFICIENT_FUNDS = "insufficient-funds"
    BAD_AMOUNT = "bad-amount"
    LIMIT = "limit"  # the account would hold more than an account may
    LOCKED = "locked"  # too many wrong pins
    FROZEN = "frozen"  # by the bank
    UNKNOWN_TXN = "unknown-txn"  # nothing to reverse: no such withdrawal of this ATM
    ALREADY_REVERSED = "already-reversed"
    TXN_CONFLICT = "txn-conflict"  # this txn was used before, for something else
    UNAVAILABLE = (
        "unavailable"  # the bank cannot write its books now; nothing was booked, not even this answer
    )


@message(name="atm.Ok")
class Ok:
    """Done and in the ledger; `balance` is that of the account right after it."""

    txn: str
    balance: int


@message(name="atm.Opened")
class Opened:
    """The account is open under this name, with nothing in it."""

    txn: str
    account: str


@message(name="atm.Line")
class Line:
    """One line of a statement: what moved the balance, and by how much."""

    booked: datetime
    kind: str
    amount: int


@message(name="atm.Extract")
class Extract:
    """The answer to Statement: the newest lines, oldest first."""

    txn: str
    balance: int
    lines: tuple[Line, ...]


@message(name="atm.Declined")
class Declined:
    """Nothing moved. `balance` is there when the pin was right and it explains the reason."""

    txn: str
    reason: Reason
    balance: int | None


@message(name="atm.Error")
class Error:
    """The bank could not make sense of the request; nothing was journalled."""

    txn: str
    text: str


@message(name="atm.Books")
class Books:
    """The answer to Audit."""

    txn: str
    customers: int  # what all accounts hold together
    cash: int  # what came in over the counter minus what went out; equal to customers while the books balance
    ok: Mapping[str, int]  # kind of order -> how many were done
    declined: Mapping[str, int]  # reason -> how many
    repeats: int  # requests that came again and were answered from the journal
    faults: tuple[str, ...]  # what does not add up, in words


Reply = Ok | Opened | Extract | Declined | Error | Books
