"""Fuzz net, guided by coverage: `python -m tests.net.fuzz --seconds 600`.

Atheris (libFuzzer) changes inputs of the corpus and keeps those that reach new places in net's sources. `--keep`
writes to `tests/net/corpus/TARGET.txt` (an input per line, base64) the shortest of all that reach every place, which
test_fuzz repeats. An input that breaks a promise is written beside, as `crash-...`, and ends the run with 1.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FunctionType
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
CORPUS: Final = Path(__file__).parent / "corpus"
SOURCES: Final = (  # all that the bytes of a peer pass through
    *(
        "_wire",
        "_apart",
        "_codec",
        "_extensions",
        "_handshake",
        "_protocol",
        "_session",
        "_bulk",
        "_landing",
        "_runway",
        "_window",
    ),
    *(
        "_link",
        "_large",
        "_dispatch",
        "_operations",
        "_exports",
        "_grants",
        "_entries",
        "_offers",
        "_references",
    ),
    *("_spawning", "_failures"),
)
SHARES: Final = {"bytes": 2, "handshake": 1, "frames": 4}  # of the time
MAX_MEGABYTES: Final = 1024  # of the whole process: beyond it libFuzzer ends it, as a fault
MAX_SECONDS: Final = 20  # for one input: beyond it hangs
MAX_BYTES: Final = 1500  # of one input: some hundred frames


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.net.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help=f"{', '.join(SHARES)}; all of them without")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument(
        "--runs", type=int, default=0, help="so many inputs for each target, however long it takes"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn; 0: another one each time")
    parser.add_argument("--keep", action="store_true", help="add what reached new places to the corpus")
    arguments = parser.parse_args()
    names = arguments.targets or list(SHARES)
    if unknown := set(names) - set(SHARES):
        parser.error(f"no targets: {', '.join(sorted(unknown))}; there are {', '.join(SHARES)}")
    worst = 0
    for name in names:
        seconds = max(1, round(arguments.seconds * SHARES[name] / sum(SHARES[each] for each in names)))
        limit = f"-runs={arguments.runs}" if arguments.runs else f"-max_total_time={seconds}"
        worst = max(worst, run(name, limit, arguments.seed, arguments.keep))
    return worst


def read_corpus(name: str) -> list[bytes]:
    path = CORPUS / f"{name}.txt"
    return [b64decode(line) for line in path.read_text().split()] if path.exists() else []


def run(name: str, limit: str, seed: int, keep: bool) -> int:
    """Fuzz one target in a process of its own: libFuzzer ends its process."""
    print(f"== {name}: {limit}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(read_corpus(name)):
            (Path(folder) / f"corpus-{number:04}").write_bytes(data)
        options = [f"-rss_limit_mb={MAX_MEGABYTES}", f"-timeout={MAX_SECONDS}", f"-artifact_prefix={CORPUS}/"]
        options += [f"-max_len={MAX_BYTES}", "-len_control=20", limit, f"-seed={seed}"]
        code = apart("fuzz", name, *options, "-print_final_stats=1", folder)
        distilled = apart("distil", name, folder, "write" if keep else "")
    return 1 if code or distilled else 0


def apart(*command: str) -> int:
    environment = {**os.environ, "TASKLETS_PURE": "1", "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    program = f"import sys; from tests.net import fuzz; fuzz.{command[0]}(*sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", program, *command[1:]], env=environment, check=False
    ).returncode


def fuzz(name: str, *options: str) -> None:
    """Let libFuzzer call a target in this process; does not return."""
    import atheris  # type: ignore[import-not-found,unused-ignore]

    from tests.net.fuzz_targets import TARGETS

    for function in _functions():
        atheris.instrument_func(function)
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


def distil(name: str, folder: str, write: str) -> None:
    """Find the shortest inputs that reach every place that those in a folder reach, and say how many places that is."""
    import atheris  # type: ignore[import-not-found,unused-ignore]
    from atheris.instrument_bytecode import (  # type: ignore[import-not-found,unused-ignore]
        patch_code,
    )

    from tests.net.fuzz_targets import TARGETS

    places: set[int] = set()
    reserve: Callable[[], int] = atheris._reserve_counter
    atheris._reserve_counter = lambda: places.add(place := reserve()) or place
    for function in _functions():
        function.__code__ = patch_code(function.__code__, False, True)
    reached: set[int] = set()
    kept: list[bytes] = []
    for data in sorted(
        (path.read_bytes() for path in Path(folder).iterdir()), key=lambda one: (len(one), one)
    ):
        now: set[int] = set()
        atheris._trace_branch = now.add
        TARGETS[name](data)
        if not now <= reached:
            reached |= now
            kept.append(data)
    print(
        f"{name}: {len(reached)} of {len(places)} places in {len(SOURCES)} modules, {len(kept)} inputs",
        flush=True,
    )
    if write:
        CORPUS.mkdir(exist_ok=True)
        (CORPUS / f"{name}.txt").write_text("".join(f"{b64encode(one).decode()}\n" for one in kept))


def _functions() -> Iterable[FunctionType]:
    """All functions of the sources, of which each is to report where it comes.

    Not while they are imported, as Atheris would like it: net chooses itself in which form it is loaded.
    """
    done: set[Any] = set()
    for source in SOURCES:
        module = sys.modules[f"net.{source}"]
        if not str(module.__file__).endswith(".py"):
            raise RuntimeError(f"{module.__name__} is compiled; set TASKLETS_PURE=1")
        for function in _functions_of(module, module.__name__):
            if function not in done:
                done.add(function)
                yield function


def _functions_of(holder: Any, module: str) -> list[FunctionType]:
    found: list[FunctionType] = []
    for one in vars(holder).values():
        if isinstance(one, property):
            found += [each for each in (one.fget, one.fset) if isinstance(each, FunctionType)]
        elif isinstance(one, (staticmethod, classmethod)):
            found += [one.__func__] if isinstance(one.__func__, FunctionType) else []
        elif isinstance(one, FunctionType) and one.__module__ == module:
            found.append(one)
        elif isinstance(one, type) and one.__module__ == module and not isinstance(holder, type):
            found += _functions_of(one, module)
    return found


if __name__ == "__main__":
    sys.exit(main())
