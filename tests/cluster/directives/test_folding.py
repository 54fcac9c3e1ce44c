"""The tree of a fold: every order of arrival gives what a loop gives, in neighbours, in few levels."""

from __future__ import annotations

from math import ceil, log
from typing import Any

import pytest
from hypothesis import given, strategies as st

from cluster.directives.folding import Folding, Group

Parts = list[tuple[str, ...]]

parts_of_letters = st.lists(
    st.one_of(st.just(()), st.text("abcdef", min_size=1, max_size=2).map(lambda t: (t,)))
)


def fold(parts: Parts, fan_in: int, draw: Any, dumps: bool = False) -> tuple[Any, int]:
    """Let leaves, combined groups and the close arrive in a drawn order; return the result and the depth."""
    folding = Folding(fan_in)
    events: list[Any] = [("leaf", number, part) for number, part in enumerate(parts)]
    events.append(("close", len(parts), None))
    depth = 0
    while events:
        kind, number, what = events.pop(draw(st.integers(0, len(events) - 1)))
        if dumps:
            folding = Folding.load(folding.dump())
        groups: list[Group]
        if kind == "leaf":
            groups = folding.add(number, what)
        elif kind == "close":
            groups = folding.close(number)
        else:
            depth = max(depth, what.level)
            groups = folding.combined(what.level, what.number, ("".join(what.values),))
        for group in groups:
            assert 2 <= len(group.values) <= fan_in
            events.append(("combine", 0, group))
    assert folding.result is not None, "it waits for something that never comes"
    return folding.result, depth


@given(parts_of_letters, st.integers(2, 9), st.booleans(), st.data())
def test_every_order_of_arrival_folds_neighbours_in_their_order(
    parts: Parts, fan_in: int, dumps: bool, data: st.DataObject
) -> None:
    """P-13, P3.1 (closed before or after the last part), P3.2 (gaps), P-37 (kept between turns)."""
    result, depth = fold(parts, fan_in, data.draw, dumps)
    expected = "".join(value for part in parts for value in part)
    assert result == ((expected,) if any(parts) else ())
    assert depth <= (ceil(log(len(parts), fan_in) + 1e-9) if len(parts) > 1 else 0)  # P3.3


def test_close_after_the_last_combine_does_not_hang() -> None:
    """P3.1: with two leaves the combine may return before the input is known to be at its end."""
    for fan_in in (2, 3, 8):
        folding = Folding(fan_in)
        groups = folding.add(0, ("a",)) + folding.add(1, ("b",))
        if not groups:
            groups = folding.close(2)
        (group,) = groups
        folding.combined(group.level, group.number, ("".join(group.values),))
        if folding.leaves is None:
            folding.close(2)
        assert folding.result == ("ab",)


def test_a_slow_first_leaf_holds_up_only_its_ancestors() -> None:
    """P-14."""
    folding = Folding(2)
    groups = [group for number in range(1, 64) for group in folding.add(number, (number,))]
    assert len(groups) == 31


def test_nothing_and_one() -> None:
    """P-13: nothing gives nothing, one is what it is and no task."""
    empty, one = Folding(), Folding()
    assert empty.close(0) == one.add(0, ("x",)) == one.close(1) == []
    assert (empty.result, one.result) == ((), ("x",))


def test_a_fan_in_of_one_would_never_end() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Folding(1)
