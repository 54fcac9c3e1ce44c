"""Scripts with inputs: templates, output, limits, and that nothing is left running (D-08, D-17, D-23, D-25, D-26)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from cluster import shell
from cluster.errors import InvalidArguments
from cluster.shell import MissingVariable, Outcome, make_program, run_process
from cluster.testing import wait_for

pytestmark = pytest.mark.real


@pytest.fixture(autouse=True)
def guard() -> Iterator[None]:
    yield
    shell._guard.close()


def ran(template: str, argument: str = "x", **options: Any) -> Outcome:
    variables = options.pop("variables", {})
    outcome = run_process(make_program(template, variables, **options), argument)
    assert outcome is not None
    return outcome


# -- templates


def test_an_input_is_an_argument_and_a_line_of_standard_input() -> None:
    outcome = ran('echo "$1"; cat; echo oops >&2; exit 3', "one two")

    assert (outcome.exit, outcome.stdout, outcome.stderr) == (3, "one two\none two\n", "oops\n")
    assert outcome.duration > 0


def test_a_variable_takes_the_place_of_its_name(tmp_path: Path) -> None:
    """D-08's own example."""
    text = tmp_path / "text"
    text.write_text("foo\nbar\nfoo bar\n")

    assert ran('grep -c {{word}} "$1"', str(text), variables={"word": "foo"}).stdout == "2\n"


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(MissingVariable, match=r"uses \{\{word\}\}.*given: other, words") as caught:
        make_program("grep {{word}}", {"words": 1, "other": 2})
    assert caught.value.name == "word"


HOSTILE = (
    "; touch canary",
    "$(touch canary)",
    "`touch canary`",
    "'; touch canary; '",
    '"; touch canary; "',
    "\n touch canary\n",
    "' + __import__('os').system('touch canary') + '",
    '" + str(__import__("os").system("touch canary")) + "',
    "EOF\ntouch canary\n",
    "${IFS}`touch${IFS}canary`",
    "{{other}}",
    "-n",
    "*",
)
# In each of these a value that is put into the text of the script could get out of where it stands.
PLACES = (
    ("sh", "printf %s {{x}}"),
    ("sh", 'printf %s "{{x}}"'),
    ("sh", "printf %s '{{x}}'"),
    ("sh", 'printf %s "$(printf %s "{{x}}")"'),
    ("sh", 'cat <<EOF | tr -d "\\"" | head -c -1\n{{x}}\nEOF'),
    ("bash", "printf %s {{x}}"),
    ("bash", 'printf %s "{{x}}"'),
    ("python", "import sys; sys.stdout.write({{x}})"),
)


@pytest.mark.parametrize(("interpreter", "template"), PLACES)
def test_a_value_is_data_whatever_is_in_it(
    interpreter: str, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for value in HOSTILE if interpreter != "python" else HOSTILE[6:8]:
        outcome = ran(template, variables={"x": value}, interpreter=interpreter)
        assert outcome.exit == 0, (value, outcome)
        if "<<EOF" not in template and "$(" not in template:
            assert outcome.stdout == value
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("template", ["print('{{x}}')", 'print("{{x}}")', "print('''{{x}}''')", "# {{x}}"])
def test_a_value_within_a_string_of_python_is_no_code(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for value in HOSTILE[6:8]:  # those that are Python
        ran(template, variables={"x": value}, interpreter="python")
    assert os.listdir(tmp_path) == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=40))
def test_any_text_arrives_as_it_is(value: str) -> None:
    assert ran("printf %s {{x}}", variables={"x": value}).stdout == value
    assert ran('printf %s "<{{x}}>"', variables={"x": value}).stdout == f"<{value}>"


def test_an_input_is_data_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for value in HOSTILE:
        assert ran('printf %s "$1"', value).stdout == value
    assert os.listdir(tmp_path) == []


def test_values_that_are_no_text_are_json() -> None:
    made = {"n": 3, "yes": True, "many": [1, "two"]}

    assert ran("echo {{n}} {{yes}} {{many}}", variables=made).stdout == '3 true [1,"two"]\n'


@pytest.mark.parametrize(
    ("template", "options", "said"),
    [
        ("true", {"interpreter": "perl"}, "there are: sh, bash, python"),
        ("true", {"time_limit": 0}, "greater than 0"),
        ("true", {"output_bytes": 0}, "1 to "),
        ("true", {"variables": {"x": "a\0b"}}, "variable 'x' has a NUL"),
        ("true", {"variables": {"x": "a" * 200_000}}, "variable 'x' has 200000 bytes"),
        ("t" * 200_000, {}, "the template has 200000 bytes"),
        ("true", {"variables": {"x": "\ud800"}}, "variable 'x' is no text"),
    ],
)
def test_what_no_process_can_be_given_is_refused_before(template: str, options: Any, said: str) -> None:
    with pytest.raises(InvalidArguments, match=said):
        ran(template, **options)


