"""Regenerating the notebooks changes what has changed, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tutorial import regenerate

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]


def write(path: Path, source: str, shown: str, *tags: str) -> None:
    """A notebook with one cell, which once printed something."""
    outputs = [new_output("stream", name="stdout", text=shown)]
    cell = new_code_cell(source, id="c01", outputs=outputs, metadata={"tags": list(tags)}, execution_count=1)
    nbformat.write(new_notebook(cells=[cell]), path)


def shown_by(path: Path) -> Any:
    return nbformat.read(path, as_version=4).cells[0].outputs[0].text


@pytest.mark.parametrize(
    ("source", "tags", "kept"),
    [
        ("print('took 12.5 ms')", (), "took 3.1 ms\n"),  # only a clock says something else
        ("print('answer 42')", (), None),
        ("print('answer 42')", ("measured",), "answer 41\n"),  # a figure of another machine
    ],
)
def test_an_output_is_kept_unless_it_says_something_else(
    tmp_path: Path, source: str, tags: tuple[str, ...], kept: str | None
) -> None:
    path = tmp_path / "one.ipynb"
    write(path, source, kept or "answer 41\n", *tags)

    regenerate.update(path, measure=False)
    again = regenerate.update(path, measure=False)

    assert shown_by(path) == (kept or "answer 42\n")
    assert not again


def test_new_figures_are_taken_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "one.ipynb"
    write(path, "print('answer 42')", "answer 41\n", "measured")

    assert regenerate.update(path, measure=True)
    assert shown_by(path) == "answer 42\n"
