"""The commands: bank, atm, demo. See --help."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import net
from examples.atm.atm import Atm, dial
from examples.atm.bank import Bank
from examples.atm.demo import run_demo
from examples.atm.ledger import Ledger, open_ledger
from examples.atm.ledger_file import Synchronous
from examples.atm.money import format_amount, parse_amount
from examples.atm.person import Dialogue
from examples.atm.report import Comparison, make_day_table, make_tables
from examples.atm.terminal import Terminal
from examples.console import credential_options, debug_option, err, insecure_option, on_option, out
from examples.pictures import plot_option
from tasklets import channel

BANK = "tcp://127.0.0.1:7000"
SAMPLES = (("alice", "1111", 500_00), ("bob", "2222", 250_00), ("carol", "3333", 0))


NewAccount = tuple[str, str, int]  # name, pin, amount


def parse_accounts(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[NewAccount, ...]:
    """Take NAME:PIN:AMOUNT apart; the name may hold colons, the other two cannot."""
    accounts = []
    for value in values:
        try:
            name, pin, amount = value.rsplit(":", 2)
            accounts.append((name, pin, parse_amount(amount)))
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not NAME:PIN:AMOUNT, such as alice:1111:500") from error
    return tuple(accounts)


@click.group()
@debug_option
def main() -> None:
    """A bank and its cash machines.

    \b
    Try it in two terminals:
      python -m examples.atm bank
      python -m examples.atm atm
    or let scripted customers do it:
      python -m examples.atm demo --on here
      python -m examples.atm demo --on processes:2
      python -m examples.atm simulate --faults
    and look at what they do:
      python -m examples.atm watch
    """


@main.command()
@click.option("--listen", metavar="ADDRESS", default=BANK, show_default=True, help="Port 0 takes a free one.")
@click.option(
    "--ledger",
    "--accounts",
    "where",
    metavar="FILE|URL",
    default="atm.sqlite",
    show_default=True,
    help="The ledger: a file, made when it is missing, or postgresql://USER@HOST/DATABASE.",
)
@click.option(
    "--jobs",
    "store",
    metavar="URL",
    help="Instead of a ledger: accounts as jobs in a cluster, sqlite:///FILE or redis://HOST/0. Its workers: "
    "tasklets cluster worker --store URL --import examples.atm.account_job",
)
@click.option(
    "--synchronous",
    type=click.Choice(["normal", "full"]),
    default="normal",
    show_default=True,
    help="full: an answer survives a power cut too, not only a crash of the bank. (For files.)",
)
@click.option(
    "--open",
    "new",
    metavar="NAME:PIN:AMOUNT",
    callback=parse_accounts,
    multiple=True,
    help="Open an account first; may be repeated.",
)
@credential_options
@insecure_option
@debug_option
def bank(
    listen: str,
    where: str,
    store: str | None,
    synchronous: str,
    new: tuple[NewAccount, ...],
    insecure: bool,
) -> None:
    """Run the bank until Ctrl-C.

    A new ledger gets three sample accounts, unless --open says which.
    """
    if store is not None:
        run_desk(listen, store, new, insecure)
        return
    # Room: what counts for a machine is its answer, and so it need not wait for the request to be taken first.
    requests = channel(1024, "requests to the bank", copy=True)
    level: Synchronous = "FULL" if synchronous == "full" else "NORMAL"
    with (
        net.serve(listen, insecure=insecure, bank=requests) as server,
        open_ledger(where, synchronous=level) as ledger,
    ):
        for line in open_accounts(ledger, new):
            click.echo(line)
        url = server.url("bank")
        click.echo(f"The bank keeps its ledger in {hide_password(where)}.")
        click.echo(f"The bank listens at {url}; Ctrl-C ends it.")
        click.echo(f"A machine for it: python -m examples.atm atm {url}")
        Bank(ledger).serve(requests)


def run_desk(listen: str, store: str, new: tuple[NewAccount, ...], insecure: bool) -> None:
    """Run a desk of the bank whose accounts are jobs; there may be more of them, here and elsewhere (ATM-14)."""
    from cluster import Client
    from examples.atm import job_bank  # with what it needs, of which the other banks need nothing

    requests = channel(1024, "requests to the bank", copy=True)
    with net.serve(listen, insecure=insecure, bank=requests) as server, Client(store) as client:
        for name, pin, amount in new or (SAMPLES if job_bank.open_bank(client) else ()):
            job_bank.open_account(client, name, pin, amount)
            click.echo(f"Opened account {name} with pin {pin} and {format_amount(amount)}.")
        url = server.url("bank")
        click.echo(
            f"The bank keeps its accounts as jobs in {hide_password(store)}. Start workers, as many as you like:"
        )
        click.echo(
            f"  tasklets cluster worker --store {hide_password(store)} --import examples.atm.account_job"
        )
        click.echo(f"The bank listens at {url}; Ctrl-C ends it.")
        job_bank.JobBank(client).serve(requests)


def hide_password(where: str) -> str:
    """Return a file's path as it is, a URL without its password."""
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1@", where)


