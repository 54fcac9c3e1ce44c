"""Values as bytes: the same rules as on the wire, without a wire."""

from __future__ import annotations

import threading
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given, strategies as st

from net import values
from tasklets import NotSendable, channel, freeze

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(plain)
def test_what_is_read_is_the_frozen_value(value: object) -> None:
    assert values.loads(values.dumps(value)) == freeze(value)


def test_every_part_that_cannot_be_kept_is_named() -> None:
    with pytest.raises(NotSendable, match=r"value\['a'\]\[1\]"):
        values.dumps({"a": [1, object()]})
    with pytest.raises(NotSendable, match="lives as long as its process"):
        values.dumps(("reply", channel()))


@given(st.binary(max_size=40))
def test_garbage_is_a_value_or_unreadable(data: bytes) -> None:
    try:
        values.loads(data)
    except values.Unreadable:
        pass


def test_threads_do_not_disturb_each_other() -> None:
    value = (date(2026, 1, 1), Decimal("1.5"), {"x": (1, 2)})
    found: list[object] = []

    def work() -> None:
        found.extend(values.loads(values.dumps(value)) for _ in range(200))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 800
    assert all(one == freeze(value) for one in found)
