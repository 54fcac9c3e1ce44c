"""Directives on a store, with workers in this process: what needs no kill. The rest is in test_kills.py."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from hypothesis import given, settings, strategies as st

from cluster import (
    Client,
    ClusterError,
    InvalidArguments,
    JobCancelled,
    JobTimeout,
    OperationError,
    ResultTimeout,
    TaskNotFound,
)
from cluster.directives import IndexedStream, Literal, Skipped
from cluster.records import NewTask
from cluster.testing import FAST, all_events, check_journal, wait_for
from tasklets import ChannelClosed
from tests.cluster.conftest import lines
from tests.cluster.directives import ops
from tests.cluster.directives.test_places import Laws, stream_of
from tests.machine import here


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """P-31: the same programs, in one process; all that are here take less than 10 s by the clock."""
    began = time.monotonic()
    with Client("memory:", workers=3, settings=FAST) as made:
        yield made
    assert time.monotonic() - began < here(10.0)


@pytest.fixture
def idle() -> Iterator[Client]:
    """A group that nobody works for."""
    with Client("memory:", settings=FAST) as made:
        yield made


class TestInAStore(Laws):
    @pytest.fixture
    def where(self, client: Client) -> Client:
        return client


def job_ids(client: Client) -> set[str]:
    return {job.job_id for job in client.jobs(limit=10_000)}


# ------------------------------------------------------------------------------------------------ laziness and rows


def test_nothing_is_stored_before_it_is_run(client: Client, journal: Path) -> None:
    """P-05."""
    before = job_ids(client)
    stream = IndexedStream([1, 2, 3]).map(ops.noted)
    assert job_ids(client) == before
    results = stream.run(client)
    assert len(job_ids(client) - before) == 1
    assert len(client.store.tasks(job_id=results.job_id)) == 3
    assert results.values_sorted() == [1, 2, 3]
    assert len(lines(journal, "noted")) == 3


def test_a_task_of_a_directive_is_a_task_like_any_other(idle: Client) -> None:
    """P-06: it has a job, its operation's name and opaque meta, and nothing that leads to the directive."""
    handle = IndexedStream([1]).map(ops.double).start(idle)
    submitted = idle.submit(ops.double, 1).record()
    (mapped,) = idle.store.tasks(job_id=handle.job_id)
    assert mapped.op == submitted.op == ops.double.name
    assert (mapped.queue, mapped.priority, mapped.state) == (
        submitted.queue,
        submitted.priority,
        submitted.state,
    )
    assert (mapped.job_id, submitted.job_id) == (handle.job_id, "")


def test_directives_at_once_get_only_their_own_results(client: Client, full_size: bool) -> None:
    """P-07."""
    for _ in range(20 if full_size else 3):
        running = [
            gevent.spawn(stream_of(40).map(op, chunk=3).run(client).values_sorted)
            for op in (ops.double, ops.MultiplyBy(10), ops.fib)
        ]
        doubled, multiplied, fibs = (one.get(timeout=30) for one in running)
        assert doubled == [2 * x for x in range(40)]
        assert multiplied == [10 * x for x in range(40)]
        assert fibs == [ops.fib(x) for x in range(40)]


# ------------------------------------------------------------------------------------------------ results


@settings(max_examples=15)
@given(
    st.lists(st.text("abc", max_size=2), max_size=30),
    st.integers(2, 5),
    st.integers(1, 4) | st.none(),
    st.booleans(),
)
def test_fold_equals_the_loop(
    client: Client, words: list[str], fan_in: int, chunk: int | None, lazy: bool
) -> None:
    """P-13, P3.1, P3.2."""
    stream = IndexedStream(iter(words) if lazy else words).flat_map(ops.letters, chunk=chunk)
    assert stream.fold(ops.Concat(), fan_in=fan_in).run(client, timeout=30) == "".join(words)


def test_values_in_the_order_of_completion(client: Client) -> None:
    """P-11."""
    naps = IndexedStream([0.3, 0.0, 0.0]).map(ops.gentle_nap, chunk=1)
    indices = [index for index, _ in naps.run(client)]
    assert (sorted(indices), indices[-1]) == ([0, 1, 2], 0)


