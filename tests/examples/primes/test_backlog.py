"""The books of the search, without tasklets and without time (PRI-06, PRI-08)."""

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from examples.primes.arithmetic import partition
from examples.primes.backlog import Backlog
from examples.primes.messages import Chunk, Result


def result_of(chunk: Chunk) -> Result:
    return Result(chunk.index, chunk.attempt, tuple(range(chunk.lo, chunk.hi)), 0.0)


def take(backlog: Backlog, now: float = 0.0) -> Chunk:
    chunk = backlog.next_chunk()
    assert chunk is not None
    backlog.hand_out(chunk, now)
    return chunk


def emitted(backlog: Backlog) -> list[int]:
    """Emit all that is ready and return the indices."""
    indices = []
    while (answer := backlog.next_answer()) is not None:
        indices.append(answer.index)
        backlog.emit()
    return indices


def test_pri08_answers_leave_in_order_whatever_order_they_come_in() -> None:
    backlog = Backlog(partition(0, 30, 10), window=3)
    first, second, third = take(backlog), take(backlog), take(backlog)
    backlog.record(result_of(third), "a")
    assert emitted(backlog) == []
    backlog.record(result_of(first), "b")
    assert emitted(backlog) == [0]
    backlog.record(result_of(second), "a")
    assert emitted(backlog) == [1, 2]
    assert backlog.finished()


def test_pri08_unordered_answers_leave_as_they_come() -> None:
    backlog = Backlog(partition(0, 30, 10), window=3, ordered=False)
    first, second, third = take(backlog), take(backlog), take(backlog)
    for chunk in (third, first, second):
        backlog.record(result_of(chunk), "a")
    assert emitted(backlog) == [2, 0, 1]


def test_pri08_no_chunk_beyond_the_window_is_handed_out() -> None:
    backlog = Backlog(partition(0, 100, 10), window=2)
    first, second = take(backlog), take(backlog)
    assert backlog.next_chunk() is None
    backlog.record(result_of(second), "a")
    assert backlog.next_chunk() is None, "the first one is unfinished still"
    backlog.record(result_of(first), "a")
    assert backlog.next_chunk() is None, "recorded, but nobody has read it"
    backlog.emit()
    assert take(backlog).index == 2


def test_pri06_a_chunk_given_back_comes_first_and_as_the_next_attempt() -> None:
    backlog = Backlog(partition(0, 100, 10), window=3)
    first, second = take(backlog), take(backlog)
    backlog.give_back(second)
    backlog.give_back(first)
    assert take(backlog) == Chunk(0, 0, 10, 2)
    assert take(backlog) == Chunk(1, 10, 20, 2)
    assert take(backlog) == Chunk(2, 20, 30, 1)


def test_pri06_a_chunk_given_back_is_handed_out_though_the_window_is_full() -> None:
    backlog = Backlog(partition(0, 100, 10), window=1)
    chunk = take(backlog)
    assert backlog.next_chunk() is None
    backlog.give_back(chunk)
    assert take(backlog).index == 0


def test_pri06_a_chunk_is_given_back_once() -> None:
    backlog = Backlog(partition(0, 10, 10), window=1)
    chunk = take(backlog)
    assert backlog.give_back(chunk)
    assert not backlog.give_back(chunk)
    take(backlog)
    assert not backlog.give_back(chunk), "the second attempt is out, and it is not its worker that died"
    assert backlog.next_chunk() is None


def test_pri06_the_late_result_of_a_lost_attempt_is_dropped() -> None:
    backlog = Backlog(partition(0, 10, 10), window=1)
    lost = take(backlog)
    backlog.give_back(lost)
    assert not backlog.record(result_of(lost), "late")
    again = take(backlog)
    assert not backlog.record(result_of(lost), "late")
    assert backlog.record(result_of(again), "good")
    assert not backlog.record(result_of(again), "twice")
    answer = backlog.next_answer()
    assert answer is not None
    assert (answer.worker, answer.attempt) == ("good", 2)


def test_pri06_a_chunk_is_overdue_after_its_lease_and_then_has_twice_the_time() -> None:
    backlog = Backlog(partition(0, 10, 10), window=1, lease=5.0)
    chunk = take(backlog, now=100.0)
    assert backlog.next_deadline() == 105.0
    assert backlog.take_overdue(104.9) == []
    assert backlog.take_overdue(105.0) == [chunk]
    assert backlog.next_deadline() is None
    take(backlog, now=200.0)
    assert backlog.next_deadline() == 210.0


