"""Is the other process alive? A small connection beside each session, at both ends of which an OS thread beats.

A tasklet that computes for a minute keeps its event loop from answering anything, but not this thread. So no sign of
life for `silence` seconds means that the process is stopped, or the line is dead: the session's connection is given up
then, as if it had been cut. Each beat says for how long the event loop has had no turn: whose loop has none for long is
*stalled*, and that is no reason to give it up.

What a beat is, and when it is due, is the state machine `Pulse`; `PulseThread` is the thread, one for the process.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
from time import monotonic
from typing import TYPE_CHECKING, Final

from net._wire import BATCH, NUMBER_BYTES
from net.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("net")

READ_BYTES: Final = 512
MIN_HEARTBEAT: Final = 0.02  # seconds; a peer must not make us beat all the time
LATE_SECONDS: Final = 1.0  # the thread itself had no time for so long: it was stopped, and judges nobody


class Pulse:
    """One end: when to beat, and for how long nothing was heard. Time comes in; no I/O."""

    def __init__(self, heartbeat: float, silence: float, now: float) -> None:
        self.heartbeat = heartbeat
        self.silence = silence
        self.stalled_for = 0.0  # as the peer said last
        self._heard = now
        self._next = now
        self._rest = b""

    def beat(self, now: float, stalled_for: float) -> bytes | None:
        """What to send now, if it is time."""
        if now < self._next:
            return None
        self._next = now + self.heartbeat
        return BATCH.pack(NUMBER_BYTES, 0, max(0, int(stalled_for * 1000)))

    def hear(self, data: bytes, now: float) -> None:
        """Something has arrived. Raises RemoteProtocolError when it is no beat."""
        data = self._rest + data
        whole = len(data) - len(data) % BATCH.size
        for offset in range(0, whole, BATCH.size):
            size, number, stalled_ms = BATCH.unpack_from(data, offset)
            if size != NUMBER_BYTES or number:
                raise RemoteProtocolError("a pulse has beats and nothing else")
            self.stalled_for = stalled_ms / 1000
            self._heard = now
        self._rest = data[whole:]

    def forgive(self, now: float) -> None:
        """We were stopped ourselves: what was said meanwhile is still to be heard."""
        self._heard = max(self._heard, now)

    def is_silent(self, now: float) -> bool:
        return now - self._heard >= self.silence

    def due(self) -> float:
        """When to look again."""
        return min(self._next, self._heard + self.silence)


def pace(heartbeat: float, silence_ms: int) -> float:
    """How often to beat for a peer that takes so much silence for the end: seconds."""
    return max(MIN_HEARTBEAT, min(heartbeat, silence_ms / 3000))


class Line:
    """The pulse of one link. The thread owns the socket; whatever changes the link is done in the link's own thread:
    there `call`, which may be called from any thread, lets things be called, at last `on_end(line, silent)`.
    """

    def __init__(
        self,
        sock: socket.socket,
        pulse: Pulse,
        call: Callable[..., object],
        on_end: Callable[[Line, bool], object],
    ) -> None:
        self.socket = sock
        self.pulse = pulse
        self.closed = False
        self._buffer = bytearray(READ_BYTES)
        self._call = call
        self._on_end = on_end
        self._answered = monotonic()  # when the link's event loop had a turn last
        self._asked = False

    # -- in the pulse thread -----------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Beat, if it is time. Raises OSError."""
        beat = self.pulse.beat(now, now - self._answered if self._asked else 0.0)
        if beat is None:
            return
        if not self._asked:
            self._asked = True
            self._call(self._answer)
        with contextlib.suppress(BlockingIOError):  # as full as that it is, the peer will find us silent
            self.socket.send(beat)

    def read(self, now: float) -> bool:
        """Hear what has come; False at the end of the stream. Raises OSError, RemoteProtocolError."""
        try:
            size = self.socket.recv_into(self._buffer)  # the one way to read that a TLS socket of ours has
        except BlockingIOError:
            return True
        if size:
            self.pulse.hear(bytes(self._buffer[:size]), now)
        return size > 0

    def end(self, silent: bool) -> None:
        """It is over: nothing was heard for too long, or only its connection broke."""
        self._call(self._on_end, self, silent)

    # -- in the link's thread ----------------------------------------------------------------------------------

    def _answer(self) -> None:
        self._answered = monotonic()
        self._asked = False

    def close(self) -> None:
        """Stop beating. From any thread."""
        self.closed = True
        thread.wake()


class PulseThread:
    """The thread that beats for all links of the process. It starts with the first of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # protects the following
        self._fresh: list[Line] = []
        self._bell: socket.socket | None = None
        self.lines: set[Line] = set()  # changed by the thread only

    def add(self, line: Line) -> None:
        """Beat for a link from now on."""
        with self._lock:
            self._fresh.append(line)
            if self._bell is None:
                ours, self._bell = socket.socketpair()
                ours.setblocking(False)
                self._bell.setblocking(False)
                threading.Thread(target=self._live, args=(ours,), name="net pulse", daemon=True).start()
        self.wake()

    def wake(self) -> None:
        bell = self._bell
        if bell is not None:
            with contextlib.suppress(OSError):
                bell.send(b"x")

    def _live(self, bell: socket.socket) -> None:
        selector = selectors.DefaultSelector()
        selector.register(bell, selectors.EVENT_READ)
        lines = self.lines
        planned = monotonic()
        while True:
            now = monotonic()
            with self._lock:
                fresh, self._fresh = self._fresh, []
            for line in fresh:
                lines.add(line)
                selector.register(line.socket, selectors.EVENT_READ, line)
            if now - planned > LATE_SECONDS:
                for line in lines:
                    line.pulse.forgive(now)
            for line in list(lines):
                if not self._serve(line, now):
                    lines.discard(line)
                    selector.unregister(line.socket)
                    line.socket.close()
            planned = min((line.pulse.due() for line in lines), default=now + 3600.0)
            for key, _ in selector.select(max(0.0, planned - monotonic())):
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        bell.recv(READ_BYTES)
                elif not self._hear(key.data, monotonic()):
                    lines.discard(key.data)
                    selector.unregister(key.data.socket)
                    key.data.socket.close()

    def _serve(self, line: Line, now: float) -> bool:
        """Beat, and look whether the other end does; False: it is over."""
        if line.closed:
            return False
        if line.pulse.is_silent(now):
            line.end(silent=True)
            return False
        try:
            line.tick(now)
        except OSError:
            line.end(silent=False)
            return False
        return True

    def _hear(self, line: Line, now: float) -> bool:
        try:
            if line.read(now):
                return True
        except OSError:
            pass
        except RemoteProtocolError as error:
            log.warning("the pulse of a session broke the protocol: %s", error)
        line.end(silent=False)
        return False


thread = PulseThread()
