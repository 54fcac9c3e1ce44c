"""What `make demo` runs: both examples in three places, and whether all of them agree.

    python -m examples.demo

The places are this process, two child processes, and two nodes over TCP, which the demonstration starts and
ends itself. The exit code is 0 only when every place gives the same answer, and the right one.
"""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import click
from rich.table import Table

from examples.console import debug_option, err, out, run_program
from examples.nodes import open_nodes
from examples.primes.search import find_primes
from examples.primes.tally import Tally, open_bar
from net import open_place

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
    with _ended_by_sigterm(), open_nodes(2) as addresses:
        places = ["here", "processes:2", f"hosts:{','.join(addresses)}"]
        out.print(f"Prime search: how many primes are there in [{LO}, {HI})?")
        rows = [search(place) for place in places]
        out.print(table_of(rows))
        check(rows)


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
    table = Table("place", title=None)
    for heading in ("primes", "last", "seconds", "speed-up"):
        table.add_column(heading, justify="right")
    for row in rows:
        faster = rows[0].seconds / row.seconds
        table.add_row(row.place, str(row.count), str(row.last), f"{row.seconds:.2f}", f"{faster:.2f} x")
    return table


def check(rows: Sequence[Row]) -> None:
    """Raise Disagreement unless every row has the known answer."""
    wrong = [row for row in rows if (row.count, row.last) != (COUNT, LAST)]
    if wrong:
        found = "; ".join(f"{row.place} found {row.count}, the last one {row.last}" for row in wrong)
        raise Disagreement(
            f"there are {COUNT} primes in [{LO}, {HI}), the last one {LAST}, but {found}; please report this"
        )


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the program as Ctrl-C does, so that the nodes are ended too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    run_program(main)
