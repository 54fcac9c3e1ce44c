"""Operations: named functions that workers run, and what is to happen when they fail.

    @operation(retry=Retry(max=5, base=0.5), transient=(OSError,), time_limit=60)
    def fetch(ctx, url): ...

`fetch(url)` still is a plain call. `client.submit(fetch, url)` stores a task that any worker which imports this
module runs. A first parameter named `ctx` is given the `Context` of the execution; it may be left out.
`operations()` has all that this process can run.

Not here: when one is tried again, which is `cluster.policy`; what it may ask for while it runs: `cluster.context`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from cluster.context import Context
from cluster.errors import ClusterError, InvalidArguments
from cluster.policy import RETRY, Policy, Retry
from cluster.registry import Registered, name_of, operations as operations, register
from cluster.tasks import make_task

if TYPE_CHECKING:
    from cluster.records import NewTask

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Next:
    """Return it from an operation: the task goes on with this step, `after` seconds later, maybe elsewhere.

    `ctx.data` and the step are kept by then, so a crash repeats no step that had ended.
    """

    step: str
    after: float = 0.0


class Operation(Registered, Generic[P, R]):
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
        super().__init__(function, name, policy, transient=transient, fatal=fatal)
        self.validate = validate
        self.tolerant = tolerant
        self.is_class = inspect.isclass(function)
        called = cast(Any, function).__call__ if self.is_class else function
        self.signature = inspect.signature(called)
        parameters = list(self.signature.parameters.values())[1 if self.is_class else 0 :]
        self.takes_context = bool(parameters) and parameters[0].name == "ctx"
        self._parameters = parameters[1:] if self.takes_context else parameters
        self._accepted = inspect.Signature(self._parameters)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function here and now; of a class, make the operation with its values."""
        if self.is_class:
            return (self.bound_as or Bound)(self, self.function(*args, **kwargs))
        if self.takes_context and not (args and hasattr(args[0], "task_id")):
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
        function = cast(Any, self.function(**made_with)) if self.is_class else self.function
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

    def make_task(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], **fields: Any) -> NewTask:
        """As `Operation.make_task`."""
        return self.operation.make_task(args, kwargs, instance=self.instance, **fields)

    def __repr__(self) -> str:
        return repr(self.instance)


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
    retry: Retry = RETRY,
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


def constructed_with(instance: Any) -> dict[str, Any]:
    """The values that make an equal instance of a dataclass."""
    if instance is None:
        return {}
    return {one.name: getattr(instance, one.name) for one in fields(instance) if one.init}
