"""Schedules drawn by lot: run a program again and again, each time with another order of events.

Theory of operation
-------------------
Each run has an OS thread of its own, so that it finds fresh books and leaves none behind. In it a subclass of
Scheduler stands in for the plain one. It changes one thing: wherever the plain one says who goes on, it asks
`choose` (a seeded draw, or a list of choices) for one of all tasklets that could, the acting one included if
it need not wait. Option 0 always is what the plain scheduler would do, so a list of zeros is the usual
schedule, and a schedule can be made simpler by putting zeros into it.

What a program may rely on stays as it is: between two switching points nobody else runs; tasklets that wait
on one channel are served in turn; the first ready case of a select wins; `run()`, `switch()` and `throw()` of
a tasklet run that one; a failure reaches main at once.
"""

from __future__ import annotations

import linecache
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from random import Random
from threading import Thread
from typing import TYPE_CHECKING, Any

from tasklets import debug
from tasklets._core import CURRENT, Scheduler
from tasklets._errors import DeadlockError, TaskletExit
from tasklets.testing._clock import VirtualReactor
from tasklets.testing._leaks import describe

if TYPE_CHECKING:
    from types import FrameType

    from tasklets._core import channel, tasklet

MAX_SHOWN = 60  # lines of a schedule in a message: its end is what matters
MAX_SHORTENING_RUNS = 300
CLEANUP_STEPS = 10_000  # for the `finally` clauses of what a run leaves

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class ScheduleError(AssertionError):
    """A program failed under a drawn schedule. The failure itself is the `__cause__`.

    `seed` (None after replay by choices), `choices` (for `replay(program, choices=...)`), `schedule` (one line
    per step).
    """

    def __init__(
        self, message: str, seed: int | None, choices: tuple[int, ...], schedule: tuple[str, ...]
    ) -> None:
        super().__init__(message)
        self.seed = seed
        self.choices = choices
        self.schedule = schedule


@dataclass(frozen=True, slots=True)
class Exploration:
    """What `explore` has tried: so many runs, so many different schedules, so many steps in the longest."""

    runs: int
    schedules: int
    longest: int


def explore(
    program: Callable[[], object],
    seeds: Iterable[int] = range(100),
    *,
    minimise: bool = False,
    allow_blocked: bool = False,
    max_steps: int = 100_000,
) -> Exploration:
    """Run `program` once for each seed, under schedules that the seeds draw. Blocks the OS thread.

    The program starts tasklets and asserts; it is the main program of each run. What it leaves runnable runs to
    its end. At every switching point (a channel operation, also one that could go on; schedule, sleep, the end of
    a tasklet) any tasklet that can run may be next. Time is virtual, and there is no I/O.

    Raises ScheduleError, with the seed and the schedule in its message, for the first run that fails, or that
    ends with tasklets that wait for ever (unless `allow_blocked`: servers do), or that does not end within
    `max_steps`. With `minimise` the schedule shown is as close to the usual one as can be found in 300 more runs.
    """
    runs, longest = 0, 0
    seen: set[tuple[int, ...]] = set()
    for seed in seeds:
        run = _run(program, _drawn_by(seed), max_steps, allow_blocked)
        runs += 1
        seen.add(tuple(run.choices))
        longest = max(longest, len(run.steps))
        if run.failure is not None:
            after = f"run {runs} failed, with seed {seed}"
            if minimise:
                run = _shorten(program, run, max_steps, allow_blocked)
                _fail(run, None, f"{after}, and with a simpler schedule")
            _fail(run, seed, after)
    return Exploration(runs, len(seen), longest)


def replay(
    program: Callable[[], object],
    seed: int | None = None,
    *,
    choices: Sequence[int] | None = None,
    allow_blocked: bool = False,
    max_steps: int = 100_000,
) -> None:
    """Run `program` once, under the schedule that `explore` drew for `seed`, or that made these `choices`.

    Raises the ScheduleError that `explore` raised; nothing when the program is mended.
    """
    if (seed is None) == (choices is None):
        raise TypeError("replay(program, seed=17) or replay(program, choices=(0, 2, 1))")
    choose = _drawn_by(seed) if seed is not None else _listed(choices or ())
    run = _run(program, choose, max_steps, allow_blocked)
    if run.failure is not None:
        _fail(run, seed, f"failed again, with {_argument(run, seed)}")


# -- one run -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    """At one switching point: who was there, where, who went on, and among how many."""

    who: str
    place: tuple[str, int] | str
    chosen: str
    options: int

    def columns(self) -> tuple[str, str, str, str]:
        if isinstance(self.place, str):
            code, line = self.place, ""
        else:
            code = linecache.getline(*self.place).strip()
            line = f"{os.path.basename(debug.label_file(self.place[0]))}:{self.place[1]}"
        onward = "goes on" if self.chosen == self.who else f"-> {self.chosen}"
        return self.who, code, line, onward + (f" (of {self.options})" if self.options > 1 else "")


