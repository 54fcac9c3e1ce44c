"""Run the notebooks top to bottom and keep what they show: `make notebooks`, or python tutorial/regenerate.py [FILES].

An output that differs only in what a clock says is kept, so that running this changes nothing when nothing has
changed. Cells tagged `measured` show figures of the machine they ran on: what they say is kept until their code
changes, or until `--measure` asks for new figures.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
SECONDS_PER_CELL = 60
CLOCK = re.compile(r"\d+(?:\.\d+)?\s?(?:ns|us|µs|ms|s)\b")
PROCESS = re.compile(r"\b(pid|process) \d+")


def notebooks() -> list[Path]:
    """All of them, in the order in which they are read, each solution behind its chapter."""
    chapters = sorted(HERE.glob("[0-9]*.ipynb"))
    solutions = {path.name[:2]: path for path in (HERE / "solutions").glob("[0-9]*.ipynb")}
    return [each for path in chapters for each in (path, solutions.get(path.name[:2])) if each is not None]


def execute(path: Path) -> nbformat.NotebookNode:
    """Run a notebook in a kernel of its own. Raises CellExecutionError for the first cell that fails."""
    notebook = nbformat.read(path, as_version=4)
    # Kernels and their children shall not write compiled files beside the notebooks.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    client = NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],
    )
    client.execute(env=environment)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = merge_streams(cell.outputs)
    return notebook


def merge_streams(outputs: list[Any]) -> list[Any]:
    """Put texts together that left in several pieces, which is a matter of timing."""
    merged: list[Any] = []
    for output in outputs:
        before = merged[-1] if merged else None
        if (
            before is not None
            and output.output_type == before.output_type == "stream"
            and output.name == before.name
        ):
            before.text += output.text
        else:
            merged.append(copy.deepcopy(output))
        if output.output_type in ("display_data", "execute_result"):
            merged[-1].metadata = {}
            merged[-1].pop("transient", None)
    return merged


def is_measured(cell: nbformat.NotebookNode) -> bool:
    """True for a cell whose output belongs to the machine it ran on."""
    return "measured" in cell.metadata.get("tags", ())


def without_clock(outputs: list[Any]) -> str:
    """What outputs say, apart from what a clock said and how processes are numbered."""
    kept = copy.deepcopy(outputs)
    for output in kept:
        output.pop("execution_count", None)
    text = json.dumps(kept, sort_keys=True, ensure_ascii=False)
    return PROCESS.sub("a process", CLOCK.sub("a time", text))


def update(path: Path, *, measure: bool) -> bool:
    """Run a notebook and write it when it shows something else now. True when it does."""
    before = nbformat.read(path, as_version=4)
    after = execute(path)
    known = {cell.id: cell for cell in before.cells}
    for number, cell in enumerate((cell for cell in after.cells if cell.cell_type == "code"), 1):
        cell.execution_count = number
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
        old = known.get(cell.id)
        if old is None or old.source != cell.source or not old.outputs:
            continue
        same = without_clock(old.outputs) == without_clock(cell.outputs)
        if same or (is_measured(cell) and not measure):
            cell.outputs = old.outputs
    after.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    text = nbformat.writes(after) + "\n"
    if text == path.read_text(encoding="utf-8"):
        return False
    path.write_text(text, encoding="utf-8")
    return True


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, help="notebooks (default: all)")
    parser.add_argument("--measure", action="store_true", help="take this machine's figures")
    options = parser.parse_args()
    for path in options.files or notebooks():
        began = perf_counter()
        changed = update(path.resolve(), measure=options.measure)
        print(f"{path.name:44} {perf_counter() - began:5.1f} s  {'changed' if changed else 'as before'}")


if __name__ == "__main__":
    sys.exit(main())
