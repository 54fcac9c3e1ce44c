"""Jobs by HTTP with real gateways and workers, on both engines: shards, scripts, failures, cancel (D-01 .. D-25)."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import Client
from cluster.testing import FAST, Nodes, all_events, check_journal, wait_for
from tests.cluster.conftest import lines, on
from tests.cluster.gateway.conftest import NDJSON, Gateway, Shared, start_gateway

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]
OPS = "tests.cluster.ops:"
# What is the same for every engine.
one_engine = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


def shell_worker(nodes: Nodes, *options: str, **more: Any) -> Any:
    return nodes.worker("--allow-shell", *options, **more)


def outcomes(results: list[Any]) -> list[Any]:
    """Results by index, without what differs from run to run."""
    return [one["value"] for one in sorted(results, key=lambda one: one["index"])]


def test_curl_submits_and_reads(shared: Shared, tmp_path: Path) -> None:
    """D-01, D-08, D-17: curl -d @job.json, and the result of each input by its index."""
    gateway = shared.gateway
    text = tmp_path / "text"
    text.write_text("foo\nbar\nfoo bar\n")
    file = tmp_path / "job.json"
    job = {
        "template": 'grep -c {{word}} "$1"; cat; echo oops >&2',
        "variables": {"word": "foo"},
        "inputs": [str(text), str(tmp_path / "none")],
    }
    file.write_text(json.dumps(job))
    command = ["curl", "-sS", "-w", "\n%{http_code} %{time_total}", "-H", "Content-Type: application/json"]
    done = subprocess.run(
        [*command, "-d", f"@{file}", f"{gateway.url}/jobs"], capture_output=True, text=True, check=True
    )
    answer, _, figures = done.stdout.rpartition("\n")
    job_id = json.loads(answer)["id"]

    assert figures.startswith("202 ")
    assert float(figures.split()[1]) < 2  # 0.1 on a machine with nothing else to do
    ended = gateway.ended(job_id)
    assert (ended["state"], ended["total"], ended["done"], ended["failed"]) == ("finished", 2, 2, 0)
    first, second = outcomes(gateway.results(job_id))
    assert (first["exit"], first["stdout"], first["stderr"]) == (0, f"2\n{text}\n", "oops\n")
    assert "No such file" in second["stderr"]
    assert second["duration"] > 0


def test_a_hostile_value_stays_data(shared: Shared, tmp_path: Path) -> None:
    """D-08: with a canary."""
    gateway = shared.gateway
    canary = tmp_path / "canary"
    value = f'\'; touch {canary}; "$(touch {canary})" `touch {canary}`'
    job_id = gateway.submit(
        template='printf "%s|%s|%s" {{x}} "{{x}}" "$1"', variables={"x": value}, inputs=[value]
    )

    assert gateway.ended(job_id)["done"] == 1
    assert outcomes(gateway.results(job_id))[0]["stdout"] == f"{value}|{value}|{value}"
    assert not canary.exists()


def test_a_failed_input_is_no_failed_shard(shared: Shared) -> None:
    """D-15, D-18: each of twenty inputs is counted once, however many fail; and with fail_fast the job fails."""
    gateway = shared.gateway
    template = 'echo "$1"; [ $(($1 % 3)) -ne 0 ] || exit $1'
    job_id = gateway.submit(template=template, inputs=list(range(20)), shards=4)
    fast = gateway.submit(template=template, inputs=[3, *[1] * 50], shards=1, fail_fast=True)
    job = gateway.ended(job_id)

    assert (job["state"], job["done"], job["failed"]) == ("finished", 14, 6)
    found = {one["index"]: one for one in gateway.results(job_id)}
    assert len(found) == 20
    for index, one in found.items():
        code = index if index % 3 == 0 else 0
        assert one["value"]["exit"] == code
        assert one["value"]["stdout"] == f"{index}\n"
        assert ("error" in one) == bool(code)
    assert found[9]["error"]["kind"] == "ExitCode"
    failed = gateway.ended(fast)
    assert (failed["state"], failed["error"]["kind"]) == ("failed", "ExitCode")


def test_what_failed_is_submitted_again(shared: Shared, tmp_path: Path) -> None:
    """D2: only the failed inputs, in their order; once for a key."""
    gateway = shared.gateway
    mended = tmp_path / "mended"
    template = f'[ -e {mended} ] || [ $(($1 % 2)) -eq 0 ] || exit 1; echo "$1 {{{{x}}}}"'
    job_id = gateway.submit(template=template, variables={"x": "it's"}, inputs=list(range(10)), shards=3)
    assert gateway.ended(job_id)["failed"] == 5
    mended.touch()
    key = {"Idempotency_Key": f"again-{job_id}"}
    taken = [gateway.post(f"/jobs/{job_id}/retry", b"", **key) for _ in range(2)]
    again = taken[0].json()["id"]
    job = gateway.ended(again)

    assert [answer.status for answer in taken] == [202, 200]
    assert (job["total"], job["done"], job["failed"]) == (5, 5, 0)
    assert [one["stdout"] for one in outcomes(gateway.results(again))] == [
        f"{n} it's\n" for n in (1, 3, 5, 7, 9)
    ]
    assert gateway.post(f"/jobs/{again}/retry", b"").status == 409
    failing = gateway.submit(operation=OPS + "fail", inputs=["none", "fatal", "none", "value"], shards=2)
    gateway.ended(failing)
    second = gateway.ended(gateway.post(f"/jobs/{failing}/retry", b"").json()["id"])
    assert (second["total"], second["failed"]) == (2, 2)
    going = gateway.submit(operation=OPS + "until", inputs=[str(tmp_path / "never")])
    assert gateway.post(f"/jobs/{going}/retry", b"").status == 409
    gateway.post(f"/jobs/{going}/signal", {"type": "terminate"})


def test_operations_are_mapped_over_inputs(shared: Shared) -> None:
    """D-01, D-23: a registered operation; a value that it refuses is its input's failure."""
    gateway = shared.gateway
    job_id = gateway.submit(operation=OPS + "tolerant", inputs=[1, "two", {"three": [3]}, None])
    bad = gateway.submit(operation=OPS + "pay", inputs=[5, -1])
    call = gateway.submit(operation=OPS + "add", args=[1, 2])

    assert gateway.ended(job_id)["done"] == 4
    assert outcomes(gateway.results(job_id)) == [1, "two", {"three": [3]}, None]
    fatal = gateway.submit(operation=OPS + "fail", inputs=["fatal", "none", "fatal"], shards=1)
    assert gateway.ended(bad)["done"] == 2
    failed = gateway.ended(fatal)
    assert (failed["state"], failed["done"], failed["failed"]) == ("finished", 1, 2)
    by_index = {one["index"]: one for one in gateway.results(fatal)}
    assert by_index[0]["error"]["message"] == "it cannot be"
    assert by_index[1] == {"index": 1, "value": None}
    gateway.ended(call)
    assert outcomes(gateway.results(call)) == [3]


