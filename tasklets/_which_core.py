"""Load the core: compiled where it was built, else from its source. The same module, under the same name.

`TASKLETS_PURE=1` in the environment forces the source. A compiled file carries the digest of the source it was made of:
one that is older than its source is not used, and a warning says so.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import warnings
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

NAME = "tasklets._core"
_SOURCES = ("_core.py", "_core.pxd", "_data_stack.h")
_MARK = b"tasklets-source-digest:"  # stands before the digest in the compiled file, see _core.pxd


def load_core() -> ModuleType:
    """Import `tasklets._core` in the form that is wanted here."""
    here = Path(__file__).resolve().parent
    if os.environ.get("TASKLETS_PURE", "0") not in ("", "0"):
        return _load_source(here)
    compiled = _find_compiled(here)
    if compiled is None:
        return importlib.import_module(NAME)
    if _is_stale(compiled, here):
        warnings.warn(
            f"{compiled.name} is older than its source and is not used: tasklets is slower now. Build it again "
            "(make compiled), or remove it",
            RuntimeWarning,
            stacklevel=3,
        )
        return _load_source(here)
    try:
        return importlib.import_module(NAME)
    except ImportError as error:
        warnings.warn(
            f"{compiled.name} cannot be loaded and is not used: tasklets is slower now. {error}",
            RuntimeWarning,
            stacklevel=3,
        )
        return _load_source(here)


def is_compiled() -> bool:
    """True when the core that is loaded is the compiled one."""
    return sys.modules[NAME].__spec__.origin.endswith(tuple(EXTENSION_SUFFIXES))  # type: ignore[union-attr]


def source_digest(folder: Path) -> str:
    """What the sources of the core say, in 32 hexadecimal digits. Empty when they are not there."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        for name in _SOURCES:
            digest.update((folder / name).read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()


def _find_compiled(here: Path) -> Path | None:
    found = (here / f"_core{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((path for path in found if path.is_file()), None)


def _is_stale(compiled: Path, here: Path) -> bool:
    digest = source_digest(here)  # a wheel has no _core.pxd: nobody edits there, and nothing can be compared
    return bool(digest) and _MARK + digest.encode() not in compiled.read_bytes()


def _load_source(here: Path) -> ModuleType:
    spec = spec_from_file_location(NAME, here / "_core.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[NAME] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[NAME]
        raise
    setattr(sys.modules["tasklets"], "_core", module)  # noqa: B010  as the import system does
    return module
