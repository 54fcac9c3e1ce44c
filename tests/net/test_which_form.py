"""Compiled or not, net is the same; and which form is loaded is never a surprise. The core: tests/tasklets."""

import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from net._hot import HOT, SOURCES, TYPES
from tasklets._which_form import find_compiled, is_compiled, is_stale, source_digest

ROOT = Path(__file__).resolve().parents[2]
WHICH = (
    "import net; from net._hot import HOT; from tasklets._which_form import is_compiled; "
    "print(*(name for name in HOT if is_compiled(f'net.{name}')))"
)
BUILT = [name for name in HOT if find_compiled(ROOT / "net", name)]

needs_compiled = pytest.mark.skipif(not BUILT, reason="nothing of net is compiled here; make compiled")


def loaded(folder: Path, **environment: str) -> tuple[list[str], str]:
    """The compiled modules that a process loads from a folder, and what it says on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", WHICH],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split(), done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the packages, for changing it."""
    for package in ("net", "tasklets"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@needs_compiled
def test_what_is_compiled_is_loaded() -> None:
    assert loaded(ROOT, TASKLETS_PURE="0") == (BUILT, "")


@needs_compiled
def test_the_source_can_be_forced() -> None:
    assert loaded(ROOT, TASKLETS_PURE="1") == ([], "")


@needs_compiled
def test_what_is_older_than_its_source_is_not_used(copy: Path) -> None:
    with (copy / "net" / "_session.py").open("a") as source:
        source.write("# changed\n")
    found, said = loaded(copy, TASKLETS_PURE="0")
    assert found == []  # none of them: they know each other's types
    assert (
        "is older than its source and is not used, nor what else is compiled of net: net is slower now"
        in said
    )
    assert "make compiled" in said


@needs_compiled
def test_what_was_made_for_other_types_is_not_used(copy: Path) -> None:
    types = copy / "net" / "_link.pxd"
    before = types.read_text()
    types.write_text(before.replace("cdef public", "cdef readonly", 1))
    found, said = loaded(copy, TASKLETS_PURE="0")
    assert found == []
    assert "is older than its source and is not used" in said
    for each in copy.glob("*/*.pxd"):  # a wheel has none, and nobody edits there
        each.unlink()
    assert loaded(copy, TASKLETS_PURE="0") == (BUILT, "")


@needs_compiled
def test_without_all_of_them_none_is_used(copy: Path) -> None:
    compiled = find_compiled(copy / "net", "_window")
    assert compiled is not None
    compiled.unlink()
    found, said = loaded(copy, TASKLETS_PURE="0")
    assert found == []
    assert "of net._window there is no compiled file, so none of net is used: net is slower now" in said


@needs_compiled
def test_when_one_cannot_be_loaded_none_is_used(copy: Path) -> None:
    library = find_compiled(copy / "net", "_link")
    assert library is not None
    library.unlink()  # it may be mapped in this process
    library.write_bytes(
        b"no library\ntasklets-source-digest:" + source_digest(copy / "net", SOURCES).encode()
    )
    found, said = loaded(copy, TASKLETS_PURE="0")
    assert found == []
    assert f"{library.name} cannot be loaded and is not used, nor what else is compiled of net" in said


FAILING = """
from importlib.machinery import ExtensionFileLoader as Loader
load = Loader.exec_module
def fail(self, module):
    if self.name == "net._protocol": raise ValueError("net._session.Session has another size")
    load(self, module)
Loader.exec_module = fail
"""
ALIKE = """
import sys, net
for name, module in list(sys.modules.items()):
    if name.startswith("net."):
        for each in vars(module).values():  # what it has imported is what is there, and not what was there before
            of = getattr(each, "__module__", None)
            if isinstance(each, type) and of and of.startswith("net."):
                assert getattr(sys.modules[of], each.__name__, each) is each, (name, each)
assert net._link.wire is net._wire is sys.modules["net._wire"]
"""


@needs_compiled
def test_when_one_fails_while_it_is_imported_none_is_used() -> None:
    """It fails in the middle, when others have been imported already, some of them from their sources."""
    done = subprocess.run(
        [sys.executable, "-c", f"{FAILING}\n{WHICH}\n{ALIKE}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TASKLETS_PURE": "0"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
    assert "_protocol." in done.stderr
    assert (
        "cannot be loaded and is not used, nor what else is compiled of net: net is slower now. "
        "net._session.Session has another size" in done.stderr
    )


@needs_compiled
def test_without_the_compiled_core_none_is_used(copy: Path) -> None:
    core = find_compiled(copy / "tasklets", "_core")
    assert core is not None
    core.unlink()  # they know its types
    assert loaded(copy, TASKLETS_PURE="0") == ([], "")


def test_a_compiled_file_that_does_not_say_of_what_it_was_made_is_stale(tmp_path: Path) -> None:
    (tmp_path / "_link.py").write_text("one = 1\n")
    compiled = tmp_path / f"_link{EXTENSION_SUFFIXES[0]}"
    compiled.write_bytes(b"tasklets-source-digest:unknown")
    assert find_compiled(tmp_path, "_link") == compiled
    digest = source_digest(tmp_path, ["_link.py"])
    assert is_stale(compiled, digest)
    compiled.write_bytes(b"tasklets-source-digest:" + digest.encode())
    assert not is_stale(compiled, digest)
    assert not is_stale(compiled, source_digest(tmp_path, ["_link.py", "_link.pxd"]))  # one is not there


def test_all_types_are_among_what_they_are_made_of() -> None:
    files = {path.name for path in (ROOT / "net").glob("*.pxd")} | {"../tasklets/_core.pxd"}
    assert sorted(TYPES) == sorted(files)
    assert source_digest(ROOT / "net", SOURCES)


def test_make_knows_what_is_compiled() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f"HOT := {' '.join(HOT)}\n" in makefile


def test_the_tests_run_on_the_form_that_was_asked_for() -> None:
    wants_source = os.environ.get("TASKLETS_PURE", "0") not in ("", "0")
    assert [name for name in HOT if is_compiled(f"net.{name}")] == ([] if wants_source else BUILT)
