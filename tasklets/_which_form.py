"""Load modules in the form that is wanted: compiled where they were built, else from their source.

    choose("net", HERE, ["_link", ...], ["_link.py", "_link.pxd", ...])       # before the first of them is imported

The same modules under the same names, made of the same sources. `TASKLETS_PURE=1` in the environment forces the source.
Modules that are chosen together may know each other's types, so all of them are compiled or none is. A compiled file
carries the digest of the sources of all: when one is older, is missing, cannot be loaded or fails while it is imported,
none is used, and a warning says so. setup.py reads here how digests are made, so nothing of the packages is imported.
"""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

CORE_SOURCES: Final = ("_core.py", "_core.pxd", "_data_stack.h")  # of what the core is made
_MARK: Final = b"tasklets-source-digest:"  # stands before the digest in a compiled file, see _core.pxd
_ADVICE: Final = "Build it again (make compiled), or remove it"


def choose(
    package: str, folder: Path, names: Sequence[str], sources: Sequence[str], needs: str | None = None
) -> None:
    """See to it that each of these modules, made of these sources, is loaded in the right form when it is imported.

    `needs`: a module that has to be compiled too, since they know its types.
    """
    compiled = {name: path for name in names if (path := find_compiled(folder, name)) is not None}
    if _is_source_wanted() or (needs is not None and not is_compiled(needs)):
        compiled = {}
    why = _why_not(package, folder, names, sources, compiled) if compiled else None
    finder = _Finder(package, folder, names, {} if why else compiled)
    sys.meta_path.insert(0, finder)
    if compiled and why is None:
        why = _why_not_imported(package, names, finder)
    if why is not None:
        warnings.warn(why, RuntimeWarning, stacklevel=3)


def is_compiled(name: str = "tasklets._core") -> bool:
    """True when a module is loaded in its compiled form."""
    module = sys.modules.get(name)
    return module is not None and str(module.__file__).endswith(tuple(EXTENSION_SUFFIXES))


def source_digest(folder: Path, sources: Sequence[str]) -> str:
    """What some sources say, in 32 hexadecimal digits. Empty when they are not all there."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        for name in sources:
            digest.update((folder / name).read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()


def find_compiled(folder: Path, name: str) -> Path | None:
    """The compiled file of a module for this Python."""
    found = (folder / f"{name}{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((path for path in found if path.is_file()), None)


def is_stale(compiled: Path, digest: str) -> bool:
    """True when a file was not made of the sources with this digest.

    Without one nothing can be compared: a wheel has no _core.pxd, and nobody edits there.
    """
    return bool(digest) and _MARK + digest.encode() not in compiled.read_bytes()


def _is_source_wanted() -> bool:
    return os.environ.get("TASKLETS_PURE", "0") not in ("", "0")


def _why_not(
    package: str, folder: Path, names: Sequence[str], sources: Sequence[str], compiled: Mapping[str, Path]
) -> str | None:
    """Why these files are not to be used, if so."""
    missing = [name for name in names if name not in compiled]
    if missing:
        return (
            f"of {package}.{f', {package}.'.join(missing)} there is no compiled file, so none of {package} is used: "
            f"{package} is slower now. Build them again (make compiled), or remove them"
        )
    digest = source_digest(folder, sources)
    for path in compiled.values():
        if is_stale(path, digest):
            return f"{path.name} is older than its source {_ends(package, names)} {_ADVICE}"
    return None


def _why_not_imported(package: str, names: Sequence[str], finder: _Finder) -> str | None:
    """Import the compiled modules; or say why that fails, and leave nothing that has seen one of them."""
    before = set(sys.modules)
    for name in names:
        try:
            import_module(f"{package}.{name}")
        except Exception as error:  # noqa: BLE001  types of another size are a ValueError, and so on
            path = finder.last_failed()
            finder.take_sources()
            _forget(package, set(sys.modules) - before)
            return f"{path.name} cannot be loaded {_ends(package, names)} {error}"
    return None


def _forget(package: str, modules: Iterable[str]) -> None:
    for name in modules:
        parent, _, child = name.rpartition(".")
        if parent == package:
            del sys.modules[name]
            vars(sys.modules[package]).pop(child, None)  # where `from package import child` looks first


def _ends(package: str, names: Sequence[str]) -> str:
    others = f", nor what else is compiled of {package}" if len(names) > 1 else ""
    return f"and is not used{others}: {package} is slower now."


class _Finder:
    """Finds some modules in the form that was chosen, before the import system looks for them."""

    def __init__(
        self, package: str, folder: Path, names: Sequence[str], compiled: Mapping[str, Path]
    ) -> None:
        self._sources = {f"{package}.{name}": folder / f"{name}.py" for name in names}
        self._compiled = {f"{package}.{name}": path for name, path in compiled.items()}
        self._asked: list[str] = []

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname not in self._sources:
            return None
        self._asked.append(fullname)
        return spec_from_file_location(fullname, self._compiled.get(fullname) or self._sources[fullname])

    def last_failed(self) -> Path:
        """The compiled file whose import has failed just now; it may have been imported by another one."""
        return self._compiled[next(name for name in reversed(self._asked) if name not in sys.modules)]

    def take_sources(self) -> None:
        """Find none of the compiled files any more."""
        self._compiled = {}
