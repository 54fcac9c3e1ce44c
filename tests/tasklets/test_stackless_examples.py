"""The examples of Stackless's behaviour, machine-checked against Stackless 3.7, run here as they are."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("stackless_examples.txt")
MISSING: set[int] = set()  # must stay empty

# Each example runs in a child of one process that has everything imported: a fresh interpreter takes ten times as long.
RUNNER = r"""
import json, os, sys, signal
import tasklets.stackless as s
s.install()
import stackless as s
examples = json.load(sys.stdin)
for number, code in examples:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        logged = []
        def log(*a): logged.extend(a)
        def err(f, *a, **k):
            try: return f(*a, **k)
            except BaseException as e: return '%s: %s' % (type(e).__name__, e)
        try:
            exec(code, dict(s=s, T=s.tasklet, C=s.channel, log=log, err=err, __name__='__main__'))
            result = ' '.join(map(str, logged))
        except BaseException as error:
            result = 'ends with %r after %s' % (error, logged)
        print(json.dumps([number, result]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def load() -> list[tuple[int, str, str, str]]:
    blocks = re.split(r"^#E(?=\d)", FILE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    examples = []
    for block in blocks:
        found = re.match(r"(\d+) (.*?)\n(.*)\n#-> (.*)\Z", block.strip("\n"), re.DOTALL)
        assert found is not None, block
        examples.append((int(found[1]), found[2], found[3], found[4]))
    return examples


EXAMPLES = load()


@pytest.fixture(scope="module")
def results() -> dict[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps([(number, code) for number, _, code, _ in EXAMPLES]),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


def test_no_example_is_left_out() -> None:
    assert [number for number, *_ in EXAMPLES] == list(range(1, 53))


@pytest.mark.parametrize(
    ("number", "expected"),
    [pytest.param(number, expected, id=f"E{number}") for number, _, _, expected in EXAMPLES],
)
def test_example(number: int, expected: str, results: dict[int, str]) -> None:
    got = results.get(number, "no result: it was killed")
    if number in MISSING:
        assert got != expected, f"example {number} works now: take it out of MISSING and docs/divergence.md"
    else:
        assert got == expected
