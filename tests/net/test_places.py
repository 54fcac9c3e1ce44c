"""Places: the same program here, in child processes and at nodes elsewhere."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import net
from net import BadAddress, NodeLost, NotImportable, PeerLost, PeerUnreachable, Place, open_place
from net.node import get_node
from tasklets import NotSendable, RemoteError, TaskletExit, channel, run, sleep, tasklet, timeout
from tests.machine import here
from tests.net import peers
from tests.net.peers import Doing, ask, until

pytestmark = pytest.mark.real

PLACES = ["here", "processes:2", "hosts"]


@contextmanager
def opened(spec: str) -> Iterator[Place]:
    with ExitStack() as stack:
        if spec == "hosts":
            addresses = [stack.enter_context(peers.node())[1] for _ in range(2)]
            spec = "hosts:" + ",".join(addresses)
        yield stack.enter_context(open_place(spec))


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with opened(request.param) as place:
        yield place


class Mistake(Exception):
    """No class that the other side can make again."""


def fail(kind: type[Exception] | str, *args: Any) -> None:
    raise (Mistake if kind == "mistake" else ValueError)(*args)


def fail_hugely() -> None:
    raise ValueError(bytes(17_000_000))


def leave() -> None:
    sys.exit(3)


def end_quietly() -> None:
    raise TaskletExit


def clean_up(started: channel, log: channel) -> None:
    try:
        started.send(None)
        sleep(1000)
    finally:
        log.send("cleaned up")


def tell_values(out: channel, *args: Any, **kwargs: Any) -> None:
    out.send((args, kwargs))


class Worker:
    @staticmethod
    def static(out: channel) -> None:
        out.send("static")

    @classmethod
    def of_class(cls, out: channel) -> None:
        out.send(cls.__name__)

    def method(self, out: channel) -> None:
        out.send("never")


# ---------------------------------------------------------------------------------------------------------------- spawn


def test_spawned_functions_run_and_end(place: Place) -> None:
    assert isinstance(ask(place, peers.tell_pid), int)
    spawned = place.spawn(sleep, 0)
    spawned.join()
    assert not spawned.alive
    assert repr(spawned).endswith("ended>")
    spawned.join()  # again
    spawned.kill()


def test_arguments_arrive_frozen(place: Place) -> None:
    out = place.channel()
    place.spawn(tell_values, out, [1, {"a": [2]}], key={3})
    assert out.receive() == (((1, {"a": (2,)}),), {"key": frozenset({3})})


def test_static_and_class_methods_have_names(place: Place) -> None:
    assert ask(place, Worker.static) == "static"
    assert ask(place, Worker.of_class) == "Worker"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda: None, "is defined inside a function"),
        (Worker().method, "is not <bound method"),
        (Worker(), "has no name to import it by"),
        (7, "has no name to import it by"),
    ],
    ids=["lambda", "bound method", "object", "number"],
)
def test_what_cannot_be_imported_is_refused(place: Place, function: Any, reason: str) -> None:
    with pytest.raises(NotImportable, match=reason):
        place.spawn(function)


def test_a_function_within_a_function_is_refused(place: Place) -> None:
    def inner() -> None: ...

    with pytest.raises(NotImportable, match="define it at the top level of a module"):
        place.spawn(inner)


@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [
        (([1, object()],), {}, "args[0][1]"),
        ((1, {"f": open}), {}, "args[1]['f']"),
        ((), {"key": {"deep": (object(),)}}, "kwargs['key']['deep'][0]"),
    ],
    ids=["list", "dict", "keyword"],
)
def test_arguments_that_cannot_travel_are_refused_with_their_path(
    place: Place, args: Any, kwargs: Any, path: str
) -> None:
    with pytest.raises(NotSendable) as caught:
        place.spawn(tell_values, *args, **kwargs)
    assert caught.value.path == path
    assert path in str(caught.value)


def test_tasklets_are_spread_round_robin() -> None:
    with open_place("processes:2") as place:
        pids = [ask(place, peers.tell_pid) for _ in range(4)]
        assert place.size == 2
    assert pids[:2] == pids[2:]
    assert len({*pids, os.getpid()}) == 3


# ------------------------------------------------------------------------------------------------------------- failures


def test_join_raises_what_it_raised(place: Place) -> None:
    with pytest.raises(ValueError, match="wrong") as caught:
        place.spawn(fail, "value", "wrong", 7).join()
    assert caught.value.args == ("wrong", 7)
    with pytest.raises(RemoteError) as remote:
        place.spawn(fail, "mistake", "mine").join()
    assert (remote.value.kind, remote.value.message) == ("Mistake", "mine")


def test_the_remote_traceback_is_seen(place: Place) -> None:
    with pytest.raises(ValueError, match="wrong") as caught:
        place.spawn(fail, "value", "wrong").join()
    if place.spec == "here":
        assert isinstance(caught.value.__cause__, ValueError)
    else:
        (note,) = caught.value.__notes__
        assert "It happened in another process" in note
        assert "in fail" in note


def test_a_failure_that_nobody_joins_reaches_main(place: Place) -> None:
    place.spawn(fail, "value", "unjoined")
    with pytest.raises(ValueError, match="unjoined"):
        run()
    place.spawn(fail, "value", "while main waits")
    with pytest.raises(ValueError, match="while main waits"):
        channel().receive()


def test_a_failure_too_large_to_travel_is_told_without_its_arguments() -> None:
    before = net.configure()
    net.configure(max_message_bytes=1 << 20)
    try:
        with open_place("processes:1") as place, pytest.raises(ValueError, match="x00") as caught:
            place.spawn(fail_hugely).join()
    finally:
        net.configure(max_message_bytes=before.max_message_bytes)
    assert str(caught.value).endswith("characters left out")


def test_sys_exit_is_a_failure_of_the_function_and_not_the_end_of_the_node(place: Place) -> None:
    with pytest.raises(RemoteError, match="SystemExit: 3"):
        place.spawn(leave).join()
    assert ask(place, peers.tell_pid)


def test_tasklet_exit_ends_it_quietly(place: Place) -> None:
    place.spawn(end_quietly).join()


# ----------------------------------------------------------------------------------------------------------------- kill


def test_kill_runs_the_finally_clauses_and_ends_the_join(place: Place) -> None:
    started, log = place.channel(), place.channel(1)
    spawned = place.spawn(clean_up, started, log)
    started.receive()
    spawned.kill()
    spawned.join()
    assert log.receive() == "cleaned up"


def test_one_that_is_killed_before_it_ran_has_ended_too(place: Place) -> None:
    spawned = place.spawn(sleep, 1000)
    spawned.kill()
    spawned.join()
    assert not spawned.alive


def test_run_waits_for_what_was_spawned_elsewhere(place: Place) -> None:
    spawned = place.spawn(sleep, 0.02)
    run()
    assert not spawned.alive


@pytest.mark.parametrize("spec", PLACES)
def test_leaving_the_block_ends_what_was_spawned(spec: str) -> None:
    with opened(spec) as place:
        spawned = place.spawn(sleep, 1000)
        Doing(spawned.join)
    until(lambda: not spawned.alive)


def test_what_was_spawned_at_a_host_ends_with_the_place_and_the_node_serves_on() -> None:
    with peers.node() as (process, address):
        log = channel(1)
        with open_place(f"hosts:{address}") as one, open_place(f"hosts:{address}") as two:
            started = channel()
            two.spawn(sleep, 0)
            one.spawn(clean_up, started, two_log := two.channel(1))
            started.receive()
            one.close()
            assert ask(two, peers.tell_pid) == process.pid  # the other place goes on
            del two_log, log
        with open_place(f"hosts:{address}") as three:
            assert ask(three, peers.tell_pid) == process.pid


def test_children_that_compute_end_at_once() -> None:
    with open_place("processes:2") as place:
        pids = [spawn_computing(place) for _ in range(2)]
        started = monotonic()
    assert monotonic() - started < here(1.0)
    assert not any(map(peers.is_alive, pids))


def spawn_computing(place: Place) -> int:
    reply = channel()
    place.spawn(peers.compute_for_ever, reply)
    pid = reply.receive()
    assert isinstance(pid, int)
    return pid


def start_a_failing_tasklet() -> None:
    tasklet(fail)("value", "in a tasklet of its own")
    sleep(1000)


def test_a_tasklet_that_fails_unjoined_in_a_child_is_told_as_the_reason(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with open_place("processes:1") as place:
        spawned = place.spawn(start_a_failing_tasklet)
        with pytest.raises(ConnectionError, match="a tasklet failed there: ValueError: in a tasklet of its"):
            spawned.join()
    assert "ValueError: in a tasklet of its own" in capfd.readouterr().err


def test_a_tasklet_that_fails_unjoined_at_a_host_does_not_end_the_node() -> None:
    with peers.node() as (process, address), open_place(f"hosts:{address}") as place:
        spawned = place.spawn(start_a_failing_tasklet)
        assert ask(place, peers.tell_pid) == process.pid
        spawned.kill()
        spawned.join()


def test_no_folder_and_no_file_descriptor_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_place("processes:1"):
        pass
    before, links = len(os.listdir("/proc/self/fd")), len(get_node().links)
    with open_place("processes:2") as place:
        assert list(tmp_path.iterdir())
        ask(place, peers.tell_pid)
    assert not list(tmp_path.iterdir())
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(get_node().links) == links


# ----------------------------------------------------------------------------------------------------------- lost nodes


def test_a_killed_child_tells_its_place_and_the_others_go_on() -> None:
    with open_place("processes:2") as place:
        assert len(place.nodes) == 2
        victim = ask(place, peers.tell_pid)
        held = [place.spawn(sleep, 1000) for _ in range(2)]
        os.kill(victim, signal.SIGKILL)
        with timeout(peers.PATIENCE):
            lost = place.lost.receive()
        assert isinstance(lost, NodeLost)
        assert lost.reason.startswith(f"worker-1 (pid {victim}) ")
        (left,) = place.nodes
        assert left != lost.node
        with pytest.raises(PeerLost):
            next(one for one in held if not one.alive).join()
        assert ask(place, peers.tell_pid) != victim
    assert list(place.lost) == []


def test_a_place_that_closes_just_then_tells_nothing_and_fails_nobody() -> None:
    with peers.node() as (_, address):
        place = open_place(f"hosts:{address}")
        (link,) = place._links  # type: ignore[attr-defined]  # the moment cannot be met otherwise
        link.lose("it was cut")
        place.close()
        run()
        assert list(place.lost) == []


HOW_IT_ENDS = """
import os, signal, sys
from net import open_place
def end(how):
    if how == "exits": os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    with open_place("processes:1") as place:
        place.spawn(end, sys.argv[1])
        print(place.lost.receive().reason)