@dataclass(slots=True)
class _Run:
    failure: BaseException | None = None
    steps: list[_Step] = field(default_factory=list)
    choices: list[int] = field(default_factory=list)
    is_cut_short: bool = False  # set from outside by Ctrl-C: end at the next step


class _TooLong(BaseException):
    """The run is to end: too many steps, or Ctrl-C. No `except Exception` of the program may hold it up."""


def _run(
    program: Callable[[], object], choose: Callable[[int], int], max_steps: int, allow_blocked: bool
) -> _Run:
    run = _Run()
    thread = Thread(
        target=copy_context().run,
        args=(_live_in_thread, program, choose, run, max_steps, allow_blocked),
        name="tasklets.testing.explore",
        daemon=True,
    )
    try:
        thread.start()
        thread.join()
    except BaseException:
        run.is_cut_short = True
        raise
    if isinstance(run.failure, _TooLong):
        run.failure = AssertionError(
            f"the program did not end within {max_steps} steps; if it needs them, give a larger max_steps"
        )
    elif run.failure is not None and not isinstance(run.failure, Exception):
        raise run.failure  # sys.exit(), pytest.skip(): not a matter of schedules
    return run


def _live_in_thread(
    program: Callable[[], object],
    choose: Callable[[int], int],
    run: _Run,
    max_steps: int,
    allow_blocked: bool,
) -> None:
    scheduler = DrawnScheduler(choose, run, max_steps)
    reactor = VirtualReactor(scheduler)
    reactor.install()
    try:
        program()
        scheduler.run()
        if not allow_blocked:
            scheduler.check_nobody_waits()
    except BaseException as error:  # noqa: BLE001  raised in the thread that explores
        run.failure = error
    try:
        scheduler.end_all()
        reactor.remove()
    except BaseException as error:  # noqa: BLE001  the same
        run.failure = run.failure or error


def _drawn_by(seed: int) -> Callable[[int], int]:
    return Random(seed).randrange


def _listed(choices: Sequence[int]) -> Callable[[int], int]:
    left = iter(choices)
    return lambda count: min(next(left, 0), count - 1)


class DrawnScheduler(Scheduler):
    """Asks `choose` wherever the plain one says who goes on."""

    def __init__(self, choose: Callable[[int], int], run: _Run, max_steps: int) -> None:
        self.seen: dict[tasklet, str] = {}  # every tasklet that ever was in line -> its name, made unique
        self._names: dict[str, int] = {}
        self._choose = choose
        self._run = run
        self._records = True
        self._steps_left = max_steps
        self._is_settled = False  # the head was set by somebody who has the right to
        super().__init__(alone=True)

    def append(self, one: tasklet) -> None:
        if one not in self.seen:
            name = one.name.rpartition("<locals>.")[2] or "tasklet"
            number = self._names[name] = self._names.get(name, 0) + 1
            self.seen[one] = name if number == 1 else f"{name}#{number}"
        super().append(one)

    # -- drawing -----------------------------------------------------------------------------------------------

    def line_from(self, first: tasklet) -> list[tasklet]:
        """The ring, from one member on."""
        members = [first]
        one = first._next
        while one is not first:
            members.append(one)
            one = one._next
        return members

    def draw(self, options: list[tasklet], what: str = "") -> tasklet:
        """Choose who goes on; option 0 is the plain scheduler's."""
        self._count_step()
        count = len(options)
        index = self._choose(count) if count > 1 else 0
        run = self._run
        if self._records:
            who = self.seen.get(self.current, "") if self.current is not None else "(all wait)"
            run.steps.append(_Step(who, what or _place(), self.seen[options[index]], count))
            if count > 1:
                run.choices.append(index)
        return options[index]

    def _count_step(self) -> None:
        self._steps_left -= 1
        if self._steps_left < 0 or self._run.is_cut_short:
            raise _TooLong

    def _bring_next(self, me: tasklet, chosen: tasklet) -> None:
        if me._next is not chosen:
            self.unlink(chosen)
            after = me._next
            chosen._prev, chosen._next = me, after
            me._next = after._prev = chosen
            self.count += 1

    def _let_run(self, me: tasklet, options: list[tasklet]) -> None:
        chosen = self.draw(options)
        if chosen is not me:
            self.switch_to(chosen)
            if me.tempval is not None:
                self._result(me)

    # -- the switching points ----------------------------------------------------------------------------------

    def meet(self, where: channel, me: tasklet, partner: tasklet, partner_first: bool) -> None:
        if me._special:
            super().meet(where, me, partner, partner_first)
            return
        others = self.line_from(me)[1:]
        self.append(partner)
        if partner_first:
            options = [partner, *others, me]
        elif where.schedule_all:
            options = [*others, partner, me]
        else:
            options = [me, *others, partner]
        self._let_run(me, options)

    def may_yield(self) -> None:
        me = self.current
        if me is not None and me._next is not me:
            self._let_run(me, self.line_from(me))

    def block(self, me: tasklet, where: channel, direction: int) -> Any:
        if me._alarm is None and me._next is not None and me._next is not me:
            self._bring_next(me, self.draw(self.line_from(me)[1:]))
        return super().block(me, where, direction)

    def schedule(self, retval: Any) -> Any:
        me = self.current
        if me is not None and me._alarm is None:
            if me._next is me:
                self._count_step()
            else:
                chosen = self.draw([*self.line_from(me)[1:], me])
                if chosen is me:
                    return me if retval is CURRENT else retval
                self._bring_next(me, chosen)
        return super().schedule(retval)

    def give_way(self) -> None:
        if self.head is not None and not self._is_settled:
            self.head = self.draw(self.line_from(self.head))
        self._is_settled = False
        super().give_way()

    def run_now(self, target: tasklet, leave: bool = False) -> Any:
        self._is_settled = leave and target is not self.current
        try:
            return super().run_now(target, leave)
        finally:
            self._is_settled = False

    def turn(self) -> None:
        if self.current is None and self.head is not None:
            self.head = self.draw(self.line_from(self.head), "(time passes)")
        super().turn()

    def _after_end(self, failure: BaseException | None) -> tasklet | None:
        target = super()._after_end(failure)
        if failure is None and target is not None:
            target = self.draw(self.line_from(target), "(ends)")
        return target

    def _look_at_hub(self) -> bool:
        return False  # its loop has no I/O to serve, and looking at the real clock would spoil the replay

    # -- the end -----------------------------------------------------------------------------------------------

    def check_nobody_waits(self) -> None:
        stuck = [f"  {describe(one)}" for one in self.seen if one.blocked and one is not self.main]
        if stuck:
            raise DeadlockError("\n".join(["tasklets wait for ever:", *stuck]))

    def end_all(self) -> None:
        """Kill what is left; nobody wants to hear of it."""
        self._records = False
        self._choose = _listed(())
        self._steps_left = CLEANUP_STEPS
        for _ in range(3):  # a tasklet may outlive a kill
            left = [one for one in self.seen if one.alive and one is not self.main]
            if not left:
                break
            for one in left:
                one.throw(TaskletExit, pending=True)
            while self.count > 1:
                try:
                    self.schedule(None)
                except Exception:  # noqa: BLE001  of a `finally`; the run has its outcome already
                    pass
        self.seen.clear()


