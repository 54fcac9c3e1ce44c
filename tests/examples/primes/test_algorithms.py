"""All algorithms find the same primes, in steps short enough for others to run in between (PRI-01, 03, 11)."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from examples.primes import algorithms
from examples.primes.algorithms import ALGORITHMS, COSTS
from examples.primes.arithmetic import primes_in
from examples.primes.spot_check import is_probably_prime

ROOT = Path(__file__).resolve().parents[3]
every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def primes_by(algorithm: str, lo: int, hi: int) -> tuple[int, ...]:
    return tuple(prime for primes in ALGORITHMS[algorithm](lo, hi) for prime in primes)


@every_algorithm
@given(lo=st.integers(-50, 3000), length=st.integers(0, 400))
def test_pri03_every_algorithm_finds_the_same_primes(algorithm: str, lo: int, length: int) -> None:
    assert primes_by(algorithm, lo, lo + length) == primes_in(lo, lo + length)


@every_algorithm
@pytest.mark.parametrize("lo", [10**6, 2**18 - 20, 10**9, 10**12])
def test_pri03_also_for_larger_numbers(algorithm: str, lo: int) -> None:
    expected = tuple(n for n in range(lo, lo + 60) if is_probably_prime(n))
    assert primes_by(algorithm, lo, lo + 60) == expected


@every_algorithm
def test_pri01_the_known_counts(algorithm: str) -> None:
    primes = primes_by(algorithm, 1, 100_000)
    assert (len(primes), primes[-1]) == (9592, 99991)
    assert sum(1 for prime in primes if prime < 10_000) == 1229


@pytest.mark.parametrize("algorithm", ["sieve", "numpy"])
def test_what_is_too_large_for_a_sieve_is_divided(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(algorithms, "MOST_BASE", 100)
    assert primes_by(algorithm, 9_990, 20_200) == primes_in(9_990, 20_200)


@pytest.mark.parametrize("algorithm", ["trial", "wheel"])
def test_pri11_one_large_number_is_divided_with_pauses(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(algorithms, "DIVISIONS_PER_STEP", 1000)
    prime, square = 10**10 + 19, 99_991**2
    assert list(ALGORITHMS[algorithm](prime, prime + 1)) == [()] * 50 + [(prime,)]
    assert set(ALGORITHMS[algorithm](square, square + 1)) == {()}


@every_algorithm
def test_pri11_steps_are_many(algorithm: str) -> None:
    steps = sum(
        1
        for _ in ALGORITHMS[algorithm](1_000_000, 3_000_000 if algorithm in ("sieve", "numpy") else 1_100_000)
    )
    assert steps >= 5


def test_every_algorithm_has_its_costs() -> None:
    assert COSTS.keys() == ALGORITHMS.keys()
    assert all(cost(n) > 0 for cost in COSTS.values() for n in (-5, 0, 2, 10**30))


def test_without_numpy_the_program_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['numpy'] = None\n"
        "from examples.console import run_program\nfrom examples.primes.__main__ import main\n"
        "run_program(main, ['1', '10', '--algorithm', 'numpy'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'tasklets[numpy]', or choose --algorithm sieve" in done.stderr
    assert len(done.stderr.splitlines()) == 1
