"""One order at a time on each account, different accounts side by side (ATM-07).

    with lanes.hold("alice", "bob"): ...

Lanes are entered in the order of their names, whatever order they are asked in: two transfers between
the same two accounts, one each way, cannot wait for each other (ATM-08).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tasklets import channel


class Lanes:
    """Locks by name, first come, first served; a name that nobody holds costs nothing."""

    def __init__(self) -> None:
        self._held: dict[str, deque[channel]] = {}  # name -> who waits; no entry: free

    def __repr__(self) -> str:
        return f"<Lanes held={sorted(self._held)}>"

    def are_free(self, names: Sequence[str]) -> bool:
        """Say whether nobody holds any of these."""
        held = self._held
        return not held or not any(name in held for name in names)

    @contextmanager
    def hold(self, *names: str) -> Iterator[None]:
        """Hold the lanes of all these names. Blocks until they are free."""
        held: list[str] = []
        try:
            for name in sorted(set(names)) if len(names) > 1 else names:
                self._enter(name)
                held.append(name)
            yield
        finally:
            for name in held:
                self._leave(name)

    def _enter(self, name: str) -> None:
        if name not in self._held:
            self._held[name] = deque()
            return
        turn = channel(1)  # room for one, so that who leaves never waits for who comes
        self._held[name].append(turn)
        try:
            turn.receive()
        except BaseException:  # killed while waiting: the lane must not be handed to a dead one
            if turn in self._held[name]:
                self._held[name].remove(turn)
            else:
                self._leave(name)
            raise

    def _leave(self, name: str) -> None:
        waiting = self._held[name]
        if waiting:
            waiting.popleft().send(None)
        else:
            del self._held[name]
