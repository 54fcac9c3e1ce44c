"""What child processes print, on the terminal of their parent: line by line, with the child's name in front.

A thread reads it, so that a child need not wait for a parent that computes. It writes to what `sys.stdout` and
`sys.stderr` are then, so a notebook shows it too.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import selectors
import sys
import threading
from time import monotonic
from typing import IO, Final

LAST_ROUNDS: Final = 32  # a pipe holds 64 KiB, in pieces of 4 KiB or more
MAX_LINE_BYTES: Final = 64 * 1024  # a longer line is shown in parts, so that no child can fill our memory


class Output:
    """Copies what comes from pipes. `close` waits for their ends."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = os.pipe()
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._sources = 0
        self._thread = threading.Thread(target=self._copy, name="children's output", daemon=True)
        self._closing = threading.Event()
        self._finished = threading.Event()

    def add(self, pipe: IO[bytes], prefix: str, stream: str) -> None:
        """Copy a pipe to sys.stdout or sys.stderr. All are added before `start`."""
        self._selector.register(pipe, selectors.EVENT_READ, _Source(pipe, prefix, stream))
        self._sources += 1

    def start(self) -> None:
        self._thread.start()
        atexit.register(self.close, 0.0)

    def close(self, seconds: float) -> None:
        """Copy what is still there, and stop. Waits for the pipes' ends for so many seconds at most: a process that a
        child left behind may hold one open.
        """
        atexit.unregister(self.close)
        if self._thread.ident is not None:
            deadline = monotonic() + seconds
            self._finished.wait(max(0.0, deadline - monotonic()))
            self._closing.set()
            with contextlib.suppress(OSError):
                os.write(self._wake_writer, b"x")
            self._thread.join()
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                key.data.end()
        self._selector.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _copy(self) -> None:
        while self._sources and not self._closing.is_set():
            self._copy_ready(None)
        # What had been written when `close` gave up waiting. Not more rounds than that can take: a process that a child
        # left behind may write on and on.
        for _ in range(LAST_ROUNDS):
            if not (self._sources and self._copy_ready(0)):
                break
        self._finished.set()

    def _copy_ready(self, seconds: float | None) -> bool:
        """Copy what can be read now, or within so many seconds. Returns False when there was nothing."""
        sources = [key for key, _ in self._selector.select(seconds) if key.data is not None]
        for key in sources:
            if not key.data.copy():
                self._selector.unregister(key.fileobj)
                self._sources -= 1
        return bool(sources)


class _Source:
    """One pipe."""

    def __init__(self, pipe: IO[bytes], prefix: str, stream: str) -> None:
        self._pipe = pipe
        self._prefix = prefix
        self._stream = stream
        self._line = b""  # what has come of the next one

    def copy(self) -> bool:
        """Copy what is there; False at its end, where it is closed."""
        data = os.read(self._pipe.fileno(), MAX_LINE_BYTES)
        *lines, self._line = (self._line + data).split(b"\n")
        if len(self._line) >= MAX_LINE_BYTES or (not data and self._line):
            lines.append(self._line)
            self._line = b""
        if lines:
            self._show(lines)
        if not data:
            self._pipe.close()
        return bool(data)

    def end(self) -> None:
        """Show what has come without a line's end, and close."""
        if self._line:
            self._show([self._line])
        self._pipe.close()

    def _show(self, lines: list[bytes]) -> None:
        text = "".join(f"{self._prefix}{line.decode(errors='backslashreplace')}\n" for line in lines)
        # A terminal that is gone, or cannot show a letter, does not end what runs.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream = getattr(sys, self._stream)
            stream.write(text)
            stream.flush()
