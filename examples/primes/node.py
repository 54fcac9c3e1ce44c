"""A worker that joins a search that is running, on this machine or another:

    python -m examples.primes.node tcp://alpha:7200/primes

Start one for each core. Ctrl-C lets it finish its chunk and leave; a second one ends it at once.
"""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click

import net
from examples.console import credential_options, debug_option, err, run_program
from examples.primes.worker import work
from net import NameNotFound, PeerLost, PeerUnreachable
from tasklets import ChannelClosed, channel, nursery, sleep

FIRST_PAUSE = 0.2  # seconds before joining again, doubled each time
LONGEST_PAUSE = 5.0
WATCH_SECONDS = 1.0


@click.command()
@click.argument("url")
@click.option("--name", help="What the search calls this worker.  [default: the name of this machine]")
@click.option("--stay", is_flag=True, help="Join again whenever the search is lost or over, until Ctrl-C.")
@credential_options
@debug_option
def main(url: str, name: str | None, stay: bool) -> None:
    """Compute for the prime search at URL, as it prints it: tcp://HOST:7200/primes.

    The exit code is 0 when the search is over, or this worker left it; 1 when it was lost.
    """
    with _leaving_by_ctrl_c() as leaving:
        pause = FIRST_PAUSE
        while not leaving():
            try:
                serve(url, name or socket.gethostname(), leaving)
                pause = FIRST_PAUSE
            except (PeerLost, PeerUnreachable, NameNotFound, ChannelClosed) as lost:
                if not stay:
                    raise click.ClickException(f"the search is gone: {lost}") from lost
            if not stay:
                return
            # Jitter, so that not all come back in the same moment.
            sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, LONGEST_PAUSE)


def serve(url: str, name: str, leaving: Callable[[], bool]) -> None:
    """Join the search at `url` and compute for it until it is over, or we leave. Blocks. Raises PeerLost."""
    joins = net.connect(url)
    err.print(f"joined {url}", markup=False, soft_wrap=True)
    with nursery() as home:
        watcher = home.start(_watch, url, joins)
        work(joins, name, leaving)
        watcher.kill()


def _watch(url: str, joins: channel) -> None:
    """Look every second whether the search is still the one that we joined: who computes would not notice."""
    while True:
        sleep(WATCH_SECONDS)
        if net.connect(url) is not joins:
            raise PeerLost(f"another search is at {url} now", peer=url, outcome="unknown")


@contextmanager
def _leaving_by_ctrl_c() -> Iterator[Callable[[], bool]]:
    asked: list[bool] = []

    def ask(_number: int, _frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(True)
        err.print("leaving after this chunk; Ctrl-C again to leave it undone")

    usual = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    run_program(main)
