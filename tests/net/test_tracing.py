"""What `tasklets.trace` sees of messages that cross the network, and one picture of several processes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import net
from net import open_place
from net._link import sending_watcher
from net.node import Node
from net.testing import memory_network
from tasklets import Timeout, channel, select, sleep, tasklet, timeout, trace
from tasklets.trace._merging import merge_documents
from tests.net import peers
from tests.net.peers import ROOT, until

HOME = "tcp://home:1"
PAGE = bytes(200_000)  # it comes in parts


def arrows(
    serve: Callable[[channel], object], use: Callable[[channel], object], capacity: int = 0
) -> list[str]:
    """Run one program at the home of a channel, and one elsewhere; return the messages that were followed."""
    box: channel = channel(capacity, "box")

    def home() -> None:
        with net.serve(HOME, box=box):
            serve(box)
            sleep(5.0)

    def away() -> None:
        use(net.connect(f"{HOME}/box"))

    with trace.record() as recording, memory_network() as network:
        network.run_at("home", home).name = "home"
        network.run_at("away", away).name = "away"
        network.run()
    events = merge_documents([recording._document()]).events
    found = []
    for event in events:
        message = event.message
        if event.kind == "receive" and message is not None and message.channel == "box":
            assert message.sender is not None, f"nobody sent {message.text}"
            assert message.receiver is not None
            found.append(f"{message.sender.name} -> {message.receiver.name}: {message.text[:8]}")
    return found


def receive_all(count: int) -> Callable[[channel], object]:
    return lambda box: [box.receive() for _ in range(count)]


def send_all(*values: Any) -> Callable[[channel], object]:
    def send(box: channel) -> None:
        for value in values:
            box.send(value)

    return send


def later(function: Callable[[channel], object]) -> Callable[[channel], object]:
    def wait_first(box: channel) -> None:
        sleep(1.0)
        function(box)

    return wait_first


# -- messages are followed across the network ------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, 1, 8])
@pytest.mark.parametrize("late", ["nobody", "sender", "receiver"])
def test_a_message_sent_to_a_channel_elsewhere_is_followed(capacity: int, late: str) -> None:
    receive, send = receive_all(3), send_all(1, 2, 3)
    receive, send = (
        (later(receive) if late == "receiver" else receive),
        (later(send) if late == "sender" else send),
    )
    expected = ["away -> home: 1", "away -> home: 2", "away -> home: 3"]
    assert arrows(receive, send, capacity) == expected


@pytest.mark.parametrize("capacity", [0, 1, 8])
@pytest.mark.parametrize("late", ["nobody", "sender", "receiver"])
def test_a_message_received_from_a_channel_elsewhere_is_followed(capacity: int, late: str) -> None:
    receive, send = receive_all(3), send_all(1, 2, 3)
    receive, send = (
        (later(receive) if late == "receiver" else receive),
        (later(send) if late == "sender" else send),
    )
    expected = ["home -> away: 1", "home -> away: 2", "home -> away: 3"]
    assert arrows(send, receive, capacity) == expected


def test_a_message_from_one_peer_to_another_one_is_followed_over_the_home() -> None:
    def use(box: channel) -> None:
        inner = tasklet(box.receive)()
        inner.name = "other"
        sleep(0.5)
        box.send("over")
        sleep(0.5)

    for capacity in (0, 4):
        assert arrows(lambda box: None, use, capacity) == ["away -> other: 'over'"]


def test_large_messages_and_those_behind_them_are_followed() -> None:
    expected = [f"away -> home: {text}" for text in ("1", repr(PAGE)[:8], "2")]
    assert arrows(receive_all(3), send_all(1, PAGE, 2), 8) == expected
    assert arrows(send_all(1, PAGE, 2), receive_all(3), 8) == [
        each.replace("away -> home", "home -> away") for each in expected
    ]


def test_a_select_that_receives_from_elsewhere_is_followed() -> None:
    def use(box: channel) -> None:
        for _ in range(2):
            select([box, channel()])

    assert arrows(send_all(1, 2), use) == ["home -> away: 1", "home -> away: 2"]


def test_a_message_that_nobody_took_elsewhere_is_followed_to_who_does() -> None:
    def use(box: channel) -> None:
        with pytest.raises(Timeout), timeout(0.5):
            box.receive()
        box.receive()

    assert arrows(later(send_all(1)), use, 4) == ["home -> away: 1"]


def test_waiting_for_a_message_from_elsewhere_is_seen() -> None:
    with trace.record() as recording, memory_network() as network:
        box: channel = channel(0, "box")

        def home() -> None:
            with net.serve(HOME, box=box):
                sleep(1.0)
                box.send(1)
                sleep(1.0)

        def away() -> None:
            net.connect(f"{HOME}/box").receive()

        network.run_at("home", home)
        network.run_at("away", away).name = "away"
        network.run()
    waits = [event.text for event in recording.events if event.kind == "wait" and event.tasklet == "away"]
    assert any(text.startswith("receive from") for text in waits)


def test_nothing_is_in_the_way_when_nothing_is_recorded() -> None:
    before = Node.handlers, Node.take_message
    assert sending_watcher() is None
    with trace.record(), trace.record():
        assert sending_watcher() is not None
        assert Node.handlers is not before[0]
    assert sending_watcher() is None
    assert (Node.handlers, Node.take_message) == before


# -- several processes -----------------------------------------------------------------------------------------------


def square(numbers: channel, answers: channel) -> None:
    for number in numbers:
        answers.send(number * number)


def hang(started: channel) -> None:
    started.send(os.getpid())
    while True:
        pass


def join_all(*spawned: net.Spawned) -> None:
    for one in spawned:
        one.join()


def work_at(place: net.Place) -> None:
    """Have two tasklets elsewhere square 1 to 4."""
    numbers, answers = place.channel(0, "numbers"), place.channel(4, "answers")
    spawned = [place.spawn(square, numbers, answers) for _ in range(2)]
    with timeout(peers.PATIENCE):
        for number in range(1, 5):
            numbers.send(number)
        assert sorted(answers.receive() for _ in range(4)) == [1, 4, 9, 16]
        numbers.close()
        join_all(*spawned)


def merged(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "net.cli", "trace", "merge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def as_of_another_machine(path: Path, folder: Path) -> Path:
    """The same trace as a machine would have written it whose clock is an hour behind."""
    data = json.loads(path.read_text())
    data["tasklets"] |= {
        "clock": "another boot",
        "wall": data["tasklets"]["wall"] - 3600.0,
        "monotonic": 17.0,
    }
    changed = folder / f"wrong-{path.name}"
    changed.write_text(json.dumps(data))
    return changed


def check_picture(files: list[Path], folder: Path) -> None:
    """Merge what three processes wrote, and look for the messages of `work_at` in all its forms."""
    check_messages(trace.merge(files))
    check_messages(trace.merge([files[0], as_of_another_machine(files[1], folder), files[2]]))
    svg, page, data = folder / "all.svg", folder / "all.html", folder / "all.json"
    done = merged(*files, "--svg", svg, "--html", page, "--json", data)
    assert (done.returncode, done.stderr) == (0, "")
    assert "not received" not in svg.read_text()
    ElementTree.parse(svg)
    assert page.read_text().count("<svg") == 1
    flows = [each for each in json.loads(data.read_text())["traceEvents"] if each["ph"] in "sf"]
    begins = {each["id"]: each["pid"] for each in flows if each["ph"] == "s"}
    assert sum(begins[each["id"]] != each["pid"] for each in flows if each["ph"] == "f") == 8


def check_messages(recording: trace.Recording) -> None:
    assert len({event.line.node for event in recording.events}) == 3
    sent: dict[int, float] = {}
    crossed = 0
    for event in recording.events:
        message = event.message
        if message is None or message.channel not in ("numbers", "answers"):
            continue
        assert message.sender is not None
        assert message.receiver is not None
        if event.kind == "send":
            sent[message.number] = event.time
        else:
            assert 0 <= event.time - sent[message.number] < peers.PATIENCE
            crossed += message.sender.node != message.receiver.node
    assert crossed == 8


@pytest.mark.real
def test_a_program_and_its_children_make_one_picture(tmp_path: Path) -> None:
    with open_place("processes:2", trace=tmp_path / "run") as place:
        work_at(place)
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    files = sorted((tmp_path / "run").iterdir())
    assert len(files) == 3
    assert [path.name.split("-")[0] for path in files] == ["pid", "worker", "worker"]
    check_picture(files, tmp_path)


@pytest.mark.real
def test_nodes_elsewhere_write_their_traces_when_they_are_started_so(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with (
        peers.node("--trace", str(folder), "--name", "alpha") as (alpha, at_alpha),
        peers.node("--trace", str(folder), "--name", "beta") as (beta, at_beta),
    ):
        with open_place(f"hosts:{at_alpha},{at_beta}", trace=folder) as place:
            work_at(place)
        for process in (alpha, beta):
            process.send_signal(signal.SIGTERM)
        assert [alpha.wait(peers.PATIENCE), beta.wait(peers.PATIENCE)] == [0, 0]
    files = sorted(folder.iterdir())
    assert [path.name.split("-")[0] for path in files] == ["alpha", "beta", "pid"]
    check_picture(files, tmp_path)


@pytest.mark.real
def test_a_child_that_computes_for_ever_writes_its_trace_and_a_killed_one_none(tmp_path: Path) -> None:
    with open_place("processes:2", trace=tmp_path) as place:
        started = place.channel()
        for _ in range(2):
            place.spawn(hang, started)
        pids = [started.receive(), started.receive()]
        os.kill(pids[0], signal.SIGKILL)
        until(lambda: len(place.nodes) == 1)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {f"pid-{os.getpid()}.json", *(n for n in written if n.endswith(f"-{pids[1]}.json"))}
    assert len(written) == 2


@pytest.mark.real
def test_the_environment_has_a_program_traced_as_it_is(tmp_path: Path) -> None:
    program = (
        "from net import open_place\n"
        "with open_place('here') as place:\n"
        "    box = place.channel(1, 'box')\n"
        "    box.send(7)\n"
        "    box.receive()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TASKLETS_TRACE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
    (path,) = tmp_path.iterdir()
    done = merged(path)
    assert done.returncode == 0
    assert "sends 7" in done.stdout


@pytest.mark.real
def test_merging_something_else_is_one_line_of_error(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("{}")
    done = merged(path, "--svg", tmp_path / "x.svg")
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: {path} cannot be merged: there is no recording of tasklets in it; write one with "
        'recording.save("run.json")\n'
    )
    path.write_text('{"tasklets": {}}')
    assert "format 1" in merged(path).stderr


def test_a_folder_that_cannot_be_made_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        open_place("processes:1", trace=tmp_path / "file" / "run")
