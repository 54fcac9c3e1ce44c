"""Actor: an object that a tasklet of its own keeps, and that others reach by messages only.

    class Counter(Actor):
        def __init__(self, start: int = 0) -> None:
            self._count = start

        def receive(self, message: str) -> int | None:
            if message == "how many?":
                return self._count
            self._count += 1
            return None

    with nursery() as home:
        counter = Counter.start_in(home, 10)
        counter.tell("one more")
        assert counter.ask("how many?") == 11
        counter.stop()

`start_in` returns an ActorRef. It is a message: sent to another process, it reaches the same actor from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasklets._core import channel
from tasklets._errors import ChannelClosed, Timeout
from tasklets.clock import timeout as limit
from tasklets.messages import message as message_class

if TYPE_CHECKING:
    from tasklets.nursery import Restart, nursery

ROOM = 64  # messages that may wait in a mailbox: a sender far ahead of its actor has to wait for it


@message_class(name="tasklets.Ask")
class Ask:
    """The envelope of a message that wants an answer."""

    message: Any
    answers: channel  # this question's own, with room for one: an answer that comes too late is nobody's


class Actor:
    """Override `receive`; start with `start_in`. Instances are made and used by the actor's own tasklet only.

    Messages are received one at a time, those of one sender in order. What `receive` returns answers an
    `ask`, and so does an exception that it raises then. An exception that a `tell` causes reaches the
    nursery: with restart="failed" a new instance goes on with the next message of the same mailbox.
    """

    def receive(self, message: Any) -> Any:
        """Handle one message; return the answer, if it was asked. To be overridden."""
        raise NotImplementedError(f"{type(self).__name__} has no receive(self, message): define it")

    @classmethod
    def start_in(
        cls,
        home: nursery,
        /,
        *args: Any,
        mailbox: channel | None = None,
        name: str | None = None,
        restart: Restart = "never",
        **kwargs: Any,
    ) -> ActorRef:
        """Start an actor made by `cls(*args, **kwargs)` as a child of the nursery; return how to reach it.

        `mailbox` is a channel with room for 64 messages unless given; the actor closes it when it has ended
        for good, by `stop()`, by failing or by being killed. Questions still open get ChannelClosed then.
        """
        name = name or cls.__qualname__
        inbox = channel(ROOM, f"the mailbox of {name}") if mailbox is None else mailbox

        def live() -> None:
            actor = cls(*args, **kwargs)
            for envelope in inbox:
                if isinstance(envelope, Ask):
                    actor._answer(envelope, name)
                else:
                    actor.receive(envelope)

        home._start(live, (), {}, name, restart, lambda: _refuse_what_is_left(inbox, name))
        return ActorRef(inbox)

    def _answer(self, question: Ask, name: str) -> None:
        try:
            question.answers.send(self.receive(question.message))
        except Exception as error:  # noqa: BLE001  it is the answer
            _fail(question, error)
        except BaseException:
            _fail(question, _ended(name))
            raise


@message_class(name="tasklets.ActorRef")
class ActorRef:
    """How to reach an actor, from this process or from another one. Whatever arrives in `mailbox` is a message."""

    mailbox: channel

    def tell(self, message: Any) -> None:
        """Send a message. Blocks while the mailbox is full. Raises ChannelClosed when the actor has ended."""
        self.mailbox.send(message)

    def ask(self, message: Any, timeout: float | None = None) -> Any:
        """Send a message and return the answer. Blocks until it is there.

        Raises what the actor raised over this message, Timeout after `timeout` seconds (the actor may handle
        the message all the same; its late answer reaches nobody), ChannelClosed when the actor has ended. An
        actor in another process can be lost between question and answer: give a timeout then.
        """
        answers = channel(1, f"the answer of {self.mailbox.name}", copy=self.mailbox._freeze is not None)
        answers.preference = 1  # the actor goes on with its next message
        with limit(timeout) as time:
            try:
                self.mailbox.send(Ask(message, answers))
                return answers.receive()
            except Timeout as error:
                if not time.raised(error):
                    raise
                raise Timeout(f"{answers.name} did not come within {timeout:g} s") from None

    def stop(self) -> None:
        """Close the mailbox: the actor handles what was sent before, and ends. Never blocks here."""
        self.mailbox.close()


def _ended(name: str) -> ChannelClosed:
    return ChannelClosed(f"{name} ended before it answered; ask one that is alive, or look why it ended")


def _fail(question: Ask, error: BaseException) -> None:
    try:
        question.answers.send_throw(error)
    except (ChannelClosed, ConnectionError):
        pass  # the asker is gone


def _refuse_what_is_left(inbox: channel, name: str) -> None:
    while True:
        try:
            inbox.close()
            left = inbox.receive()
        except (ChannelClosed, ConnectionError):
            return
        except Exception:  # noqa: BLE001  an exception was sent: a message like the others, and dropped like them
            continue
        if isinstance(left, Ask):
            _fail(left, _ended(name))
