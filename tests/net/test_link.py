"""What a link hands to its connection: few calls for much that waits, and each byte once, whatever the kernel takes."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

import net
from net._link import MOST_READS, STREAM_BYTES
from net.node import get_node
from net.testing import memory_network
from net.testing._memory import MemoryTransport
from tasklets import channel, sleep


def send_all(
    monkeypatch: pytest.MonkeyPatch, messages: list[bytes]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Send large messages in one turn; returns of each call how many bytes were offered, and taken: of that turn, and
    after it.
    """
    calls: list[tuple[int, int]] = []
    in_turn: list[tuple[int, int]] = []
    received: list[Any] = []
    inbox = channel(len(messages))
    real = MemoryTransport.send_pieces

    def send_pieces(self: MemoryTransport, pieces: Sequence[bytes | memoryview]) -> int:
        taken = real(self, pieces)
        calls.append((sum(map(len, pieces)), taken))
        return taken

    def serve() -> None:
        with net.serve("tcp://home:1", inbox=inbox):
            received.extend(inbox)

    def send() -> None:
        sleep(1)
        to = net.connect("tcp://home:1/inbox")
        for message in messages:
            to.send(message)
        in_turn.extend(calls)
        to.close()

    monkeypatch.setattr(MemoryTransport, "send_pieces", send_pieces)
    with memory_network(seed=1) as network:
        network.run_at("home", serve)
        network.run_at("away", send)
        sleep(60)
    assert received == messages
    return in_turn, calls[len(in_turn) :]


def test_what_found_no_room_leaves_together_with_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [64 * 1024, 9_000, 64 * 1024 + 7, 20_000] * 10
    first, later = send_all(monkeypatch, [bytes([number]) * size for number, size in enumerate(sizes)])
    calls = first + later
    assert len(calls) < len(sizes) / 2
    short = [offered - taken for offered, taken in calls if taken < offered]
    assert short, "there was always room: nothing is shown"
    assert sum(taken for _, taken in calls) >= sum(sizes)


def test_the_first_large_message_of_a_turn_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    in_turn, later = send_all(monkeypatch, [bytes(20_000)])
    assert [taken // 20_000 for _, taken in in_turn] == [1]
    assert not later


def test_large_messages_behind_the_first_leave_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [bytes([number]) * 50_000 for number in range(5)]
    in_turn, later = send_all(monkeypatch, messages)
    assert [offered // 50_000 for offered, _ in in_turn] == [1, 2, 2]
    assert not later


class Counting:
    """A transport that notes what its reads brought: bytes, or 0 when nothing was there."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.rounds: list[list[int]] = [[]]  # of the event loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def receive_into(self, buffer: memoryview) -> int:
        return self._note(lambda: self.transport.receive_into(buffer))

    def receive_pieces(self, buffers: Sequence[Any]) -> tuple[int]:
        return (self._note(lambda: self.transport.receive_pieces(buffers)[0]),)

    def _note(self, read: Callable[[], int]) -> int:
        try:
            size = read()
        except BlockingIOError:
            self.rounds[-1].append(0)
            raise
        self.rounds[-1].append(size)
        return size


def flood(address: str, count: int) -> None:
    to = net.connect(f"{address}/inbox")
    for number in range(count):
        to.send(bytes([number % 256]) * 65_536)
    to.send(None)


@pytest.mark.parametrize("look_seconds", [0.0, 0.001])
def test_a_stream_is_read_on_for_a_while(look_seconds: float) -> None:
    """More than one read in a round of the loop; but not so many that others would wait for long."""
    inbox = channel(4)
    sizes = []
    with net.serve("tcp://127.0.0.1:0", inbox=inbox) as server, net.open_place("processes:1") as place:
        node = get_node()
        node.look_seconds = look_seconds
        place.spawn(flood, server.address, 600)
        sizes.append(len(inbox.receive()))
        link = next(link for link in node.links if link.grants)
        counting = Counting(link._transport)
        link._transport = counting
        watcher = node.reactor.loop.prepare()
        watcher.start(lambda: counting.rounds.append([]))
        while (message := inbox.receive()) is not None:
            sizes.append(len(message))
        watcher.stop()
        watcher.close()
        link._transport = counting.transport
    assert sizes == [65_536] * 600
    streams = [reads for reads in counting.rounds if sum(reads) >= STREAM_BYTES]
    assert streams
    if look_seconds:
        assert any(len(reads) > 1 for reads in streams)
        assert all(len([size for size in reads if size]) <= MOST_READS for reads in streams)
    else:
        assert all(len(reads) == 1 for reads in streams)
