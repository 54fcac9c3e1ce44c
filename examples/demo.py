"""What `make demo` runs: both examples in three places, and whether all of them agree.

    python -m examples.demo

The places are this process, two child processes, and two nodes over TCP, which the demonstration starts and
ends itself. The exit code is 0 only when every place gives the same answer, and the right one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import click
from rich.table import Table

from examples.atm.demo import run_demo
from examples.atm.money import format_amount
from examples.atm.report import Comparison
from examples.console import debug_option, err, out, run_program
from examples.nodes import open_nodes
from examples.primes.search import find_primes
from examples.primes.tally import Tally, open_bar
from net import open_place

ATMS, CUSTOMERS, SEED = 4, 100, 1

LO, HI = 1, 2_000_000
COUNT, LAST = 148_933, 1_999_993  # known from tables of primes


class Disagreement(click.ClickException):
    """The places do not agree, or not with what is known."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the prime search gave in one place."""

    place: str
    count: int
    last: int | None
    seconds: float


@click.command()
@debug_option
def main() -> None:
    """Run the prime search and the ATM network in one process, in two processes and on two nodes over TCP."""
    with open_nodes(2) as addresses:
        places = ["here", "processes:2", f"hosts:{','.join(addresses)}"]
        out.print(f"Prime search: how many primes are there in [{LO}, {HI})?")
        rows = [search(place) for place in places]
        out.print(table_of(rows))
        out.print(
            f"ATM network: {ATMS} machines with {CUSTOMERS} customers each; what they saw / the ledger says."
        )
        books = {place: balance(place) for place in places}
        out.print(books_of(books))
    check(rows)
    check_books(books)
    out.print("Every place found the same primes, and in each the books balance.")


def search(place_name: str) -> Row:
    """Search the range in one place. The seconds begin when the place is open."""
    tally = Tally()
    with open_place(place_name) as place, open_bar(err, HI - LO, wanted=err.is_terminal) as bar:
        started = perf_counter()
        for answer in find_primes(place, LO, HI):
            tally.add(answer)
            bar.show(tally)
        seconds = perf_counter() - started
    return Row(place_name, tally.total.primes, tally.last, seconds)


def table_of(rows: Sequence[Row]) -> Table:
    """Lay the rows out, each with its speed-up over the first."""
    table = Table()
    table.add_column("place", no_wrap=True)
    for heading in ("primes", "last", "seconds", "speed-up"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        faster = rows[0].seconds / row.seconds
        place = row.place.replace(",", ",\n")  # a line for each host
        table.add_row(place, str(row.count), str(row.last), f"{row.seconds:.2f}", f"{faster:.2f} x")
    return table


def check(rows: Sequence[Row]) -> None:
    """Raise Disagreement unless every row has the known answer."""
    wrong = [row for row in rows if (row.count, row.last) != (COUNT, LAST)]
    if wrong:
        found = "; ".join(f"{row.place} found {row.count}, the last one {row.last}" for row in wrong)
        raise Disagreement(
            f"there are {COUNT} primes in [{LO}, {HI}), the last one {LAST}, but {found}; please report this"
        )


def balance(place_name: str) -> Comparison:
    """Let the same customers use the ATM network in one place, and compare the machines with the ledger."""
    with TemporaryDirectory(prefix="atm-demo-") as folder:
        path = Path(folder).absolute() / "bank.sqlite"
        return Comparison(run_demo(place_name, path, ATMS, CUSTOMERS, SEED, lambda served: None))


def books_of(books: Mapping[str, Comparison]) -> Table:
    """Lay the books out side by side, one place a column."""
    table = Table()
    table.add_column("answer", no_wrap=True)
    for place in books:
        table.add_column(place.partition(":")[0], justify="right", no_wrap=True)
    each = list(books.values())
    for what, counts in (("Ok", [one.ok for one in each]), ("Declined,", [one.declined for one in each])):
        for name in sorted(set().union(*counts)):
            seen = (count.get(name, (0, 0)) for count in counts)
            table.add_row(f"{what} {name}", *(f"{machines} / {ledger}" for machines, ledger in seen))
        table.add_section()
    table.add_row("opening total", *(format_amount(one.opening) for one in each))
    table.add_row("+ cash taken in", *(format_amount(one.taken_in) for one in each))
    table.add_row("- cash paid out", *(format_amount(one.paid_out) for one in each))
    table.add_row("closing total in the ledger", *(format_amount(one.closing) for one in each))
    table.add_row("money conserved", *("NO" if one.faults else "yes" for one in each))
    return table


def check_books(books: Mapping[str, Comparison]) -> None:
    """Raise Disagreement unless the books of every place balance."""
    faults = [f"{place}: {fault}" for place, one in books.items() for fault in one.faults]
    if faults:
        raise Disagreement(f"the books do not balance: {'; '.join(faults)}; please report this")


if __name__ == "__main__":
    run_program(main)
