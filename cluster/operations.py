"""Operations: named functions that workers run, and what is to happen when they fail.

    @operation(retry=Retry(max=5, base=0.5), transient=(OSError,), time_limit=60)
    def fetch(ctx, url): ...

`fetch(url)` still is a plain call. `client.submit(fetch, url)` stores a task that any worker which imports this
module runs. A first parameter named `ctx` is given the `Context` of the execution; it may be left out.
"""

from __future__ import annotations

import functools
import inspect
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from cluster import codecs
from cluster.errors import ClusterError, InvalidArguments, UnknownOperation
from cluster.records import NewTask, make_id
from tasklets import NotSendable

if TYPE_CHECKING:
    from collections.abc import Mapping

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and when a failed task is tried again: at most `max` times, so `max` + 1 executions.

    The pause before the n-th is between base * 2**(n-1), at most `cap`, and twice that: at random, so that tasks
    that failed together do not come back together. `factor=1` makes it constant.
    """

    max: int = 3
    base: float = 0.2
    cap: float = 30.0
    factor: float = 2.0

    @classmethod
    def immediate(cls, max: int = 3) -> Retry:
        """Try again at once."""
        return cls(max, 0.0, 0.0)

    @classmethod
    def after(cls, seconds: float, max: int = 3) -> Retry:
        """Try again after the same pause each time."""
        return cls(max, seconds, seconds, 1.0)

    def delay(self, failures: int, draw: Callable[[], float] = random.random) -> float:
        """Seconds to wait after so many failures; `draw` gives numbers between 0 and 1."""
        least = min(self.cap, self.base * self.factor ** min(failures - 1, 64))
        return least * (1.0 + draw())


class Transient(ClusterError):
    """Raise it in an operation: this execution failed, another may succeed. `after` overrides the pause."""

    def __init__(self, message: str = "", *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Fatal(ClusterError):
    """Raise it in an operation: no execution of this task can succeed. It is a dead letter at once."""


class TimeLimit(ClusterError, TimeoutError):
    """Raised inside an operation that runs for longer than its time limit."""


class Cancelled(ClusterError):
    """Raised by `ctx.check()` when the task was cancelled, or belongs to another worker by now."""


@dataclass(frozen=True, slots=True)
class Next:
    """Return it from an operation: the task goes on with this step, `after` seconds later, maybe elsewhere.

    `ctx.data` and the step are kept by then, so a crash repeats no step that had ended.
    """

    step: str
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What a worker has to know about an operation besides its code."""

    queue: str = "default"
    retry: Retry = Retry()
    time_limit: float | None = None  # seconds; then TimeLimit is raised in the operation
    hard_limit: float | None = None  # seconds; then its process is killed
    max_losses: int = 3
    coalesce: float | None = None  # seconds that a task with a coalesce key waits for others
    on_failure: str | None = None  # of a task that is dead: "terminate" fails its job, "ignore" does not
    turns: bool = False  # it is a job class, and its tasks are turns


