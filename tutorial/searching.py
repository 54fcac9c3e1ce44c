"""What chapter 11 runs in other processes."""

import os
import time
from math import isqrt

from tasklets import channel, message


@message
class Join:
    """A worker says: here I am, and these are the channels on which I can be reached."""

    pid: int
    chunks: channel
    results: channel


def is_prime(number: int) -> bool:
    """True for a prime, by trying all divisors up to the square root."""
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))


def primes_in(low: int, high: int) -> tuple[int, ...]:
    """The primes from `low` up to, and not including, `high`."""
    return tuple(number for number in range(low, high) if is_prime(number))


def work(joins: channel) -> None:
    """Join, then do one chunk after the other, until there are no more."""
    chunks, results = channel(name="chunks"), channel(name="results")
    joins.send(Join(os.getpid(), chunks, results))
    for low, high in chunks:
        results.send(primes_in(low, high))


def work_badly(joins: channel) -> None:
    """The same, but take a nap in the middle of every chunk."""
    chunks, results = channel(name="chunks"), channel(name="results")
    joins.send(Join(os.getpid(), chunks, results))
    for low, high in chunks:
        time.sleep(1)
        results.send(primes_in(low, high))


def is_armstrong(number: int) -> bool:
    """True when the digits, each to the power of their count, add up to the number (exercise 1)."""
    digits = str(number)
    return sum(int(digit) ** len(digits) for digit in digits) == number


def work_on_digits(joins: channel) -> None:
    """A worker for exercise 1."""
    chunks, results = channel(name="chunks"), channel(name="results")
    joins.send(Join(os.getpid(), chunks, results))
    for low, high in chunks:
        results.send(tuple(number for number in range(low, high) if is_armstrong(number)))
