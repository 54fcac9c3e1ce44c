"""The main program of a child process: `python -m net._child`, started by net._children, configured over
its standard input.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import os
import signal
import socket
import sys
import threading
import traceback

from net._delivery import Delivered
from net._link import Link
from net._tracing import ProcessTrace, trace_process
from net.addresses import UnixAddress
from net.node import Node, set_node
from tasklets._core import Wait

LIFELINE = 0  # the file descriptor whose end is ours


class _ChildNode(Node):
    parent: Link | None = None

    def link_lost(self, link: Link) -> None:
        super().link_lost(link)
        if link is self.parent:  # which ended, so what was under way to it is no news for anybody
            logging.getLogger("net").setLevel(logging.CRITICAL)


def main() -> None:
    # Ctrl-C is the parent's business, which ends us. Until here the parent had it blocked.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    config = json.loads(_read_line())
    if config["pythonpath"] is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = config["pythonpath"]
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)  # a pipe to our parent, who shows it line by line
    node = _ChildNode(config["name"], accepts_spawn=True)
    node.delivered = Delivered(node.reactor.loop.run_callback_threadsafe)
    set_node(node)
    global _trace
    try:
        _trace = trace_process(config["trace"], node) if config["trace"] else None
    except OSError as error:  # the program goes on without
        print(f"no trace is written: {error}", file=sys.stderr)
    threading.Thread(target=_hold_lifeline, args=(node.delivered,), name="lifeline", daemon=True).start()
    node.listen(UnixAddress(config["listen"]), background=True)
    parent = node.parent = node.adopt(socket.socket(fileno=config["socket"]), "the parent process")
    over = Wait("the parent process to end")
    parent.at_end(over.wake)
    try:
        over.park()
    except BaseException as error:  # noqa: BLE001  a tasklet failed that nobody joins; no failure disappears
        traceback.print_exc()
        parent.close(f"a tasklet failed there: {type(error).__name__}: {error}")
        _end(1)
    _end()


def _read_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(LIFELINE, 1)
        if not byte:
            _end()
        line += byte
    return line


def _hold_lifeline(delivered: Delivered) -> None:
    """Take what the parent delivers, until the lifeline ends and with it this process."""
    with open(LIFELINE, "rb", closefd=False) as lifeline:
        for line in lifeline:
            if line.endswith(b"\n"):
                name, packed = line.split()
                delivered.take(name.decode(), base64.b64decode(packed))
    _end()


_trace: ProcessTrace | None = None


def _end(code: int = 0) -> None:
    # Not sys.exit: the main thread may be deep in somebody's computation, and is not asked.
    try:
        if _trace is not None:
            _trace.end()
    except OSError as error:
        print(f"the trace is not complete: {error}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