def test_pri06_a_sign_of_life_begins_the_lease_anew() -> None:
    backlog = Backlog(partition(0, 20, 10), window=2, lease=5.0)
    chunk = take(backlog, now=100.0)
    backlog.renew(chunk, now=104.0)
    assert backlog.take_overdue(108.9) == []
    assert backlog.take_overdue(109.0) == [chunk]
    backlog.renew(chunk, now=110.0)  # the attempt counts no more
    assert backlog.next_deadline() is None


def test_what_is_left_is_counted_no_further_than_asked() -> None:
    drawn: list[tuple[int, int]] = []

    def pieces() -> Iterator[tuple[int, int]]:
        for piece in partition(0, 10**30, 10):
            drawn.append(piece)
            yield piece

    backlog = Backlog(pieces(), window=2)
    assert backlog.has_more_than(5)
    assert len(drawn) == 6
    few = Backlog(partition(0, 30, 10), window=2)
    assert few.has_more_than(2)
    assert not few.has_more_than(3)
    take(few)
    assert not few.has_more_than(2)


def test_an_empty_range_is_finished_at_once() -> None:
    backlog = Backlog(partition(5, 5, 10), window=1)
    assert backlog.finished()
    assert backlog.complete()
    assert backlog.next_chunk() is None


def test_complete_means_that_no_worker_is_needed_though_answers_wait() -> None:
    backlog = Backlog(partition(0, 10, 10), window=1)
    chunk = take(backlog)
    assert not backlog.complete()
    backlog.record(result_of(chunk), "a")
    assert backlog.complete()
    assert not backlog.finished()


def test_a_window_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="give 1 or more"):
        Backlog(partition(0, 10, 5), window=0)


def test_only_the_named_chunk_may_be_handed_out() -> None:
    backlog = Backlog(partition(0, 20, 10), window=2)
    with pytest.raises(ValueError, match="hand out what next_chunk"):
        backlog.hand_out(Chunk(1, 10, 20, 1), 0.0)


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Workers take chunks, answer, die and answer late, in any order; the answer is the range."""

    @initialize(
        length=st.integers(0, 60), size=st.integers(1, 9), window=st.integers(1, 6), ordered=st.booleans()
    )
    def start(self, length: int, size: int, window: int, ordered: bool) -> None:
        self.length, self.window, self.ordered = length, window, ordered
        self.backlog = Backlog(partition(0, length, size), window=window, ordered=ordered, lease=10.0)
        self.now = 0.0
        self.out: list[
            Chunk
        ] = []  # what the model's workers have in hand, attempts that do not count included
        self.read: list[int] = []
        self.handed: set[int] = set()
        self.answers = 0

    @precondition(lambda self: self.backlog.next_chunk() is not None)
    @rule()
    def a_worker_takes_a_chunk(self) -> None:
        chunk = take(self.backlog, self.now)
        self.handed.add(chunk.index)
        self.out.append(chunk)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def a_worker_answers(self, data: st.DataObject) -> None:
        chunk = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.backlog.record(result_of(chunk), "worker")

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def a_worker_dies(self, data: st.DataObject) -> None:
        self.backlog.give_back(self.out.pop(data.draw(st.integers(0, len(self.out) - 1))))

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.backlog.take_overdue(self.now)

    @precondition(lambda self: self.backlog.next_answer() is not None)
    @rule()
    def the_reader_reads(self) -> None:
        answer = self.backlog.next_answer()
        assert answer is not None
        self.read.extend(answer.primes)
        self.answers += 1
        self.backlog.emit()

    @invariant()
    def no_more_than_the_window_is_between_handing_out_and_reading(self) -> None:
        if hasattr(self, "backlog"):
            assert len(self.handed) - self.answers <= self.window

    @invariant()
    def nothing_is_read_twice_and_ordered_means_ordered(self) -> None:
        if hasattr(self, "backlog"):
            assert max(Counter(self.read).values(), default=1) == 1
            assert not self.ordered or self.read == list(range(len(self.read)))

    def teardown(self) -> None:
        """Whatever happened: one worker that stays finishes the range."""
        if not hasattr(self, "backlog"):
            return
        for chunk in self.out:
            self.backlog.give_back(chunk)
        while not self.backlog.finished():
            while self.backlog.next_answer() is not None:
                self.the_reader_reads()
            if self.backlog.next_chunk() is not None:
                self.backlog.record(result_of(take(self.backlog, self.now)), "last")
        assert sorted(self.read) == list(range(self.length))


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
TestAnyOrderOfEvents.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@given(order=st.permutations(range(8)))
def test_pri08_any_order_of_results_gives_the_same_order_of_answers(order: list[int]) -> None:
    backlog = Backlog(partition(0, 80, 10), window=8)
    chunks = [take(backlog) for _ in range(8)]
    left: list[int] = []
    for index in order:
        backlog.record(result_of(chunks[index]), "a")
        left += emitted(backlog)
    assert left == list(range(8))
