"""What a reference to a channel is good for: for everything, or, when it is a Facet, for less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from net._wire import MAY_RECEIVE, MAY_SEND
from net.errors import NotAllowed
from tasklets import channel

if TYPE_CHECKING:
    from tasklets import tasklet


class Facet(channel):
    """A channel of this process, seen by somebody who may not do everything with it."""

    __slots__ = ("rights", "target")

    def __init__(self, target: channel, rights: int) -> None:
        self.target = target
        self.rights = rights
        super().__init__(target.capacity, target.name)
        self._buffer = None

    def __repr__(self) -> str:
        return f"<{NAMES[self.rights]} reference to {self.target!r}>"

    def _use(self, right: int) -> channel:
        if not self.rights & right:
            raise NotAllowed(refusal(self, right))
        return self.target

    def send(self, value: Any) -> None:
        self._use(MAY_SEND).send(value)

    def receive(self) -> Any:
        return self._use(MAY_RECEIVE).receive()

    def __next__(self) -> Any:
        return next(self._use(MAY_RECEIVE))

    def close(self) -> None:
        self._use(MAY_SEND).close()

    def open(self) -> None:
        self._use(MAY_SEND).open()

    @property
    def closing(self) -> bool:
        return self.target.closing

    @closing.setter
    def closing(self, value: bool) -> None:
        pass  # what the constructor of every channel sets

    @property
    def closed(self) -> bool:
        return self.target.closed

    @property
    def balance(self) -> int:
        return self.target.balance

    @property
    def queue(self) -> tasklet | None:
        return self.target.queue

    @property
    def preference(self) -> int:
        return self.target.preference

    @preference.setter
    def preference(self, value: int) -> None:
        raise NotAllowed(f"{self!r} cannot change the preference of its channel; set it there")

    def _receive_is_ready(self) -> bool:
        return self._use(MAY_RECEIVE)._receive_is_ready()

    def _send_is_ready(self) -> bool:
        return self._use(MAY_SEND)._send_is_ready()

    def _enter_case(self, case: Any) -> None:
        self.target._enter_case(case)

    def _leave_case(self, case: Any) -> None:
        self.target._leave_case(case)


NAMES = {MAY_SEND: "send-only", MAY_RECEIVE: "receive-only"}
_VERBS = {MAY_SEND: "send and close", MAY_RECEIVE: "receive"}


def refusal(where: object, right: int) -> str:
    """What to say to somebody who wants to do with a reference what it is not for."""
    return f"cannot {_VERBS[right]} with {where!r}: ask who gave it for the channel itself"


def rights_of(where: channel) -> int:
    return where.rights if isinstance(where, Facet) else MAY_SEND | MAY_RECEIVE


def target_of(where: channel) -> channel:
    return where.target if isinstance(where, Facet) else where
