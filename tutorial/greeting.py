"""What chapter 0 and chapter 9 run in other processes, which import it from here."""

import os

from tasklets import channel


def greet(names: channel, greetings: channel) -> None:
    """Answer each name with a greeting, until no more names come."""
    for name in names:
        greetings.send(f"hello {name}")


def introduce(answers: channel) -> None:
    """Say in which process this runs."""
    answers.send(os.getpid())
