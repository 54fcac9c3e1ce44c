"""The way in: how many may stand there, who goes when another comes, and what is logged of them."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from net import _gate
from net._gate import Gate, Newcomer, Refusals


class Loop:
    """An event loop whose timers a test lets fire."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []

    def timer(self, seconds: float, *, ref: bool) -> "Timer":
        assert not ref  # nothing here may keep a program from ending
        self.timers.append(Timer(self, seconds))
        return self.timers[-1]

    def pass_time(self, seconds: float) -> None:
        for timer in [one for one in self.timers if one.seconds <= seconds]:
            timer.callback()


class Timer:
    def __init__(self, loop: Loop, seconds: float) -> None:
        self.loop = loop
        self.seconds = seconds
        self.callback: Callable[[], object] = lambda: None

    def start(self, callback: Callable[[], object], update: bool) -> None:
        self.callback = callback

    def stop(self) -> None:
        if self in self.loop.timers:
            self.loop.timers.remove(self)

    def close(self) -> None:
        self.stop()


class Step:
    """A negotiation that counts its steps."""

    over = False
    steps = 0

    def step(self) -> None:
        self.steps += 1


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def gate(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Gate:
    monkeypatch.setattr(_gate, "HALF_OPEN", 3)
    return Gate(loop)


dropped: list[tuple[str, str]] = []


def newcomer(gate: Gate, where: str, source: str = "a", *, idle: bool = True) -> Newcomer:
    one = Newcomer(source, where, lambda reason: dropped.append((where, reason)))
    one.is_idle = lambda: idle
    gate.enter(one, 5.0)
    return one


@pytest.fixture(autouse=True)
def nobody_dropped() -> None:
    dropped.clear()


def test_the_oldest_idle_one_of_the_crowd_makes_room_for_who_comes_from_elsewhere(gate: Gate) -> None:
    newcomer(gate, "b1", "b")
    newcomer(gate, "a1", idle=False)
    newcomer(gate, "a2")
    assert gate.make_room("c")
    assert dropped == [("a2", "more than 3 connections had not said who they are")]
    newcomer(gate, "a3", idle=False)
    assert gate.make_room("b")
    assert dropped[1][0] == "a1"  # busy, but there is nobody else
    assert len(gate) == 2


def test_among_its_own_kind_nobody_goes_before_its_time(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(_gate, "monotonic", lambda: now)
    newcomer(gate, "a1", idle=False)
    newcomer(gate, "a2")
    newcomer(gate, "b1", "b")
    assert not gate.make_room("a")
    now += _gate.MIN_STAY_SECONDS
    assert gate.make_room("a")
    assert [where for where, _ in dropped] == ["a2"]
    newcomer(gate, "a4")
    assert not gate.make_room("a")
    assert gate.make_room("c")
    assert [where for where, _ in dropped] == ["a2", "a4"]


def test_who_is_in_counts_no_more(gate: Gate) -> None:
    for name in ("a1", "a2", "a3"):
        newcomer(gate, name).is_in = lambda: True
    assert gate.make_room("a")
    assert len(gate) == 0
    assert not dropped


def test_nobody_stays_longer_than_allowed(gate: Gate, loop: Loop) -> None:
    newcomer(gate, "slow")
    newcomer(gate, "in").is_in = lambda: True
    gate.leave(newcomer(gate, "left"))
    loop.pass_time(5.0)
    assert dropped == [("slow", "it did not introduce itself within 5 s")]
    assert len(gate) == 0
    assert not loop.timers


def test_who_came_by_a_listener_that_closes_goes_without_a_word(gate: Gate) -> None:
    mine, other = newcomer(gate, "mine"), newcomer(gate, "other")
    gate.close({mine}.__contains__)
    assert dropped == [("mine", "")]
    assert len(gate) == 1
    assert other in gate._newcomers


def test_one_step_is_taken_per_turn_of_the_loop(gate: Gate, loop: Loop) -> None:
    steps: list[Any] = [Step() for _ in range(3)]
    steps[1].over = True  # it was dropped meanwhile
    for one in steps:
        gate.serve_later(one)
    assert len(loop.timers) == 1
    loop.pass_time(0.0)
    assert [one.steps for one in steps] == [1, 0, 0]
    loop.pass_time(0.0)
    assert [one.steps for one in steps] == [1, 0, 1]
    assert not loop.timers


def test_many_refusals_are_summed_up(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    monkeypatch.setattr(_gate, "monotonic", lambda: now)
    refusals = Refusals(loop)
    for number in range(500):
        refusals.tell(f"number {number}")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"number {number}" for number in range(_gate.LOG_LINES)]
    loop.pass_time(_gate.LOG_SECONDS)
    assert caplog.records[-1].getMessage() == (
        "490 more connections were refused in 10 s; the last: number 499"
    )
    now += _gate.LOG_SECONDS
    refusals.tell("later")
    assert caplog.records[-1].getMessage() == "later"
    assert caplog.records[-1].levelno == logging.WARNING
    assert not loop.timers
