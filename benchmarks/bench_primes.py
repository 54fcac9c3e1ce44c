"""How long the prime search takes: plain loop, one process, several, and what others do with two processes.

    python benchmarks/bench_primes.py                 five rounds, about a minute
    python benchmarks/bench_primes.py --rounds 9 --save
    python benchmarks/bench_primes.py --sweep         sizes of chunks, and the one that the search chooses

All forms search the same range by trial division and send all primes back. The others get it cut into chunks that
take about 0.1 s each, with the same function; the search cuts it by itself. Each measurement runs in a
fresh interpreter of its own; the rounds are interleaved, so that a machine that gets slower or busier
meanwhile does so for all forms. Two times are taken of each: `work` begins when every worker process is up
and has imported the function, `start` is what it took until there, the starting interpreter's own imports
left out. `cpu` is the processor time of all processes during `work` (Linux only): what a form costs on a machine that
others use as well, where `work` says more about them.
"""

import argparse
import math
import os
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from measuring import (
    ROOT,
    Missing,
    Target,
    machine,
    record_of,
    rotated,
    run_apart,
    save,
    show_targets,
    spread,
    tell,
)

FORMS = ("loop", "here", "processes:1", "processes:2", "pool:2", "futures:2", "ray:2")
SWEEP = ("chunk:100", "chunk:1000", "chunk:10000", "chunk:100000", "chunk:auto")
OTHERS = ("pool:2", "futures:2", "ray:2")
KNOWN = {1_000_000: 78498, 2_000_000: 148933}  # hi -> primes in [1, hi)


class Times(NamedTuple):
    """Seconds of one measurement."""

    start: float
    work: float
    cpu: float  # of all processes, during the work
    idle: float = 0.0  # of the work: how much of it the average worker had nothing to do at the end

    @property
    def both(self) -> float:
        return self.start + self.work


# ---------------------------------------------------------------------- one measurement, in its own process


def measure(form: str, hi: int) -> tuple[Times, int]:
    """Run one form; return its times and how many primes it found."""
    from examples.primes.arithmetic import partition, suitable_chunk

    pieces = list(partition(1, hi, suitable_chunk(1, hi)))
    if form == "loop":
        return measure_loop(pieces)
    others = {"pool:2": measure_pool, "futures:2": measure_futures, "ray:2": measure_ray}
    if form in others:
        return others[form](pieces)
    if form in SWEEP:
        size = form.partition(":")[2]
        return measure_place("processes:2", hi, None if size == "auto" else int(size))
    return measure_place(form, hi)


def measure_loop(pieces: Iterable[tuple[int, int]]) -> tuple[Times, int]:
    work = Stopwatch()
    count = sum(len(primes_of(piece)) for piece in pieces)
    return Times(0.0, *work.read()), count


def measure_pool(pieces: Iterable[tuple[int, int]]) -> tuple[Times, int]:
    import multiprocessing

    opened = perf_counter()
    with multiprocessing.Pool(2) as pool:
        pool.map(primes_of, [(0, 3)] * 8, chunksize=1)  # until the workers are up
        start, work = perf_counter() - opened, Stopwatch()
        count = sum(len(primes) for primes in pool.imap(primes_of, pieces))
        return Times(start, *work.read()), count


def measure_futures(pieces: Iterable[tuple[int, int]]) -> tuple[Times, int]:
    from concurrent.futures import ProcessPoolExecutor

    opened = perf_counter()
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(primes_of, [(0, 3)] * 8))
        start, work = perf_counter() - opened, Stopwatch()
        count = sum(len(primes) for primes in pool.map(primes_of, pieces))
        return Times(start, *work.read()), count


def measure_ray(pieces: Iterable[tuple[int, int]]) -> tuple[Times, int]:
    try:
        import ray
    except ImportError as error:
        raise Missing(str(error)) from None
    opened = perf_counter()
    ray.init(num_cpus=2, log_to_driver=False, logging_level="error", include_dashboard=False)
    search = ray.remote(primes_of)
    ray.get([search.remote((0, 3)) for _ in range(8)])
    start, work = perf_counter() - opened, Stopwatch()
    count = sum(len(primes) for primes in ray.get([search.remote(piece) for piece in pieces]))
    times = Times(start, *work.read())
    ray.shutdown()
    return times, count


def measure_place(form: str, hi: int, chunk: int | None = None) -> tuple[Times, int]:
    from examples.primes.search import find_primes
    from net import open_place

    opened = perf_counter()
    with open_place(form) as place:
        for _ in find_primes(place, 0, 8 * place.size, chunk=1):  # until the workers are up
            pass
        start, work = perf_counter() - opened, Stopwatch()
        count, last = 0, {}  # worker -> when its last chunk was there
        for answer in find_primes(place, 1, hi, chunk=chunk, ordered=False):
            count += len(answer.primes)
            last[answer.worker] = answer.at
        seconds, cpu = work.read()
        end = max(last.values())
        idle = sum(end - at for at in last.values()) / len(last) / seconds
        return Times(start, seconds, cpu, idle), count


class Stopwatch:
    """Measures from when it is made: seconds, and processor seconds of this process and all that it started."""

    def __init__(self) -> None:
        self._cpu = processor_seconds()
        self._begun = perf_counter()

    def read(self) -> tuple[float, float]:
        """Return both; what the processes that ended meanwhile used is left out."""
        return perf_counter() - self._begun, processor_seconds() - self._cpu


