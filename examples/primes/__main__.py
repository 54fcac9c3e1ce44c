"""The command line of the prime search: `python -m examples.primes --help`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TextIO

import click

from examples.console import debug_option, err, on_option, run_program
from examples.primes.search import LEASE_SECONDS, find_primes
from examples.primes.tally import Tally, open_bar
from net import open_place

EXAMPLES = """\b
Examples:
  python -m examples.primes 1 2000000
  python -m examples.primes 1 2000000 --on processes:2
  python -m examples.primes 1 100 --list -
  python -m examples.primes 1 1_000_000 --count --on processes:4
\b
On two nodes, each started in a terminal (or on a machine) of its own:
  tasklets node --listen 127.0.0.1:7101
  tasklets node --listen 127.0.0.1:7102
  python -m examples.primes 1 2000000 --on hosts:127.0.0.1:7101,127.0.0.1:7102
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
    help="Seconds after which a chunk that did not come back is done again.",
)
@debug_option
def main(
    lo: int,
    hi: int,
    on: str,
    only_count: bool,
    list_to: str | None,
    chunk: int | None,
    window: int | None,
    unordered: bool,
    lease: float,
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
    tally = Tally()
    bar_wanted = err.is_terminal and not (list_to == "-" and sys.stdout.isatty())
    with (
        _open_list(list_to) as listing,
        open_place(on) as place,
        open_bar(err, hi - lo, wanted=bar_wanted) as bar,
    ):
        started = perf_counter()
        for answer in find_primes(
            place, lo, hi, chunk=chunk, window=window, ordered=not unordered, lease=lease, notice=_notice
        ):
            tally.add(answer)
            bar.show(tally)
            if listing is not None:
                listing.writelines(f"{prime}\n" for prime in answer.primes)
                listing.flush()  # a reader of a pipe gets each chunk as it comes
        seconds = perf_counter() - started
    if only_count:
        click.echo(tally.total.primes)
    elif list_to != "-":
        click.echo(tally.summary(lo, hi, seconds))


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
