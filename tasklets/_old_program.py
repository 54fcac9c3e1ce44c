"""python -m tasklets.stackless PROGRAM [ARGS]: as `python PROGRAM ARGS`, and `import stackless` works."""

from __future__ import annotations

import builtins
import io
import linecache
import os
import runpy
import sys
import zipfile
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

USAGE = "usage: python -m tasklets.stackless PROGRAM [ARGS] | -m MODULE [ARGS] | -c CODE [ARGS] | -"

HELP = f"""{USAGE}

Runs a program that was written for Stackless Python, unchanged: `import stackless` works in it, TaskletExit is a
builtin, and errors have Stackless's texts. Everything else is as under python itself: sys.argv, __main__, tracebacks,
exit codes.

  PROGRAM    a file, or a directory or zip file with a __main__.py
  -m MODULE  a module, found as `python -m` finds it
  -c CODE    a text
  -          standard input

Options of the interpreter go before the first -m:   python -X dev -m tasklets.stackless PROGRAM
In a program of today, call tasklets.stackless.install() instead. What differs from Stackless: docs/divergence.md"""


def main(install: Callable[[], None]) -> None:
    """Run the program that sys.argv names, after `install()`, which gives it `import stackless`.

    It ends the process, with the exit code it would have under python.
    """
    options = sys.argv[1:]
    if options and options[0] in ("-h", "--help"):
        print(HELP)
        sys.exit(0)
    wants = options[0] if options else ""
    if not wants or (wants.startswith("-") and wants not in ("-", "-c", "-m")):
        _refuse(f"Unknown option: {wants}" if wants else "")
    if wants in ("-c", "-m") and len(options) < 2:
        _refuse(f"Argument expected for the {wants} option")
    program = ModuleType("__main__")
    program.__dict__.update(__builtins__=builtins, __cached__=None)
    sys.modules["__main__"] = program
    install()
    sys.excepthook = _print_without_us
    if wants == "-m":
        _run_module(options[1], options[1:])
    elif wants == "-c":
        sys.argv = ["-c", *options[2:]]
        if sys.version_info >= (3, 13):  # which shows the lines of such a text in tracebacks
            lines = options[1].splitlines(keepends=True)
            linecache.cache["<string>"] = (len(options[1]), None, lines, "<string>")
        _run_code(options[1], "<string>", "")
    elif wants == "-":
        sys.argv = options
        _run_code(sys.stdin.buffer.read(), "<stdin>", "")
    else:
        sys.argv = options
        if os.path.isdir(wants) or zipfile.is_zipfile(wants):
            sys.path[0] = wants
            _run_as_main("__main__", alter_argv=False)
        else:
            program.__dict__.update(__file__=wants)
            _run_code(_read(wants), wants, os.path.dirname(os.path.realpath(wants)))


def _refuse(reason: str) -> None:
    print(*filter(None, (reason, USAGE)), sep="\n", file=sys.stderr)
    sys.exit(2)


def _run_code(source: str | bytes, name: str, folder: str) -> None:
    sys.path[0] = folder
    exec(compile(source, name, "exec", dont_inherit=True), sys.modules["__main__"].__dict__)


def _run_module(name: str, arguments: list[str]) -> None:
    sys.argv = arguments
    sys.path[0] = os.getcwd()
    _run_as_main(name, alter_argv=True)


# The interpreter's own way to run `python -m`; runpy.run_module would take the module away again at the end.
_run_as_main: Any = runpy._run_module_as_main  # type: ignore[attr-defined]


def _read(path: str) -> bytes:
    try:
        with io.open_code(os.path.abspath(path)) as file:
            return file.read()
    except OSError as error:
        print(
            f"{sys.executable}: can't open file {os.path.abspath(path)!r}: [Errno {error.errno}] {error.strerror}",
            file=sys.stderr,
        )
        sys.exit(2)


def _print_without_us(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Print an exception with the program's frames only, as python itself would."""
    below = first = traceback
    while first is not None:
        if first.tb_frame.f_code.co_filename == __file__:
            below = first.tb_next
        first = first.tb_next
    sys.__excepthook__(kind, error.with_traceback(below), below)
