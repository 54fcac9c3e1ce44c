"""Tasklets in a notebook: `%load_ext tasklets.jupyter` in its first cell.

`run()`, `sleep`, channels and places work in a notebook without it. With it

- what a tasklet prints or displays appears under the cell that runs now, not under the one that started the tasklet;
- reports of who waits where name cells ("cell 7:2") instead of temporary files;
- `%tasklets` lists the tasklets that are alive, `%tasklets kill` ends them;
- `%tasklets background` lets them go on while no cell runs, until `%tasklets foreground`.

Nothing is patched: IPython calls us before each cell, and asyncio, on whose loop the kernel lives, lends the
tasklets a slice of time in between. Without `background` they stand still between cells, as they do in a program
whose main tasklet does something else.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
from contextvars import ContextVar, copy_context
from typing import Any

from tasklets import debug
from tasklets._core import get_scheduler, schedule, tasklet
from tasklets.clock import sleep

SLICE = 0.003  # seconds that the tasklets get between cells while they wait
PAUSE = 0.015  # and the kernel gets after that: a message to a tasklet is late by as much, at worst
BUSY_SLICE = 0.02  # while some of them compute
BUSY_PAUSE = 0.002

# By what name ipykernel keeps, per context, which cell an output belongs to.
_CELL = {"parent_header", "shell_parent", "shell_parent_ident"}

_USAGE = "%tasklets, %tasklets kill, %tasklets background or %tasklets foreground"

_loaded: dict[int, _Extension] = {}  # id of a shell -> ours


def load_ipython_extension(shell: Any) -> None:
    """Called by `%load_ext tasklets.jupyter`; again does nothing."""
    if id(shell) not in _loaded:
        _loaded[id(shell)] = _Extension(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Called by `%unload_ext tasklets.jupyter`."""
    extension = _loaded.pop(id(shell), None)
    if extension is not None:
        extension.end()


class _Extension:
    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._background: _Background | None = None
        shell.events.register("pre_run_cell", self._before_cell)
        shell.register_magic_function(self._magic, "line", "tasklets")
        debug.label_file = self._label

    def end(self) -> None:
        self._stop()
        self._shell.events.unregister("pre_run_cell", self._before_cell)
        debug.label_file = str

    def _before_cell(self, *info: object) -> None:
        here = copy_context()
        cell = [(variable, value) for variable, value in here.items() if variable.name in _CELL]
        for one in alive():
            for variable, value in cell:
                one.context_run(_set, variable, value)

    def _label(self, path: str) -> str:
        """Turn the name of the temporary file that a cell is compiled as into the cell's number."""
        number = getattr(self._shell.compile, "_filename_map", {}).get(path)
        return f"cell {number}" if number is not None else path

    def _magic(self, line: str) -> None:
        """List the tasklets that are alive (no argument), `kill` them, or let them go on in the `background`."""
        word = line.strip()
        if word == "":
            print(listing())
        elif word == "kill":
            print(f"ended {kill_all()} tasklets")
        elif word == "background":
            if self._background is None or not self._background.on:
                self._background = _Background(self._shell)
        elif word == "foreground":
            self._stop()
        else:
            raise ValueError(f"there is no %tasklets {word}; there are {_USAGE}")

    def _stop(self) -> None:
        if self._background is not None:
            self._background.on = False
            self._background = None


def _set(variable: ContextVar[Any], value: Any) -> None:
    variable.set(value)


def alive() -> list[tasklet]:
    """The tasklets of this OS thread that are alive, main excepted. Searches the collector's lists."""
    mine = get_scheduler()
    return [
        found
        for found in gc.get_objects()
        if issubclass(type(found), tasklet)
        and found._scheduler is mine
        and not found._special  # a gevent greenlet that used a channel is gevent's
        and found.alive
        and not found.is_main
    ]


def listing() -> str:
    """Who is alive, what each waits for and where, as text."""
    found = alive()
    if not found:
        return "no tasklet is alive"
    lines = []
    for one in found:
        state = f"waits: {one.waits_for}" if one.blocked else "can run" if one.scheduled else "is paused"
        place = debug.where(one)
        lines.append(f"{one.name or hex(id(one))} {state}{f', at {place}' if place else ''}")
    return "\n".join(lines)


def kill_all() -> int:
    """End all of them; their `finally` clauses run. Returns how many there were."""
    found = alive()
    for one in found:
        one.kill(pending=True)
    for _ in range(3):  # a `finally` may wait once more
        if not any(one.alive for one in found):
            break
        schedule()
    return len(found)


class _Background:
    """Lends the tasklets time on the kernel's own loop, while no cell runs."""

    def __init__(self, shell: Any) -> None:
        self.on = True
        self._lent = False  # True while Ctrl-C may interrupt
        self._shell = shell
        self._loop = asyncio.get_event_loop()
        self._loop.call_later(PAUSE, self._turn)

    def _turn(self) -> None:
        if not self.on:
            return
        busy = get_scheduler().count > 1
        # A kernel ignores Ctrl-C between cells; a tasklet that computes for ever would make it deaf.
        in_main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, self._interrupt) if in_main else None
        try:
            self._lent = True
            sleep(BUSY_SLICE if busy else SLICE)
            self._lent = False
        except KeyboardInterrupt:
            self.on = False
            print(
                "interrupted: the tasklets stand still now; %tasklets lists them, %tasklets kill ends them, "
                "%tasklets background lets them go on",
                file=sys.stderr,
            )
        except BaseException:  # noqa: BLE001  the failure of a tasklet: shown, and the others go on
            self._shell.showtraceback()
        finally:
            self._lent = False
            if in_main:
                signal.signal(signal.SIGINT, before)
        if self.on:
            self._loop.call_later(BUSY_PAUSE if busy else PAUSE, self._turn)

    def _interrupt(self, number: int, frame: object) -> None:
        if self._lent:
            self._lent = False
            raise KeyboardInterrupt
