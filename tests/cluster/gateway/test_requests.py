"""What the gateway makes of requests, over a store in memory: bodies, ids, keys, pages, ETags, signals, old paths."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import gevent
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from cluster import codecs
from cluster.errors import QueueFull, StoreFull, StoreUnavailable
from cluster.gateway import messages
from cluster.records import Ending, Finish, Job, JobState, Member, Result
from net import values
from tests.cluster.gateway.conftest import JSON, NDJSON, Local

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
LINES = {"Accept": "application/x-ndjson"}


def job_of(local: Local, **body: Any) -> str:
    answer = local.post("/jobs", {"operation": "a:b", **body})
    assert answer.status_code == 202, answer.text
    return str(answer.json["id"])


def work(
    local: Local, count: int = 1, results: Callable[[Any], tuple[Result, ...]] | None = None
) -> list[Any]:
    """Be a worker for so many tasks."""
    me = Member("me", "i", "worker", slots=4, ops=("cluster:shell", "a:b"), queues=("default",))
    if not local.store.members():
        local.store.join(me, 60)
    claims, _ = local.store.claim("me", "i", count, queues=["default"], ops=me.ops, lease=60)
    for claim in claims:
        task = claim.task
        ended = Result(task.index or 0, task.weight, codecs.encode(tuple(range(task.weight))))
        rows = results(task) if results else (ended,)
        local.store.finish("me", [Finish(task.task_id, claim.fence, Ending.DONE, results=rows)])
    return list(claims)


# -- submitting


def test_a_job_is_taken_with_where_to_look(local: Local) -> None:
    """D-01: {id, state, url}."""
    answer = local.post("/jobs", {"operation": "a:b", "inputs": [1, 2, 3]})

    assert answer.status_code == 202
    assert set(answer.json) == {"id", "state", "url"}
    assert answer.headers["Location"] == answer.json["url"]
    shown = local.simulate_get(answer.json["url"]).json
    assert (shown["state"], shown["total"], shown["done"], shown["failed"]) == ("running", 3, 0, 0)
    assert {"started", "updated", "error"} <= set(shown)


@pytest.mark.parametrize(
    ("body", "said", "path"),
    [
        ("{", "no JSON", ""),
        ("[]", "Expected `object`, got `array`", ""),
        ('{"operation": "a:b", "inputs": [1], "colour": 3}', "unknown field `colour`; the fields are: operation,", ""),
        ('{"operation": 3, "inputs": []}', "$.operation", "$.operation"),
        ('{"operation": "a:b", "inputs": {}}', "$.inputs", "$.inputs"),
        ('{"operation": "a:b", "inputs": [], "priority": 10000}', "$.priority", "$.priority"),
        ('{"operation": "a:b", "inputs": [], "id": "x"}', "$.id", "$.id"),
        ('{"operation": "a:b", "inputs": [], "id": "a/../b/c/d"}', "$.id", "$.id"),
        ('{"operation": "a:b"}', "there are no inputs", ""),
        ('{"inputs": []}', "one of operation, template and class", ""),
        ('{"operation": "a:b", "template": "x", "inputs": []}', "operation and template", ""),
        ('{"operation": "a:b", "args": [], "inputs": []}', "stand instead of inputs", ""),
        ('{"operation": "a:b", "inputs": [], "params": 1}', "params are for a job class", ""),
        ('{"template": "echo {{who}}", "inputs": []}', "no variable 'who'", ""),
        ('{"template": "x", "interpreter": "perl", "inputs": []}', "$.interpreter", "$.interpreter"),
        ('{"template": "x", "inputs": ["a\\u0000b"]}', "input 0 has a NUL", ""),
        ('{"operation": "a:b", "inputs": [1, NaN]}', "no JSON", ""),
        ('{"operation": "a:b", "inputs": [1, "\\ud800"]}', "no JSON", ""),
        ('{"operation": "a:b", "inputs": [%s]}' % ("[" * 100 + "]" * 100), "input 0", "$.inputs[0]"),
        ('{"class": "a:b", "params": ' + "[" * 100_000, "nested too deeply", ""),
        ("\ud800", "no JSON", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_body_is_said(local: Local, body: str, said: str, path: str) -> None:
    answer = local.simulate_post("/jobs", body=body.encode("utf-8", "surrogatepass"), headers=JSON)

    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert said in answer.json["detail"]
    assert answer.json.get("path", "") == path
    assert local.store.jobs() == []


def test_a_missing_variable_is_named(local: Local) -> None:
    """D-08."""
    answer = local.post("/jobs", {"template": "grep {{word}}", "inputs": []})

    assert (answer.status_code, answer.json["variable"]) == (400, "word")


@given(st.binary(max_size=200) | st.text().map(str.encode))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_is_the_clients_fault(local: Local, body: bytes) -> None:
    for path in ("/jobs", "/tasks", "/dead-letters", "/jobs/x/signal"):
        assert 400 <= local.simulate_post(path, body=body, headers=JSON).status_code < 500
    assert 400 <= local.simulate_post("/jobs", body=body, headers=NDJSON).status_code < 500


def test_a_job_without_inputs_is_finished(local: Local) -> None:
    job_id = job_of(local, inputs=[])

    assert local.simulate_get(f"/jobs/{job_id}").json["state"] == "finished"


def test_shards_are_four_for_each_slot_of_those_who_serve_the_queue(local: Local) -> None:
    """D-09, D-10, D-20: by the members of now, and not those that are gone, drain, or serve something else."""
    for name, options in {
        "one": {"slots": 2},
        "two": {"slots": 1},
        "other": {"slots": 9, "queues": ("mail",)},
        "leaving": {"slots": 9, "state": "draining"},
        "leader": {"slots": 9, "role": "coordinator"},
    }.items():
        local.store.join(Member(name, "i", **{"role": "worker", "queues": ("default",), **options}), 60)
    local.store.join(Member("gone", "i", "worker", slots=9, queues=("default",)), 0.01)
    gevent.sleep(0.05)
    job_id = job_of(local, inputs=list(range(100)))
    shards = local.store.tasks(job_id=job_id)

    assert len(shards) == 12
    assert [t.index for t in shards] == [sum(s.weight for s in shards[:n]) for n in range(12)]
    assert sum(t.weight for t in shards) == 100


def test_a_shard_is_not_larger_than_a_message_may_be(local: Local) -> None:
    job_id = job_of(local, inputs=["x" * 100_000] * 12, shards=1)
    shards = local.store.tasks(job_id=job_id)

    assert [t.weight for t in shards] == [2] * 6
    assert [t.index for t in shards] == [0, 2, 4, 6, 8, 10]


def test_a_group_that_nobody_joined_is_refused(make_local: Callable[..., Local]) -> None:
    """A-35: its name may be a slip; those that there are are named."""
    local = make_local(group="defualt")
    local.store.groups()
    for path, body in (("/jobs", {"operation": "a:b", "inputs": []}), ("/tasks", {"operation": "a:b"})):
        answer = local.post(path, body)
        assert (answer.status_code, answer.json["code"]) == (404, "no_group")
    assert local.simulate_post("/jobs", body='{"operation": "a:b"}\n1', headers=NDJSON).status_code == 404
    local.store.declare_group()
    assert local.post("/tasks", {"operation": "a:b"}).status_code == 202


# -- once


def test_a_key_stands_for_one_job(local: Local) -> None:
    body = {"operation": "a:b", "inputs": [1, 2]}
    first = local.post("/jobs", body, Idempotency_Key="key-number-1")
    again = local.post("/jobs", body, Idempotency_Key="key-number-1")
    other = local.post("/jobs", {**body, "inputs": [1, 3]}, Idempotency_Key="key-number-1")

    assert (first.status_code, again.status_code, other.status_code) == (202, 200, 409)
    assert again.json["id"] == first.json["id"]
    assert len(local.store.jobs()) == 1
    assert sum(t.weight for t in local.store.tasks()) == 2


def test_an_id_stands_for_one_job(local: Local) -> None:
    body = {"operation": "a:b", "inputs": [1, 2], "id": "nightly-7"}

    assert [local.post("/jobs", body).status_code for _ in range(3)] == [202, 200, 200]
    assert local.post("/jobs", {**body, "queue": "mail"}).status_code == 409


@pytest.mark.parametrize("key", ["short", "x" * 201])
def test_a_key_that_is_none_is_refused(local: Local, key: str) -> None:
    assert local.post("/jobs", {"operation": "a:b", "inputs": []}, Idempotency_Key=key).status_code == 400


def test_a_name_is_for_one_living_job(local: Local) -> None:
    body = {"operation": "a:b", "inputs": [1], "name": "nightly"}
    first = local.post("/jobs", body).json["id"]
    second = local.post("/jobs", body)

    assert second.status_code == 409
    assert first in second.json["detail"]
    local.simulate_post(f"/jobs/{first}/signal", body='{"type": "terminate"}', headers=JSON)
    assert local.post("/jobs", body).status_code == 202


def test_a_key_stands_for_one_task(local: Local) -> None:
    body = {"operation": "a:b", "args": [1], "kwargs": {"x": 2}}
    statuses = [local.post("/tasks", body, Idempotency_Key="key-number-1").status_code for _ in range(2)]

    assert statuses == [202, 200]
    assert local.post("/tasks", {**body, "args": [2]}, Idempotency_Key="key-number-1").status_code == 409
    [task] = local.store.tasks()
    assert values.loads(task.args) == ((1,), {"x": 2}, {})


# -- uploads


def test_lines_are_inputs(local: Local) -> None:
    body = '{"operation": "a:b", "id": "upload-1"}\n1\n\n"two"\r\n{"three": 3}\n[4]'
    answers = [local.simulate_post("/jobs", body=body, headers=NDJSON) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [202, 200]
    inputs = [one for task in local.store.tasks() for one in values.loads(task.args)[0]]
    assert inputs == [1, "two", {"three": 3}, (4,)]
    assert local.simulate_post("/jobs", body=body + "5", headers=NDJSON).status_code == 400
    assert local.simulate_post("/jobs", body=body + "\n5", headers=NDJSON).status_code == 409


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "no JSON"),
        ('{"operation": "a:b"}\n1\n{', "input 1 is no JSON"),
        ('{"operation": "a:b", "inputs": [1]}\n1', "its inputs are the other lines"),
        ('{"class": "a:b"}\n1', "its inputs are the other lines"),
        ('{"template": "true"}\n"x"\n"\\u0000"', "input 1 has a NUL"),
    ],
)
def test_an_upload_with_a_fault_leaves_nothing(local: Local, body: str, said: str) -> None:
    answer = local.simulate_post("/jobs", body=body, headers=NDJSON)

    assert answer.status_code == 400
    assert said in answer.json["detail"]
    assert local.store.jobs() == []


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster.gateway import submitting

    monkeypatch.setattr(submitting, "BATCH_TASKS", 2)


def lines_of(count: int, **job: Any) -> str:
    return "\n".join([json.dumps({"operation": "a:b", "shards": 7, **job}), *map(str, range(count))])


@pytest.mark.usefixtures("small_batches")
def test_a_long_upload_takes_several_transactions_and_is_closed_at_the_end(local: Local) -> None:
    answer = local.simulate_post("/jobs", body=lines_of(100), headers=NDJSON)
    job = local.store.job(answer.json["id"])

    assert (answer.status_code, job.total, job.closed) == (202, 100, True)
    tasks = local.store.tasks()
    assert len(tasks) == 7
    assert [one for task in tasks for one in values.loads(task.args)[0]] == list(range(100))
    assert local.store.get("gateway-uploads") == ""


@pytest.mark.usefixtures("small_batches")
def test_an_upload_that_broke_off_is_gone_on_with(
    make_local: Callable[..., Local], monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-06: the store goes away in the middle; the same lines again complete the job, cut as at first."""
    local = make_local(upload_ttl=0.0)
    body = lines_of(100, shards=None, id="upload-1")
    for number in range(3):
        local.store.join(Member(f"w{number}", "i", "worker", slots=1, queues=("default",)), 60)
    submit = local.store.submit
    monkeypatch.setattr(local.store, "submit", lambda *_: (_ for _ in ()).throw(StoreFull("no room")))
    assert local.simulate_post("/jobs", body=body, headers=NDJSON).status_code == 503
    assert not local.store.job("upload-1").closed
    monkeypatch.setattr(local.store, "submit", submit)
    local.store.join(Member("more", "i", "worker", slots=5, queues=("default",)), 60)

    assert local.simulate_post("/jobs", body=body, headers=NDJSON).status_code == 200
    tasks = local.store.tasks()
    assert local.store.job("upload-1").closed
    assert len(tasks) == 12
    assert [one for task in tasks for one in values.loads(task.args)[0]] == list(range(100))


