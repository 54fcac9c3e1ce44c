"""tasklets.trace: what is recorded, within which bounds, and that it can be shown."""

import json
import re
import weakref
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tasklets import (
    channel,
    nursery,
    run,
    schedule,
    select,
    sleep,
    tasklet,
    trace,
)
from tasklets._core import is_watching
from tasklets._watch import watch
from tasklets.testing import virtual_clock
from tasklets.trace import Recording


def described(recording: Recording, *kinds: str) -> list[str]:
    """Who did what, in their order; without the turns unless they are asked for."""
    wanted = kinds or ("start", "send", "receive", "wait", "end", "fail")
    return [f"{event.tasklet} {event.describe()}" for event in recording.events if event.kind in wanted]


def produce_and_consume() -> Recording:
    numbers: channel = channel(name="numbers")

    def producer() -> None:
        for number in (1, 2):
            numbers.send(number)
        numbers.close()

    def consumer() -> None:
        for _ in numbers:
            pass

    with trace.record() as recording:
        tasklet(consumer)()
        tasklet(producer)()
        run()
    return recording


# -- what is seen --------------------------------------------------------------------------------------------


def test_a_rendezvous_is_seen_from_both_sides_whoever_came_first() -> None:
    assert described(produce_and_consume()) == [
        "consumer starts",
        "consumer waits: receive from numbers",
        "producer starts",
        "producer sends 1 to consumer on numbers",
        "consumer receives 1 from producer on numbers",
        "consumer waits: receive from numbers",
        "producer sends 2 to consumer on numbers",
        "consumer receives 2 from producer on numbers",
        "consumer waits: receive from numbers",
        "producer ends",
        "consumer ends",
    ]


def test_a_message_of_a_sender_that_waits_has_its_two_times() -> None:
    where: channel = channel(name="box")
    with trace.record() as recording:
        tasklet(where.send)("hello")
        schedule()
        where.receive()
    sent, received = [event for event in recording.events if event.message is not None]
    assert (sent.kind, received.kind) == ("send", "receive")
    assert sent.message is received.message
    assert sent.time < received.time
    assert received.describe() == "receives 'hello' from channel.send on box"


def test_messages_in_a_channel_with_room_keep_their_senders() -> None:
    room: channel = channel(2, name="room")

    def send(name: str) -> None:
        room.send(name)

    with trace.record() as recording:
        for name in "abc":
            tasklet(send)(name)
        schedule()
        for _ in "abc":
            room.receive()
    assert described(recording, "receive") == [
        "main receives 'a' from send on room",
        "main receives 'b' from send#2 on room",
        "main receives 'c' from send#3 on room",
    ]


def test_both_sides_of_a_select_are_seen() -> None:
    left, right = channel(name="left"), channel(name="right")
    with trace.record() as recording:
        tasklet(lambda: select([left, right]))()
        schedule()
        right.send(1)
        schedule()
        tasklet(lambda: select([(left, 2), (right, 3)]))()
        schedule()
        left.receive()
        run()
    assert described(recording, "send", "receive") == [
        "main sends 1 to <lambda> on right",
        "<lambda> receives 1 from main on right",
        "<lambda>#2 sends 2 to main on left",
        "main receives 2 from <lambda>#2 on left",
    ]


def test_failures_are_told_from_ends_also_those_of_a_nursery() -> None:
    def fail() -> None:
        raise ValueError("no flour")

    def fail_at_home() -> None:
        with nursery() as home:
            home.start(fail, name="child")

    with trace.record() as recording:
        tasklet(fail)()
        with pytest.raises(ValueError, match="no flour"):
            run()
        with pytest.raises(ValueError, match="no flour"):
            fail_at_home()
        killed = tasklet(schedule)()
        schedule()
        killed.kill()
    assert described(recording, "fail") == [
        "fail fails: ValueError('no flour')",
        "child fails: ValueError('no flour')",
    ]


def test_waits_for_time_and_errors_sent_are_named() -> None:
    where: channel = channel(name="where")

    def sender() -> None:
        sleep(3)
        where.send_exception(KeyError, "k")

    with virtual_clock(), trace.record() as recording:
        tasklet(sender)()
        tasklet(sleep)(5)
        with pytest.raises(KeyError):
            where.receive()
        run()
    text = described(recording)
    assert "sender waits: sleep(3)" in text
    assert "main receives ! KeyError('k') from sender on where" in text


# -- bounds --------------------------------------------------------------------------------------------------


