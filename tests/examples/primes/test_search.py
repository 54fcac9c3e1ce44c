"""The master at work, with workers in this process; those that die or hang are acted (PRI-01..09)."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, cast

import pytest
from hypothesis import given, settings, strategies as st

from examples.primes.arithmetic import partition, primes_in
from examples.primes.backlog import Answer
from examples.primes.messages import Chunk, Join, Leave, Progress, Result
from examples.primes.search import WorkersLost, find_primes
from net import PeerLost, Place, open_place
from tasklets import RemoteError, channel as Channel, schedule, sleep, tasklet
from tasklets.testing import virtual_clock


class Actor:
    """Plays a worker and both channels that live at it: answers, or raises where the script says so."""

    def __init__(self, dies_at: tuple[str, int] | None = None, hangs_at: int | None = None) -> None:
        # ("send", 3): dies while the third chunk waits at the door; ("receive", 3): while it computes that.
        self.dies_at = dies_at
        self.hangs_at = hangs_at  # answers this chunk only after `wake` was closed
        self.wake = Channel(name="wake")
        self.end = Channel(name="end")
        self.error: Exception | None = None
        self.door = Channel(name="door")  # chunks, from the master's feed to its collect
        self.offered = 0
        self.served: list[Chunk] = []

    @property
    def stopped(self) -> bool:
        return self.door.closing

    def send(self, chunk: Chunk) -> None:
        self.offered += 1
        self.perhaps_die("send", self.offered)
        self.door.send(chunk)
        self.perhaps_die("send", 0)

    def close(self) -> None:
        self.door.close()

    def __iter__(self) -> Iterator[Result]:
        for chunk in self.door:
            self.served.append(chunk)
            self.perhaps_die("receive", len(self.served))
            if len(self.served) == self.hangs_at:
                for _ in self.wake:
                    pass
            yield Result(chunk.index, chunk.attempt, primes_in(chunk.lo, chunk.hi), 0.0)
        self.perhaps_die("receive", 0)
        self.end.close()

    def perhaps_die(self, operation: str, number: int) -> None:
        if self.dies_at == (operation, number):
            self.fail(PeerLost("the process of the worker died", peer="worker"))
        if self.error is not None:
            raise self.error

    def fail(self, error: Exception) -> None:
        """Die: both its channels raise from now on, also in those who wait at them."""
        self.error = error
        self.end.close()
        self.door.close()
        while self.door.balance > 0:
            self.door.receive()

    def join(self) -> None:
        for _ in self.end:
            pass
        if self.error is not None:
            raise self.error


class Stage:
    """A place on which actors play the workers."""

    def __init__(self, *actors: Actor) -> None:
        self.actors = actors
        self.size = len(actors)
        self.spawned = 0

    def channel(self, capacity: int = 0, name: str | None = None) -> Channel:
        return Channel(capacity, name)

    def spawn(self, _func: Callable[..., None], joins: Channel, name: str) -> Actor:
        actor = self.actors[self.spawned]
        self.spawned += 1
        tasklet(joins.send)(Join(name, self.spawned, cast(Channel, actor), cast(Channel, actor)))
        return actor


def stream(stage: Stage, lo: int, hi: int, **options: Any) -> Generator[Answer, None, None]:
    yield from find_primes(cast(Place, stage), lo, hi, **options)


def search(stage: Stage, lo: int, hi: int, **options: Any) -> list[Answer]:
    return list(stream(stage, lo, hi, **options))


def flat(answers: Iterable[Answer]) -> list[int]:
    return [prime for answer in answers for prime in answer.primes]


# --------------------------------------------------------------------------------- PRI-01, PRI-03: the answer


@given(
    lo=st.integers(-50, 2000), length=st.integers(0, 800), chunk=st.integers(1, 900), window=st.integers(1, 9)
)
@settings(max_examples=40)
def test_pri03_local_tasklets_find_the_sequential_list(lo: int, length: int, chunk: int, window: int) -> None:
    with open_place("here") as place:
        found = flat(find_primes(place, lo, lo + length, chunk=chunk, window=window))
    assert found == list(primes_in(lo, lo + length))


@given(
    chunk=st.integers(1, 60),
    window=st.integers(1, 9),
    deaths=st.lists(st.tuples(st.sampled_from(["send", "receive"]), st.integers(1, 20)), max_size=3),
)
def test_pri06_whoever_dies_whenever_the_list_is_the_sequential_one(
    chunk: int, window: int, deaths: list[tuple[str, int]]
) -> None:
    stage = Stage(*(Actor(dies_at=death) for death in deaths), Actor())
    answers = search(stage, 0, 300, chunk=chunk, window=window)
    assert flat(answers) == list(primes_in(0, 300))
    assert [(answer.lo, answer.hi) for answer in answers] == list(partition(0, 300, chunk))


def test_pri01_the_known_counts() -> None:
    with open_place("here") as place:
        found = flat(find_primes(place, 1, 100_000, chunk=7_000))
    assert (len(found), found[-1]) == (9592, 99991)
    assert sum(1 for prime in found if prime < 10_000) == 1229


def test_pri01_an_empty_range_has_no_answers_and_ends() -> None:
    with open_place("here") as place:
        assert list(find_primes(place, 7, 7)) == []


@pytest.mark.parametrize("options", [{"chunk": 0}, {"window": 0}])
def test_a_senseless_option_is_an_error_before_anything_starts(options: dict[str, int]) -> None:
    stage = Stage(Actor())
    with pytest.raises(ValueError, match="give 1 or more"):
        search(stage, 1, 10, **options)
    assert stage.spawned == 0


def test_pri01_a_range_that_ends_before_it_starts_is_an_error_before_anything_starts() -> None:
    stage = Stage(Actor())
    with pytest.raises(ValueError, match="before it starts"):
        search(stage, 10, 1)
    assert stage.spawned == 0


def test_pri02_more_workers_than_chunks_is_no_problem() -> None:
    stage = Stage(*(Actor() for _ in range(5)))
    assert flat(search(stage, 0, 20, chunk=10)) == [2, 3, 5, 7, 11, 13, 17, 19]
    assert all(actor.stopped for actor in stage.actors)


# --------------------------------------------------------------------------------------- PRI-06: lost workers


@pytest.mark.parametrize("operation", ["send", "receive"])
def test_pri06_the_chunk_of_a_dead_worker_is_done_once_more_by_another(operation: str) -> None:
    mortal, other = Actor(dies_at=(operation, 2)), Actor()
    notices: list[str] = []
    answers = search(Stage(mortal, other), 0, 100, chunk=10, notice=notices.append)
    again = [chunk for chunk in other.served if chunk.attempt == 2]
    assert [answer.index for answer in answers if answer.attempt == 2] == sorted(
        chunk.index for chunk in again
    )
    assert len(again) == len({chunk.index for chunk in again}) > 0
    assert flat(answers) == list(primes_in(0, 100))
    (notice,) = notices
    assert notice.startswith("worker 1 (process 1) was lost; [")
    assert all(f"[{chunk.lo}, {chunk.hi})" in notice for chunk in again)


def test_pri06_when_every_worker_is_lost_the_search_says_so() -> None:
    stage = Stage(Actor(dies_at=("receive", 2)), Actor(dies_at=("send", 3)))
    with pytest.raises(
        WorkersLost, match=r"every worker was lost, .* the last of 2, .*; start the search again"
    ):
        search(stage, 0, 100, chunk=10)


def test_pri06_losing_every_worker_after_the_last_result_does_no_harm() -> None:
    actor = Actor()
    answers = stream(Stage(actor), 0, 20, chunk=10)
    first = next(answers)
    while len(actor.served) < 2:
        schedule()
    actor.fail(PeerLost("the process of the worker died"))
    assert flat([first, *answers]) == [2, 3, 5, 7, 11, 13, 17, 19]


def test_pri06_a_hung_worker_loses_its_chunk_after_the_lease_and_its_late_result_is_dropped() -> None:
    slow, other = Actor(hangs_at=1), Actor()
    answers = stream(Stage(slow, other), 0, 100, chunk=10, lease=0.01)
    found = [next(answers)]
    slow.wake.close()  # now the late result of attempt 1 arrives
    found += answers
    assert found[0].attempt == 2
    assert [answer.index for answer in found] == list(range(10))
    assert flat(found) == list(primes_in(0, 100))


def test_an_error_in_a_workers_code_ends_the_search_with_that_error() -> None:
    actor = Actor(hangs_at=1)
    tasklet(actor.fail)(RemoteError("MemoryError", "no room", ""))
    with pytest.raises(RemoteError, match="MemoryError: no room"):
        search(Stage(actor, Actor(hangs_at=1)), 0, 100, chunk=10)


# ----------------------------------------------------------------------- PRI-08: ordered, in a bounded window


def test_pri08_answers_stream_before_the_search_is_over() -> None:
    actor = Actor(hangs_at=3)
    answers = stream(Stage(actor), 0, 100, chunk=10)
    assert [next(answers).index, next(answers).index] == [0, 1]
    actor.wake.close()
    assert [answer.index for answer in answers] == list(range(2, 10))


def test_pri08_a_slow_chunk_holds_back_those_beyond_the_window() -> None:
    slow, quick = Actor(hangs_at=1), Actor()
    answers = stream(Stage(slow, quick), 0, 200, chunk=10, window=4, lease=60)
    taken: list[Answer] = []
    reader = tasklet(lambda: taken.extend(answers))()
    for _ in range(100):
        schedule()
    assert taken == []
    assert {chunk.index for chunk in slow.served + quick.served} <= {0, 1, 2, 3}
    slow.wake.close()
    assert [answer.index for answer in answers_of(reader, taken)] == list(range(20))


def test_pri08_a_slow_reader_holds_the_workers_back() -> None:
    actor = Actor()
    with closing(stream(Stage(actor), 0, 1000, chunk=10, window=3)) as answers:
        assert next(answers).index == 0
        for _ in range(50):
            schedule()
        assert len(actor.served) == 4, "the one that was read, and the window"


def test_pri05_the_chunk_at_the_door_of_a_slow_worker_is_done_by_one_with_nothing_to_do() -> None:
    slow, quick = Actor(hangs_at=1), Actor()
    answers = stream(Stage(slow, quick), 0, 200, chunk=10, window=30)
    reader = tasklet(list)(answers)
    while reader.alive and len(quick.served) < 19:
        schedule()
    assert [(chunk.index, chunk.attempt) for chunk in slow.served] == [(0, 1)]
    assert sorted(chunk.index for chunk in quick.served) == list(range(1, 20))
    slow.wake.close()
    while reader.alive:
        schedule()


def test_pri08_unordered_answers_do_not_wait_for_a_slow_chunk() -> None:
    slow, quick = Actor(hangs_at=1), Actor()
    answers = stream(Stage(slow, quick), 0, 100, chunk=10, ordered=False)
    early = [next(answers) for _ in range(9)]
    slow.wake.close()
    late = list(answers)
    assert [(answer.index, answer.worker) for answer in late] == [(0, "worker 1 (process 1)")]
    assert sorted(flat(early + late)) == list(primes_in(0, 100))


def answers_of(reader: tasklet, taken: list[Answer]) -> list[Answer]:
    while reader.alive:
        schedule()
    return taken


# -------------------------------------------------------------------------------------------- PRI-09: the end


def test_pri09_every_worker_is_told_to_stop() -> None:
    stage = Stage(Actor(), Actor(), Actor())
    search(stage, 0, 100, chunk=10)
    assert all(actor.stopped for actor in stage.actors)


def test_pri09_who_stops_reading_leaves_no_tasklet_behind() -> None:
    stage = Stage(Actor())
    with closing(stream(stage, 0, 1000, chunk=10)) as answers:
        next(answers)
        before = len(stage.actors[0].served)
    schedule()
    assert len(stage.actors[0].served) <= before + 1


# ----------------------------------------------------------------- PRI-07: workers that come and go by themselves


def offer(joins: Channel, actor: Actor, name: str) -> None:
    joins.send(Join(name, 0, cast(Channel, actor), cast(Channel, actor)))


def test_pri07_without_workers_the_search_waits_and_takes_who_comes() -> None:
    joins, actor, notices = Channel(), Actor(), []  # type: ignore[var-annotated]
    taken: list[Answer] = []
    answers = stream(Stage(), 0, 100, chunk=10, joins=joins, notice=notices.append)
    reader = tasklet(lambda: taken.extend(answers))()
    for _ in range(20):
        schedule()
    assert taken == []
    tasklet(offer)(joins, actor, "late")
    assert flat(answers_of(reader, taken)) == list(primes_in(0, 100))
    assert notices == ["late (process 0) has joined"]
    assert actor.stopped


def test_pri07_who_joins_in_the_middle_takes_work() -> None:
    joins, first, second = Channel(), Actor(hangs_at=2), Actor()
    answers = stream(Stage(first), 0, 200, chunk=10, window=30, lease=60, joins=joins)
    found = [next(answers)]
    tasklet(offer)(joins, second, "late")
    while len(second.served) < 10:
        schedule()
    first.wake.close()
    found += answers
    assert flat(found) == list(primes_in(0, 200))
    assert {answer.worker for answer in found} == {"worker 1 (process 1)", "late (process 0)"}


class Leaver(Actor):
    """Says farewell after its third chunk."""

    def __iter__(self) -> Iterator[Any]:
        for number, result in enumerate(super().__iter__(), 1):
            yield result
            if number == 3:
                yield Leave()
                for _ in self.door:
                    pass
        self.end.close()


def test_pri07_who_leaves_has_finished_its_chunk_and_the_rest_goes_to_others() -> None:
    notices: list[str] = []
    leaver, other = Leaver(), Actor()
    answers = search(Stage(leaver, other), 0, 300, chunk=10, notice=notices.append)
    assert flat(answers) == list(primes_in(0, 300))
    assert sum(1 for answer in answers if answer.worker.startswith("worker 1")) == 3
    assert [notice.partition(";")[0] for notice in notices] == ["worker 1 (process 1) leaves"]


def test_pri07_when_the_last_one_leaves_the_search_waits_for_the_next() -> None:
    joins, notices = Channel(), []  # type: ignore[var-annotated]
    taken: list[Answer] = []
    answers = stream(Stage(), 0, 100, chunk=10, joins=joins, notice=notices.append)
    reader = tasklet(lambda: taken.extend(answers))()
    tasklet(offer)(joins, Leaver(), "first")
    while "no worker is left; waiting for one to join" not in notices:
        schedule()
    assert reader.alive
    tasklet(offer)(joins, Actor(), "second")
    assert flat(answers_of(reader, taken)) == list(primes_in(0, 100))


def test_pri07_nonsense_does_not_join() -> None:
    joins, actor = Channel(), Actor()
    answers = stream(Stage(), 0, 20, chunk=10, joins=joins)
    reader = tasklet(list)(answers)
    for nonsense in (None, "worker", Join(5, 0, cast(Channel, actor), cast(Channel, actor))):  # type: ignore[arg-type]
        tasklet(joins.send)(nonsense)
    schedule()
    tasklet(offer)(joins, actor, "real")
    while reader.alive:
        schedule()
    assert len(actor.served) == 2


# -------------------------------------------------------------------------------- PRI-06, PRI-11: signs of life


class Slow(Actor):
    """Says for a while that it lives before it answers its first chunk."""

    def __iter__(self) -> Iterator[Any]:
        for chunk in self.door:
            if not self.served:
                for _ in range(10):
                    yield Progress(chunk.index, chunk.attempt, 0)
                    sleep(0.02)
            self.served.append(chunk)
            yield Result(chunk.index, chunk.attempt, primes_in(chunk.lo, chunk.hi), 0.0)
        self.end.close()


def test_pri11_a_slow_worker_that_says_it_lives_keeps_its_chunk() -> None:
    notices: list[str] = []
    with virtual_clock():
        answers = search(Stage(Slow()), 0, 100, chunk=10, lease=0.05, notice=notices.append)
    assert {answer.attempt for answer in answers} == {1}
    assert notices == []


# --------------------------------------------------------------------------------- PRI-13: workers that are wrong


class Wrong(Actor):
    """Takes every odd number for a prime, from its second chunk on."""

    def __iter__(self) -> Iterator[Any]:
        for chunk in self.door:
            self.served.append(chunk)
            primes = primes_in(chunk.lo, chunk.hi)
            if len(self.served) > 1:
                primes = tuple(n for n in range(chunk.lo, chunk.hi) if n % 2)
            yield Result(chunk.index, chunk.attempt, primes, 0.0)
        self.end.close()


def test_pri13_a_wrong_worker_is_caught_its_chunk_done_again_and_it_gets_no_more() -> None:
    notices: list[str] = []
    wrong = Wrong()
    answers = search(Stage(wrong, Actor()), 0, 2000, chunk=100, check=1.0, notice=notices.append)
    assert flat(answers) == list(primes_in(0, 2000))
    assert sum(1 for answer in answers if answer.worker.startswith("worker 1")) <= 1
    assert len(wrong.served) <= 3, "the one that was wrong, and the one at its door"
    (notice,) = notices
    assert notice.startswith("worker 1 (process 1) is not to be trusted, it says that ")


def test_pri13_when_all_are_wrong_the_search_says_so() -> None:
    with pytest.raises(WorkersLost, match="every worker was lost"):
        search(Stage(Wrong(), Wrong()), 0, 2000, chunk=100, check=1.0)


def test_pri13_without_the_check_nobody_is_suspected() -> None:
    assert len(search(Stage(Wrong()), 0, 200, chunk=100)) == 2
