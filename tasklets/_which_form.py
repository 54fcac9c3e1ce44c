"""Load modules in the form that is wanted: compiled where they were built, else from their source.

    choose("net", HERE, ["_link", ...], ["_link.py", "_link.pxd", ...])       # before the first of them is imported

The same modules under the same names, made of the same sources. `TASKLETS_PURE=1` in the environment forces the source.
Modules that are chosen together may know each other's types, so all of them are compiled or none is. A compiled file
carries the digest of the sources of all: when one is older, is missing or cannot be loaded, none is used, and a
warning says so. setup.py reads here how digests are made, so nothing of the packages is imported.
"""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

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
    elif compiled and (why := _why_not(package, folder, names, sources, compiled)) is not None:
        warnings.warn(why, RuntimeWarning, stacklevel=3)
        compiled = {}
    sys.meta_path.insert(0, _Finder(package, folder, names, compiled))


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
    others = f", nor what else is compiled of {package}" if len(names) > 1 else ""
    ends = f"and is not used{others}: {package} is slower now."
    missing = [name for name in names if name not in compiled]
    if missing:
        return (
            f"of {package}.{f', {package}.'.join(missing)} there is no compiled file, so none of {package} is used: "
            f"{package} is slower now. Build them again (make compiled), or remove them"
        )
    digest = source_digest(folder, sources)
    for path in compiled.values():
        if is_stale(path, digest):
            return f"{path.name} is older than its source {ends} {_ADVICE}"
    for name, path in compiled.items():
        spec = spec_from_file_location(f"{package}.{name}", path)
        assert spec is not None
        try:
            module_from_spec(spec)  # loads the library, and runs nothing of the module
        except ImportError as error:
            return f"{path.name} cannot be loaded {ends} {error}"
    return None


class _Finder:
    """Finds some modules in the form that was chosen, before the import system looks for them."""

    def __init__(
        self, package: str, folder: Path, names: Sequence[str], compiled: Mapping[str, Path]
    ) -> None:
        self._sources = {f"{package}.{name}": folder / f"{name}.py" for name in names}
        self._compiled = {f"{package}.{name}": path for name, path in compiled.items()}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        source, compiled = self._sources.get(fullname), self._compiled.get(fullname)
        if source is None:
            return None
        if compiled is None:
            return spec_from_file_location(fullname, source)
        if len(self._compiled) > 1:  # the source of one does not go with the others
            return spec_from_file_location(fullname, compiled)
        return spec_from_file_location(fullname, compiled, loader=_Compiled(fullname, compiled, source))


class _Compiled(ExtensionFileLoader):
    """Loads a compiled file, or the source when it does not find what it needs."""

    def __init__(self, fullname: str, compiled: Path, source: Path) -> None:
        super().__init__(fullname, str(compiled))
        self._source = source

    def exec_module(self, module: ModuleType) -> None:
        try:
            super().exec_module(module)
            return
        except ImportError as error:
            package = self.name.partition(".")[0]
            warnings.warn(
                f"{os.path.basename(self.path)} cannot be loaded and is not used: {package} is slower now. {error}",
                RuntimeWarning,
                stacklevel=2,
            )
        spec = spec_from_file_location(self.name, self._source)
        assert spec is not None
        assert spec.loader is not None
        # What stands there when this returns is what is imported; when it raises, the import system removes it.
        fresh = sys.modules[self.name] = module_from_spec(spec)
        spec.loader.exec_module(fresh)
