"""References with fewer rights: who is given a send-only one can do nothing but send, whatever program it runs.

    log = channel(1000)
    worker.send(net.send_only(log))      # it may write, and neither read what others wrote nor see how much waits

Such a reference has an id of its own in the network, so nobody can make the whole channel of it.
"""

from __future__ import annotations

from net._grants import Export
from net._references import RemoteChannel
from net._rights import Facet
from net._wire import MAY_RECEIVE, MAY_SEND
from net.errors import NotAllowed
from net.node import get_node
from tasklets import channel


def send_only(where: channel) -> channel:
    """A reference to a channel at home here that can send (and close), and not receive."""
    return _restrict(where, MAY_SEND)


def receive_only(where: channel) -> channel:
    """A reference to a channel at home here that can receive, and neither send nor close."""
    return _restrict(where, MAY_RECEIVE)


def _restrict(where: channel, rights: int) -> channel:
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
    assert isinstance(where._observer, Export)
    where._observer.facets.add(facet)
    return facet