"""


@pytest.mark.parametrize(
    ("how", "words"), [("exits", "ended with exit code 3"), ("dies", "was killed by SIGKILL")]
)
def test_a_place_says_how_a_child_ended(tmp_path: Path, how: str, words: str) -> None:
    (tmp_path / "program.py").write_text(HOW_IT_ENDS)
    done = run_program("program.py", how, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("worker-1 (pid ")
    assert done.stdout.endswith(f") {words}\n")


def test_a_killed_host_tells_the_place_and_a_closed_place_is_told_nothing() -> None:
    with peers.node() as (one, address), peers.node() as (_, other):
        with open_place(f"hosts:{address},{other}") as place:
            one.kill()
            with timeout(peers.PATIENCE):
                lost = place.lost.receive()
            assert address in lost.node
            assert "is gone" in lost.reason
            assert place.size == 2
            assert len(place.nodes) == 1
        assert list(place.lost) == []


def test_a_handle_keeps_the_failure(place: Place) -> None:
    spawned = place.spawn(fail, "value", "wrong")
    assert spawned.failure is None
    with pytest.raises(ValueError, match="wrong"):
        spawned.join()
    assert isinstance(spawned.failure, ValueError)
    fine = place.spawn(sleep, 0)
    fine.join()
    assert fine.failure is None


# ------------------------------------------------------------------------------------------------------------ bad input


def test_a_host_where_nobody_listens_is_named() -> None:
    with peers.node() as (_, address):
        links = len(get_node().links)
        with pytest.raises(PeerUnreachable, match=r"nobody listens at tcp://127\.0\.0\.1:9; start"):
            open_place(f"hosts:{address},127.0.0.1:9")
        assert len(get_node().links) == links


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(BadAddress):
        open_place("cloud")


# ------------------------------------------------------------------------------------- whole programs, as users do

PROGRAM = """
import sys
from net import open_place
from tasklets import channel

