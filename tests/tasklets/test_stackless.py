"""The compatibility module beyond the examples: its names, its process-wide effects, and old programs run by it."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tasklets import DeadlockError, _core, _watch, bomb, run, stackless, tasklet

ROOT = str(Path(_core.__file__).parents[1])


def python(
    *arguments: str, program: str = "", folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        input=program,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ROOT},
    )


def test_importing_it_changes_nothing_and_install_changes_what_it_says() -> None:
    code = """
import builtins, sys, tasklets.stackless as s
print('stackless' in sys.modules, hasattr(builtins, 'TaskletExit'))
s.install()
import stackless
from stackless import *
print(stackless is s is stackless.stackless, TaskletExit is s.TaskletExit, tasklet is s.tasklet)
"""
    assert python("-c", code).stdout.split() == ["False", "False", "True", "True", "True"]


def test_every_name_of_all_exists_and_the_star_brings_no_current() -> None:
    for name in stackless.__all__:
        assert hasattr(stackless, name)
    assert not {"current", "main", "runcount"} & set(stackless.__all__)


def test_module_properties_are_computed_at_each_access_and_cannot_be_assigned() -> None:
    assert stackless.current is stackless.main is stackless.getcurrent()
    one = tasklet(int)()
    assert stackless.runcount == 2
    one.kill()
    assert stackless.runcount == 1
    assert stackless.threads[0] == threading.main_thread().ident
    with pytest.raises(AttributeError):
        stackless.current = one


def test_other_names_may_be_replaced_by_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stackless, "schedule", int)
    assert stackless.schedule() == 0


def test_close_wakes_nobody() -> None:
    orders = stackless.channel()
    one = tasklet(orders.receive)()
    run()
    orders.close()
    assert one.blocked
    with pytest.raises(ValueError, match=r"^Send/receive operation on a closed channel$"):
        orders.receive()
    orders.send("the last")
    assert not one.alive


def test_native_errors_keep_their_reports_until_it_is_installed() -> None:
    with pytest.raises(DeadlockError, match="cannot be blocked"):
        stackless.channel().receive()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(TypeError):
        stackless.run("soon")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callable"):
        stackless.set_schedule_callback(3)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="Thread id not found"):
        stackless.get_thread_info(1)


def test_callbacks_can_be_asked_for_and_leave_those_of_others_alone() -> None:
    def other(*switch: object) -> None: ...

    def mine(*switch: object) -> None: ...

    _watch.change_watch(switched=(other,))
    try:
        assert stackless.set_schedule_callback(mine) is None
        assert stackless.get_schedule_callback() is mine
        assert stackless.set_schedule_callback(None) is mine
        assert _watch.watch.switched == (other,)
    finally:
        _watch.change_watch(switched=())


def test_thread_info_and_ids() -> None:
    assert stackless.get_thread_info() == (stackless.main, stackless.main, 1)
    assert stackless.get_thread_info(threading.get_ident())[0] is stackless.main
    assert stackless.getcurrentid() == threading.get_ident()
    ids: list[int] = []
    one = tasklet(lambda: ids.append(stackless.getcurrentid()))()
    run()
    assert ids == [id(one)]


def test_a_bomb_is_made_as_in_stackless() -> None:
    error = KeyError("k")
    assert bomb(error).value is error
    assert bomb(KeyError, error).value is error
    assert isinstance(bomb((KeyError, "k", None)).value, KeyError)
    assert bomb(KeyError, "k").type is KeyError


def test_atomic_restores_the_flag_it_found() -> None:
    with stackless.atomic():
        assert stackless.current.atomic
        with stackless.atomic():
            pass
        assert stackless.current.atomic
    assert not stackless.current.atomic


# -- python -m tasklets.stackless PROGRAM --------------------------------------------------------------------

OLD_PROGRAM = """
import stackless, sys, __main__, helper

def worker(results, number):
    try:
        results.send(number * number)
    except TaskletExit:
        raise

