"""The API's frame, seen through tenants, users and tokens: scopes, tenants' borders, problems, doing once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from orchestrator.core.access import Role
from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.names import check_tenant_name
from orchestrator.core.tenants import Tenant
from orchestrator.errors import OutsideFailure
from orchestrator.flows.launch import LaunchRequest
from orchestrator.wiring.services import Services
from tests.support import interfaces
from tests.support.cluster import Cluster
from tests.support.interfaces import OWN_PAGE, person, served, signed_in

TENANTS = "/api/v1/tenants"


@dataclass
class Launches:
    """Stands where the launch flow stands: makes the record and nothing else, or fails as told."""

    services: list[Services] = field(default_factory=list)
    seen: list[tuple[LaunchRequest, Actor]] = field(default_factory=list)
    failure: Exception | None = None

    def reserve(self, request: LaunchRequest) -> Tenant:
        check_tenant_name(request.name)
        return interfaces.tenant(self.services[0].store, request.name)

    def run(self, request: LaunchRequest, *, actor: Actor) -> Tenant:
        check_tenant_name(request.name)
        self.seen.append((request, actor))
        if self.failure is not None:
            raise self.failure
        return interfaces.tenant(self.services[0].store, request.name)


@pytest.fixture
def launches() -> Launches:
    return Launches()


@pytest.fixture
def api(cluster: Cluster, tmp_path: Path, launches: Launches) -> Iterator[tuple[TestClient, Services]]:
    with served(cluster, tmp_path, launch=launches) as (client, services):
        launches.services.append(services)
        yield client, services


def token(client: TestClient, **body: object) -> dict[str, str]:
    answer = client.post("/api/v1/tokens", json=body, headers=OWN_PAGE)
    assert answer.status_code == 201, answer.text
    return {"Authorization": f"Bearer {answer.json()['secret']}"}


def test_an_admin_launches_and_everybody_sees_what_is_theirs(
    api: tuple[TestClient, Services], launches: Launches
) -> None:
    client, services = api
    person(services, "ada", Role.ADMIN)
    signed_in(client, "ada")
    answer = client.post(TENANTS, json={"name": "harbour"}, headers=OWN_PAGE)
    assert answer.status_code == 201
    assert answer.json()["address"] == "http://harbour.localhost:8080"
    request, actor = launches.seen[0]
    assert (request.snapshot_profile, request.refresh_policy.value) == ("full", "save")
    assert (actor.kind, actor.name) == (ActorKind.PERSON, "ada")
    interfaces.tenant(services.store, "hillside")
    assert [one["name"] for one in client.get(TENANTS).json()] == ["harbour", "hillside"]
    person(services, "mia", Role.MANAGER, answer.json()["id"])
    signed_in(client, "mia")
    assert [one["name"] for one in client.get(TENANTS).json()] == ["harbour"]
    assert client.get(f"{TENANTS}/harbour").json()["steps"] == []
    foreign, missing = client.get(f"{TENANTS}/hillside"), client.get(f"{TENANTS}/nowhere")
    assert foreign.status_code == missing.status_code == 404
    assert foreign.json()["detail"].replace("hillside", "nowhere") == missing.json()["detail"]


def test_who_would_rather_not_wait_follows_a_job(api: tuple[TestClient, Services], launches: Launches) -> None:
    client, services = api
    person(services, "ada", Role.ADMIN)
    signed_in(client, "ada")
    later = {**OWN_PAGE, "Prefer": "respond-async", "Idempotency-Key": "once"}
    answer = client.post(TENANTS, json={"name": "harbour"}, headers=later)
    assert answer.status_code == 202 and answer.headers["preference-applied"] == "respond-async"
    job = client.get(answer.headers["location"]).json()
    assert (job["kind"], job["tenant"], job["state"], job["requested_by"]) == ("launch", "harbour", "queued", "ada")
    again = client.post(TENANTS, json={"name": "harbour"}, headers=later)
    assert again.json()["id"] == job["id"] and again.headers["location"] == answer.headers["location"]
    stopped = client.post(f"{TENANTS}/harbour/stop", headers={**OWN_PAGE, "Prefer": "respond-async"})
    assert stopped.status_code == 202 and stopped.json()["kind"] == "stop"
    bad = client.post(TENANTS, json={"name": "No Name"}, headers={**OWN_PAGE, "Prefer": "respond-async"})
    assert bad.status_code == 422, "what can be known at once is said at once"
    assert launches.seen == []


def test_a_manager_launches_nothing(api: tuple[TestClient, Services], launches: Launches) -> None:
    client, services = api
    person(services, "mia", Role.MANAGER)
    signed_in(client, "mia")
    answer = client.post(TENANTS, json={"name": "harbour"}, headers=OWN_PAGE)
    assert (answer.status_code, answer.json()["code"]) == (403, "denied.scope")
    assert answer.json()["fields"] == {"scope": "tenants:admin"}
    assert launches.seen == []


@pytest.mark.parametrize("name", ["../etc", "Harbour", "a" * 41, "api", "hàrbour", "a--b", "", "a b", "0x"])
def test_hostile_names_are_refused_with_a_reason(api: tuple[TestClient, Services], name: str) -> None:
    client, services = api
    person(services, "ada", Role.ADMIN)
    signed_in(client, "ada")
    answer = client.post(TENANTS, json={"name": name}, headers=OWN_PAGE)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid.tenant_name")


@pytest.mark.parametrize(
    "body",
    [{"name": 5}, {"name": "harbour", "colour": "red"}, {}, [], {"name": "harbour", "pool_mode": "loose"}],
)
def test_requests_are_read_strictly(api: tuple[TestClient, Services], body: object, launches: Launches) -> None:
    client, services = api
    person(services, "ada", Role.ADMIN)
    signed_in(client, "ada")
    answer = client.post(TENANTS, json=body, headers=OWN_PAGE)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid.request")
    assert answer.headers["content-type"] == "application/problem+json"
    assert launches.seen == []


def test_the_same_key_launches_once(api: tuple[TestClient, Services], launches: Launches) -> None:
    client, services = api
    person(services, "ada", Role.ADMIN)
    signed_in(client, "ada")
    headers = {**OWN_PAGE, "Idempotency-Key": "k1"}
    first = client.post(TENANTS, json={"name": "harbour"}, headers=headers)
    again = client.post(TENANTS, json={"name": "harbour"}, headers=headers)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert len(launches.seen) == 1
    other = client.post(TENANTS, json={"name": "hillside"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "invalid.idempotency_key_reused")


def test_a_key_may_be_used_again_after_a_failure(api: tuple[TestClient, Services], launches: Launches) -> None:
    client, services = api
    person(services, "ada", Role.ADMIN)
    signed_in(client, "ada")
    headers = {**OWN_PAGE, "Idempotency-Key": "k1"}
    launches.failure = OutsideFailure("The engine is away.", next_step="Wait.", retry_after_s=7)
    failed = client.post(TENANTS, json={"name": "harbour"}, headers=headers)
    assert (failed.status_code, failed.headers["retry-after"]) == (503, "7")
    assert failed.json()["reference"] == failed.headers["x-request-id"]
    launches.failure = None
    assert client.post(TENANTS, json={"name": "harbour"}, headers=headers).status_code == 201


def test_a_bug_is_a_problem_with_a_reference_and_nothing_of_its_inside(
    api: tuple[TestClient, Services], launches: Launches
) -> None:
    client, services = api
    person(services, "ada", Role.ADMIN)
    signed_in(client, "ada")
    launches.failure = RuntimeError("the secret is hunter2")
    answer = client.post(TENANTS, json={"name": "harbour"}, headers=OWN_PAGE)
    assert (answer.status_code, answer.json()["code"]) == (500, "error")
    assert "hunter2" not in answer.text and "Traceback" not in answer.text
    assert answer.json()["reference"].startswith("r")


def test_bodies_have_a_bound(api: tuple[TestClient, Services]) -> None:
    client, services = api
    person(services, "ada", Role.ADMIN)
    signed_in(client, "ada")
    answer = client.post(TENANTS, json={"name": "x" * (3 * 2**20)}, headers=OWN_PAGE)
    assert answer.status_code == 413


def test_an_agents_token_acts_for_its_person_and_can_do_less(api: tuple[TestClient, Services]) -> None:
    client, services = api
    harbour = interfaces.tenant(services.store, "harbour")
    hillside = interfaces.tenant(services.store, "hillside")
    mia = person(services, "mia", Role.MANAGER, harbour.id, hillside.id)
    signed_in(client, "mia")
    agent = token(client, name="assistant", role="agent", tenants=["harbour"])
    client.cookies.clear()
    who = client.get("/api/v1/session", headers=agent).json()
    assert (who["role"], who["tenants"]) == ("agent", ["harbour"])
    assert "commands:run" in who["scopes"] and "tenants:operate" not in who["scopes"]
    assert client.post(f"{TENANTS}/harbour/stop", headers=agent).status_code == 403
    assert client.get(f"{TENANTS}/hillside", headers=agent).status_code == 404
    answer = client.post("/api/v1/tokens", json={"name": "more"}, headers=agent)
    assert (answer.status_code, answer.json()["code"]) == (403, "denied.scope")
    principal = services.access.by_token(agent["Authorization"].split()[1])
    assert (principal.actor.kind, principal.actor.on_behalf_of) == (ActorKind.AGENT, mia.id)


def test_nobody_makes_a_token_that_may_do_more_than_they_may(api: tuple[TestClient, Services]) -> None:
    client, services = api
    person(services, "mia", Role.MANAGER)
    person(services, "ada", Role.ADMIN)
    signed_in(client, "mia")
    for body in (
        {"name": "t", "scopes": ["users:write"]},
        {"name": "t", "user": "ada"},
        {"name": "t", "role": "admin"},
        {"name": "t", "lifetime_days": 3000.0},
        {"name": " "},
    ):
        answer = client.post("/api/v1/tokens", json=body, headers=OWN_PAGE)
        assert answer.status_code in (403, 422), (body, answer.text)
    assert client.get("/api/v1/tokens").json() == []


def test_a_revoked_token_is_over_at_once(api: tuple[TestClient, Services]) -> None:
    client, services = api
    person(services, "mia", Role.MANAGER)
    person(services, "noah", Role.MANAGER)
    signed_in(client, "mia")
    mine = token(client, name="laptop")
    [listed] = client.get("/api/v1/tokens").json()
    assert "secret" not in listed
    signed_in(client, "noah")
    assert client.delete(f"/api/v1/tokens/{listed['id']}", headers=OWN_PAGE).status_code == 403
    signed_in(client, "mia")
    assert client.delete(f"/api/v1/tokens/{listed['id']}", headers=OWN_PAGE).status_code == 204
    client.cookies.clear()
    assert client.get("/api/v1/session", headers=mine).status_code == 401


def test_users_are_created_and_changed_by_admins_and_the_last_admin_stays(api: tuple[TestClient, Services]) -> None:
    client, services = api
    interfaces.tenant(services.store, "harbour")
    person(services, "ada", Role.ADMIN)
    signed_in(client, "ada")
    body = {"name": "mia", "role": "manager", "password": "a long password", "tenants": ["harbour"]}
    made = client.post("/api/v1/users", json=body, headers=OWN_PAGE)
    assert (made.status_code, made.json()["tenants"]) == (201, ["harbour"])
    assert "password" not in made.text
    assert client.post("/api/v1/users", json=body, headers=OWN_PAGE).status_code == 409
    changed = client.patch("/api/v1/users/mia", json={"role": "reviewer", "leave": ["harbour"]}, headers=OWN_PAGE)
    assert (changed.json()["role"], changed.json()["tenants"]) == ("reviewer", [])
    for change in ({"role": "manager"}, {"disabled": True}):
        answer = client.patch("/api/v1/users/ada", json=change, headers=OWN_PAGE)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid.user")
    assert [one["name"] for one in client.get("/api/v1/users").json()] == ["ada", "mia"]
    signed_in(client, "ada")
    person(services, "max", Role.MANAGER)
    signed_in(client, "max")
    assert client.get("/api/v1/users").status_code == 403


def test_everything_is_described_for_programs(api: tuple[TestClient, Services]) -> None:
    client, _ = api
    described = client.get("/api/v1/openapi.json").json()
    assert "/api/v1/tenants/{name}/stop" in described["paths"]
    assert not [path for path in described["paths"] if path.startswith("/auth")]


def test_unknown_pages_and_methods_are_problems_too(api: tuple[TestClient, Services]) -> None:
    client, _ = api
    for method, path, status in (("GET", "/api/v1/nothing", 404), ("PUT", TENANTS, 405)):
        answer = client.request(method, path, headers=OWN_PAGE)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_ready_means_that_the_control_database_answers(api: tuple[TestClient, Services]) -> None:
    client, _ = api
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").json() == {"status": "ok"}