@pytest.mark.parametrize(
    ("interpreter", "template"),
    [
        ("sh", 'echo "$1 $0"'),
        ("bash", 'a=($1 $0); echo "${a[@]}"'),
        ("python", "import sys; print(sys.argv[1], 'python')"),
    ],
)
def test_there_are_three_interpreters(interpreter: str, template: str) -> None:
    """D-23."""
    assert ran(template, "in", interpreter=interpreter).stdout == f"in {interpreter}\n"


def test_a_script_sees_no_settings_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER_STORE", "redis://:secret@host/0")

    assert "secret" not in ran("env").stdout


# -- output


def test_what_is_too_long_loses_its_middle() -> None:
    outcome = ran("seq 1 20000; seq 1 20000 >&2", output_bytes=1000)

    for text in (outcome.stdout, outcome.stderr):
        head, mark, tail = (
            text.split("\n[... ")[0],
            text.split("[... ")[1].split(" ...]")[0],
            text.split("...]\n")[1],
        )
        assert head.startswith("1\n2\n")
        assert tail.endswith("19999\n20000\n")
        assert mark == f"{len(''.join(f'{n}' + chr(10) for n in range(1, 20001))) - 1000} bytes left out"
        assert len(text) < 1100


@pytest.mark.parametrize("length", [0, 1, 9, 10, 11, 12])
def test_what_fits_is_whole(length: int) -> None:
    text = ran(f"printf %s {'x' * length}", output_bytes=10).stdout

    assert text == "x" * length if length <= 10 else "bytes left out" in text


def test_ten_megabytes_on_both_pipes_do_not_deadlock() -> None:
    """D-26: the origin read all of stdout first, then stderr."""
    outcome = ran("head -c 10000000 /dev/zero >&2; head -c 10000000 /dev/zero; cat >/dev/null", "x" * 100_000)

    assert outcome.exit == 0
    assert "bytes left out" in outcome.stdout
    assert "bytes left out" in outcome.stderr


def test_standard_input_that_nobody_reads_is_no_failure() -> None:
    assert ran("exec 0<&-; sleep 0.1; echo ok", "x" * 100_000).stdout == "ok\n"


def test_bytes_that_are_no_text_are_marked() -> None:
    assert ran(r"printf 'a\377b'").stdout == "a\ufffdb"


# -- limits


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """D-26."""
    pids = tmp_path / "pids"
    outcome = ran(f"sleep 1000 & echo $! >{pids}; sleep 1000 & echo $! >>{pids}; wait", time_limit=0.3)

    assert outcome.timed_out
    assert outcome.exit == -signal.SIGTERM
    assert outcome.duration < 30
    wait_for(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))


def test_what_does_not_obey_is_killed() -> None:
    outcome = ran("trap '' TERM; while :; do sleep 0.05; done", time_limit=0.2)

    assert outcome.timed_out
    assert outcome.exit == -signal.SIGKILL


def test_what_a_script_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    outcome = ran(f"sleep 1000 & echo $! >{pid}; echo done")

    assert (outcome.exit, outcome.stdout) == (0, "done\n")
    assert outcome.duration < 30
    wait_for(lambda: not alive(int(pid.read_text())))


def test_a_cancelled_script_ends_with_its_group(tmp_path: Path) -> None:
    """D-25."""
    pids = tmp_path / "pids"
    program = make_program(f"sleep 1000 & echo $! >{pids}; wait")

    assert run_process(program, "x", cancelled=lambda: pids.exists() and bool(pids.read_text())) is None
    wait_for(lambda: not alive(int(pids.read_text())))


def test_a_killed_executor_leaves_no_script_running(tmp_path: Path) -> None:
    """X2: SIGKILL of the process that runs it."""
    pids = tmp_path / "pids"
    script = f"trap '' TERM; echo $$ >{pids}; sleep 1000 & echo $! >>{pids}; while :; do sleep 0.05; done"
    code = f"from cluster.shell import *; run_process(make_program({script!r}), 'x')"
    with subprocess.Popen([sys.executable, "-c", code], cwd=os.getcwd()) as executor:
        wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2, 20)
        executor.kill()
    began = time.monotonic()
    wait_for(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()), 20)
    assert time.monotonic() - began < 10


def test_it_needs_no_newer_calls_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no pidfd, and on macOS before Python 3.13 no waitid."""
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.delattr(os, "waitid")

    assert ran('echo "$1"', "in").stdout == "in\n"
    assert ran("sleep 1000", time_limit=0.1).exit == -signal.SIGTERM


def test_nothing_is_left_open() -> None:
    ran("true")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        ran("echo x; echo y >&2", "z")
        ran("sleep 10", time_limit=0.02)

    assert len(os.listdir("/proc/self/fd")) == before


def test_a_guard_that_was_killed_is_replaced() -> None:
    ran("true")
    assert shell._guard._process is not None
    shell._guard._process.kill()
    shell._guard._process.wait()

    assert ran("echo again").stdout == "again\n"
