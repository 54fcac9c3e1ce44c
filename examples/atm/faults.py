"""What goes wrong in a simulated day: the bank is killed or hangs, lines are cut.

All of it is real: SIGKILL and SIGSTOP to the bank's process, and a wire (a relay for TCP) between the bank and
its machines that closes connections in the middle of whatever they carry.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from random import Random
from time import monotonic
from typing import NamedTuple, Protocol

import gevent
import gevent.socket
import gevent.subprocess
from gevent.server import StreamServer

from tasklets import sleep

HANG_SECONDS = 1.0  # long enough that machines ask again


class Target(Protocol):
    """Where a wire leads."""

    port: int


class BankFailed(Exception):
    """The bank's process ended although nobody killed it, or did not start."""


class BankProcess:
    """The bank as a process of its own, that can be killed and starts again at the same address."""

    def __init__(self, ledger: str, *more: str) -> None:
        self._arguments = ("--ledger", ledger, *more)
        self.port = 0
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "examples.atm", "bank", "--listen", f"tcp://127.0.0.1:{self.port}"]
        self._process = gevent.subprocess.Popen(
            [*command, *self._arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self._end(signal.SIGKILL)
            raise

    def _wait_until_it_listens(self) -> None:
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line.strip())
            if line.startswith("The bank listens at "):
                self.port = int(line.partition(";")[0].rpartition(":")[2].partition("/")[0])
                return
        raise BankFailed(f"the bank did not start: {' '.join(said[-1:]) or 'it said nothing'}")

    def kill(self) -> None:
        """SIGKILL it, and start it again on what it left in its ledger. Blocks until it listens."""
        self._end(signal.SIGKILL)
        self._start()

    def hang(self) -> None:
        """Stop it for a moment, without its connections breaking. Blocks for as long."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            sleep(HANG_SECONDS)
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it as Ctrl-C would."""
        self._end(signal.SIGINT)

    def _end(self, by: int) -> None:
        self._process.send_signal(by)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Wire:
    """Relays connections to the bank, until they are cut."""

    def __init__(self, bank: Target) -> None:
        self._bank = bank
        self._pairs: list[tuple[gevent.socket.socket, gevent.socket.socket]] = []
        self._server = StreamServer(("127.0.0.1", 0), self._relay)
        self._server.start()
        self.url = f"tcp://127.0.0.1:{self._server.server_port}/bank"

    def cut(self, dice: Random) -> None:
        """Close one of the connections, if there is one, in the middle of what it carries."""
        if self._pairs:
            for end in self._pairs.pop(dice.randrange(len(self._pairs))):
                _close(end)

    def close(self) -> None:
        """Cut all of them, and take no more."""
        self._server.stop()
        while self._pairs:
            for end in self._pairs.pop():
                _close(end)

    def lets_through(self, data: bytes) -> bool:
        """Say whether what the bank has just sent arrives; when not, the connection breaks instead."""
        return True

    def _relay(self, machine: gevent.socket.socket, _where: object) -> None:
        try:
            bank = gevent.socket.create_connection(("127.0.0.1", self._bank.port))
        except OSError:  # it is dead just now
            machine.close()
            return
        pair = machine, bank
        self._pairs.append(pair)
        gevent.joinall(
            [gevent.spawn(_pump, machine, bank), gevent.spawn(_pump, bank, machine, self.lets_through)],
            count=1,
        )
        if pair in self._pairs:
            self._pairs.remove(pair)
        for end in pair:
            _close(end)


def _pump(
    source: gevent.socket.socket,
    target: gevent.socket.socket,
    lets_through: Callable[[bytes], bool] = lambda data: True,
) -> None:
    try:
        while (data := source.recv(65536)) and lets_through(data):
            target.sendall(data)
    except OSError:  # cut
        pass


def _close(end: gevent.socket.socket) -> None:
    try:
        end.shutdown(gevent.socket.SHUT_RDWR)
    except OSError:  # it was closed by the other side
        pass
    end.close()


class Fault(NamedTuple):
    """Something that went wrong."""

    what: str  # "kill", "hang", "cut"
    began: float  # monotonic seconds
    ended: float


def misfortune(bank: BankProcess, wire: Wire, dice: Random, until: float, faults: list[Fault]) -> None:
    """Let something go wrong again and again until the moment `until`; add each fault to `faults`. Blocks."""
    while True:
        sleep(dice.uniform(0.5, 2.0))
        began = monotonic()
        if began > until:
            return
        what = dice.choices(["kill", "cut", "hang"], [3, 5, 2])[0]
        match what:
            case "kill":
                bank.kill()
            case "hang":
                bank.hang()
            case _:
                wire.cut(dice)
        faults.append(Fault(what, began, monotonic()))
