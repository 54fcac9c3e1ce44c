"""Compiled or not, the core is the same; and which one is loaded is never a surprise."""

import json
import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest

from tasklets._which_form import is_compiled

ROOT = Path(__file__).resolve().parents[2]

WHICH = "import tasklets; from tasklets._which_form import is_compiled; print(is_compiled())"

# What a user can see of the classes and functions of the core.
SURFACE = """
import inspect, json, weakref
import tasklets
from tasklets import _core

def describe(thing):
    if isinstance(thing, property) or inspect.isdatadescriptor(thing):
        return ["attribute"]
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return ["object"]
    return ["function", [[each.name, str(each.default)] for each in signature.parameters.values()], bool(thing.__doc__)]

def attributes(kind):
    return {name: describe(vars(kind)[name]) for name in vars(kind) if not name.startswith("_")}

def is_read_only(one, name):
    try:
        setattr(one, name, 1)
    except AttributeError:
        return True
    except (TypeError, RuntimeError):
        pass
    return False

class Subclass(tasklets.tasklet):
    pass

kinds = [tasklets.tasklet, tasklets.channel, tasklets.bomb]
# Not schedule: no text can say what its default is, so its compiled form has no signature.
functions = ["getcurrent", "getmain", "getruncount", "run", "switch_trap"]
one, where = tasklets.tasklet(print), tasklets.channel(name="c")
subclass = Subclass(print)
subclass.unknown = 1
print(json.dumps({
    "classes": {kind.__name__: sorted(attributes(kind).items()) for kind in kinds},
    "functions": {name: describe(getattr(_core, name)) for name in functions},
    "names": [f"{kind.__module__}.{kind.__qualname__}" for kind in kinds],
    "reprs": [repr(one), repr(where), repr(tasklets.bomb(ValueError("v"))), repr(tasklets.getcurrent())],
    "weak": [weakref.ref(one)() is one, weakref.ref(where)() is where],
    "read-only": {
        type(each).__name__: [name for name in [*dir(each), "unknown"] if name[0] != "_" and is_read_only(each, name)]
        for each in (one, where)
    },
    "own": [subclass.__dict__],
}))
"""


def python(code: str, folder: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TASKLETS_")}
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        cwd=folder,
        env={**environment, **variables, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=50,
    )


def surface(**variables: str) -> Any:
    done = python(SURFACE, **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, for changing it."""
    shutil.copytree(ROOT / "tasklets", tmp_path / "tasklets", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


needs_compiled = pytest.mark.skipif(
    not is_compiled(), reason="there is no compiled core here, or it is not in use"
)


@needs_compiled
def test_both_cores_show_the_same_surface() -> None:
    assert surface() == surface(TASKLETS_PURE="1")


@pytest.mark.parametrize(("wish", "is_source"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_source_can_be_forced(wish: str, is_source: bool) -> None:
    done = python(WHICH, TASKLETS_PURE=wish)
    compiled = any((ROOT / "tasklets" / f"_core{suffix}").exists() for suffix in EXTENSION_SUFFIXES)
    assert (done.stdout, done.stderr) == (f"{compiled and not is_source}\n", "")


@needs_compiled
@pytest.mark.parametrize("name", ["_core.py", "_core.pxd", "_data_stack.h"])
def test_a_compiled_core_that_is_older_than_its_source_is_left_aside(copy: Path, name: str) -> None:
    with (copy / "tasklets" / name).open("a") as source:
        source.write("\n")
    done = python(WHICH, copy)
    assert done.stdout == "False\n"
    assert "is older than its source and is not used" in done.stderr
    assert "make compiled" in done.stderr


def test_a_compiled_core_that_cannot_be_loaded_is_left_aside(copy: Path) -> None:
    (copy / "tasklets" / "_core.pxd").unlink()  # as in a wheel: nothing to compare with
    (copy / "tasklets" / f"_core{EXTENSION_SUFFIXES[0]}").write_bytes(b"no library")
    done = python(WHICH, copy)
    assert done.stdout == "False\n"
    assert "cannot be loaded and is not used" in done.stderr


@needs_compiled
def test_a_compiled_core_that_does_not_find_what_it_needs_is_left_aside() -> None:
    """It fails in the middle then: the import system has made the module already."""
    failing = (
        "from importlib.machinery import ExtensionFileLoader as Loader\n"
        "load = Loader.exec_module\n"
        "def fail(self, module):\n"
        "    if self.name == 'tasklets._core': raise ImportError('it wants another greenlet')\n"
        "    load(self, module)\n"
        "Loader.exec_module = fail\n"
    )
    done = python(f"{failing}{WHICH}; from tasklets import _core; print(_core.__file__)")
    assert done.stdout == f"False\n{ROOT / 'tasklets' / '_core.py'}\n"
    assert (
        "cannot be loaded and is not used: tasklets is slower now. it wants another greenlet" in done.stderr
    )


@needs_compiled
def test_without_sources_beside_it_the_compiled_core_counts(copy: Path) -> None:
    (copy / "tasklets" / "_core.pxd").unlink()
    assert python(WHICH, copy).stdout == "True\n"


def test_a_wrong_wish_for_the_build_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=ROOT,
        env={**os.environ, "TASKLETS_BUILD": "maybe"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 1
    assert done.stderr == "error: TASKLETS_BUILD='maybe' is none of auto, require, off\n"