def _place() -> tuple[str, int] | str:
    """The innermost line of the program itself."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        if frame.f_code is _live_in_thread.__code__:
            return "(has returned)"
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ""


# -- telling -------------------------------------------------------------------------------------------------


def _shorten(program: Callable[[], object], first: _Run, max_steps: int, allow_blocked: bool) -> _Run:
    """Put zeros into the choices, many at once first, as long as the program fails in the same way."""
    best, size, budget = first, max(1, len(first.choices) // 2), MAX_SHORTENING_RUNS
    while size:
        simpler = False
        start = 0
        while start < len(best.choices) and budget:
            if any(best.choices[start : start + size]):
                trial = [*best.choices[:start], *([0] * size), *best.choices[start + size :]]
                run = _run(program, _listed(trial), max_steps, allow_blocked)
                budget -= 1
                if type(run.failure) is type(first.failure) and _weight(run) < _weight(best):
                    best, simpler = run, True
            start += size
        if not (simpler and budget):
            size //= 2
    return best


def _weight(run: _Run) -> tuple[int, int]:
    return sum(map(bool, run.choices)), len(run.steps)


def _fail(run: _Run, seed: int | None, headline: str) -> None:
    failure = run.failure
    assert failure is not None
    reason = "".join(traceback.format_exception_only(failure)).strip()
    schedule = tuple(_table(run.steps))
    hidden = len(schedule) - MAX_SHOWN
    lines = [
        f"{headline}: {reason}",
        "",
        f"the schedule, {len(schedule)} steps:",
        *([f"  ... {hidden} earlier ones"] if hidden > 0 else []),
        *schedule[-MAX_SHOWN:],
        "",
        f"once more: tasklets.testing.replay(program, {_argument(run, seed)})",
    ]
    raise ScheduleError("\n".join(lines), seed, _stripped(run.choices), schedule) from failure


def _argument(run: _Run, seed: int | None) -> str:
    return f"seed={seed}" if seed is not None else f"choices={_stripped(run.choices)}"


def _stripped(choices: list[int]) -> tuple[int, ...]:
    end = len(choices)
    while end and not choices[end - 1]:
        end -= 1
    return tuple(choices[:end])


def _table(steps: list[_Step]) -> list[str]:
    rows = [step.columns() for step in steps]
    widths = [min(48, max(map(len, column))) for column in zip(*rows, strict=True)] if rows else []
    number = len(str(len(rows)))
    return [
        f"  {index:{number}}. "
        + "  ".join(f"{_cut(cell, width):{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for index, row in enumerate(rows, 1)
    ]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
