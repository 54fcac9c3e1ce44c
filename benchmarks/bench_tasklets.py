"""What a message, a turn and a tasklet cost: this package beside bare greenlets, gevent, asyncio, goless, threads.

    python benchmarks/bench_tasklets.py               five rounds, a few minutes
    python benchmarks/bench_tasklets.py --quick --only ping-pong --only sieve

Every program runs in a fresh interpreter of its own, once to warm up and then for real. One round takes all
systems through one program before the next, so that what is compared ran within the same seconds. The figures
are medians of the rounds; the ratios are medians of each round's ratio to the bare greenlets of that round.
"""

import argparse
import statistics
import sys
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
from tasklet_systems import SYSTEMS


class Workload(NamedTuple):
    """A program, how large it is, and what is counted."""

    size: int
    unit: str
    text: str


WORKLOADS = {
    "ping-pong": Workload(200_000, "ns/message", "two tasklets and two channels, to and fro"),
    "producer-consumer": Workload(100_000, "ns/message", "one sends, one receives"),
    "yield-2": Workload(200_000, "ns/turn", "two tasklets that only give way"),
    "yield-1000": Workload(200_000, "ns/turn", "a thousand that only give way"),
    "spawn": Workload(20_000, "ns/tasklet", "begin it and let it end, by the hundred"),
    "ring": Workload(100_000, "ns/message", "a message goes round through a thousand tasklets"),
    "sieve": Workload(1_500, "ns/message", "primes below 1500: a chain of 239 filters"),
    "memory": Workload(100_000, "bytes/tasklet", "100,000 tasklets blocked on a channel"),
}
BASE = "greenlet"
# So much smaller are the programs of those that take so much longer; figures are per operation.
SMALLER = {"gevent": 4, "asyncio": 4, "goless": 8, "threads": 10}
ROUNDS_OF_THREADS = 2  # they are here for the order of magnitude
MOST_THREADS = 1000


# ---------------------------------------------------------------------- one measurement, in its own process


