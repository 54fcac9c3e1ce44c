"""The search in a store: what was searched is kept, whoever is killed (PRI-03, PRI-10)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import Client
from cluster.testing import FAST, Nodes, all_events, check_journal, environ_of, wait_for
from examples.primes.arithmetic import primes_in
from examples.primes.durable import MODULE, find_durably
from net import open_place
from tests.examples.primes.programs import Program
from tests.net import peers

pytestmark = pytest.mark.real

HI = 400_000


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in environ_of(FAST).items():
        monkeypatch.setenv(name, value)  # what died is missed within a second
    return f"sqlite:///{tmp_path}/primes.db"


@pytest.fixture(params=["processes", "hosts"])
def place(request: pytest.FixtureRequest, store: str) -> Iterator[str]:
    """Where the workers are: the master's children, or at nodes that outlive it."""
    if request.param == "processes":
        yield "processes:2"
        return
    with peers.node() as (_, one), peers.node() as (_, other):
        yield f"hosts:{one},{other}"


def test_pri10_a_new_master_goes_on_and_searches_no_chunk_again(
    store: str, start: type[Program], place: str
) -> None:
    # Nodes need a second or two to notice: at full size there is work left for the new master then.
    hi = 3_000_000 if os.environ.get("TASKLETS_FULL") == "1" else HI
    arguments = ("1", str(hi), "--on", place, "--store", store, "--chunk", str(hi // 50), "--list", "-")
    first = start(*arguments)
    with Client(store) as client:
        wait_for(lambda: any(job.done >= 10 for job in client.jobs()), 60, "ten of fifty chunks")
        first.process.kill()
        first.finish()
        left = first.relatives if place == "processes:2" else client.members
        wait_for(lambda: not left(), 20, "its workers end with it")
        (job,) = client.jobs()
        assert 10 <= job.done <= job.total == 50
        marker = all_events(client.store)[-1].seq

        code, out, err = start(*arguments).finish(120)

        assert (code, out.split()) == (0, [str(prime) for prime in primes_in(1, hi)])
        assert f"note: {job.done} of 50 chunks were searched before" in err
        events = all_events(client.store)
        done_before = {event.subject for event in events if event.kind == "done" and event.seq <= marker}
        again = {event.subject for event in events if event.kind == "assign" and event.seq > marker}
        assert len(done_before) == job.done
        assert len(again) == 50 - job.done, "what was searched is not searched again"
        assert not done_before & again
        check_journal(events, task_ids=[task.task_id for task in client.store.tasks(job_id=job.job_id)])


def test_pri10_when_all_is_searched_the_answer_comes_without_workers(
    store: str, start: type[Program]
) -> None:
    arguments = ("1", "50000", "--store", store, "--count", "--on")
    assert start(*arguments, "here").finish(60)[:2] == (0, "5133\n")
    assert start(*arguments, "nobody").finish(60)[:2] == (0, "5133\n")


def test_pri03_the_store_gives_the_sequential_list_in_order_or_not(store: str) -> None:
    with open_place("processes:2") as place:
        ordered = list(find_durably(store, place, 1, 100_000, chunk=9_000))
        anyhow = list(find_durably(store, place, 0, 100_000, chunk=9_000, ordered=False))

    assert [prime for answer in ordered for prime in answer.primes] == list(primes_in(1, 100_000))
    assert sorted(prime for answer in anyhow for prime in answer.primes) == list(primes_in(0, 100_000))
    assert {answer.attempt for answer in ordered} == {1}


def test_pri06_a_worker_that_is_killed_costs_no_prime(store: str, start: type[Program]) -> None:
    with Nodes(store, imports=[MODULE], settings=FAST) as nodes, Client(store) as client:
        search = start("1", str(HI), "--on", "nobody", "--store", store, "--chunk", "8000", "--count")
        nodes.coordinator()
        unlucky, _ = nodes.worker("--no-heal", slots=1), nodes.worker("--no-heal", slots=1)
        wait_for(lambda: any(job.done >= 5 for job in client.jobs()), 60, "five chunks")
        unlucky.kill()

        code, out, err = search.finish(120)

        assert (code, out) == (0, f"{len(primes_in(1, HI))}\n")
        assert f"note: waiting for workers: tasklets cluster worker --store {store} --import {MODULE}" in err


def test_pri06_when_every_worker_is_lost_the_search_says_what_is_kept(
    store: str, start: type[Program]
) -> None:
    search = start("1", "100000000", "--on", "processes:1", "--store", store, "--chunk", "8000")
    with Client(store) as client:
        wait_for(lambda: any(job.done >= 1 for job in client.jobs()), 60, "a chunk")
        (worker,) = [member for member in client.members() if member.role == "worker"]
    os.kill(worker.pid, signal.SIGKILL)

    code, _, err = search.finish(60)

    assert code == 1
    assert err.splitlines()[-1] == (
        "error: every worker was lost; what was searched is kept, so start the search again"
    )


def test_pri09_ctrl_c_ends_everything_and_keeps_what_was_searched(store: str, start: type[Program]) -> None:
    search = start("1", "100000000", "--on", "processes:1", "--store", store, "--chunk", "8000")
    with Client(store) as client:
        wait_for(lambda: any(job.done >= 1 for job in client.jobs()), 60, "a chunk")
        os.killpg(search.process.pid, signal.SIGINT)

        assert search.finish(20) == (130, "", "")
        wait_for(lambda: search.relatives() == [], 10, "its worker ends")
        (job,) = client.jobs()
        assert job.done >= 1
        assert not job.ended


@pytest.mark.parametrize("option", [("--listen", "tcp://127.0.0.1:0"), ("--check", "1"), ("--window", "3")])
def test_what_a_store_has_no_use_for_is_refused(start: type[Program], option: tuple[str, str]) -> None:
    code, _, err = start("1", "10", "--store", "memory:", *option).finish()

    assert code == 2
    assert "are for a search without --store; leave them out" in err


def test_an_empty_range_needs_no_store(start: type[Program]) -> None:
    assert start("7", "7", "--store", "sqlite:////no/such/folder/x.db", "--count").finish()[:2] == (0, "0\n")
