"""The console command `tasklets`."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Any

try:
    import click
except ImportError:  # the command line is an extra, since programs that only import channels do without it
    sys.exit('the command "tasklets" needs click and rich; install them with: pip install "tasklets[cli]"')

from net.addresses import parse_address
from net.node import Node, set_node
from tasklets import TaskletError
from tasklets._core import Wait

log = logging.getLogger("net")

SIGINT_EXIT = 130  # what a shell reports of a program that Ctrl-C ended


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


_debug = click.option("--debug", is_flag=True, help="Show tracebacks and what goes on inside.")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
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
@click.option("--insecure", is_flag=True, help="Allow an address that other machines can reach; see below.")
@_debug
def node(address: str, name: str, insecure: bool) -> None:
    """Run a node: a process that starts tasklets for the programs that connect to it.

    \b
    In two terminals, then in a third one a program spread over both:
        tasklets node --listen 127.0.0.1:7101
        tasklets node --listen 127.0.0.1:7102
        python -m examples.primes 1 2000000 --on hosts:127.0.0.1:7101,127.0.0.1:7102

    The node imports the functions it is asked to run, so start it where they are found: the working folder
    comes first. It prints its address when it is ready, and ends on Ctrl-C or SIGTERM.

    Whoever can connect can make it run any function that it can import. So it listens at this machine only,
    unless --insecure says that everybody who can reach the address is trusted.
    """
    if os.getcwd() not in sys.path:  # an installed command has its own folder there instead
        sys.path.insert(0, os.getcwd())
    ours = Node(name, accepts_spawn=True)
    set_node(ours)
    signal.signal(signal.SIGTERM, _terminate)
    listener = ours.listen(parse_address(address), insecure=insecure)
    click.echo(f"listening at {listener.address}")
    sys.stdout.flush()
    try:
        _run_for_ever()
    except _Terminated:
        pass
    finally:
        ours.close()


class _Terminated(KeyboardInterrupt):
    """SIGTERM. As with Ctrl-C, nothing holds it up, not even a tasklet that computes."""


def _terminate(*_: object) -> None:
    raise _Terminated


def _run_for_ever() -> None:
    while True:
        try:
            Wait("the end of this node").park()
        except Exception:  # a tasklet that somebody's function started failed; the others go on
            log.exception("a tasklet failed")


if __name__ == "__main__":
    main()
