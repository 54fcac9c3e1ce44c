"""The way in to a node: how many strangers may stand there, for how long, and how the rest is told.

Whoever has connected and not yet said who it is is *half open*. Strangers cost memory, file descriptors and, with TLS,
about a millisecond of computing each; nobody can stop them from coming. So there are never more than HALF_OPEN of them,
none stays longer than it may, and in one turn of the event loop only one of them is served, after everybody who is in
already. When it is full, room is made among those of the address that has most of them: a flood drives out itself, and
who comes from elsewhere gets in. Among its own kind nobody is sent away before MIN_STAY_SECONDS, in which an honest
handshake is done; newcomers are refused then.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from net._negotiation import Negotiation

log = logging.getLogger("net")

HALF_OPEN: Final = 256  # a burst of a whole cluster's nodes; half a megabyte of memory
MIN_STAY_SECONDS: Final = (
    1.0  # two round trips around the world, and a second for all is as long as people wait
)
LOG_LINES: Final = 10  # about refused connections, at once; after that one line in LOG_SECONDS sums them up
LOG_SECONDS: Final = 10.0


class Newcomer:
    """One half-open connection."""

    def __init__(self, source: str, where: str, drop: Callable[[str], object]) -> None:
        self.source = source  # the host it came from
        self.where = where
        self.drop = drop  # closes it, telling why
        self.since = 0.0  # when it came
        self.is_idle: Callable[[], bool] = lambda: True  # it is its turn to say something
        self.is_in: Callable[[], bool] = lambda: False  # it is half open no more
        self.cancel_timer: Callable[[], object] = lambda: None


class Gate:
    """The half-open connections of one node, oldest first."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._newcomers: dict[Newcomer, None] = {}
        self._ready: deque[Negotiation] = deque()
        self._armed = False
        self.refusals = Refusals(loop)

    def __repr__(self) -> str:
        return f"<Gate half_open={len(self)}>"

    def __len__(self) -> int:
        return sum(not one.is_in() for one in self._newcomers)

    def make_room(self, source: str) -> bool:
        """See to it that one more from this address may stand here. False when it is refused."""
        if len(self._newcomers) >= HALF_OPEN:
            for one in [one for one in self._newcomers if one.is_in()]:
                self.leave(one)
        if len(self._newcomers) < HALF_OPEN:
            return True
        victim = self._find_victim(source)
        if victim is None:
            return False
        self.leave(victim)
        victim.drop(f"more than {HALF_OPEN} connections had not said who they are")
        return True

    def _find_victim(self, source: str) -> Newcomer | None:
        counts = Counter(one.source for one in self._newcomers)
        crowd, most = counts.most_common(1)[0]
        if counts[source] == most:
            latest = monotonic() - MIN_STAY_SECONDS
            mine = (one for one in self._newcomers if one.source == source)
            return next((one for one in mine if one.is_idle() and one.since <= latest), None)
        members = [one for one in self._newcomers if one.source == crowd]
        return next((one for one in members if one.is_idle()), members[0])

    def enter(self, one: Newcomer, seconds: float) -> None:
        """Let it stand here for so long."""
        self._newcomers[one] = None
        one.since = monotonic()
        one.cancel_timer = later(self._loop, seconds, self._expire, one, seconds)

    def leave(self, one: Newcomer) -> None:
        """It is half open no more."""
        if one in self._newcomers:
            del self._newcomers[one]
            one.cancel_timer()

    def _expire(self, one: Newcomer, seconds: float) -> None:
        del self._newcomers[one]
        if not one.is_in():
            one.drop(f"it did not introduce itself within {seconds:g} s")

    def close(self, listener_is: Callable[[Newcomer], bool]) -> None:
        """Send away those who came in by a listener that closes."""
        for one in [one for one in self._newcomers if listener_is(one)]:
            self.leave(one)
            if not one.is_in():
                one.drop("")

    # -- one at a time -----------------------------------------------------------------------------------------

    def serve_later(self, negotiation: Negotiation) -> None:
        """Let a negotiation take its next step when those before it have taken theirs."""
        self._ready.append(negotiation)
        if not self._armed:
            self._arm()

    def _arm(self) -> None:
        # A timer, not a callback: the loop looks at everybody's sockets before it.
        self._armed = True
        later(self._loop, 0.0, self._serve_one)

    def _serve_one(self) -> None:
        self._armed = False
        while self._ready:
            negotiation = self._ready.popleft()
            if not negotiation.over:
                negotiation.step()
                break
        if self._ready:
            self._arm()


class Refusals:
    """Log lines about connections that were refused: one each, until there are too many."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._left = float(LOG_LINES)
        self._since = monotonic()
        self._unsaid = 0
        self._last = ""

    def tell(self, line: str) -> None:
        """Log a line, or count it when there were too many."""
        now = monotonic()
        self._left = min(LOG_LINES, self._left + (now - self._since) * LOG_LINES / LOG_SECONDS)
        self._since = now
        if self._left >= 1 and not self._unsaid:
            self._left -= 1
            log.warning("%s", line)
            return
        if not self._unsaid:
            later(self._loop, LOG_SECONDS, self._sum_up)
        self._unsaid += 1
        self._last = line

    def _sum_up(self) -> None:
        unsaid, self._unsaid = self._unsaid, 0
        log.warning("%d more connections were refused in %g s; the last: %s", unsaid, LOG_SECONDS, self._last)


def later(loop: Any, seconds: float, function: Callable[..., object], *args: Any) -> Callable[[], None]:
    """Let the event loop call a function after so many seconds, if it still runs then; returns what cancels it."""
    timer = loop.timer(seconds, ref=False)

    def cancel() -> None:  # once more does no harm
        timer.stop()
        timer.close()

    def fire() -> None:
        cancel()
        function(*args)

    timer.start(fire, update=True)
    return cancel