def test_a_cancelled_job_ends_with_all_its_processes(shared: Shared, tmp_path: Path) -> None:
    """D-25, P-26: SIGTERM, then SIGKILL, to the whole group; the worker itself goes on."""
    gateway = shared.gateway
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 1000 & echo $! >>{pids}; echo $$ >>{pids}; while :; do sleep 0.05; done"
    job_id = gateway.submit(template=script, inputs=[1, 2, 3, 4])
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 4, 30)
    began = time.monotonic()
    said = gateway.post(f"/jobs/{job_id}/signal", {"type": "cancel"}).json()

    assert (said["status"], said["job"]["state"]) == ("ok", "cancelled")
    assert time.monotonic() - began < 3
    wait_for(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()), 20)
    after = gateway.submit(template="echo ok", inputs=[1])
    assert gateway.ended(after)["done"] == 1
    assert all(node.alive for node in shared.nodes.nodes)


def test_a_terminated_job_leaves_no_process(shared: Shared, tmp_path: Path) -> None:
    """A-31: its executors are killed, and what they had started is, too."""
    gateway = shared.gateway
    pids = tmp_path / "pids"
    job_id = gateway.submit(template=f"sleep 1000 & echo $! >>{pids}; echo $$ >>{pids}; wait", inputs=[1])
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2, 30)
    gateway.post(f"/jobs/{job_id}/signal", {"type": "terminate"})

    wait_for(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()), 20)
    assert gateway.job(job_id)["state"] == "terminated"


