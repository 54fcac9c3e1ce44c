"""The table of frames: every row accepts what it says and nothing else, and docs/wire.md says the same."""

from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from net import _wire
from net._wire import FRAMES, KINDS, MAX_TEXT_CHARS, PART_BYTES, check_frame
from net.errors import RemoteProtocolError

DOCUMENT = Path(__file__).parents[2] / "docs" / "wire.md"
ID = b"0123456789abcdef"
MAP = MappingProxyType({"a": 1})

GOOD: dict[str, list[Any]] = {
    "id": [ID],
    "uint": [0, 2**64 - 1],
    "count": [1, 2**64 - 1],
    "text": ["", "x" * MAX_TEXT_CHARS],
    "value": [None, object()],
    "error": [("ValueError", "text", ""), ("ValueError", "text", "trace", None)],
    "error or nil": [None, ("ValueError", "text", "")],
    "args": [(), (1, 2)],
    "kwargs": [MAP],
    "map": [MAP],
    "bytes": [b"x", bytes(PART_BYTES)],
    "subject": [None, ID, 0, 2**64 - 1],
}
BAD: dict[str, list[Any]] = {
    "id": [ID[1:], "0123456789abcdef", None],
    "uint": [-1, 2**64, True, 1.0, "1"],
    "count": [0, -1, 2**64, True],
    "text": [b"", None, "x" * (MAX_TEXT_CHARS + 1)],
    "value": [],
    "error": [None, (), ("ValueError", "text"), ("a", "b", "c", 1, 2), (1, "b", "c"), "abc"],
    "error or nil": [(), False],
    "args": [MAP, None, "ab"],
    "kwargs": [(), MappingProxyType({1: 2}), None],
    "map": [(), MappingProxyType({b"a": 2})],
    "bytes": [b"", "x", None, bytes(PART_BYTES + 1)],
    "subject": [ID[1:], -1, 2**64, True, "x"],
}


def good_frame(frame_type: int) -> list[Any]:
    return [frame_type, *(GOOD[kind][0] for _, kind in FRAMES[frame_type].fields)]


@pytest.mark.parametrize("frame_type", FRAMES, ids=[row.name for row in FRAMES.values()])
def test_each_row_accepts_what_it_says_and_names_the_field_that_is_wrong(frame_type: int) -> None:
    row = FRAMES[frame_type]
    for position, (name, kind) in enumerate(row.fields, 1):
        frame = good_frame(frame_type)
        for value in GOOD[kind]:
            frame[position] = value
            check_frame(tuple(frame))
        for value in BAD[kind]:
            frame[position] = value
            with pytest.raises(RemoteProtocolError, match=rf"^{row.name}\.{name} must be"):
                check_frame(tuple(frame))


@pytest.mark.parametrize("frame_type", FRAMES, ids=[row.name for row in FRAMES.values()])
def test_a_frame_with_another_number_of_fields_is_refused(frame_type: int) -> None:
    frame = good_frame(frame_type)
    for wrong in (frame[:-1], [*frame, 1]):
        with pytest.raises(RemoteProtocolError, match="fields, not"):
            check_frame(tuple(wrong))


@pytest.mark.parametrize("frame", [None, (), [1], ("SEND",), (True, ID, 1), (99,), (-1,)], ids=repr)
def test_what_is_no_frame_is_refused(frame: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        check_frame(frame)


def test_every_type_constant_is_in_the_table_under_its_name() -> None:
    assert {getattr(_wire, row.name): row.name for row in FRAMES.values()} == {
        number: row.name for number, row in FRAMES.items()
    }
    assert list(FRAMES) == list(range(29))
    assert {kind for row in FRAMES.values() for _, kind in row.fields} == set(KINDS) == set(GOOD) == set(BAD)


def test_a_stranger_s_value_is_shown_in_few_characters() -> None:
    for value in (b"x" * 10**6, "x" * 10**6, 10**5000, (1,) * 10**5, MAP, frozenset(), object(), None):
        assert len(_wire.shorten(value)) < 80


def test_the_document_has_the_same_table() -> None:
    rows = [
        f"| {number} | {row.name} | {', '.join(f'{name}: {kind}' for name, kind in row.fields)} |"
        for number, row in FRAMES.items()
    ]
    text = DOCUMENT.read_text()
    assert [row for row in rows if row not in text] == []
