"""What chapters 0 and 9 run in other processes, which import it from here."""

import os

from tasklets import channel, sleep


def greet(names: channel, greetings: channel) -> None:
    """Answer each name with a greeting, until no more names come."""
    for name in names:
        greetings.send(f"hello {name}")


def pump(inbox: channel, outbox: channel) -> None:
    """Hand everything on, in capital letters."""
    for text in inbox:
        outbox.send(text.upper())
    outbox.close()


def introduce(answers: channel) -> None:
    """Say in which process this runs."""
    answers.send(os.getpid())


def square(me: str, questions: channel, answers: channel) -> None:
    """Say who I am; then answer questions, each after some thought."""
    answers.send((me, os.getpid()))
    for number in questions:
        sleep(0.02)
        answers.send((me, number * number))


def count_messages(belt: channel, done: channel) -> None:
    """Take everything from the belt, then say how much it was."""
    done.send(sum(1 for _ in belt))
