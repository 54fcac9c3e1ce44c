"""Beats: when they are due, when their absence means something, and what is no beat."""

import pytest

from net._pulse import Pulse
from net._wire import BATCH
from net.errors import RemoteProtocolError


def test_a_beat_is_due_at_once_and_then_every_heartbeat() -> None:
    pulse = Pulse(2.0, 10.0, 100.0)
    assert pulse.beat(100.0, 0.0) == BATCH.pack(16, 0, 0)
    assert pulse.beat(101.9, 0.0) is None
    assert pulse.due() == 102.0
    assert pulse.beat(102.0, 1.5) == BATCH.pack(16, 0, 1500)


def test_silence_counts_from_the_last_beat_that_was_heard() -> None:
    ours, theirs = Pulse(2.0, 10.0, 0.0), Pulse(2.0, 10.0, 0.0)
    beat = theirs.beat(5.0, 0.25)
    assert beat is not None
    ours.hear(beat[:7], 5.0)
    assert not ours.is_silent(9.9)
    assert ours.is_silent(10.0)
    ours.hear(beat[7:], 9.0)
    assert ours.stalled_for == 0.25
    assert not ours.is_silent(18.9)
    assert ours.is_silent(19.0)


def test_who_was_stopped_himself_starts_counting_anew() -> None:
    pulse = Pulse(2.0, 10.0, 0.0)
    pulse.forgive(60.0)
    assert not pulse.is_silent(69.0)
    assert pulse.is_silent(70.0)


@pytest.mark.parametrize("data", [BATCH.pack(17, 0, 0), BATCH.pack(16, 1, 0), b"\xff" * 40])
def test_what_is_no_beat_is_a_fault(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="beats and nothing else"):
        Pulse(2.0, 10.0, 0.0).hear(data, 1.0)
