"""Failures that cross the wire: known names become their classes again, all others a RemoteError."""

from typing import Any

import pytest

from net._codec import Codec
from net._failures import OWN_ERRORS, error_of, rebuild_exception
from net._wire import RAISE, check_frame
from net.errors import NameNotFound, NotImportable, PeerLost
from tasklets import ChannelClosed, RemoteError

CODEC = Codec(None, None)  # type: ignore[arg-type]  # no channels here


def across(exc: BaseException) -> Exception:
    """Raise it, send it, and make it an exception again."""
    try:
        raise exc
    except BaseException as caught:
        [frame] = CODEC.decode(CODEC.encode((RAISE, 1, error_of(caught))))
    return rebuild_exception(*frame[2])


class Own(Exception):
    pass


@pytest.mark.parametrize(
    "exc",
    [
        KeyError("x"),
        ZeroDivisionError("by zero"),
        FileNotFoundError(2, "none", "a.txt"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
        ChannelClosed("channel 'orders' is closed"),
        NameNotFound("nobody"),
        NotImportable("nowhere"),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_a_known_class_arrives_as_itself_with_the_traceback_as_a_note(exc: Exception) -> None:
    arrived = across(exc)
    assert type(arrived) is type(exc)
    assert str(arrived) == str(exc)
    assert "test_failures.py" in arrived.__notes__[0]


def test_a_lost_peer_keeps_its_outcome() -> None:
    arrived = across(PeerLost("gone", outcome="not taken"))
    assert isinstance(arrived, PeerLost)
    assert arrived.outcome == "not taken"


@pytest.mark.parametrize("exc", [Own("text"), KeyboardInterrupt("text"), SystemExit("text")], ids=repr)
def test_any_other_class_arrives_as_a_remote_error(exc: BaseException) -> None:
    arrived = across(exc)
    assert isinstance(arrived, RemoteError)
    assert (arrived.kind, arrived.message) == (type(exc).__name__, "text")
    assert "test_failures.py" in arrived.traceback_text


def test_arguments_that_cannot_travel_do_not_hide_the_failure() -> None:
    arrived = across(ValueError(print))
    assert type(arrived) is ValueError
    assert "print" in str(arrived)


def test_an_enormous_text_and_name_still_fit_the_frame() -> None:
    enormous = type("E" * 5000, (Exception,), {})
    error: Any = error_of(enormous("x" * 10**7))
    check_frame((RAISE, 1, error))
    assert len(error[1]) < 30_000


def test_every_own_error_is_made_from_its_message() -> None:
    for kind, cls in OWN_ERRORS.items():
        assert type(rebuild_exception(kind, "text")) is cls


@pytest.mark.parametrize("extra", [None, (1, 2, 3), "text", 7], ids=repr)
def test_any_error_field_becomes_an_exception(extra: Any) -> None:
    for kind in ("UnicodeDecodeError", "ExceptionGroup", "ValueError", "PeerLost", "os.system", ""):
        assert isinstance(rebuild_exception(kind, "text", "trace", extra), Exception)
