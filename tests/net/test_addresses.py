"""Addresses and places as people write them."""

import pytest

from net.addresses import (
    MAX_PROCESSES,
    Address,
    PlaceSpec,
    TcpAddress,
    UnixAddress,
    parse_address,
    parse_place,
    parse_url,
)
from net.errors import BadAddress, NetError

ADDRESSES: dict[str, Address] = {
    "tcp://127.0.0.1:7000": TcpAddress("127.0.0.1", 7000),
    "127.0.0.1:7000": TcpAddress("127.0.0.1", 7000),
    "localhost:0": TcpAddress("localhost", 0),
    "bank.example:65535": TcpAddress("bank.example", 65535),
    "tcp://[::1]:7000": TcpAddress("::1", 7000),
    "[fe80::1]:1": TcpAddress("fe80::1", 1),
    "unix:///tmp/bank.sock": UnixAddress("/tmp/bank.sock"),
    "unix:///tmp/with blank:7": UnixAddress("/tmp/with blank:7"),
}

BAD_ADDRESSES = {
    "": "is no address",
    "bank": "is no address",
    "7000": "is no address",
    ":7000": "is no address",
    "tcp://:7000": "is no address",
    "tcp://": "is no address",
    "127.0.0.1:": "'' is no port",
    "127.0.0.1:http": "'http' is no port",
    "127.0.0.1:-1": "'-1' is no port",
    "127.0.0.1:65536": "'65536' is no port",
    "127.0.0.1:٣": "'٣' is no port",  # a digit elsewhere
    "127.0.0.1:7000/bank": "is no address",
    " 127.0.0.1:7000": "is no address",
    "two words:7000": "is no address",
    "[::1:7000": "is no address",
    "::1]:7000": "is no address",
    "[]:7000": "is no address",
    "http://bank:80": "the scheme 'http' is unknown",
    "://bank:80": "the scheme '' is unknown",
    "unix://bank.sock": "the path of a Unix socket is absolute",
    "unix://": "the path of a Unix socket is absolute",
    "unix:///tmp/a\0b": "is no address",
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_is_read(text: str) -> None:
    assert parse_address(text) == ADDRESSES[text]


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert parse_address(str(ADDRESSES[text])) == ADDRESSES[text]


@pytest.mark.parametrize("text", BAD_ADDRESSES)
def test_a_bad_address_is_refused_with_the_syntax(text: str) -> None:
    with pytest.raises(BadAddress) as caught:
        parse_address(text)
    assert BAD_ADDRESSES[text] in str(caught.value)
    assert repr(text) in str(caught.value)
    assert "tcp://HOST:PORT" in str(caught.value)
    assert isinstance(caught.value, NetError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_is_recognised(host: str) -> None:
    assert TcpAddress(host, 1).is_loopback
    assert UnixAddress("/tmp/x").is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "bank.example", "127.0.0.1.example"])
def test_what_other_machines_may_reach_is_not_loopback(host: str) -> None:
    assert not TcpAddress(host, 1).is_loopback


def test_a_url_is_an_address_and_a_name() -> None:
    assert parse_url("tcp://127.0.0.1:7000/bank") == (TcpAddress("127.0.0.1", 7000), "bank")
    assert parse_url("127.0.0.1:7000/bank") == (TcpAddress("127.0.0.1", 7000), "bank")
    assert parse_url("unix:///tmp/bank.sock/bank") == (UnixAddress("/tmp/bank.sock"), "bank")


@pytest.mark.parametrize(
    "text",
    ["", "bank", "tcp://127.0.0.1:7000", "tcp://127.0.0.1:7000/", "tcp://127.0.0.1:7000//bank", "/bank"],
)
def test_a_url_without_a_name_or_an_address_is_refused(text: str) -> None:
    with pytest.raises(BadAddress):
        parse_url(text)


PLACES = {
    "here": PlaceSpec("here"),
    "processes:1": PlaceSpec("processes:1", processes=1),
    f"processes:{MAX_PROCESSES}": PlaceSpec(f"processes:{MAX_PROCESSES}", processes=MAX_PROCESSES),
    "hosts:a:1,b:2": PlaceSpec("hosts:a:1,b:2", hosts=(TcpAddress("a", 1), TcpAddress("b", 2))),
    "hosts:a:1, unix:///b": PlaceSpec("hosts:a:1, unix:///b", hosts=(TcpAddress("a", 1), UnixAddress("/b"))),
}

BAD_PLACES = {
    "": "is no place",
    "there": "is no place",
    "Here": "is no place",
    "here:1": "is no place",
    "processes": "is no place",
    "hosts": "is no place",
    "threads:4": "is no place",
    "processes:": "the number of processes is 1 to",
    "processes:0": "the number of processes is 1 to",
    "processes:-1": "the number of processes is 1 to",
    "processes:two": "the number of processes is 1 to",
    "processes:1.5": "the number of processes is 1 to",
    f"processes:{MAX_PROCESSES + 1}": "the number of processes is 1 to",
    "hosts:": "lists no address",
    "hosts:a:1,,b:2": "lists no address",
    "hosts:a": "is no address",
    "hosts:a:1,b:x": "'x' is no port",
}


@pytest.mark.parametrize("text", PLACES)
def test_a_place_is_read(text: str) -> None:
    assert parse_place(text) == PLACES[text]


@pytest.mark.parametrize("text", BAD_PLACES)
def test_a_bad_place_is_refused(text: str) -> None:
    with pytest.raises(BadAddress, match=BAD_PLACES[text]):
        parse_place(text)


def test_an_unknown_place_is_answered_with_the_three_kinds() -> None:
    with pytest.raises(BadAddress) as caught:
        parse_place("cloud")
    for kind in ('"here"', '"processes:4"', '"hosts:alpha:7000,beta:7000"'):
        assert kind in str(caught.value)