@on("sqlite", "shared")
def test_an_input_has_a_time_limit_and_its_output_a_size(shared: Shared) -> None:
    """D-26, D-17."""
    gateway = shared.gateway
    big = 'head -c 10000000 /dev/zero | tr "\\0" x; head -c 10000000 /dev/zero >&2'
    script = f'case "$1" in sleep) sleep 1000;; big) {big};; esac'
    job_id = gateway.submit(
        template=script, inputs=["sleep", "big", "none"], time_limit=3, output_bytes=1000, shards=3
    )
    job = gateway.ended(job_id)
    slept, big, none = (one for one in sorted(gateway.results(job_id), key=lambda one: one["index"]))

    assert (job["done"], job["failed"]) == (2, 1)
    assert slept["error"]["kind"] == "TimeLimit"
    assert slept["value"]["exit"] == -15
    assert re.search(r"x\n\[\.\.\. 9999000 bytes left out \.\.\.\]\nx", big["value"]["stdout"])
    assert none["value"]["stdout"] == ""


def test_a_job_class_is_started_signalled_and_read(shared: Shared) -> None:
    """A-30, by HTTP: a handler's reply, what nobody handles, a job that has ended."""
    gateway = shared.gateway
    job_id = gateway.submit(**{"class": "tests.cluster.works:Account", "params": None, "name": "alice"})
    signal = f"/jobs/{job_id}/signal"
    added = gateway.post(
        signal, {"type": "AddFunds", "body": {"amount": 5}, "id": "first-deposit", "wait": 20}
    )
    again = gateway.post(
        signal, {"type": "AddFunds", "body": {"amount": 5}, "id": "first-deposit", "wait": 20}
    )
    unknown = gateway.post(signal, {"type": "Whatever", "wait": 20})

    assert added.json()["status"] == "ok"
    assert again.json()["value"] == added.json()["value"]
    assert unknown.json()["status"] == "unknown"
    assert gateway.job(job_id)["name"] == "alice"
    gateway.post(signal, {"type": "terminate"})
    assert gateway.post(signal, {"type": "AddFunds", "body": {"amount": 5}}).json()["status"] == "ended"


def test_metrics_are_what_the_journal_says(shared: Shared, full_size: bool) -> None:
    """A-24: after a run of a thousand tasks."""
    gateway = shared.gateway
    count = 1000 if full_size else 200
    with Client(shared.url, shared.group, settings=FAST) as client:
        handles = client.submit_all([client.with_options().make(OPS + "add", n, 1) for n in range(count)])
        letters = [client.submit(OPS + "fail", "fatal", str(n)) for n in range(2)]
        for handle in [*handles, *letters]:
            handle.wait(60)
        events = [event.kind for event in all_events(client.store)]
        text = gateway.get("/metrics").data.decode()
        stats = client.stats()

    def value(name: str, **labels: str) -> float:
        for line in text.splitlines():
            if line.startswith(name + "{") and all(f'{key}="{one}"' in line for key, one in labels.items()):
                return float(line.rpartition(" ")[2])
        return 0.0

    for what, kind in (("completed", "done"), ("dead", "dead"), ("claimed", "assign")):
        assert value("tasklets_happened_total", what=what) == events.count(kind) == stats.counters[what]
    assert value("tasklets_happened_total", what="completed") >= count
    assert value("tasklets_happened_total", what="submitted") == stats.counters["submitted"]
    assert value("tasklets_tasks", queue="default", state="done") == stats.count("done", "default")
    assert value("tasklets_tasks", queue="default", state="dead") == stats.count("dead", "default") >= 2
    assert value("tasklets_members", role="worker", state="up") == 1
    assert value("tasklets_slots", what="all") == 2
    assert value("tasklets_store_up") == 1


