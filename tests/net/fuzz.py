"""Fuzz net, guided by coverage: `python -m tests.net.fuzz --seconds 600`.

Atheris (libFuzzer) changes inputs of the corpus and keeps those that reach new places in net's sources. What it finds
in the time is added to `tests/net/corpus`, made as small as it goes, and test_fuzz repeats it. An input that breaks a
promise is written beside as `crash-...` and ends the run with 1.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = (  # all that the bytes of a peer pass through
    *("_wire", "_apart", "_codec", "_extensions", "_handshake", "_protocol", "_session", "_bulk", "_window"),
    *("_link", "_operations", "_exports", "_entries", "_offers", "_references", "_spawning", "_failures", "_recovery"),
)
MAX_MEGABYTES: Final = 1024  # of the whole process: libFuzzer ends it beyond, as a fault
MAX_SECONDS: Final = 20  # for one input: a hang beyond
MAX_BYTES: Final = 1500  # of one input: some hundred frames


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.net.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help="bytes, handshake, frames; all of them without")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn; 0: another one each time")
    parser.add_argument("--keep", action="store_true", help="add what reached new places to the corpus")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # this process is to fuzz one target
    arguments, rest = parser.parse_known_args()
    if arguments.one:
        fuzz(arguments.one, rest)
    from tests.net.fuzz_targets import CORPUS, TARGETS

    names = arguments.targets or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no targets: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    weights = {name: 4 if name == "frames" else 2 if name == "bytes" else 1 for name in names}
    worst = 0
    for name in names:
        seconds = max(1, round(arguments.seconds * weights[name] / sum(weights.values())))
        worst = max(worst, run(name, Path(CORPUS) / name, seconds, arguments.seed, arguments.keep))
    return worst


def run(name: str, corpus: Path, seconds: int, seed: int, keep: bool) -> int:
    """Fuzz one target in a process of its own: libFuzzer ends its process."""
    environment = {**os.environ, "TASKLETS_PURE": "1", "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    fuzzer = [sys.executable, "-m", "tests.net.fuzz", "--one", name]
    limits = [f"-rss_limit_mb={MAX_MEGABYTES}", f"-timeout={MAX_SECONDS}", f"-artifact_prefix={corpus}/"]
    limits += [f"-max_len={MAX_BYTES}", "-len_control=20"]
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as grown:
        print(f"== {name}: {seconds} s", flush=True)
        code = subprocess.run(
            [*fuzzer, *limits, f"-max_total_time={seconds}", f"-seed={seed}", "-print_final_stats=1", grown, str(corpus)],
            env=environment,
            cwd=ROOT,
            check=False,
        ).returncode
        if keep and code == 0:
            with tempfile.TemporaryDirectory() as small:
                merge = [*fuzzer, *limits, "-merge=1", small, str(corpus), grown]
                subprocess.run(merge, env=environment, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
                shutil.rmtree(corpus)
                shutil.copytree(small, corpus)
    return 1 if code else 0


def fuzz(name: str, arguments: list[str]) -> None:
    """Let libFuzzer call a target in this process; does not return."""
    import atheris  # type: ignore[import-not-found,unused-ignore]  # of the extra "fuzz"

    from tests.net.fuzz_targets import TARGETS

    for source in SOURCES:
        _instrument(sys.modules[f"net.{source}"], atheris)
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


def _instrument(module: ModuleType, atheris: Any) -> None:
    """Have the functions of a module report where they come. Not while it is imported: net chooses itself how it loads."""
    if not str(module.__file__).endswith(".py"):
        raise RuntimeError(f"{module.__name__} is compiled; run it with TASKLETS_PURE=1")
    done: set[CodeType] = set()
    for function in _functions(module, module.__name__):
        if function.__code__ not in done:
            atheris.instrument_func(function)
            done.add(function.__code__)


def _functions(holder: Any, module: str) -> list[FunctionType]:
    found: list[FunctionType] = []
    for one in vars(holder).values():
        if isinstance(one, property):
            found += [each for each in (one.fget, one.fset) if isinstance(each, FunctionType)]
        elif isinstance(one, (staticmethod, classmethod)):
            found += [one.__func__] if isinstance(one.__func__, FunctionType) else []
        elif isinstance(one, FunctionType) and one.__module__ == module:
            found.append(one)
        elif isinstance(one, type) and one.__module__ == module and not isinstance(holder, type):
            found += _functions(one, module)
    return found


if __name__ == "__main__":
    sys.exit(main())
