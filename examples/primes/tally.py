"""What was found so far, in total and by worker, and how it is shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

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
    """Shows a tally on a terminal while it grows: how far it is, and what each worker does (PRI-12)."""

    def __init__(self, live: Live, numbers: int) -> None:
        self._live = live
        self._progress = Progress(
            BarColumn(20), TaskProgressColumn(), TextColumn("{task.fields[rates]}"), TimeRemainingColumn()
        )
        self._task = self._progress.add_task("", total=numbers, rates="")
        self._started = monotonic()
        self._shown = 0.0

    def show(self, tally: Tally) -> None:
        """Draw `tally`, unless the last drawing is very fresh."""
        now = monotonic()
        if now - self._shown < REFRESH_SECONDS:
            return
        self._shown = now
        seconds = now - self._started
        self._progress.update(self._task, completed=tally.total.numbers, rates=tally.rates(seconds))
        self._live.update(Group(self._progress, make_table(tally, seconds)), refresh=True)


def make_table(tally: Tally, seconds: float) -> Table:
    """Lay out what each worker has done in `seconds`; the rates add up to the whole one."""
    table = Table("worker", "chunks", "numbers/s", "primes/s", "busy", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    seconds = max(seconds, 1e-9)
    for worker, share in sorted(tally.shares.items()):
        rates = (f"{count / seconds:,.0f}" for count in (share.numbers, share.primes))
        table.add_row(worker, str(share.chunks), *rates, f"{min(1.0, share.seconds / seconds):.0%}")
    return table


@contextmanager
def open_bar(console: Console, numbers: int, *, wanted: bool) -> Iterator[Bar]:
    """Show the progress up to `numbers` on `console` while the block runs; nothing if not `wanted`."""
    # Drawn by the program and not by a thread of rich's, which would wait for a worker of this very process.
    live = Live(console=console if wanted else Console(quiet=True), auto_refresh=False, transient=True)
    with live:
        yield Bar(live, numbers)