def test_folding_is_under_way_before_the_last_map_result(client: Client, journal: Path) -> None:
    """P-14: no barrier between the stages."""
    numbers = [0.5] + [0.0] * 30
    texts = IndexedStream(numbers).map(ops.gentle_nap, chunk=1).map(ops.text).fold(ops.Concat(), fan_in=2)
    assert texts.run(client) == "".join(map(str, numbers))
    combined = [float(row[0]) for row in lines(journal, "combine")]
    slowest = next(float(row[0]) for row in lines(journal, "woke") if row[3] == "0.5")
    assert combined[0] < slowest


# ------------------------------------------------------------------------------------------------ bounds


def test_results_flow_while_the_generator_waits(client: Client) -> None:
    """P-12: the generator waits for the result of what it gave before."""
    first = gevent.event.Event()

    def inputs() -> Iterator[int]:
        yield 1
        assert first.wait(20), "the first result was not delivered"
        yield 2

    results = IndexedStream(inputs()).map(ops.double).run(client, timeout=30)
    assert next(results) == (0, 2)
    first.set()
    assert list(results) == [(1, 4)]


def test_results_that_were_taken_do_not_fill_the_store(client: Client) -> None:
    with IndexedStream(itertools.count()).map(ops.double).run(client) as results:
        list(itertools.islice(results, 300))
        assert sum(row.count for row in client.store.results(results.job_id)) < 250
    assert client.job(results.job_id).state == "terminated"


# ------------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize("chunk", [1, 250])
def test_a_fatal_error_ends_this_job_and_no_other(client: Client, journal: Path, chunk: int | None) -> None:
    """P-22, P-27, P3.7."""
    other = gevent.spawn(stream_of(200).map(ops.double, chunk=1).run(client).values_sorted)
    results = stream_of(1000).map(ops.fatal_at_10, chunk=chunk).run(client)
    with pytest.raises(OperationError, match="ten is too many") as raised:
        results.values_sorted()
    assert raised.value.kind == "Fatal"
    assert "fatal_at_10" in raised.value.traceback_text
    record = client.job(results.job_id)
    assert record.state == "failed"
    assert settled(journal, "executed") < 1000
    assert client.store.submit([NewTask(ops.double.name, b"", job_id=results.job_id)]) == ["ended"]  # P3.4
    assert other.get(timeout=30) == [2 * x for x in range(200)]


def settled(journal: Path, word: str) -> int:
    """How many lines of a kind there are when no more come: what ran has heard of the end, and stopped."""
    seen = [0]

    def quiet() -> bool:
        gevent.sleep(0.1)
        seen.append(len(lines(journal, word)))
        return seen[-1] == seen[-2]

    wait_for(quiet, sleep=gevent.sleep)
    return seen[-1]


def test_what_fails_alone_is_a_dead_letter(client: Client) -> None:
    """P-23."""
    results = stream_of(4).map(ops.picky, chunk=1).run(client, on_error="skip")
    assert results.values_sorted() == [0, 1, 2]
    (dead,) = (task for task in client.dead() if task.job_id == results.job_id)
    assert dead.index == 3


def test_an_operation_that_may_be_ignored_is_reported_and_not_forgotten(client: Client) -> None:
    """P-23: with on_failure="ignore" nothing hangs and nothing ends; values_sorted() raises unless told otherwise."""
    stream = stream_of(5).map(ops.ignorable, chunk=1)
    assert isinstance(dict(stream.run(client))[3], Skipped)
    with pytest.raises(ValueError, match="not 3"):
        stream.run(client).values_sorted()
    assert stream.run(client, on_error="skip").values_sorted() == [0, 1, 2, 4]
    assert stream.fold(ops.Sum()).run(client) == 7


