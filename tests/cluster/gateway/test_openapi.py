"""The document says what is so: it is valid, complete, and whatever it allows to ask is answered as it says (D2)."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import falcon.inspect
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from cluster.gateway import openapi
from cluster.gateway.app import make_app
from cluster.gateway.options import Options
from cluster.gateway.service import Service
from cluster.gateway.uploads import Uploads
from tests.cluster.gateway.conftest import Local

_numbers = itertools.count()
EXAMPLES = 150 if os.environ.get("TASKLETS_FULL") == "1" else 6


def described() -> set[tuple[str, str]]:
    """Path and method of all that is in the document."""
    paths = openapi.document(Options())["paths"]
    return {(path, method.upper()) for path, methods in paths.items() for method in methods}


@pytest.fixture
def schema() -> Iterator[Any]:
    service = Service(
        f"memory:openapi-{next(_numbers)}", "default", Options(rate=0, allow_shell=True, max_wait=0.05)
    )
    app = make_app(service, Uploads(service))
    yield schemathesis.openapi.from_wsgi("/openapi.json", app)
    service.close()


@pytest.mark.parametrize(("path", "method"), sorted(described()))
@pytest.mark.timeout(600)
def test_answers_are_as_the_document_says(schema: Any, path: str, method: str) -> None:
    """Also: never a 5xx but a 503, and nothing wrong is taken."""

    @given(case=schema[path][method].as_strategy())
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    def ask(case: Any) -> None:
        # Some of what JSON Schema allows clashes: two of which only one may be given.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    ask()


def test_every_path_is_in_the_document(local: Local) -> None:
    """But for the page, and the old paths."""
    served = {
        (route.path, method.method)
        for route in falcon.inspect.inspect_routes(local.app)
        for method in route.methods
        if not method.internal
        and not route.path.startswith("/schedule/")
        and "." not in route.path.replace("/openapi.json", "")
    }

    assert described() == served - {("/", "GET")}


def test_a_token_is_in_the_document_if_one_is_needed(make_local: Callable[..., Local]) -> None:
    local = make_local(tokens=("x" * 32,), local=False)
    document = local.simulate_get("/openapi.json", headers={"Authorization": "Bearer " + "x" * 32}).json

    assert document["security"] == [{"token": []}]
    assert "security" not in openapi.document(Options())
    json.dumps(document)
