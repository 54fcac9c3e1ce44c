"""The program does not know where it runs: no decision in it looks at the place (PRI-03)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import examples.primes

SOURCES = sorted(Path(examples.primes.__file__).parent.glob("*.py"))
PLACES = ("here", "processes", "hosts")


def decisions(tree: ast.AST) -> Iterator[ast.AST]:
    """Everything that a program may branch on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
            yield node.test
        elif isinstance(node, ast.Match):
            yield node.subject
        elif isinstance(node, ast.comprehension):
            yield from node.ifs
        elif isinstance(node, ast.Compare | ast.BoolOp):
            yield node


def looks_at_the_place(node: ast.AST) -> bool:
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and part.id in ("on", "place"):
            return True
        if isinstance(part, ast.Attribute) and part.attr in ("_place", "place"):
            return True
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.startswith(PLACES):
            return True
    return False


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_decision_looks_at_the_place(source: Path) -> None:
    found = [node for node in decisions(ast.parse(source.read_text())) if looks_at_the_place(node)]
    assert [f"line {getattr(node, 'lineno', '?')}" for node in found] == []


def test_the_check_would_find_one() -> None:
    tree = ast.parse("if on.startswith('processes'): pass\nx = 1 if place.size > 1 else 2")
    assert [looks_at_the_place(node) for node in decisions(tree)].count(True) >= 2
