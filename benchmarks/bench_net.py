"""What a message between two processes costs: this package beside bare sockets and eight others.

    python benchmarks/bench_net.py                    three rounds, some minutes
    python benchmarks/bench_net.py --quick --only net --only gevent

The message is ("deposit", "acct-17", 125, 42), over TCP on the loopback interface (multiprocessing.Pipe and execnet
bring their own pipes). Each system runs in two fresh processes, twice per round: with both on one core, which shows
what both ends cost together, and where the operating system puts them (free), which is what a user sees.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from measuring import (
    ROOT,
    Missing,
    Target,
    machine,
    ratio,
    record_of,
    rotated,
    run_apart,
    save,
    show_targets,
    spread,
    tell,
    write_json,
)
from net_systems import MESSAGE, SERVERS, SYSTEMS, System, Times

PLACEMENTS = ("one core", "free")
OURS, BASE = "net", "gevent"
OURS_OVER_TLS = "net-tls"  # reported beside it
PAYLOAD_BYTES = 64 * 1024
LARGE_BYTES = (64 << 20) - 64  # with what stands before it as much as `net` takes without being told
ROUNDS_OF_RAY = 1  # its daemons take seconds to start, and its figures are of another order
PATIENCE = 150  # seconds for one system in one placement, over and above what it measures


class Metric(NamedTuple):
    """A column: what it is called, its unit, and how its figures are shown."""

    title: str
    unit: str
    shown: str


METRICS = {
    "round_trip": Metric("round trip", "us", ".1f"),
    "round_trip_p99": Metric("its p99", "us", ".0f"),
    "taken_send": Metric("taken send", "us", ".1f"),
    "requests": Metric("64 outst.", "req/s", ",.0f"),
    "one_way": Metric("one way", "msg/s", ",.0f"),
    "bulk": Metric("64 KiB", "MB/s", ",.0f"),
    "large_p50": Metric("by large p50", "ms", ".2f"),
    "large_p99": Metric("by large p99", "ms", ".2f"),
    "resume": Metric("resume", "ms", ".2f"),
    "per_reference": Metric("reference", "KB", ".1f"),
    "per_connection": Metric("connection", "KB", ".1f"),
}
QUESTIONS = ("round-trip", "taken-send", "requests", "one-way", "bulk", "large", "resume", "memory")


# ---------------------------------------------------------------------- one measurement, in its own processes


def measure(
    name: str, placement: str, seconds: float, large_bytes: int, questions: list[str]
) -> dict[str, float]:
    """Start one system and ask it everything it can answer; return metric -> figure."""
    if placement == "one core":
        if not hasattr(os, "sched_setaffinity"):
            raise Missing("processes cannot be bound to a core here")
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the server inherits it
    figures: dict[str, float] = {}
    for some in (
        [one for one in questions if one != "memory"],
        [one for one in questions if one == "memory"],
    ):
        if some:  # memory is asked of a fresh server: large messages leave something behind
            with SYSTEMS[name]() as system:
                for question in some:
                    figures.update(ASK[question](system, seconds, large_bytes))
    return figures


def ask_round_trip(system: System, seconds: float, _: int) -> dict[str, float]:
    times = answers(system, "round_trips", seconds)
    return (
        {"round_trip": percentile(times, 50) * 1e6, "round_trip_p99": percentile(times, 99) * 1e6}
        if times
        else {}
    )


def ask_taken_send(system: System, seconds: float, _: int) -> dict[str, float]:
    times = answers(system, "taken_sends", seconds)
    return {"taken_send": percentile(times, 50) * 1e6} if times else {}


def ask_requests(system: System, seconds: float, _: int) -> dict[str, float]:
    rate = answers(system, "requests", seconds)
    return {"requests": rate} if rate else {}


def ask_one_way(system: System, seconds: float, _: int) -> dict[str, float]:
    rate = answers(system, "one_way", seconds, MESSAGE)
    return {"one_way": rate} if rate else {}


def ask_bulk(system: System, seconds: float, _: int) -> dict[str, float]:
    rate = answers(system, "one_way", seconds, os.urandom(PAYLOAD_BYTES))
    return {"bulk": rate * PAYLOAD_BYTES / 1e6} if rate else {}


def ask_large(system: System, seconds: float, large_bytes: int) -> dict[str, float]:
    # First without looking: memory that a machine has not used yet takes it milliseconds.
    answers(system, "beside_large", seconds / 3, large_bytes)
    times = answers(system, "beside_large", seconds, large_bytes)
    return (
        {"large_p50": percentile(times, 50) * 1e3, "large_p99": percentile(times, 99) * 1e3} if times else {}
    )


def ask_resume(system: System, seconds: float, _: int) -> dict[str, float]:
    times = answers(system, "resumes", seconds)
    return {"resume": percentile(times, 50) * 1e3} if times else {}


def ask_memory(system: System, _: float, __: int) -> dict[str, float]:
    sizes = answers(system, "memory") or (None, None)
    named = zip(("per_reference", "per_connection"), sizes, strict=True)
    return {metric: size / 1e3 for metric, size in named if size is not None}


ASK: dict[str, Callable[[System, float, int], dict[str, float]]] = dict(
    zip(
        QUESTIONS,
        (
            ask_round_trip,
            ask_taken_send,
            ask_requests,
            ask_one_way,
            ask_bulk,
            ask_large,
            ask_resume,
            ask_memory,
        ),
        strict=True,
    )
)


def answers(system: System, question: str, *details: Any) -> Any:
    """Let a system answer; None when it has no such thing."""
    method = getattr(system, question, None)
    return None if method is None else method(*details)


def percentile(times: Times, percent: int) -> float:
    return sorted(times)[min(len(times) - 1, len(times) * percent // 100)]


# ----------------------------------------------------------------------------------- all of them, in rounds


class Figures(NamedTuple):
    """What was measured: placement -> system -> metric -> one value per round, and why the others were not."""

    values: dict[str, dict[str, dict[str, list[float]]]]
    missing: dict[str, str]

    def of(self, placement: str, system: str, metric: str) -> list[float]:
        return self.values.get(placement, {}).get(system, {}).get(metric, [])

    def median(self, placement: str, system: str, metric: str) -> float | None:
        values = self.of(placement, system, metric)
        return statistics.median(values) if values else None

    def ratio(self, placement: str, metric: str, base: str = BASE, system: str = OURS) -> float | None:
        return ratio(self.of(placement, system, metric), self.of(placement, base, metric))


def run_rounds(options: argparse.Namespace, systems: list[str], questions: list[str]) -> Figures:
    """Measure everything, interleaved."""
    figures = Figures({placement: {} for placement in options.placement}, {})
    for number in range(options.rounds):
        for system in rotated(systems, number):
            if system in figures.missing or (system == "ray" and number >= ROUNDS_OF_RAY):
                continue
            for placement in options.placement:
                measure_apart(figures, system, placement, options, questions)
        print(f"  round {number + 1} of {options.rounds} done", file=sys.stderr)
    return figures


def measure_apart(
    figures: Figures, system: str, placement: str, options: argparse.Namespace, questions: list[str]
) -> None:
    details = [str(options.seconds), str(options.large_bytes), ",".join(questions)]
    patience = PATIENCE + 2 * len(questions) * options.seconds
    try:
        found = run_apart(__file__, "--one", system, placement, *details, patience=patience)
    except Missing as reason:
        figures.missing.setdefault(system, str(reason))
        return
    except SystemExit as failure:
        if system == OURS:
            raise
        figures.missing.setdefault(system, str(failure))  # a peer's troubles do not end our measurement
        return
    ours = figures.values[placement].setdefault(system, {})
    for metric, value in found.items():
        ours.setdefault(metric, []).append(value)


def judge(figures: Figures, placements: list[str]) -> list[Target]:
    """Compare with what is promised."""
    targets = []
    for placement in placements:
        peers = [system for system in figures.values[placement] if system not in (OURS, OURS_OVER_TLS)]
        best = max(peers, key=lambda one: figures.median(placement, one, "one_way") or 0.0, default=BASE)
        targets += [
            Target(f"{placement}: round trip against gevent", figures.ratio(placement, "round_trip"), 1.2, False),
            Target(f"{placement}: 64 outstanding against gevent", figures.ratio(placement, "requests"), 2.5, True),
            Target(f"{placement}: one way against Pipe", figures.ratio(placement, "one_way", "pipe"), 4, True),
            Target(f"{placement}: one way against best, {best}", figures.ratio(placement, "one_way", best), 1, True),
            Target(f"{placement}: 64 KiB against gevent", figures.ratio(placement, "bulk"), 2, True),
            Target(f"{placement}: p99 beside large, ms", figures.median(placement, OURS, "large_p99"), 0.5, False),
        ]  # fmt: skip
    first = placements[0]
    return [
        *targets,
        Target("KB per idle reference", figures.median(first, OURS, "per_reference"), 10, False),
        Target("KB per idle connection", figures.median(first, OURS, "per_connection"), 64, False),
    ]


# ------------------------------------------------------------------------------------------------ the output


def show(figures: Figures) -> None:
    """Print a table per placement: a row per system, a column per metric."""
    for placement, systems in figures.values.items():
        where = "both ends on one core" if placement == "one core" else "free placement"
        print(f"\n{where}; medians, in parentheses how many times bare gevent sockets\n")
        print(f"{'':9}" + "".join(f"{metric.title:>17}" for metric in METRICS.values()))
        print(f"{'':9}" + "".join(f"{metric.unit:>17}" for metric in METRICS.values()))
        for system in systems:
            cells = "".join(f"{cell(figures, placement, system, metric):>17}" for metric in METRICS)
            print(f"{system:9}{cells}")
    print()
    for system, reason in figures.missing.items():
        print(f"not measured: {system}: {reason}")


def cell(figures: Figures, placement: str, system: str, metric: str) -> str:
    value = figures.median(placement, system, metric)
    if value is None:
        return "-"
    times = figures.ratio(placement, metric, system=system)
    beside = "" if system == BASE or times is None else f" ({times:.2f})"
    return f"{value:{METRICS[metric].shown}}{beside}"


def record(figures: Figures, targets: list[Target], options: argparse.Namespace) -> dict[str, Any]:
    """Return everything as JSON has it."""
    return {
        "machine": machine(),
        "seconds": options.seconds,
        "large_bytes": options.large_bytes,
        "placements": {
            placement: {
                system: {
                    metric: {
                        "unit": METRICS[metric].unit,
                        **spread(values),
                        "ratio_to_gevent": figures.ratio(placement, metric, system=system),
                    }
                    for metric, values in by_metric.items()
                }
                for system, by_metric in systems.items()
            }
            for placement, systems in figures.values.items()
        },
        "missing": figures.missing,
        "targets": record_of(targets),
    }


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--rounds", type=int, help="how often everything is measured (default 3; 1 with --quick)"
    )
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--seconds", type=float, help="for each question (default 1; 0.3 with --quick)")
    parser.add_argument(
        "--large-bytes",
        type=int,
        default=LARGE_BYTES,
        metavar="N",
        help="of a large message (default 64 MiB)",
    )
    parser.add_argument(
        "--placement", action="append", choices=PLACEMENTS, help="only this one (default: both)"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", choices=[*SYSTEMS, *QUESTIONS],
        help=f"a system ({', '.join(SYSTEMS)}) or a question ({', '.join(QUESTIONS)}); may be repeated",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--save", action="store_true", help="write the figures to benchmarks/results/")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.rounds = options.rounds if options.rounds is not None else 1 if options.quick else 3
    options.seconds = options.seconds if options.seconds is not None else 0.3 if options.quick else 1.0
    options.placement = options.placement or list(PLACEMENTS)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error(
            f"{options.rounds} rounds of {options.seconds:g} s measure nothing; give 1 or more, and more than 0 s"
        )
    return options


def main() -> None:
    """Read the options, measure, print, and save when asked to."""
    options = read_options()
    if options.serve:
        SERVERS[options.serve]()
        return
    if options.one:
        system, placement, seconds, large_bytes, questions = options.one
        tell(lambda: measure(system, placement, float(seconds), int(large_bytes), questions.split(",")))
        return
    systems = [name for name in SYSTEMS if name in options.only] or list(SYSTEMS)
    questions = [name for name in QUESTIONS if name in options.only] or list(QUESTIONS)
    figures = run_rounds(options, systems, questions)
    targets = judge(figures, options.placement)
    show(figures)
    show_targets(targets)
    if options.json:
        write_json(record(figures, targets, options), options.json)
    if options.save:
        print(f"saved: {save(record(figures, targets, options), 'net').relative_to(ROOT)}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
