"""The picture of a simulated day: how long each visit took, and when what went wrong (needs matplotlib)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from examples.atm.report import quantile

if TYPE_CHECKING:
    from examples.atm.simulate import Day

COLOURS = {"kill": "tab:red", "hang": "tab:purple", "cut": "tab:orange"}
WORDS = {"kill": "bank killed, until it is back", "hang": "bank hangs", "cut": "line cut"}


def draw_day(day: Day, path: Path) -> None:
    """Draw latency over time with the faults marked, and write it to `path`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(
        [moment - day.began for moment in day.moments],
        [1e3 * seconds for seconds in day.seconds],
        s=4,
        alpha=0.5,
        linewidths=0,
        label=f"one visit ({len(day.moments)})",
    )
    for what in WORDS:
        spans = [fault for fault in day.faults if fault.what == what]
        for number, fault in enumerate(spans):
            label = f"{WORDS[what]} ({len(spans)})" if number == 0 else None
            began, ended = fault.began - day.began, fault.ended - day.began
            axes.axvline(began, color=COLOURS[what], linewidth=1, label=label)
            axes.axvspan(began, ended, color=COLOURS[what], alpha=0.15, linewidth=0)
    axes.set(xlabel="seconds since the day began", ylabel="milliseconds a visit took", yscale="log")
    axes.set_title(f"p50 {quantile(day.seconds, 50)}, p99 {quantile(day.seconds, 99)}")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=120)
