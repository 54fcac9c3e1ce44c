"""Who may ask, how often, and how much (D-27, D2)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.gateway.options import Options, read_tokens
from cluster.gateway.server import CannotServe, Server
from tests.cluster.gateway.conftest import JSON, NDJSON, Local

TOKEN = "0123456789abcdef0123456789abcdef"
MAKE = {"operation": "a:b", "inputs": []}


# -- where it listens, and tokens


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_need_a_token(host: str) -> None:
    with pytest.raises(CannotServe, match="--token-file"):
        Server("memory:", host=host, port=0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_this_machine_needs_none(host: str) -> None:
    Server("memory:", host=host, port=0)


def test_with_a_token_it_may_listen_anywhere() -> None:
    with Server("memory:", host="0.0.0.0", port=0, options=Options(tokens=(TOKEN,))) as server:
        assert server.url.startswith("http://0.0.0.0:")


def test_a_port_that_is_taken_is_one_line() -> None:
    with Server("memory:", port=0) as first:
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(CannotServe, match="another gateway there"):
            Server("memory:", port=port).start()


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer é"],
)
def test_who_does_not_know_a_token_is_refused(make_local: Callable[..., Local], header: str | None) -> None:
    local = make_local(tokens=(TOKEN, "x" * 32), local=False)
    headers = {} if header is None else {"Authorization": header.encode("latin-1").decode("latin-1")}

    for method, path in (
        ("GET", "/jobs"),
        ("POST", "/jobs"),
        ("GET", "/metrics"),
        ("GET", "/nothing"),
        ("DELETE", "/jobs/x"),
    ):
        answer = local.simulate_request(method, path, headers={**JSON, **headers}, body="{}")
        assert answer.status_code == 401, (method, path)
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="tasklets"'
        assert answer.json["code"] == "token"


@pytest.mark.parametrize("token", [TOKEN, "x" * 32])
def test_who_knows_one_is_served(make_local: Callable[..., Local], token: str) -> None:
    local = make_local(tokens=(TOKEN, "x" * 32), local=False)

    assert local.simulate_get("/jobs", headers={"Authorization": f"bearer {token}"}).status_code == 200


def test_the_page_itself_needs_none_and_has_no_data(make_local: Callable[..., Local]) -> None:
    local = make_local(tokens=(TOKEN,), local=False)

    for path in ("/", "/page.js", "/page.css", "/icon.svg"):
        assert local.simulate_get(path).status_code == 200


def test_a_file_of_tokens(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# the new one\n{TOKEN}\n\n{'x' * 32}\n")
    file.chmod(0o600)

    assert read_tokens(str(file)) == (TOKEN, "x" * 32)


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("", 0o600, "has no token"),
        ("short\n", 0o600, "5 characters"),
        ("two words of a token\n", 0o600, "without blanks"),
        (TOKEN, 0o644, "everybody on this machine"),
        ("é" * 20, 0o600, "printable ASCII"),
    ],
)
def test_a_file_that_protects_nothing_is_refused(tmp_path: Path, text: str, mode: int, said: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    file.chmod(mode)

    with pytest.raises(ClusterError, match=said):
        read_tokens(str(file))


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="cannot be read"):
        read_tokens(str(tmp_path / "none"))


# -- browsers that were led here


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:30000", "", "127.0.0.1.evil.example", "[::2]"]
)
def test_another_name_for_this_machine_is_refused(local: Local, host: str) -> None:
    assert local.simulate_get("/jobs", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:30000", "localhost:1", "LOCALHOST", "[::1]", "[::1]:30000"]
)
def test_its_own_names_are_served(local: Local, host: str) -> None:
    assert local.simulate_get("/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:8080"])
def test_a_page_elsewhere_changes_nothing(local: Local, origin: str) -> None:
    headers = {**JSON, "Origin": origin}

    assert local.simulate_post("/jobs", body="{}", headers=headers).status_code == 403
    assert local.simulate_delete("/jobs/x", headers=headers).status_code == 403
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": origin}
    assert (
        local.simulate_post("/schedule/create", body="templateFunction=true", headers=form).status_code == 403
    )
    assert local.store.jobs() == []


def test_its_own_page_may(local: Local) -> None:
    assert local.post("/jobs", MAKE, Origin="http://localhost").status_code == 202


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
def test_what_a_form_elsewhere_can_send_is_no_job(local: Local, kind: str | None) -> None:
    answer = local.simulate_post(
        "/jobs", body='{"operation": "a:b", "inputs": []}', headers={"Content-Type": kind} if kind else {}
    )

    assert answer.status_code == 415
    assert local.store.jobs() == []


def test_nothing_may_be_framed_or_loaded_from_elsewhere(local: Local) -> None:
    policy = local.simulate_get("/").headers["Content-Security-Policy"]

    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


# -- shell


def test_templates_are_off_unless_allowed(make_local: Callable[..., Local]) -> None:
    local = make_local(allow_shell=False)
    answer = local.post("/jobs", {"template": "true", "inputs": ["x"]})

    assert answer.status_code == 403
    assert "--allow-shell" in answer.json["detail"]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (
        local.simulate_post("/schedule/create", body="templateFunction=true", headers=form).status_code == 403
    )
    assert local.store.jobs() == []


def test_the_operation_behind_templates_cannot_be_called_by_its_name(
    make_local: Callable[..., Local],
) -> None:
    """Or a gateway without --allow-shell would run programs after all, on workers with it."""
    local = make_local(allow_shell=False)

    for name in ("cluster:shell", "cluster:anything"):
        job = local.post("/jobs", {"operation": name, "inputs": [1]})
        task = local.post("/tasks", {"operation": name, "args": [{"script": "touch x"}, ["x"]]})
        assert (job.status_code, task.status_code) == (403, 403)
    assert local.store.tasks() == []


# -- limits


def test_a_body_that_is_too_large_is_413(make_local: Callable[..., Local]) -> None:
    local = make_local(max_body=1000)
    body = '{"operation": "a:b", "inputs": [' + ",".join(["1"] * 1000) + "]}"

    answer = local.simulate_post("/jobs", body=body, headers=JSON)
    assert answer.status_code == 413
    assert "application/x-ndjson" in answer.json["detail"]


def test_a_body_of_unknown_length_that_is_too_large_is_413(make_local: Callable[..., Local]) -> None:
    import io

    from falcon.testing import create_environ

    local = make_local(max_body=1000)
    environ = create_environ("/jobs", method="POST", headers={**JSON, "Host": "localhost"})
    environ.pop("CONTENT_LENGTH", None)
    environ["wsgi.input"] = io.BytesIO(b" " * 2000)
    statuses = []
    list(local.app(environ, lambda status, headers, *_: statuses.append(status)))

    assert statuses[0].startswith("413")


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"max_inputs": 5}, ["1"] * 6),
        ({"max_line": 100}, ["1" * 101]),
        ({"max_upload": 100}, ["11111111"] * 20),
    ],
)
def test_an_upload_that_is_too_large_is_413_and_leaves_nothing(
    make_local: Callable[..., Local], options: dict[str, int], lines: list[str]
) -> None:
    local = make_local(**options)
    body = "\n".join(['{"operation": "a:b"}', *lines])

    assert local.simulate_post("/jobs", body=body, headers=NDJSON).status_code == 413
    assert local.store.jobs() == []


def test_too_many_inputs_are_413(make_local: Callable[..., Local]) -> None:
    assert make_local(max_inputs=3).post("/jobs", {"operation": "a:b", "inputs": [1] * 4}).status_code == 413


def test_who_asks_too_often_is_told_to_wait(make_local: Callable[..., Local]) -> None:
    local = make_local(rate=0.5)
    answers = [local.simulate_get("/healthz") for _ in range(8)]
    statuses = [answer.status_code for answer in answers]

    assert statuses[:5] == [200] * 5
    assert statuses[-1] == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    other = local.simulate_get("/healthz", remote_addr="127.0.0.9")
    assert other.status_code == 200


def test_addresses_are_not_remembered_for_ever(
    make_local: Callable[..., Local], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.gateway import access

    monkeypatch.setattr(access, "MOST_ADDRESSES", 10)
    local = make_local(rate=1000.0)
    for number in range(50):
        local.simulate_get("/schedule/ping", remote_addr=f"127.0.0.{number}")
    [limiter] = [
        one.__self__._buckets
        for stack in local.app._middleware[:1]
        for one in stack
        if isinstance(one.__self__, access.Access)
    ]
    assert len(limiter) == 10


# -- the command


def test_the_command_teaches() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "gateway", "--help"], capture_output=True, text=True, check=True,
        cwd=os.getcwd(),
    )  # fmt: skip

    for word in ("curl", "--token-file", "--allow-shell", "/jobs", "/openapi.json", "SIGTERM", "30000"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--host", "0.0.0.0"), "--token-file"),
        (("--token-file", "/nonexistent"), "cannot be read"),
        (("--tls-cert", "pyproject.toml"), "go together"),
        (("--tls-cert", "pyproject.toml", "--tls-key", "pyproject.toml"), "cannot be used"),
        (("--host", "not a host"), "host"),
        (("--store", "postgres://x"), "is no store"),
    ],
)
def test_the_command_says_what_is_wrong_in_a_line(
    options: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "gateway", "--store", f"sqlite:///{tmp_path}/x.db", "--port", "0", *options],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip

    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
