"""The console command `tasklets`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import Any, TypeVar

try:
    import click
except ImportError:  # the command line is an extra, since programs that only import channels do without it
    sys.exit('the command "tasklets" needs click and rich; install them with: pip install "tasklets[cli]"')

from net._running import Ended, run_node
from net._tracing import FOLDER_VARIABLE, trace_process
from net.addresses import parse_address
from net.errors import BadCredentials
from net.node import Node, set_node
from net.security import (
    SECRET_FILE_VARIABLE,
    TLS_VARIABLES,
    Secret,
    Security,
    Tls,
    choose_security,
    make_secret,
)
from tasklets import TaskletError

F = TypeVar("F", bound=Callable[..., object])

SIGINT_EXIT = 130  # what a shell reports of a program that Ctrl-C ended
GRACE_SECONDS = 10.0  # as long as most who stop a service wait before they kill it


class _Command(click.Command):
    """A command whose failures are one line for the person who typed it."""

    def invoke(self, context: click.Context) -> Any:
        if context.params.pop("debug", False):
            logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
            return super().invoke(context)
        logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
        try:
            return super().invoke(context)
        except TaskletError as error:
            raise click.ClickException(str(error)) from None
        except KeyboardInterrupt:
            sys.exit(SIGINT_EXIT)


class _Group(click.Group):
    command_class = _Command


class _Main(_Group):
    """The command itself; packages above this one add to it by the entry point "tasklets.commands"."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted([*super().list_commands(context), *(entry.name for entry in _added())])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        own = super().get_command(context, name)
        if own is not None:
            return own
        return next((entry.load() for entry in _added() if entry.name == name), None)


def _added() -> EntryPoints:
    return entry_points(group="tasklets.commands")


_debug = click.option("--debug", is_flag=True, help="Show tracebacks and what goes on inside.")

_FILE = click.Path(dir_okay=False, path_type=Path)


def _credentials(command: F) -> F:
    """The options that say by what nodes prove to each other who they are."""
    tls = zip(
        ("ca", "cert", "key"),
        ("who signed the others'", "our certificate", "its key"),
        TLS_VARIABLES,
        strict=True,
    )
    for name, meaning, variable in reversed(list(tls)):
        command = click.option(
            f"--tls-{name}",
            type=_FILE,
            envvar=variable,
            show_envvar=True,
            metavar="FILE",
            help=f"TLS with certificates on both sides: {meaning} (PEM).",
        )(command)
    return click.option(
        "--secret-file",
        type=_FILE,
        envvar=SECRET_FILE_VARIABLE,
        show_envvar=True,
        metavar="FILE",
        help="A secret that both sides must know. Make one with: tasklets secret FILE",
    )(command)


def _security(
    secret_file: Path | None, tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None, insecure: bool
) -> Security | None:
    """What the options ask for. Raises BadCredentials."""
    tls = None
    if tls_ca and tls_cert and tls_key:
        tls = Tls(tls_ca, tls_cert, tls_key)
    elif tls_ca or tls_cert or tls_key:
        raise BadCredentials("TLS needs --tls-ca, --tls-cert and --tls-key together")
    secret = Secret(secret_file) if secret_file else None
    return choose_security(secret, tls, insecure=insecure)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tasklets")
def main() -> None:
    """Tasklets and channels, in one process, in many, and on many machines."""


