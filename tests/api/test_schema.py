"""Whatever the API's own description lets through, and what it does not: no request makes the server fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from starlette.testclient import TestClient

from orchestrator.core.access import Role, principal_of
from tests.support.cluster import Cluster
from tests.support.crowd import Crowd, crowd_in
from tests.support.routes import API

EXAMPLES = 5  # of each kind, for each operation; the same ones every time
SAME = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def crowd(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    with crowd_in(cluster, tmp_path_factory.mktemp("schema")) as made:
        yield made


@pytest.fixture(scope="module")
def client(crowd: Crowd) -> Iterator[TestClient]:
    """An admin's program."""
    admin = crowd.people["admin"]
    secret, _ = crowd.house.services.access.create_token(
        principal_of(admin), admin, "fuzz", role=Role.ADMIN, tenant_ids=None, lifetime_s=3600
    )
    headers = {"authorization": f"Bearer {secret}"}
    base = "http://console.localhost:8080"
    with TestClient(crowd.house.app, base_url=base, headers=headers, raise_server_exceptions=False) as made:
        yield made


@pytest.fixture(scope="module")
def operations(crowd: Crowd) -> dict[str, Any]:
    """By `METHOD /path`."""
    schema = schemathesis.openapi.from_dict(cast(Any, crowd.house.app).openapi())
    found = [one.ok() for one in schema.get_all_operations()]
    return {f"{one.method.upper()} {one.path}": one for one in found}


def test_every_operation_is_described(operations: dict[str, Any]) -> None:
    assert set(operations) == {route for route in API if route != "GET /metrics"}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as described", "otherwise"])
def test_no_request_makes_the_server_fail(
    crowd: Crowd, client: TestClient, operations: dict[str, Any], mode: GenerationMode
) -> None:
    """Each operation with anything in its path, and with the name of something there is."""
    wrong: list[str] = []
    for name, operation in operations.items():
        if name.endswith("/session"):
            continue  # signing in and out: tests/api/test_auth.py
        asked = [part for part in crowd.known if f"{{{part}}}" in operation.path]
        wrong += _failures(client, operation, mode, {})
        if asked:
            fixed = {part: crowd.known["user" if "/users/" in name else part] for part in asked}
            wrong += _failures(client, operation, mode, fixed)
    assert not wrong, "\n".join(wrong)


def _failures(client: TestClient, operation: Any, mode: GenerationMode, fixed: dict[str, str]) -> list[str]:
    """What made the server fail; at most one request for each operation."""
    found: list[str] = []

    @SAME
    @given(case=operation.as_strategy(generation_mode=mode, path_parameters=fixed or None))
    def ask(case: Case) -> None:
        answer = client.request(**_sent(case))
        if answer.status_code >= 500 and not found:
            found.append(f"{case.as_curl_command()}: {answer.status_code} {answer.text[:300]}")

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "there is always a request that is as described"
    return found


def _sent(case: Case) -> dict[str, Any]:
    sent = case.as_transport_kwargs(base_url="http://console.localhost:8080")
    known = ("method", "url", "params", "headers", "cookies", "data", "json", "files")
    return {key: value for key, value in sent.items() if key in known and value is not None}
