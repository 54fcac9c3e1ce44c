"""Shell operations: a template and a list of inputs, one process for each input.

    program = make_program('grep -c {{word}} "$1"', {"word": "foo"}, interpreter="sh")
    outcome = run_process(program, "/etc/hosts")        # Outcome(exit=0, stdout="1\\n", stderr="", duration=0.004)

An input is the script's first argument, and a line on its standard input, which is closed behind it. A worker runs
such programs only when it imports this module: `tasklets cluster worker --allow-shell`.

Values are data, whatever is in them. A placeholder `{{name}}` is replaced by a *reference* to an environment variable
that has the value, quoted as its place in the script needs it, and never by the value itself. Quoting the value
would not do: in `"{{x}}"`, in a here-document, or in a string of Python, quotes that were added end what was quoted.

A script and all that it starts are one process group, which is ended as a whole: SIGTERM, then SIGKILL. Should the
process die that runs this (its worker was killed, say), a guard ends the group.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any, Final

from cluster import _shards
from cluster.errors import InvalidArguments, Transient
from cluster.operations import operation

OPERATION: Final = "cluster:shell"
INTERPRETERS: Final = ("sh", "bash", "python")
PREFIX: Final = "TEMPLATE_"  # of the environment variables that have the values
MAX_ARGUMENT_BYTES: Final = (
    120 * 1024
)  # Linux allows 128 KiB for one argument, and for one environment variable
OUTPUT_BYTES: Final = 64 * 1024  # kept of each of stdout and stderr, if nothing else is said
MAX_OUTPUT_BYTES: Final = 256 * 1024
GRACE: Final = 1.0  # seconds between SIGTERM and SIGKILL
LOOK: Final = 0.05  # seconds between two looks whether it was cancelled

_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
# What the environment of a worker has and a script need not know: where the store is (with its password), and where
# the worker's own modules are.
_HIDDEN = ("CLUSTER_", "PYTHONPATH")


class MissingVariable(InvalidArguments):
    """A template names a variable that was not given. `name` is its name."""

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, slots=True)
class Program:
    """What is run for each input."""

    script: str
    interpreter: str = "sh"
    variables: tuple[tuple[str, str], ...] = ()
    time_limit: float | None = None  # seconds for one input
    output_bytes: int = OUTPUT_BYTES  # kept of each of stdout and stderr


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one input. `exit` is the exit code, or the negative number of the signal that ended it."""

    exit: int
    stdout: str
    stderr: str
    duration: float  # seconds
    timed_out: bool = False


# ------------------------------------------------------------------------------------------------ templates


def make_program(
    template: str,
    variables: Mapping[str, Any] | None = None,
    *,
    interpreter: str = "sh",
    time_limit: float | None = None,
    output_bytes: int = OUTPUT_BYTES,
) -> Program:
    """Put references to the variables into a template.

    Raises MissingVariable for one that was not given, InvalidArguments for a value that no process can be given.
    """
    if interpreter not in INTERPRETERS:
        raise InvalidArguments(f"no interpreter {interpreter!r}; there are: {', '.join(INTERPRETERS)}")
    if time_limit is not None and not time_limit > 0:
        raise InvalidArguments(f"time_limit is a number of seconds greater than 0, and not {time_limit!r}")
    if not 0 < output_bytes <= MAX_OUTPUT_BYTES:
        raise InvalidArguments(f"output_bytes is 1 to {MAX_OUTPUT_BYTES}, and not {output_bytes}")
    given = {name: _text_of(value, f"variable {name!r}") for name, value in (variables or {}).items()}
    used: dict[str, str] = {}

    def reference(match: re.Match[str]) -> str:
        name = match[1]
        if name not in given:
            raise MissingVariable(
                f"the template uses {{{{{name}}}}}, and there is no variable {name!r}; "
                f"given: {', '.join(sorted(given)) or 'none'}",
                name=name,
            )
        used[PREFIX + name] = given[name]
        if interpreter == "python":
            return f'__import__("os").environ["{PREFIX}{name}"]'
        return _quoted(f"${{{PREFIX}{name}}}", _place(template[: match.start()]))

    script = _PLACEHOLDER.sub(reference, template)
    _check_size(script, "the template")
    return Program(script, interpreter, tuple(used.items()), time_limit, output_bytes)


def argument_of(value: Any, index: int = 0) -> str:
    """The text that a script is given for an input: text as it is, anything else as JSON. Raises InvalidArguments."""
    return _text_of(value, f"input {index}")


def _text_of(value: Any, what: str) -> str:
    if not isinstance(value, str):
        text = _shards.json_text(value)
    else:
        text = value
    if "\0" in text:
        raise InvalidArguments(f"{what} has a NUL character, which no process can be given")
    _check_size(text, what)
    return text


