"""Totals and shares add up, and the bar keeps quiet unless it is wanted (PRI-12)."""

import io

from hypothesis import given, strategies as st
from rich.console import Console

from examples.primes.arithmetic import partition, primes_in
from examples.primes.backlog import Answer
from examples.primes.tally import Tally, open_bar


def answers(workers: list[str], chunk: int) -> list[Answer]:
    pieces = partition(0, chunk * len(workers), chunk)
    return [
        Answer(index, lo, hi, primes_in(lo, hi), worker, 1, 0.25)
        for index, ((lo, hi), worker) in enumerate(zip(pieces, workers, strict=True))
    ]


@given(workers=st.lists(st.sampled_from("abc"), min_size=1, max_size=20), chunk=st.integers(1, 50))
def test_pri12_the_shares_add_up_to_the_total(workers: list[str], chunk: int) -> None:
    tally = Tally()
    for answer in answers(workers, chunk):
        tally.add(answer)
    for quantity in ("chunks", "numbers", "primes", "seconds"):
        assert sum(getattr(share, quantity) for share in tally.shares.values()) == getattr(
            tally.total, quantity
        )
    everything = primes_in(0, chunk * len(workers))
    assert (tally.total.numbers, tally.total.primes) == (chunk * len(workers), len(everything))
    assert tally.last == (everything[-1] if everything else None)


def test_pri12_the_last_prime_is_the_greatest_whatever_the_order() -> None:
    tally = Tally()
    for answer in reversed(answers(["a", "b", "a"], 10)):
        tally.add(answer)
    assert tally.last == 29


def test_pri12_rates_are_numbers_and_primes_per_second() -> None:
    tally = Tally()
    for answer in answers(["a"], 1000):
        tally.add(answer)
    assert tally.rates(2.0) == "500 numbers/s, 84 primes/s"


def test_the_bar_shows_progress_and_rates_on_a_terminal() -> None:
    screen = io.StringIO()
    tally = Tally()
    with open_bar(Console(file=screen, force_terminal=True, width=100), 1000, wanted=True) as bar:
        for answer in answers(["a"], 500):
            tally.add(answer)
        bar.show(tally)
    assert "50%" in screen.getvalue()
    assert "numbers/s" in screen.getvalue()


def test_the_bar_writes_nothing_when_it_is_not_wanted() -> None:
    screen = io.StringIO()
    with open_bar(Console(file=screen), 1000, wanted=False) as bar:
        bar.show(Tally())
    assert screen.getvalue() == ""
