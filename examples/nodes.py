"""Nodes on this machine, for a demonstration or a test: what `tasklets node` starts, started and ended from
here.

with open_nodes(2) as addresses:
    with open_place("hosts:" + ",".join(addresses)) as place:
        ...
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

COMMAND = [sys.executable, "-m", "net.cli", "node", "--listen", "127.0.0.1:0"]
PARTING_SECONDS = 0.5  # a node that was asked to end has this long before it is killed


class NodeFailed(RuntimeError):
    """A node ended before it said where it listens."""


@contextmanager
def open_nodes(count: int) -> Iterator[list[str]]:
    """Start `count` nodes, give their addresses, and end them with the block.

    Raises NodeFailed when one does not start.
    """
    with ExitStack() as ending:
        # All are started before the first is waited for: most of a start is imports.
        nodes = [ending.enter_context(_open_node()) for _ in range(count)]
        yield [_address_of(node) for node in nodes]


@contextmanager
def _open_node() -> Iterator[subprocess.Popen[str]]:
    node = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield node
    finally:
        node.terminate()
        try:
            node.wait(PARTING_SECONDS)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()
        assert node.stdout is not None
        node.stdout.close()


def _address_of(node: subprocess.Popen[str]) -> str:
    """Return HOST:PORT as the node prints it. Blocks until it does."""
    assert node.stdout is not None
    said = []
    for line in node.stdout:
        if found := re.search(r"\b127\.0\.0\.1:\d+", line):
            return found[0]
        said.append(line.strip())
    raise NodeFailed(f"a node ended before it listened: {' '.join(said) or 'it said nothing'}")