def processor_seconds() -> float:
    """Add up what every thread of this process and of its descendants was given; nan where /proc does not say."""
    pids, nanoseconds = [os.getpid()], 0
    for pid in pids:  # grows
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                nanoseconds += int((task / "schedstat").read_text().split()[0])
                pids += map(int, (task / "children").read_text().split())
        except OSError:
            if pid == os.getpid():
                return math.nan
    return nanoseconds / 1e9


def primes_of(piece: tuple[int, int]) -> tuple[int, ...]:
    from examples.primes.arithmetic import primes_in

    return primes_in(*piece)


# ----------------------------------------------------------------------------------- all of them, in rounds


def run_rounds(forms: Sequence[str], rounds: int, hi: int) -> tuple[dict[str, list[Times]], dict[str, str]]:
    """Measure every form `rounds` times, interleaved, each round beginning with another form.

    Returns the times, and why some forms could not be measured.
    """
    times: dict[str, list[Times]] = {form: [] for form in forms}
    missing: dict[str, str] = {}
    for number in range(rounds):
        for form in rotated([form for form in forms if form not in missing], number):
            try:
                times[form].append(measure_apart(form, hi))
            except Missing as reason:
                missing[form] = str(reason)
                continue
            print(
                f"  round {number + 1} of {rounds}: {form:12} {times[form][-1].work:7.3f} s", file=sys.stderr
            )
    return {form: each for form, each in times.items() if each}, missing


def measure_apart(form: str, hi: int) -> Times:
    """Measure one form in a fresh interpreter. Raises SystemExit when it fails or counts wrongly."""
    times, count = run_apart(__file__, "--one", form, "--hi", str(hi))
    if count != KNOWN.get(hi, count):
        raise SystemExit(f"error: {form} found {count} primes in [1, {hi}), there are {KNOWN[hi]}")
    return Times(*times)


def judge(times: dict[str, list[Times]]) -> list[Target]:
    """Compare with what is promised. Starting is left out, as it does not grow with the work."""

    def ratio(form: str, other: str, part: str = "work") -> float | None:
        # Of the rounds' ratios and not of two medians: within a round the machine is most like itself.
        if other not in times or (math.isnan(times[form][0].cpu) and part == "cpu"):
            return None
        return statistics.median(
            getattr(mine, part) / getattr(its, part)
            for mine, its in zip(times[form], times[other], strict=True)
        )

    return [
        Target("processes:2 is faster than here", ratio("here", "processes:2"), 1.85, True),
        *(
            Target(f"processes:2 against {other}", ratio("processes:2", other), 1.0, False)
            for other in OTHERS
        ),
        Target("processes:1 against the plain loop", ratio("processes:1", "loop"), 1.05, False),
        Target("here against the plain loop", ratio("here", "loop"), 1.03, False),
        Target("here against the plain loop, processor time", ratio("here", "loop", "cpu"), 1.03, False),
        Target(
            "processes:2, idle at the end",
            statistics.median(one.idle for one in times["processes:2"]),
            0.05,
            False,
        ),
    ]


def judge_sweep(times: dict[str, list[Times]]) -> list[Target]:
    """Compare the size that the search chooses with the best of the others (PRI-04)."""
    medians = {form: statistics.median(one.work for one in each) for form, each in times.items()}
    best = min(medians[form] for form in SWEEP[:-1])
    return [Target("chunk:auto against the best size", medians["chunk:auto"] / best, 1.1, False)]


def show(times: dict[str, list[Times]], missing: dict[str, str], targets: list[Target]) -> None:
    """Print the medians of the seconds, and the ratios."""
    print(f"{'form':12} {'start':>8} {'work':>8} {'both':>8} {'cpu':>8}   work, least to most")
    for form, each in times.items():
        seconds = (statistics.median(getattr(one, part) for one in each) for part in PARTS)
        span = f"{min(one.work for one in each):.3f} .. {max(one.work for one in each):.3f}"
        print(f"{form:12}", *(f"{one:7.3f}s" for one in seconds), f"  {span}")
    for form, reason in missing.items():
        print(f"not measured: {form}: {reason}")
    show_targets(targets)


PARTS = ("start", "work", "both", "cpu")


def save_figures(times: dict[str, list[Times]], targets: list[Target], hi: int) -> Path:
    """Write everything to results/ under today's date and return the path."""
    seconds = {
        form: {part: spread([getattr(one, part) for one in each]) for part in PARTS}
        for form, each in times.items()
    }
    record = {
        "range": [1, hi],
        "machine": machine(),
        "seconds": seconds,
        "ratios_of_work": record_of(targets),
    }
    return save(record, "primes")


def main() -> None:
    """Read the options, measure, print, and save when asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each form is measured (default 5)")
    parser.add_argument("--hi", type=int, default=2_000_000, help="the range is [1, HI) (default 2000000)")
    parser.add_argument("--sweep", action="store_true", help="compare sizes of chunks instead (PRI-04)")
    parser.add_argument("--save", action="store_true", help="write the figures to benchmarks/results/")
    parser.add_argument("--one", choices=(*FORMS, *SWEEP), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        tell(lambda: measure(options.one, options.hi))
        return
    if options.rounds < 1:
        parser.error(f"{options.rounds} rounds measure nothing; give 1 or more")
    forms = SWEEP if options.sweep else FORMS
    rounds, missing = run_rounds(forms, options.rounds, options.hi)
    targets = judge_sweep(rounds) if options.sweep else judge(rounds)
    show(rounds, missing, targets)
    if options.save and not options.sweep:
        print(f"saved: {save_figures(rounds, targets, options.hi).relative_to(ROOT)}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
