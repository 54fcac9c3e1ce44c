"""The kill matrix by HTTP: SIGKILL of the gateway in the middle of a map and a fold (D-03, P-37).

Its clients lose a connection, and nothing else: they ask the next gateway, and what was finished is not computed again.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cluster import Client
from cluster.records import make_id
from cluster.testing import Nodes, all_events, check_journal, wait_for
from tests.cluster.conftest import lines
from tests.cluster.directives import ops
from tests.cluster.directives.ops import FOLDED, MAPPED
from tests.cluster.gateway.conftest import NDJSON, Gateway, ask, start_gateway


def follow(gateway: Gateway, job_id: str, *, after: str = "", kill_after: int = 0) -> list[Any]:
    """The results as they come, behind a cursor; until the gateway has been killed, after so many of them."""
    seen = []
    request = urllib.request.Request(
        f"{gateway.url}/jobs/{job_id}/results?follow=true&after={after}",
        headers={"Accept": NDJSON["Content-Type"]},
    )
    with urllib.request.urlopen(request, timeout=30) as answer, suppress(OSError, http.client.HTTPException):
        for line in answer:
            if line.endswith(b"\n"):  # or it was cut off
                seen.append(json.loads(line))
            if len(seen) == kill_after:
                gateway.node.kill()
    return seen


@pytest.mark.real
@pytest.mark.timeout(85)
@pytest.mark.parametrize("repetition", range(20 if os.environ.get("TASKLETS_FULL") == "1" else 1))
def test_a_killed_gateway_costs_a_connection(
    nodes: Nodes, client: Client, journal: Path, repetition: int
) -> None:
    """It is started again where it was, or (every second time) another one has been standing by."""
    for _ in range(2):
        # By turns of one queue and the other: both jobs are in the middle when it happens.
        nodes.worker("--import", ops.__name__, "--queue", "default", "--queue", "folds")
    nodes.coordinator()
    gateway = start_gateway(nodes)
    other = start_gateway(nodes) if repetition % 2 else None
    wait_for(lambda: gateway.get("/members").json()["slots"] == 4, 20)
    map_id, fold_id = make_id(), make_id()
    head = {"operation": ops.map_until_go.name, "id": map_id, "shards": 40}
    upload = b"\n".join(json.dumps(line).encode() for line in (head, *MAPPED))
    assert ask(f"{gateway.url}/jobs", upload, headers=NDJSON).status == 202
    gateway.submit(**{"class": f"{ops.__name__}:Joined", "id": fold_id})
    wait_for(lambda: lines(journal, "folded"), 20)

    seen = follow(gateway, map_id, kill_after=100 + 15 * repetition)
    assert len(lines(journal, "mapped")) < len(MAPPED)
    assert len(lines(journal, "folded")) < len(FOLDED)
    Path(f"{journal}.go").touch()
    gateway = other or start_gateway(nodes, "--port", gateway.url.rpartition(":")[2])
    again = ask(f"{gateway.url}/jobs", upload, headers=NDJSON)  # by a client that is not sure
    rest = follow(gateway, map_id, after=seen[-1]["cursor"])
    mapped, folded = gateway.ended(map_id, 60), gateway.ended(fold_id, 60)

    assert again.status == 200
    assert (mapped["state"], mapped["total"], mapped["done"]) == ("finished", 1000, 1000)
    results = gateway.results(map_id)
    assert results == [{"index": x, "value": 2 * x} for x in MAPPED]
    followed = [{"index": line["index"], "value": line["value"]} for line in [*seen, *rest]]
    assert sorted(followed, key=lambda line: line["index"]) == results  # none lost at the cut, none doubled
    assert folded["result"] == "".join(map(str, FOLDED))
    for word, inputs in (("mapped", MAPPED), ("folded", FOLDED)):
        assert sorted(int(row[3]) for row in lines(journal, word)) == list(inputs), "computed again"
    check_journal(all_events(client.store))