class Operation(Generic[P, R]):
    """A function that workers can be asked to run. Made by `@operation`."""

    bound_as: type[Bound] | None = None  # what it is when it was made with its values, if not a Bound

    def __init__(
        self,
        function: Callable[P, R],
        name: str,
        policy: Policy,
        *,
        transient: tuple[type[BaseException], ...],
        fatal: tuple[type[BaseException], ...],
        validate: Callable[..., object] | None,
        tolerant: bool,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.policy = policy
        self.transient = transient
        self.fatal = fatal
        self.validate = validate
        self.tolerant = tolerant
        self.is_class = inspect.isclass(function)
        called = cast(Any, function).__call__ if self.is_class else function
        self.signature = inspect.signature(called)
        parameters = list(self.signature.parameters.values())[1 if self.is_class else 0 :]
        self.takes_context = bool(parameters) and parameters[0].name == "ctx"
        self._parameters = parameters[1:] if self.takes_context else parameters
        self._accepted = inspect.Signature(self._parameters)

    def __repr__(self) -> str:
        return f"<Operation {self.name} queue={self.policy.queue!r}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function here and now; of a class, make the operation with its values."""
        if self.is_class:
            return (self.bound_as or Bound)(self, self.function(*args, **kwargs))
        if self.takes_context and not (args and hasattr(args[0], "task_id")):
            from cluster.executor import Context

            args = (Context.local(), *args)
        return self.function(*args, **kwargs)

    def make_task(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], instance: Any = None, **fields: Any
    ) -> NewTask:
        """Return the task of one call. Raises InvalidArguments, NotSendable; see `Client.submit` for the fields."""
        try:
            self._accepted.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArguments(f"{self.name}{self._accepted}: {error}") from None
        if self.validate is not None:
            try:
                self.validate(*args, **kwargs)
            except Exception as error:
                raise InvalidArguments(f"{self.name} refuses its arguments: {error}") from error
        if self.policy.coalesce is not None and fields.get("coalesce_key") is not None:
            fields.setdefault("delay", self.policy.coalesce)
        fields.setdefault("queue", self.policy.queue)
        fields.setdefault("max_losses", self.policy.max_losses)
        return make_task(self.name, args, kwargs, constructed_with(instance), **fields)

    def bind(self, call: tuple[Any, ...]) -> Callable[[Any], R]:
        """Return what to call with a context for stored arguments. Raises InvalidArguments."""
        args, kwargs, made_with = call
        if self.tolerant:
            known = set(self._accepted.parameters)
            kwargs = {key: value for key, value in kwargs.items() if key in known}
        try:
            self._accepted.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArguments(
                f"{self.name}{self._accepted}: {error}; was it submitted by another release?"
            ) from None
        function = cast(Any, self.function(**made_with)) if self.is_class else self.function  # type: ignore[call-arg]
        if self.takes_context:
            return lambda ctx: function(ctx, *args, **kwargs)
        return lambda ctx: function(*args, **kwargs)


class Bound:
    """An operation that was made with values: `MultiplyBy(2)`. Call it, or submit it."""

    def __init__(self, operation: Operation[..., Any], instance: Any) -> None:
        self.operation = operation
        self.instance = instance

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.instance(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self.instance)


_registry: dict[str, Operation[..., Any]] = {}


@overload
def operation(function: Callable[P, R], /) -> Operation[P, R]: ...


@overload
def operation(
    *,
    name: str | None = ...,
    queue: str = ...,
    retry: Retry = ...,
    transient: tuple[type[BaseException], ...] = ...,
    fatal: tuple[type[BaseException], ...] = ...,
    time_limit: float | None = ...,
    hard_limit: float | None = ...,
    max_losses: int = ...,
    coalesce: float | None = ...,
    on_failure: str | None = ...,
    validate: Callable[..., object] | None = ...,
    tolerant: bool = ...,
) -> Callable[[Callable[P, R]], Operation[P, R]]: ...


