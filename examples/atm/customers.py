"""Scripted customers: what people do at a cash machine, mistakes included, over a line that misbehaves.

    serve_customers("atm-1", 7, {"1001": "4711"}, 100, requests, reports)

Sends to `reports` the number of customers served, every now and then, and a Tally at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from random import Random

from examples.atm.atm import Atm, Drawer, Jammed, Line
from examples.atm.messages import Attach, Balance, Declined, Error, Order, Reply, Request, Statement, Transfer
from tasklets import channel, message

DOUBLED = 0.05  # the part of requests that the line delivers twice
UNANSWERED = 0.02  # the part whose answer the line loses
JAMS = 0.02  # the part of payouts that jam
ASK_AGAIN = 0.2  # seconds; short, because the answers that the line loses are the only reason to wait
PATIENCE = 60.0  # seconds: on a busy machine the demo is slow, not wrong
NEWS = 10  # customers between two reports


@message(name="atm.Tally")
class Tally:
    """What one machine saw, to be compared with the bank's books."""

    atm: str
    ok: Mapping[str, int]  # kind of order -> how many were done
    declined: Mapping[str, int]  # reason -> how many
    taken_in: int
    paid_out: int
    asked_again: int


class BadLine:
    """A line to the bank that delivers some requests twice and loses some answers."""

    def __init__(self, bank: Line, dice: Random) -> None:
        self._bank = bank
        self._dice = dice

    def send(self, request: Request | Attach, /) -> None:
        """Hand the request to the bank, for better or worse."""
        if isinstance(request, Attach):
            self._bank.send(request)
            return
        luck = self._dice.random()
        if luck < UNANSWERED:
            request = replace(request, reply=channel(1, "where answers get lost", copy=True))
        self._bank.send(request)
        if luck > 1 - DOUBLED:
            self._bank.send(request)


class WornDrawer(Drawer):
    """A drawer that jams now and then."""

    def __init__(self, dice: Random) -> None:
        super().__init__()
        self._dice = dice

    def pay_out(self, amount: int) -> None:
        """Hand out notes, or raise Jammed."""
        if self._dice.random() < JAMS:
            raise Jammed("the notes did not come out")
        super().pay_out(amount)


def serve_customers(
    name: str, seed: int, pins: Mapping[str, str], transactions: int, requests: Line, reports: channel
) -> None:
    """Let `transactions` customers, drawn by `seed`, use one machine. Blocks."""
    # Each has dice of its own: how long an answer takes does not change what the next customer wants.
    people, weather, wear = (Random(f"{seed} {name} {what}") for what in ("people", "weather", "wear"))
    ok: Counter[str] = Counter()
    declined: Counter[str] = Counter()

    def count(order: Order, reply: Reply) -> None:
        if isinstance(reply, Declined):
            declined[reply.reason.value] += 1
        elif isinstance(reply, Error):
            raise AssertionError(f"the bank does not understand {order}: {reply.text}")
        else:
            ok[type(order).__name__] += 1

    line = BadLine(requests, weather)
    drawer = WornDrawer(wear)
    atm = Atm(name, lambda: line, drawer, on_answer=count, patience=PATIENCE, ask_again=ASK_AGAIN)
    for served in range(1, transactions + 1):
        serve_one(atm, people, pins)
        if served % NEWS == 0:
            reports.send(NEWS)
    reports.send(transactions % NEWS)
    reports.send(Tally(name, dict(ok), dict(declined), drawer.taken_in, drawer.paid_out, atm.asked_again))


def serve_one(atm: Atm, dice: Random, pins: Mapping[str, str]) -> None:
    """Let one customer do one thing."""
    account, to = dice.choice(list(pins)), dice.choice(list(pins))
    pin, amount = pins[account], dice.randint(1, 60_00)
    match dice.random():  # one in thirty: each kind of mistake
        case luck if luck < 1 / 30:
            pin = "0000"
        case luck if luck < 2 / 30:
            amount = dice.choice([0, -amount])
        case luck if luck < 3 / 30:
            account = to = f"nobody|{account}"
        case luck if luck < 4 / 30:
            amount *= 20
    match dice.choices(["deposit", "withdraw", "transfer", "balance", "statement"], [30, 35, 20, 10, 5])[0]:
        case "deposit":
            atm.deposit(account, amount)
        case "withdraw":
            try:
                atm.withdraw(account, pin, amount)
            except Jammed:
                pass  # booked back already; the customer tries another machine
        case "transfer":
            atm.ask(Transfer(account, pin, to, amount))
        case "balance":
            atm.ask(Balance(account, pin))
        case _:
            atm.ask(Statement(account, pin, None))
