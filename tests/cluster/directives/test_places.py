"""Directives without a store: in this process, in its children, at other nodes, in pools of futures."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from cluster import ClusterError, InvalidArguments, JobTimeout, OperationError, WorkerLost
from cluster.directives import Directive, IndexedStream, Literal, Skipped, check_monoid
from net import Place, open_place
from tasklets import sleep
from tests.cluster.conftest import lines
from tests.cluster.directives import ops

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module", autouse=True)  # before the fixture that counts the children of each test
def children() -> Iterator[Place]:
    with open_place("processes:2") as place:
        yield place


@pytest.fixture(params=["here", "processes"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "here":
        with open_place("here") as made:
            yield made
    else:
        yield request.getfixturevalue("children")


def stream_of(count: int) -> IndexedStream:
    return IndexedStream(range(count))


class Endless:
    """1, 2, 3 and so on: inputs without an end."""

    def __init__(self) -> None:
        self.taken = 0  # how many were asked for

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.taken += 1
        return self.taken


class Table(Directive):
    """Rows of values: a functor and a foldable of a user's own."""

    def __init__(self, rows: list[list[int]], stream: Directive | None = None) -> None:
        self.widths = [len(row) for row in rows]
        self.stream = stream or IndexedStream(list(itertools.chain.from_iterable(rows)))

    def _map(self, step: Any, chunk: int | None) -> Table:
        made = Table([])
        made.widths, made.stream = self.widths, self.stream._map(step, chunk)
        return made

    def _fold(self, step: Any, empty: Any, fan_in: int) -> Directive:
        return self.stream._fold(step, empty, fan_in)

    def _plan(self) -> Any:
        return self.stream._plan()

    def _result(self, evaluation: Any) -> list[list[int]]:
        values = iter(evaluation.results().values_sorted())
        return [list(itertools.islice(values, width)) for width in self.widths]


