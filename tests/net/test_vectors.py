"""The bytes in vectors/ are what we send and what we understand, so that another language can be held to the same.

To write them anew after a change of the wire (and of docs/wire.md): python -m tests.net.test_vectors
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from net._codec import Codec
from net._protocol import Hello, Protocol
from net._session import Session
from net._wire import ACK, FRAMES, GOODBYE, SEND

VECTORS = Path(__file__).parent / "vectors"
ID = bytes(range(16))
VALUE = ("deposit", 125, {"at": 1.5}, None, True, b"\x00\xff", "grüß", -(2**70))
EXAMPLES: dict[str, Any] = {
    "id": ID,
    "uint": 7,
    "count": 300,
    "text": "bank",
    "value": VALUE,
    "error": ("ValueError", "no such account", "", ("no such account",)),
    "error or nil": None,
    "args": (1, "two"),
    "kwargs": {"three": 3},
    "map": {"node": ID, "versions": [1, 1], "session": ID},
    "bytes": b"part",
    "subject": ID,
}


def codec() -> Codec:
    return Codec(None, None)  # type: ignore[arg-type]  # no channels here


def frame_of(frame_type: int) -> tuple[Any, ...]:
    return (frame_type, *(EXAMPLES[kind] for _, kind in FRAMES[frame_type].fields))


def frame_vectors() -> list[dict[str, Any]]:
    return [
        {
            "type": frame_type,
            "name": row.name,
            "fields": {name: repr(EXAMPLES[kind]) for name, kind in row.fields},
            "hex": codec().encode(frame_of(frame_type)).hex(),
        }
        for frame_type, row in FRAMES.items()
    ]


def session_vectors() -> list[dict[str, str]]:
    """A session of four connections' worth of bytes: open, talk, be cut, resume, say goodbye."""
    session_id = bytes(range(16, 32))
    atm = Hello(b"atm".ljust(16, b"."), name="atm", session=session_id, patience_ms=10_000)
    bank = Hello(
        b"bank".ljust(16, b"."), ("tcp://bank:7000",), "bank", session=session_id, patience_ms=10_000
    )
    one, other = Session(session_id, codec()), Session(session_id, codec())
    said: list[dict[str, str]] = []

    def say(who: str, what: str, data: bytes) -> bytes:
        said.append({"from": who, "what": what, "hex": data.hex()})
        return data

    def connect(what: str) -> tuple[Protocol, Protocol]:
        resumes = one.sent > 0
        ours = Protocol(replace(atm, resumes=resumes, received=one.received), codec(), one)
        theirs = Protocol(bank, codec())
        theirs.receive(say("atm", f"{what}: HELLO", ours.opening()))
        ours.receive(say("bank", "the answer", theirs.join(other, replace(bank, received=other.received))))
        return ours, theirs

    ours, theirs = connect("opens")
    theirs.receive(say("atm", "batch 1: a SEND", one.envelope([one.pack((SEND, ID, VALUE))])))
    say("atm", "batch 2: a SEND, lost in the cut", one.envelope([one.pack((SEND, ID, "lost"))]))
    ours.receive(
        say("bank", "batch 1, which acknowledges batch 1: an ACK", other.envelope([other.pack((ACK, ID, 1))]))
    )
    ours, theirs = connect("connects again")
    assert theirs.peer is not None
    assert ours.peer is not None
    for data in one.resume(ours.peer.received):
        theirs.receive(say("atm", "batch 2 again, byte by byte", data))
    ours.receive(say("bank", "acknowledges batch 2, without a number", other.acknowledgement()))
    say("atm", "batch 3: a GOODBYE", one.envelope([one.pack((GOODBYE, "done"))]))
    return said


WRITTEN = {"frames.json": frame_vectors, "session.json": session_vectors}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_we_send_is_what_the_vectors_say(name: str) -> None:
    assert json.loads((VECTORS / name).read_text()) == WRITTEN[name]()


@pytest.mark.parametrize(
    "vector", json.loads((VECTORS / "frames.json").read_text()), ids=lambda each: each["name"]
)
def test_what_the_vectors_say_is_understood(vector: dict[str, Any]) -> None:
    [frame] = codec().decode(bytes.fromhex(vector["hex"]))
    assert codec().encode(frame).hex() == vector["hex"]
    assert FRAMES[frame[0]].name == vector["name"]


if __name__ == "__main__":
    for name, make in WRITTEN.items():
        (VECTORS / name).write_text(json.dumps(make(), indent=1, ensure_ascii=False) + "\n")
