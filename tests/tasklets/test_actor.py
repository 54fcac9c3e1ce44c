"""Actors: private state, one message at a time, answers that reach the asker or nobody."""

# ruff: noqa: PT012  what raises is the end of a nursery's block, and a block has a body

import gc
import weakref
from typing import Any

import pytest

from tasklets import (
    Actor,
    ChannelClosed,
    NotSendable,
    Timeout,
    channel,
    getcurrent,
    nursery,
    schedule,
    select,
    sleep,
    timeout,
)
from tasklets.actor import ActorRef, Ask


class Counter(Actor):
    def __init__(self, start: int = 0) -> None:
        self._count = start

    def receive(self, message: Any) -> Any:
        match message:
            case "how many?":
                return self._count
            case "fail":
                raise ValueError("broken")
            case "wait":
                channel(name="nothing").receive()
            case "unsendable":
                return lambda: None
            case "dawdle":
                sleep(0.02)
                return "late"
            case "who?":
                return getcurrent()
            case int(number):
                self._count += number
        return None


def make_channel(kind: str) -> channel:
    return {"plain": lambda: channel(8), "place": lambda: channel(8, copy=True), "rendezvous": channel}[
        kind
    ]()


@pytest.mark.parametrize("kind", ["plain", "place", "rendezvous"])
def test_tells_are_handled_in_order_and_asks_are_answered(kind: str) -> None:
    with nursery() as home:
        counter = Counter.start_in(home, 10, mailbox=make_channel(kind))
        counter.tell(1)
        counter.tell(2)
        assert counter.ask("how many?") == 13
        assert counter.ask(7) is None
        assert counter.ask("how many?", timeout=5) == 20
        counter.stop()


def test_an_actor_lives_in_a_tasklet_of_its_own_with_its_name() -> None:
    with nursery() as home:
        counter = Counter.start_in(home, name="till 7")
        assert counter.ask("who?") is home.children[0]
        assert home.children[0].name == "till 7"
        counter.stop()


def test_an_exception_in_an_ask_goes_to_the_asker_and_the_actor_goes_on() -> None:
    with nursery() as home:
        counter = Counter.start_in(home, 5)
        with pytest.raises(ValueError, match="broken"):
            counter.ask("fail")
        assert counter.ask("how many?") == 5
        counter.stop()


def test_an_exception_in_a_tell_goes_to_the_nursery() -> None:
    with pytest.raises(ValueError, match="broken") as caught, nursery() as home:
        Counter.start_in(home).tell("fail")
    assert caught.value.__notes__ == ["raised in the child 'Counter' of a nursery"]


def test_a_restarted_actor_begins_anew_with_the_rest_of_its_mailbox() -> None:
    with nursery() as home:
        counter = Counter.start_in(home, 100, restart="failed")
        for message in (1, "fail", 2, 3):
            counter.tell(message)
        assert counter.ask("how many?") == 105
        counter.stop()


def test_a_late_answer_reaches_nobody() -> None:
    with nursery() as home:
        counter = Counter.start_in(home, 3)
        with pytest.raises(
            Timeout, match=r"the answer of the mailbox of Counter did not come within 0\.001 s"
        ):
            counter.ask("dawdle", timeout=0.001)
        assert counter.ask("how many?") == 3
        counter.stop()


def test_a_timeout_around_an_ask_stays_its_own() -> None:
    with nursery() as home:
        counter = Counter.start_in(home)
        with pytest.raises(Timeout, match=r"not done within 0\.001 s"), timeout(0.001):
            counter.ask("dawdle", timeout=1000)
        counter.stop()


def test_a_question_that_was_not_taken_is_withdrawn_by_its_timeout() -> None:
    mailbox: channel = channel()
    with pytest.raises(Timeout):
        ActorRef(mailbox).ask("anything", timeout=0.001)
    assert mailbox.balance == 0


def test_stop_lets_the_actor_handle_what_was_sent_before() -> None:
    seen: list[int] = []

    class Scribe(Actor):
        def receive(self, message: int) -> None:
            seen.append(message)

    with nursery() as home:
        scribe = Scribe.start_in(home)
        for number in range(5):
            scribe.tell(number)
        scribe.stop()
        with pytest.raises(ChannelClosed):
            scribe.tell(5)
    assert seen == list(range(5))


@pytest.mark.parametrize("kind", ["plain", "rendezvous"])
def test_open_questions_fail_when_the_actor_is_killed(kind: str) -> None:
    errors: list[str] = []

    def ask(message: str) -> None:
        with pytest.raises(ChannelClosed) as caught:
            counter.ask(message)
        errors.append(str(caught.value))

    with nursery() as home:
        counter = Counter.start_in(home, mailbox=make_channel(kind), name="till")
        actor = home.children[0]
        askers = [home.start(ask, "wait"), home.start(ask, "how many?")]
        while counter.mailbox.balance <= 0:
            schedule()
        actor.kill()
        for asker in askers:
            asker.join()
        with pytest.raises(ChannelClosed):
            counter.ask("how many?")
    assert [error.split(";")[0] for error in errors] == ["till ended before it answered"] * 2


def test_open_questions_fail_when_the_actor_fails_for_good() -> None:
    refused: list[str] = []

    def outside() -> None:
        with pytest.raises(ChannelClosed):
            refs.receive().ask("how many?")
        refused.append("yes")

    refs: channel = channel()
    with nursery() as outer:
        outer.start(outside)
        with pytest.raises(ValueError, match="broken"), nursery() as home:
            counter = Counter.start_in(home)
            counter.tell("fail")
            refs.send(counter)
    assert refused == ["yes"]


def test_a_constructor_that_fails_is_a_failure_of_the_actor() -> None:
    class Broken(Actor):
        def __init__(self) -> None:
            raise OSError("no ledger")

    with pytest.raises(OSError, match="no ledger"), nursery() as home:
        Broken.start_in(home)


def test_an_actor_without_receive_says_what_to_define() -> None:
    with pytest.raises(NotImplementedError, match="Actor has no receive"), nursery() as home:
        Actor.start_in(home).tell("anything")


def test_a_question_and_an_answer_are_read_only_with_a_mailbox_of_a_place() -> None:
    with nursery() as home:
        counter = Counter.start_in(home, mailbox=make_channel("place"))
        with pytest.raises(NotSendable):
            counter.ask(lambda: None)
        with pytest.raises(NotSendable):
            counter.ask("unsendable")
        assert counter.ask("how many?") == 0
        counter.stop()


def test_an_actor_may_be_asked_within_a_select() -> None:
    answers: channel = channel(1)
    with nursery() as home:
        counter = Counter.start_in(home, 4)
        counter.tell(Ask("how many?", answers))
        assert select([channel(), answers]) == (1, 4)
        counter.stop()


def test_nothing_is_left_of_an_actor() -> None:
    class Thing(Actor):
        seen: list[Any] = []  # noqa: RUF012  shared on purpose

        def __init__(self) -> None:
            self.seen.append(weakref.ref(self))

        def receive(self, message: Any) -> None: ...

    with nursery() as home:
        thing = Thing.start_in(home)
        mailbox = weakref.ref(thing.mailbox)
        thing.ask("hello")
        thing.stop()
    del thing
    gc.collect()
    assert Thing.seen[0]() is None
    assert mailbox() is None
