"""The Redis engine's script is cut by the names in it."""

from __future__ import annotations

from cluster.stores import _script


def test_every_piece_is_needed_by_some_call() -> None:
    needed = {place for call in _script.CALLS for place in _script.needed_by(call)}
    rest = [piece for place, piece in enumerate(_script.PIECES) if place not in needed]
    assert "".join(rest).strip() == ""


def test_a_call_is_given_what_it_needs_and_no_more() -> None:
    script = _script.script_of("get")
    assert "function calls.get()" in script
    assert "function calls.put()" not in script
    assert "jobs.settle" not in script
    assert "function jobs.settle()" in _script.script_of("close_job")  # by way of what it gathers
