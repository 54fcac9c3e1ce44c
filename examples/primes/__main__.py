"""The command line of the prime search: `python -m examples.primes --help`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO, cast

import click

from examples.console import (
    credential_options,
    debug_option,
    err,
    insecure_option,
    on_option,
    run_program,
)
from examples.pictures import plot_option
from examples.primes.algorithms import ALGORITHMS, load_numpy
from examples.primes.backlog import Answer
from examples.primes.search import LEASE_SECONDS, find_primes
from examples.primes.tally import Tally, open_bar
from net import Place, open_place, serve
from tasklets import channel
from tasklets.clock import monotonic

EXAMPLES = """\b
Examples:
  python -m examples.primes 1 2000000
  python -m examples.primes 1 2000000 --on processes:2
  python -m examples.primes 1 100 --list -
  python -m examples.primes 1 1_000_000 --count --on processes:4
  python -m examples.primes 1 1_000_000_000 --count --algorithm numpy --on processes:2
\b
On two nodes, each started in a terminal (or on a machine) of its own:
  tasklets node --listen 127.0.0.1:7101
  tasklets node --listen 127.0.0.1:7102
  python -m examples.primes 1 2000000 --on hosts:127.0.0.1:7101,127.0.0.1:7102
\b
Kept in a store, from which the same command goes on after a crash:
  python -m examples.primes 1 20000000 --on processes:2 --store sqlite:///primes.db
\b
With whoever joins, and leaves again, while it runs:
  python -m examples.primes 1 20000000 --on nobody --listen tcp://127.0.0.1:7200
  python -m examples.primes.node tcp://127.0.0.1:7200/primes
\b
The same from other machines, which all have the file (tasklets secret cluster.secret makes one):
  python -m examples.primes 1 20000000 --listen tcp://0.0.0.0:7200 --secret-file cluster.secret
  python -m examples.primes.node tcp://alpha:7200/primes --secret-file cluster.secret
"""


class WholeNumber(click.ParamType[int]):
    """A whole number of any size; below zero too."""

    name = "number"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return `value` as an int. Raises click.BadParameter when it is none."""
        try:
            return int(str(value))
        except ValueError:
            if str(value).startswith("--"):
                self.fail(f"there is no option {value}", param, ctx)
            self.fail(f"{value!r} is not a whole number; write it like 2000000 or 2_000_000", param, ctx)


