"""Load modules in the form that is wanted: compiled where they were built, else from their source.

    choose("net", HERE, {"_link": ("_link.py",), ...})       # before the first of them is imported

The same modules under the same names, made of the same sources. `TASKLETS_PURE=1` in the environment forces the source.
A compiled file carries the digest of the sources it was made of: one that is older, or that cannot be loaded, is not
used, and a warning says so. setup.py reads here how digests are made, so nothing of the packages is imported.
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

# Of which files each module is made, its source first. The digests of all are in the compiled files.
CORE: Final = {"_core": ("_core.py", "_core.pxd", "_data_stack.h")}
_MARK: Final = b"tasklets-source-digest:"  # stands before the digest in a compiled file, see _core.pxd
_ADVICE: Final = "Build it again (make compiled), or remove it"


def choose(package: str, folder: Path, modules: Mapping[str, Sequence[str]]) -> None:
    """See to it that each of these modules is loaded in the right form when it is imported."""
    if os.environ.get("TASKLETS_PURE", "0") not in ("", "0"):
        sys.meta_path.insert(0, _Finder(package, folder, modules, {}))
        return
    compiled = {name: path for name in modules if (path := find_compiled(folder, name)) is not None}
    stale = [name for name, path in compiled.items() if is_stale(path, folder, modules[name])]
    if stale:
        files = ", ".join(compiled.pop(name).name for name in stale)
        warnings.warn(
            f"{files} is older than its source and is not used: {package} is slower now. {_ADVICE}",
            RuntimeWarning,
            stacklevel=3,
        )
    sys.meta_path.insert(0, _Finder(package, folder, modules, compiled))


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


def is_stale(compiled: Path, folder: Path, sources: Sequence[str]) -> bool:
    digest = source_digest(
        folder, sources
    )  # a wheel has no _core.pxd: nobody edits there, nothing can be compared
    return bool(digest) and _MARK + digest.encode() not in compiled.read_bytes()


class _Finder:
    """Finds some modules in the form that was chosen, before the import system looks for them."""

    def __init__(
        self, package: str, folder: Path, modules: Mapping[str, Sequence[str]], compiled: Mapping[str, Path]
    ) -> None:
        self._sources = {f"{package}.{name}": folder / files[0] for name, files in modules.items()}
        self._compiled = {f"{package}.{name}": path for name, path in compiled.items()}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        source, compiled = self._sources.get(fullname), self._compiled.get(fullname)
        if source is None:
            return None
        if compiled is None:
            return spec_from_file_location(fullname, source)
        return spec_from_file_location(fullname, compiled, loader=_Compiled(fullname, compiled, source))


class _Compiled(ExtensionFileLoader):
    """Loads a compiled file, or the source when that cannot be loaded: for another Python, without what it needs."""

    def __init__(self, fullname: str, compiled: Path, source: Path) -> None:
        super().__init__(fullname, str(compiled))
        self._source = source
        self._failed = False

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:  # type: ignore[override]
        try:
            return super().create_module(spec)
        except ImportError as error:
            self._say_why(error)
            return None

    def exec_module(self, module: ModuleType) -> None:
        if not self._failed:
            try:
                super().exec_module(module)
                return
            except ImportError as error:
                self._say_why(error)
        spec = spec_from_file_location(self.name, self._source)
        assert spec is not None
        assert spec.loader is not None
        # What stands there when this returns is what is imported; when it raises, the import system removes it.
        fresh = sys.modules[self.name] = module_from_spec(spec)
        spec.loader.exec_module(fresh)

    def _say_why(self, error: ImportError) -> None:
        self._failed = True
        package = self.name.partition(".")[0]
        warnings.warn(
            f"{os.path.basename(self.path)} cannot be loaded and is not used: {package} is slower now. {error}",
            RuntimeWarning,
            stacklevel=2,
        )
