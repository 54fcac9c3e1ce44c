"""Actors in other processes: told and asked as if they were here."""

from typing import Any

import pytest

import net
from tasklets import Actor, ChannelClosed, NotSendable, Timeout, channel, nursery


class Counter(Actor):
    def __init__(self, start: int) -> None:
        self._count = start

    def receive(self, message: Any) -> Any:
        match message:
            case "how many?":
                return self._count
            case "fail":
                raise ValueError("broken")
            case "unsendable":
                return lambda: None
            case "wait":
                channel(name="nothing").receive()
            case int(number):
                self._count += number
        return None


def keep_counter(refs: channel) -> None:
    """Run at another node: keep an actor there, and tell how to reach it."""
    with nursery() as home:
        refs.send(Counter.start_in(home, 40))


@pytest.mark.real
def test_an_actor_in_another_process_is_asked_the_same_way() -> None:
    with net.open_place("processes:1") as place:
        refs = place.channel()
        keeper = place.spawn(keep_counter, refs)
        counter = refs.receive()
        counter.tell(2)
        assert counter.ask("how many?", timeout=30) == 42
        with pytest.raises(ValueError, match="broken"):
            counter.ask("fail", timeout=30)
        with pytest.raises(NotSendable):
            counter.ask("unsendable", timeout=30)
        with pytest.raises(Timeout):
            counter.ask("wait", timeout=0.01)
        keeper.kill()
        with pytest.raises((ChannelClosed, net.PeerLost, Timeout)):
            counter.ask("how many?", timeout=30)
