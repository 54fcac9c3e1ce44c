"""What the examples share at the command line: errors of one line, exit codes, the choice of a place, credentials.

    @click.command()
    @on_option
    @credential_options
    @debug_option
    def main(on): ...

    if __name__ == "__main__":
        run_program(main)

Exit codes: 0 it worked, 1 it did not, 2 the command line is wrong, 130 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import builtins
import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from rich.console import Console

from net.security import SECRET_FILE_VARIABLE, TLS_VARIABLES
from tasklets import RemoteError

F = TypeVar("F", bound=Callable[..., Any])

# Answers go to out, what the program says about itself goes to err: `> file` keeps only answers.
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

on_option = click.option(
    "--on",
    metavar="PLACE",
    default="here",
    show_default=True,
    help="Where the tasklets run: here | processes:N | hosts:ADDRESS:PORT,ADDRESS:PORT  "
    "(start each host with: tasklets node --listen 127.0.0.1:7101)",
)


def _remember_debug(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        context.meta["debug"] = True


debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_remember_debug, help="Show tracebacks."
)


_FILE = click.Path(dir_okay=False, path_type=Path)
_CREDENTIALS = {  # option -> the variable that says the same, and what it means
    "--secret-file": (
        SECRET_FILE_VARIABLE,
        "A secret that all must know. Make one with: tasklets secret FILE",
    ),
    "--tls-ca": (TLS_VARIABLES[0], "TLS with certificates on both sides: who signed the others' (PEM)."),
    "--tls-cert": (TLS_VARIABLES[1], "TLS with certificates on both sides: our certificate (PEM)."),
    "--tls-key": (TLS_VARIABLES[2], "TLS with certificates on both sides: its key (PEM)."),
}


def credential_options(command: F) -> F:
    """Add the options of `tasklets node` that say by what programs prove to each other who they are.

    What they say is put into the environment while the command runs. There `net` looks for it, in this process and in
    those that it starts, so that nothing else in the program is about credentials.
    """

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        given = {name: options.pop(name[2:].replace("-", "_")) for name in _CREDENTIALS}
        if any(given.values()) and options.get("insecure"):
            raise click.UsageError("--insecure means without a secret and without TLS; leave out one of them")
        tls = [given[name] for name in _CREDENTIALS if name.startswith("--tls")]
        if any(tls) and not all(tls):
            raise click.UsageError("TLS needs --tls-ca, --tls-cert and --tls-key together")
        with _in_environment({_CREDENTIALS[name][0]: file for name, file in given.items() if file}):
            return command(*args, **options)

    for name, (variable, meaning) in reversed(_CREDENTIALS.items()):
        add = click.option(name, type=_FILE, metavar="FILE", help=f"{meaning}  [env var: {variable}]")
        run = add(run)
    return run  # type: ignore[return-value]


@contextmanager
def _in_environment(files: Mapping[str, Path]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in files}
    os.environ.update({name: str(file.absolute()) for name, file in files.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


insecure_option = click.option(
    "--insecure",
    is_flag=True,
    help="Listen beyond this machine, without a secret or TLS, to anybody who can reach it.",
)


def run_program(command: click.Command, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a click command and end the process with its exit code; errors take one line on stderr."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see examples/atm/__main__.py
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # As Ctrl-C: SIGTERM would otherwise leave temporary folders and other processes' work behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(exit_code(command, sys.argv[1:] if arguments is None else arguments))


def exit_code(command: click.Command, arguments: Sequence[str]) -> int:
    """Run a click command and return the exit code; `--debug` anywhere adds the traceback to the line."""
    meta: dict[str, object] = {}  # outlives the context, which is gone when an error arrives here
    try:
        with command.make_context(_program_name(), list(arguments)) as context:
            meta = context.meta
            command.invoke(context)
            out.file.flush()
    except click.exceptions.Exit as finished:
        return finished.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        # `... | head` has seen enough; without this the interpreter complains while it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except click.UsageError as error:
        _say(error, f"{error.format_message()} (--help explains)", meta)
        return 2
    except Exception as error:  # noqa: BLE001 - the border of the program: nothing goes further
        _say(error, one_line(error), meta)
        return 1
    return 0


def one_line(error: BaseException) -> str:
    """Say an error in one line; Python's own errors are no message for a user, so their kind comes first."""
    kind, is_own = type(error).__name__, type(error).__module__ != "builtins"
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    if isinstance(error, RemoteError):  # raised elsewhere; it reads as if it had been raised here
        kind, is_own, text = error.kind, not hasattr(builtins, error.kind), error.message
    lines = text.strip().splitlines() or [kind]
    is_for_users = is_own or isinstance(error, OSError) or lines[0] == kind
    more = " ... (--debug shows the rest)" if len(lines) > 1 else ""
    return ("" if is_for_users else f"{kind}: ") + lines[0] + more


def _say(error: BaseException, line: str, meta: dict[str, object]) -> None:
    if meta.get("debug"):
        traceback.print_exception(error)
        # A failure elsewhere brings the traceback of there as text.
        click.echo(getattr(error, "traceback_text", None) or "", err=True, nl=False)
    click.echo(f"error: {line}", err=True)


def _program_name() -> str:
    """Name the program as it was started: `python -m examples.atm`, not the path of its __main__.py."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else os.path.basename(sys.argv[0])
