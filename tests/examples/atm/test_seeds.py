"""A whole network in one process, in which a seed decides what goes wrong: a thousand days that can be had again.

ATM-04..09, ATM-13, T8.6. The bank and the machines are nodes of a memory network (net.testing): the real protocol, and
time that is virtual. Connections are cut in the middle of what they carry, nodes are parted from the others, lines lose
answers and double requests (BadLine), drawers jam; the bank is killed anywhere, also in the middle of a group, and
comes back on what its file holds. TASKLETS_FULL=1 runs all thousand seeds.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

import net
from examples.atm.atm import Atm, BankAway, Jammed, dial
from examples.atm.bank import Bank
from examples.atm.customers import BadLine, WornDrawer, serve_one
from examples.atm.ledger import Ledger, open_ledger
from examples.atm.messages import Declined, Error, Reply, Request
from net.testing import MemoryNetwork, memory_network
from tasklets import channel, sleep
from tests.examples.atm.conftest import QUICK

SEEDS = 100 if os.environ.get("TASKLETS_FULL") else 40  # in a block
BLOCKS = 10 if os.environ.get("TASKLETS_FULL") else 1
PINS = {"alice": "1111", "bob": "2222", "carol": "3333"}
BRANCHES, ATMS, CUSTOMERS = 2, 2, 12  # machines at a branch, customers at a machine
SECONDS = 8.0  # in which things go wrong
SETTINGS = net.Settings(patience=2.0, heartbeat=0.2, silence=1.0)


class Host:
    """The bank's host, whose process can be killed."""

    def __init__(self, network: MemoryNetwork, path: Path) -> None:
        self._network = network
        self._path = path
        self._dice = network.random
        self.kills = 0
        self.start()

    def start(self) -> None:
        self._opened = open_ledger(self._path, pin_cost=QUICK)
        self.ledger: Ledger = self._opened.__enter__()
        self.ledger.database.commit_waits = True  # type: ignore[misc]  # so that a kill may come before it
        self.ledger.database.execute("PRAGMA synchronous = OFF")  # processes die here, not machines
        self._network.run_at("bank", self._serve, self.ledger)
        self.is_up = True

    def _serve(self, ledger: Ledger) -> None:
        requests = channel(64, copy=True)
        before = self._work if self._network.seed % 2 else None  # each way that requests take in the bank
        with net.serve("tcp://bank:7000", bank=requests):
            Bank(ledger, before, apart=self._disk).serve(requests)

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
        dead = self.ledger
        # What the dead bank's tasklets still do is done to nothing: a process that is gone writes no more.
        dead.database.rollback()
        self._opened.__exit__(None, None, None)
        dead.take = dead.commit = dead.begin = _gone  # type: ignore[method-assign, assignment]
        self._network.kill("bank")

    def misfortune(self) -> None:
        """Kill the bank again and again, and start it again."""
        while self._network.clock.now < SECONDS:
            sleep(self._dice.uniform(0.2, 3))
            self.kill()
            sleep(self._dice.uniform(0, 2))
            self.start()


def _gone(*_args: object) -> None:
    sleep(1e6)  # as a killed process: neither an answer nor an error


@contextmanager
def without_collector() -> Iterator[None]:
    """References that the collector drops tell their homes so: for a seed to repeat itself they must not."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def day(path: Path, seed: int) -> Iterator[tuple[MemoryNetwork, Host, list[Atm], list[Reply]]]:
    """Let machines work until all their customers were served, whatever goes wrong."""
    random.seed(seed)  # how long machines pause
    with without_collector(), memory_network(seed, settings=SETTINGS) as network:
        host = Host(network, path)
        for name, pin in PINS.items():
            host.ledger.open_account(name, pin, 100_00)
        seen: list[Reply] = []
        machines: list[Atm] = []

        def work(name: str) -> None:
            dice, call = Random(f"{seed} {name}"), dial("tcp://bank:7000/bank")
            atm = Atm(
                name,
                lambda: BadLine(call(), dice),
                WornDrawer(dice),
                on_answer=lambda order, reply: seen.append(reply),
            )
            machines.append(atm)
            for _ in range(CUSTOMERS):
                try:
                    serve_one(atm, dice, PINS)
                except (BankAway, Jammed):
                    pass
                sleep(dice.uniform(0, 1))
            while atm.unsettled:
                try:
                    atm.settle()
                except BankAway:
                    pass

        working = [
            network.run_at(f"branch {branch}", work, f"atm-{branch}-{number}")
            for branch in range(BRANCHES)
            for number in range(ATMS)
        ]
        network.trouble(cuts=15, partitions=3, seconds=SECONDS)
        bad_luck = network.run_at("fate", host.misfortune)
        while bad_luck.alive or any(one.alive for one in working):
            sleep(0.1)
        yield network, host, machines, seen
        host.kill()


@pytest.mark.timeout(600)  # in full size on a busy machine
@pytest.mark.parametrize("block", range(BLOCKS))
def test_whatever_goes_wrong_every_answer_is_in_the_books_once_and_money_is_conserved(
    tmp_path: Path, block: int
) -> None:
    kills = cuts = answers = 0
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        with day(tmp_path / f"{seed}.sqlite", seed) as (network, host, machines, seen):
            check(host.ledger, machines, seen, seed)
            kills, cuts, answers = kills + host.kills, cuts + network.cuts, answers + len(seen)
        for file in tmp_path.glob(f"{seed}.sqlite*"):
            file.unlink()
    assert kills > SEEDS
    assert cuts > 5 * SEEDS
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
        with day(tmp_path / f"{number}.sqlite", 5) as (network, host, machines, seen):
            days.append(
                (
                    (network.clock.now, network.cuts, host.kills),
                    [atm.drawer.paid_out for atm in machines],
                    [getattr(reply, "balance", None) for reply in seen],
                )
            )
    assert days[0] == days[1]
