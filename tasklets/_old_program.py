"""python -m tasklets.stackless PROGRAM [ARGS]: runs it as `python PROGRAM ARGS` would, with `import stackless`."""

from __future__ import annotations

import builtins
import io
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import tasklets.stackless

if TYPE_CHECKING:
    from types import TracebackType

USAGE = "usage: python -m tasklets.stackless PROGRAM [ARGS]   (- reads the program from standard input)"


def main() -> None:
    """Run the program that sys.argv names. It ends the process, with the exit code it would have under python."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        asked = len(sys.argv) > 1
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        sys.exit(0 if asked else 2)
    del sys.argv[0]
    path = sys.argv[0]
    source = _read(path)
    program = ModuleType("__main__")
    program.__dict__.update(__file__=path, __builtins__=builtins, __cached__=None)
    sys.modules["__main__"] = program
    sys.path[0] = "" if path == "-" else os.path.dirname(os.path.realpath(path))
    tasklets.stackless.install()
    sys.excepthook = _print_without_us
    code = compile(source, "<stdin>" if path == "-" else path, "exec", dont_inherit=True)
    exec(code, program.__dict__)


def _read(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
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
    first = traceback
    while first is not None and first.tb_frame.f_code is not main.__code__:
        first = first.tb_next
    below = first.tb_next if first is not None else traceback
    sys.__excepthook__(kind, error.with_traceback(below), below)
