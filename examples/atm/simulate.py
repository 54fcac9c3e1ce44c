"""A day in the network: hundreds of machines, a thousand customers, and what goes wrong meanwhile.

The bank is a process, the machines are tasklets in four others, this process watches, and breaks things. The day
is short: customers come as they do in a day, many at noon and few at its ends, but within seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from random import Random
from time import monotonic

import net
from examples.atm.atm import Atm, BankAway, Jammed, dial
from examples.atm.customers import BadLine, Tally, WornDrawer, serve_one
from examples.atm.demo import OPENING, Outcome, audit
from examples.atm.faults import BankProcess, Fault, Wire, misfortune
from examples.atm.messages import Declined, Deposit, Ok, Open, Opened, Order, Reply
from examples.atm.money import CURRENCY
from tasklets import channel, message, nursery, sleep, tasklet

PROCESSES = 4  # that the machines are in
VISITS = 5  # of each customer, at one machine or another
OFFICES = 16  # that open accounts side by side
NEWS_SECONDS = 0.25  # between two reports of a crew
CLOSING_PATIENCE = 60.0  # seconds for what the day left open


@message(name="atm.Visits")
class Visits:
    """What a crew of machines has seen since its last report: one entry for each visit."""

    moments: tuple[float, ...]  # monotonic seconds, when it began
    seconds: tuple[float, ...]  # how long it took
    gave_up: int  # visits that ended with the bank away


@dataclass(slots=True)
class Day:
    """What came of it."""

    outcome: Outcome
    began: float
    moments: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    gave_up: int = 0
    faults: list[Fault] = field(default_factory=list)


def simulate(
    ledger: str,
    *,
    atms: int,
    customers: int,
    seconds: float,
    seed: int,
    with_faults: bool,
    opened: Callable[[int], object] = lambda accounts: None,
    visited: Callable[[int], object] = lambda visits: None,
    happened: Callable[[str], object] = lambda what: None,
) -> Day:
    """Run a day of `seconds`. Blocks. Raises BankFailed, and PeerLost when a process of machines dies."""
    dice = Random(seed)
    with closing(BankProcess(ledger)) as bank, closing(Wire(bank)) as wire:
        pins = open_accounts(wire.url, customers, dice, opened)
        office = Atm("head office", dial(wire.url), patience=CLOSING_PATIENCE)
        before = audit(office)
        with net.open_place(f"processes:{PROCESSES}") as place:
            reports = place.channel(64, "reports of the machines")
            began = monotonic() + 0.5
            crews = [
                place.spawn(run_crew, wire.url, number, atms, customers, seed, pins, began, seconds, reports)
                for number in range(min(PROCESSES, atms))
            ]
            day = Day(Outcome(before, before, (), 0.0), began)
            with nursery() as home:
                if with_faults:
                    told = Faults(happened)
                    home.start(misfortune, bank, wire, dice, began + 0.9 * seconds, told)
                    day.faults = told
                tallies = collect(reports, crews, atms, day, visited)
            for crew in crews:
                crew.join()
            outcome = Outcome(before, audit(office), tallies, monotonic() - began)
    day.outcome = outcome
    return day


class Faults(list[Fault]):
    """Faults, each told as it is added."""

    def __init__(self, happened: Callable[[str], object]) -> None:
        super().__init__()
        self._happened = happened

    def append(self, fault: Fault) -> None:
        """Add a fault and tell it."""
        super().append(fault)
        words = {
            "kill": "the bank was killed, and started again",
            "hang": "the bank hung",
            "cut": "a line was cut",
        }
        self._happened(words[fault.what])


def open_accounts(
    url: str, customers: int, dice: Random, opened: Callable[[int], object]
) -> Mapping[str, str]:
    """Open an account for each customer, some side by side; return name -> pin. Blocks."""
    pins: dict[str, str] = {}
    waiting = iter([f"{dice.randint(1, 9999):04d}" for _ in range(customers)])  # not 0000, the wrong one

    def work(office: Atm) -> None:
        for pin in waiting:
            reply = office.ask(Open(f"customer {len(pins)}", pin, CURRENCY))
            assert isinstance(reply, Opened), reply
            pins[reply.account] = pin
            assert isinstance(office.ask(Deposit(reply.account, OPENING)), Ok)
            opened(1)

    with nursery() as home:
        for number in range(OFFICES):
            home.start(work, Atm(f"office {number}", dial(url), patience=CLOSING_PATIENCE))
    return pins


def collect(
    reports: channel, crews: list[net.Spawned], atms: int, day: Day, visited: Callable[[int], object]
) -> tuple[Tally, ...]:
    """Take in what the crews report until every machine has told its tally. Blocks."""

    def watch(crew: net.Spawned) -> None:
        try:
            crew.join()
        except net.PeerLost as lost:
            reports.send(lost)  # the tallies of its machines will never come

    watchers = [tasklet(watch)(crew) for crew in crews]
    tallies: list[Tally] = []
    while len(tallies) < atms:
        match reports.receive():
            case Visits(moments, seconds, gave_up):
                day.moments += moments
                day.seconds += seconds
                day.gave_up += gave_up
                visited(len(moments))
            case Tally() as tally:
                tallies.append(tally)
            case net.PeerLost() as lost:
                raise lost
    for watcher in watchers:
        watcher.kill()
    return tuple(sorted(tallies, key=lambda tally: tally.atm))


# -- a crew: the machines of one process


def run_crew(
    url: str,
    number: int,
    atms: int,
    customers: int,
    seed: int,
    pins: Mapping[str, str],
    began: float,
    seconds: float,
    reports: channel,
) -> None:
    """Let every PROCESSES-th machine work from the moment `began` on. Blocks until all are done."""
    crew = Crew(reports)
    with nursery() as home:
        for machine in range(number, atms, PROCESSES):
            visits = VISITS * customers // atms + (machine < VISITS * customers % atms)
            people = Random(f"{seed} machine {machine}")
            moments = sorted(began + seconds * people.betavariate(2, 2) for _ in range(visits))
            home.start(crew.run_machine, f"atm-{machine + 1}", url, people, moments, pins)
        home.start(crew.report, len(range(number, atms, PROCESSES)))


class Crew:
    """The machines of this process, and what they have to report."""

    def __init__(self, reports: channel) -> None:
        self._reports = reports
        self._moments: list[float] = []
        self._seconds: list[float] = []
        self._gave_up = 0
        self._tallies: list[Tally] = []

    def run_machine(
        self, name: str, url: str, people: Random, moments: list[float], pins: Mapping[str, str]
    ) -> None:
        """Serve a customer at each of these moments, or as soon as the one before is done."""
        ok: Counter[str] = Counter()
        declined: Counter[str] = Counter()

        def count(_order: Order, reply: Reply) -> None:
            if isinstance(reply, Declined):
                declined[reply.reason.value] += 1
            else:
                assert not hasattr(reply, "text"), reply  # an Error: the bank does not understand us
                ok[type(_order).__name__] += 1

        weather, drawer = Random(f"{name} weather"), WornDrawer(Random(f"{name} wear"))
        call = dial(url)
        atm = Atm(name, lambda: BadLine(call(), weather), drawer, on_answer=count)
        for moment in moments:
            sleep(max(0.0, moment - monotonic()))
            arrived = monotonic()
            try:
                serve_one(atm, people, pins)
            except (BankAway, Jammed):
                self._gave_up += 1  # the customer goes; the machine settles before it serves the next one
            self._moments.append(arrived)
            self._seconds.append(monotonic() - arrived)
        atm.patience = CLOSING_PATIENCE
        atm.settle()
        self._tallies.append(
            Tally(name, dict(ok), dict(declined), drawer.taken_in, drawer.paid_out, atm.asked_again)
        )

    def report(self, machines: int) -> None:
        """Report now and then, until every machine is done."""
        while machines:
            sleep(NEWS_SECONDS)
            self._reports.send(Visits(tuple(self._moments), tuple(self._seconds), self._gave_up))
            self._moments, self._seconds, self._gave_up = [], [], 0
            tallies, self._tallies = self._tallies, []
            for tally in tallies:
                self._reports.send(tally)
            machines -= len(tallies)
