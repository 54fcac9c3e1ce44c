"""What a program may choose about its network: `net.configure(patience=30, max_message_bytes=1 << 30)`.

It holds for what the calling OS thread opens from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from net._recovery import AWAY_PATIENCE, HERE_PATIENCE, MAX_PATIENCE
from net._session import BULK_BYTES, MAX_MESSAGE_BYTES
from net._wire import MAX_BATCH_BYTES


@dataclass(frozen=True, slots=True)
class Settings:
    """The choices, with their defaults. All times are seconds."""

    # How long a session outlives its connection. None: AWAY_PATIENCE, and HERE_PATIENCE towards this machine.
    patience: float | None = None
    heartbeat: float = 2.0  # between two beats of the pulse, see net._pulse
    silence: float = 10.0  # without a beat for so long the connection is given up
    stalled_after: float = 1.0  # a peer whose event loop has had no turn for so long is called stalled
    # That others may send here. The memory of four such messages is kept for the next ones, until a second without one.
    max_message_bytes: int = MAX_MESSAGE_BYTES
    bulk_bytes: int = BULK_BYTES  # of large messages under way to here; more is faster on long lines

    def __post_init__(self) -> None:
        if self.patience is not None and not 0 <= self.patience <= MAX_PATIENCE:
            raise ValueError(f"patience is 0 to {MAX_PATIENCE:g} seconds, not {self.patience!r}")
        if not 0 < self.heartbeat < self.silence:
            raise ValueError(
                f"heartbeat={self.heartbeat!r} and silence={self.silence!r}: there must be time for a beat, and better "
                "for three, before the silence is too long"
            )
        for name in ("max_message_bytes", "bulk_bytes"):
            if not MAX_BATCH_BYTES <= getattr(self, name) < 1 << 31:
                raise ValueError(f"{name} is {MAX_BATCH_BYTES} to 2**31-1, not {getattr(self, name)!r}")

    def patience_towards(self, is_here: bool) -> float:
        """What holds for a peer on this machine, or elsewhere."""
        if self.patience is not None:
            return self.patience
        return HERE_PATIENCE if is_here else AWAY_PATIENCE


def change(settings: Settings, changes: dict[str, Any]) -> Settings:
    """Settings with some of them changed. Raises TypeError for an unknown one, ValueError for a wrong value."""
    known = {field.name for field in fields(Settings)}
    for name in changes:
        if name not in known:
            raise TypeError(f"there is no setting {name!r}; there are {', '.join(sorted(known))}")
    return replace(settings, **changes)
