"""No word is used before it is explained: tutorial/terms.md against the chapters, read in their order."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "tutorial"
ROW = re.compile(r"^\| ([\w -]+) \| \[(\d+)\]\(([\w.]+)\) \| (.+) \|$", re.M)
TERMS = {
    term: (int(number), file) for term, number, file, _ in ROW.findall((TUTORIAL / "terms.md").read_text())
}
# What a heading, a link's text and code say is no use of a word: the first two announce it, the last one shows it.
NOT_PROSE = re.compile(r"```[\s\S]*?```|`[^`]*`|^#.*$|\[[^\]]*\]\([^)]*\)|^    .*$", re.M)


def prose() -> list[tuple[int, str]]:
    """The sentences of all chapters: (chapter, text of a cell)."""
    return [
        (int(path.name[:2]), NOT_PROSE.sub(" ", "".join(cell["source"])))
        for path in sorted(TUTORIAL.glob("[0-9]*.ipynb"))
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "markdown"
    ]


PROSE = prose()


@pytest.mark.parametrize("term", TERMS)
def test_a_word_is_explained_where_it_is_first_used(term: str) -> None:
    number, file = TERMS[term]
    word = re.compile(rf"(\*\*)?\b{term}(s|d|ed|es)?\b", re.I)

    chapter, found, text = next(
        (chapter, match, text) for chapter, text in PROSE if (match := word.search(text)) is not None
    )
    around = text[max(0, found.start() - 60) : found.end() + 20]

    assert file.startswith(f"{number:02}")
    assert chapter == number, f"{term!r} is used in chapter {chapter} already: {around!r}"
    assert found[1], f"{term!r} is used before it is explained (in **bold**): {around!r}"


def test_every_word_in_bold_that_names_a_thing_is_in_the_list() -> None:
    explained = {
        match[1].lower()
        for _, text in PROSE
        for match in re.finditer(r"(?:\b[Aa]n? |called |called an? |are |is )\*\*([a-z][\w -]+)\*\*", text)
    }

    assert not {
        term for term in explained if not {term, term.removesuffix("s"), term.removesuffix("es")} & set(TERMS)
    }
    assert len(TERMS) > 50
