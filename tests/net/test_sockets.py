"""What is set on the sockets of connections."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from net import _sockets
from net._sockets import LOCAL_SEND_BYTES, UNSENT_BYTES


@contextmanager
def connected(host: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server((host, 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
        with one, other:
            yield one, other


class Far(socket.socket):
    """A socket whose other end says that it is at another machine."""

    def getpeername(self) -> tuple[str, int]:
        return "192.0.2.1", 7000


def option(sock: socket.socket, level: int, name: int) -> int:
    return sock.getsockopt(level, name)


def test_to_this_machine_the_kernel_takes_no_more_than_the_caches_hold() -> None:
    with connected("127.0.0.1") as (one, other):
        for each in (one, other):
            _sockets._tune(each)
            # Linux keeps its own books in it, too, and says the sum.
            assert (
                LOCAL_SEND_BYTES <= option(each, socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * LOCAL_SEND_BYTES
            )
            assert option(each, socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="this system has no such option")
def test_to_another_machine_only_what_has_not_left_is_limited() -> None:
    with connected("127.0.0.1") as (one, _):
        before = option(one, socket.SOL_SOCKET, socket.SO_SNDBUF)
        with Far(fileno=one.detach()) as far:
            _sockets._tune(far)
            assert option(far, socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_BYTES
            assert (
                option(far, socket.SOL_SOCKET, socket.SO_SNDBUF) == before
            )  # grows with the way, as the kernel sees fit


def test_a_connection_that_has_ended_is_no_fault_here() -> None:
    with socket.socket() as never:
        _sockets._tune(never)


@pytest.mark.skipif(not hasattr(socket, "TCP_CONGESTION"), reason="only Linux lets a socket choose")
def test_to_this_machine_nothing_is_spaced_out_in_time() -> None:
    with connected("127.0.0.1") as (one, other):
        for each in (one, other):
            _sockets._tune(each)
            chosen = each.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
            assert chosen.rstrip(b"\0") == b"reno"
