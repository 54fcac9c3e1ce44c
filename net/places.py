"""Places: where the tasklets of a program run. The program is the same for all of them.

with open_place("processes:4") as place:
    answers = place.channel()
    place.spawn(worker, answers)
    print(answers.receive())
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol as Interface

from greenlet import GreenletExit

from net import _wire as wire
from net._children import Children, describe_exit
from net._delivery import is_own, pack
from net._failures import error_of, rebuild_exception
from net._spawning import check_not_importing, kill_spawned, name_function
from net._tracing import FOLDER_VARIABLE, ProcessTrace, trace_process
from net.addresses import PlaceSpec, parse_place
from net.errors import NotImportable, PeerLost
from net.node import get_node
from net.security import SecretSource, Security, Tls, choose_security
from tasklets import TaskletExit, channel, message, tasklet
from tasklets._core import Wait, get_scheduler
from tasklets.freezing import freeze_named

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from net._link import Link

log = logging.getLogger("net")

EXIT_CODE_SECONDS = 1.0  # after a child's connection has ended, for its process to end; it may hang instead
EXIT_CODE_POLL_SECONDS = 0.01


class Spawned:
    """A tasklet started by `Place.spawn`, here or elsewhere."""

    answered_by = wire.EXITED

    def __init__(self, name: str, at: str) -> None:
        self.name = name
        self.at = at  # the node it runs at
        self._waits: list[Wait] = []
        self._over = False
        self._error: BaseException | None = None
        self._end: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        state = "alive" if not self._over else "failed" if self._error else "ended"
        return f"<Spawned {self.name} at {self.at} {state}>"

    @property
    def alive(self) -> bool:
        """True until it has ended, as far as is known here."""
        return not self._over

    @property
    def failure(self) -> BaseException | None:
        """What `join` raises; None while it runs, and when it ended without a failure."""
        return self._error

    def join(self) -> None:
        """Wait until it has ended. Blocks.

        Raises what it raised: builtin exceptions and ours as such, others as RemoteError; PeerLost when its
        node is gone.
        """
        if not self._over:
            wait = Wait(f"the end of {self.name} at {self.at}")
            self._waits.append(wait)
            wait.park()
        elif self._error is not None:
            raise self._error

    def kill(self) -> None:
        """Raise TaskletExit in it. Does not wait for its end."""
        if not self._over:
            self._end()

    def answer(self, value: Any) -> bool:
        self._finish(None)
        return True

    def fail(self, error: BaseException) -> None:
        self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        if self._over:
            return
        self._over = True
        self._error = error
        joiners = [wait for wait in self._waits if not wait.over]
        for wait in joiners:
            if error is None:
                wait.wake()
            else:
                wait.fail(error)
        # A lost node is news for those who talk to it; an error in the program is news for the program.
        if error is not None and not joiners and not isinstance(error, PeerLost):
            get_scheduler().fail_main(error)
        else:
            get_scheduler().reconsider()


@message(name="net.NodeLost")
class NodeLost:
    """The news that a place has lost a node."""

    node: str
    reason: str


class Place(Interface):
    """Where tasklets are started.

    Leaving the with-block ends them, and the processes that were started for them.
    """

    spec: str
    lost: channel  # a NodeLost comes here, once for each node that is lost; closed when the place is

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes that are left."""

    @property
    def size(self) -> int:
        """Over how many nodes tasklets are spread."""

    def spawn(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> Spawned:
        """Start a tasklet that calls a function, at the next node in turn.

        The function is named, not sent: the node imports it. Only children of this process are handed functions
        of the program itself (of a notebook, of the prompt), which needs the extra "notebook". What is passed
        arrives as `freeze` gives it; channels by reference. An exception that leaves it is raised by `join()`,
        or reaches this program's main tasklet when nobody joins.

        Raises NotImportable, NotSendable, PeerLost when no node is left.
        """

    def channel(self, capacity: int = 0, name: str | None = None) -> channel:
        """Make a channel that lives in this process and treats values as the network would, wherever the
        tasklets are.
        """

    def close(self) -> None:
        """End what was spawned, and the processes that were started for it."""

    def __enter__(self) -> Place: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...


def open_place(
    spec: str,
    *,
    secret: SecretSource | None = None,
    tls: Tls | None = None,
    insecure: bool = False,
    trace: str | Path | None = None,
) -> Place:
    """Open a place: "here" (this process), "processes:4" (children), "hosts:alpha:7000,beta:7000" (nodes there).

    Nodes elsewhere are asked for `secret` and `tls`, or the environment's, as `connect` does; children need neither.
    Blocks until all its nodes are reached. Raises BadAddress for anything else, PeerUnreachable for a host
    where no node listens, AuthenticationError, BadCredentials.

    `trace` names a folder, which is made; without it TASKLETS_TRACE may. This process and the children are recorded
    (`tasklets.trace`) as long as the place is open, and each writes a file there at its end; `tasklets trace merge`
    makes one picture of them. A child that is killed writes none. Nodes elsewhere write theirs when started so.
    """
    parsed = parse_place(spec)
    check_not_importing(spec)
    folder = trace or os.environ.get(FOLDER_VARIABLE) or None
    recorded = trace_process(folder, get_node()) if folder else None
    try:
        if parsed.hosts:
            place: _PlaceBase = _Hosts(parsed, choose_security(secret, tls, insecure=insecure))
        else:
            place = _Processes(parsed, folder) if parsed.processes else _Here(parsed)
    except BaseException:
        if recorded is not None:
            recorded.end()
        raise
    place._trace = recorded
    return place  # type: ignore[return-value]  # the subclasses are Places


class _PlaceBase:
    def __init__(self, spec: PlaceSpec) -> None:
        self.spec = spec.text
        self.lost = channel(max(1, spec.processes, len(spec.hosts)), f"lost nodes of {spec.text}", copy=True)
        self._spawned: list[Spawned] = []
        self._trace: ProcessTrace | None = None  # of this process

    def __repr__(self) -> str:
        return f"<Place {self.spec}>"

    def channel(self, capacity: int = 0, name: str | None = None) -> channel:
        return channel(capacity, name, copy=True)

    def __enter__(self) -> Place:
        return self  # type: ignore[return-value]  # the subclasses are Places

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.lost.close()
        for spawned in self._spawned:
            spawned.kill()
        self._end_trace()

    def _end_trace(self) -> None:
        if self._trace is not None:
            self._trace.end()

    def _remember(self, spawned: Spawned) -> Spawned:
        self._spawned = [one for one in self._spawned if one.alive]
        self._spawned.append(spawned)
        return spawned


class _Here(_PlaceBase):
    """This process. Keeps the rules of the others, so that a program that runs here runs there."""

    size = 1
    nodes = ("here",)

    def spawn(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> Spawned:
        name = function.__qualname__ if is_own(function) else name_function(function)
        spawned = Spawned(name, "here")
        frozen = freeze_named(args, "args"), freeze_named(kwargs, "kwargs")
        one = tasklet(self._live)(spawned, function, *frozen)
        one.name = spawned.name
        spawned._end = lambda: None if kill_spawned(one) else spawned._finish(None)
        return self._remember(spawned)

    @staticmethod
    def _live(
        spawned: Spawned, function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        try:
            function(*args, **kwargs)
        except TaskletExit:
            spawned.answer(None)
        except (KeyboardInterrupt, GreenletExit):  # meant for the whole process; by the collector
            spawned.answer(None)  # it has ended all the same, and whoever joins it waits for no more
            raise
        except BaseException as error:  # noqa: BLE001  it goes where a remote one would
            kind, message, _, extra = error_of(error)
            arrived = rebuild_exception(kind, message, extra=extra)
            arrived.__cause__ = error
            spawned.fail(arrived)
        else:
            spawned.answer(None)


class _Nodes(_PlaceBase):
    """Nodes that this program is linked to."""

    def __init__(self, spec: PlaceSpec, links: list[Link]) -> None:
        super().__init__(spec)
        self._links = links
        self._closed = False
        self._turn = itertools.cycle(links)
        for link in links:
            link.at_end(functools.partial(self._on_lost, link))
        get_scheduler().sources.append(self._is_busy)

    @property
    def size(self) -> int:
        return len(self._links)

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(link.name for link in self._links if link.lost is None)

    def _is_busy(self) -> bool:
        return any(spawned.alive for spawned in self._spawned)

    def spawn(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> Spawned:
        link = self._next_link()
        name, sent_name = self._name(function, link)
        spawned = Spawned(name, link.name)
        op = link.ask(spawned, lambda op: (wire.SPAWN, op, sent_name, args, kwargs))
        spawned._end = lambda: link.notify((wire.KILL, op))
        return self._remember(spawned)

    def _name(self, function: Callable[..., object], link: Link) -> tuple[str, str]:
        """How a function is called here, and how at the node."""
        name = name_function(function)
        return name, name

    def _next_link(self) -> Link:
        for link in itertools.islice(self._turn, len(self._links)):
            if link.lost is None:
                return link
        raise PeerLost(
            f"all {len(self._links)} nodes of {self.spec} are gone", peer=self.spec, outcome="not taken"
        )

    def _on_lost(self, link: Link) -> None:
        if not self._closed:
            self._tell_lost(link, str(link.lost))

    def _tell_lost(self, link: Link, reason: str) -> None:
        log.info("%s lost a node: %s", self.spec, reason)
        tasklet(self._send_lost)(NodeLost(link.name, reason))  # only tasklets may switch to who waits for it

    def _send_lost(self, news: NodeLost) -> None:
        if not self.lost.closing:  # there is room for all
            self.lost.send(news)

    def close(self) -> None:
        self._closed = True
        self.lost.close()
        if self._is_busy in get_scheduler().sources:
            get_scheduler().sources.remove(self._is_busy)
        for spawned in self._spawned:
            spawned._finish(None)  # what becomes of it now is nobody's news
        self._end_nodes()
        for link in self._links:
            link.close("the place was closed")
        self._end_trace()

    def _end_nodes(self) -> None:
        pass


class _Hosts(_Nodes):
    """Nodes that somebody else has started."""

    def __init__(self, spec: PlaceSpec, security: Security | None) -> None:
        node = get_node()
        links: list[Link] = []
        try:
            for address in spec.hosts:
                link = node.dial(address, security)  # not shared, since close() ends it
                links.append(link)
        except BaseException:
            for link in links:
                link.close()
            raise
        super().__init__(spec, links)


class _Processes(_Nodes):
    """Children of this process."""

    def __init__(self, spec: PlaceSpec, trace: str | Path | None) -> None:
        self._reactor = get_node().reactor
        self._children = Children(get_node(), spec.processes, trace)
        super().__init__(spec, self._children.links)

    def _name(self, function: Callable[..., object], link: Link) -> tuple[str, str]:
        try:
            return super()._name(function, link)
        except NotImportable:
            if not is_own(function):
                raise
        name, packed = pack(function)
        self._children.of(link).deliver(name, packed)
        return function.__qualname__, name

    def _on_lost(self, link: Link) -> None:
        self._await_end(link, monotonic() + EXIT_CODE_SECONDS)

    def _await_end(self, link: Link, deadline: float) -> None:
        """A connection ends a moment before its process: say how that ended."""
        child = self._children.of(link)
        code = child.exit_code()
        if self._closed:
            return
        if code is None and monotonic() < deadline:
            self._reactor.call_later(EXIT_CODE_POLL_SECONDS, self._await_end, link, deadline)
            return
        # 0 may also mean that somebody else has waited for it, as gevent's own subprocess module does for all.
        how = describe_exit(code) if code else str(link.lost)
        self._tell_lost(link, f"{child.name} (pid {child.pid}) {how}")

    def _end_nodes(self) -> None:
        self._children.end()
