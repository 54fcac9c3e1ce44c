"""Programs that are gone after the test."""

from collections.abc import Iterator

import pytest

from tests.examples.primes.programs import Program


@pytest.fixture
def start() -> Iterator[type[Program]]:
    """Give `Program`; fail when a process is left of one, after ending it."""
    started: list[Program] = []

    class Started(Program):
        def __init__(self, *arguments: str) -> None:
            super().__init__(*arguments)
            started.append(self)

    yield Started
    left = {pid for program in started for pid in program.relatives()}
    for program in started:
        program.clean()
    assert not left, "processes were left behind"
