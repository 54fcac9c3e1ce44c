"""The registry: what this process can be asked to run, by name.

An operation (`cluster.operations`) and a job class (`cluster.jobs`) enter it where they are defined. So a worker can
run what it has imported, and tells its group the names.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cluster.errors import ClusterError, UnknownOperation

if TYPE_CHECKING:
    from cluster.policy import Policy
    from cluster.records import NewTask


class Registered:
    """What workers can be asked to run: the code, its name, its policy, and which errors are worth another try."""

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        policy: Policy,
        *,
        transient: tuple[type[BaseException], ...],
        fatal: tuple[type[BaseException], ...],
    ) -> None:
        self.function = function
        self.name = name
        self.policy = policy
        self.transient = transient
        self.fatal = fatal

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} queue={self.policy.queue!r}>"

    def make_task(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], **fields: Any) -> NewTask:
        """Return the task of one call. Raises InvalidArguments."""
        raise NotImplementedError

    def bind(self, call: tuple[Any, ...]) -> Callable[[Any], Any]:
        """Return what to call with a context for a task's arguments. Raises InvalidArguments, Fatal."""
        raise NotImplementedError


_registry: dict[str, Registered] = {}


def register(made: Registered, *, instead_of: str = "") -> None:
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


def find_operation(name: str) -> Registered:
    """Return a registered operation. Raises UnknownOperation."""
    try:
        return _registry[name]
    except KeyError:
        names = ", ".join(sorted(_registry)) or "none"
        raise UnknownOperation(f"no operation {name!r} is registered here; those that are: {names}") from None


def operations() -> dict[str, Registered]:
    """All operations registered in this process, by name."""
    return dict(_registry)