def double(number, out):
    out.send((number * 2, __name__))

if __name__ == "__main__":
    for spec in sys.argv[1:]:
        with open_place(spec) as place:
            out = place.channel()
            place.spawn(double, 21, out)
            print(spec, *out.receive())
"""


def run_program(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    process = peers.start(*command, cwd=cwd)
    out, err = process.communicate(timeout=peers.PATIENCE)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def test_functions_of_a_script_run_in_children(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "program.py").write_text(PROGRAM)
    (tmp_path / "json.py").write_text("raise RuntimeError('the working folder is not where a script looks')")
    done = run_program("folder/program.py", "here", "processes:1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "here 42 __main__\nprocesses:1 42 program\n"


def test_functions_of_a_module_run_with_m_run_in_children(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "__main__.py").write_text(PROGRAM)
    done = run_program("-m", "package", "here", "processes:1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "here 42 __main__\nprocesses:1 42 package.__main__\n"


def test_functions_of_a_script_that_cannot_be_imported_by_name_run_in_children(tmp_path: Path) -> None:
    (tmp_path / "my-program.py").write_text(PROGRAM)
    done = run_program("my-program.py", "here", "processes:1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "here 42 __main__\nprocesses:1 42 __main__\n"


def test_a_script_that_hosts_cannot_import_by_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "my-program.py").write_text(PROGRAM)
    with peers.node() as (_, address):
        done = run_program("my-program.py", f"hosts:{address}", cwd=tmp_path)
    assert done.returncode == 1
    assert "double is defined in my-program.py, which cannot be imported by name" in done.stderr


def test_a_program_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    program = PROGRAM.replace('__name__ == "__main__"', "True").replace("sys.argv[1:]", '["processes:1"]')
    (tmp_path / "program.py").write_text(program)
    done = run_program("program.py", cwd=tmp_path)
    assert done.returncode == 1
    assert 'put what starts the program under\n    if __name__ == "__main__":' in done.stderr


def test_a_function_that_a_host_does_not_have_is_told(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with peers.node() as (_, address):
        done = run_program("program.py", f"hosts:{address}", cwd=tmp_path)
    assert done.returncode == 1
    assert "program:double cannot be imported at" in done.stderr
    assert "install its module there, or start the node where it is found" in done.stderr


BUSY = """
import os, sys
from net import open_place
from tests.net.peers import compute_for_ever
from tasklets import channel, sleep