def test_a_job_is_forgotten_after_its_time(shared: Shared) -> None:
    """D-24: its ttl after its end, by the scanner; one without stays for the retention."""
    gateway = shared.gateway
    short = gateway.submit(operation=OPS + "nap", inputs=[0], ttl=0.5)
    long = gateway.submit(operation=OPS + "nap", inputs=[0])
    gateway.ended(long)

    wait_for(lambda: gateway.get(f"/jobs/{short}").status == 404, 40)
    assert gateway.job(long)["state"] == "finished"


def test_events_come_as_they_happen(shared: Shared) -> None:
    """/events, as a browser reads it; and from where it was, after a break."""
    gateway = shared.gateway
    import http.client

    host, _, port = gateway.url.removeprefix("http://").rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.request("GET", "/events", headers={"Accept": "text/event-stream"})
    stream = connection.getresponse()
    assert stream.getheader("Content-Type") == "text/event-stream"
    job_id = gateway.submit(operation=OPS + "nap", inputs=[0])
    seen: list[tuple[str, str, Any]] = []
    kind = number = ""

    def has(subject: str) -> bool:
        return any(kind == "journal" and data["subject"] == subject for kind, _, data in seen)

    while not has(job_id) or not any(kind == "snapshot" and data["jobs"] for kind, _, data in seen):
        line = stream.readline().decode().rstrip("\n")
        name, _, text = line.partition(": ")
        if name == "event":
            kind = text
        elif name == "id":
            number = text
        elif name == "data":
            seen.append((kind, number, json.loads(text)))
    stream.close()
    connection.close()
    gateway.submit(operation=OPS + "nap", inputs=[0])  # something to be told, so that it is noticed
    first = next(number for kind, number, data in seen if kind == "journal" and data["subject"] == job_id)
    again = gateway.get(f"/events?after={first}").json()["events"]
    assert first not in [event["seq"] for event in again]
    wait_for(lambda: "tasklets_gateway_watchers 0.0" in gateway.get("/metrics").data.decode(), 20)


def test_two_inputs_run_at_a_time_on_a_worker_with_two_slots(shared: Shared, tmp_path: Path) -> None:
    """D-13: each slot is a process of its own."""
    gateway = shared.gateway
    go = tmp_path / "go"
    job_id = gateway.submit(template=f"until [ -e {go} ]; do sleep 0.05; done; echo $PPID", inputs=[1] * 8)
    path = f"/tasks?job={job_id}&state=assigned"
    wait_for(lambda: len(gateway.get(path).json()["tasks"]) == 2, 20)
    go.touch()
    gateway.ended(job_id)

    assert len({one["stdout"] for one in outcomes(gateway.results(job_id))}) == 2


@pytest.mark.parametrize(
    "cost", [lambda n: n, lambda n: n * n / 50, lambda n: 50 - n], ids=["line", "square", "falling"]
)
def test_no_slot_is_busy_for_much_longer_than_the_others(
    shared: Shared, cost: Callable[[int], float]
) -> None:
    """D-20: shards alike in number, and not in work, are pulled by whoever is free: at most 1.5 times the mean."""
    gateway = shared.gateway
    job_id = gateway.submit(operation=OPS + "measured_nap", inputs=[0.0005 * cost(n) for n in range(50)])
    gateway.ended(job_id)
    busy: dict[int, float] = {}
    for process, seconds in outcomes(gateway.results(job_id)):
        busy[process] = busy.get(process, 0.0) + seconds

    assert len(busy) == 2
    assert max(busy.values()) <= 1.5 * sum(busy.values()) / 2


