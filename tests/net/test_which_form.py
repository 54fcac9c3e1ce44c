"""Compiled or not, net is the same; and which form is loaded is never a surprise."""

import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from net import _which_form
from net._which_form import HOT, compiled_modules, find_compiled

ROOT = Path(__file__).resolve().parents[2]
WHICH = "import net, sys; from net._which_form import compiled_modules; print(*compiled_modules())"
BUILT = [name for name in HOT if find_compiled(name)]

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


@needs_compiled
def test_what_is_compiled_is_loaded() -> None:
    assert loaded(ROOT, TASKLETS_PURE="0") == (BUILT, "")


@needs_compiled
def test_the_source_can_be_forced() -> None:
    assert loaded(ROOT, TASKLETS_PURE="1") == ([], "")


@needs_compiled
def test_what_is_older_than_its_source_is_not_used(tmp_path: Path) -> None:
    for package in ("net", "tasklets"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "net" / "_session.py").open("a") as source:
        source.write("# changed\n")
    found, said = loaded(tmp_path, TASKLETS_PURE="0")
    assert found == []  # none of them: they know each other's types
    assert "older than the source, so none is used" in said


@needs_compiled
def test_what_was_made_for_other_types_is_not_used(tmp_path: Path) -> None:
    for package in ("net", "tasklets"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    types = tmp_path / "net" / "_link.pxd"
    before = types.read_text()
    types.write_text(before.replace("cdef public", "cdef readonly", 1))
    found, said = loaded(tmp_path, TASKLETS_PURE="0")
    assert found == []
    assert "older than the source" in said
    for each in tmp_path.glob("*/*.pxd"):  # a wheel has none, and nobody edits there
        each.unlink()
    assert loaded(tmp_path, TASKLETS_PURE="0") == (BUILT, "")


@needs_compiled
def test_without_all_of_them_none_is_used(tmp_path: Path) -> None:
    for package in ("net", "tasklets"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    compiled = find_compiled("_window")
    assert compiled is not None
    (tmp_path / "net" / compiled.name).unlink()
    found, said = loaded(tmp_path, TASKLETS_PURE="0")
    assert found == []
    assert "of net._window there is no compiled file" in said


def test_a_compiled_file_that_does_not_say_of_what_it_was_made_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_which_form, "_HERE", tmp_path / "net")
    shutil.copytree(
        ROOT / "net", tmp_path / "net", ignore=shutil.ignore_patterns("*.py", "*.so", "__pycache__")
    )
    shutil.copytree(
        ROOT / "tasklets", tmp_path / "tasklets", ignore=shutil.ignore_patterns("*.py", "*.so", "__pycache__")
    )
    for name in HOT:
        (tmp_path / "net" / f"{name}.py").write_text("one = 1\n")
    digest = _which_form.source_digest()
    compiled = tmp_path / "net" / f"_link{EXTENSION_SUFFIXES[0]}"
    compiled.write_bytes(b"tasklets-source-digest:unknown")
    assert _which_form.find_compiled("_link") == compiled
    assert _which_form._is_stale(compiled, digest)
    compiled.write_bytes(b"tasklets-source-digest:" + digest.encode())
    assert not _which_form._is_stale(compiled, digest)


def test_make_knows_what_is_compiled() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f"HOT := {' '.join(HOT)}\n" in makefile


def test_the_tests_run_on_the_form_that_was_asked_for() -> None:
    wants_source = os.environ.get("TASKLETS_PURE", "0") not in ("", "0")
    assert compiled_modules() == ([] if wants_source else BUILT)
