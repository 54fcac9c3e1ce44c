"""A network of one process in which a seed decides what goes wrong: a thousand days that can be had again.

ATM-04..09, ATM-13. Time is virtual. The line loses requests, loses answers, doubles, delays and breaks; the bank is
killed anywhere, also in the middle of a group, and comes back on what its file holds. TASKLETS_FULL=1 runs all
thousand seeds.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from examples.atm.atm import Atm, BankAway, Drawer, Jammed
from examples.atm.bank import Bank
from examples.atm.customers import serve_one
from examples.atm.ledger import Ledger, open_ledger
from examples.atm.messages import Attach, Declined, Error, Reply, Request
from net.errors import PeerLost, PeerUnreachable
from tasklets import channel, nursery, sleep, tasklet
from tasklets.testing import virtual_clock
from tests.examples.atm.conftest import QUICK

SEEDS = 100 if os.environ.get("TASKLETS_FULL") else 60  # in a block
BLOCKS = 10 if os.environ.get("TASKLETS_FULL") else 1
PINS = {"alice": "1111", "bob": "2222", "carol": "3333"}
ATMS, CUSTOMERS = 4, 12


class Network:
    """A bank that can be killed, and lines to it."""

    def __init__(self, path: Path, dice: Random) -> None:
        self._path = path
        self._dice = dice
        self.kills = 0
        self._start()

    def _start(self) -> None:
        self._opened = open_ledger(self._path, pin_cost=QUICK)
        self.ledger: Ledger = self._opened.__enter__()
        self.ledger.database.commit_waits = True  # type: ignore[misc]  # so that a kill may come before it
        self.requests = channel(64, copy=True)
        bank = Bank(self.ledger, self._work, apart=self._disk)
        tasklet(bank.serve)(self.requests)
        self.is_up = True

    def _work(self, _request: Request) -> None:
        if self._dice.random() < 0.3:
            sleep(self._dice.uniform(0, 0.05))  # so that requests overlap

    def _disk(self, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Any:
        ledger = self.ledger
        sleep(self._dice.uniform(0, 0.02))  # a kill may come here: taken, not written, not answered
        if ledger is not self.ledger or not self.is_up:
            _gone()
        return function(*args)

    def kill(self) -> None:
        """End the bank between two switches of its tasklets; what it had not committed is gone."""
        self.kills += 1
        self.is_up = False
        self.requests.close()
        dead = self.ledger
        # What the dead bank's tasklets still do is done to nothing: a process that is gone writes no more.
        dead.database.rollback()
        self._opened.__exit__(None, None, None)
        dead.take = dead.commit = dead.begin = _gone  # type: ignore[method-assign, assignment]

    def restart(self) -> None:
        self._start()

    def dial(self) -> Line:
        if not self.is_up or self._dice.random() < 0.05:
            raise PeerUnreachable("nobody answers")
        return Line(self, self._dice)


def _gone(*_args: object) -> None:
    sleep(1e6)  # as a killed process: neither an answer nor an error


class Line:
    """One connection."""

    def __init__(self, network: Network, dice: Random) -> None:
        self._network = network
        self._requests = network.requests
        self._dice = dice

    def send(self, request: Request | Attach, /) -> None:
        luck = self._dice.random()
        if luck < 0.04 or self._requests is not self._network.requests or not self._network.is_up:
            raise PeerLost("the line broke", outcome="unknown")
        if luck < 0.08:
            return  # lost on the way
        if luck < 0.14 and isinstance(request, Request):
            request = replace(request, reply=channel(1, copy=True))  # the answer gets lost
        sleep(self._dice.uniform(0, 0.1))
        if self._requests.closing:
            raise PeerLost("the line broke", outcome="unknown")
        self._requests.send(request)
        if luck > 0.94:
            self._requests.send(request)
        if 0.90 < luck < 0.94:
            raise PeerLost("the line broke after all had arrived", outcome="unknown")


class Worn(Drawer):
    def __init__(self, dice: Random) -> None:
        super().__init__()
        self._dice = dice

    def pay_out(self, amount: int) -> None:
        if self._dice.random() < 0.1:
            raise Jammed("the notes did not come out")
        super().pay_out(amount)


def live(path: Path, seed: int) -> tuple[Network, list[Atm], list[Reply]]:
    """Let machines work until all their customers were served, while the bank is killed now and then."""
    dice = Random(seed)
    random.seed(seed)  # how long machines pause
    seen: list[Reply] = []
    network = Network(path, dice)
    for name, pin in PINS.items():
        network.ledger.open_account(name, pin, 100_00)
    machines = [
        Atm(
            f"atm-{number}",
            network.dial,
            Worn(dice),
            on_answer=lambda order, reply: seen.append(reply),
            patience=2.0,
        )
        for number in range(ATMS)
    ]

    def customers(atm: Atm) -> None:
        for _ in range(CUSTOMERS):
            try:
                serve_one(atm, dice, PINS)
            except (BankAway, Jammed):
                pass
            sleep(dice.uniform(0, 0.2))
        while atm.unsettled:
            try:
                atm.settle()
            except BankAway:
                pass

    def misfortune() -> None:
        while True:
            sleep(dice.uniform(0.2, 3))
            network.kill()
            sleep(dice.uniform(0, 3))
            network.restart()

    with nursery() as home:
        bad_luck = home.start(misfortune)
        working = [home.start(customers, atm) for atm in machines]
        for one in working:
            one.result()
        bad_luck.kill()
    if not network.is_up:
        network.restart()
    return network, machines, seen


@pytest.mark.parametrize("block", range(BLOCKS))
def test_whatever_goes_wrong_every_answer_is_in_the_books_once_and_money_is_conserved(
    tmp_path: Path, block: int
) -> None:
    kills = answers = 0
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        with virtual_clock():
            network, machines, seen = live(tmp_path / f"{seed}.sqlite", seed)
            kills += network.kills
            answers += len(seen)
            check(network.ledger, machines, seen, seed)
            network.kill()
        for file in tmp_path.glob(f"{seed}.sqlite*"):
            file.unlink()
    assert kills > SEEDS
    assert answers > 20 * SEEDS


def check(ledger: Ledger, machines: list[Atm], seen: list[Reply], seed: int) -> None:
    assert ledger.faults() == (), f"seed {seed}"
    for reply in seen:
        assert not isinstance(reply, Error), f"seed {seed}: {reply}"
        rows = ledger._db.execute(
            "SELECT reason, balance FROM transactions WHERE txn = ?", (reply.txn,)
        ).fetchall()
        assert len(rows) == 1, f"seed {seed}: {reply} is {len(rows)} times in the books"
        ((reason, balance),) = rows
        assert (reason is None) == (not isinstance(reply, Declined)), f"seed {seed}: {reply}"
        assert balance == getattr(reply, "balance", None), f"seed {seed}: {reply}"
    taken_in = sum(atm.drawer.taken_in for atm in machines)
    paid_out = sum(atm.drawer.paid_out for atm in machines)
    assert ledger.books().customers == 300_00 + taken_in - paid_out, f"seed {seed}"


def test_a_seed_gives_the_same_day_again(tmp_path: Path) -> None:
    days = []
    for number in range(2):
        with virtual_clock():
            network, machines, seen = live(tmp_path / f"{number}.sqlite", 5)
            days.append(
                (
                    network.kills,
                    [atm.drawer.paid_out for atm in machines],
                    [getattr(r, "balance", None) for r in seen],
                )
            )
            network.kill()
    assert days[0] == days[1]
