"""What a link hands to its connection: few calls for much that waits, and each byte once, whatever the kernel takes."""

from collections.abc import Sequence
from typing import Any

import pytest

import net
from net.testing import memory_network
from net.testing._memory import MemoryTransport
from tasklets import channel, sleep


def test_what_found_no_room_leaves_together_with_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []  # how many bytes were offered, and taken
    real = MemoryTransport.send_pieces

    def send_pieces(self: MemoryTransport, pieces: Sequence[bytes | memoryview]) -> int:
        taken = real(self, pieces)
        calls.append((sum(map(len, pieces)), taken))
        return taken

    monkeypatch.setattr(MemoryTransport, "send_pieces", send_pieces)
    sizes = [64 * 1024, 9_000, 64 * 1024 + 7, 20_000] * 10
    messages = [bytes([number]) * size for number, size in enumerate(sizes)]
    inbox = channel(len(messages))
    received: list[Any] = []

    def serve() -> None:
        with net.serve("tcp://home:1", inbox=inbox):
            received.extend(inbox)

    def send() -> None:
        sleep(1)
        to = net.connect("tcp://home:1/inbox")
        for message in messages:
            to.send(message)
        to.close()

    with memory_network(seed=1) as network:
        network.run_at("home", serve)
        network.run_at("away", send)
        sleep(60)
    assert received == messages
    assert len(calls) < len(messages) / 2
    short = [offered - taken for offered, taken in calls if taken < offered]
    assert short, "there was always room: nothing is shown"
    assert sum(taken for _, taken in calls) >= sum(sizes)