class Laws:
    """What is the same wherever a directive runs, at `where`: also on a store (test_durable.py)."""

    def test_map_keeps_the_order_through_its_indices(self, where: Any) -> None:
        """P-11, P-12: map of map, too."""
        stream = IndexedStream(iter(range(1, 200))).map(ops.double).map(ops.MultiplyBy(3))
        assert stream.run(where).values_sorted() == [6 * x for x in range(1, 200)]
        assert dict(stream_of(10).map(ops.double).run(where)) == {x: 2 * x for x in range(10)}

    def test_fold_of_a_map(self, where: Any) -> None:
        """P-14: with a known number of inputs, and without."""
        for inputs in (range(1, 11), iter(range(1, 11))):
            assert IndexedStream(inputs).map(ops.fib).fold(ops.Sum()).run(where) == 143

    def test_filter_and_flat_map_leave_gaps_and_share_indices(self, where: Any) -> None:
        """P2, P3.2."""
        evens = stream_of(10).filter(ops.is_even).map(ops.double)
        assert sorted(evens.run(where)) == [(x, 2 * x) for x in range(0, 10, 2)]
        assert evens.fold(ops.Sum()).run(where) == 40
        words = IndexedStream(["ab", "", "c"]).flat_map(ops.letters)
        assert words.run(where).values_sorted() == ["a", "b", "c"]
        assert sorted(words.run(where)) == [(0, "a"), (0, "b"), (2, "c")]
        assert IndexedStream(["x"] * 20).filter(ops.letters).fold(ops.Concat()).run(where) == "x" * 20

    def test_batches_of_inputs(self, where: Any) -> None:
        """P2."""
        batches = stream_of(10).batch(4)
        assert len(list(batches._plan().inputs)) == batches._plan().total == 3
        assert batches.fold(ops.Join()).run(where) == tuple(range(10))
        lazy = IndexedStream(itertools.islice(itertools.count(), 5)).batch(2)
        assert lazy.fold(ops.Join()).run(where) == tuple(range(5))
        with pytest.raises(ClusterError, match="before they are mapped"):
            batches.map(ops.double).batch(2)  # type: ignore[attr-defined]

    def test_literal(self, where: Any) -> None:
        """P-16."""
        assert Literal(5).map(ops.MultiplyBy(2)).run(where) == 10
        assert Literal("ab").flat_map(ops.letters).run(where) == ("a", "b")
        assert Literal(7).map(ops.double).fold(ops.Sum()).run(where) == 14

    def test_a_functor_and_foldable_of_a_users_own(self, where: Any) -> None:
        """P-16."""
        table = Table([[1, 2], [], [3]])
        assert table.map(ops.double).map(ops.MultiplyBy(10)).run(where) == [[20, 40], [], [60]]
        assert table.map(ops.double).fold(ops.Sum()).run(where) == 12

    def test_directive_form_of_the_prime_search(self, where: Any) -> None:
        """PRI-03."""
        from examples.primes.arithmetic import partition, primes_in

        chunks = list(partition(0, 20_000, 333))
        assert IndexedStream(chunks).map(ops.primes).fold(ops.Join()).run(where) == primes_in(0, 20_000)

    def test_an_endless_input_is_taken_only_as_far_as_it_may(self, where: Any) -> None:
        """P-15, P-12: the first result is there while later inputs are not even made."""
        numbers = Endless()
        with IndexedStream(numbers).map(ops.double).run(where, max_in_flight=20) as results:
            first = next(results)
            assert first[1] == 2 * (first[0] + 1)
            assert numbers.taken <= 21
            seen = [first, *itertools.islice(results, 99)]
            sleep(0.1)
            assert numbers.taken <= 120
        assert len(dict(seen)) == 100

    def test_a_slow_consumer_stops_the_generator(self, where: Any) -> None:
        """P3.8: generator, tasks and results, none of them runs ahead."""
        numbers = Endless()
        with IndexedStream(numbers).map(ops.double).run(where, max_in_flight=10) as results:
            next(results)
            sleep(0.2)
            assert numbers.taken <= 11

    def test_what_a_generator_raises_reaches_the_consumer(self, where: Any) -> None:
        def broken() -> Iterator[int]:
            yield from range(5)
            raise LookupError("no more of these")

        with pytest.raises(LookupError, match="no more"):
            IndexedStream(broken()).map(ops.double).run(where).values_sorted()
        with pytest.raises(LookupError, match="no more"):
            IndexedStream(broken()).map(ops.double).fold(ops.Sum()).run(where)
        assert stream_of(3).map(ops.double).run(where).values_sorted() == [0, 2, 4]  # nothing is left of it

    @pytest.mark.parametrize("chunk", [None, 1, 7])
    def test_failures_may_be_skipped(self, where: Any, chunk: int | None) -> None:
        """P-23, P3.2: nothing hangs, the index is reported, a fold goes on without it."""
        stream = stream_of(30).map(ops.picky, chunk=chunk)
        kept = [x for x in range(30) if x % 10 != 3]
        pairs = dict(stream.run(where, on_error="skip"))
        skipped = {index: value for index, value in pairs.items() if isinstance(value, Skipped)}
        assert {index: value.error.message for index, value in skipped.items()} == {
            x: f"not {x}" for x in (3, 13, 23)
        }
        assert sorted(pairs) == list(range(30))
        assert stream.run(where, on_error="skip").values_sorted() == kept
        assert stream.run(where, on_error="default", default=-1).values_sorted() == [
            x if x % 10 != 3 else -1 for x in range(30)
        ]
        assert stream.fold(ops.Sum()).run(where, on_error="skip") == sum(kept)
        assert stream.fold(ops.Sum()).run(where, on_error="default", default=1000) == sum(kept) + 3000
        for failing in (lambda: stream.fold(ops.Sum()).run(where), stream.run(where).values_sorted):
            with pytest.raises(ValueError, match=r"not \d*3"):
                failing()

    def test_a_combination_that_fails_is_never_left_out(self, where: Any) -> None:
        with pytest.raises(ValueError, match="do not go together"):
            stream_of(9).fold(ops.Brittle()).run(where, on_error="skip")

    def test_a_result_that_cannot_travel_is_its_inputs_failure(self, where: Any) -> None:
        results = dict(stream_of(3).map(ops.unsendable, chunk=3).run(where, on_error="skip"))
        assert (results[0], results[2]) == (0, 2)
        assert results[1].error.kind == "NotSendable"
        with pytest.raises(InvalidArguments, match="cannot travel"):
            IndexedStream([object()]).map(ops.double).run(where).values_sorted()

    def test_top_of_many(self, where: Any) -> None:
        numbers = [(number * 7919 % 1009,) for number in range(1000)]
        expected = tuple(sorted((n for (n,) in numbers), reverse=True)[:5])
        assert IndexedStream(numbers).fold(ops.Top(5)).run(where) == expected


class TestInPlaces(Laws):
    @pytest.fixture
    def where(self, place: Place) -> Place:
        return place


def test_nothing_happens_before_it_is_run(journal: Path) -> None:
    """P-05."""
    stream = IndexedStream(itertools.count()).map(ops.noted).fold(ops.Sum())
    assert repr(stream) == f"<IndexedStream of ? .map({ops.noted.name}).fold({ops.__name__}:Sum)>"
    assert lines(journal, "noted") == []


