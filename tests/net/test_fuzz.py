"""All that a fuzzer has found interesting, again: only RemoteProtocolError comes out, and memory is bounded."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.net.fuzz import SHARES, read_corpus
from tests.net.fuzz_targets import TARGETS
from tests.net.peers import ROOT


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_breaks_no_promise(name: str) -> None:
    corpus = read_corpus(name)
    assert corpus
    for data in corpus:
        TARGETS[name](data)


def test_there_is_time_for_each_target() -> None:
    assert set(SHARES) == set(TARGETS)


@pytest.mark.real
@pytest.mark.timeout(180)  # in full size it fuzzes for a minute
@pytest.mark.skipif(find_spec("atheris") is None, reason="Atheris is built for Linux on x86-64 only")
def test_a_few_seconds_of_fuzzing_find_nothing() -> None:
    # By number, not by time: what a quicker machine would find beyond is for who fuzzes, and no reason to fail here.
    size = ("--seconds", "60") if os.environ.get("TASKLETS_FULL") else ("--runs", "1500")
    command = [sys.executable, "-m", "tests.net.fuzz", "frames", *size, "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "frames: " in done.stdout  # of how many places it has reached