@pytest.mark.parametrize("chunk", [1, 4])
def test_an_operation_is_tried_again_as_its_policy_says(client: Client, journal: Path, chunk: int) -> None:
    """P-19: three executions of each, with the number of the attempt."""
    assert stream_of(4).map(ops.flaky, chunk=chunk).run(client).values_sorted() == [0, 1, 2, 3]
    assert sorted(row[3:] for row in lines(journal, "flaky")) == [
        [str(x), str(attempt)] for x in range(4) for attempt in (1, 2, 3)
    ]


def test_a_poisoned_chunk_is_a_dead_letter_and_fails_its_job(client: Client) -> None:
    """P3.5: bytes that cannot be read stall nobody."""
    from dataclasses import replace

    from cluster.directives.durable import Handle
    from cluster.records import NewJob, Notify

    job = NewJob(notify=Notify.NEVER, closed=True, fail_fast=True)
    task = NewTask(ops.double.name, b"\xc1\x04nope", job_id=job.job_id, index=0, weight=5, meta=b"raw")
    client.store.start(job, [task, replace(task, task_id=job.job_id[::-1], args=b"\xff\xff", index=5)])
    handle = Handle(client, job.job_id)
    wait_for(lambda: handle.record().ended, sleep=gevent.sleep)
    assert handle.state == "failed"
    assert {dead.args for dead in client.dead() if dead.job_id == job.job_id} <= {task.args, b"\xff\xff"}
    assert stream_of(3).map(ops.double).run(client).values_sorted() == [0, 2, 4]


def test_inputs_that_cannot_travel_or_are_too_large_store_nothing(client: Client) -> None:
    before = job_ids(client)
    with pytest.raises(InvalidArguments, match="cannot travel"):
        IndexedStream([1, object()]).map(ops.double).run(client)
    with pytest.raises(InvalidArguments, match="input 1 has"):
        IndexedStream(["", "x" * (2 << 20)]).map(ops.letters).run(client)
    assert job_ids(client) == before


def test_large_results_are_recorded_before_there_are_too_many(client: Client) -> None:
    """P2: 100 MB of one chunk, where one message has 64."""
    lengths = [
        len(text) for _, text in IndexedStream([500_000] * 200).map(ops.long_text, chunk=200).run(client)
    ]
    assert lengths == [500_000] * 200


def test_chunks_are_cut_by_their_bytes_too(client: Client) -> None:
    texts = [chr(97 + number % 26) * 200_000 for number in range(40)]
    assert IndexedStream(texts).map(ops.length, chunk=20).run(client).values_sorted() == [200_000] * 40
    assert [
        len(text)
        for text in IndexedStream([200_000] * 12).map(ops.long_text, chunk=12).run(client).values_sorted()
    ] == [200_000] * 12


# ------------------------------------------------------------------------------------------------ ends


def test_timeout_terminates_the_job(client: Client, journal: Path) -> None:
    """P-28, P3.4: nothing of it runs afterwards."""
    directives = (
        IndexedStream([0.05] * 500).map(ops.gentle_nap, chunk=1),
        IndexedStream([0.05] * 500).map(ops.gentle_nap, chunk=1).fold(ops.Sum()),
    )
    for directive in directives:
        before = job_ids(client)
        with pytest.raises(JobTimeout, match="within 0"):
            list(client.run(directive, timeout=0.2))
        (job_id,) = job_ids(client) - before
        assert client.job(job_id).state == "terminated"
        assert settled(journal, "nap") < 500


@pytest.mark.parametrize("kind", [KeyboardInterrupt, gevent.GreenletExit])
def test_interrupting_it_cancels_the_job(client: Client, kind: type[BaseException]) -> None:
    """P3.9: in the consumer, while it waits for a result, and while it waits for a fold."""
    naps = IndexedStream([0.05] * 400).map(ops.gentle_nap, chunk=1)

    def in_the_loop() -> None:
        for _ in naps.run(client):
            raise kind

    def while_it_waits() -> None:
        naps.run(client).values_sorted()

    def while_it_folds() -> None:
        naps.fold(ops.Sum()).run(client)

    for consumer in (in_the_loop, while_it_waits, while_it_folds):
        before = job_ids(client)
        greenlet = gevent.spawn(caught, consumer, kind)
        gevent.sleep(0.1)
        greenlet.kill(kind, block=False)
        greenlet.join(10)
        gc.collect()
        (job_id,) = job_ids(client) - before
        assert wait_for(lambda: client.job(job_id).ended, sleep=gevent.sleep)  # noqa: B023
        assert client.job(job_id).state == "terminated"