@pytest.mark.parametrize("count", [0, 1, 2, 3, 17, 1000])
def test_fold_equals_the_loop_for_any_count(place: Place, count: int) -> None:
    """P-13: contiguous ranges only, so that concatenation is right; with a known number of inputs and without."""
    words = [f"{number} " for number in range(count)]
    assert IndexedStream(words).fold(ops.Concat()).run(place) == "".join(words)
    assert IndexedStream(iter(words)).fold(ops.Concat(), fan_in=2).run(place) == "".join(words)


def test_fold_of_one_is_that_one_without_a_task(children: Place, journal: Path) -> None:
    """P-13."""
    assert IndexedStream(["only"]).fold(ops.Brittle()).run(children) == "only"
    assert IndexedStream([]).fold(ops.Concat()).run(children) == ""


def test_combines_run_in_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P-13: 1000 words, with delays in the combinations."""
    journal = tmp_path / "journal"
    journal.touch()
    monkeypatch.setenv("JOURNAL", str(journal))
    words = ["hello", " ", "world", "!"] * 250
    with open_place("processes:2") as place:
        assert IndexedStream(words).fold(ops.SlowConcat()).run(place) == "".join(words)
    assert len({row[1] for row in lines(journal, "combine")}) == 2


# ------------------------------------------------------------------------------------------------ failures


def test_a_failure_ends_everything_with_its_own_error(place: Place) -> None:
    """P-22, P3.7."""
    with pytest.raises(
        ValueError, match=r"not \d*3\b"
    ) as raised:  # several chunks are run at once: any may be the first
        stream_of(1000).map(ops.picky).run(place).values_sorted()
    assert isinstance(raised.value, OperationError)
    assert raised.value.kind == "ValueError"
    assert raised.value.operation == ops.picky.name
    assert "in picky" in raised.value.traceback_text
    assert "chunks.py" not in raised.value.traceback_text


def test_an_operation_is_tried_again_as_its_policy_says(place: Place, journal: Path) -> None:
    """P-19: at most max + 1 executions, with the attempt's number."""
    assert stream_of(4).map(ops.flaky).run(place).values_sorted() == [0, 1, 2, 3]


def test_large_values_travel_in_few(place: Place) -> None:
    """80 MB of inputs, and as many of results: no message is larger than it may be."""
    texts = [chr(97 + number % 26) * 200_000 for number in range(400)]
    assert IndexedStream(texts).map(ops.length).run(place).values_sorted() == [200_000] * 400
    lengths = [len(text) for _, text in IndexedStream([200_000] * 400).map(ops.long_text).run(place)]
    assert lengths == [200_000] * 400


def test_timeout(place: Place) -> None:
    """P-28."""
    with pytest.raises(JobTimeout, match="not done within"):
        IndexedStream([0.1] * 100).map(ops.nap).run(place, timeout=0.3).values_sorted()


