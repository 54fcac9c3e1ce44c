"""The command `tasklets node`, run as a user does."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest

from net import AuthenticationError, NetError, PeerUnreachable, Place, Tls, open_place
from tasklets import sleep, timeout
from tests.machine import here
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
    for word in (
        "--listen ADDR",
        "--name",
        "--insecure",
        "tasklets node --listen 127.0.0.1:7101",
        "SIGTERM",
        "--secret-file",
        "--tls-ca",
        "--grace",
    ):
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


@pytest.mark.parametrize("kind", ["idle", "computing"])
@pytest.mark.parametrize(("name", "codes"), [("SIGINT", (130, 130)), ("SIGTERM", (0, 1))])
def test_signals_end_it_in_time(name: str, codes: tuple[int, int], kind: str) -> None:
    with peers.node("--grace", "0.2") as (process, address), open_place(f"hosts:{address}") as place:
        if kind == "computing":
            start_computing(place, process.pid)
        started = monotonic()
        process.send_signal(signal.Signals[name])
        out, err = process.communicate(timeout=peers.PATIENCE)
        assert monotonic() - started < here(1.5)
    assert process.returncode == codes[kind == "computing"]
    cut = "a tasklet did not end within 0.2 s, and had to be stopped\n"
    assert (out, err) == ("", cut if process.returncode == 1 else "")


@pytest.mark.parametrize(("second", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_second_signal_ends_it_at_once(second: str, code: int) -> None:
    with peers.node("--grace", "1000") as (process, address), open_place(f"hosts:{address}") as place:
        start_computing(place, process.pid)
        process.send_signal(signal.SIGTERM)
        signal.sigtimedwait([], 0.1)  # two at the same time would be one
        assert process.poll() is None
        started = monotonic()
        process.send_signal(signal.Signals[second])
        assert process.communicate(timeout=peers.PATIENCE) == ("", "")
        assert monotonic() - started < here(1.5)
    assert process.returncode == code


def start_computing(place: Place, pid: int) -> None:
    reply = place.channel()
    place.spawn(peers.compute_for_ever, reply)
    assert reply.receive() == pid


def ask_until_refused(place: Place) -> None:
    while True:  # until it has seen the signal
        ask(place, peers.tell_pid)


def test_sigterm_lets_end_what_runs_and_starts_nothing_more() -> None:
    with peers.node("--name", "alpha") as (process, address), open_place(f"hosts:{address}") as place:
        numbers, result = place.channel(), place.channel(4)
        running = place.spawn(peers.take, numbers, 2, result)
        numbers.send(1)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(NetError, match="alpha is being stopped and starts nothing more"):
            ask_until_refused(place)
        with pytest.raises(PeerUnreachable, match="nobody listens"):
            open_place(f"hosts:{address}")
        assert process.poll() is None
        numbers.send(2)
        assert result.receive() == (1, 2)
        running.join()  # it has said so
        out, err = process.communicate(timeout=peers.PATIENCE)
        assert (process.returncode, out, err) == (0, "", "")
        with timeout(peers.PATIENCE):
            assert "it ended" in place.lost.receive().reason


def test_what_runs_for_a_program_that_is_gone_holds_nothing_up() -> None:
    with peers.node() as (process, address):
        place = open_place(f"hosts:{address}")
        place.spawn(sleep, 1000)
        ask(place, peers.tell_pid)
        process.send_signal(signal.SIGTERM)
        place.close()
        assert process.wait(peers.PATIENCE) == 0


def test_a_node_with_a_secret_serves_those_who_know_it(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    code, out, _ = run_command("secret", str(secret))
    assert (code, out) == (
        0,
        f"wrote {secret}; copy it to every machine of the program, and give it to nobody else\n",
    )
    with peers.node("--secret-file", str(secret)) as (process, address):
        with open_place(f"hosts:{address}", secret=secret) as place:
            assert ask(place, peers.tell_pid) == process.pid
        with pytest.raises(AuthenticationError, match="it asks for a secret"):
            open_place(f"hosts:{address}")
        with pytest.raises(AuthenticationError, match="its secret is not the one of this node"):
            open_place(f"hosts:{address}", secret="a secret that is another")
    code, _, err = run_command("secret", str(secret))
    assert (code, err) == (
        1,
        f"Error: {secret} exists already; remove it first if it is not needed any more\n",
    )


def test_a_node_with_tls_at_any_address(tmp_path: Path) -> None:
    folder = str(tmp_path / "certs")
    code, out, err = run_command("certificates", "authority", folder)
    assert (code, err) == (0, "")
    assert out == f"wrote {folder}/ca.pem for every machine, and {folder}/ca.key to keep safe\n"
    for name in ("node", "program"):
        code, out, err = run_command(
            "certificates", "make", folder, name, "--host", "127.0.0.1", "--days", "30"
        )
        assert (code, err) == (0, "")
        assert out == f"wrote {folder}/{name}.pem and {folder}/{name}.key for 127.0.0.1\n"
    ca, certificate, key = f"{folder}/ca.pem", f"{folder}/node.pem", f"{folder}/node.key"
    options = ("--tls-ca", ca, "--tls-cert", certificate, "--tls-key", key)
    with peers.running("-m", "net.cli", "node", "--listen", "0.0.0.0:0", *options) as process:
        address = peers.line_of(process).removeprefix("listening at ").replace("0.0.0.0", "127.0.0.1")
        tls = Tls(ca, f"{folder}/program.pem", f"{folder}/program.key")
        with open_place(f"hosts:{address}", tls=tls) as place:
            assert ask(place, peers.tell_pid) == process.pid
            big = place.channel()
            place.spawn(peers.send_all, big, bytes(3_000_000))
            assert len(big.receive()) == 3_000_000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["node", "--secret-file", "/nonexistent/s"], "/nonexistent/s cannot be read: No such file"),
        (["node", "--tls-ca", "/x"], "TLS needs --tls-ca, --tls-cert and --tls-key together"),
        (["node", "--tls-ca", "/x", "--tls-cert", "/x", "--tls-key", "/x"], "/x cannot be read"),
        (["node", "--secret-file", "/x", "--insecure"], "/x cannot be read"),
        (["secret", "/nonexistent/s"], "/nonexistent/s cannot be written"),
        (["certificates", "make", "/", "x"], "/ca.key cannot be read"),
    ],
)
def test_bad_credentials_give_one_line_and_an_exit_code(options: list[str], words: str) -> None:
    code, out, err = run_command(*options)
    assert (code, out) == (1, "")
    assert words in err
    assert err.startswith("Error: ")
    assert err.count("\n") == 1


def test_top_shows_nodes_once_and_exits_with_1_when_one_cannot_be_asked() -> None:
    with peers.node("--name", "alpha") as (process, address):
        code, out, err = run_command("top", "--once", address)
        assert (code, err) == (0, "")
        assert f"alpha at {address}, pid {process.pid}" in out
        code, out, err = run_command("top", "--once", "--json", address, "127.0.0.1:9")
        assert (code, err) == (1, "")
        alpha, gone = map(json.loads, out.splitlines())
        assert (alpha["name"], alpha["pid"], alpha["problem"]) == ("alpha", process.pid, None)
        assert gone["problem"].startswith("nobody listens at tcp://127.0.0.1:9")


def test_top_goes_on_until_ctrl_c() -> None:
    with (
        peers.node() as (_, address),
        peers.running("-m", "net.cli", "top", "--json", "--every", "0.1", address) as top,
    ):
        first, second = json.loads(peers.line_of(top)), json.loads(peers.line_of(top))
        assert 0.05 < second["at"] - first["at"] < 5
        top.send_signal(signal.SIGINT)
        _, err = top.communicate(timeout=peers.PATIENCE)
        assert (top.returncode, err) == (0, "")


def test_top_needs_the_secret_too(tmp_path: Path) -> None:
    secret = str(tmp_path / "secret")
    run_command("secret", secret)
    with peers.node("--secret-file", secret) as (_, address):
        code, out, _ = run_command("top", "--once", address)
        assert code == 1
        assert "it asks for a secret" in " ".join(out.split())
        assert run_command("top", "--once", "--secret-file", secret, address)[0] == 0


def test_the_console_command_is_installed() -> None:
    command = os.path.join(os.path.dirname(sys.executable), "tasklets")
    assert "version" in subprocess.check_output([command, "--version"], text=True)
