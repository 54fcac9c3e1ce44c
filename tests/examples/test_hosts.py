"""Both programs over three hosts that share a secret; one is cut off and comes back (PRI-06..08, ATM-09, T-02)."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from examples.primes.algorithms import ALGORITHMS
from net.security import make_secret
from tests.examples.hosts import Host, three_hosts

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]


@pytest.fixture
def trust(tmp_path: Path) -> tuple[str, ...]:
    """The options of every program: the secret that the hosts share."""
    return "--secret-file", str(make_secret(tmp_path / "cluster.secret"))


def hears_that_it_is_refused(host: Host, *arguments: str) -> bool:
    """Whether a program that does not know the secret ends with one line that says so."""
    done = subprocess.run(
        host.command(*arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode == 1 and "secret" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.fixture(params=["namespaces", "loopback"])
def hosts(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Iterator[list[Host]]:
    def tell(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")

    with three_hosts(tell, real=request.param == "namespaces") as hosts:
        yield hosts


def test_hosts_are_told_apart_by_their_addresses(hosts: list[Host]) -> None:
    program = "import socket; socket.create_server(('{}', 7000)); print('bound')"
    apart = len({host.address for host in hosts}) == 3
    for host in hosts:
        command = [*host.command()[:-1], "-c", program.format(hosts[0].address)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == (host is hosts[0] or not apart)


def wait_for(process: subprocess.Popen[Any], pattern: str, stream: Any = None) -> re.Match[str]:
    """Read what a process says up to a line with this pattern."""
    seen = []
    for line in stream or process.stdout:
        seen.append(line)
        if found := re.search(pattern, line):
            return found
    raise AssertionError(f"it ended without {pattern!r}: {seen}")


def wait_for_more(lines: list[str], search: subprocess.Popen[Any]) -> None:
    """Wait until a program has printed thousands of lines more."""
    before = len(lines)
    while len(lines) < before + 5_000:
        assert search.poll() is None
        time.sleep(0.01)  # the thread that reads has a core of its own meanwhile


def test_a_search_goes_on_while_a_host_is_cut_off_and_uses_it_when_it_is_back(
    hosts: list[Host], trust: tuple[str, ...]
) -> None:
    first, second, third = hosts
    search = first.run(
        *("examples.primes", "1", "1000000000", "--on", "nobody", "--listen", f"tcp://{first.address}:0"),
        *(*trust, "--list", "-", "--lease", "1"),
        stderr=subprocess.PIPE,
    )
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(search.stdout or ()))
    reader.start()
    url = wait_for(search, r"primes\.node (\S+)", search.stderr)[1]
    second.run("examples.primes.node", url, "--name", "second", *trust)
    third.run("examples.primes.node", url, "--name", "third", *trust)
    for _ in range(2):
        wait_for(search, "has joined", search.stderr)

    assert hears_that_it_is_refused(second, "examples.primes.node", url, "--name", "a stranger")
    third.cut()
    wait_for(search, r"third .* has been silent for too long; .* done again", search.stderr)
    wait_for_more(lines, search)
    third.mend()
    wait_for(search, "third .* is back", search.stderr)
    wait_for_more(lines, search)

    search.send_signal(signal.SIGINT)
    assert search.wait(20) == 130
    reader.join()
    found = [int(line) for line in lines if line.endswith("\n")]
    assert found == [n for primes in ALGORITHMS["sieve"](1, found[-1] + 1) for n in primes]


class Person:
    """Somebody at a terminal on a host."""

    def __init__(self, host: Host, *arguments: str) -> None:
        self.seen = ""
        self._at = 0
        self._terminal, inside = pty.openpty()
        self.process = host.run(
            *arguments, stdin=inside, stdout=inside, stderr=inside, preexec_fn=lambda: os.login_tty(0)
        )
        os.close(inside)

    def wait_for(self, text: str) -> None:
        while text not in self.seen[self._at :]:
            self.seen += os.read(self._terminal, 4096).decode()
        self._at = self.seen.index(text, self._at) + len(text)

    def answer(self, question: str, text: str) -> None:
        self.wait_for(question)
        os.write(self._terminal, f"{text}\n".encode())

    def log_in(self) -> None:
        self.answer("Account: ", "alice")
        self.answer("Pin: ", "1111")

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._terminal)


def test_a_machine_that_is_cut_off_pays_nothing_and_settles_when_it_is_back(
    hosts: list[Host], tmp_path: Path, trust: tuple[str, ...]
) -> None:  # ATM-04, ATM-05, ATM-09
    first, second, third = hosts
    bank = first.run(
        *("examples.atm", "bank", "--listen", f"tcp://{first.address}:0", *trust),
        *("--ledger", str(tmp_path / "bank.sqlite")),
    )
    url = wait_for(bank, r"The bank listens at (\S+);")[1]
    near = Person(second, "examples.atm", "atm", url, *trust)
    far = Person(third, "examples.atm", "atm", url, *trust)
    assert hears_that_it_is_refused(third, "examples.atm", "atm", url)
    near.log_in()
    far.log_in()
    far.answer("quit): ", "withdraw")
    far.answer("Amount: ", "100")
    far.wait_for("Here are 100.00 EUR. Balance: 400.00 EUR")

    third.cut()
    if third.address != "127.0.0.1":  # a stopped process says nothing
        far.answer("quit): ", "withdraw")
        far.answer("Amount: ", "50")
        far.wait_for("the bank is away, no answer within 2 s")
        far.wait_for("nothing was paid out")
    near.answer("quit): ", "deposit")
    near.answer("Amount: ", "7")
    near.wait_for("Taken in 7.00 EUR.")
    third.mend()
    balance = ""
    while "Balance: 407.00 EUR" not in balance:  # until the line is back it says that the bank is away
        far.answer("quit): ", "balance")
        start = len(far.seen)
        far.wait_for("\r\n")
        far.wait_for("\r\n")
        balance = far.seen[start:]
    near.answer("quit): ", "balance")
    near.wait_for("Balance: 407.00 EUR")

    for person in (near, far):
        person.answer("quit): ", "quit")
        assert person.process.wait(20) == 0
        person.close()
    bank.send_signal(signal.SIGINT)
    assert bank.wait(10) == 130


def test_without_namespaces_it_says_so_and_uses_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("tests.examples.hosts.shutil.which", lambda name: None)
    with three_hosts(told.append) as hosts:
        assert [host.address for host in hosts] == ["127.0.0.1"] * 3
    assert told == [
        "no network namespaces here (there is no iproute2; apt-get install iproute2): three hosts at 127.0.0.1 instead"
    ]
