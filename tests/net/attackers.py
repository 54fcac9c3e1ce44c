"""A program that attacks a node: `python -m tests.net.attackers KIND PORT COUNT FOLDER`. Prints what came of it."""

import os
import random
import resource
import ssl
import sys
from collections import Counter
from collections.abc import Callable

import gevent
from gevent import socket, ssl as waiting
from gevent.pool import Pool

from net import _wire as wire
from net._codec import Codec
from net._handshake import (
    BANNER,
    CHALLENGE,
    HEADER,
    NONCE_BYTES,
    SECRET,
    Handshake,
    State,
    derive_key,
)
from net._protocol import Hello, Protocol
from net._session import Session
from net.errors import RemoteProtocolError

AT_ONCE = 400
PATIENCE = 30.0
SOURCE = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"  # others than the honest come from elsewhere
outcomes: Counter[str] = Counter()
kept: list[socket.socket] = []  # for nobody to close them before the end

RIGHT, WRONG = b"the secret of the strangers' test", b"a guess of the strangers' test"


def connected(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE, (SOURCE, 0))
    sock.settimeout(PATIENCE)
    return sock


def until_closed(sock: socket.socket) -> str:
    """Read until the node closes the connection."""
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return "still open"
    return "closed"


def silent(port: int, folder: str) -> str:
    """Half open, and never a byte."""
    sock = connected(port)
    kept.append(sock)
    sock.recv(BANNER.size)
    return "connected"


def slow(port: int, folder: str) -> str:
    """A proof, one byte at a time, with long pauses."""
    sock = connected(port)
    kept.append(sock)
    for byte in HEADER.pack(2, 64) + bytes(64):
        try:
            sock.send(bytes([byte]))
        except OSError:
            return "closed"
        gevent.sleep(0.2)
    return until_closed(sock)


def garbage(port: int, folder: str) -> str:
    sock = connected(port)
    sock.sendall(random.Random(os.urandom(8)).randbytes(300))
    return until_closed(sock)


def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def shaken(port: int, secret: bytes) -> tuple[socket.socket, Handshake, bytes]:
    """Shake hands as a client does; returns what was said too."""
    sock = connected(port)
    exactly(sock, BANNER.size)
    handshake = Handshake(
        accepting=False, keys=[derive_key(secret)], methods=SECRET, nonce=os.urandom(NONCE_BYTES)
    )
    said = b""
    while handshake.wanted:
        answer = handshake.receive(sock.recv(handshake.wanted))
        said += answer
        sock.sendall(answer)
    return sock, handshake, said


def wrong_secret(port: int, folder: str) -> str:
    sock, handshake, _ = shaken(port, WRONG)
    return handshake.state.value + " " + until_closed(sock)


recorded: list[bytes] = []


def replay(port: int, folder: str) -> str:
    """What an honest client said once, said again."""
    if not recorded:
        sock, handshake, said = shaken(port, RIGHT)
        assert handshake.state is State.ACCEPTED
        recorded.append(said)
        sock.close()
    sock = connected(port)
    exactly(sock, BANNER.size + HEADER.size + NONCE_BYTES)
    sock.sendall(recorded[0])
    answer = exactly(sock, HEADER.size)
    return ("refused" if answer[0] == 4 else "accepted") + " " + until_closed(sock)


def guessed_ids(port: int, folder: str) -> str:
    """A peer that knows the secret, and none of the channels."""
    sock, _, _ = shaken(port, RIGHT)
    codec = Codec(lambda one: (b"", b"", 0, None, (), 3), lambda d: None)  # type: ignore[arg-type, return-value]
    session = Session(os.urandom(16), codec)
    protocol = Protocol(Hello(os.urandom(16), name="guesser", session=session.session_id), codec, session)
    sock.sendall(protocol.opening())
    frames: list[tuple[object, ...]] = []
    while protocol.peer is None:
        frames += protocol.receive(sock.recv(65536))
    guesses = [(wire.SEND, os.urandom(16), "gift") for _ in range(50)]
    guesses += [(wire.CLOSE, os.urandom(16)) for _ in range(50)]
    sock.sendall(session.envelope([session.pack(guess) for guess in guesses]))
    rejected = 0
    while rejected < 50:
        rejected += sum(frame[0] == wire.REJECT for frame in protocol.receive(sock.recv(65536)))
    sock.close()
    return "rejected"


def expired(port: int, folder: str) -> str:
    """TLS with a certificate that was good once."""
    context = waiting.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(f"{folder}/ca.pem")
    context.load_cert_chain(f"{folder}/expired.pem", f"{folder}/expired.key")
    sock = connected(port)
    exactly(sock, BANNER.size)
    with context.wrap_socket(sock, server_hostname="127.0.0.1") as over_tls:
        try:
            return (
                "accepted" if over_tls.recv(HEADER.size) == HEADER.pack(CHALLENGE, NONCE_BYTES) else "closed"
            )
        except ssl.SSLError as error:
            return str(error.reason)


KINDS: dict[str, Callable[[int, str], str]] = {
    "silent": silent,
    "slow": slow,
    "garbage": garbage,
    "wrong secret": wrong_secret,
    "replay": replay,
    "guessed ids": guessed_ids,
    "expired": expired,
}


def attack(kind: str, port: int, folder: str) -> None:
    try:
        outcomes[KINDS[kind](port, folder)] += 1
    except (OSError, EOFError, RemoteProtocolError) as error:
        outcomes[type(error).__name__] += 1


def main() -> None:
    kind, port, count, folder = sys.argv[1:]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    pool = Pool(AT_ONCE)
    for _ in range(int(count)):
        pool.spawn(attack, kind, int(port), folder)
    pool.join()
    print(dict(outcomes))


if __name__ == "__main__":
    main()
