"""Load what every message passes through in the form that is wanted: compiled where it was built, else its source.

The same modules under the same names, made of the same source. `TASKLETS_PURE=1` in the environment forces the source.
A compiled file carries the digest of the source it was made of: one that is older than its source is not used, and a
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
    from importlib.machinery import ModuleSpec

HOT: Final = (
    "_apart",
    "_bulk",
    "_codec",
    "_entries",
    "_exports",
    "_link",
    "_protocol",
    "_references",
    "_session",
    "_window",
)
_HERE: Final = Path(__file__).resolve().parent
_MARK: Final = b"tasklets-source-digest:"  # stands before the digest in a compiled file, see _made_of.h


def choose() -> None:
    """See to it that no compiled module is loaded that should not be. To be called before any of them is imported."""
    compiled = {name: path for name in HOT if (path := find_compiled(name)) is not None}
    if os.environ.get("TASKLETS_PURE", "0") not in ("", "0"):
        aside = set(compiled)
    else:
        aside = {name for name, path in compiled.items() if _is_stale(path, name)}
        if aside:
            warnings.warn(
                f"{', '.join(sorted(compiled[name].name for name in aside))}: older than the source and not used, "
                "net is slower now. Build it again (make compiled), or remove it",
                RuntimeWarning,
                stacklevel=3,
            )
    if aside:
        sys.meta_path.insert(0, _Sources(aside))


def compiled_modules() -> list[str]:
    """Which of them are loaded in their compiled form."""
    loaded = ((name, sys.modules.get(f"net.{name}")) for name in HOT)
    return [
        name for name, module in loaded if module and str(module.__file__).endswith(tuple(EXTENSION_SUFFIXES))
    ]


def source_digest(name: str) -> str:
    """What the source of a module says, in 32 hexadecimal digits."""
    return hashlib.blake2b((_HERE / f"{name}.py").read_bytes(), digest_size=16).hexdigest()


def find_compiled(name: str) -> Path | None:
    """The compiled file of a module for this Python."""
    found = (_HERE / f"{name}{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((path for path in found if path.is_file()), None)


def _is_stale(compiled: Path, name: str) -> bool:
    return _MARK + source_digest(name).encode() not in compiled.read_bytes()


class _Sources:
    """Finds the source of some modules, before the import system finds their compiled files."""

    def __init__(self, names: set[str]) -> None:
        self._names = {f"net.{name}": name for name in names}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        name = self._names.get(fullname)
        return spec_from_file_location(fullname, _HERE / f"{name}.py") if name is not None else None
