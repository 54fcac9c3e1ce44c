"""Load what every message passes through in the form that is wanted: compiled where it was built, else its source.

The same modules under the same names, made of the same source. `TASKLETS_PURE=1` in the environment forces the source.
Each compiled file carries the digest of the sources of all: when one of these is newer none is used, and a
warning says so. setup.py reads here what to compile, so nothing of the packages is imported.
"""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.machinery import ModuleSpec

HOT: Final = (
    "_apart",
    "_bulk",
    "_codec",
    "_entries",
    "_exports",
    "_landing",
    "_link",
    "_protocol",
    "_references",
    "_session",
    "_window",
)
_HERE: Final = Path(__file__).resolve().parent
_MARK: Final = b"tasklets-source-digest:"  # stands before the digest in a compiled file, see _made_of.h


def choose() -> None:
    """See to it that no compiled module is loaded that should not be. To be called before any of them is imported.

    All are loaded or none: they know each other's types, and those of the core.
    """
    compiled = {name: path for name in HOT if (path := find_compiled(name)) is not None}
    if not compiled:
        return
    from tasklets._which_core import (
        is_compiled,
    )  # not above: setup.py reads this module where nothing is built yet

    if os.environ.get("TASKLETS_PURE", "0") not in ("", "0") or not is_compiled():
        sys.meta_path.insert(0, _Sources(compiled))
        return
    digest = source_digest()
    missing = [name for name in HOT if name not in compiled]
    if missing:
        why = f"of net.{', net.'.join(missing)} there is no compiled file"
    elif any(_is_stale(path, digest) for path in compiled.values()):
        why = "the compiled modules are older than the source"
    else:
        return
    warnings.warn(
        f"net: {why}, so none is used and net is slower now. Build them again (make compiled), or remove them",
        RuntimeWarning,
        stacklevel=3,
    )
    sys.meta_path.insert(0, _Sources(compiled))


def compiled_modules() -> list[str]:
    """Which of them are loaded in their compiled form."""
    loaded = ((name, sys.modules.get(f"net.{name}")) for name in HOT)
    return [
        name for name, module in loaded if module and str(module.__file__).endswith(tuple(EXTENSION_SUFFIXES))
    ]


def types() -> list[Path]:
    """The files in which the compiled modules' types stand, the core's among them."""
    return [*sorted(_HERE.glob("_*.pxd")), _HERE.parent / "tasklets" / "_core.pxd"]


def source_digest() -> str:
    """What the sources of all modules say, in 32 hexadecimal digits. Empty when they are not there, as in a wheel."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        for path in [*(_HERE / f"{name}.py" for name in HOT), *types()]:
            digest.update(path.read_bytes())
    except FileNotFoundError:
        return ""
    return digest.hexdigest()


def find_compiled(name: str) -> Path | None:
    """The compiled file of a module for this Python."""
    found = (_HERE / f"{name}{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((path for path in found if path.is_file()), None)


def _is_stale(compiled: Path, digest: str) -> bool:
    return bool(digest) and _MARK + digest.encode() not in compiled.read_bytes()


class _Sources:
    """Finds the source of some modules, before the import system finds their compiled files."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {f"net.{name}": name for name in names}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        name = self._names.get(fullname)
        return spec_from_file_location(fullname, _HERE / f"{name}.py") if name is not None else None
