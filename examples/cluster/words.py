"""Map and reduce: which words do these examples use most? Said once, run by workers, or in memory.

python -m examples.cluster.words
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from cluster import operation
from cluster.directives import IndexedStream, monoid
from examples.cluster.group import open_group


@operation
def count_words(path: str) -> dict[str, int]:
    """Map: count the words of one file."""
    return dict(Counter(re.findall(r"[a-z]{5,}", Path(path).read_text(encoding="utf-8").lower())))


@monoid
class Merge:
    """Reduce: put two counts together. It has to be associative, so it can be done in any grouping, by anybody."""

    def empty(self) -> Mapping[str, int]:
        """Return what changes nothing."""
        return {}

    def combine(self, a: Mapping[str, int], b: Mapping[str, int]) -> Mapping[str, int]:
        """Add up."""
        return dict(Counter(a) + Counter(b))


def main() -> None:
    """Count with two workers, and again within this process."""
    files = sorted(str(path) for path in Path(__file__).parents[1].rglob("*.py"))
    plan = IndexedStream(files).map(count_words).fold(Merge())  # nothing happens yet
    with open_group(__spec__.name, workers=2) as group:
        counts = plan.run(group.client, timeout=60)
    print(f"{len(files)} files with {sum(counts.values())} words, {len(counts)} of them different")
    for word, count in Counter(counts).most_common(5):
        print(f"{count:5} {word}")
    in_memory = plan.run("here")
    print("in memory it is the same" if in_memory == counts else "IN MEMORY IT IS SOMETHING ELSE")


if __name__ == "__main__":
    main()
