"""Who waits for whom; ATM-07, ATM-08."""

from __future__ import annotations

import pytest

from examples.atm.lanes import Lanes
from tasklets import channel, run, tasklet


def hold(lanes: Lanes, log: list[str], who: str, *names: str) -> channel:
    """Start a tasklet that enters the lanes, and leaves them when the returned channel gets a value."""
    leave = channel()
    tasklet(stay)(lanes, log, who, leave, *names)
    run()
    return leave


def stay(lanes: Lanes, log: list[str], who: str, leave: channel, *names: str) -> None:
    """Hold the lanes until told to leave."""
    with lanes.hold(*names):
        log.append(f"{who} in")
        leave.receive()
        log.append(f"{who} out")


def test_a_held_lane_is_entered_in_the_order_of_coming() -> None:  # ATM-07
    lanes, log = Lanes(), list[str]()
    leaves = [hold(lanes, log, who, "alice") for who in "123"]

    for leave in leaves:
        leave.send(None)
        run()

    assert log == ["1 in", "1 out", "2 in", "2 out", "3 in", "3 out"]
    assert repr(lanes) == "<Lanes held=[]>"


def test_different_lanes_do_not_wait_for_each_other() -> None:  # ATM-07
    lanes, log = Lanes(), list[str]()
    leaves = [hold(lanes, log, "1", "alice"), hold(lanes, log, "2", "bob")]

    assert log == ["1 in", "2 in"]
    for leave in leaves:
        leave.send(None)


def test_two_ways_between_two_accounts_do_not_deadlock() -> None:  # ATM-08
    lanes, log = Lanes(), list[str]()
    leaves = [hold(lanes, log, "0", "alice")]
    leaves += [hold(lanes, log, "1", "alice", "bob"), hold(lanes, log, "2", "bob", "alice")]

    for leave in leaves:
        leave.send(None)
        run()

    assert log == ["0 in", "0 out", "1 in", "1 out", "2 in", "2 out"]


def test_the_same_name_twice_is_one_lane() -> None:
    lanes = Lanes()
    with lanes.hold("alice", "alice"):
        assert repr(lanes) == "<Lanes held=['alice']>"


@pytest.mark.parametrize("handed_over", [False, True], ids=["in the queue", "with the lane just handed over"])
def test_who_is_killed_while_waiting_leaves_no_lock(handed_over: bool) -> None:  # ATM-13
    lanes, log = Lanes(), list[str]()
    with lanes.hold("alice"):
        doomed = tasklet(stay)(lanes, log, "doomed", channel(), "alice")
        run()
        leave = hold(lanes, log, "last", "alice")
        doomed.kill(pending=handed_over)  # pending: it is told after the lane went to it
    run()

    assert log == ["last in"]
    leave.send(None)
    run()
    assert repr(lanes) == "<Lanes held=[]>"