def caught(function: Any, kind: type[BaseException]) -> None:
    try:
        function()
    except kind:
        pass


def test_started_directives_outlive_their_handles(client: Client) -> None:
    """P-37 without a kill, X5.6: start() is detached, attach() gives the same as often as it is asked."""
    mapped = client.start(stream_of(100).map(ops.double)).job_id
    folded = client.start(IndexedStream(range(1, 11)).map(ops.fib).fold(ops.Sum())).job_id
    literal = client.start(Literal(5).map(ops.double)).job_id
    for _ in range(2):
        assert client.attach(mapped).result(30) == [2 * x for x in range(100)]
        assert client.attach(folded).result(30) == 143
        assert client.attach(literal).result(30) == 10
    assert dict(client.attach(mapped).stream()) == {x: 2 * x for x in range(100)}
    with pytest.raises(ClusterError, match="one result"):
        client.attach(folded).stream()
    with pytest.raises(TaskNotFound):
        client.attach("nothing")
    assert client.attach(client.submit(ops.double, 4).task_id).result(30) == 8


def test_a_reader_that_resumes_gets_what_was_not_acknowledged(client: Client) -> None:
    """P-10."""
    handle = client.start(stream_of(60).map(ops.double, chunk=1))
    handle.wait(30)
    with handle.stream() as results:
        for _ in range(5):
            last = next(results)
    again = list(client.attach(handle.job_id).stream(resume=True))
    assert last in again
    assert len(again) < 60 + 1
    assert client.attach(handle.job_id).result(30) == [2 * x for x in range(60)]


def test_waiting_is_bounded(idle: Client) -> None:
    handle = idle.start(stream_of(3).map(ops.double))
    with pytest.raises(ResultTimeout):
        handle.result(0.1)
    handle.terminate()
    with pytest.raises(JobCancelled):
        handle.result(5)


def test_starting_the_same_id_again_attaches(client: Client) -> None:
    first = client.start(stream_of(5).map(ops.double), id="the-same")
    second = client.start(stream_of(9).map(ops.double), id="the-same")
    assert first.result(30) == second.result(30) == [0, 2, 4, 6, 8]


def test_inputs_are_stored_before_the_first_result_counts(idle: Client) -> None:
    """P3.11: a generator that would give something else the second time is not asked a second time."""
    times = itertools.count()
    handle = idle.start(IndexedStream([next(times) for _ in range(10)]).map(ops.double))
    record = handle.record()
    assert (record.closed, record.total) == (True, 10)
    assert sum(task.weight for task in idle.store.tasks(job_id=handle.job_id, limit=100)) == 10


def test_large_maps_are_few_tasks(idle: Client) -> None:
    """P2: 10^5 cheap inputs are not 10^5 tasks, and the last ones are small."""
    handle = idle.start(stream_of(100_000).map(ops.double))
    tasks = idle.store.tasks(job_id=handle.job_id, limit=10_000)
    assert sum(task.weight for task in tasks) == 100_000
    assert len(tasks) < 300
    assert min(task.weight for task in tasks) < 1000


def test_everything_was_recorded_once(client: Client) -> None:
    check_journal(all_events(client.store))


# ------------------------------------------------------------------------------------------------ sessions


def test_session_delivers_everything_and_then_ends(client: Client) -> None:
    """P-08, P-09: close at once; exactly as many as were sent, then the end. No sentinel, no sleep."""
    before = job_ids(client)
    with client.session() as (sender, receiver):
        assert [sender.send(ops.double, x) for x in range(100)] == list(range(100))
        sender.close()
        with pytest.raises(ChannelClosed):
            sender.send(ops.double, 1)
        assert sorted(receiver) == [(x, 2 * x) for x in range(100)]
        with pytest.raises(ChannelClosed):
            receiver.receive()
    assert job_ids(client) == before


