"""The command line: one clear line for each mistake, nothing left behind, Ctrl-C within a second."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from net.certificates import make_authority, make_certificate
from net.security import make_secret
from tests.examples.atm.processes import ROOT, Process, run, running, running_bank
from tests.machine import here

pytestmark = pytest.mark.real

ONE_LINE = re.compile(r"error: [^\n]+\n")


def test_a_bank_is_used_from_a_script(ledger_path: Path) -> None:
    with running_bank(ledger_path, "tcp://127.0.0.1:0", "--open", "zoe:a:9876:12.50") as (_, url):
        answers = "zoe:a\n9876\nwithdraw\n2.50\nquit\n"
        code, stdout, stderr = run("atm", url, cwd=ledger_path.parent, answers=answers)

    assert (code, stderr) == (0, "")
    assert stdout.splitlines() == [
        "Account: zoe:a",
        "Pin: ",
        "Balance: 12.50 EUR",
        "What next (balance, deposit, withdraw, transfer, statement, quit): withdraw",
        "Amount: 2.50",
        "Here are 2.50 EUR. Balance: 10.00 EUR",
        "What next (balance, deposit, withdraw, transfer, statement, quit): quit",
        "Goodbye.",
    ]


def make_credentials(kind: str, folder: Path) -> tuple[str, ...]:
    if kind == "a secret":
        return "--secret-file", str(make_secret(folder / "cluster.secret"))
    make_authority(folder / "certs")
    tls = make_certificate(folder / "certs", "bank", ["127.0.0.1"])
    return "--tls-ca", str(tls.ca), "--tls-cert", str(tls.certificate), "--tls-key", str(tls.key)


@pytest.mark.parametrize("kind", ["a secret", "TLS"])
def test_a_bank_with_credentials_lets_in_only_who_shows_them(ledger_path: Path, kind: str) -> None:
    trust = make_credentials(kind, ledger_path.parent)
    with running_bank(ledger_path, "tcp://127.0.0.1:0", *trust) as (_, url):
        used = run("atm", url, *trust, cwd=ledger_path.parent, answers="alice\n1111\nquit\n")
        code, stdout, stderr = run("atm", url, cwd=ledger_path.parent)

    assert used[0] == 0
    assert "Balance: 500.00 EUR" in used[1]
    assert (code, stdout) == (1, "")
    assert ONE_LINE.fullmatch(stderr), stderr


def test_a_new_ledger_is_made_in_the_working_folder_with_samples(tmp_path: Path) -> None:
    with running("examples.atm", "bank", "--listen", "tcp://127.0.0.1:0", cwd=tmp_path) as bank:
        assert bank.wait_for_line("Opened account alice with pin ") == "1111 and 500.00 EUR."
        bank.wait_for_line("The bank listens at ")

    assert (tmp_path / "atm.sqlite").exists()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("demo --on moon", "moon"),
        ("demo --on processes:none", "none"),
        ("demo --on hosts:127.0.0.1:{free}", "127.0.0.1:{free}"),
        ("demo --accounts {garbage}", "is not a ledger"),
        ("demo --on processes:1 --accounts {garbage}", "is not a ledger"),
        ("demo --atms 0", "0 is not in the range"),
        ("demo --transactions ten", "'ten' is not a valid integer"),
        ("atm tcp://127.0.0.1:{free}/bank", "127.0.0.1:{free}"),
        ("atm nonsense", "nonsense"),
        ("bank --listen tcp://127.0.0.1:{taken} --accounts {new}", "{taken}"),
        ("bank --listen nonsense --accounts {new}", "nonsense"),
        ("bank --listen tcp://127.0.0.1:0 --accounts {garbage}", "is not a ledger"),
        ("bank --listen tcp://127.0.0.1:0 --accounts {new} --open alice", "'alice' is not NAME:PIN:AMOUNT"),
        ("bank --listen tcp://127.0.0.1:0 --accounts {new} --open alice:1:5", "a pin of 4 to 12 digits"),
        ("bank --listen tcp://127.0.0.1:0 --ledger postgresql://127.0.0.1:{free}/x", "is the server up"),
        ("bank --listen tcp://0.0.0.0:0 --ledger {new}", "0.0.0.0"),
        ("bank --listen tcp://127.0.0.1:0 --ledger {new} --secret-file {new}", "new.sqlite"),
        ("bank --insecure --secret-file {garbage}", "without a secret and without TLS"),
        ("atm --tls-ca {garbage}", "TLS needs --tls-ca, --tls-cert and --tls-key together"),
        ("bank --synchronous maybe", "'maybe' is not one of"),
        ("simulate --atms none", "'none' is not a valid integer"),
        ("simulate --customers 0", "0 is not in the range"),
        ("simulate --day 0", "0.0 is not in the range"),
        ("simulate --seed x", "'x' is not a valid integer"),
        ("simulate --plot day.gif", "name a file that ends in"),
        ("watch --listen tcp://127.0.0.1:0 --http 127.0.0.1:{taken}", "{taken}"),
        ("watch --listen tcp://127.0.0.1:0 --http 0.0.0.0:0", "whoever reaches the page can watch"),
        ("watch --listen tcp://127.0.0.1:0 --ledger {garbage}", "is not a ledger"),
        ("watch --listen nonsense", "nonsense"),
        ("watch --atms -1", "-1 is not in the range"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, arguments: str, says: str) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_text("no ledger at all\n" * 100)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = {"taken": taken.getsockname()[1], "free": free_port(), "garbage": garbage}
        words["new"] = tmp_path / "new.sqlite"
        code, stdout, stderr = run(*arguments.format(**words).split(), cwd=tmp_path)

    assert code in (1, 2)
    assert stdout == ""
    assert ONE_LINE.fullmatch(stderr), stderr
    assert says.format(**words) in stderr


def test_debug_adds_the_traceback(tmp_path: Path) -> None:
    code, _, stderr = run("demo", "--on", "moon", "--debug", cwd=tmp_path)

    assert code == 1
    assert stderr.startswith("Traceback (most recent call last):")
    assert stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ("alice\n1111\nwithdraw\nten\n", "'ten' is not an amount; type a number such as 20 or 12.50"),
        ("alice\n9999\n", "Declined: the pin is wrong"),
        ("alice\n1111\nfly\n", "'fly' is not on offer"),
    ],
)
def test_a_mistake_in_a_script_is_one_line(ledger_path: Path, answers: str, says: str) -> None:
    with running_bank(ledger_path) as (_, url):
        code, _, stderr = run("atm", url, cwd=ledger_path.parent, answers=answers)

    assert code == 1
    assert ONE_LINE.fullmatch(stderr), stderr
    assert says in stderr


def test_a_name_that_the_bank_does_not_publish_is_one_line(ledger_path: Path) -> None:
    with running_bank(ledger_path) as (_, url):
        code, _, stderr = run("atm", url.replace("/bank", "/blank"), cwd=ledger_path.parent)

    assert code == 1
    assert ONE_LINE.fullmatch(stderr), stderr
    assert "blank" in stderr


def test_ctrl_c_ends_the_bank_within_a_second(ledger_path: Path) -> None:
    with running_bank(ledger_path) as (bank, _):
        code, stderr, seconds = bank.interrupt()
        assert bank.survivors() == []

    assert (code, stderr) == (130, "")
    assert seconds < here(1)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("place", ["here", "processes:2"])
def test_the_demo_can_be_stopped_within_a_second_and_leaves_nothing(
    tmp_path: Path, place: str, by: int
) -> None:
    with running("examples.atm", "demo", "--on", place, "--transactions", "1000000", cwd=tmp_path) as demo:
        wait_until_busy(demo)
        code, stderr, seconds = demo.interrupt(by)
        assert demo.survivors() == []

    assert (code, stderr) == (130, "")
    assert seconds < here(1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("victim", [0, 1], ids=["the bank's", "the other"])
def test_a_killed_process_of_the_demo_is_one_line_and_the_end(tmp_path: Path, victim: int) -> None:
    with running(
        "examples.atm", "demo", "--on", "processes:2", "--transactions", "1000000", cwd=tmp_path
    ) as demo:
        wait_until_busy(demo)
        children = sorted(pid for pid in demo.survivors() if pid != demo.pid)
        os.kill(children[victim], signal.SIGKILL)
        code, _, stderr = demo.finish(timeout=10)
        assert demo.survivors() == []

    assert code == 1
    assert ONE_LINE.fullmatch(stderr), stderr
    assert "the demo cannot go on without one of its processes" in stderr


def wait_until_busy(demo: Process) -> None:
    """Customers are being served once the journal beside the ledger has grown beyond opening the accounts."""
    while not any(journal.stat().st_size > 1_500_000 for journal in demo.cwd.glob("*/*-wal")):
        assert demo.poll() is None, demo.communicate()
        time.sleep(0.01)


class Screen:
    """What a program writes to its terminal, and the keyboard below it."""

    def __init__(self, terminal: int) -> None:
        self.terminal = terminal
        self.seen = ""
        self._at = 0  # up to here it was waited for

    def wait_for(self, text: str) -> None:
        """Read on until `text` appears."""
        while text not in self.seen[self._at :]:
            self.seen += os.read(self.terminal, 4096).decode()
        self._at = self.seen.index(text, self._at) + len(text)

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self.terminal, text.encode())


def test_a_person_at_a_terminal_shows_no_pin_and_leaves_with_ctrl_c(ledger_path: Path) -> None:
    with running_bank(ledger_path) as (_, url), at_terminal("examples.atm", "atm", url) as (process, screen):
        for question, answer in (("Account: ", "alice"), ("Pin: ", "1111"), ("quit): ", "withdraw")):
            screen.wait_for(question)
            screen.type(f"{answer}\n")
        screen.wait_for("Amount: ")
        screen.type("ten\n20\n")
        screen.wait_for("480.00 EUR")
        screen.wait_for("quit): ")
        began = time.monotonic()
        screen.type("\x03")
        code = process.wait(10)
        seconds = time.monotonic() - began

    assert "1111" not in screen.seen
    assert "'ten' is not an amount" in screen.seen
    assert code == 130
    assert seconds < here(1)


@contextmanager
def at_terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Screen]]:
    """Run a module with a terminal of its own."""
    outside, inside = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        preexec_fn=lambda: os.login_tty(inside),  # so that Ctrl-C is a signal
    )
    os.close(inside)
    try:
        yield process, Screen(outside)
    finally:
        process.kill()
        process.wait()
        os.close(outside)


def test_three_wrong_pins_end_the_session_at_another_machine(ledger_path: Path) -> None:  # ATM-10
    with running_bank(ledger_path) as (_, url), at_terminal("examples.atm", "atm", url) as (process, screen):
        for question, answer in (("Account: ", "alice"), ("Pin: ", "1111")):
            screen.wait_for(question)
            screen.type(f"{answer}\n")
        screen.wait_for("quit): ")  # the person thinks
        for _ in range(3):
            run("atm", url, cwd=ledger_path.parent, answers="alice\n0000\n")
        screen.wait_for("Account alice has just been locked by the bank; ask there.")

        assert process.wait(10) == 0
