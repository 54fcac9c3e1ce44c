"""While strangers attack a node, an honest client's messages keep flowing, and another one gets in.

With TASKLETS_FULL=1 in the environment the attacks are made in full: 10,000 connections of each kind, 1,000 slow ones.
"""

import ast
import logging
import os
from pathlib import Path
from typing import Any

import pytest

import net
from net import _gate
from net.certificates import make_authority, make_certificate
from net.node import get_node
from tasklets import channel
from tests.machine import here
from tests.net import peers
from tests.net.attackers import KINDS, RIGHT
from tests.net.peers import Doing, until

FULL = bool(os.environ.get("TASKLETS_FULL"))
COUNT = 10_000 if FULL else 300
SLOWEST_SECONDS = 1.0  # of a round trip under attack: what a person would not call a hang

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200 if FULL else 60)]

HONEST = """
import sys, time, net
from tasklets import channel
secret, folder = sys.argv[2:]
tls = net.Tls(f"{folder}/ca.pem", f"{folder}/atm.pem", f"{folder}/atm.key") if folder else None
inbox = net.connect(sys.argv[1], secret=secret or None, tls=tls, timeout=30)
slowest = rounds = 0
print("in", flush=True)
for line in iter(sys.stdin.readline, "stop\\n"):
    for _ in range(20):
        started = time.monotonic()
        reply = channel()
        inbox.send((rounds, reply))
        assert reply.receive() == 2 * rounds
        slowest = max(slowest, time.monotonic() - started)
        rounds += 1
    print(slowest, flush=True)
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    make_authority(folder)
    make_certificate(folder, "bank")
    make_certificate(folder, "atm")
    make_certificate(folder, "expired", days=-0.1)
    return folder


def line_of(process: Any) -> str:
    """The next line that a program prints; everybody here goes on meanwhile."""
    from gevent import socket

    socket.wait_read(process.stdout.fileno(), timeout=peers.PATIENCE)
    return peers.line_of(process)


ATTACKS = {
    "silent": {"connected"},
    "slow": {"closed", "ConnectionResetError", "BrokenPipeError"},
    "garbage": {"closed", "ConnectionResetError", "BrokenPipeError"},
    "wrong secret": {"refused closed"},
    "replay": {"refused closed"},
    "guessed ids": {"rejected"},
    "expired": {"SSLV3_ALERT_CERTIFICATE_EXPIRED"},
}
# A flood drives out itself: who was not served in time was closed.
DRIVEN_OUT = {
    "closed",
    "ConnectionResetError",
    "EOFError",
    "HandshakeCut",
    "BrokenPipeError",
    "SSLEOFError",
    "SSLError",
    "RemoteProtocolError",
}


@pytest.mark.parametrize("kind", KINDS)
def test_honest_clients_go_on(
    kind: str, authority: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not FULL:
        monkeypatch.setattr(_gate, "HALF_OPEN", 40)
    folder = str(authority) if kind == "expired" else ""
    secret = "" if folder else RIGHT.decode()
    tls = net.Tls(authority / "ca.pem", authority / "bank.pem", authority / "bank.key") if folder else None
    inbox = channel(4, "inbox")
    answering = Doing(peers.answer, inbox)
    widest = 0
    with (
        caplog.at_level(logging.WARNING, "net"),
        net.serve("tcp://127.0.0.1:0", inbox=inbox, secret=secret or None, tls=tls) as server,
    ):
        port = server.address.rpartition(":")[2]
        options = (server.url("inbox"), secret, folder)
        with peers.running("-c", HONEST, *options, stdin=-1) as honest:
            assert line_of(honest) == "in"
            count = COUNT if kind != "slow" else COUNT // 10
            command = ("-m", "tests.net.attackers", kind, port, str(count), str(authority))
            with peers.running(*command) as attacker:
                slowest, late = 0.0, None
                while attacker.poll() is None:
                    assert honest.stdin is not None
                    honest.stdin.write("go\n")
                    honest.stdin.flush()
                    slowest = float(line_of(honest))
                    widest = max(widest, len(get_node().gate))
                    if late is None:
                        late = Doing(another_honest_client_gets_in, options)
                out, err = attacker.communicate()
            assert not err
            assert late is not None
            late.result()
            print("stop", file=honest.stdin, flush=True)
            until(lambda: honest.poll() is not None)
            assert honest.returncode == 0
        inbox.close()
        answering.result()
    outcomes = ast.literal_eval(out)
    print(kind, outcomes, f"slowest {1000 * slowest:.1f} ms, half open at most {widest}")
    assert set(outcomes) <= ATTACKS[kind] | DRIVEN_OUT, outcomes
    assert set(outcomes) & ATTACKS[kind], outcomes
    assert sum(outcomes.values()) == count
    assert slowest < here(SLOWEST_SECONDS)
    assert widest <= _gate.HALF_OPEN
    assert len(caplog.records) <= 3 * _gate.LOG_LINES + (300 if FULL else 0)
    assert all("\n" not in record.getMessage() for record in caplog.records)
    until(lambda: not get_node().links)


def another_honest_client_gets_in(options: tuple[str, ...]) -> None:
    with peers.running("-c", HONEST, *options, stdin=-1) as late:
        assert line_of(late) == "in"
        print("stop", file=late.stdin, flush=True)
        until(lambda: late.poll() is not None)