def _check_size(text: str, what: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidArguments(f"{what} is no text: {error}") from None
    if size > MAX_ARGUMENT_BYTES:
        raise InvalidArguments(
            f"{what} has {size} bytes, and a process can be given {MAX_ARGUMENT_BYTES}; "
            "put the data into a file that the workers can read, and pass its name"
        )


def _place(before: str) -> str:
    """In which quotes of the shell a place is: "" for none, or the character.

    Whatever this makes of an odd script (a here-document, a comment with an apostrophe), a value stays a value: it
    may then be split at its blanks, or the reference stand there as it is.
    """
    quotes = ""
    characters = iter(before)
    for character in characters:
        if character == "\\" and quotes != "'":
            next(characters, "")
        elif not quotes and character in "'\"":
            quotes = character
        elif character == quotes:
            quotes = ""
    return quotes


def _quoted(reference: str, quotes: str) -> str:
    if quotes == '"':
        return reference
    return f"'\"{reference}\"'" if quotes == "'" else f'"{reference}"'


# ------------------------------------------------------------------------------------------------ processes


def run_process(
    program: Program,
    argument: str,
    *,
    cancelled: Callable[[], bool] = lambda: False,
    environ: Mapping[str, str] | None = None,
) -> Outcome | None:
    """Run a program for one input, and wait for its end; None when it was cancelled. Blocks.

    What it prints is read while it runs, and the middle of what is too long is left out. What it leaves running is
    killed. Raises OSError when no process can be started here.
    """
    began = monotonic()
    process = _start(program, argument, environ or {})
    run = _Run(process, program, (argument if argument.endswith("\n") else argument + "\n").encode())
    try:
        cut = run.watch(None if program.time_limit is None else began + program.time_limit, cancelled)
    finally:
        run.close()
    if cut == "cancelled":
        return None
    stdout, stderr = run.texts()
    return Outcome(process.returncode, stdout, stderr, monotonic() - began, cut == "time limit")


def _start(program: Program, argument: str, more: Mapping[str, str]) -> subprocess.Popen[bytes]:
    words = {"python": [sys.executable, "-c"]}.get(program.interpreter, [program.interpreter, "-c"])
    name = [] if program.interpreter == "python" else [program.interpreter]  # of sh: its "$0"
    if shutil.which(words[0]) is None:
        raise OSError(f"there is no {words[0]} here")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(_HIDDEN)}
    # It begins only when the guard knows its group: until then it waits for a line on its standard input.
    gate = ["/bin/sh", "-c", 'read -r go || exit 125; exec "$@"', "sh"]
    process = subprocess.Popen(
        [*gate, *words, program.script, *name, argument],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**environ, **more, **dict(program.variables)},
    )
    try:
        _guard.watch(process.pid)
    except OSError:
        process.kill()
        process.communicate()
        raise
    return process


