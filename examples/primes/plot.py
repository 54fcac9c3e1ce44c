"""The picture of a search: who computed which chunk when, and how much faster that was than one (needs matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from examples.primes.backlog import Answer


def speedup_over_time(answers: Sequence[Answer], started: float) -> tuple[list[float], list[float]]:
    """Return moments, and what had been computed until each by how long it had taken: the speed-up so far."""
    times, factors, computed = [], [], 0.0
    for answer in sorted(answers, key=lambda answer: answer.at):
        computed += answer.seconds
        times.append(answer.at - started)
        factors.append(computed / max(answer.at - started, 1e-9))
    return times, factors


def draw_search(answers: Sequence[Answer], started: float, path: Path) -> None:
    """Draw the chunks of each worker along the time since `started`, and the speed-up, to `path`."""
    from matplotlib.figure import Figure

    workers = sorted({answer.worker for answer in answers})
    figure = Figure(figsize=(10, 2.5 + 0.5 * len(workers)), layout="constrained")
    gantt, curve = figure.subplots(2, 1, sharex=True, height_ratios=[max(1, len(workers)), 2])
    for row, worker in enumerate(workers):
        for again, colours in ((False, ("tab:blue", "tab:cyan")), (True, ("tab:red", "tab:orange"))):
            mine = [one for one in answers if one.worker == worker and (one.attempt > 1) == again]
            # In two shades, as neighbours would not be told apart.
            gantt.broken_barh(
                [(one.at - one.seconds - started, one.seconds) for one in mine],
                (row - 0.4, 0.8),
                facecolors=[colours[one.index % 2] for one in mine],
            )
    gantt.set_yticks(range(len(workers)), workers)
    gantt.set_title(f"{len(answers)} chunks (red: done again)")
    curve.plot(*speedup_over_time(answers, started))
    curve.axhline(len(workers), color="tab:gray", linestyle=":")
    curve.set(xlabel="seconds", ylabel="speed-up", ylim=(0, max(1, len(workers)) * 1.1))
    figure.savefig(path, dpi=120)
