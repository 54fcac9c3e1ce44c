"""The words that a chapter defines, for its solutions: `globals().update(words_of("07_actors"))`.

Imports, functions, classes and CONSTANTS of the chapter's cells, in their order; nothing of it runs.
"""

from __future__ import annotations

import ast
import json
import linecache
from pathlib import Path
from typing import Any


def words_of(chapter: str) -> dict[str, Any]:
    """What the notebook of a chapter defines, by name."""
    cells = json.loads((Path(__file__).parent / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    found: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        text = "".join(cell["source"])
        if cell["cell_type"] != "code" or text.startswith("%"):
            continue
        name = f"{chapter} cell {number}"
        linecache.cache[name] = len(text), None, text.splitlines(True), name
        kept = [statement for statement in ast.parse(text).body if _defines(statement)]
        exec(compile(ast.Module(kept, []), name, "exec"), found)
    return {name: value for name, value in found.items() if not name.startswith("__")}


def _defines(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assign):
        names = [
            each for target in statement.targets for each in ast.walk(target) if isinstance(each, ast.Name)
        ]
        return all(each.id.isupper() for each in names)
    return isinstance(statement, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))