@main.command()
@click.option(
    "--listen",
    "address",
    default="tcp://127.0.0.1:7100",
    show_default=True,
    metavar="ADDR",
    help='Where to listen: "HOST:PORT", "tcp://HOST:PORT" or "unix:///PATH". Port 0 lets the system choose.',
)
@click.option("--name", default="", help="How others name this node in their messages.")
@_credentials
@click.option("--insecure", is_flag=True, help="Let everybody in who can reach the address; see below.")
@click.option(
    "--grace",
    default=GRACE_SECONDS,
    show_default=True,
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long tasklets may go on after SIGTERM.",
)
@click.option(
    "--trace",
    type=click.Path(file_okay=False, path_type=Path),
    envvar=FOLDER_VARIABLE,
    show_envvar=True,
    metavar="FOLDER",
    help='Record what tasklets do, and write it there at the end, for "tasklets trace merge".',
)
@_debug
def node(
    address: str, name: str, insecure: bool, grace: float, trace: Path | None, **credentials: Any
) -> None:
    """Run a node: a process that starts tasklets for the programs that connect to it.

    \b
    In two terminals, then in a third one a program spread over both:
        tasklets node --listen 127.0.0.1:7101
        tasklets node --listen 127.0.0.1:7102
        python -m examples.primes 1 2000000 --on hosts:127.0.0.1:7101,127.0.0.1:7102

    \b
    On several machines, all with the same secret:
        tasklets secret cluster.secret
        tasklets node --listen 0.0.0.0:7100 --secret-file cluster.secret
        open_place("hosts:alpha:7100,beta:7100", secret=Path("cluster.secret"))

    The node imports the functions it is asked to run, so start it where they are found: the working folder
    comes first. It prints its address when it is ready.

    Ctrl-C ends it at once. On SIGTERM it starts nothing more, waits for what runs, at most for --grace, says
    goodbye and exits with 0, or with 1 when it had to stop something; a second SIGTERM ends it at once.

    Whoever can connect can make it run any function that it can import. So other machines are let in only
    with a secret or with TLS, unless --insecure says that everybody who can reach the address is trusted.
    """
    if os.getcwd() not in sys.path:  # an installed command has its own folder there instead
        sys.path.insert(0, os.getcwd())
    ours = Node(name, accepts_spawn=True)
    set_node(ours)
    listener = ours.listen(
        parse_address(address), _security(insecure=insecure, **credentials), insecure=insecure
    )
    recorded = trace_process(trace, ours)
    click.echo(f"listening at {listener.address}")
    sys.stdout.flush()
    try:
        run_node(ours, grace)
    except Ended as end:
        if end.message:
            click.echo(end.message, err=True)
        sys.exit(end.exit_code)
    finally:
        ours.close()
        if recorded is not None:
            recorded.end()


@main.command()
@click.argument("addresses", nargs=-1, required=True, metavar="ADDR...")
@_credentials
@click.option("--insecure", is_flag=True, help="Ask without a secret and TLS, whatever the environment says.")
@click.option("--once", is_flag=True, help="Show it once and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per node instead of tables.")
@click.option(
    "--every",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="How often to ask.",
)
@_debug
def top(
    addresses: tuple[str, ...], insecure: bool, once: bool, as_json: bool, every: float, **credentials: Any
) -> None:
    """Show what goes on in nodes: sessions, channels, rates, who waits on what.

    \b
    Any process that listens is a node: tasklets node, and programs that serve:
        tasklets top 127.0.0.1:7101 127.0.0.1:7102
        tasklets top --json --once 127.0.0.1:7101 | jq .sessions

    Ends on Ctrl-C. Exits with 1 when a node could not be asked (with --once: any of them; otherwise: the last time).
    """
    from net._polling import Watch  # here, since a node needs nothing that draws tables

    parsed = [parse_address(text) for text in addresses]
    watch = Watch(parsed, _security(insecure=insecure, **credentials))
    show = watch.print_json if as_json else watch.print_tables
    sys.exit(watch.run(show, None if once else every))


@main.group(cls=_Group)
def trace() -> None:
    """Show what the tasklets of several processes did, and what they sent to each other.

    \b
    Let each process write what it records (the program, and nodes on other machines):
        TASKLETS_TRACE=run python -m examples.primes 1 20000 --on processes:2
        tasklets node --listen 127.0.0.1:7101 --trace run
    and put it together:
        tasklets trace merge run/*.json --svg run.svg
    """


