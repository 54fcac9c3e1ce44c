"""Functions by name: what `spawn` sends, and how the other side finds and runs it."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit

from net import _wire as wire
from net._codec import Undecodable
from net._delivery import PREFIX
from net._printable import printable
from net.errors import NetError, NotImportable, RemoteProtocolError
from tasklets import NotSendable, TaskletExit, getcurrent, tasklet

if TYPE_CHECKING:
    from collections.abc import Callable

    from net._link import Link
    from net.node import Node

_TOP_LEVEL = "define it at the top level of a module, so that another process can import it"


def name_function(function: Callable[..., object]) -> str:
    """The name under which another process can import a function, "module:qualified.name".

    Raises NotImportable.
    """
    module = getattr(function, "__module__", None)
    qualname = getattr(function, "__qualname__", None)
    if not callable(function) or not module or not qualname:
        raise NotImportable(
            f"{function!r} has no name to import it by; spawn a function that a module defines"
        )
    if "<" in qualname:
        raise NotImportable(f"{qualname} is defined inside a function; {_TOP_LEVEL}")
    if module == "__main__":
        module = _name_main(qualname)
        found: Any = sys.modules["__main__"]
    else:
        found = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise NotImportable(f"the module {module} has no {qualname}; {_TOP_LEVEL}")
    if found != function:  # a method of an object, or what a decorator replaced
        raise NotImportable(f"{module}:{qualname} is not {function!r} but {found!r}; {_TOP_LEVEL}")
    return f"{module}:{qualname}"


def _name_main(qualname: str) -> str:
    """What another process has to import to get what is defined in the program that was started here."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    path = getattr(main, "__file__", None)
    if path is None:
        raise NotImportable(
            f"{qualname} was defined at the prompt, where other machines cannot find it; put it into a module"
        )
    folder, file = os.path.split(os.path.abspath(path))
    stem, extension = os.path.splitext(file)
    if extension != ".py" or not stem.isidentifier() or os.path.abspath(sys.path[0]) != folder:
        raise NotImportable(
            f"{qualname} is defined in {file}, which cannot be imported by name; {_TOP_LEVEL}"
        )
    return str(stem)


def find_function(name: str, node: Node) -> Callable[..., object]:
    """The function that a peer names. Blocks while it is being delivered. Raises NotImportable."""
    if name.startswith(PREFIX) and node.delivered is not None:
        return node.delivered.find(name)
    return import_function(name, node.name)


def import_function(name: str, at: str) -> Callable[..., object]:
    """The function that `name_function` named. Raises NotImportable, saying where it failed."""
    module, _, qualname = name.partition(":")
    try:
        found: Any = _import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise NotImportable(
            f"{name} cannot be imported at {at} ({error}); "
            "install its module there, or start the node where it is found"
        ) from error
    if not callable(found):
        raise NotImportable(f"{name} is no function but {type(found).__name__}")
    function: Callable[..., object] = found
    return function


# Who imports a module for a peer now -> its name.
_importing: dict[tasklet, str] = {}


def _import_module(name: str) -> Any:
    me = getcurrent()
    _importing[me] = name
    try:
        return importlib.import_module(name)
    finally:
        del _importing[me]


def check_not_importing(place: str) -> None:
    """Stop a program that, imported by a node for one of its functions, would start itself there again.

    Raises NotImportable.
    """
    module = _importing.get(getcurrent())
    if module is not None:
        raise NotImportable(
            f"{module} opens the place {place!r} while it is imported; put what starts the program under\n"
            '    if __name__ == "__main__":'
        )


def kill_spawned(one: tasklet) -> bool:
    """Kill a tasklet that runs a spawned function; False when it never ran, so it will not tell of its end."""
    started = one._call is None
    one.kill(pending=True)
    return started


def _on_spawn(link: Link, frame: wire.Frame) -> None:
    """Start a tasklet for a peer, and tell it how that ends."""
    _, op, name, args, kwargs = frame
    node = link.node
    if op in link.spawned:
        raise RemoteProtocolError(f"SPAWN {op} is still in work")
    if node.stopping:
        stopping = NetError(f"{node.name} is being stopped and starts nothing more; spawn at another node")
        link.tell((wire.RAISE, op), stopping)
    elif not node.accepts_spawn:
        refusal = NetError(f"{node.name} starts nothing for others; start one that does with: tasklets node")
        link.tell((wire.RAISE, op), refusal)
    elif isinstance(args, Undecodable) or isinstance(kwargs, Undecodable):
        reason = (args if isinstance(args, Undecodable) else kwargs).reason
        unread = NotSendable(f"the arguments of {name} cannot be read there: {reason}")
        link.tell((wire.RAISE, op), unread)
    else:
        one = tasklet(_live)(node, link, op, name, args, kwargs)
        one.name = printable(name)
        link.spawned[op] = one


def _live(node: Node, link: Link, op: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        function = find_function(name, node)
        link.notify((wire.STARTED, op))
        function(*args, **kwargs)
    except TaskletExit:
        pass
    except (KeyboardInterrupt, GreenletExit):  # meant for the whole process; by the collector
        raise
    except BaseException as failure:  # noqa: BLE001  whatever it is, it belongs to the one who spawned
        link.tell((wire.EXITED, op), failure)
        return
    finally:
        link.spawned.pop(op, None)
        node.spawned_ended()
    link.notify((wire.EXITED, op, None))


def _on_kill(link: Link, frame: wire.Frame) -> None:
    op = frame[1]
    victim = link.spawned.get(op)
    if victim is not None and not kill_spawned(victim):
        del link.spawned[op]
        link.notify((wire.EXITED, op, None))


HANDLERS: dict[int, Callable[[Link, wire.Frame], None]] = {wire.SPAWN: _on_spawn, wire.KILL: _on_kill}
