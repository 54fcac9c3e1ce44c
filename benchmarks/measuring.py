"""What all measurements here share: fresh interpreters, interleaved rounds, medians, and promises to judge.

    for system in rotated(SYSTEMS, number):       # each round begins with another one
        figures[system].append(run_apart(__file__, "--one", system))
    targets = [Target("pure ping-pong against greenlet", ratio(ours, greenlet), 3.0, at_least=False)]
    show_targets(targets)

A machine that gets slower or busier meanwhile does so for everybody in the round, so what is compared is
always taken from one round: `ratio` is the median of the rounds' ratios.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

_T = TypeVar("_T")


class Missing(Exception):
    """A system that cannot be measured here, and why."""


class Target(NamedTuple):
    """A ratio that is promised, and what was measured; None: could not be."""

    text: str
    ratio: float | None
    limit: float
    at_least: bool

    @property
    def met(self) -> bool | None:
        if self.ratio is None:
            return None
        return self.ratio >= self.limit if self.at_least else self.ratio <= self.limit

    @property
    def verdict(self) -> str:
        return {True: "met", False: "MISSED", None: "not measured"}[self.met]

    @property
    def rule(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g}"


def show_targets(targets: Sequence[Target]) -> None:
    """Print one line per target."""
    for target in targets:
        value = "-" if target.ratio is None else f"{target.ratio:.3f}"
        print(f"{target.text}: {value} ({target.rule}: {target.verdict})")


def record_of(targets: Sequence[Target]) -> dict[str, dict[str, Any]]:
    """Return the targets as JSON has them."""
    return {
        target.text: {
            "ratio": None if target.ratio is None else round(target.ratio, 4),
            "limit": target.limit,
            "at_least": target.at_least,
            "met": target.met,
        }
        for target in targets
    }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Return the median of the rounds' ratios; None when one side was not measured."""
    pairs = [(mine, other) for mine, other in zip(ours, theirs, strict=False) if other]
    return statistics.median(mine / other for mine, other in pairs) if pairs else None


def rotated(forms: Sequence[_T], number: int) -> list[_T]:
    """Return all forms, beginning with another one in each round: nobody is always the first."""
    turn = number % len(forms)
    return [*forms[turn:], *forms[:turn]]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return the median and all values, as JSON has them."""
    return {"median": round(statistics.median(values), 4), "all": [round(value, 4) for value in values]}


# ------------------------------------------------------------------------------------------------- arguments


def make_parser(about: str | None, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with what measurements of several systems are told; `keep` does what they say of the figures."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"{rounds} if not said")
    parser.add_argument(
        "--only", action="append", metavar="SYSTEM", help="these systems only; several may be"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--save", action="store_true", help="write the figures to benchmarks/results/")
    return parser


def keep(record: dict[str, Any], options: argparse.Namespace, what: str) -> None:
    """Write a record where the arguments say."""
    if options.json:
        write_json(record, options.json)
    if options.save:
        save(record, what)


# ---------------------------------------------------------------------------------------- fresh interpreters


def run_apart(
    script: str, *arguments: str, variables: dict[str, str] | None = None, patience: float | None = None
) -> Any:
    """Run a script in a fresh interpreter and return the figures that it has told, by `tell`.

    Raises Missing when it told that there are none or took more than `patience` seconds, SystemExit when it failed.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.NamedTemporaryFile("r", encoding="utf-8", suffix=".json") as told:
        # A file, for some systems print what they like.
        environment = {
            **os.environ,
            **(variables or {}),
            "PYTHONPATH": os.pathsep.join(paths),
            _TOLD: told.name,
        }
        try:
            done = subprocess.run(
                [sys.executable, script, *arguments],
                stdout=sys.stderr,
                env=environment,
                check=False,
                timeout=patience,
            )
        except subprocess.TimeoutExpired:
            raise Missing(f"no result within {patience:g} s") from None
        text = told.read()
    if done.returncode == _MISSING:
        raise Missing(text)
    if done.returncode:
        raise SystemExit(
            f"error: the measurement {' '.join(arguments)} ended with exit code {done.returncode}; see above"
        )
    return json.loads(text)


_TOLD = "MEASUREMENT_TOLD"  # the file that waits for the figures
_MISSING = 75  # EX_TEMPFAIL: no usual way for an interpreter to end


def tell(measure: Callable[[], Any]) -> None:
    """In the fresh interpreter: measure, and tell whoever started it the figures, or why there are none (Missing).

    Without such a one they are printed.
    """
    path = os.environ.get(_TOLD)
    try:
        text, code = json.dumps(measure()), 0
    except Missing as reason:
        text, code = str(reason), _MISSING
    if path is None:
        print(text)
    else:
        Path(path).write_text(text, encoding="utf-8")
    if code:
        sys.exit(code)


# ------------------------------------------------------------------------------------------------- processes


def family(pid: int) -> Iterator[int]:
    """A process and all its descendants."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):  # each thread has its own
        with contextlib.suppress(OSError):
            for child in children.read_text(encoding="ascii").split():
                yield from family(int(child))


def cpu_seconds(pids: Iterable[int]) -> float:
    """How long these processes have computed. The clock ticks 100 times a second."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            ticks += sum(map(int, stat.read().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


# --------------------------------------------------------------------------------------------------- results


def machine() -> dict[str, Any]:
    """Describe the machine, without naming it."""
    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or an unusual one
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.system(),
        "cores": os.cpu_count(),
        "cpu": model or platform.machine(),
    }


def resident_bytes() -> int:
    """How much memory this process occupies now."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource  # no such thing as "now" there: the most it ever occupied

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def save(record: dict[str, Any], what: str) -> Path:
    """Write a record to results/ under today's date and return the path."""
    RESULTS.mkdir(exist_ok=True)
    return write_json(record, RESULTS / f"{date.today().isoformat()}-{what}.json")


def write_json(record: dict[str, Any], path: Path) -> Path:
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path