@click.command(
    epilog=EXAMPLES,
    # `-5` is a number here, not an unknown option.
    context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]},
)
@click.argument("lo", type=WholeNumber())
@click.argument("hi", type=WholeNumber())
@on_option
@click.option(
    "--listen",
    metavar="ADDRESS",
    help="Let other workers join at tcp://HOST:PORT while the search runs. With --on nobody, only they compute.",
)
@click.option(
    "--store",
    metavar="URL",
    help="Keep what was searched in sqlite:///FILE or redis://HOST/0: the same command goes on from there. With "
    "--on nobody, only the workers of that store compute.",
)
@credential_options
@insecure_option
@click.option(
    "--algorithm",
    type=click.Choice(list(ALGORITHMS)),
    default="trial",
    show_default=True,
    help="How a chunk is searched: trial division, by all odd numbers or by a wheel's; a sieve, in plain Python "
    "or with numpy.",
)
@click.option(
    "--check",
    metavar="PERCENT",
    type=click.FloatRange(0, 100),
    default=0.0,
    help="Test so many of the numbers by another method; a worker that is wrong gets no more work.",
)
@click.option(
    "--count", "only_count", is_flag=True, help="Print how many primes there are, and nothing else."
)
@click.option(
    "--list",
    "list_to",
    metavar="FILE",
    help="Write the primes to FILE, one a line, as they are found; - is stdout.",
)
@click.option(
    "--chunk",
    type=click.IntRange(min=1),
    help="Numbers in one piece of work. [default: what takes about 0.1 s]",
)
@click.option(
    "--window", type=click.IntRange(min=1), help="Chunks under way at most. [default: 8 for each worker]"
)
@click.option(
    "--unordered", is_flag=True, help="List each chunk as soon as it is found, not in rising order."
)
@click.option(
    "--lease",
    type=click.FloatRange(min=0, min_open=True),
    default=LEASE_SECONDS,
    show_default=True,
    help="Seconds without a sign of life after which a worker's chunks are done again.",
)
@plot_option("who computed which chunk when, and the speed-up")
@debug_option
def main(
    lo: int,
    hi: int,
    on: str,
    listen: str | None,
    store: str | None,
    insecure: bool,
    algorithm: str,
    check: float,
    only_count: bool,
    list_to: str | None,
    chunk: int | None,
    window: int | None,
    unordered: bool,
    lease: float,
    plot: Path | None,
) -> None:
    """Find the primes from LO up to, but not including, HI.

    The range is cut into chunks. Workers, one on each node of PLACE, fetch a chunk whenever they are ready
    for it; the results are put in order as they arrive. A worker that is killed in the middle costs time, no
    prime.
    """
    if only_count and list_to == "-":
        raise click.UsageError("--count and --list - both want stdout; give --list a file, or leave one out")
    if hi < lo:
        raise click.UsageError(
            f"the range ends at {hi}, before it starts at {lo}; give the smaller number first"
        )
    if store is not None and (listen or check or window):
        raise click.UsageError(
            "--listen, --check and --window are for a search without --store; leave them out"
        )
    if algorithm == "numpy":
        load_numpy()
    tally = Tally()
    record: list[Answer] = []
    bar_wanted = err.is_terminal and not (list_to == "-" and sys.stdout.isatty())
    with (
        _open_list(list_to) as listing,
        open_workers(on, listen or store) as place,
        _open_door(listen, insecure) as joins,
        open_bar(err, hi - lo, wanted=bar_wanted) as bar,
    ):
        started, started_at = perf_counter(), monotonic()
        what: Any = {"algorithm": algorithm, "chunk": chunk, "ordered": not unordered, "notice": _notice}
        if store is None:
            answers = find_primes(place, lo, hi, **what, window=window, lease=lease, check=check, joins=joins)
        else:
            from examples.primes.durable import (
                find_durably,
            )  # with what it needs, of which the rest needs nothing

            answers = find_durably(store, place, lo, hi, **what)
        for answer in answers:
            tally.add(answer)
            if plot is not None:
                record.append(replace(answer, primes=()))
            bar.show(tally)
            if listing is not None:
                listing.writelines(f"{prime}\n" for prime in answer.primes)
                listing.flush()  # a reader of a pipe gets each chunk as it comes
        seconds = perf_counter() - started
    if plot is not None:
        from examples.primes.plot import draw_search

        draw_search(record, started_at, plot)
        _notice(f"the picture is in {plot}")
    if only_count:
        click.echo(tally.total.primes)
    elif list_to != "-":
        click.echo(tally.summary(lo, hi, seconds))


class Nobody:
    """A place without nodes, for a search whose workers join it by themselves."""

    size = 0

    def channel(self, capacity: int = 0, name: str | None = None) -> channel:
        """Make a channel as other places do."""
        return channel(capacity, name, copy=True)


@contextmanager
def open_workers(where: str, door: str | None) -> Iterator[Place]:
    """Open the place of the workers; there may be none if others can come by a door."""
    if where != "nobody":
        with open_place(where) as place:
            yield place
    elif door is None:
        raise click.UsageError(
            "--on nobody means that others compute; say where they can join, with --listen or with --store"
        )
    else:
        yield cast(Place, Nobody())


@contextmanager
def _open_door(listen: str | None, insecure: bool) -> Iterator[channel | None]:
    if listen is None:
        yield None
        return
    joins = channel(name="joins", copy=True)
    with serve(listen, insecure=insecure, primes=joins) as server:
        _notice(f"workers may join: python -m examples.primes.node {server.url('primes')}")
        yield joins


@contextmanager
def _open_list(path: str | None) -> Iterator[TextIO | None]:
    if path is None:
        yield None
    elif path == "-":
        yield sys.stdout
    else:
        try:
            file = open(path, "w", encoding="ascii")  # noqa: SIM115 - closed below; opening is explained
        except OSError as error:
            raise click.ClickException(
                f"cannot write the primes to {path!r}: {error.strerror}; name a file in a folder of yours"
            ) from error
        with file:
            yield file


def _notice(text: str) -> None:
    err.print(f"note: {text}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    run_program(main)
