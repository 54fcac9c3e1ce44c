"""References with fewer rights: who is given a send-only one can do nothing but send, whatever program it runs.

    log = channel(1000)
    worker.send(net.send_only(log))      # it may write, and neither read what others wrote nor see how much waits

Such a reference has an id of its own in the network, so nobody can make the whole channel of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from net._wire import MAY_RECEIVE, MAY_SEND
from net.errors import NotAllowed
from tasklets import channel

if TYPE_CHECKING:
    from tasklets import tasklet


def send_only(where: channel) -> channel:
    """A reference to a channel at home here that can send (and close), and not receive."""
    return _restrict(where, MAY_SEND)


def receive_only(where: channel) -> channel:
    """A reference to a channel at home here that can receive, and neither send nor close."""
    return _restrict(where, MAY_RECEIVE)


def _restrict(where: channel, rights: int) -> channel:
    from net._references import RemoteChannel
    from net.node import get_node

    if isinstance(where, RemoteChannel):
        raise NotAllowed(
            f"{where!r} lives elsewhere, and only its home can restrict it; let the home send a restricted one"
        )
    if isinstance(where, Facet):
        if where.rights == rights:
            return where
        raise NotAllowed(f"{where!r} has not the rights that are asked for")
    if not isinstance(where, channel):
        raise TypeError(f"what is restricted is a channel, not {where!r}")
    node = get_node()
    facet = Facet(where, rights)
    node.id_of(where)
    node.id_of(facet)
    assert where._observer is not None
    where._observer.facets.add(facet)  # type: ignore[attr-defined]  # an Export
    return facet


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
