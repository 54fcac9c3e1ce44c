"""What holds for every test: its property tests repeat in CI, it leaves no process behind, and a hang ends it."""

import faulthandler
import importlib.metadata
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key
from hypothesis import settings

from tasklets._which_form import is_compiled

# Hundreds of interpreters are started here. Where the environment has them keep nothing of what they have compiled,
# each would compile all our modules again, which is nearly half of what its start costs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A deadline would make tests fail on a busy machine, so there is none: pytest's timeout catches what hangs.
settings.register_profile("dev", deadline=None)
# In CI a red run must come from the change in hand, not from the luck of the draw.
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--chaos-seconds", default="2", help="how long nodes are killed at random (full size: 60)"
    )


def pytest_sessionstart(session: pytest.Session) -> None:  # pytest_report_header would be hidden by -q
    """Say what is tested, once: a process of pytest-xdist has no terminal."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        terminal.write_line(what_is_tested())


def what_is_tested() -> str:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("greenlet", "gevent", "msgpack")]
    core = "compiled core" if is_compiled() else "core from source"
    parts = [f"{platform.python_implementation()} {platform.python_version()}", core, *versions]
    return f"tasklets on: {', '.join(parts)}; hypothesis profile: {settings.get_current_profile_name()}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give a test with a longer timeout of its own a longer one, too, until the process is ended (pyproject.toml)."""
    marker = item.get_closest_marker("timeout")
    if marker is not None and marker.args[0] > float(item.config.getini("timeout")):
        last = marker.args[0] + 30
        faulthandler.dump_traceback_later(
            last, exit=True, file=item.config.stash[fault_handler_stderr_fd_key]
        )


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    """Fail the test that leaves a child process, running or not waited for, and end that child."""
    before = children()
    yield
    leaked = {pid: command for pid, command in children().items() if pid not in before}
    for pid in leaked:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert not leaked, f"the test left child processes behind: {leaked}; end them and wait for them"


def children() -> dict[int, str]:
    """Return pid -> command of this process's children, dead ones nobody waited for included."""
    if not have_children():
        return {}
    found = children_from_proc() if Path("/proc/self/stat").exists() else children_from_ps()
    # multiprocessing starts it once for the whole run and ends it with the run.
    return {pid: command for pid, command in found.items() if "resource_tracker" not in command}


def have_children() -> bool:
    """Answer without listing processes: nearly always there are none, and this runs twice per test."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def children_from_proc() -> dict[int, str]:
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            # The command in parentheses may hold anything, so fields are counted from behind it.
            parent = int((process / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            if parent == os.getpid():
                command = (
                    (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                )
                found[int(process.name)] = command or "(ended, not waited for)"
    return found


def children_from_ps() -> dict[int, str]:
    with subprocess.Popen(["ps", "-A", "-o", "pid=,ppid=,command="], stdout=subprocess.PIPE, text=True) as ps:
        assert ps.stdout is not None
        rows = [line.split(None, 2) for line in ps.stdout]
    return {
        int(pid): command.strip()
        for pid, parent, command in (row for row in rows if len(row) == 3)
        if int(parent) == os.getpid() and int(pid) != ps.pid
    }


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of `tasklets` first.

    Some wait for the event loop to run empty, and a connection that a test of `net` has not let go of keeps it.
    """
    core = Path(__file__).parent / "tasklets"
    items.sort(key=lambda item: core not in item.path.parents)