def test_of_too_many_events_the_last_are_kept() -> None:
    with trace.record(limit=10) as recording:
        for _ in range(100):
            tasklet(schedule)()
            run()
    assert len(recording) == 10
    assert recording.dropped > 100
    assert re.fullmatch(r"<Recording events=10 tasklets=\d+, \d+ older ones dropped>", repr(recording))


def test_messages_are_short_reprs_that_never_raise() -> None:
    class Rude:
        def __repr__(self) -> str:
            raise ValueError

    where: channel = channel(10)
    with trace.record() as recording:
        where.send("x" * 10**6)
        where.send(Rude())
        where.send({"deep": [[[[[1]]]]], "line": "a\nb"})
    texts = [event.message.text for event in recording.events if event.message is not None]
    assert all(len(text) <= 60 for text in texts)
    assert "Rude" in texts[1]


def test_a_recording_keeps_no_message_alive() -> None:
    class Thing:
        pass

    room: channel = channel(1)
    with trace.record() as recording:
        thing = Thing()
        watched = weakref.ref(thing)
        room.send(thing)
        room.receive()
        del thing
        assert watched() is None
    assert "object at" in str(recording)


def test_nothing_of_a_recording_stays_in_the_scheduler() -> None:
    plain = (is_watching(), watch.switched, watch.acting)

    def fail() -> None:
        raise KeyError

    with trace.record(), trace.record():
        assert len(watch.switched) == len(plain[1]) + 2
    with pytest.raises(KeyError), trace.record():
        fail()
    assert (is_watching(), watch.switched, watch.acting) == plain


# -- what is shown -------------------------------------------------------------------------------------------


def test_print_gives_a_table() -> None:
    lines = str(produce_and_consume()).splitlines()
    assert lines[0].startswith("<Recording events=")
    assert re.fullmatch(r" +\d+\.\d{3} ms  producer  sends 1 to consumer on numbers", lines[4])
    assert len(lines) == 12


def texts_of(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]


def test_the_diagram_is_valid_xml_with_the_names_and_messages_escaped() -> None:
    where: channel = channel(name="<&>")

    def send() -> None:
        where.send("<script>&'\"")

    with trace.record() as recording:
        one = tasklet(send)
        one.name = "<b>&"
        one()
        schedule()
        where.receive()
        run()
    svg = recording.svg()
    assert "<script>" not in svg
    assert "<b>" not in svg
    assert "<b>&" in " ".join(texts_of(svg))
    assert "currentColor" in svg
    assert "prefers-color-scheme:dark" in svg
    assert recording._repr_svg_() == svg
    assert "prefers-color-scheme" not in recording._repr_html_()  # in a notebook its theme counts


def test_there_is_a_diagram_of_everything_even_of_nothing() -> None:
    lonely: channel = channel(name="lonely")
    room: channel = channel(3)

    def work() -> None:
        room.send("not received")
        room.send("to myself")
        room.receive()
        select([lonely], timeout=None)

    with virtual_clock(), trace.record(limit=15) as recording:
        for _ in range(30):
            tasklet(work)()
        run()
    with trace.record() as empty:
        pass
    for each in (recording, empty):
        ElementTree.fromstring(each.svg())
        ElementTree.fromstring(each.svg(max_events=3))


def test_the_data_for_perfetto_has_turns_waits_and_an_arrow_per_message() -> None:
    recording = produce_and_consume()
    from tasklets.trace._export import chrome

    events = json.loads(chrome(recording._document()))["traceEvents"]
    names = {each["args"]["name"] for each in events if each["name"] == "thread_name"}
    assert names == {"main", "producer", "consumer"}
    arrows = [(each["ph"], each["id"]) for each in events if each["ph"] in "sf"]
    assert len(arrows) == 4
    assert {number for phase, number in arrows if phase == "s"} == {
        number for phase, number in arrows if phase == "f"
    }
    assert any(each["name"] == "waits: receive from numbers" for each in events)
    tracks: dict[int, float] = {}
    for each in events:
        if each["ph"] == "X":  # the slices of a track do not overlap
            assert each["dur"] > 0
            assert each["ts"] >= tracks.get(each["tid"], 0.0) - 0.01
            tracks[each["tid"]] = each["ts"] + each["dur"]


@pytest.mark.parametrize("suffix", [".svg", ".html", ".json"])
def test_save_writes_by_the_suffix(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"run{suffix}"
    produce_and_consume().save(str(target))
    text = target.read_text(encoding="utf-8")
    assert text.startswith({".svg": "<svg", ".html": "<!doctype html>", ".json": "{"}[suffix])
    assert "producer" in text


def test_save_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.svg, \.html and \.json, not 'x\.png'"):
        produce_and_consume().save(tmp_path / "x.png")
