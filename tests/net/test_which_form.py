"""Compiled or not, net is the same; and which form is loaded is never a surprise. The core: tests/tasklets."""

import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from net._hot import HOT, MODULES
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
    assert found == [name for name in BUILT if name != "_session"]
    assert "_session" in said
    assert "is older than its source and is not used: net is slower now" in said
    assert "make compiled" in said


def test_what_cannot_be_loaded_is_not_used(copy: Path) -> None:
    digest = source_digest(copy / "net", MODULES["_link"])
    library = copy / "net" / f"_link{EXTENSION_SUFFIXES[0]}"
    library.write_bytes(b"no library\ntasklets-source-digest:" + digest.encode())
    found, said = loaded(copy, TASKLETS_PURE="0")
    assert found == [name for name in BUILT if name != "_link"]
    assert f"{library.name} cannot be loaded and is not used: net is slower now" in said


def test_a_compiled_file_that_does_not_say_of_what_it_was_made_is_stale(tmp_path: Path) -> None:
    (tmp_path / "_link.py").write_text("one = 1\n")
    compiled = tmp_path / f"_link{EXTENSION_SUFFIXES[0]}"
    compiled.write_bytes(b"tasklets-source-digest:unknown")
    assert find_compiled(tmp_path, "_link") == compiled
    assert is_stale(compiled, tmp_path, MODULES["_link"])
    compiled.write_bytes(b"tasklets-source-digest:" + source_digest(tmp_path, MODULES["_link"]).encode())
    assert not is_stale(compiled, tmp_path, MODULES["_link"])


def test_make_knows_what_is_compiled() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f"HOT := {' '.join(HOT)}\n" in makefile


def test_the_tests_run_on_the_form_that_was_asked_for() -> None:
    wants_source = os.environ.get("TASKLETS_PURE", "0") not in ("", "0")
    assert [name for name in HOT if is_compiled(f"net.{name}")] == ([] if wants_source else BUILT)
