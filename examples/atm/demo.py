"""The whole network at work: a bank, its machines, their customers, and afterwards the books.

Where all this runs is one word, `on`; nothing below depends on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import perf_counter

import net
from examples.atm.atm import Atm
from examples.atm.bank import serve_bank
from examples.atm.customers import PATIENCE, Tally, serve_customers
from examples.atm.messages import Audit, Books, Deposit, Ok, Open, Opened
from examples.atm.money import CURRENCY
from tasklets import channel, tasklet

ACCOUNTS = 10
OPENING = 200_00  # in each account


class NodeLost(Exception):
    """A process of the demo died."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the bank and the machines say, each for itself."""

    before: Books
    after: Books
    tallies: tuple[Tally, ...]
    seconds: float  # for the customers, without starting and opening accounts


def run_demo(
    on: str, path: Path, atms: int, transactions: int, seed: int, progress: Callable[[int], object]
) -> Outcome:
    """Run one bank and `atms` machines with `transactions` customers each, placed by `on`. Blocks."""
    with net.open_place(on) as place:
        requests = place.channel(name="requests to the bank")
        reports = place.channel(name="reports of the machines")
        bank = watch(place.spawn(serve_bank, requests, str(path)))
        office = Atm("head office", lambda: requests, patience=PATIENCE)
        pins = open_accounts(office, seed)
        before = audit(office)
        began = perf_counter()
        for number in range(1, atms + 1):
            machine = f"atm-{number}", seed, pins, transactions, requests, reports
            watch(place.spawn(serve_customers, *machine))
        tallies = collect(reports, atms, progress)
        seconds = perf_counter() - began
        after = audit(office)
        requests.close()
        bank.join()
    return Outcome(before, after, tallies, seconds)


def watch(spawned: net.Spawned) -> net.Spawned:
    """End the demo when what was spawned is lost with its process; its tally would never come."""

    def wait() -> None:
        try:
            spawned.join()
        except net.PeerLost as lost:
            # Not PeerLost: a machine takes that for a broken line, and tries again.
            raise NodeLost(f"the demo cannot go on without one of its processes: {lost}") from lost

    tasklet(wait)()
    return spawned


def open_accounts(office: Atm, seed: int) -> dict[str, str]:
    """Open the customers' accounts over the same channel as everything else; return name -> pin."""
    dice = Random(seed)
    pins = {}
    for number in range(1, ACCOUNTS + 1):
        pin = f"{dice.randint(1, 9999):04d}"  # not 0000: that is the wrong one
        opened = office.ask(Open(f"customer {number}", pin, CURRENCY))
        assert isinstance(opened, Opened), opened
        assert isinstance(office.ask(Deposit(opened.account, OPENING)), Ok)
        pins[opened.account] = pin
    return pins


def audit(office: Atm) -> Books:
    """Ask the bank for its books."""
    books = office.ask(Audit())
    assert isinstance(books, Books), books
    return books


def collect(reports: channel, atms: int, progress: Callable[[int], object]) -> tuple[Tally, ...]:
    """Wait for the tally of every machine, passing on how many customers were served meanwhile."""
    tallies: list[Tally] = []
    while len(tallies) < atms:
        report = reports.receive()
        if isinstance(report, Tally):
            tallies.append(report)
        else:
            progress(report)
    return tuple(sorted(tallies, key=lambda tally: tally.atm))
