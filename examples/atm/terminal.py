"""A person at the keyboard, or a script on a pipe: questions out, lines in.

Waiting for a line blocks only the tasklet that asks: the line to the bank stays alive while somebody thinks.
"""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import click
import gevent.socket


class Terminal:
    """Asks on stdout, reads from stdin."""

    def __init__(self) -> None:
        if sys.stdin is None:
            raise click.ClickException("there is nowhere to read answers from; leave stdin open")
        self._fd = sys.stdin.fileno()
        self._ahead = b""  # read, not asked for yet
        self.is_person = os.isatty(self._fd)

    def ask(self, question: str, *, secret: bool = False) -> str:
        """Ask and return the line that comes, without its end. Blocks. Raises EOFError."""
        with self._without_echo(secret):  # before the question: whoever answers at once shows nothing either
            click.echo(f"{question}: ", nl=False)
            answer = self._read_line()
        if secret or not self.is_person:
            # The line that typing would have left on the screen.
            click.echo("" if secret else answer)
        return answer

    def say(self, text: str) -> None:
        """Print one line."""
        click.echo(text)

    def _read_line(self) -> str:
        # Not sys.stdin: it may hold lines back that the file descriptor then no longer announces.
        while b"\n" not in self._ahead:
            gevent.socket.wait_read(self._fd)
            some = os.read(self._fd, 65536)
            if not some and not self._ahead:
                click.echo()
                raise EOFError
            self._ahead += some or b"\n"
        line, _, self._ahead = self._ahead.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")

    @contextmanager
    def _without_echo(self, wanted: bool) -> Iterator[None]:
        if not (wanted and self.is_person):
            yield
            return
        usual = termios.tcgetattr(self._fd)
        quiet = [*usual[:3], usual[3] & ~termios.ECHO, *usual[4:]]
        termios.tcsetattr(self._fd, termios.TCSADRAIN, quiet)
        try:
            yield
        finally:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, usual)
