"""The dialogue with a person at a machine. Every way it can go wrong is one line that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from examples.atm.atm import Atm, BankAway, Jammed
from examples.atm.messages import (
    Balance,
    Declined,
    Error,
    Extract,
    Ok,
    Order,
    Reason,
    Reply,
    Statement,
    Transfer,
)
from examples.atm.money import LIMIT, format_amount, parse_amount
from examples.atm.terminal import Terminal
from tasklets import getcurrent, tasklet

SENTENCES = {
    Reason.UNKNOWN_ACCOUNT: "there is no such account",
    Reason.WRONG_PIN: "the pin is wrong",
    Reason.INSUFFICIENT_FUNDS: "there is not enough in the account",
    Reason.BAD_AMOUNT: f"amounts go from {format_amount(1)} to {format_amount(LIMIT)}",
    Reason.LIMIT: "the account would hold more than an account may",
    Reason.LOCKED: "the account is locked after too many wrong pins; ask the bank",
    Reason.FROZEN: "the account is frozen; ask the bank",
    Reason.UNKNOWN_TXN: "there is no such transaction",
    Reason.ALREADY_REVERSED: "that was booked back before",
    Reason.TXN_CONFLICT: "the transaction number was used before; try again",
    Reason.UNAVAILABLE: "the bank cannot write its books now; try again later",
}


class Mistake(Exception):
    """A person can try again; a script cannot."""


class AccountFrozen(Exception):
    """The bank has locked the account that is in use here, perhaps because of what somebody does elsewhere."""


@contextmanager
def promise(text: str) -> Iterator[None]:
    """Say what will become of an order that the bank did not answer in time."""
    try:
        yield
    except BankAway as away:
        text = text if away.sent else "nothing was done; try again later"
        raise BankAway(f"{away}; {text}", sent=away.sent) from away


class Dialogue:
    """One person at one machine."""

    def __init__(self, atm: Atm, terminal: Terminal) -> None:
        self._atm = atm
        self._terminal = terminal
        self._account = self._pin = ""
        self._frozen = False  # the account in use
        self._listening: tasklet | None = None  # who waits for the person
        self._choices: dict[str, Callable[[], None]] = {
            "balance": self._balance,
            "deposit": self._deposit,
            "withdraw": self._withdraw,
            "transfer": self._transfer,
            "statement": self._statement,
        }

    def on_frozen(self, account: str) -> None:
        """Hear that an account was locked: whoever is using it here is interrupted (ATM-10)."""
        if account == self._account:
            self._frozen = True
            if self._listening is not None:
                self._listening.throw(AccountFrozen, pending=True)

    def run(self) -> None:
        """Serve until the person quits or the input ends. Blocks. Raises ClickException for a script."""
        try:
            while not self._or_again(self._identify):
                pass
            while self._or_again(self._serve):
                pass
        except EOFError:
            pass
        except AccountFrozen:
            self._terminal.say(f"Account {self._account} has just been locked by the bank; ask there.")
        self._leave()

    def _or_again(self, step: Callable[[], bool]) -> bool:
        """Do one step; after a mistake, say what it was and let a person go on as if it had returned True."""
        try:
            return step()
        except (Mistake, BankAway, Jammed) as trouble:
            if not self._terminal.is_person:
                raise click.ClickException(f"{trouble}{self._left_open()}") from trouble
            self._terminal.say(str(trouble))
            return step == self._serve

    def _identify(self) -> bool:
        self._account = self._question("Account")
        self._pin = self._question("Pin", secret=True)
        reply = self._ask(Balance(self._account, self._pin))
        if isinstance(reply, Declined):
            raise Mistake(f"Declined: {SENTENCES[reply.reason]}")
        self._tell(reply)
        return True

    def _question(self, question: str, *, secret: bool = False) -> str:
        if self._frozen:
            raise AccountFrozen
        self._listening = getcurrent()
        try:
            return self._terminal.ask(question, secret=secret)
        finally:
            self._listening = None

    def _serve(self) -> bool:
        """Do one thing; False when the person quits."""
        word = self._question(f"What next ({', '.join(self._choices)}, quit)").strip().lower()
        known = [choice for choice in (*self._choices, "quit") if word and choice.startswith(word)]
        if len(known) != 1:
            raise Mistake(f"{word!r} is not on offer; type one of {', '.join(self._choices)}, quit")
        if known[0] == "quit":
            return False
        self._choices[known[0]]()
        return True

    def _balance(self) -> None:
        self._tell(self._ask(Balance(self._account, self._pin)))

    def _deposit(self) -> None:
        amount = self._ask_amount()
        with promise("your cash is kept and booked when the bank is back"):
            reply = self._atm.deposit(self._account, amount)
        self._tell(reply, f"Taken in {format_amount(amount)}. ")

    def _withdraw(self) -> None:
        amount = self._ask_amount()
        with promise("nothing was paid out; if it was booked, that is undone when the bank is back"):
            reply = self._atm.withdraw(self._account, self._pin, amount)
        self._tell(reply, f"Here are {format_amount(amount)}. ")

    def _transfer(self) -> None:
        to = self._question("To which account")
        amount = self._ask_amount()
        reply = self._ask(Transfer(self._account, self._pin, to, amount), "it is done when the bank is back")
        self._tell(reply, f"Moved {format_amount(amount)} to {to}. ")

    def _statement(self) -> None:
        reply = self._ask(Statement(self._account, self._pin, None))
        if isinstance(reply, Extract):
            for line in reply.lines:
                amount = format_amount(line.amount)
                self._terminal.say(f"{line.booked:%Y-%m-%d %H:%M}  {line.kind:<10}{amount:>20}")
        self._tell(reply)

    def _ask(self, order: Order, promised: str = "try again later") -> Reply:
        with promise(promised):
            return self._atm.ask(order)

    def _ask_amount(self) -> int:
        while True:
            text = self._question("Amount")
            try:
                return parse_amount(text)
            except ValueError as error:
                if not self._terminal.is_person:
                    raise Mistake(str(error)) from error
                self._terminal.say(str(error))

    def _tell(self, reply: Reply, done: str = "") -> None:
        match reply:
            case Ok(balance=balance) | Extract(balance=balance):
                self._terminal.say(f"{done}Balance: {format_amount(balance)}")
            case Declined(reason=reason):
                self._terminal.say(f"Declined: {SENTENCES[reason]}")
            case Error(text=text):
                raise Mistake(f"The bank did not take it: {text}")
            case _:
                raise AssertionError(f"not an answer to what was asked: {reply!r}")

    def _leave(self) -> None:
        """Settle what is open; what cannot be is said, for nobody will come back to it."""
        try:
            self._atm.settle()
        except BankAway as away:
            raise click.ClickException(f"{away}{self._left_open()}") from away
        self._terminal.say("Goodbye.")

    def _left_open(self) -> str:
        """Name what this machine will not set right, because it ends here."""
        orders = ", ".join(type(order).__name__ for order in self._atm.unsettled)
        return (
            f"; but this machine ends now, with {orders} open: compare with your next statement"
            if orders
            else ""
        )