results = stackless.channel()
for number in range(3):
    stackless.tasklet(worker)(results, number)
print([results.receive() for _ in range(3)], sys.argv[1:], __name__, __main__.worker is worker, helper.name)
"""


def test_an_old_program_runs_unchanged(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text(OLD_PROGRAM)
    (tmp_path / "helper.py").write_text("name = __name__")
    done = python("-m", "tasklets.stackless", str(tmp_path / "old.py"), "-v", "x")
    assert done.stderr == ""
    assert done.stdout == "[0, 1, 4] ['-v', 'x'] __main__ True helper\n"
    assert done.returncode == 0


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit(7)",
        "raise SystemExit('words')",
        "def f():\n    1/0\nf()",
        "1 +",
        "raise KeyboardInterrupt",
    ],
    ids=["exit code", "exit text", "error", "syntax", "Ctrl-C"],
)
def test_a_program_ends_as_under_python_itself(program: str, tmp_path: Path) -> None:
    path = tmp_path / "old.py"
    path.write_text(program + "\n")
    ours, plain = python("-m", "tasklets.stackless", str(path)), python(str(path))
    assert ours.returncode == plain.returncode
    assert ours.stderr == plain.stderr


def test_an_error_in_a_tasklet_is_shown_with_the_frames_of_the_program(tmp_path: Path) -> None:
    path = tmp_path / "old.py"
    path.write_text(
        "import stackless\ndef f():\n    raise ValueError('v')\nstackless.tasklet(f)()\nstackless.run()\n"
    )
    done = python("-m", "tasklets.stackless", str(path))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ValueError: v"
    assert "_old_program" not in done.stderr
    assert "runpy" not in done.stderr


def test_a_program_may_come_from_standard_input() -> None:
    assert (
        python("-m", "tasklets.stackless", "-", program="import stackless\nprint(stackless.runcount)").stdout
        == "1\n"
    )


def test_a_text_and_a_module_are_run_as_python_runs_them(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text(
        "import sys, stackless\nprint(sys.argv[1:], __name__, stackless.runcount)\n"
    )
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "__main__.py").write_text("import old\n")
    ours = ["-m", "tasklets.stackless"]
    text = "import sys, stackless; print(sys.argv, __name__)"
    assert python(*ours, "-c", text, "-x").stdout == "['-c', '-x'] __main__\n"
    assert python(*ours, "-m", "old", "-x", folder=tmp_path).stdout == "['-x'] __main__ 1\n"
    assert python(*ours, "-m", "package", "a", folder=tmp_path).stdout == "['a'] old 1\n"
    assert python(*ours, "package", "a", folder=tmp_path).returncode == 1  # old.py is not on the path there


@pytest.mark.parametrize(
    "way", [["-c", "1/0"], ["-m", "nowhere"], ["-m", "bad", "x"]], ids=["text", "missing", "error"]
)
def test_texts_and_modules_end_as_under_python_itself(way: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def f():\n    1/0\nf()\n")
    ours, plain = python("-m", "tasklets.stackless", *way, folder=tmp_path), python(*way, folder=tmp_path)
    assert (ours.returncode, ours.stderr) == (plain.returncode, plain.stderr)


@pytest.mark.parametrize("options", [["-x"], ["-c"], ["-m"]])
def test_unknown_and_unfinished_options_are_refused(options: list[str]) -> None:
    done = python("-m", "tasklets.stackless", *options)
    assert done.returncode == 2
    assert "usage: python -m tasklets.stackless PROGRAM" in done.stderr


def test_help_teaches() -> None:
    done = python("-m", "tasklets.stackless", "--help")
    assert done.returncode == 0
    assert "-m MODULE" in done.stdout
    assert "tasklets.stackless.install()" in done.stdout


# Old programs, as they were written for Stackless: what they say is what they said there.

AUTO_SCHEDULER = """
# Round robin by force: nobody has to call schedule().
import stackless