@pytest.mark.parametrize("where", ["here", "processes:1"])
def test_interrupting_it_leaves_nothing_behind(children: Place, journal: Path, where: str) -> None:
    """P3.9: Ctrl-C in the middle: in the consumer, while it waits, and in an operation (here)."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    results = IndexedStream([0.01] * 1000).map(ops.nap, chunk=1).run(children)
    next(results)
    with pytest.raises(KeyboardInterrupt), results:
        raise KeyboardInterrupt
    with pytest.raises(StopIteration):
        next(results)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        # And again, should the first be raised where Python can only print it, such as in a callback of the collector.
        signal.setitimer(signal.ITIMER_REAL, 0.2, 5.0)
        with pytest.raises(KeyboardInterrupt):
            IndexedStream([0.02] * 1000).map(ops.nap).run(where, on_error="skip").values_sorted()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert stream_of(5).map(ops.double).run(children).values_sorted() == [0, 2, 4, 6, 8]


# ------------------------------------------------------------------------------------------------ lost processes


def test_chunks_of_a_killed_child_are_done_by_others() -> None:
    """PRI-06: SIGKILL in the middle; every index once."""
    with open_place("processes:2") as place:
        results = IndexedStream(range(150)).map(ops.pid_of, chunk=3).run(place)
        pairs = list(itertools.islice(results, 20))
        os.kill(pairs[-1][1], signal.SIGKILL)
        pairs += results
        assert sorted(index for index, _ in pairs) == list(range(150))
        assert IndexedStream(range(1, 11)).map(ops.fib).fold(ops.Sum()).run(place) == 143


def test_an_input_that_kills_every_worker_is_reported() -> None:
    """P-24."""
    with pytest.raises(WorkerLost):
        stream_of(9).map(ops.dies, chunk=1).run("processes:2").values_sorted()


def test_an_input_that_kills_three_workers_is_given_up() -> None:
    with open_place("processes:4") as place, pytest.raises(OperationError, match="3 workers died") as raised:
        stream_of(9).map(ops.dies, chunk=9).run(place).values_sorted()
    assert raised.value.kind == "WorkerLost"


@pytest.fixture
def addresses() -> Iterator[list[str]]:
    """Two nodes that somebody has started on this machine."""
    command = [str(Path(sys.executable).with_name("tasklets")), "node", "--listen", "127.0.0.1:0"]
    with ExitStack() as stack:
        nodes = []
        for _ in range(2):
            node = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
            stack.callback(node.kill)
            nodes.append(node)
        yield [node.stdout.readline().split()[-1].removeprefix("tcp://") for node in nodes if node.stdout]


def test_nodes_elsewhere_do_the_same(addresses: list[str]) -> None:
    """T-02: the place is the only change."""
    where = "hosts:" + ",".join(addresses)
    assert IndexedStream(range(1, 11)).map(ops.fib).fold(ops.Sum()).run(where) == 143
    pids = IndexedStream(range(20)).map(ops.pid_of, chunk=1).run(where).values_sorted()
    assert len({*pids, os.getpid()}) == 3


# ------------------------------------------------------------------------------------------------ futures


def test_pools_of_concurrent_futures() -> None:
    with ThreadPoolExecutor(2) as threads:
        assert IndexedStream(range(1, 11)).map(ops.fib).fold(ops.Sum()).run(threads) == 143
        assert stream_of(500).map(ops.double).run(threads).values_sorted() == [2 * x for x in range(500)]
        with pytest.raises(JobTimeout):
            IndexedStream([0.2] * 8).map(ops.nap).run(threads, timeout=0.1).values_sorted()


def test_a_broken_pool_is_reported() -> None:
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes,
        pytest.raises((OperationError, WorkerLost)),
    ):
        stream_of(9).map(ops.dies, chunk=3).run(processes).values_sorted()


# ------------------------------------------------------------------------------------------------ wrong calls


def test_wrong_calls_say_what_is_right() -> None:
    with pytest.raises(TypeError, match="@operation"):
        stream_of(3).map(len)
    with pytest.raises(TypeError, match="not made with its values yet"):
        stream_of(3).map(ops.MultiplyBy)
    with pytest.raises(TypeError, match=r"fold\(Sum\(\)\)"):
        stream_of(3).fold(ops.Sum)
    with pytest.raises(TypeError, match="@monoid"):
        stream_of(3).fold(sum)
    with pytest.raises(TypeError, match="Literal"):
        IndexedStream(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="one value"):
        IndexedStream("hello")
    with pytest.raises(ClusterError, match="at least one"):
        stream_of(3).map(ops.double, chunk=0)
    with pytest.raises(ClusterError, match="nothing to do"):
        stream_of(3).run("here")
    with pytest.raises(ClusterError, match="on_error"):
        stream_of(3).map(ops.double).run("here", on_error="ignore")
    with pytest.raises(ClusterError, match="max_in_flight"):
        stream_of(3).map(ops.double).run("here", max_in_flight=0)
    with pytest.raises(ClusterError, match="cannot run on 5"):
        stream_of(3).map(ops.double).run(5)


def test_unknown_operations_are_named() -> None:
    with pytest.raises(OperationError, match="no-such-module"):
        IndexedStream([1]).map("no-such-module:op").run("here").values_sorted()


# ------------------------------------------------------------------------------------------------ monoids


def test_monoid_laws() -> None:
    """P-17."""
    check_monoid(ops.Sum(), [0, 1, -5, 10**30])
    check_monoid(ops.Concat(), ["", "a", "bc"])
    check_monoid(ops.Top(2), [(), (1,), (3, 2)])
    with pytest.raises(AssertionError, match="empty"):
        check_monoid(ops.Difference(), [1])
    with pytest.raises(AssertionError, match="has to change nothing"):
        check_monoid(ops.Difference(), [2, 3])


def test_a_class_without_the_methods_is_no_monoid() -> None:
    from cluster.directives import monoid

    with pytest.raises(ClusterError, match="no combine"):

        @monoid
        class _Half:
            def empty(self) -> int:
                return 0


def test_a_large_fold_lets_others_run() -> None:
    """P3.10: 10^5 results are taken in while a tasklet that has to be on time is."""
    from tasklets import tasklet

    gaps: list[float] = []

    def heartbeat() -> None:
        last = time.monotonic()
        while True:
            sleep(0.01)
            gaps.append(time.monotonic() - last)
            last += gaps[-1]

    beating = tasklet(heartbeat)()
    try:
        assert IndexedStream(range(100_000)).fold(ops.Sum()).run("processes:1") == sum(range(100_000))
    finally:
        beating.kill()
    assert len(gaps) >= 3  # it ran in between: with a single turn there would be none