def test_session_takes_unequal_operations_and_raises_their_failures(client: Client) -> None:
    with client.session() as (sender, receiver):
        sender.send(ops.fib, 10)
        sender.send(ops.MultiplyBy(3), 5)
        sender.send(ops.picky, 3)
        sender.close()
        seen: dict[int, Any] = {}
        failures: list[Exception] = []
        while True:
            try:
                index, value = receiver.receive(timeout=20)
                seen[index] = value
            except ChannelClosed:
                break
            except ValueError as error:
                failures.append(error)
    assert seen == {0: 55, 1: 15}
    assert len(failures) == 1


def test_a_session_taken_up_again_gets_what_was_not_acknowledged(client: Client) -> None:
    """P-10."""
    session = client.session(id="taken-up")
    for x in range(3):
        session.sender.send(ops.double, x)
    first = session.receiver.receive(20)
    session.receiver.close()  # it dies here: nothing was acknowledged
    again = client.session(id="taken-up")
    again.sender.close()
    assert first in (seen := list(again.receiver))
    assert len(seen) == 3
    again.close()


def test_thousand_sessions_leave_nothing_behind(client: Client) -> None:
    """P-08: no rows, no greenlets, no listeners."""
    ids = job_ids(client)
    tasks = {task.task_id for task in client.store.tasks(limit=100_000)}

    def open_and_leave(number: int) -> None:
        with client.session() as (sender, receiver):
            if number % 50 == 0:
                sender.send(ops.double, number)
                assert receiver.receive(20)[1] == 2 * number

    open_and_leave(0)
    greenlets = count_greenlets()
    for number in range(1000):
        open_and_leave(number)
    assert wait_for(lambda: count_greenlets() <= greenlets, sleep=gevent.sleep)
    assert job_ids(client) == ids
    left = wait_for(
        lambda: {task.task_id for task in client.store.tasks(limit=100_000)} <= tasks or None,
        sleep=gevent.sleep,
    )
    assert left


def count_greenlets() -> int:
    gc.collect()
    return sum(isinstance(one, gevent.Greenlet) and not one.dead for one in gc.get_objects())


def test_waiting_for_a_session_is_bounded(idle: Client) -> None:
    with idle.session() as (sender, receiver):
        sender.send(ops.double, 1)
        began = time.monotonic()
        with pytest.raises(ResultTimeout):
            receiver.receive(0.1)
        assert time.monotonic() - began < 20


def test_an_attached_feeder_keeps_the_bound(client: Client) -> None:
    """P-15, P-37: what was stored before counts as in flight until its results are read again."""
    handle = client.start(IndexedStream(iter(range(10_000))).map(ops.double), max_in_flight=20)
    first = list(itertools.islice(handle.stream(), 30))
    gevent.sleep(0.1)
    handle._stop_feed()
    stored = handle.record().total
    assert stored <= 50
    taken = 0

    def inputs() -> Iterator[int]:
        nonlocal taken
        for x in range(10_000):
            taken = x + 1
            yield x

    again = client.attach(handle.job_id, inputs=inputs())
    with again.stream() as results:
        assert set(first) <= set(itertools.islice(results, 60))
        gevent.sleep(0.1)
        assert taken <= 60 + 20
    again.terminate()


def test_a_full_queue_makes_the_feeder_wait(client: Client) -> None:
    client.store.configure_queue("default", max_waiting=5)
    try:
        stream = IndexedStream(iter(range(60))).map(ops.double, chunk=1)
        assert stream.run(client, max_in_flight=30, timeout=60).values_sorted() == [2 * x for x in range(60)]
        with client.session() as (sender, receiver):
            for x in range(20):
                sender.send(ops.double, x)
            sender.close()
            assert len(list(receiver)) == 20
    finally:
        client.store.configure_queue("default", max_waiting=0)
