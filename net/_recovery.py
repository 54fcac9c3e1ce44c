"""After a cut: when to try again, and when to give up. A state machine: time and randomness come in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

FIRST_DELAY: Final = 0.02  # seconds; a router that dropped one connection takes the next at once
LAST_DELAY: Final = 2.0

HERE_PATIENCE: Final = 1.0  # on one machine no network is between: a connection ends because a process did
AWAY_PATIENCE: Final = 10.0  # a router starts again
PEER_PATIENCE: Final = (
    300.0  # at most what a peer gets who asks for more than we do: its session's memory stays so long
)
MAX_PATIENCE: Final = 24 * 3600.0


class Recovery:
    """The outages of one session.

        recovery.cut(now)
        while (pause := recovery.next_pause(now)) is not None: ...      # pause, try, and if it failed again
        recovery.mended()

    Delays double from FIRST_DELAY to LAST_DELAY; each is drawn from its upper half, so that a thousand peers of a
    restarted router do not come back in step.
    """

    def __init__(self, patience: float, random: Random) -> None:
        self.patience = patience
        self.cuts = 0
        self.deadline: float | None = None  # of the present outage
        self._random = random
        self._delay = 0.0

    def __repr__(self) -> str:
        state = "connected" if self.deadline is None else f"cut, until {self.deadline:.3f}"
        return f"<Recovery {state} cuts={self.cuts} patience={self.patience:g}>"

    def cut(self, now: float) -> None:
        """The connection was lost. What comes before it is mended belongs to the same outage."""
        if self.deadline is None:
            self.cuts += 1
            self.deadline = now + self.patience
            self._delay = 0.0

    def next_pause(self, now: float) -> float | None:
        """Seconds to wait before the next attempt; None when patience is over. The first comes at once."""
        assert self.deadline is not None
        left = self.deadline - now
        if left <= 0:
            return None
        pause = self._delay * self._random.uniform(0.5, 1.0)
        self._delay = min(max(2 * self._delay, FIRST_DELAY), LAST_DELAY)
        return min(pause, left)

    def mended(self) -> None:
        """There is a connection again."""
        self.deadline = None