@trace.command()
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
)
@click.option("--svg", type=_FILE, metavar="FILE", help="Write a space-time diagram.")
@click.option("--html", type=_FILE, metavar="FILE", help="Write a page with the diagram and a table.")
@click.option("--json", type=_FILE, metavar="FILE", help="Write data for https://ui.perfetto.dev.")
@_debug
def merge(files: tuple[Path, ...], **outputs: Path | None) -> None:
    """Put the traces of several processes into one picture.

    A lane per tasklet, those of a process together, and an arrow for each message, also across the network. The
    clocks of different machines are corrected by the messages themselves: what came both ways between two machines
    gives the difference of their clocks, and nothing is received before it was sent. Without an option it prints a
    table.
    """
    from tasklets.trace import merge as merge_files  # here, since a node needs nothing that draws

    try:
        merged = merge_files(files)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    for kind, target in outputs.items():
        if target is not None:
            if target.suffix != f".{kind}":
                raise click.BadParameter(f"{target} should end in .{kind}", param_hint=f"--{kind}")
            merged.save(target)
            click.echo(f"wrote {target}")
    if not any(outputs.values()):
        click.echo(str(merged))


@main.command()
@click.argument("file", type=_FILE)
@_debug
def secret(file: Path) -> None:
    """Write a new secret to FILE, which only you may read.

    \b
    Copy it to all machines of one program, and give it to both sides:
        tasklets node --listen 0.0.0.0:7100 --secret-file FILE
        net.connect("tcp://alpha:7000/bank", secret=Path("FILE"))
    or set TASKLETS_SECRET_FILE=FILE for both.

    \b
    To change it while everything runs (a file may hold several, one a line; nodes read it again by themselves):
        1. add the new secret as the last line everywhere: now all accept it
        2. make it the first line everywhere: now all use it
        3. remove the old one
    """
    made = make_secret(file)
    click.echo(f"wrote {made}; copy it to every machine of the program, and give it to nobody else")


@main.group(cls=_Group)
def certificates() -> None:
    """Make certificates for TLS: an authority of your own, and one certificate per node.

    \b
        tasklets certificates authority certs
        tasklets certificates make certs alpha --host alpha.example --host 10.0.0.7
        tasklets node --listen 0.0.0.0:7100 --tls-ca certs/ca.pem --tls-cert certs/alpha.pem --tls-key certs/alpha.key

    Give each machine ca.pem and its own two files. Keep ca.key off them: who has it can make certificates.
    """


_days = click.option(
    "--days", type=click.FloatRange(min=0, min_open=True), metavar="DAYS", help="How long it is valid."
)


@certificates.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@_days
@_debug
def authority(folder: Path, days: float | None) -> None:
    """Make an authority in FOLDER: ca.pem, which all nodes need, and ca.key, which signs."""
    maker = _certificate_maker()
    made = maker.make_authority(folder, days=days or maker.AUTHORITY_DAYS)
    click.echo(f"wrote {made} for every machine, and {folder / 'ca.key'} to keep safe")


@certificates.command()
@click.argument("folder", type=click.Path(file_okay=False, exists=True, path_type=Path))
@click.argument("name")
@click.option(
    "--host", "hosts", multiple=True, metavar="HOST", help="A name or IP address of its machine; repeatable."
)
@_days
@_debug
def make(folder: Path, name: str, hosts: tuple[str, ...], days: float | None) -> None:
    """Make a certificate of the authority in FOLDER for the node NAME: NAME.pem and NAME.key.

    Those who connect to it must do so by one of the HOSTs; without any it is for this machine (localhost).
    """
    maker = _certificate_maker()
    made = maker.make_certificate(folder, name, hosts, days=days or maker.CERTIFICATE_DAYS)
    click.echo(f"wrote {made.certificate} and {made.key} for {', '.join(hosts) or 'this machine'}")


def _certificate_maker() -> Any:
    try:
        from net import certificates as maker
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    return maker


if __name__ == "__main__":
    main()