# -- groups of their own


def test_two_gateways_are_one(nodes: Nodes) -> None:
    """D-03: submit to one, kill it, look with the other; a key is known to both."""
    first, second = start_gateway(nodes, "--allow-shell"), start_gateway(nodes)
    shell_worker(nodes)
    headers = {"Idempotency-Key": "the-same-job"}
    body = {"template": 'sleep 0.2; echo "$1"', "inputs": list(range(6))}
    job_id = first.post("/jobs", body, **headers).json()["id"]
    first.node.kill()
    third = start_gateway(nodes, "--allow-shell")
    again = third.post("/jobs", body, **headers)

    assert (again.status, again.json()["id"]) == (200, job_id)
    job = second.ended(job_id)
    assert (job["state"], job["total"], job["done"]) == ("finished", 6, 6)
    assert [one["stdout"] for one in outcomes(third.results(job_id))] == [f"{n}\n" for n in range(6)]


def test_each_job_is_split_once_whoever_coordinates(
    gateway: Gateway, nodes: Nodes, client: Client, journal: Path, full_size: bool
) -> None:
    """D-07, D-12, D-16: two coordinators, four executors, jobs from several clients: each input is recorded once."""
    nodes.coordinator()
    nodes.coordinator()
    for _ in range(2):
        nodes.worker()
    ids = [gateway.submit(operation=OPS + "nap", inputs=[0] * 10) for _ in range(12)]
    many = [
        gateway.submit(operation=OPS + "tolerant", inputs=list(range(200)), shards=200)
        for _ in range(20 if full_size else 1)
    ]
    for job_id in many:
        job = gateway.ended(job_id)
        assert (job["state"], job["total"], job["done"], job["failed"]) == ("finished", 200, 200, 0)
    for job_id in ids:
        job = gateway.ended(job_id)
        assert (job["total"], job["done"], job["failed"]) == (10, 10, 0)
    events = all_events(client.store)

    check_journal(events)
    assert sorted(e.subject for e in events if e.kind == "job") == sorted([*ids, *many])
    assert len(lines(journal, "start")) == 120


@one_engine
def test_a_job_without_workers_waits_and_says_why(gateway: Gateway, nodes: Nodes) -> None:
    """D-10, D-11: no division by zero; it goes on when one comes. One that was killed is not counted."""
    worker = nodes.worker()
    wait_for(lambda: gateway.get("/members").json()["slots"] == 2, 20)
    worker.kill()
    wait_for(lambda: gateway.get("/members").json()["slots"] == 0, 20)
    job_id = gateway.submit(operation=OPS + "nap", inputs=[0, 0])

    assert gateway.job(job_id)["state"] == "running"
    assert gateway.job(job_id)["detail"].startswith("no members")
    nodes.worker()
    assert gateway.ended(job_id)["done"] == 2


@one_engine
def test_templates_run_only_where_the_worker_allows_it(gateway: Gateway, nodes: Nodes) -> None:
    """D-27: a gateway's word is not enough."""
    nodes.worker(slots=1)
    job_id = gateway.submit(template="true", inputs=["x"])
    wait_for(lambda: "--allow-shell" in gateway.job(job_id)["detail"], 20)
    assert gateway.job(job_id)["done"] == 0

    shell_worker(nodes, slots=1)
    assert gateway.ended(job_id)["done"] == 1


@one_engine
def test_a_worker_that_comes_late_takes_its_share(gateway: Gateway, nodes: Nodes, tmp_path: Path) -> None:
    """D-20: shards are pulled, and there are several for each slot."""
    first = nodes.worker(slots=1)
    wait_for(lambda: gateway.get("/members").json()["slots"] == 1, 20)
    go = tmp_path / "go"
    job_id = gateway.submit(operation=OPS + "until", inputs=[str(go)] * 24)
    path = f"/tasks?job={job_id}"
    wait_for(lambda: gateway.get(f"{path}&state=assigned").json()["tasks"], 20)
    second = nodes.worker(slots=1)
    wait_for(lambda: len(gateway.get(f"{path}&state=assigned").json()["tasks"]) == 2, 20)
    go.touch()
    gateway.ended(job_id)
    tasks = gateway.get(path).json()["tasks"]
    workers = [t["worker"] for t in tasks]

    assert len(tasks) == 4
    assert set(workers) == {first.name, second.name}


