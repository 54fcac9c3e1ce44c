"""What the commands share: the group they hang on, their options, how they print."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from cluster import codecs
from cluster.settings import Settings, read_settings
from tasklets import TaskletError

DEFAULT_STORE = "sqlite:///cluster.db"
SIGINT_EXIT = 130


class _Command(click.Command):
    """A command whose failures are one line for the person who typed it."""

    def invoke(self, context: click.Context) -> Any:
        level = logging.DEBUG if context.params.pop("debug", False) else logging.WARNING
        if context.info_name in ("worker", "coordinator", "gateway") and level != logging.DEBUG:
            level = logging.INFO
        logging.basicConfig(level=level, format="%(asctime)s %(name)s: %(message)s")
        try:
            return super().invoke(context)
        except TaskletError as error:
            if level == logging.DEBUG:
                raise
            raise click.ClickException(str(error)) from None
        except KeyboardInterrupt:
            sys.exit(SIGINT_EXIT)
        except BrokenPipeError:  # `... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)


class _Group(click.Group):
    command_class = _Command


store_option = click.option(
    "--store",
    envvar="CLUSTER_STORE",
    default=DEFAULT_STORE,
    show_default=True,
    metavar="URL",
    help='Where the group\'s state is: "sqlite:///FILE" or "redis://HOST:PORT/DB". Also CLUSTER_STORE.',
)
group_option = click.option(
    "--group",
    envvar="CLUSTER_GROUP",
    default="default",
    show_default=True,
    help="Which group. Also CLUSTER_GROUP.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
wait_option = click.option(
    "--wait",
    is_flag=False,
    flag_value=60.0,
    type=float,
    metavar="SECONDS",
    help="Wait for the result and print it.",
)
debug_option = click.option("--debug", is_flag=True, help="Show tracebacks and what goes on inside.")
watch_option = click.option(
    "--watch",
    type=float,
    is_flag=False,
    flag_value=1.0,
    metavar="SECONDS",
    help="Show it again every second, or so.",
)
set_option = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting, such as heartbeat=0.5; see: tasklets cluster config.",
)


imports_option = click.option(
    "--import", "imports", multiple=True, metavar="MODULE", help="A module with operations."
)


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    return store_option(group_option(debug_option(command)))


def settings_of(sets: tuple[str, ...]) -> Settings:
    pairs = {}
    for one in sets:
        name, equals, value = one.partition("=")
        if not equals:
            raise click.UsageError(f"--set {one}: write --set NAME=VALUE, such as --set heartbeat=0.5")
        pairs[name] = value
    return read_settings(pairs)


@contextmanager
def open_client(store: str, group: str) -> Iterator[Any]:
    from cluster.client import Client

    client = Client(store, group, settings=read_settings())
    try:
        yield client
    finally:
        client.close()


def include_this_folder() -> None:
    """Let modules of the folder be found where the command was given: an installed command has its own instead."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def import_modules(names: Iterable[str]) -> None:
    """Import what `--import` names."""
    include_this_folder()
    for name in names:
        importlib.import_module(name)


def argument_of(text: str) -> Any:
    """A word of the command as a value: what it is in JSON, or else a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def text_of(data: bytes) -> str:
    """A stored value as text; its classes and its codec may be known to the program only that submitted it."""
    try:
        return repr(codecs.decode(data))
    except Exception as error:  # noqa: BLE001  a codec of somebody's own
        return f"({len(data)} bytes, which mean nothing here: {error})"


# Never broken into lines: what people copy into their next command, and single words.
WHOLE = ("task", "job", "node", "role", "state", "lease", "age")
NARROWEST = 8  # characters that other columns are folded to
_GAP = 2


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below each other; a column in which none has anything is left out.

    On a terminal (and for COLUMNS) texts are folded, but no ids, if all fits then. Else, and in a pipe, each row is a
    line, however long.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    found = [tuple(row) for row in rows]
    kept = [n for n, column in enumerate(columns) if not column or not found or any(row[n] for row in found)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    least, most = -_GAP, -_GAP
    for n in kept:
        longest = max([len(columns[n]), *(cell_len(row[n]) for row in found)])
        is_whole = columns[n] in WHOLE
        narrowest = longest if is_whole else min(longest, NARROWEST)
        table.add_column(columns[n], overflow="fold", no_wrap=is_whole, min_width=narrowest)
        least, most = least + narrowest + _GAP, most + longest + _GAP
    for row in found:
        table.add_row(*(row[n] for n in kept))
    console = Console()
    is_folded = (sys.stdout.isatty() or "COLUMNS" in os.environ) and least <= console.width
    console = console if is_folded else Console(width=most)
    with console.capture() as printed:
        console.print(table, crop=False)
    for line in printed.get().splitlines():
        click.echo(line.rstrip())  # or a terminal shows blanks that do not fit on lines of their own


def print_rows(rows: list[dict[str, Any]], as_json: bool, columns: tuple[str, ...]) -> None:
    """A list, as JSON or as a table of these columns."""
    if as_json:
        print_json(rows)
        return
    show_table(columns, [[_cell(column, row.get(column)) for column in columns] for row in rows])


_USUAL = {"queue": "default", "priority": 0, "attempts": 0, "losses": 0}


def _cell(column: str, value: Any) -> str:
    """A value as it is shown: empty where it is what it mostly is."""
    return "" if value is None or value == _USUAL.get(column) else str(value)


def print_record(row: dict[str, Any], as_json: bool, *, without: tuple[Any, ...] = (None, "")) -> None:
    """One thing, as JSON or line by line, without what says nothing."""
    if as_json:
        print_json(row)
        return
    show_table(("", ""), [(name, str(value)) for name, value in row.items() if value not in without])


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=None, default=str, ensure_ascii=False))


def repeat(watch: float | None, view: Callable[[], None]) -> None:
    while True:
        if watch:
            click.clear()
        view()
        if not watch:
            return
        time.sleep(watch)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
def cluster() -> None:
    """Tasks that finish although processes die.

    \b
    In a folder with a module myops.py that has @operation functions:
        tasklets cluster up --import myops          start a coordinator and workers, and come back
        tasklets cluster submit myops:fib 30 --wait
        tasklets cluster status
        tasklets cluster down
    """