@pytest.mark.usefixtures("small_batches")
def test_an_upload_that_nobody_goes_on_with_is_ended(
    make_local: Callable[..., Local], monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-06: never "exists for ever"."""
    local = make_local(upload_ttl=0.1)
    submit = local.store.submit
    monkeypatch.setattr(local.store, "submit", lambda *_: (_ for _ in ()).throw(StoreFull("no room")))
    local.simulate_post("/jobs", body=lines_of(100, id="upload-1"), headers=NDJSON)
    monkeypatch.setattr(local.store, "submit", submit)

    assert local.uploads.sweep() == []  # it may still be on its way
    gevent.sleep(0.15)
    assert local.uploads.sweep() == ["upload-1"]
    job = local.store.job("upload-1")
    assert (job.state, job.reason) == (JobState.TERMINATED, "its upload broke off")
    assert local.uploads.sweep() == []


# -- looking


def test_unknown_things_are_404(local: Local) -> None:
    """D-05: the origin answered with nothing."""
    for method, path in (
        ("GET", "/jobs/nope"), ("DELETE", "/jobs/nope"), ("GET", "/jobs/nope/results"), ("GET", "/tasks/nope"),
        ("DELETE", "/tasks/nope"), ("POST", "/tasks/nope/replay"), ("GET", "/nope"),
        ("GET", "/schedule/status?taskId=x"),
    ):  # fmt: skip
        answer = local.simulate_request(method, path)
        assert answer.status_code == 404, path
        assert answer.json["detail"]
    signal = local.simulate_post("/jobs/nope/signal", body='{"type": "cancel"}', headers=JSON)
    assert signal.status_code == 404


def test_what_has_not_changed_is_not_sent_again(local: Local) -> None:
    """D-05."""
    job_id = job_of(local, inputs=[1, 2], shards=2)
    tag = local.simulate_get(f"/jobs/{job_id}").headers["ETag"]
    same = local.simulate_get(f"/jobs/{job_id}", headers={"If-None-Match": f'"x", W/{tag}'})
    work(local)
    changed = local.simulate_get(f"/jobs/{job_id}", headers={"If-None-Match": tag})

    assert (same.status_code, same.text) == (304, "")
    assert (changed.status_code, changed.json["done"]) == (200, 1)


def test_a_long_poll_returns_at_the_change(local: Local) -> None:
    """D-05."""
    job_id = job_of(local, inputs=[1, 2], shards=2)
    began = time.monotonic()
    polls = gevent.spawn(local.simulate_get, f"/jobs/{job_id}?wait=30")
    gevent.sleep(0.2)
    assert not polls.ready()
    work(local)
    answer = polls.get(timeout=10)

    assert answer.json["done"] == 1
    assert time.monotonic() - began < 10


def test_a_long_poll_that_missed_the_change_returns_at_once(local: Local) -> None:
    job_id = job_of(local, inputs=[1, 2], shards=2)
    tag = local.simulate_get(f"/jobs/{job_id}").headers["ETag"]
    work(local)

    with gevent.Timeout(10):
        answer = local.simulate_get(f"/jobs/{job_id}?wait=30", headers={"If-None-Match": tag})
    assert answer.json["done"] == 1


def test_a_long_poll_without_change_says_so(local: Local) -> None:
    job_id = job_of(local, inputs=[1])
    tag = local.simulate_get(f"/jobs/{job_id}").headers["ETag"]

    assert local.simulate_get(f"/jobs/{job_id}?wait=0.1", headers={"If-None-Match": tag}).status_code == 304
    assert local.simulate_get(f"/jobs/{job_id}?wait=0.1").status_code == 200


def test_a_job_that_has_ended_is_not_waited_for(local: Local) -> None:
    job_id = job_of(local, inputs=[])
    with gevent.Timeout(10):
        assert local.simulate_get(f"/jobs/{job_id}?wait=30").json["state"] == "finished"


@pytest.mark.parametrize("text", ["x", "-1", "61", "nan", "inf"])
def test_a_wait_that_is_none_is_400(local: Local, text: str) -> None:
    assert local.simulate_get(f"/jobs/{job_of(local, inputs=[])}?wait={text}").status_code == 400


def test_pages_have_no_gap_and_no_repeat(local: Local) -> None:
    """A-34, with 500 jobs."""
    made = {job_of(local, inputs=[]) for _ in range(500)}
    seen: list[str] = []
    path: str | None = "/jobs?limit=64&state=finished"
    while path:
        page = local.simulate_get(path).json
        seen.extend(job["id"] for job in page["jobs"])
        path = page["next"]

    assert len(seen) == len(made)
    assert set(seen) == made


def test_jobs_are_found_by_state_name_and_time(local: Local) -> None:
    old = job_of(local, inputs=[1], name="first of all")
    gevent.sleep(0.01)
    now = local.store.now()
    new = job_of(local, inputs=[])

    def found(query: str) -> list[str]:
        return [job["id"] for job in local.simulate_get(f"/jobs?{query}").json["jobs"]]

    assert found("state=running") == [old]
    assert found("state=finished") == [new]
    assert found("name=First%20of%20all") == [old]
    assert found(f"since={now}") == [new]
    assert local.simulate_get("/jobs?state=lost").status_code == 400


def test_results_are_paged_by_index(local: Local) -> None:
    """D-17: ?from=&limit=."""
    job_id = job_of(local, inputs=list(range(10)), shards=3)
    assert local.simulate_get(f"/jobs/{job_id}/results").json == {
        "results": [], "total": 10, "complete": False, "next": None,
    }  # fmt: skip
    work(
        local,
        3,
        lambda task: tuple(
            Result(n, 1, codecs.encode((n * n,))) for n in range(task.index, task.index + task.weight)
        ),
    )
    seen, path = [], f"/jobs/{job_id}/results?from=2&limit=3"
    while path:
        page = local.simulate_get(path).json
        assert len(page["results"]) <= 3
        seen += [(one["index"], one["value"]) for one in page["results"]]
        path = page["next"]

    assert seen == [(n, n * n) for n in range(2, 10)]
    lines = local.simulate_get(f"/jobs/{job_id}/results?from=7", headers=LINES).text
    assert [json.loads(line)["value"] for line in lines.splitlines()] == [49, 64, 81]


def test_failed_inputs_have_an_error_and_what_there_is(local: Local) -> None:
    job_id = job_of(local, inputs=[0, 1, 2])
    error = values.dumps({"kind": "ExitCode", "message": "exit code 1", "output": {"exit": 1}})
    work(local, 1, lambda task: (Result(0, 1, codecs.encode((5,))),))
    local.simulate_delete(f"/jobs/{job_id}")
    job_id = job_of(local, inputs=[0, 1], shards=1)
    work(local, 1, lambda task: (Result(0, 1, error, failed=True), Result(1, 1, codecs.encode((7,)))))
    first, second = local.simulate_get(f"/jobs/{job_id}/results").json["results"]

    assert first == {
        "index": 0,
        "value": {"exit": 1},
        "error": {"kind": "ExitCode", "message": "exit code 1"},
    }
    assert second == {"index": 1, "value": 7}
    shown = local.simulate_get(f"/jobs/{job_id}").json
    assert (shown["state"], shown["done"], shown["failed"]) == ("finished", 1, 1)


def test_results_can_be_followed(local: Local) -> None:
    job_id = job_of(local, inputs=list(range(6)), shards=3)
    following = gevent.spawn(local.simulate_get, f"/jobs/{job_id}/results?follow=true", headers=LINES)
    for _ in range(3):
        gevent.sleep(0.05)
        work(local)

    lines = following.get(timeout=10).text.splitlines()
    assert sorted(json.loads(line)["index"] for line in lines) == list(range(6))


def test_whoever_follows_again_goes_on_where_it_was(local: Local) -> None:
    """Wherever it was cut off, also between the results of one row; `from=` leaves out what is before an index."""
    job_id = job_of(local, inputs=list(range(9)), shards=1)
    rows = [Result(low, 3, codecs.encode((low, low + 1, low + 2))) for low in (3, 0, 6)]
    work(local, 1, lambda task: tuple(rows))

    def followed(query: str) -> list[Any]:
        answer = local.simulate_get(f"/jobs/{job_id}/results?follow=true{query}", headers=LINES)
        return [json.loads(line) for line in answer.text.splitlines()]

    whole = followed("")
    assert [line["index"] for line in whole] == [3, 4, 5, 0, 1, 2, 6, 7, 8]
    for number, line in enumerate(whole):
        assert followed(f"&after={line['cursor']}") == whole[number + 1 :]
    assert followed("&from=4") == [line for line in whole if line["index"] >= 4]
    for wrong in ("7", "a.b", "1.2.3", "-1.0", "9" * 40 + ".0"):
        answer = local.simulate_get(f"/jobs/{job_id}/results?follow=true&after={wrong}", headers=LINES)
        assert (answer.status_code, answer.json["path"]) == (400, "after")


def test_why_nothing_happens_is_said(local: Local) -> None:
    """D-11, D-22: no members, nobody who knows the operation, a queue that is paused, inputs on their way."""
    job_id = job_of(local, inputs=[1])

    def detail() -> str:
        return str(local.simulate_get(f"/jobs/{job_id}").json["detail"])

    assert detail().startswith("no members: no worker is there")
    local.store.join(Member("w", "i", "worker", slots=1, queues=("mail",)), 60)
    assert "no worker serves queue 'default'" in detail()
    local.store.join(Member("v", "i", "worker", slots=1, queues=("default",)), 60)
    assert "knows operation" in detail()
    local.store.join(Member("u", "i", "worker", slots=1, queues=("default",), ops=("a:b",)), 60)
    local.simulate_patch("/queues/default", body='{"paused": true}', headers=JSON)
    assert "is paused" in detail()
    local.post(f"/jobs/{job_id}/signal", {"type": "pause"})
    assert "it is paused" in detail()


# -- signals


def test_a_job_is_paused_resumed_cancelled(local: Local) -> None:
    """D-25, A-31."""
    job_id = job_of(local, inputs=[1, 2])

    def said(kind: str) -> tuple[int, str, str]:
        answer = local.post(f"/jobs/{job_id}/signal", {"type": kind, "body": "why not"})
        return answer.status_code, answer.json["status"], answer.json["job"]["state"]

    assert said("pause") == (200, "ok", "paused")
    assert said("resume") == (200, "ok", "running")
    assert said("suspend") == (200, "ok", "suspended")
    assert said("resume") == (200, "ok", "running")
    assert said("cancel") == (200, "ok", "cancelled")
    assert said("cancel")[1] == "ended"
    assert said("terminate")[1] == "ended"
    assert {t.state for t in local.store.tasks()} == {"cancelled"}


def test_a_signal_that_nobody_handles_is_unknown(local: Local) -> None:
    job_id = job_of(local, inputs=[1])

    assert (
        local.post(f"/jobs/{job_id}/signal", {"type": "AddFunds", "body": {"amount": 5}}).json["status"]
        == "unknown"
    )
    assert local.post(f"/jobs/{job_id}/signal", {"type": "finalize"}).status_code == 400
    assert local.post(f"/jobs/{job_id}/signal", {}).status_code == 400


def test_a_deleted_job_is_gone_with_all_that_was_its_own(local: Local) -> None:
    """A-31, D-24."""
    job_id = job_of(local, inputs=[1, 2])

    assert local.simulate_delete(f"/jobs/{job_id}").status_code == 204
    assert local.simulate_get(f"/jobs/{job_id}").status_code == 404
    assert local.simulate_delete(f"/jobs/{job_id}").status_code == 404
    assert local.store.tasks() == []


# -- tasks


def test_a_task_is_taken_looked_at_and_cancelled(local: Local) -> None:
    taken = local.post("/tasks", {"operation": "a:b", "args": [1], "priority": 3, "delay": 60})
    path = taken.json["url"]
    shown = local.simulate_get(path).json

    assert taken.status_code == 202
    assert (shown["operation"], shown["priority"], shown["state"]) == ("a:b", 3, "scheduled")
    assert shown["detail"]
    assert [t["id"] for t in local.simulate_get("/tasks?state=scheduled").json["tasks"]] == [shown["id"]]
    assert local.simulate_delete(path).status_code == 204
    assert local.simulate_delete(path).status_code == 409


def test_a_tasks_end_is_waited_for(local: Local) -> None:
    path = local.post("/tasks", {"operation": "a:b"}).json["url"]
    waiting = gevent.spawn(local.simulate_get, f"{path}?wait=30")
    gevent.sleep(0.1)
    work(local, 1, lambda task: ())

    assert waiting.get(timeout=10).json["state"] == "done"


def die(local: Local, count: int) -> list[str]:
    for _ in range(count):
        local.post("/tasks", {"operation": "a:b"})
    me = Member("me", "i", "worker", slots=9, ops=("a:b",), queues=("default",))
    local.store.join(me, 60)
    claims, _ = local.store.claim("me", "i", count, queues=["default"], ops=me.ops, lease=60)
    error = values.dumps({"kind": "ValueError", "message": "no <b>such</b> thing", "traceback": "..."})
    local.store.finish("me", [Finish(c.task.task_id, c.fence, Ending.DEAD, error) for c in claims])
    return sorted(c.task.task_id for c in claims)


def test_dead_letters_are_listed_and_replayed(local: Local) -> None:
    ids = die(local, 5)
    page = local.simulate_get("/dead-letters?limit=3").json
    rest = local.simulate_get(page["next"]).json

    assert [t["id"] for t in [*page["tasks"], *rest["tasks"]]] == ids
    assert page["tasks"][0]["error"]["message"] == "no <b>such</b> thing"
    assert local.simulate_post(f"/tasks/{ids[0]}/replay").json == {"count": 1}
    assert local.simulate_post(f"/tasks/{ids[0]}/replay").status_code == 409
    assert local.post("/dead-letters", {"tasks": ids[:2]}).json == {"count": 1}
    assert local.post("/dead-letters", {"all": True}).json == {"count": 3}
    assert local.post("/dead-letters", {}).status_code == 400
    assert local.simulate_get("/dead-letters").json["tasks"] == []


def test_arguments_have_a_limit(make_local: Callable[..., Local]) -> None:
    local = make_local(max_payload=1000)

    answer = local.post("/tasks", {"operation": "a:b", "args": ["x" * 1000]})
    assert answer.status_code == 400
    assert "1000 are allowed" in answer.json["detail"]


# -- the group


def test_members_and_queues_are_shown(local: Local) -> None:
    local.store.join(
        Member("w", "i", "worker", slots=3, queues=("default",), ops=("a:b",), host="here", pid=7), 60
    )
    job_of(local, inputs=[1])
    members = local.simulate_get("/members").json
    queues = local.simulate_get("/queues").json

    assert (members["slots"], members["members"][0]["node"], members["members"][0]["pid"]) == (3, "w", 7)
    assert queues["queues"][0]["tasks"] == {"ready": 1}
    assert queues["counters"]["submitted"] == 1


def test_a_queue_is_paused_and_limited(local: Local) -> None:
    answer = local.simulate_patch("/queues/mail", body='{"paused": true, "max_waiting": 1}', headers=JSON)
    assert (answer.json["paused"], answer.json["max_waiting"]) == (True, 1)
    full = local.post("/jobs", {"operation": "a:b", "inputs": [1, 2], "shards": 2, "queue": "mail"})

    assert (full.status_code, full.json["code"]) == (503, "queue_full")
    assert full.headers["Retry-After"]


def test_events_are_paged(local: Local) -> None:
    for _ in range(5):
        job_of(local, inputs=[1])
    seen, path = [], "/events?limit=2"
    while path:
        page = local.simulate_get(path).json
        seen += [(event["kind"], event["subject"]) for event in page["events"]]
        path = page["next"]

    assert [kind for kind, _ in seen].count("job") == 5


def test_health_says_whether_the_store_answers(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    assert local.simulate_get("/healthz").json == {"status": "ok", "group": "default", "store": "ok"}
    monkeypatch.setattr(local.store, "lock", lambda _: (_ for _ in ()).throw(StoreUnavailable("it is away")))
    assert local.simulate_get("/healthz").status_code == 503
    local.service.draining = True
    assert local.simulate_get("/healthz").json["code"] == "draining"


@pytest.mark.parametrize(
    "error", [StoreUnavailable("it is away"), StoreFull("no room"), QueueFull("it is full")]
)
def test_what_the_store_cannot_do_now_is_503_with_when_to_ask_again(
    local: Local, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """D-04, X2: disk full."""
    for name in ("start", "submit", "job", "jobs"):
        monkeypatch.setattr(local.store, name, lambda *_, **__: (_ for _ in ()).throw(error))
    for answer in (
        local.post("/jobs", {"operation": "a:b", "inputs": [1]}),
        local.post("/tasks", {"operation": "a:b"}),
        local.simulate_get("/jobs/x"),
        local.simulate_get("/jobs"),
    ):
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0


def test_a_fault_of_ours_is_logged_and_tells_nothing(
    local: Local, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(local.store, "jobs", lambda **_: 1 / 0)
    answer = local.simulate_get("/jobs")

    assert answer.status_code == 500
    assert "division" not in answer.text
    assert "ZeroDivisionError: division by zero" in caplog.text


def test_requests_are_logged_with_the_job(local: Local, caplog: Any) -> None:
    with caplog.at_level("INFO", "cluster.gateway"):
        job_id = job_of(local, inputs=[])
        local.simulate_get("/jobs/evil%0Aline")

    assert "POST /jobs 202 " in caplog.text
    assert f"about {job_id}" in caplog.text
    assert "evil\nline" not in caplog.text


# -- the old paths (D-02)


def test_a_form_is_a_job(local: Local) -> None:
    form = {
        "id": "6f9619ff-8b86-d011-b42d-00c04fc964ff",
        "inputList": '["/etc/hosts", "/etc/passwd"]',
        "variableJson": '{"word": "foo"}',
        "templateFunction": 'grep -c {{word}} "$1"',
    }
    answer = local.simulate_post("/schedule/create", body=urlencode(form), headers=FORM)
    status = local.simulate_get(f"/schedule/status?taskId={form['id']}").json

    assert (answer.status_code, answer.json["id"]) == (202, form["id"])
    assert status == {"id": form["id"], "status": "INPROGRESS", "chunksToExecute": 2, "chunksExecuted": 0}
    program, inputs = values.loads(local.store.tasks()[0].args)[0]
    assert inputs == ("/etc/hosts",)
    assert program["variables"] == (("TEMPLATE_word", "foo"),)


@pytest.mark.parametrize("text", ["a,b", "a\nb\n", '["a","b"]', " a , b "])
def test_inputs_of_a_form_are_a_list_or_between_commas(local: Local, text: str) -> None:
    body = urlencode({"templateFunction": "true", "inputList": text})
    job_id = local.simulate_post("/schedule/create", body=body, headers=FORM).json["id"]

    assert [values.loads(t.args)[0][1] for t in local.store.tasks(job_id=job_id)] == [("a",), ("b",)]


@pytest.mark.parametrize(
    "form",
    [{}, {"templateFunction": ""}, {"templateFunction": "x", "variableJson": "["},
     {"templateFunction": "x", "variableJson": "[]"}, {"templateFunction": "x", "inputList": "["},
     {"templateFunction": "x", "id": "x"}, {"templateFunction": "{{y}}"}],
)  # fmt: skip
def test_a_form_with_a_fault_is_400(local: Local, form: dict[str, str]) -> None:
    assert local.simulate_post("/schedule/create", body=urlencode(form), headers=FORM).status_code == 400


def test_pings_and_beats(local: Local) -> None:
    local.store.join(Member("w", "i", "worker", slots=1), 60)

    assert local.simulate_get("/schedule/ping").text == "pong"
    assert local.simulate_get("/schedule/node-beat?nodeId=w").json == {"nodeId": "w", "state": "up"}
    assert local.simulate_get("/schedule/node-beat?nodeId=x").status_code == 404
    assert local.simulate_get("/schedule/node-beat").status_code == 400


# -- values


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
TREES = LEAVES | st.lists(LEAVES) | st.dictionaries(st.text(), LEAVES | st.lists(LEAVES))


@given(TREES)
def test_whatever_a_task_returns_is_json(value: Any) -> None:
    json.loads(messages.encoded(value))


def test_values_that_json_has_not_are_text() -> None:
    from datetime import UTC, datetime, timedelta
    from decimal import Decimal

    found = messages.plain(
        {
            1: b"\xff",
            "d": Decimal("1.50"),
            "t": datetime(2026, 1, 1, tzinfo=UTC),
            "s": {3},
            "x": float("inf"),
            "l": timedelta(1),
        }
    )
    assert found == {
        "1": "/w==",
        "d": "1.50",
        "t": "2026-01-01T00:00:00+00:00",
        "s": [3],
        "x": "inf",
        "l": 86400.0,
    }


def test_results_that_mean_nothing_here_are_shown_all_the_same() -> None:
    from cluster.gateway import views

    job = Job("x", "", JobState.FINISHED, result=b"\xc1\x04none...", error=b"\xc1")
    shown = views.job_view(job)
    assert "mean nothing here" in shown.result["unreadable"]
    assert shown.error["kind"] == "Unreadable"
