"""What a node tells of itself."""

import dataclasses
import json
import os
from collections.abc import Iterator

import pytest

import net
from net import NetError, NodeStatus, _status, open_place
from net._top import draw, rates
from net.node import get_node
from tasklets import channel, freeze, tasklet, timeout
from tests.net import peers
from tests.net.peers import Doing, ask, until

pytestmark = pytest.mark.real

SECRET = "the secret of the status"

CLIENT = """
import sys, net
from tasklets import channel
inbox = net.connect(sys.argv[1], secret=sys.argv[2])
for number in range(3): inbox.send(number)
hold = net.connect(sys.argv[1].replace("bank", "hold"), secret=sys.argv[2])
hold.receive()
inbox.receive()
"""


@pytest.fixture
def inbox() -> channel:
    return channel(4, "inbox")


@pytest.fixture
def hold() -> channel:
    return channel(name="hold")


@pytest.fixture
def server(inbox: channel, hold: channel) -> Iterator[net.Server]:
    with net.serve("tcp://127.0.0.1:0", bank=inbox, till=inbox, hold=hold, secret=SECRET) as server:
        yield server


def test_a_status_tells_of_sessions_channels_and_who_waits(
    server: net.Server, inbox: channel, hold: channel
) -> None:
    silent = channel(name="silent")
    waiting = tasklet(silent.receive)()
    waiting.name = "patience"
    with peers.running("-c", CLIENT, server.url("bank"), SECRET) as client:
        with timeout(peers.PATIENCE):
            assert [inbox.receive() for _ in range(3)] == [0, 1, 2]
        hold.send(None)
        until(lambda: inbox.balance == -1)
        status = net.status()
        client.kill()
    waiting.kill()
    (session,) = status.sessions
    assert (session.state, session.proved_by, session.certificate) == ("open", "a secret", "")
    assert (session.messages_received, session.messages_sent, session.channels_held) == (3, 0, 2)
    assert (session.waits_here, session.waits_there, session.spawned) == (0, 1, 0)
    listed, _ = status.channels
    assert (listed.name, listed.home, listed.published_as) == ("inbox", "here", ("bank", "till"))
    assert (listed.capacity, listed.balance, listed.open, listed.holders) == (4, -1, True, 1)
    (wait,) = [one for one in status.waiting if one.tasklet == "patience"]
    assert "receive" in wait.waits_for
    assert status.addresses == (server.address,)
    assert status.runnable >= 0
    assert freeze(status) == status
    assert json.loads(json.dumps(dataclasses.asdict(status)))["channels"][0]["name"] == "inbox"
    until(lambda: not get_node().links)


def look(address: str) -> NodeStatus:
    status = net.connect(f"{address}/{_status.NAME}").receive()
    assert isinstance(status, NodeStatus)
    return status


def test_a_node_tells_its_peers_and_names_the_programs_lines() -> None:
    with peers.node("--name", "alpha") as (process, address), open_place(f"hosts:{address}") as place:
        out = place.channel()
        place.spawn(peers.send_all, out, 1)
        ask(place, peers.tell_pid)
        status = look(address)
        out.receive()
    assert (status.name, status.pid, status.starts_functions) == ("alpha", process.pid, True)
    assert sum(session.spawned for session in status.sessions) == 1
    (wait,) = [one for one in status.waiting if "send_all" in one.tasklet]
    assert "peers.py" in wait.where
    assert wait.where.endswith("in send_all")
    (listed,) = status.channels
    assert listed.home.startswith(f"pid {os.getpid()}")
    until(lambda: not get_node().links)


def test_a_fault_of_the_status_reaches_who_asked_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(node: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(_status, "collect", fail)
    answers = _status.offer(get_node())
    with pytest.raises(NetError, match="cannot tell its status: ZeroDivisionError: a bug"):
        answers.receive()
    assert "the status cannot be told" in caplog.text


def test_long_lists_are_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_status, "MAX_LISTED", 2)
    silent = channel()
    waiting = [Doing(silent.receive) for _ in range(5)]
    status = net.status()
    assert len(status.waiting) == 2
    assert status.waiting_count >= 5
    for one in waiting:
        one.tasklet.kill()


def test_rates_are_differences_over_time() -> None:
    session = _status.SessionStatus("a", "open", "", "", 100, 50, 0, 0, 0, 0)
    before = dataclasses.replace(net.status(), at=10.0, sessions=(session,))
    later = dataclasses.replace(session, messages_sent=300, messages_received=50)
    new = dataclasses.replace(session, peer="b")
    now = dataclasses.replace(before, at=12.0, sessions=(later, new))
    assert rates(before, now) == {"a": (100.0, 0.0)}
    assert rates(None, now) == {}
    assert rates(dataclasses.replace(before, node_id="00"), now) == {}  # it was started anew
    assert rates(now, now) == {}


def test_what_is_drawn_has_the_numbers() -> None:
    from rich.console import Console

    session = _status.SessionStatus(
        "atm at 10.0.0.7", "open", "certificates (TLS)", "atm-7[red]", 1234, 5, 1, 0, 2, 3
    )
    wait = _status.WaitStatus("teller", "receive from orders", "bank.py:7 in serve")
    listed = _status.ChannelStatus("orders", "here", ("bank",), 8, -2, False, 3)
    status = dataclasses.replace(
        net.status(),
        name="bank\x1b[31m",
        stopping=True,
        sessions=(session,),
        channels=(listed,),
        waiting=(wait,),
    )
    console = Console(width=200)
    with console.capture() as capture:
        console.print(draw("addr", status, "", {"atm at 10.0.0.7": (17.4, 0.0)}))
        console.print(draw("tcp://gone:1", None, "nobody listens there", {}))
    text = capture.get()
    assert "\x1b" not in text
    for word in (
        "bank",
        "stopping",
        "atm at 10.0.0.7",
        "certificates (TLS): atm-7",
        "1,234",
        "17",
        "orders (closed)",
    ):
        assert word in text
    for word in ("-2", "teller", "bank.py:7 in serve", "tcp://gone:1: nobody listens there"):
        assert word in text
