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
    assert found == [name for name in BUILT if name != "_session"]
    assert "_session" in said
    assert "older than the source and not used" in said


def test_a_compiled_file_that_does_not_say_of_what_it_was_made_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_which_form, "_HERE", tmp_path)
    (tmp_path / "_link.py").write_text("one = 1\n")
    compiled = tmp_path / f"_link{EXTENSION_SUFFIXES[0]}"
    compiled.write_bytes(b"tasklets-source-digest:unknown")
    assert _which_form.find_compiled("_link") == compiled
    assert _which_form._is_stale(compiled, "_link")
    compiled.write_bytes(b"tasklets-source-digest:" + _which_form.source_digest("_link").encode())
    assert not _which_form._is_stale(compiled, "_link")


def test_make_knows_what_is_compiled() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f"HOT := {' '.join(HOT)}\n" in makefile


def test_the_tests_run_on_the_form_that_was_asked_for() -> None:
    wants_source = os.environ.get("TASKLETS_PURE", "0") not in ("", "0")
    assert compiled_modules() == ([] if wants_source else BUILT)
