"""What children print."""

import os
import sys
from pathlib import Path
from typing import IO

import pytest

from net import _output, open_place
from net._output import Output
from tests.net import peers


def printing(*texts: bytes, prefix: str = "[w] ", keep_open: bool = False) -> None:
    reader, writer = os.pipe()
    output = Output()
    output.add(os.fdopen(reader, "rb", buffering=0), prefix, "stdout")
    output.start()
    for text in texts:
        os.write(writer, text)
    if not keep_open:
        os.close(writer)
    output.close(peers.PATIENCE if not keep_open else 0.05)
    if keep_open:
        os.close(writer)


def test_each_line_has_the_name_in_front(capsys: pytest.CaptureFixture[str]) -> None:
    printing(b"one\ntw", b"o\n\nthree")
    assert capsys.readouterr().out == "[w] one\n[w] two\n[w] \n[w] three\n"


def test_what_is_no_text_is_shown_somehow(capsys: pytest.CaptureFixture[str]) -> None:
    printing(b"\xff\xfe\n")
    assert capsys.readouterr().out == "[w] \\xff\\xfe\n"


def test_a_line_without_end_is_shown_in_parts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_output, "MAX_LINE_BYTES", 4)
    printing(b"abcdefghij")
    assert capsys.readouterr().out == "[w] abcd\n[w] efgh\n[w] ij\n"


def test_a_pipe_that_somebody_holds_open_delays_the_end_only_shortly(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printing(b"begun", keep_open=True)
    assert capsys.readouterr().out == "[w] begun\n"


def test_a_terminal_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(IO[str]):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    printing(b"one\ntwo\n")
    monkeypatch.setattr(sys, "stdout", None)
    printing(b"one\ntwo\n")


CHATTY = """
import os, sys
from net import open_place
def talk(count):
    for number in range(count):
        print("line", number)
    print("an error", file=sys.stderr)
    os.system("echo from a program of mine")
if __name__ == "__main__":
    with open_place("processes:2") as place:
        for one in [place.spawn(talk, 1000), place.spawn(talk, 3)]:
            one.join()
        print("done", flush=True)
"""


@pytest.mark.real
def test_children_print_on_the_terminal_of_their_parent(tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text(CHATTY)
    process = peers.start("chatty.py", cwd=tmp_path)
    out, err = process.communicate(timeout=peers.PATIENCE)
    assert sorted(err.splitlines()) == ["[worker-1] an error", "[worker-2] an error"]
    lines = out.splitlines()
    assert [line for line in lines if line.startswith("[worker-1] line")] == [
        f"[worker-1] line {number}" for number in range(1000)
    ]
    assert lines.count("[worker-2] from a program of mine") == 1
    assert len(lines) == 1000 + 3 + 2 + 1


COMPUTING = """
import sys
from net import open_place
from tasklets import channel
def flood(started, done):
    started.send(None)
    print("x" * 300_000)  # more than a pipe holds
    open(done, "w").close()
if __name__ == "__main__":
    import os
    with open_place("processes:1") as place:
        started = channel(1)
        one = place.spawn(flood, started, sys.argv[1])
        started.receive()
        while not os.path.exists(sys.argv[1]):  # computes, and waits for nobody
            pass
        one.join()
"""


@pytest.mark.real
def test_a_child_can_print_while_its_parent_computes(tmp_path: Path) -> None:
    (tmp_path / "computing.py").write_text(COMPUTING)
    process = peers.start("computing.py", str(tmp_path / "done"), cwd=tmp_path)
    out, err = process.communicate(timeout=peers.PATIENCE)
    assert (len(out.replace("[worker-1] ", "").replace("\n", "")), err) == (300_000, "")


@pytest.mark.real
def test_what_a_killed_child_had_printed_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with open_place("processes:1") as place:
        place.spawn(print_and_die)
        place.lost.receive()
    assert capfd.readouterr().out == "[worker-1] last words\n"


def print_and_die() -> None:
    sys.stdout.write("last words")
    sys.stdout.flush()
    os.kill(os.getpid(), 9)
