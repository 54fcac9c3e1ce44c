"""A signal that is answered by a later turn than the one that handled it: what a job waits for others with."""

from __future__ import annotations

from typing import Any

from cluster import LATER, Client, Job, Reply, Signal, TaskEnded, operation
from cluster.testing import FAST, run_inline


@operation
def double(n: int) -> int:
    return 2 * n


class Asker(Job):
    """Answers a question when somebody else has answered it."""

    def on_signal_ask(self, signal: Signal) -> Any:
        self.spawn(double, signal.body, meta=self.signal_id.encode())
        return LATER

    def on_task_done(self, task: TaskEnded, result: int) -> None:
        self.reply(task.meta.decode(), result)

    def on_signal_wonder(self, signal: Signal) -> Any:
        return LATER

    def on_signal_refuse(self, signal: Signal) -> Any:
        self.reply(signal.body, "never sent, as this handler fails")
        raise ValueError("no")

    def on_signal_tell(self, signal: Signal) -> Any:
        self.reply(signal.body, Reply(status="failed", error={"kind": "X"}))


def test_the_sender_waits_for_the_turn_that_answers() -> None:
    with Client("memory:", workers=2, settings=FAST) as client:
        asker = client.start(Asker)
        replies = [asker.signal(Signal("ask", n), timeout=10) for n in (4, 5)]
        assert [(reply.status, reply.value) for reply in replies] == [("ok", 8), ("ok", 10)]


def test_sent_again_it_gets_the_late_answer_again() -> None:
    run = run_inline(Asker)
    assert run.signal(Signal("ask", 4), id="q").status == "timeout"
    run.run_tasks()
    assert run.signal(Signal("ask", 4), id="q").value == 8
    assert run.tasks == []


def test_a_handler_that_fails_has_answered_nobody() -> None:
    run = run_inline(Asker)
    run.signal(Signal("ask", 4), id="q")
    assert run.signal(Signal("refuse", "q")).status == "failed"
    assert run.signal(Signal("ask", 4), id="q").status == "timeout"
    run.signal(Signal("tell", "q"))
    assert run.signal(Signal("ask", 4), id="q").error == {"kind": "X"}


def test_what_was_not_answered_when_the_job_ends_is_told_so() -> None:
    with Client("memory:", workers=1, settings=FAST) as client:
        asker = client.start(Asker)
        assert asker.signal(Signal("wonder"), timeout=0.2, id="q").status == "timeout"
        asker.terminate()
        assert asker.signal(Signal("wonder"), timeout=5, id="q").status == "ended"
