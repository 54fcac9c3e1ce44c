"""What was found so far, in total and by worker, and how it is shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from examples.primes.backlog import Answer

REFRESH_SECONDS = 0.1


@dataclass(slots=True)
class Share:
    """What one worker contributed."""

    chunks: int = 0
    numbers: int = 0
    primes: int = 0
    seconds: float = 0.0  # of computing

    def add(self, answer: Answer) -> None:
        self.chunks += 1
        self.numbers += answer.hi - answer.lo
        self.primes += len(answer.primes)
        self.seconds += answer.seconds


@dataclass(slots=True)
class Tally:
    """The sum of the answers, and of each worker's; the shares add up to the total."""

    total: Share = field(default_factory=Share)
    shares: dict[str, Share] = field(default_factory=dict)  # worker -> its part
    last: int | None = None  # the greatest prime so far

    def add(self, answer: Answer) -> None:
        """Count `answer` in."""
        self.total.add(answer)
        self.shares.setdefault(answer.worker, Share()).add(answer)
        if answer.primes:
            self.last = max(answer.primes[-1], self.last or 0)

    def summary(self, lo: int, hi: int, seconds: float) -> str:
        """Return the lines that a person reads at the end."""
        total = self.total
        last = "" if self.last is None else f", the last one {self.last}"
        lines = [f"{total.primes} primes in [{lo}, {hi}){last}", f"{seconds:.2f} s, {self.rates(seconds)}"]
        for worker, share in sorted(self.shares.items()):
            part = share.numbers / total.numbers
            lines.append(
                f"  {worker}  {part:6.1%} of the numbers  {share.primes} primes in {share.chunks} chunks, "
                f"busy {share.seconds:.2f} s"
            )
        return "\n".join(lines)

    def rates(self, seconds: float) -> str:
        """Return numbers/s and primes/s in words."""
        seconds = max(seconds, 1e-9)
        return f"{self.total.numbers / seconds:,.0f} numbers/s, {self.total.primes / seconds:,.0f} primes/s"


class Bar:
    """Shows a tally on a terminal while it grows."""

    def __init__(self, progress: Progress, numbers: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=numbers, rates="")
        self._started = monotonic()
        self._shown = 0.0

    def show(self, tally: Tally) -> None:
        """Draw `tally`, unless the last drawing is very fresh."""
        now = monotonic()
        if now - self._shown < REFRESH_SECONDS:
            return
        self._shown = now
        rates = tally.rates(now - self._started)
        self._progress.update(self._task, completed=tally.total.numbers, rates=rates, refresh=True)


@contextmanager
def open_bar(console: Console, numbers: int, *, wanted: bool) -> Iterator[Bar]:
    """Show a progress bar up to `numbers` on `console` while the block runs; nothing if not `wanted`."""
    columns = (BarColumn(20), TaskProgressColumn(), TextColumn("{task.fields[rates]}"), TimeRemainingColumn())
    # Drawn by the program and not by a thread of rich's, which would wait for a worker of this very process.
    with Progress(
        *columns, console=console, auto_refresh=False, transient=True, disable=not wanted
    ) as progress:
        yield Bar(progress, numbers)
