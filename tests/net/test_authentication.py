"""Secrets, TLS and both between real ends: who gets in, and what is told to whom when one does not."""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent import socket

import net
from net import AuthenticationError, BadAddress, BadCredentials, PeerUnreachable, Tls
from net._gate import Refusals
from net._references import RemoteChannel
from net.certificates import make_authority, make_certificate
from net.node import get_node
from net.security import make_secret
from tasklets import channel
from tests.net import peers
from tests.net.peers import Doing, until

pytestmark = pytest.mark.real

SECRET, OTHER = "the secret of these tests", "another secret, as long"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    make_authority(folder)
    for name in ("bank", "atm"):
        make_certificate(folder, name)
    make_certificate(folder, "elsewhere", ["elsewhere.example"])
    make_certificate(folder, "expired", days=-0.1)
    return folder


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strangers")
    make_authority(folder)
    make_certificate(folder, "mallory")
    return folder


def tls(folder: Path, name: str, ca: Path | None = None) -> Tls:
    return Tls((ca or folder) / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")


@pytest.fixture
def inbox() -> channel:
    return channel(4, "inbox")


@pytest.fixture(params=["secret", "tls", "both"])
def both_sides(request: pytest.FixtureRequest, authority: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments that fit together, for serve and for connect."""
    return {
        "secret": ({"secret": SECRET}, {"secret": SECRET}),
        "tls": ({"tls": tls(authority, "bank")}, {"tls": tls(authority, "atm")}),
        "both": (
            {"secret": SECRET, "tls": tls(authority, "bank")},
            {"secret": SECRET, "tls": tls(authority, "atm")},
        ),
    }[request.param]


def listening() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


CLIENT = """
import sys, net
from tasklets import channel
secret, folder = sys.argv[2:]
tls = net.Tls(f"{folder}/ca.pem", f"{folder}/atm.pem", f"{folder}/atm.key") if folder else None
bank = net.connect(sys.argv[1], secret=secret or None, tls=tls)
for number in range(3):
    reply = channel()
    bank.send((bytes(200_000) + bytes([number]), reply))
    print(reply.receive()[-1], flush=True)
"""


def test_a_program_with_the_right_credentials_talks_as_without(
    both_sides: tuple[dict[str, Any], dict[str, Any]], inbox: channel, authority: Path
) -> None:
    ours, theirs = both_sides
    answering = Doing(peers.answer, inbox)
    with net.serve("tcp://127.0.0.1:0", inbox=inbox, **ours) as server:
        options = (theirs.get("secret", ""), str(authority) if "tls" in theirs else "")
        with peers.running("-c", CLIENT, server.url("inbox"), *options) as client:
            until(lambda: client.poll() is not None)
            assert client.communicate() == ("0\n1\n2\n", "")
        inbox.close()
        answering.result()


def test_both_ends_know_the_same_binding_and_the_name_in_the_certificate(
    both_sides: tuple[dict[str, Any], dict[str, Any]], inbox: channel
) -> None:
    ours, theirs = both_sides
    with net.serve("tcp://127.0.0.1:0", inbox=inbox, **ours) as server:
        assert net.connect(server.url("inbox"), **theirs) is inbox
        identities = [link.identity for link in get_node().links]
        assert len(identities) == 2
        one, two = (identity for identity in identities if identity is not None)
        assert one.binding == two.binding
        assert len(one.binding) == 32
        assert {one.name, two.name} == ({"bank", "atm"} if "tls" in ours else {""})


def test_a_secret_from_a_file(tmp_path: Path, inbox: channel) -> None:
    path = make_secret(tmp_path / "secret")
    with net.serve("tcp://127.0.0.1:0", secret=path, inbox=inbox) as server:
        assert net.connect(server.url("inbox"), secret=path) is inbox


def test_secrets_are_exchanged_without_a_restart(tmp_path: Path, inbox: channel) -> None:
    path = make_secret(tmp_path / "secret")
    old = path.read_text()
    with net.serve("tcp://127.0.0.1:0", secret=path, inbox=inbox) as server:
        path.write_text(f"the new secret of this test\n{old}")
        assert net.connect(server.url("inbox"), secret=old.strip()) is inbox
        assert net.connect(server.url("inbox"), secret="the new secret of this test") is inbox
        path.write_text("the new secret of this test\n")
        for link in list(get_node().links):
            link.close()  # who is in stays in
        with pytest.raises(AuthenticationError):
            net.connect(server.url("inbox"), secret=old.encode())


@pytest.mark.parametrize("address", ["unix", "tcp://0.0.0.0:0"])
def test_a_secret_protects_any_address(tmp_path: Path, inbox: channel, address: str) -> None:
    address = f"unix://{tmp_path}/s.sock" if address == "unix" else address
    with net.serve(address, secret=SECRET, inbox=inbox) as server:
        url = server.url("inbox").replace("0.0.0.0", "127.0.0.1")
        assert net.connect(url, secret=SECRET) is inbox
        with pytest.raises(AuthenticationError):
            net.connect(url, secret=OTHER)


def test_without_anything_only_this_machine_may_connect(inbox: channel) -> None:
    with pytest.raises(BadAddress, match=r"pass secret=\.\.\. \(--secret-file\) or tls=\.\.\."):
        net.serve("tcp://0.0.0.0:0", inbox=inbox)
    with pytest.raises(BadCredentials, match="16 are the least"):
        net.serve("tcp://0.0.0.0:0", secret="short", inbox=inbox)
    assert not get_node().listeners


# ---------------------------------------------------------------------------------------------- who does not get in


def wrong(kind: str, authority: Path, strangers: Path) -> tuple[dict[str, Any], dict[str, Any], str, str]:
    """What serve and connect are given, what connect raises, and what the log says."""
    bank, atm = tls(authority, "bank"), tls(authority, "atm")
    mallory = tls(strangers, "mallory", authority)  # trusts ours, shows its own
    cases: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
        "wrong secret": (
            {"secret": SECRET},
            {"secret": OTHER},
            "it refused us: its secret is not the one of this node",
            "its secret is not the one of this node",
        ),
        "no secret": (
            {"secret": SECRET},
            {},
            r"it asks for a secret; pass secret=\.\.\. \(--secret-file\)",
            "it began a session without proving who it is",
        ),
        "no TLS": (
            {"tls": bank},
            {},
            r"it asks for certificates \(TLS\); pass tls",
            "no TLS comes of what it says: wrong version number",
        ),
        "a secret where TLS is asked for": (
            {"tls": bank},
            {"secret": SECRET},
            r"it asks for certificates \(TLS\), and was to be asked with a secret; pass tls",
            "the connection ended",
        ),
        "only one of two": (
            {"tls": bank, "secret": SECRET},
            {"tls": atm},
            r"it asks for a secret and certificates \(TLS\), and was to be asked with certificates .*; pass secret",
            "the connection ended",
        ),
        "right certificate, wrong secret": (
            {"tls": bank, "secret": SECRET},
            {"tls": atm, "secret": OTHER},
            "its secret is not the one of this node",
            "its secret is not the one of this node",
        ),
        "another authority's client": (
            {"tls": bank},
            {"tls": mallory},
            "it does not know the authority of the certificate it was shown",
            "its certificate is refused: (unable to get local issuer certificate|self-signed)",
        ),
        "another authority's server": (
            {"tls": mallory},
            {"tls": atm},
            "its certificate is refused: (unable to get local issuer certificate|self-signed)",
            "it does not know the authority of the certificate it was shown",
        ),
        "expired client": (
            {"tls": bank},
            {"tls": tls(authority, "expired")},
            "the certificate it was shown has expired",
            "its certificate is refused: certificate has expired",
        ),
        "expired server": (
            {"tls": tls(authority, "expired")},
            {"tls": atm},
            "its certificate is refused: certificate has expired",
            "the certificate it was shown has expired",
        ),
        "another host's server": (
            {"tls": tls(authority, "elsewhere")},
            {"tls": atm},
            "its certificate is refused: IP address mismatch, certificate is not valid for '127.0.0.1'",
            "it refused the certificate it was shown",
        ),
    }
    return cases[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "wrong secret",
        "no secret",
        "no TLS",
        "a secret where TLS is asked for",
        "only one of two",
        "right certificate, wrong secret",
        "another authority's client",
        "another authority's server",
        "expired client",
        "expired server",
        "another host's server",
    ],
)
def test_one_clear_line_at_both_ends(
    kind: str, inbox: channel, authority: Path, strangers: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs, words, logged = wrong(kind, authority, strangers)
    with (
        caplog.at_level(logging.WARNING, "net"),
        net.serve("tcp://127.0.0.1:0", inbox=inbox, **ours) as server,
    ):
        with pytest.raises(AuthenticationError, match=words) as caught:
            net.connect(server.url("inbox"), **theirs)
        assert "\n" not in str(caught.value)
        assert server.address in str(caught.value)
        assert isinstance(caught.value, PermissionError)
        until(lambda: len(caplog.records) == 1)
        until(lambda: len(get_node().gate) == 0)
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith("127.0.0.1:")
    assert "\n" not in line
    assert re.search(logged, line), line
    assert not get_node().links


def test_who_asks_for_more_than_the_node_does_is_stopped_before_it_says_anything(
    inbox: channel, caplog: pytest.LogCaptureFixture
) -> None:
    with net.serve("tcp://127.0.0.1:0", inbox=inbox) as server:
        with pytest.raises(
            AuthenticationError, match=r"it asks for neither a secret nor TLS, .* insecure=True"
        ):
            net.connect(server.url("inbox"), secret=SECRET)
        assert net.connect(server.url("inbox"), insecure=True) is inbox


def test_an_impostor_that_does_not_know_the_secret_is_found_out() -> None:
    from net._handshake import CHALLENGE, SECRET as METHOD, WELCOME, _frame, make_banner

    with listening() as impostor:
        connecting = Doing(lambda: net.connect(f"127.0.0.1:{impostor.getsockname()[1]}/bank", secret=SECRET))
        other, _ = impostor.accept()
        with other:
            other.sendall(make_banner(METHOD) + _frame(CHALLENGE, bytes(32)) + _frame(WELCOME, bytes(32)))
            with pytest.raises(AuthenticationError, match="it does not know the secret itself"):
                connecting.result()


def test_what_is_no_node_is_told() -> None:
    with listening() as stranger:
        connecting = Doing(lambda: net.connect(f"127.0.0.1:{stranger.getsockname()[1]}/bank", secret=SECRET))
        other, _ = stranger.accept()
        with other:
            other.sendall(b"220 mail.example ESMTP\r\n")
            with pytest.raises(PeerUnreachable, match=r"is no node of ours .*is it the right port"):
                connecting.result()


def test_a_stranger_that_says_nothing_is_given_up_and_leaves_nothing() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with listening() as stranger:
        address = f"127.0.0.1:{stranger.getsockname()[1]}"
        with pytest.raises(PeerUnreachable, match=r"no answer from tcp://127\.0\.0\.1:\d+ within 0\.02 s"):
            net.connect(f"{address}/bank", timeout=0.02, secret=SECRET)
    assert len(os.listdir("/proc/self/fd")) == before


# ---------------------------------------------------------------------------------------------- references, third nodes

HOME = """
import sys, net
from tasklets import channel, run, tasklet
inbox = channel(name="inbox")
def answer():
    for value, reply in inbox: reply.send(value * 2)
tasklet(answer)()
with net.serve("tcp://127.0.0.1:0", secret=sys.argv[1], inbox=inbox) as server:
    print(server.address, flush=True)
    run()
"""


def test_a_reference_from_a_third_node_is_used_with_the_introducers_secret(inbox: channel) -> None:
    with peers.running("-c", HOME, SECRET) as home:
        address = peers.line_of(home)
        with net.serve("tcp://127.0.0.1:0", secret=SECRET, inbox=inbox) as server:
            program = (
                "import sys, net; net.connect(sys.argv[1], secret=sys.argv[3])"
                ".send(net.connect(sys.argv[2], secret=sys.argv[3]))"
            )
            urls = (server.url("inbox"), f"{address}/inbox")
            with peers.running("-c", program, *urls, SECRET) as middle:
                reference = inbox.receive()
                assert isinstance(reference, RemoteChannel)
                reply = channel()
                reference.send((21, reply))
                assert reply.receive() == 42
                until(lambda: middle.poll() is not None)


def pass_on(where: channel, bank: channel) -> None:
    reply = channel()
    bank.send((21, reply))
    where.send(reply.receive())


def test_children_use_references_to_nodes_with_a_secret_and_to_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TASKLETS_SECRET", SECRET)  # children inherit it, and ask each other for nothing
    with peers.running("-c", HOME, SECRET) as home:
        bank = net.connect(f"{peers.line_of(home)}/inbox")
        with net.open_place("processes:2") as place:
            out = place.channel()
            place.spawn(pass_on, out, bank)
            assert out.receive() == 42
            theirs = place.channel()
            place.spawn(peers.make, 4, theirs)
            at_second = theirs.receive()  # lives at the second child
            place.spawn(peers.send_all, at_second, "from a sibling").join()
            assert at_second.receive() == "from a sibling"
        bank.close()


def test_the_environment_lets_programs_talk_unchanged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, inbox: channel
) -> None:
    monkeypatch.setenv("TASKLETS_SECRET_FILE", str(make_secret(tmp_path / "secret")))
    answering = Doing(peers.answer, inbox)
    program = (
        "import sys, net; from tasklets import channel; reply = channel(); "
        "net.connect(sys.argv[1]).send((4, reply)); print(reply.receive())"
    )
    with net.serve("tcp://0.0.0.0:0", inbox=inbox) as server:
        with peers.running("-c", program, server.url("inbox").replace("0.0.0.0", "127.0.0.1")) as client:
            until(lambda: client.poll() is not None)
            assert client.communicate() == ("8\n", "")
        inbox.close()
        answering.result()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    get_node().gate.refusals = Refusals(get_node().reactor.loop)  # nothing was refused before
    yield
    until(lambda: not get_node().links)
    assert not get_node().listeners
