"""Hints on SQLite: whoever listens is rung, also when it has just begun to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.stores import _bells
from cluster.stores._bells import Bells


@pytest.fixture
def bells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bells]:
    """Of a process that has just looked who listens: nobody."""
    monkeypatch.setattr(_bells, "_RELOOK", 60.0)
    bells = Bells(str(tmp_path / "work.db"), "group")
    bells.listen(("something",)).close()
    bells.ring("anything")
    yield bells
    bells.close()


def test_a_listener_of_a_moment_ago_is_rung(bells: Bells) -> None:
    listener = bells.listen(("one", "other"))
    bells.ring("one")
    assert listener.wait(0)
    bells.ring("other")
    assert listener.wait(0)
    listener.close()
    bells.ring("one")


def test_others_of_a_topic_are_rung_when_the_list_is_read_again(bells: Bells) -> None:
    listeners = [bells.listen(("ready",)) for _ in range(3)]
    bells._looked -= 61.0
    bells.ring("ready")
    assert [listener.wait(0) for listener in listeners] == [True] * 3
    for listener in listeners:
        listener.close()


def test_the_place_of_one_who_was_killed_is_taken_by_the_next(bells: Bells) -> None:
    killed = bells.listen(("one",))
    killed._socket.close()  # and its name is left
    bells.ring("one")
    listener = bells.listen(("one",))
    bells.ring("one")
    assert listener.wait(0)
    listener.close()