with open_place("processes:2") as place:
    for _ in range(2):
        reply = channel()
        if sys.argv[1] == "computing":
            place.spawn(compute_for_ever, reply)
            print(reply.receive(), flush=True)
        else:
            place.spawn(sleep, 1000)
            print(place._children._all[_]._process.pid, flush=True)
    print("ready", flush=True)
    sleep(1000) if sys.argv[2] == "waiting" else exec("while True: pass")
"""


@contextmanager
def busy(children: str, parent: str) -> Iterator[tuple[Any, list[int]]]:
    process = peers.start("-c", BUSY, children, parent, start_new_session=True)
    with process:
        try:
            pids = [int(peers.line_of(process)) for _ in range(2)]
            assert peers.line_of(process) == "ready"
            yield process, pids
        finally:
            process.kill()


@pytest.mark.parametrize("children", ["computing", "waiting"])
def test_no_child_outlives_a_parent_that_is_killed(children: str) -> None:  # PRI-09
    with busy(children, "waiting") as (process, pids):
        process.kill()
        process.wait()
        peers.wait_until_gone(pids, here(1.0))


@pytest.mark.parametrize("parent", ["computing", "waiting"])
@pytest.mark.parametrize("children", ["computing", "waiting"])
def test_ctrl_c_ends_parent_and_children_within_a_second(children: str, parent: str) -> None:
    with busy(children, parent) as (process, pids):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        started = monotonic()
        _, stderr = process.communicate(timeout=peers.PATIENCE)
        peers.wait_until_gone(pids, here(1.0))
        assert monotonic() - started < here(1.5)
    assert stderr.count("Traceback") == 1  # the parent's own
    assert stderr.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.1, 0.15, 0.25])
def test_ctrl_c_while_the_children_start_prints_nothing_of_theirs(moment: float) -> None:
    program = "from net import open_place\nprint('now', flush=True)\nwith open_place('processes:2'): input()"
    process = peers.start("-c", program, start_new_session=True, stdin=subprocess.PIPE)
    with process:
        assert peers.line_of(process) == "now"
        signal.sigtimedwait([], moment)
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=peers.PATIENCE)
    assert stderr.count("Traceback") == 1
    assert "_child.py" not in stderr


def interrupt() -> None:
    raise KeyboardInterrupt


def test_whoever_joins_what_was_interrupted_here_waits_no_more() -> None:
    with open_place("here") as place:
        spawned = place.spawn(interrupt)
        with pytest.raises(KeyboardInterrupt):
            run()
        spawned.join()
        assert not spawned.alive
