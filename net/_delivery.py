"""Functions that no module defines, a notebook's or the prompt's: how the children of a place get them.

They are pickled by value (cloudpickle) with whatever they use, and go to a child over its lifeline: a pipe that only
the parent writes to. Parent and child are one user's, and one program; nothing of this ever touches a network. SPAWN
names them `pickled:DIGEST` then. Message classes and enums that the program itself defines go along, and are
registered there.
"""

from __future__ import annotations

import hashlib
import pickle
from typing import TYPE_CHECKING, Any, Final

from net.errors import NotImportable
from tasklets import register
from tasklets._core import Wait
from tasklets.messages import enum_names, message_names, register_made

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX: Final = (
    "pickled:"  # of the name under which a delivered function is spawned; no module's name holds a colon
)


def is_own(function: Callable[..., object]) -> bool:
    """True for a function at the top level of the program itself, which other processes may not be able to import."""
    return getattr(function, "__module__", None) == "__main__" and "<" not in getattr(
        function, "__qualname__", "<"
    )


def pack(function: Callable[..., object]) -> tuple[str, bytes]:
    """Return the name to spawn a function by, and what to deliver before. Raises NotImportable."""
    try:
        from net import _pickling
    except ImportError:
        raise NotImportable(
            f"{function.__qualname__} is defined in the program itself, where child processes cannot import it; "
            'put it into a module, or install what hands it to them: pip install "tasklets[notebook]"'
        ) from None
    messages = [(name, kind.cls) for name, kind in message_names.items() if kind.cls.__module__ == "__main__"]
    enums = [(name, kind.cls) for name, kind in enum_names.items() if kind.cls.__module__ == "__main__"]
    try:
        packed = _pickling.dumps((function, messages, enums))
    except Exception as error:  # noqa: BLE001  whatever an object's own pickling raises
        raise NotImportable(
            f"{function.__qualname__} uses what cannot be copied to another process ({error}); "
            "pass it as an argument, or make it inside the function"
        ) from None
    return PREFIX + hashlib.sha256(packed).hexdigest(), packed


class Delivered:
    """The functions that a child was given, by name. Its lifeline's thread calls `take`, its tasklets `find`."""

    def __init__(self, call_in_loop: Callable[..., object]) -> None:
        self._call_in_loop = call_in_loop
        self._packed: dict[str, bytes] = {}
        self._functions: dict[str, Callable[..., object]] = {}
        self._waits: dict[str, list[Wait]] = {}

    def take(self, name: str, packed: bytes) -> None:
        """A function has arrived. Called on another thread."""
        self._packed[name] = packed
        self._call_in_loop(self._arrived, name)

    def _arrived(self, name: str) -> None:
        for wait in self._waits.pop(name, ()):
            wait.wake()

    def find(self, name: str) -> Callable[..., object]:
        """Return a function by the name it is spawned by. Blocks until it has arrived. Raises NotImportable."""
        found = self._functions.get(name)
        if found is None and name not in self._packed:
            wait = Wait(f"the function {name[: len(PREFIX) + 8]}")
            self._waits.setdefault(name, []).append(wait)
            wait.park()
            found = self._functions.get(name)  # somebody else may have waited for it too
        if found is None:
            found = self._functions[name] = _unpack(self._packed.pop(name))
        return found


def _unpack(packed: bytes) -> Callable[..., object]:
    function: Any
    try:
        # Our parent's, over a pipe that nobody else can write to.
        function, messages, enums = pickle.loads(packed)  # noqa: S301
    except Exception as error:
        raise NotImportable(
            f"a function of the program cannot be made in the child process: {type(error).__name__}: {error}"
        ) from error
    for name, cls in messages:
        register_made(cls, name)
    for name, cls in enums:
        register(cls, name)
    return function  # type: ignore[no-any-return]