def open_accounts(ledger: Ledger, new: tuple[NewAccount, ...]) -> list[str]:
    """Open what was asked for, or samples when there is nothing at all; return what there is to try, in words."""
    said = []
    for name, pin, amount in new or (() if ledger.names() else SAMPLES):
        ledger.open_account(name, pin, amount)
        said.append(f"Opened account {name} with pin {pin} and {format_amount(amount)}.")
    return said


@main.command()
@click.argument("url", metavar="[URL]", default=f"{BANK}/bank")
@click.option("--name", help="What the bank knows this machine by.  [default: one of its own]")
@credential_options
@debug_option
def atm(url: str, name: str | None) -> None:
    """Use a cash machine.

    URL is where its bank is; without it: tcp://127.0.0.1:7000/bank.

    With a script instead of a person, answers come from a pipe, one per line:

    \b
      printf 'alice\\n1111\\nwithdraw\\n20\\nquit\\n' | python -m examples.atm atm
    """
    machine = Atm(
        name or f"atm-{uuid4().hex[:8]}", dial(url), on_frozen=lambda account: dialogue.on_frozen(account)
    )
    machine.connect()  # whoever got the address wrong should hear it before giving a pin
    dialogue = Dialogue(machine, Terminal())
    dialogue.run()


@main.command()
@on_option
@click.option("--atms", type=click.IntRange(1, 1000), default=4, show_default=True, help="Machines.")
@click.option(
    "--transactions",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Customers per machine.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Draws the same customers again.")
@click.option(
    "--accounts",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The ledger, as a path where the bank runs.  [default: a new one, removed afterwards]",
)
@credential_options
@debug_option
def demo(on: str, atms: int, transactions: int, seed: int, accounts: Path | None) -> None:
    """Let scripted customers use the machines, then compare the books.

    Customers make mistakes, drawers jam, the line delivers some requests twice and loses some answers.
    Exit code 0 says that every answer is in the ledger once and that no money was made or lost.
    """
    with TemporaryDirectory(prefix="atm-demo-") as folder, make_progress() as progress:
        bar = progress.add_task("customers", total=atms * transactions)
        path = (accounts or Path(folder) / "bank.sqlite").absolute()
        outcome = run_demo(on, path, atms, transactions, seed, lambda served: progress.advance(bar, served))
    comparison = Comparison(outcome)
    out.print(*make_tables(comparison), sep="\n")
    customers = atms * transactions
    out.print(
        f"{customers} customers at {atms} machines, {on}: {outcome.seconds:.2f} s, "
        f"{customers / outcome.seconds:.0f} transactions/s"
    )
    if comparison.faults:
        raise click.ClickException(f"the books do not balance: {'; '.join(comparison.faults)}")
    out.print("[green]The books balance.[/green]")


@main.command()
@click.option("--atms", type=click.IntRange(1, 5000), default=200, show_default=True, help="Machines.")
@click.option(
    "--customers",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    help="Each comes five times.",
)
@click.option("--faults", is_flag=True, help="Kill the bank, let it hang, and cut lines, again and again.")
@click.option(
    "--day",
    "seconds",
    metavar="SECONDS",
    type=click.FloatRange(1, 86_400),
    default=20.0,
    show_default=True,
    help="How long the day takes.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Draws the same customers again.")
@plot_option("how long visits took and when what went wrong")
@credential_options
@debug_option
def simulate(atms: int, customers: int, faults: bool, seconds: float, seed: int, plot: Path | None) -> None:
    """Run a day: a bank, its machines in four processes, and a thousand customers.

    At the end the machines' own counts are put beside the bank's books. Exit code 0 says that every answer is in
    the ledger once and that no money was made or lost, whatever went wrong meanwhile.
    """
    from examples.atm import simulate as days  # with what it needs, of which the other commands need nothing

    with TemporaryDirectory(prefix="atm-day-") as folder, make_progress() as progress:
        accounts = progress.add_task("accounts", total=customers)
        visits = progress.add_task("visits", total=customers * days.VISITS)
        day = days.simulate(
            str(Path(folder) / "bank.sqlite"),
            atms=atms,
            customers=customers,
            seconds=seconds,
            seed=seed,
            with_faults=faults,
            opened=lambda count: progress.advance(accounts, count),
            visited=lambda count: progress.advance(visits, count),
            happened=lambda what: progress.console.print(f"note: {what}"),
        )
    comparison = Comparison(day.outcome)
    out.print(make_day_table(day, comparison), *make_tables(comparison), sep="\n")
    if plot is not None:
        from examples.atm.plot import draw_day

        draw_day(day, plot)
        out.print(f"The picture is in {plot}.")
    if comparison.faults:
        raise click.ClickException(f"the books do not balance: {'; '.join(comparison.faults)}")
    out.print("[green]The books balance.[/green]")


@main.command()
@click.option(
    "--http",
    metavar="HOST:PORT",
    default="127.0.0.1:8080",
    show_default=True,
    help="Where the page is. Whoever reaches it can watch, so keep it on this machine.",
)
@click.option("--listen", metavar="ADDRESS", default=BANK, show_default=True, help="Port 0 takes a free one.")
@click.option(
    "--ledger", "where", metavar="FILE|URL", help="The ledger.  [default: a new one, removed afterwards]"
)
@click.option(
    "--atms",
    type=click.IntRange(0, 400),
    default=16,
    show_default=True,
    help="Machines with scripted customers; with a --ledger of yours better 0.",
)
@credential_options
@insecure_option
@debug_option
def watch(http: str, listen: str, where: str | None, atms: int, insecure: bool) -> None:
    """Run a bank and show on a web page what its machines do.

    Use a machine yourself beside the scripted ones: python -m examples.atm atm
    """
    from examples.atm.crowd import run_crowd
    from examples.atm.watch import Watch

    requests = channel(1024, "requests to the bank", copy=True)
    with (
        TemporaryDirectory(prefix="atm-watch-") as folder,
        net.serve(listen, insecure=insecure, bank=requests) as server,
        open_ledger(where or f"{folder}/bank.sqlite") as ledger,
        net.open_place("processes:1") as place,
    ):
        opened = open_accounts(ledger, ())
        pins = {f"customer {number}": f"{1000 + number}" for number in range(1, 21)} if atms else {}
        for name, pin in pins.items():
            if name not in ledger.names():
                ledger.open_account(name, pin, 200_00)
        view = Watch(ledger)
        bank = Bank(ledger, view.arrived, view.answered)
        with view.serve(http, bank, insecure=insecure) as page:
            place.spawn(run_crowd, server.url("bank"), atms, pins, 1)
            click.echo("\n".join([*opened, f"The bank listens at {server.url('bank')}."]))
            click.echo(f"Watch it at {page} (Ctrl-C ends it).")
            bank.serve(requests)


def make_progress() -> Progress:
    """Make a bar for a person's screen; into a file it would only be noise."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=err, transient=True, disable=not sys.stderr.isatty())
