"""When a cut session tries again, and when it gives up."""

from random import Random

import pytest
from hypothesis import given, strategies as st

from net._recovery import FIRST_DELAY, LAST_DELAY, Recovery


def test_the_first_attempt_comes_at_once_and_the_next_ever_later() -> None:
    recovery = Recovery(1000.0, Random(1))
    recovery.cut(0.0)
    pauses = [recovery.next_pause(0.0) for _ in range(12)]
    assert pauses[0] == 0.0
    expected = FIRST_DELAY
    for pause in pauses[1:]:
        assert pause is not None
        assert expected / 2 <= pause <= expected
        expected = min(2 * expected, LAST_DELAY)


@given(st.floats(0.1, 100), st.integers())
def test_attempts_end_with_patience(patience: float, seed: int) -> None:
    recovery = Recovery(patience, Random(seed))
    now = 5.0
    recovery.cut(now)
    while (pause := recovery.next_pause(now)) is not None:
        now += pause + 0.001  # an attempt that fails
        assert now <= 5.0 + patience + 0.01
    assert now >= 5.0 + patience


def test_a_cut_before_it_was_mended_is_the_same_outage() -> None:
    recovery = Recovery(10.0, Random(1))
    recovery.cut(0.0)
    recovery.cut(8.0)
    assert recovery.next_pause(10.0) is None
    recovery.mended()
    recovery.cut(20.0)
    assert recovery.next_pause(20.0) == 0.0
    assert recovery.cuts == 2


@pytest.mark.parametrize("seed", range(3))
def test_peers_do_not_come_back_in_step(seed: int) -> None:
    several = [Recovery(10.0, Random(10 * seed + each)) for each in range(10)]
    for recovery in several:
        recovery.cut(0.0)
        recovery.next_pause(0.0)
    assert len({recovery.next_pause(0.0) for recovery in several}) == 10
