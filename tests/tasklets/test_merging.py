"""tasklets.trace: recordings of several processes become one. What crosses the network: tests/net/test_tracing.py."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, strategies as st

from tasklets import channel, run, tasklet, trace
from tasklets.trace import Recording
from tasklets.trace._document import Document, decode, encode, read
from tasklets.trace._events import Crossing, Event, Line, Message
from tasklets.trace._merging import correct, merge_documents, starts

INFINITY = float("inf")


class Process:
    """Writes the recording of a process whose clock is `ahead` of the true time (and runs so much too fast)."""

    def __init__(self, name: str, ahead: float = 0.0, drift: float = 0.0, clock: str = "") -> None:
        self.name = name
        self.ahead = ahead
        self.drift = drift
        self.clock = clock
        self.line = Line(1, "main", 1)
        self.events: list[Event] = []
        self.crossings: list[Crossing] = []
        self.messages = 0

    def time(self, now: float) -> float:
        return now * (1 + self.drift)

    def message(self, text: str) -> Message:
        self.messages += 1
        return Message(self.messages, None, "box", text)

    def send(self, now: float, key: str) -> None:
        one = self.message(key)
        one.sender = self.line
        self.events.append(Event(self.time(now), "send", self.line, "", one))
        self.crossings.append(Crossing(self.time(now), True, key, one))

    def receive(self, now: float, key: str) -> None:
        one = self.message(key)
        one.receiver = self.line
        self.crossings.append(Crossing(self.time(now), False, key, one))
        self.events.append(Event(self.time(now), "receive", self.line, "", one))

    def pass_on(self, now: float, key: str, onward: str) -> None:
        """A message comes, waits in a channel here, and goes to somebody elsewhere."""
        one = self.message(key)
        self.crossings.append(Crossing(self.time(now), False, key, one))
        self.crossings.append(Crossing(self.time(now), True, onward, one))

    def note(self, now: float, key: str, leaves: bool) -> None:
        self.crossings.append(Crossing(self.time(now), leaves, key, None))

    @property
    def document(self) -> Document:
        began = 1e9 + self.ahead
        return Document(self.name, 1, self.clock, began, 50.0, 0, tuple(self.events), tuple(self.crossings))


def merged(*processes: Process) -> Recording:
    return merge_documents([process.document for process in processes])


def steps(recording: Recording) -> list[str]:
    return [f"{event.line.label} {event.describe()}" for event in recording.events]


# -- messages --------------------------------------------------------------------------------------------------------


def test_a_message_across_the_network_has_its_sender_and_its_receiver() -> None:
    alpha, beta = Process("alpha"), Process("beta")
    alpha.send(1.0, "m1")
    beta.receive(2.0, "m1")
    sent, received = merged(alpha, beta).events
    assert sent.message is received.message
    assert sent.describe() == "sends m1 to main at beta on box"
    assert received.describe() == "receives m1 from main at alpha on box"


def test_a_message_that_waited_at_a_third_node_is_one() -> None:
    alpha, home, beta = Process("alpha"), Process("home"), Process("beta")
    alpha.send(1.0, "m1")
    home.pass_on(2.0, "m1", "item7")
    beta.receive(3.0, "item7")
    for order in ((alpha, home, beta), (beta, home, alpha), (home, beta, alpha)):
        assert steps(merged(*order)) == [
            "main at alpha sends m1 to main at beta on box",
            "main at beta receives m1 from main at alpha on box",
        ]


def test_what_never_arrived_stays_without_a_receiver() -> None:
    alpha = Process("alpha")
    alpha.send(1.0, "m1")
    assert steps(merged(alpha, Process("beta"))) == ["main at alpha sends m1 on box"]


def test_processes_of_the_same_name_are_told_apart() -> None:
    first, second = Process("node"), Process("node")
    first.send(1.0, "m1")
    second.receive(2.0, "m1")
    assert [event.line.node for event in merged(first, second).events] == ["node", "node#2"]


# -- clocks ----------------------------------------------------------------------------------------------------------


def test_a_wrong_clock_is_corrected_by_what_came_both_ways() -> None:
    alpha, beta = Process("alpha"), Process("beta", ahead=-3600.0)
    alpha.send(1.0, "there")
    beta.receive(1.1, "there")
    beta.send(2.0, "back")
    alpha.receive(2.1, "back")
    began = starts([alpha.document, beta.document])
    assert began[0] == pytest.approx(began[1])
    assert [event.kind for event in merged(beta, alpha).events] == ["send", "receive", "send", "receive"]


def test_questions_and_answers_correct_clocks_as_well_as_messages() -> None:
    alpha, beta = Process("alpha"), Process("beta", ahead=77.0)
    alpha.note(1.0, "spawn1", True)
    beta.note(1.2, "spawn1", False)
    beta.note(5.0, "exited1", True)
    alpha.note(5.2, "exited1", False)
    assert starts([alpha.document, beta.document]) == [pytest.approx(0.0), pytest.approx(0.0)]


def test_processes_of_one_machine_keep_their_clock_whatever_its_wall_clock_did() -> None:
    alpha, beta = Process("alpha", clock="boot"), Process("beta", ahead=5.0, clock="boot")
    documents = [alpha.document, replace(beta.document, monotonic=50.25)]
    assert starts(documents) == [0.0, 0.25]


INTERVALS = {
    "both directions: the middle": ([[-INFINITY, 4.0], [-6.0, -INFINITY]], [0.0, 5.0]),
    "one direction, and the wall clock may be right": (
        [[-INFINITY, -1.0], [-INFINITY, -INFINITY]],
        [0.0, 0.0],
    ),
    "one direction, and the wall clock must be wrong": (
        [[-INFINITY, 9.0], [-INFINITY, -INFINITY]],
        [0.0, 9.0],
    ),
    "the other direction": ([[-INFINITY, -INFINITY], [9.0, -INFINITY]], [0.0, -9.0]),
    "nothing was said": ([[-INFINITY, -INFINITY], [-INFINITY, -INFINITY]], [0.0, 0.0]),
    "by way of a third one": (
        [[-INFINITY, 3.0, -INFINITY], [-3.0, -INFINITY, 2.0], [-INFINITY, -2.0, -INFINITY]],
        [0.0, 3.0, 5.0],
    ),
    "drifting clocks contradict each other": ([[-INFINITY, 4.0], [-2.0, -INFINITY]], [0.0, 3.0]),
}


@pytest.mark.parametrize("case", INTERVALS)
def test_what_is_known_of_two_clocks_decides(case: str) -> None:
    least, expected = INTERVALS[case]
    assert correct(least) == pytest.approx(expected)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Process], bool]:
    """Some processes that sent messages to each other, with clocks of any kind."""
    count = draw(st.integers(2, 4))
    drifting = draw(st.booleans())
    skew = st.floats(-1e5, 1e5)
    drift = st.floats(-1e-2, 1e-2) if drifting else st.just(0.0)
    processes = [Process(f"node {index}", draw(skew), draw(drift)) for index in range(count)]
    actions: list[tuple[float, int, str, bool]] = []
    for number in range(draw(st.integers(0, 12))):
        sender, receiver = draw(st.permutations(range(count)))[:2]
        at = draw(st.floats(0, 100))
        actions.append((at, sender, f"m{number}", True))
        actions.append((at + draw(st.floats(1e-6, 10)), receiver, f"m{number}", False))
    for at, who, key, leaves in sorted(actions):
        (processes[who].send if leaves else processes[who].receive)(at, key)
    return processes, drifting


@given(histories())
def test_whatever_clocks_say_nothing_is_received_before_it_was_sent(
    history: tuple[list[Process], bool],
) -> None:
    processes, _ = history
    events = merged(*processes).events
    assert len(events) == sum(len(process.events) for process in processes)
    assert [event.time for event in events] == sorted(event.time for event in events)
    sent: set[int] = set()
    for event in events:
        assert event.message is not None
        if event.kind == "send":
            sent.add(event.message.number)
        else:
            assert event.message.number in sent
            assert event.message.sender is not None
    for process in processes:  # each has its own order
        own = [event for event in events if event.line.node == process.name]
        assert [(event.kind, event.message and event.message.text) for event in own] == [
            (event.kind, event.message and event.message.text) for event in process.events
        ]


@given(histories())
def test_clocks_that_do_not_drift_are_right_within_the_time_that_messages_took(
    history: tuple[list[Process], bool],
) -> None:
    processes, drifting = history
    if drifting:
        return
    began = starts([process.document for process in processes])
    for one in range(len(processes)):
        for other in range(len(processes)):
            there = latencies(processes[one], processes[other])
            back = latencies(processes[other], processes[one])
            if there and back:
                # All began at the same moment, which is what the corrected clocks should say.
                assert abs(began[one] - began[other]) <= max(min(there), min(back)) + 1e-4


def latencies(one: Process, other: Process) -> list[float]:
    arrived = {crossing.key: crossing.time for crossing in other.crossings if not crossing.leaves}
    return [
        arrived[crossing.key] - crossing.time
        for crossing in one.crossings
        if crossing.leaves and crossing.key in arrived
    ]


# -- files and pictures ----------------------------------------------------------------------------------------------


def recorded() -> Recording:
    where: channel = channel(name="box")
    with trace.record() as recording:
        tasklet(where.send)("hello")
        tasklet(where.receive)()
        run()
    return recording


def test_a_recording_is_the_same_after_it_was_written_and_read(tmp_path: Path) -> None:
    recording = recorded()
    recording.node = "alpha"
    recording.save(tmp_path / "a.json")
    document = read(tmp_path / "a.json")
    assert encode(document) == encode(recording._document()) | {"pid": document.pid}
    assert [event.describe() for event in document.events] == [event.describe() for event in recording.events]
    assert trace.merge([tmp_path / "a.json"]).events[0].line.node == "alpha"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"traceEvents": []}',
        '{"tasklets": {"format": 99}}',
        '{"tasklets": {"format": 1, "lines": [7]}}',
    ],
)
def test_a_file_that_holds_no_recording_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json cannot be merged"):
        trace.merge([path])


def test_a_recording_of_another_release_says_so() -> None:
    with pytest.raises(ValueError, match="format 1 of a recording is wanted, not 2"):
        decode({"format": 2})


def two_nodes() -> Recording:
    alpha, beta = Process("alpha <1>"), Process("beta")
    alpha.send(1.0, "m1")
    beta.receive(2.0, "m1")
    beta.send(3.0, "m2")
    alpha.receive(4.0, "m2")
    return merged(alpha, beta)


def test_the_diagram_has_a_field_per_node_with_its_name() -> None:
    root = ElementTree.fromstring(two_nodes().svg())
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "alpha <1>" in texts
    assert "beta" in texts
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "main at alpha <1> -> main at beta on box: m1" in titles
    assert not any("not received" in (title or "") for title in titles)


def test_perfetto_gets_a_process_per_node_and_arrows_between_them(tmp_path: Path) -> None:
    two_nodes().save(tmp_path / "all.json")
    data = json.loads((tmp_path / "all.json").read_text())
    names = {
        each["args"]["name"]: each["pid"] for each in data["traceEvents"] if each["name"] == "process_name"
    }
    assert names == {"alpha <1>": 1, "beta": 2}
    arrows = [(each["ph"], each["pid"], each["id"]) for each in data["traceEvents"] if each["ph"] in "sf"]
    assert arrows == [("s", 1, 1), ("f", 2, 1), ("s", 2, 2), ("f", 1, 2)]
    assert "tasklets" not in data  # what was merged is not merged again