def measure(system: str, workload: str, scale: float) -> float:
    """Run one program of one system; return nanoseconds (or bytes) per operation."""
    program = SYSTEMS[system]()[workload]
    if workload == "memory":
        size = int(WORKLOADS[workload].size * scale)
        grown_by, count = program(min(size, MOST_THREADS) if system == "threads" else size)
        return grown_by / count
    size = size_of(system, workload, scale)
    program(max(2, size // 10))
    seconds, count = program(size)
    return seconds / count * 1e9


def size_of(system: str, workload: str, scale: float) -> int:
    full = WORKLOADS[workload].size
    if workload == "sieve":  # its work grows with more than the size, and the ratio with the depth
        return max(10, int(full * min(1.0, scale**0.5)))
    return max(2, int(full * scale) // SMALLER.get(system, 1))


# ----------------------------------------------------------------------------------- all of them, in rounds


class Figures(NamedTuple):
    """What was measured: system -> workload -> one value per round, and why the others were not."""

    values: dict[str, dict[str, list[float]]]
    missing: dict[str, str]

    def ratio(self, system: str, workload: str, base: str = BASE) -> float | None:
        mine = self.values.get(system, {}).get(workload)
        other = self.values.get(base, {}).get(workload)
        return ratio(mine, other) if mine and other else None


def run_rounds(rounds: int, scale: float, systems: list[str], workloads: list[str]) -> Figures:
    """Measure everything `rounds` times, interleaved."""
    figures = Figures({system: {} for system in systems}, {})
    for number in range(rounds):
        for workload in workloads:
            for system in rotated(systems, number):
                if system in figures.missing or (system == "threads" and number >= ROUNDS_OF_THREADS):
                    continue
                measure_apart(figures, system, workload, scale)
        print(f"  round {number + 1} of {rounds} done", file=sys.stderr)
    return figures


def measure_apart(figures: Figures, system: str, workload: str, scale: float) -> None:
    if system == "threads" and workload not in ("ping-pong", "producer-consumer", "spawn", "memory"):
        return
    variables = {"TASKLETS_PURE": "1"} if system == "pure" else {}
    try:
        value = run_apart(__file__, "--one", system, workload, str(scale), variables=variables)
    except Missing as reason:
        figures.missing[system] = str(reason)
    else:
        figures.values[system].setdefault(workload, []).append(value)


def judge(figures: Figures) -> list[Target]:
    """Compare the ratios with what is promised."""

    def against_greenlet(system: str, workload: str, limit: float) -> Target:
        return Target(f"{system}: {workload} against greenlet", figures.ratio(system, workload), limit, False)

    targets = [
        against_greenlet("compiled", "ping-pong", 1.1),
        against_greenlet("compiled", "yield-2", 1.1),
        against_greenlet("compiled", "yield-1000", 1.1),
        against_greenlet("compiled", "sieve", 1.2),
        against_greenlet("compiled", "spawn", 0.12),
        against_greenlet("compiled", "memory", 0.6),
        against_greenlet("pure", "ping-pong", 3.0),
        against_greenlet("pure", "spawn", 0.4),
    ]
    for other in ("gevent", "asyncio"):
        times = figures.ratio(other, "ping-pong", base="compiled")
        targets.append(Target(f"{other} against compiled: ping-pong", times, 12, True))
    return targets


# ------------------------------------------------------------------------------------------------ the output


def show(figures: Figures, workloads: list[str]) -> None:
    """Print a row per program and a column per system."""
    systems = [system for system, values in figures.values.items() if values]
    print("medians; in parentheses the ratio to greenlet in the same round\n")
    print(f"{'':18}{'':15}" + "".join(f"{system:>16}" for system in systems))
    for workload in workloads:
        cells = "".join(f"{cell(figures, system, workload):>16}" for system in systems)
        print(f"{workload:18}{WORKLOADS[workload].unit:15}{cells}")
    print()
    for system, reason in figures.missing.items():
        print(f"not measured: {system}: {reason}")


def cell(figures: Figures, system: str, workload: str) -> str:
    values = figures.values[system].get(workload)
    if not values:
        return "-"
    times = figures.ratio(system, workload)
    beside = "" if system == BASE or times is None else f" ({times:.2f})"
    return f"{statistics.median(values):.0f}{beside}"


def record(figures: Figures, targets: list[Target], scale: float) -> dict[str, Any]:
    """Return everything as JSON has it."""
    return {
        "machine": machine(),
        "scale": scale,
        "per_operation": {
            system: {
                workload: {
                    "unit": WORKLOADS[workload].unit,
                    **spread(values),
                    "ratio_to_greenlet": figures.ratio(system, workload),
                }
                for workload, values in by_workload.items()
            }
            for system, by_workload in figures.values.items()
            if by_workload
        },
        "missing": figures.missing,
        "targets": record_of(targets),
    }


def main() -> None:
    """Read the options, measure, print, and save when asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--rounds", type=int, help="how often everything is measured (default 5; 3 with --quick)"
    )
    parser.add_argument("--quick", action="store_true", help="smaller programs and fewer rounds")
    parser.add_argument(
        "--scale", type=float, help="how large the programs are (default 1; 0.2 with --quick)"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", choices=[*WORKLOADS, *SYSTEMS],
        help=f"a program ({', '.join(WORKLOADS)}) or a system ({', '.join(SYSTEMS)}); may be repeated",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--save", action="store_true", help="write the figures to benchmarks/results/")
    parser.add_argument("--one", nargs=3, metavar=("SYSTEM", "PROGRAM", "SCALE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        system, workload, scale = options.one
        tell(lambda: measure(system, workload, float(scale)))
        return
    rounds = options.rounds if options.rounds is not None else 3 if options.quick else 5
    scale = options.scale if options.scale is not None else 0.2 if options.quick else 1.0
    if rounds < 1 or scale <= 0:
        parser.error(f"{rounds} rounds of scale {scale:g} measure nothing; give 1 or more, and more than 0")
    workloads = [name for name in WORKLOADS if name in options.only] or list(WORKLOADS)
    systems = [name for name in SYSTEMS if name in options.only or name == BASE]
    if len(systems) == 1 and BASE not in options.only:
        systems = list(SYSTEMS)
    figures = run_rounds(rounds, scale, systems, workloads)
    targets = judge(figures)
    show(figures, workloads)
    show_targets(targets)
    if options.json:
        write_json(record(figures, targets, scale), options.json)
    if options.save:
        print(f"saved: {save(record(figures, targets, scale), 'tasklets').relative_to(ROOT)}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