def test_a_shard_goes_on_behind_its_last_result(
    gateway: Gateway, nodes: Nodes, journal: Path, client: Client
) -> None:
    """D-21: its worker is killed in the middle; no input is recorded twice, and few are run twice."""
    nodes.coordinator()
    worker = nodes.worker(slots=1)
    job_id = gateway.submit(operation=OPS + "nap", inputs=[0.1] * 15, shards=1)

    def recorded() -> int:
        (task,) = gateway.get(f"/tasks?job={job_id}").json()["tasks"]
        return int(task["recorded"])

    wait_for(lambda: recorded() >= 4, 30)
    worker.kill()
    known = recorded()
    nodes.worker(slots=1)
    job = gateway.ended(job_id)

    assert (job["state"], job["done"], job["failed"]) == ("finished", 15, 0)
    assert sorted(one["index"] for one in gateway.results(job_id)) == list(range(15))
    runs = len(lines(journal, "start"))
    assert known < 15, "it was killed too late to prove anything"
    assert 15 <= runs <= 15 + 8, f"{known} had been recorded"
    check_journal(all_events(client.store))


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@one_engine
def test_a_worker_that_cannot_run_it_is_not_the_inputs_fault(
    gateway: Gateway, nodes: Nodes, tmp_path: Path
) -> None:
    """D-18: there is no bash where the first worker looks; the shard is tried again, elsewhere if need be."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "sh").symlink_to("/bin/sh")
    poor = shell_worker(nodes, slots=1, PATH=str(bin_))
    wait_for(lambda: gateway.get("/members").json()["slots"] == 1, 20)
    job_id = gateway.submit(template="echo $BASH", interpreter="bash", inputs=[1, 2], shards=1)
    wait_for(lambda: gateway.get(f"/tasks?job={job_id}").json()["tasks"][0]["attempts"] > 0, 30)
    assert gateway.job(job_id)["failed"] == 0
    wait_for(lambda: "cannot start bash" in json.dumps(gateway.get(f"/tasks?job={job_id}").json()), 10)
    poor.kill()
    nodes.coordinator()
    shell_worker(nodes, slots=1)

    job = gateway.ended(job_id)
    assert (job["state"], job["done"], job["failed"]) == ("finished", 2, 0)


@one_engine
def test_a_million_inputs_are_not_held_in_memory(nodes: Nodes, client: Client, full_size: bool) -> None:
    """D2: lines are streamed to disk, and to the store shard by shard."""
    gateway = start_gateway(nodes)
    count = 1_000_000 if full_size else 200_000
    wait_for(lambda: gateway.get("/healthz").status == 200)

    def lines_of() -> Any:
        yield b'{"operation": "nobody:knows", "id": "upload-big"}\n'
        block = b"".join(b'{"number": %d, "text": "some text"}\n' % n for n in range(1000))
        for _ in range(count // 1000):
            yield block

    def peak() -> int:
        status = Path(f"/proc/{gateway.node.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]

    before = peak()
    import urllib.request

    request = urllib.request.Request(gateway.url + "/jobs", lines_of(), NDJSON, method="POST")
    with urllib.request.urlopen(request, timeout=100) as answer:
        assert answer.status == 202
    grown = peak() - before

    job = gateway.job("upload-big")
    assert (job["total"], job["closed"]) == (count, True)
    assert grown < 48 << 20, f"{grown >> 20} MiB for {count} inputs, {36 * count >> 20} MiB of text"