finished = []

def crunch(name, rounds):
    total = 0
    for i in range(rounds):
        total += i
    finished.append(name)

for name, rounds in [('long', 60000), ('short', 300), ('middle', 6000)]:
    stackless.tasklet(crunch)(name, rounds)

slices = 0
while stackless.runcount > 1:
    interrupted = stackless.run(500)
    slices += 1
    if interrupted:
        interrupted.insert()
print(finished, slices > 20)
"""

ACTORS = """
# Objects that live in a tasklet and are sent messages; a watcher counts the switches.
from stackless import *
import stackless

class Actor(object):
    def __init__(self):
        self.inbox = channel()
        self.inbox.preference = 1
        tasklet(self.loop)()
    def loop(self):
        try:
            while 1:
                method, args, answer = self.inbox.receive()
                try:
                    answer.send(getattr(self, method)(*args))
                except AttributeError as e:
                    answer.send_exception(AttributeError, str(e))
        except TaskletExit:
            log.append('closed')
    def ask(self, method, *args):
        answer = channel()
        self.inbox.send((method, args, answer))
        return answer.receive()

class Account(Actor):
    balance = 0
    def add(self, amount):
        self.balance += amount
        return self.balance

log, switches = [], []
stackless.set_schedule_callback(lambda prev, next: switches.append((prev, next)))
account = Account()

def customer(amount):
    for _ in range(3):
        account.ask('add', amount)

for amount in (1, 10):
    tasklet(customer)(amount)
run()
print(account.ask('add', 0))
try:
    account.ask('vanish')
except AttributeError as e:
    print('AttributeError', 'vanish' in str(e))
run()
account.inbox.queue.kill()
stackless.set_schedule_callback(None)
print(log, len(switches) > 10, account.inbox.balance)
"""

THREADS = """
# A pool of threads that work for the tasklets of the main one.
import stackless, threading

class Pool:
    def __init__(self, size):
        self.jobs = stackless.channel()
        self.threads = [threading.Thread(target=self.work) for _ in range(size)]
        for thread in self.threads:
            thread.start()
    def work(self):
        for function, args, answer in self.jobs:
            try:
                answer.send((threading.get_ident(), function(*args)))
            except Exception as e:
                answer.send_throw(e)
    def call(self, function, *args):
        answer = stackless.channel()
        self.jobs.send((function, args, answer))
        thread, result = answer.receive()
        assert thread != threading.get_ident()
        return result
    def close(self):
        for thread in self.threads:
            self.jobs.send_exception(StopIteration)
        for thread in self.threads:
            thread.join()

pool, results = Pool(3), []
done = stackless.channel()

def client(n):
    try:
        results.append(pool.call(pow, n, 2) if n else pool.call(divmod, 1, 0))
    except ZeroDivisionError:
        results.append('zero')
    done.send(n)

for n in range(5):
    stackless.tasklet(client)(n)
for n in range(5):
    done.receive()
pool.close()
stackless.run()
print(sorted(results, key=str), stackless.runcount)
"""


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (AUTO_SCHEDULER, "['short', 'middle', 'long'] True\n"),
        (ACTORS, "33\nAttributeError True\n['closed'] True 0\n"),
        (THREADS, "[1, 16, 4, 9, 'zero'] 1\n"),
    ],
    ids=["slices", "actors", "threads"],
)
def test_old_programs(program: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text(program)
    done = python("-m", "tasklets.stackless", str(tmp_path / "old.py"))
    assert (done.stdout, done.stderr, done.returncode) == (says, "", 0)


def test_without_a_program_it_says_how_to_use_it() -> None:
    done = python("-m", "tasklets.stackless")
    assert done.returncode == 2
    assert "usage: python -m tasklets.stackless PROGRAM" in done.stderr
    missing = python("-m", "tasklets.stackless", "missing.py")
    assert missing.returncode == 2
    assert "can't open file" in missing.stderr
