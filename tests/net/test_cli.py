"""The command `tasklets node`, run as a user does."""

import os
import signal
import subprocess
import sys
from time import monotonic

import pytest

from net import open_place
from tests.net import peers
from tests.net.peers import ask

pytestmark = pytest.mark.real


def run_command(*options: str) -> tuple[int, str, str]:
    process = peers.start("-m", "net.cli", *options)
    out, err = process.communicate(timeout=peers.PATIENCE)
    return process.returncode, out, err


@pytest.mark.parametrize("options", [("--help",), ("-h",), ("node", "--help")])
def test_help_is_given(options: tuple[str, ...]) -> None:
    code, out, err = run_command(*options)
    assert (code, err) == (0, "")
    assert "Usage:" in out
    assert "node" in out


def test_the_help_of_node_says_how_and_who_may_connect() -> None:
    _, out, _ = run_command("node", "--help")
    for word in ("--listen ADDR", "--name", "--insecure", "tasklets node --listen 127.0.0.1:7101", "SIGTERM"):
        assert word in out


def test_it_prints_its_address_first_and_serves() -> None:
    with peers.node("--name", "alpha") as (process, address):
        assert address.startswith("tcp://127.0.0.1:")
        with open_place(f"hosts:{address}") as place:
            assert ask(place, peers.tell_pid) == process.pid


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--listen", "nonsense"], "'nonsense' is no address"),
        (["--listen", "127.0.0.1:99999"], "'99999' is no port"),
        (["--listen", "0.0.0.0:0"], "--insecure"),
        (["--listen", "nowhere.invalid:0", "--insecure"], "is unknown"),
        (["--listen", "unix:///nonexistent/x.sock"], "cannot listen at unix:///nonexistent/x.sock"),
    ],
    ids=["syntax", "port", "not loopback", "host", "folder"],
)
def test_a_bad_address_gives_one_line_and_an_exit_code(options: list[str], words: str) -> None:
    code, out, err = run_command("node", *options)
    assert (code, out) == (1, "")
    assert words in err
    assert err.startswith("Error: ")
    assert err.count("\n") == 1


def test_a_port_in_use_gives_one_line_and_an_exit_code() -> None:
    with peers.node() as (_, address):
        code, _, err = run_command("node", "--listen", address)
    assert code == 1
    assert (
        err
        == f"Error: {address} is in use by another program; end it, or choose another port (0: the system chooses)\n"
    )


def test_debug_shows_the_traceback() -> None:
    code, _, err = run_command("node", "--listen", "nonsense", "--debug")
    assert code == 1
    assert "Traceback" in err


def test_an_unknown_option_is_refused() -> None:
    code, _, err = run_command("node", "--port", "7")
    assert code == 2
    assert "No such option" in err


@pytest.mark.parametrize("computing", [False, True], ids=["idle", "computing"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_end_it_at_once(number: signal.Signals, code: int, computing: bool) -> None:
    with peers.node() as (process, address), open_place(f"hosts:{address}") as place:
        if computing:
            reply = place.channel()
            place.spawn(peers.compute_for_ever, reply)
            assert reply.receive() == process.pid
        started = monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=peers.PATIENCE)
        assert monotonic() - started < 1.5
        assert (process.returncode, out, err) == (code, "", "")


def test_the_console_command_is_installed() -> None:
    command = os.path.join(os.path.dirname(sys.executable), "tasklets")
    assert "version" in subprocess.check_output([command, "--version"], text=True)
