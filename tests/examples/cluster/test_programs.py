"""The example programs of `cluster`: each is run as its README says, and prints what it promises (A-01, P-38)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = ROOT / "examples" / "cluster"

pytestmark = pytest.mark.real


def run(*command: str, logged: str = "", **environ: str) -> list[str]:
    """Run a program to its end, and return the lines that it printed; each line of its workers' log has `logged`."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if not logged or logged not in line] == []
    return done.stdout.splitlines()


def example(name: str, logged: str = "", **environ: str) -> list[str]:
    return run(sys.executable, "-m", f"examples.cluster.{name}", logged=logged, **environ)


def test_notifications_are_delivered_again_and_again_and_kept_when_it_is_no_use() -> None:
    stored, lost, delivered, attempts, dead = example("notify", logged="OutOfReach: the phone of cat")

    assert stored.startswith("30 notifications are stored, all or none, after ")
    assert lost == "cat10 was not reached in 3 attempts: the phone of cat10 is switched off"
    assert delivered in (
        "29 were delivered by 2 workers",
        "29 were delivered by 1 workers",
    )  # one may be quicker
    assert attempts == "20 at the first attempt, 9 at the second"
    assert dead == "dead letters, to be looked at and replayed: 1"


def test_news_of_one_topic_become_one_mail() -> None:
    lines = example("mail")

    assert lines[-1] == "7 news in 3 mails"
    start = lines.index("To: readers of football")
    assert lines[start + 1 : start + 5] == [
        "Subject: 3 news",
        "  the match begins",
        "  one to nil",
        "  the match is over",
    ]


def test_the_audit_finds_the_mistake_in_the_books() -> None:
    from examples.cluster.audit import SHARDS, add_up

    found = sum(add_up(shard)["account 3"] for shard in range(SHARDS))

    assert example("audit") == [
        f"account 3: the books say {found + 1}, the transactions {found}",
        "12 shards of 10000 transactions were added up",
    ]


def test_map_and_reduce_count_every_word() -> None:
    text = " ".join(path.read_text() for path in PROGRAMS.parent.rglob("*.py")).lower()
    words = re.findall(r"[a-z]{5,}", text)

    lines = example("words")

    assert f" with {len(words)} words, {len(set(words))} of them different" in lines[0]
    assert f"{words.count('return'):5} return" in lines
    assert lines[-1] == "in memory it is the same"


def test_the_chat_goes_on_when_a_worker_is_killed() -> None:
    lines = example("chat")

    assert lines[0] == "after line 4 one of 2 workers was killed"
    assert lines[1:10] == [
        "welcome to the lobby",
        *(f"{'ann' if number % 2 else 'bob'}: line {number}" for number in range(1, 9)),
    ]
    assert lines[10] == "the room is finished, and 9 lines are kept"


def test_in_redis_it_is_the_same() -> None:
    server = RedisServer()
    try:
        lines = example("chat", CLUSTER_STORE=server.url)
    finally:
        server.close()

    assert lines[-1] == "the room is finished, and 9 lines are kept"


def test_each_program_is_short_and_has_two_workers() -> None:
    programs = {
        path.stem: path.read_text() for path in PROGRAMS.glob("*.py") if "def main" in path.read_text()
    }

    assert programs.keys() == {"notify", "mail", "audit", "words", "chat"}
    assert all(len(text.splitlines()) < 60 for text in programs.values())
    assert all("workers=2" in text for text in programs.values())
    readme = (PROGRAMS / "README.md").read_text()
    assert all(f"python -m examples.cluster.{name}" in readme for name in programs)


def test_a_leader_and_three_workers_say_hello() -> None:  # P-38
    assert run("sh", "examples/hello/run.sh", PYTHON=sys.executable) == ["hello world"]
