"""Three hosts on one machine: network namespaces, each with an address, on one switch; or, without them, loopback.

    with three_hosts(tell) as hosts:
        process = hosts[1].run("examples.atm", "bank", "--listen", f"tcp://{hosts[1].address}:7000")
        hosts[2].cut()      # the network is gone for it, and nobody is told
        hosts[2].mend()

Needs root and iproute2 (Debian: apt-get install iproute2). Where they are not, or namespaces are not allowed, all three
are 127.0.0.1, and a host that is cut off is one whose processes are stopped: silent, with its connections open.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

ROOT = Path(__file__).parents[2]


class Host(Protocol):
    """A machine with an address, that programs can run on and that can be cut off."""

    address: str

    def command(self, *arguments: str) -> list[str]:
        """Return the command that runs a Python module on this host."""

    def run(self, *arguments: str, **options: Any) -> subprocess.Popen[Any]:
        """Start a Python module on this host."""

    def cut(self) -> None:
        """Let nothing through to it or from it; nobody is told."""

    def mend(self) -> None:
        """Let everything through again."""


class _Runs:
    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[Any]] = []

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", *arguments]

    def run(self, *arguments: str, **options: Any) -> subprocess.Popen[Any]:
        process = subprocess.Popen(
            self.command(*arguments),
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
            **{"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options},
        )
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


class _Namespace(_Runs):
    def __init__(self, switch: str, name: str, number: int) -> None:
        super().__init__()
        self.address = f"10.77.0.{number}"
        self._switch = switch
        self._name = name
        self._port = f"port{number}"
        ip("netns", "add", name)
        ip("-n", switch, "link", "add", self._port, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("-n", switch, "link", "set", self._port, "master", "switch", "up")
        ip("-n", name, "address", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")

    def command(self, *arguments: str) -> list[str]:
        return ["ip", "netns", "exec", self._name, *super().command(*arguments)]

    def cut(self) -> None:
        ip("-n", self._switch, "link", "set", self._port, "down")

    def mend(self) -> None:
        ip("-n", self._switch, "link", "set", self._port, "up")


class _Loopback(_Runs):
    address = "127.0.0.1"

    def cut(self) -> None:
        self._signal(signal.SIGSTOP)

    def mend(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)


class NotAllowed(Exception):
    """There are no network namespaces here, for this reason."""


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotAllowed(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@contextmanager
def three_hosts(tell: Callable[[str], object], *, real: bool = True) -> Iterator[list[Host]]:
    """Build them; `tell` hears of it when they cannot be `real`, and why. Everything on them ends with the block."""
    with ExitStack() as building:
        hosts: list[Any]
        try:
            hosts = build(building) if real else [_Loopback() for _ in range(3)]
        except NotAllowed as reason:
            building.close()
            tell(f"no network namespaces here ({reason}): three hosts at 127.0.0.1 instead")
            hosts = [_Loopback() for _ in range(3)]
        with ExitStack() as running:
            for host in hosts:
                running.callback(host.end)
            yield hosts


def build(building: ExitStack) -> list[_Namespace]:
    if shutil.which("ip") is None:
        raise NotAllowed("there is no iproute2; apt-get install iproute2")
    if os.getuid() != 0:
        raise NotAllowed("only root can make them")
    name = f"tasklets-{uuid4().hex[:6]}"
    switch = f"{name}-switch"
    ip("netns", "add", switch)
    building.callback(remove, switch)
    ip("-n", switch, "link", "add", "switch", "type", "bridge")
    ip("-n", switch, "link", "set", "switch", "up")
    hosts = []
    for number in range(1, 4):
        building.callback(remove, f"{name}-{number}")
        hosts.append(_Namespace(switch, f"{name}-{number}", number))
    return hosts


def remove(name: str) -> None:
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
