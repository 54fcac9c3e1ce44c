"""Signals to jobs: what they are answered, and what each of the ready-made ones does."""

from __future__ import annotations

import os
from collections.abc import Iterator

import gevent
import pytest

from cluster import (
    Cancel,
    Client,
    Finalize,
    Finish,
    InvalidArguments,
    JobNotFound,
    JobStateError,
    Pause,
    Reply,
    Signal,
    Suspend,
    Terminate,
)
from cluster.records import JobState, NewJob
from cluster.testing import FAST, wait_for
from tests.cluster import works


@pytest.fixture
def inline() -> Iterator[Client]:
    with Client("memory:", workers=3, settings=FAST) as client:
        yield client


# ------------------------------------------------------------------------------------------------ in one process


def test_a_signal_is_answered_by_its_handler(inline: Client) -> None:
    handle = inline.start(works.Account, name="main")
    assert handle.signal(works.AddFunds(5), timeout=5) == Reply(
        5,
        signal_id=inline.signal("main", works.AddFunds(0), timeout=5, id="s").signal_id,
        job=handle.record(),
    ) or handle.data == {"balance": 5, "names": (), "starts": 1}
    by_name = inline.signal("MAIN", Signal("AddFunds", {"amount": 2}), timeout=5)  # as JSON brings it
    assert (by_name.status, by_name.value) == ("ok", 7)
    assert handle.signal(works.Ask("reply"), timeout=5).value == {"free": "form"}
    assert handle.signal(works.Ask("sender"), timeout=5).value.count("@") == 2


def test_every_other_answer_has_its_word(inline: Client) -> None:
    handle = inline.start(works.Account)
    assert handle.signal(works.Unheard(), timeout=5).status == "unknown"
    assert handle.signal(Signal("nonsense", 5), timeout=5).status == "unknown"
    assert inline.signal("nobody", works.Unheard()).status == "not_found"
    for gone in (Terminate(), Pause(), Finalize(), Cancel()):
        assert inline.signal("nobody", gone).status == "not_found"
    handle.cancel(timeout=5)
    for late in (works.AddFunds(1), Cancel(), Finish(), Terminate(), Pause()):
        reply = handle.signal(late)
        assert reply.status == "ended"
        assert reply.job is not None
        assert reply.job.state == "cancelled"


def test_a_handler_that_fails_answers_so_and_changes_nothing(inline: Client) -> None:
    handle = inline.start(works.Account)
    assert handle.signal(works.AddFunds(3), timeout=5).value == 3
    reply = handle.signal(works.AddFunds(-1), timeout=5)
    assert (reply.status, reply.value) == ("failed", None)
    assert reply.error is not None
    assert (reply.error["kind"], reply.error["message"]) == ("ValueError", "no negative amount: -1")
    assert reply.error["traceback"].splitlines()[1].endswith("in on_signal_AddFunds")
    for ask, kind, message in [
        ("large", "Fatal", "and 1048576 are allowed"),
        ("object", "NotSendable", "object"),
    ]:
        failed = handle.signal(works.Ask(ask), timeout=5)
        assert failed.status == "failed"
        assert failed.error is not None
        assert failed.error["kind"] == kind
        assert message in failed.error["message"]
    assert handle.signal(works.AddFunds(1), timeout=5).value == 4
    assert (handle.data["balance"], handle.record().total, handle.state) == (4, 0, "running")
    assert "large" not in handle.data


def test_a_signal_id_is_taken_once(inline: Client) -> None:
    handle = inline.start(works.Account)
    replies = [handle.signal(works.AddFunds(5), timeout=5, id="the-one").value for _ in range(5)]
    assert replies == [5] * 5
    assert handle.data["balance"] == 5
    late = inline.reply(handle.job_id, "the-one")
    assert late is not None
    assert late.value == 5


def test_a_late_reply_is_read_by_its_id() -> None:
    url = f"memory:{os.urandom(4).hex()}"
    with Client(url) as client:
        handle = client.start(works.Account)
        reply = handle.signal(works.AddFunds(5), timeout=0.05)
        assert (reply.status, client.reply(handle.job_id, reply.signal_id)) == ("timeout", None)
        with Client(url, workers=1, settings=FAST):
            late = wait_for(lambda: client.reply(handle.job_id, reply.signal_id), sleep=gevent.sleep)
        assert (late.status, late.value) == ("ok", 5)


def test_cancel_lets_the_job_clean_up_and_cannot_be_refused(inline: Client) -> None:  # A-31, X5.1
    for reason, status, message in [("", "ok", ""), ("raise", "failed", "I will not")]:
        handle = inline.start(works.Account)
        task = inline.with_options(job_id=handle.job_id, delay=60).submit(works.check, 1)
        reply = handle.cancel(reason, timeout=5)
        assert (reply.status, handle.state, task.state) == (status, "cancelled", "cancelled")
        assert (reply.error or {"message": ""})["message"] == message
        assert handle.data.get("cleaned") == (None if reason else True)


def test_finish_ends_normally_with_a_text(inline: Client) -> None:
    handle = inline.start(works.Account)
    handle.signal(works.AddFunds(5), timeout=5)
    early = handle.signal(Finish("not yet"), timeout=5)
    assert (early.status, handle.state) == ("failed", "running")
    assert handle.signal(Finish("month end"), timeout=5).value == "goodbye"
    record = handle.record()
    assert (record.state, record.reason.split(",")[0], handle.result(1)) == ("finished", "month end", 5)


def test_finalize_forgets_all_of_it(inline: Client) -> None:
    handle = inline.start(works.Audit, {"shards": 5}, name="gone")
    handle.wait(10)
    assert handle.signal(Finalize()).status == "ok"
    with pytest.raises(JobNotFound):
        handle.record()
    with pytest.raises(JobNotFound):
        inline.job("gone")
    assert inline.store.tasks(job_id=handle.job_id) == []
    assert inline.signal(handle.job_id, works.AddFunds(1)).status == "not_found"
    living = inline.start(works.Account)
    living.signal(Finalize())
    assert inline.jobs() == []


def test_what_is_no_signal_is_refused(inline: Client) -> None:
    handle = inline.start(works.Account)
    for wrong, message in [
        (5, "5 is no signal; send an instance of a @message class"),
        (Signal("", 5), "needs a name"),
        (Signal("x", object()), "cannot travel"),
        (Signal("x", "y" * (2 << 20)), "are allowed"),
    ]:
        with pytest.raises(InvalidArguments, match=message):
            handle.signal(wrong)
    handle.signal(Suspend())
    with pytest.raises(JobStateError, match="is suspended"):
        inline.store.change_job(handle.job_id, JobState.FINISHED)


def test_a_job_without_a_class_obeys_and_answers_nothing(inline: Client) -> None:
    for signal, state, reason in [(Cancel("too dear"), "cancelled", "too dear"), (Finish(), "finished", "")]:
        handle = inline.start_job(NewJob())
        assert handle.signal(works.AddFunds(5)).status == "unknown"
        assert (handle.signal(signal).status, handle.state) == ("ok", state)
        assert handle.record().reason == reason