def operation(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str = "default",
    retry: Retry = Retry(),
    transient: tuple[type[BaseException], ...] = (Exception,),
    fatal: tuple[type[BaseException], ...] = (),
    time_limit: float | None = None,
    hard_limit: float | None = None,
    max_losses: int = 3,
    coalesce: float | None = None,
    on_failure: str | None = None,
    validate: Callable[..., object] | None = None,
    tolerant: bool = False,
) -> Any:
    """Make a function, or a dataclass with a `__call__`, an operation: `@operation` or `@operation(queue="mail")`.

    - `name`: under which tasks are stored, "module:function" if not given. Keep it, and the function may be renamed.
    - `transient`, `fatal`: exceptions that `retry` is for, and those that end the task at once. What is in neither
      ends it at once too. All of Exception is transient if nothing is said.
    - `time_limit`: seconds until TimeLimit is raised inside; `hard_limit`: until the process is killed, which counts
      as a failure. If not given it is the time limit plus the settings' `grace`.
    - `max_losses`: how many worker processes it may take with it.
    - `coalesce`: seconds that a task with a coalesce key waits for others with the key; it then runs once and finds
      the arguments of all of them in `ctx.batch`.
    - `on_failure`: what a dead letter means for the job that it is part of. "terminate": the job fails with its error.
      "ignore": it never does. If not given, that is up to the job: a job class is told (`on_task_failed`), a map or
      fold fails.
    - `validate`: called with the arguments before they are stored; what it raises reaches the submitter.
    - `tolerant`: keyword arguments it does not know are left out, instead of being a failure.

    Raises ClusterError when another function has the name already.
    """

    def decorate(function: Callable[..., Any]) -> Operation[..., Any]:
        if inspect.isclass(function) and not is_dataclass(function):
            raise ClusterError(
                f"{function.__qualname__} is no dataclass; its values could not be stored: @dataclass"
            )
        if on_failure not in (None, "terminate", "ignore"):
            raise ClusterError(f'on_failure is "terminate" or "ignore", and not {on_failure!r}')
        policy = Policy(queue, retry, time_limit, hard_limit, max_losses, coalesce, on_failure)
        made: Operation[..., Any] = Operation(
            function,
            name or name_of(function),
            policy,
            transient=transient,
            fatal=fatal,
            validate=validate,
            tolerant=tolerant,
        )
        register(made)
        return made

    return decorate if function is None else decorate(function)


def register(made: Operation[..., Any], *, instead_of: str = "") -> None:
    """Make an operation known in this process; under another name than before, with `instead_of`.

    Raises ClusterError when something else has its name.
    """
    if "\x1f" in made.name or not made.name.isprintable():
        raise ClusterError(f"an operation's name is printable text, and not {made.name!r}")
    known = _registry.get(made.name)
    if known is not None and _is_code(made.function) and _place(known.function) != _place(made.function):
        raise ClusterError(
            f"two functions are operation {made.name!r}: {_place(known.function)} and {_place(made.function)}"
        )
    _registry.pop(instead_of, None)
    _registry[made.name] = made


def _is_code(function: Any) -> bool:
    return inspect.isclass(function) or hasattr(function, "__code__")


def _place(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def name_of(function: Callable[..., Any]) -> str:
    """The name of an operation that was given none."""
    module = function.__module__
    if module == "__main__":  # workers import the file, and know it by its name
        main = sys.modules["__main__"]
        spec = getattr(main, "__spec__", None)
        module = (
            spec.name
            if spec
            else os.path.splitext(os.path.basename(getattr(main, "__file__", "__main__")))[0]
        )
    return f"{module}:{function.__qualname__}"


def find_operation(name: str) -> Operation[..., Any]:
    """Return a registered operation. Raises UnknownOperation."""
    try:
        return _registry[name]
    except KeyError:
        names = ", ".join(sorted(_registry)) or "none"
        raise UnknownOperation(f"no operation {name!r} is registered here; those that are: {names}") from None


def operations() -> dict[str, Operation[..., Any]]:
    """All operations registered in this process, by name."""
    return dict(_registry)


def constructed_with(instance: Any) -> dict[str, Any]:
    """The values that make an equal instance of a dataclass."""
    if instance is None:
        return {}
    return {one.name: getattr(instance, one.name) for one in fields(instance) if one.init}


def make_task(
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    made_with: Mapping[str, Any] | None = None,
    **fields: Any,
) -> NewTask:
    """Return the task of a call of an operation that need not be known here."""
    try:
        data = codecs.encode((args, dict(kwargs), dict(made_with or {})), fields.pop("codec", ""))
    except NotSendable as error:
        raise InvalidArguments(f"the arguments of {name} cannot travel: {error}") from error
    if isinstance(fields.get("meta"), str):
        fields["meta"] = fields["meta"].encode()
    task_id = fields.pop("id", None)
    return NewTask(name, data, task_id=task_id or make_id(), **fields)
