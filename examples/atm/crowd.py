"""Machines that are used without end, for somebody to watch: `run_crowd` is placed in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from examples.atm.atm import Atm, BankAway, Jammed, dial
from examples.atm.customers import BadLine, WornDrawer, serve_one
from tasklets import nursery, sleep

MEAN_SECONDS = 1.5  # between two customers at a machine


def run_crowd(url: str, atms: int, pins: Mapping[str, str], seed: int) -> None:
    """Let customers use `atms` machines of the bank at `url`, for ever. Blocks."""
    with nursery() as home:
        for number in range(1, atms + 1):
            home.start(_run_machine, f"atm-{number}", url, pins, Random(f"{seed} {number}"))


def _run_machine(name: str, url: str, pins: Mapping[str, str], dice: Random) -> None:
    call = dial(url)
    atm = Atm(name, lambda: BadLine(call(), dice), WornDrawer(dice), on_frozen=lambda account: None)
    while True:
        sleep(dice.expovariate(1 / MEAN_SECONDS))
        try:
            serve_one(atm, dice, pins)
        except (BankAway, Jammed):
            pass  # the customer goes; the machine settles before it serves the next one