class _Run:
    """One process: its pipes, and its end."""

    def __init__(self, process: subprocess.Popen[bytes], program: Program, told: bytes) -> None:
        self._process = process
        self._kept = (_Bounded(program.output_bytes), _Bounded(program.output_bytes))
        self._told = memoryview(b"\n" + told)
        self._selector = selectors.DefaultSelector()
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for pipe in (process.stdin, process.stdout, process.stderr):
            os.set_blocking(pipe.fileno(), False)
        self._selector.register(process.stdin, selectors.EVENT_WRITE)
        self._selector.register(process.stdout, selectors.EVENT_READ, self._kept[0])
        self._selector.register(process.stderr, selectors.EVENT_READ, self._kept[1])
        self._end = _open_end(process.pid)
        if self._end is not None:
            self._selector.register(self._end, selectors.EVENT_READ, None)

    def watch(self, deadline: float | None, cancelled: Callable[[], bool]) -> str:
        """Serve the pipes until the process has ended; return why it was ended, if it was."""
        cut = ""
        killing = 0.0
        while not _has_ended(self._process):
            wait = LOOK if self._end is not None else LOOK / 10
            now = monotonic()
            if not cut and cancelled():
                cut = "cancelled"
            elif not cut and deadline is not None:
                if now >= deadline:
                    cut = "time limit"
                else:
                    wait = min(wait, deadline - now)
            if cut and not killing:
                killing = now + GRACE
                self._kill(signal.SIGTERM)
            elif killing and now >= killing:
                self._kill(signal.SIGKILL)
            self._serve(wait)
        self._kill(signal.SIGKILL)  # what it left running; also closes the pipes that this still has
        self._drain()
        return cut

    def _serve(self, timeout: float) -> int:
        served = 0
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._process.stdin:
                self._tell()
            elif key.data is not None:
                served += self._hear(key.fileobj, key.data)
        return served

    def _tell(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            self._told = self._told[os.write(stdin.fileno(), self._told) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it does not want to know
            self._told = self._told[:0]
        if not self._told:
            self._selector.unregister(stdin)
            stdin.close()

    def _hear(self, pipe: Any, kept: _Bounded) -> int:
        try:
            data = os.read(pipe.fileno(), 1 << 16)
        except BlockingIOError:
            return 0
        if not data:
            self._selector.unregister(pipe)
            return 0
        kept.add(data)
        return len(data)

    def _drain(self) -> None:
        """Read what is in the pipes still. Somebody who left the group may hold them open: that is not waited for."""
        while self._serve(0):
            pass

    def _kill(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):  # macOS: all that is left of it are zombies
            pass

    def close(self) -> None:
        """End what runs, and give all descriptors back."""
        if self._process.returncode is None:
            self._kill(signal.SIGKILL)
            self._process.wait()
        _guard.watch(0)
        self._selector.close()
        if self._end is not None:
            os.close(self._end)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def texts(self) -> tuple[str, str]:
        return self._kept[0].text(), self._kept[1].text()


def _open_end(pid: int) -> int | None:
    """A descriptor that becomes readable when a process ends, where the system has such."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has; its number stays taken until it is waited for, so it can be used to kill its group."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


class _Bounded:
    """The beginning and the end of what was printed."""

    def __init__(self, limit: int) -> None:
        self._head_room = limit - limit // 2
        self._tail_room = limit // 2
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._dropped = 0

    def add(self, data: bytes) -> None:
        take = self._head_room - len(self._head)
        if take > 0:
            self._head += data[:take]
            data = data[take:]
        if not data:
            return
        self._tail.append(data)
        self._tail_size += len(data)
        while self._tail_size - len(self._tail[0]) >= self._tail_room:
            gone = len(self._tail.popleft())
            self._tail_size -= gone
            self._dropped += gone

    def text(self) -> str:
        tail = b"".join(self._tail)
        over = max(0, len(tail) - self._tail_room)
        dropped = self._dropped + over
        if not dropped:
            return (bytes(self._head) + tail).decode(errors="replace")
        return (
            f"{self._head.decode(errors='replace')}\n[... {dropped} bytes left out ...]\n"
            f"{tail[over:].decode(errors='replace')}"
        )


class _Guard:
    """A process that ends the running script's group when this process has died, however that was."""

    # It reads the number of each group that begins, and 0 when that has ended. When nobody writes any more, the last
    # one is to be ended.
    _SCRIPT: Final = f"""\
trap '' HUP INT TERM
group=0
while read -r line; do group=$line; done
[ "$group" -gt 0 ] || exit 0
kill -s TERM -- "-$group" || exit 0
sleep {GRACE:g}
kill -s KILL -- "-$group"
"""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, group: int) -> None:
        """Look after this process group from now on; 0 is none."""
        line = b"%d\n" % group
        if self._process is not None:
            assert self._process.stdin is not None
            try:
                os.write(self._process.stdin.fileno(), line)
                return
            except BrokenPipeError:  # somebody killed it
                self._process.stdin.close()
                self._process.wait()
                self._process = None
        if group:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", self._SCRIPT],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            assert self._process.stdin is not None
            os.write(self._process.stdin.fileno(), line)

    def close(self) -> None:
        """End the guard: nothing runs."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._process = None


_guard = _Guard()


# ------------------------------------------------------------------------------------------------ the operation


def run_shell(ctx: Any, program: Mapping[str, Any], inputs: tuple[str, ...]) -> None:
    """Run a program over the inputs of a shard, from the first one that has no result.

    An exit code other than 0 is a failure of its input, and of no other. That no process could be started is this
    worker's failure: the shard goes on elsewhere.
    """
    made = Program(**{**program, "variables": tuple(map(tuple, program["variables"]))})

    def call(argument: str, index: int) -> Any:
        told = {"JOB_ID": ctx.job_id, "TASK_ID": ctx.task_id, "INPUT_INDEX": str(index)}
        try:
            outcome = run_process(made, argument, cancelled=ctx.cancelled, environ=told)
        except OSError as error:
            raise _shards.NotHere(
                Transient(f"{ctx.worker} cannot start {made.interpreter}: {error}")
            ) from error
        if outcome is None:
            ctx.check()
        assert outcome is not None
        shown = {name: value for name, value in asdict(outcome).items() if name != "timed_out"}
        if outcome.timed_out:
            raise _shards.InputFailed("TimeLimit", f"it ran for more than {made.time_limit:g} s", shown)
        if outcome.exit:
            how = f"exit code {outcome.exit}" if outcome.exit > 0 else f"ended by signal {-outcome.exit}"
            raise _shards.InputFailed("ExitCode", how, shown)
        return shown

    _shards.run_inputs(ctx, inputs, call)


operation(name=OPERATION)(run_shell)
