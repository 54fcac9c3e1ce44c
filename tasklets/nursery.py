"""nursery: tasklets that somebody waits for, and whose failures somebody hears.

    with nursery() as home:
        home.start(serve, requests, restart="failed")
        page = home.start(fetch, url)
        print(page.result())

One rule: a child belongs to a block, and never outlives it. What follows from that is in `nursery`. The rules
and why they are so: docs/design.md, "nurseries".

Not here: tasklets in other processes (net.open_place starts those, and they can open nurseries there).
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from greenlet import GreenletExit

from tasklets._core import channel, get_scheduler, getcurrent, schedule, tasklet
from tasklets._errors import ChannelClosed, TaskletError, TaskletExit
from tasklets.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

T = TypeVar("T")
Restart = Literal["never", "failed", "always"]


class _Stop(BaseException):
    """Unwinds the block of a nursery that has a failure to report. Never leaves that block."""


# How a tasklet, a gevent greenlet and the block of an outer nursery end when they are told to: no failure.
_KILLS = (TaskletExit, GreenletExit, _Stop)


class nursery:
    """Wait at the end of a block for all tasklets started in it: `with nursery() as home: home.start(work, 1)`.

    Leaving the block blocks until every child has ended. When a child or the block fails, the children still
    alive are killed (TaskletExit), the block is interrupted at its next wait, and the failure is raised at
    the end of the block once all of them are gone: a lone one as itself, several as an ExceptionGroup. Killing
    the owner, a timeout around the block and Ctrl-C are passed on to the children in the same way. A child
    that is killed ends silently.

    Children may use `home.start` too. A child can be restarted, `limit` times within `within` seconds for all
    children of the nursery together; the next failure counts as one. Belongs to the OS thread, and to the
    tasklet, main or gevent greenlet, that opened it.
    """

    def __init__(self, *, limit: int = 3, within: float = 5.0) -> None:
        self.limit = limit
        self.within = within
        self._children: dict[Child[Any], None] = {}  # those alive, oldest first
        self._failures: list[BaseException] = []
        self._restarts: deque[float] = deque()  # when, at most `limit` of them
        self._stop: _Stop | None = None  # set: the nursery fails or is killed, and whoever starts dies
        self._kill: BaseException | None = None  # the first TaskletExit that came from outside
        self._owner: tasklet | None = None
        self._is_foreign = False  # the owner is a gevent greenlet
        self._state: Literal["new", "open", "ending", "over"] = "new"

    def __repr__(self) -> str:
        return f"<nursery children={len(self._children)} {self._state}>"

    @property
    def children(self) -> tuple[Child[Any], ...]:
        """The children that have not ended, oldest first."""
        return tuple(self._children)

    def start(
        self,
        function: Callable[..., T],
        /,
        *args: Any,
        name: str | None = None,
        restart: Restart = "never",
        **kwargs: Any,
    ) -> Child[T]:
        """Start a tasklet that calls `function(*args, **kwargs)`; it joins the end of the line.

        `restart` says what happens when it ends: "never" again, again when it "failed", "always" again
        (unless it is killed). When the nursery is failing already the child dies before it runs.

        Raises TaskletError when the block is over, or from another OS thread.
        """
        return self._start(function, args, kwargs, name, restart, None)

    def kill(self) -> None:
        """Kill the children that are alive now (the caller excepted). Never blocks; the block itself goes on."""
        current = get_scheduler().current
        for child in self.children:
            if child is not current:
                child.kill(pending=True)

    # -- the block -------------------------------------------------------------------------------------------

    def __enter__(self) -> nursery:
        if self._state != "new":
            raise TaskletError(f"{self!r} was used before; each block makes its own: with nursery() as home:")
        self._is_foreign = get_scheduler().current is None
        self._owner = getcurrent()
        self._state = "open"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> bool:
        assert self._owner is not None
        if error is not None and is_collected(error, self._owner):
            return False
        self._state = "ending"
        if self._stop is not None and error is not self._stop:
            self._take_back(self._stop)
        if error is not None:
            self._interrupted(error)
        while self._children:
            try:
                next(iter(self._children)).join()
            except BaseException as interruption:
                if is_collected(interruption, self._owner):
                    raise
                self._interrupted(interruption)
        self._state = "over"
        outcome = self._outcome()
        self._owner = None
        if outcome is None:
            return True
        if outcome is error:
            return False
        # raise would replace the context that the failure has by the block's interruption.
        context = outcome.__context__
        try:
            raise outcome
        finally:
            outcome.__context__ = context
            del outcome, context, error

    def _take_back(self, stop: _Stop) -> None:
        """The block ended before it was interrupted."""
        if not self._is_foreign:
            get_scheduler().cancel_alarm(getcurrent(), stop)
            return
        try:
            schedule()  # gevent is about to throw it: let it come here, and not behind the block
        except BaseException as interruption:  # noqa: BLE001  raised at the end of the block, or `stop`
            self._interrupted(interruption)

    def _interrupted(self, error: BaseException) -> None:
        """The block raised something, or the wait for the children did."""
        if error is self._stop:
            return
        if self._stop is not None:
            self.kill()  # once more: a child may have outlived the first one
        if isinstance(error, _KILLS):
            self._kill = self._kill or error
            self._bring_down()
        else:
            self._fail(error)

    def _outcome(self) -> BaseException | None:
        failures, self._failures = self._failures, []
        kill, self._kill = self._kill, None
        if not failures:
            return kill
        if kill is not None and self._owner is not None and not self._is_foreign:
            # The failures go first, and somebody may handle them: the kill comes at the next wait then.
            get_scheduler().alarm(self._owner, kill)
        # Ctrl-C and sys.exit() mean the program, so they stay what they are whatever else went wrong.
        urgent = next((each for each in failures if not isinstance(each, Exception)), None)
        if urgent is not None:
            others = [each for each in failures if each is not urgent]
            if others and urgent.__cause__ is None:
                urgent.__cause__ = _group(others)
            return urgent
        return failures[0] if len(failures) == 1 else _group(failures)

    # -- children --------------------------------------------------------------------------------------------

    def _start(
        self,
        function: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None,
        restart: Restart,
        at_end: Callable[[], object] | None,
    ) -> Child[T]:
        if self._state == "new":
            raise TaskletError(
                "a nursery takes children inside its block:\n    with nursery() as home:\n        ..."
            )
        if self._state == "over":
            raise TaskletError(
                f"the block of {self!r} is over, and no child outlives it; start it before the end"
            )
        if self._owner is not None and get_scheduler() is not self._owner._scheduler:
            raise TaskletError(
                f"{self!r} belongs to another OS thread; open one here, or send that thread a message"
            )
        if restart not in ("never", "failed", "always"):
            raise ValueError(f'restart is "never", "failed" or "always", not {restart!r}')
        child = Child(self, function, args, kwargs, name, restart, at_end)
        self._children[child] = None
        child.setup()
        if self._stop is not None:
            child.kill(pending=True)
        return child

    def _may_restart(self) -> bool:
        """Count a restart; False when there were too many of them."""
        now = monotonic()
        while self._restarts and now - self._restarts[0] > self.within:
            self._restarts.popleft()
        if len(self._restarts) >= self.limit:
            return False
        self._restarts.append(now)
        return True

    def _ended(self, child: Child[Any], failure: BaseException | None) -> None:
        del self._children[child]
        if failure is not None and not isinstance(failure, _KILLS):
            failure.add_note(f"raised in the child {child.name!r} of a nursery")
            self._fail(failure)

    def _fail(self, failure: BaseException) -> None:
        # The same one may come twice: the owner or another child can ask for the result of the one that failed.
        if not any(each is failure for each in self._failures):
            self._failures.append(failure)
        self._bring_down()

    def _bring_down(self) -> None:
        if self._stop is not None:
            return
        self._stop = _Stop(f"{self!r} has a failure to report")
        if self._state == "open":
            self._interrupt_owner(self._stop)
        self.kill()

    def _interrupt_owner(self, stop: _Stop) -> None:
        """Raise `stop` at the next wait of the block; at once when the owner waits or is paused (in `run()`)."""
        assert self._owner is not None
        if self._owner.paused:
            self._owner.throw(stop, pending=True)
        else:
            self._owner._scheduler.alarm(self._owner, stop)


class Child(tasklet, Generic[T]):
    """A tasklet that belongs to a nursery; made by `nursery.start`. `kill()` ends it silently."""

    def __init__(
        self,
        home: nursery,
        function: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None,
        restart: Restart,
        at_end: Callable[[], object] | None,
    ) -> None:
        if not callable(function):
            raise TypeError(
                f"start() wants a function and its arguments, not {function!r}:\n"
                "    home.start(function(1, 2))    # wrong\n"
                "    home.start(function, 1, 2)    # right"
            )
        super().__init__(self._live)
        self.name = name or getattr(function, "__qualname__", None) or repr(function)
        self._home = home
        self._work: Callable[[], T] | None = partial(function, *args, **kwargs)
        self._restart = restart
        self._at_end = at_end
        self._end = channel(
            name=f"the end of {self.name}"
        )  # closed then; a channel, so that deadlocks are seen
        self._doom: BaseException | None = None  # raised instead of its first step
        self._started = False
        self._value: T | None = None
        self._failure: BaseException | None = None

    @property
    def ended(self) -> bool:
        """True when it has ended for good."""
        return self._end.closing

    def join(self) -> None:
        """Wait until it has ended for good, however it does. Blocks."""
        try:
            self._end.receive()
        except ChannelClosed:
            pass

    def result(self) -> T:
        """Wait until it has ended, and return what its function returned. Blocks.

        Raises what the function raised, TaskletError when it was killed.
        """
        self.join()
        if isinstance(self._failure, _KILLS):
            raise TaskletError(
                f"{self.name} was killed, so it has no result; join() waits without asking for one"
            )
        if self._failure is not None:
            raise self._failure
        return self._value  # type: ignore[return-value]  # set by now

    # A tasklet that is killed before its first turn never calls its function, and nobody would hear of its end.

    def kill(self, pending: bool = False) -> None:
        """Raise TaskletExit in it, as `tasklet.kill` does."""
        self.throw(TaskletExit(), pending=pending)

    def throw(self, exc: Any, val: Any = None, tb: Any = None, pending: bool = False) -> None:
        """Raise an exception in it, as `tasklet.throw` does; it reaches the nursery when it leaves the function."""
        if self._started or not self.alive:
            super().throw(exc, val, tb, pending)
            return
        self._check_thread()
        doom: BaseException = exc if isinstance(exc, BaseException) else exc() if val is None else exc(val)
        self._doom = doom.with_traceback(tb)
        if not pending and get_scheduler().current is not None:
            self.run()

    def _live(self) -> None:
        self._started = True
        failure = self._attempt()
        while self._is_wanted_after(failure):
            if not self._home._may_restart():
                failure = self._give_up(failure)
                break
            failure = self._attempt(again=True)
        self._work = None
        try:
            if self._at_end is not None:
                self._at_end()
        except _KILLS:
            pass
        except BaseException as error:  # noqa: BLE001  goes where the function's would
            failure = error
        finally:
            self._at_end = None
            self._failure = failure
            self._home._ended(self, failure)
            self._end.close()

    def _attempt(self, again: bool = False) -> BaseException | None:
        assert self._work is not None
        try:
            doom, self._doom = self._doom, None
            if doom is not None:
                raise doom
            if again:
                schedule()  # one that fails at once must not keep the others waiting
            self._value = self._work()
        except BaseException as error:
            if is_collected(error, self):
                raise
            # Without this frame, which would keep the exception alive, and the exception this frame.
            return error.with_traceback(
                error.__traceback__.tb_next if error.__traceback__ is not None else None
            )
        return None

    def _is_wanted_after(self, failure: BaseException | None) -> bool:
        if self._home._stop is not None or self._restart == "never":
            return False
        return self._restart == "always" if failure is None else isinstance(failure, Exception)

    def _give_up(self, failure: BaseException | None) -> BaseException:
        limit, within = self._home.limit, self._home.within
        spent = (
            f"{self.name} was not restarted: the nursery's {limit} restarts within {within:g} s are used up"
        )
        if failure is None:
            return TaskletError(
                f"{spent}; it returned each time: give a larger limit, or restart it when it failed"
            )
        failure.add_note(spent)
        return failure


def _group(failures: list[BaseException]) -> BaseException:
    return BaseExceptionGroup(f"{len(failures)} failures in a nursery", failures)


def is_collected(error: BaseException, one: tasklet) -> bool:
    """True when nobody refers to `one` any more: the collector ends its greenlet, in somebody else's turn.

    Nothing may be waited for then.
    """
    return isinstance(error, GreenletExit) and get_scheduler().current is not (
        one if not one._special else None
    )
