"""The books after a demo: what the machines saw beside what the bank wrote, and whether the two agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from examples.atm.demo import Outcome
from examples.atm.money import format_amount

if TYPE_CHECKING:
    from examples.atm.simulate import Day


class Comparison:
    """The machines' numbers and the bank's, made comparable."""

    def __init__(self, outcome: Outcome) -> None:
        before, after, tallies = outcome.before, outcome.after, outcome.tallies
        self.ok = _both((tally.ok for tally in tallies), before.ok, after.ok)
        self.declined = _both((tally.declined for tally in tallies), before.declined, after.declined)
        self.asked_again = sum(tally.asked_again for tally in tallies)
        self.repeats = after.repeats - before.repeats
        self.opening = before.customers
        self.taken_in = sum(tally.taken_in for tally in tallies)
        self.paid_out = sum(tally.paid_out for tally in tallies)
        self.closing = after.customers
        self.faults = self._find_faults(after.faults)

    def _find_faults(self, of_the_bank: tuple[str, ...]) -> list[str]:
        faults = list(of_the_bank)
        for what, counts in (("Ok", self.ok), ("declined", self.declined)):
            faults += [
                f"{what} {name}: the machines counted {seen}, the bank {written}"
                for name, (seen, written) in counts.items()
                if seen != written
            ]
        expected = self.opening + self.taken_in - self.paid_out
        if expected != self.closing:
            faults.append(f"{format_amount(self.closing - expected)} came from nowhere or went there")
        return faults


def make_tables(comparison: Comparison) -> list[Table]:
    """Lay out the books as two tables."""
    answers = Table("answer", "at the machines", "in the ledger", title="Every answer counted")
    for column in answers.columns[1:]:
        column.justify = "right"
    for what, counts in (("Ok", comparison.ok), ("Declined:", comparison.declined)):
        for name, (seen, written) in sorted(counts.items()):
            answers.add_row(f"{what} {name}", str(seen), str(written))
    answers.add_row("came again, answered from the journal", "", str(comparison.repeats), end_section=True)

    money = Table("", "", title="Money conserved", show_header=False)
    money.columns[1].justify = "right"
    money.add_row("opening total", format_amount(comparison.opening))
    money.add_row("+ cash taken in by the machines", format_amount(comparison.taken_in))
    money.add_row("- cash paid out by the machines", format_amount(comparison.paid_out), end_section=True)
    money.add_row("closing total in the ledger", format_amount(comparison.closing))
    return [answers, money]


def make_day_table(day: Day, comparison: Comparison) -> Table:
    """Lay out what the network went through, and how it looked from outside."""
    table = Table("", "", title="The day", show_header=False)
    table.columns[1].justify = "right"
    faults = Counter(fault.what for fault in day.faults)
    for words, what in (("bank killed", "kill"), ("bank hung", "hang"), ("lines cut", "cut")):
        table.add_row(words, str(faults[what]))
    done, refused = (sum(seen for seen, _ in part.values()) for part in (comparison.ok, comparison.declined))
    table.add_section()
    table.add_row("visits", str(len(day.seconds)))
    table.add_row("orders answered", str(done + refused))
    table.add_row("sent again by the machines", str(comparison.asked_again))
    table.add_row("came again, answered from the journal", str(comparison.repeats))
    table.add_row("visits that ended without an answer", str(day.gave_up))
    table.add_section()
    table.add_row("p50 of a visit", quantile(day.seconds, 50))
    table.add_row("p99 of a visit", quantile(day.seconds, 99))
    return table


def _both(
    seen: Iterable[Mapping[str, int]], before: Mapping[str, int], after: Mapping[str, int]
) -> dict[str, tuple[int, int]]:
    """Name -> (what the machines counted, what the bank wrote since `before`)."""
    counted: Counter[str] = Counter()
    for one in seen:
        counted.update(one)
    written = {name: count - before.get(name, 0) for name, count in after.items()}
    names = sorted(name for name in counted.keys() | written.keys() if counted[name] or written.get(name))
    return {name: (counted[name], written.get(name, 0)) for name in names}


def quantile(seconds: Sequence[float], percent: int) -> str:
    """Say how long the given part of the visits took at most."""
    if not seconds:
        return "-"
    return f"{1e3 * sorted(seconds)[min(len(seconds) - 1, len(seconds) * percent // 100)]:.1f} ms"
