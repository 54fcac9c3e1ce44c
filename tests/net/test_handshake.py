"""The handshake as a state machine: who is accepted, who is refused, and that nothing else ever comes out of it."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from net import _handshake
from net._handshake import (
    BANNER,
    CHALLENGE,
    HEADER,
    NO_SECRET,
    NONCE_BYTES,
    PROOF,
    REFUSED,
    SECRET,
    TLS,
    WELCOME,
    Handshake,
    State,
    derive_key,
    make_banner,
    name_methods,
    read_banner,
)
from net.errors import LocalProtocolError, RemoteProtocolError

DOCUMENT = Path(__file__).parents[2] / "docs" / "handshake.md"
KEY, OTHER_KEY = derive_key(b"the secret of the tests"), derive_key(b"another secret, as long")


def end(accepting: bool, *keys: bytes, methods: int = SECRET, binding: bytes = b"") -> Handshake:
    return Handshake(
        accepting=accepting,
        keys=keys or (KEY,),
        methods=methods,
        nonce=os.urandom(NONCE_BYTES),
        channel_binding=binding,
    )


def feed(handshake: Handshake, data: bytes, step: int = 255) -> tuple[bytes, bytes]:
    """Let one end read as it wants to; returns what it sends, and what it did not read."""
    out = b""
    while data and handshake.wanted:
        size = min(handshake.wanted, step)
        out += handshake.receive(data[:size])
        data = data[size:]
    return out, data


def shake(acceptor: Handshake, connector: Handshake, step: int = 255) -> list[bytes]:
    """Let both talk until nothing is left to say; returns all that was said."""
    said = [acceptor.opening()]
    hears = connector
    while said[-1]:
        answer, rest = feed(hears, said[-1], step)
        assert not rest
        said.append(answer)
        hears = acceptor if hears is connector else connector
    return said


@pytest.mark.parametrize("step", [1, 2, 7, 255])
@pytest.mark.parametrize("methods", [SECRET, TLS, SECRET | TLS])
def test_who_knows_the_same_secret_is_accepted_and_both_know_the_same_binding(
    step: int, methods: int
) -> None:
    one, two = end(True, methods=methods, binding=b"tls"), end(False, methods=methods, binding=b"tls")
    shake(one, two, step)
    assert (one.state, two.state) == (State.ACCEPTED, State.ACCEPTED)
    assert one.binding == two.binding
    assert len(one.binding) == 32
    assert one.wanted == two.wanted == 0


def test_the_binding_is_another_one_for_each_connection() -> None:
    bindings = set()
    for _ in range(3):
        one = end(True)
        shake(one, end(False))
        bindings.add(one.binding)
    assert len(bindings) == 3


def test_a_wrong_secret_is_refused_and_the_other_side_hears_of_it() -> None:
    one, two = end(True), end(False, OTHER_KEY)
    shake(one, two)
    assert (one.state, two.state) == (State.REFUSED, State.REFUSED)
    assert one.refusal == two.refusal == "its secret is not the one of this node"
    assert two.refused_by_peer
    assert not one.refused_by_peer
    assert one.binding == two.binding == b""


def test_the_acceptor_takes_any_of_its_secrets_and_the_connector_proves_the_first() -> None:
    one, two = end(True, OTHER_KEY, KEY), end(False, KEY, OTHER_KEY)
    shake(one, two)
    assert (one.state, two.state) == (State.ACCEPTED, State.ACCEPTED)
    one, two = end(True, KEY), end(False, OTHER_KEY, KEY)
    shake(one, two)
    assert one.state is State.REFUSED


@pytest.mark.parametrize("what", ["binding", "methods", "no secret"])
def test_both_must_know_the_same_of_their_connection(what: str) -> None:
    one = end(True, methods=SECRET | TLS, binding=b"one")
    two = {
        "binding": end(False, methods=SECRET | TLS, binding=b"two"),  # a man between two TLS connections
        "methods": end(False, methods=SECRET, binding=b"one"),  # who changed the banner
        "no secret": end(False, NO_SECRET, methods=SECRET | TLS, binding=b"one"),
    }[what]
    shake(one, two)
    assert one.state is State.REFUSED


def test_an_acceptor_without_the_secret_is_found_out() -> None:
    connector = end(False)
    out, _ = feed(connector, _handshake._frame(CHALLENGE, bytes(32)))
    assert out
    out, _ = feed(connector, _handshake._frame(WELCOME, bytes(32)))
    assert connector.state is State.REFUSED
    assert connector.refusal == "it does not know the secret itself"
    assert not connector.refused_by_peer
    assert out[0] == REFUSED


def test_what_was_recorded_is_worth_nothing_later() -> None:
    recorded = shake(end(True), end(False))
    again = end(True)
    feed(again, recorded[1])
    assert again.state is State.REFUSED
    client = end(False)
    feed(client, recorded[0])
    feed(client, recorded[2])
    assert client.state is State.REFUSED


def test_a_proof_cannot_be_sent_back_to_its_maker() -> None:
    connector = end(False)
    proof, _ = feed(connector, end(True).opening())
    mac = proof[HEADER.size + NONCE_BYTES :]
    feed(connector, _handshake._frame(WELCOME, mac))
    assert connector.state is State.REFUSED


def test_the_secret_is_never_said() -> None:
    said = b"".join(shake(end(True), end(False)))
    assert KEY not in said
    assert b"the secret" not in said


def test_nothing_beyond_the_last_frame_is_read() -> None:
    one, two = end(True), end(False)
    proof, _ = feed(two, one.opening())
    welcome, rest = feed(one, proof + b"TSKL\x01...")
    assert rest == b"TSKL\x01..."
    _, rest = feed(two, welcome + b"session")
    assert rest == b"session"
    with pytest.raises(LocalProtocolError):
        two.receive(b"session")


WRONG: dict[str, tuple[bool, bytes, str]] = {
    "unknown type": (True, b"\x07\x01x", "type 7"),
    "a browser": (True, b"GET / HTTP/1.1", "it speaks HTTP"),
    "a session": (True, b"TSKL\x01", "it began a session without proving who it is"),
    "TLS": (True, b"\x16\x03\x01", "it speaks TLS"),
    "proof too short": (True, b"\x02\x3f", "PROOF of 63 bytes; 64 to 64 are allowed"),
    "no reason": (True, b"\x04\x00", "REFUSED of 0 bytes"),
    "a challenge to the acceptor": (
        True,
        b"\x01\x20",
        "CHALLENGE is not allowed by a node that expects proof",
    ),
    "a welcome to the acceptor": (True, b"\x03\x20", "WELCOME is not allowed by a node that expects proof"),
    "a proof to the connector": (False, b"\x02\x40", "PROOF is not allowed by a node that expects challenge"),
    "a welcome before the challenge": (
        False,
        b"\x03\x20",
        "WELCOME is not allowed by a node that expects challenge",
    ),
    "the end": (True, b"", "ended in the middle of the handshake"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_not_in_the_table_ends_it(kind: str) -> None:
    accepting, data, words = WRONG[kind]
    handshake = end(accepting)
    with pytest.raises(RemoteProtocolError, match=words):
        feed(handshake, data) if data else handshake.receive(b"")
    assert handshake.state is State.ERROR
    assert handshake.wanted == 0


def test_a_reason_is_one_harmless_line() -> None:
    handshake = end(False)
    feed(handshake, _handshake._frame(REFUSED, b"no\n\x1b[31m\xff way"))
    assert handshake.refusal == "no??[31m\ufffd way"


@given(
    accepting=st.booleans(),
    chunks=st.lists(st.binary(max_size=80), max_size=8),
    start=st.sampled_from(["", "good"]),
)
def test_garbage_gives_the_protocols_error_or_a_refusal_and_nothing_else(
    accepting: bool, chunks: list[bytes], start: str
) -> None:
    handshake = end(accepting)
    chunks = [_handshake._frame(CHALLENGE, bytes(32)), *chunks] if start and not accepting else chunks
    kept = 0
    try:
        for chunk in chunks:
            feed(handshake, chunk)
            kept = max(kept, len(handshake._buffer))
    except RemoteProtocolError:
        assert handshake.state is State.ERROR
    assert handshake.state is not State.ACCEPTED
    assert kept <= HEADER.size + 255


frames = st.sampled_from([CHALLENGE, PROOF, WELCOME, REFUSED]).flatmap(
    lambda kind: st.tuples(st.just(kind), st.binary(min_size=1, max_size=64))
)


@given(st.booleans(), st.lists(frames, max_size=5))
def test_valid_frames_in_any_order_accept_nobody(accepting: bool, said: list[tuple[int, bytes]]) -> None:
    handshake = end(accepting)
    try:
        for kind, payload in said:
            size = {CHALLENGE: 32, PROOF: 64, WELCOME: 32, REFUSED: len(payload)}[kind]
            feed(handshake, _handshake._frame(kind, payload.ljust(size, b"\0")[:size]))
    except RemoteProtocolError:
        pass
    assert handshake.state is not State.ACCEPTED


@pytest.mark.parametrize("methods", [SECRET, TLS, SECRET | TLS])
def test_a_banner_is_read_as_it_is_written(methods: int) -> None:
    assert read_banner(make_banner(methods)) == methods


@pytest.mark.parametrize(
    ("banner", "words"),
    [
        (b"HTTP/1", "does not speak this protocol"),
        (b"TSKL\x01\x00", "does not speak this protocol"),
        (b"TSKA\x02\x01", "version 2 of the handshake, we speak 1"),
        (b"TSKA\x01\x00", "methods 0x0"),
        (b"TSKA\x01\x04", "methods 0x4"),
    ],
)
def test_a_bad_banner_is_told(banner: bytes, words: str) -> None:
    assert len(banner) == BANNER.size
    with pytest.raises(RemoteProtocolError, match=words):
        read_banner(banner)


def test_the_document_s_example_is_what_is_said() -> None:
    (block,) = re.findall(r"```hex\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    key, banner, challenge, proof, welcome, binding = map(bytes.fromhex, block.splitlines())
    assert derive_key(b"correct horse battery staple") == key
    assert make_banner(SECRET) == banner
    one = Handshake(accepting=True, keys=(key,), methods=SECRET, nonce=bytes(range(32)))
    two = Handshake(accepting=False, keys=(key,), methods=SECRET, nonce=bytes(range(32, 64)))
    assert shake(one, two) == [challenge, proof, welcome, b""]
    assert one.binding == two.binding == binding


def test_the_document_has_the_same_tables() -> None:
    text = DOCUMENT.read_text()
    for (state, kind), new in _handshake.TRANSITIONS.items():
        assert f"| {state.value} | {_handshake.FRAMES[kind][0]} | {new.value} |" in text
    for kind, (name, sizes) in _handshake.FRAMES.items():
        size = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        assert f"| {name} | {kind} | {size} |" in text


def test_methods_have_names() -> None:
    assert name_methods(SECRET) == "a secret"
    assert name_methods(SECRET | TLS) == "a secret and certificates (TLS)"


def test_a_handshake_needs_a_fresh_nonce_of_the_right_size_and_a_key() -> None:
    arguments: dict[str, Any] = {"accepting": True, "methods": SECRET}
    with pytest.raises(LocalProtocolError):
        Handshake(keys=(KEY,), nonce=b"short", **arguments)
    with pytest.raises(LocalProtocolError):
        Handshake(keys=(), nonce=bytes(32), **arguments)
