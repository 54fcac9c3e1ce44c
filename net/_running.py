"""How a node that does nothing else runs, and how it ends: `tasklets node`.

SIGTERM asks it to end: it starts nothing more for others and waits until what it runs for them has ended, as long as it
is allowed to. A second one, and Ctrl-C at any time, ends it at once, even in the middle of a computation.
"""

from __future__ import annotations

import logging
import resource
import signal
from typing import TYPE_CHECKING

from tasklets._core import Wait

if TYPE_CHECKING:
    from net.node import Node

log = logging.getLogger("net")

CUT_SHORT_EXIT = 1
SIGTERM_EXIT = 143  # what a shell reports of a program that SIGTERM ended
# CPython 3.11 may not see a signal that comes while another thread asks for the interpreter, until the next one: so the
# alarm rings again and again until it is heard.
RING_SECONDS = 0.1


class Ended(KeyboardInterrupt):
    """The end of the node. As with Ctrl-C, nothing holds it up, not even a tasklet that computes."""

    def __init__(self, exit_code: int, message: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message


def run_node(node: Node, grace: float) -> None:
    """Serve others until SIGTERM; `grace` is how many seconds what runs for them may go on then.

    Returns when it has all ended. Raises Ended when it was cut short, KeyboardInterrupt for Ctrl-C.
    """
    _allow_many_connections()
    waits = [Wait("the end of this node")]  # the last one is waited for
    over = False

    def on_late(*_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        left = node.spawned
        what = "a tasklet" if left == 1 else f"{left} tasklets"
        raise Ended(CUT_SHORT_EXIT, f"{what} did not end within {grace:g} s, and had to be stopped")

    def on_second(*_: object) -> None:
        raise Ended(SIGTERM_EXIT)

    def on_first(*_: object) -> None:
        signal.signal(signal.SIGTERM, on_second)
        signal.setitimer(signal.ITIMER_REAL, max(grace, 0.001), RING_SECONDS)
        # Not here, where it may be in the middle of anything.
        node.reactor.loop.run_callback_threadsafe(begin_end)

    def begin_end() -> None:
        for listener in list(node.listeners):
            listener.stop()
        node.drain(on_drained)

    def on_drained() -> None:
        nonlocal over
        over = True
        waits[-1].wake()

    signal.signal(signal.SIGALRM, on_late)
    signal.signal(signal.SIGTERM, on_first)
    while not over:
        try:
            waits[-1].park()
        except Exception:  # a tasklet that somebody's function started failed; the others go on
            log.exception("a tasklet failed")
            waits[:] = [Wait("the end of this node")]
    signal.setitimer(signal.ITIMER_REAL, 0)


def _allow_many_connections() -> None:
    """Use as many file descriptors as the system lets us, as a program that serves others may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS names a hard limit that it does not grant
            log.debug("the limit of %d open files stays", soft)
