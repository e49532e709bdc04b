"""Branches over the API: shown, published, brought up to date; each by those who may."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from orchestrator.core.access import Role
from orchestrator.core.tenants import Tenant
from orchestrator.wiring.services import Services
from tests.support import interfaces
from tests.support.cluster import Cluster
from tests.support.interfaces import OWN_PAGE, person, served, signed_in
from tests.support.publishing import Site, git, publishing_site


@dataclass
class Desk:
    client: TestClient
    services: Services
    tenant: Tenant
    site: Site

    def get(self, rest: str) -> Response:
        return self.client.get(f"/api/v1/branches/{rest}")

    def post(self, rest: str, **body: object) -> Response:
        return self.client.post(f"/api/v1/branches/{rest}", json=body, headers=OWN_PAGE)


@pytest.fixture
def desk(cluster: Cluster, tmp_path: Path) -> Iterator[Desk]:
    (tmp_path / "site").mkdir()
    with publishing_site(tmp_path / "site", cluster) as site, served(cluster, tmp_path / "var") as (client, services):
        object.__setattr__(services, "publish", replace(site.flow, store=services.store, patience_s=0.0))
        tenant = interfaces.tenant(services.store, "harbour")
        person(services, "mia", Role.MANAGER, tenant.id)
        signed_in(client, "mia")
        yield Desk(client, services, tenant, site)


def code(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_manager_publishes_and_sees_where_the_branch_stands(desk: Desk) -> None:
    before = desk.get("harbour").json()
    assert (before["name"], before["ahead"], before["behind"], before["last"]) == ("tenant/harbour", 0, 0, None)
    (desk.site.tree / "app.py").write_text("one\nMINE\nthree\n")
    done = desk.post("harbour/publish", reason="for the review")
    assert done.status_code == 200, done.text
    assert (done.json()["state"], done.json()["files_count"], done.json()["reason"]) == (
        "published",
        1,
        "for the review",
    )
    shown = desk.get("harbour").json()
    assert (shown["head"], shown["ahead"], shown["behind"], shown["conflicts"]) == (done.json()["commit"], 1, 0, [])
    assert shown["last"]["actor"] == "mia"
    assert desk.post("harbour/publish").json()["state"] == "unchanged"
    assert [one["state"] for one in desk.get("harbour/publishes").json()] == ["unchanged", "published"]


def test_a_refused_publish_says_where_and_never_what(desk: Desk) -> None:
    secret = "-----BEGIN " + "PRIVATE KEY-----\nMIIEp\n"
    (desk.site.tree / "key.pem").write_text("first\n" + secret)
    refused = desk.post("harbour/publish")
    assert code(refused) == (409, "conflict.publish_refused")
    assert "key.pem:2" in refused.json()["detail"] and "MIIEp" not in refused.text
    (last, *_) = desk.get("harbour/publishes").json()
    assert last["state"] == "refused"
    assert last["findings"] == [{"kind": "secret", "path": "key.pem", "line": 2, "what": "private key"}]


def test_production_comes_in_and_what_conflicts_is_named(desk: Desk) -> None:
    desk.post("harbour/publish")
    desk.site.develop("theirs.txt", "theirs\n")
    merged = desk.post("harbour/merge")
    assert merged.status_code == 200, merged.text
    assert merged.json()["behind"] == 0
    assert (desk.site.tree / "theirs.txt").exists()
    (desk.site.tree / "app.py").write_text("one\nMINE\nthree\n")
    desk.site.develop("app.py", "one\nTHEIRS\nthree\n")
    conflict = desk.post("harbour/merge")
    assert code(conflict) == (409, "conflict.merge")
    assert "app.py" in conflict.json()["detail"]
    assert "<<<<<<<" in (desk.site.tree / "app.py").read_text()


def test_everybodys_at_once_goes_on_past_one_that_fails(desk: Desk) -> None:
    interfaces.tenant(desk.services.store, "away")
    person(desk.services, "ada", Role.ADMIN)
    signed_in(desk.client, "ada")
    (desk.site.tree / "key.pem").write_text("-----BEGIN " + "PRIVATE KEY-----\n")
    answer = desk.post("publish", reason="before the holidays")
    assert answer.status_code == 200, answer.text
    assert {one["tenant"] for one in answer.json()} == {"harbour", "away"}
    assert all(one["error_code"] for one in answer.json())
    assert all("key.pem" in one["error"] or one["error_code"] != "conflict.publish_refused" for one in answer.json())


def test_a_remote_that_is_down_is_no_error_of_the_caller(desk: Desk) -> None:
    (desk.site.tree / "app.py").write_text("offline\n")
    away = desk.site.company.rename(desk.site.company.with_suffix(".away"))
    pending = desk.post("harbour/publish")
    assert (pending.status_code, pending.json()["state"]) == (200, "pending")
    assert "did not answer" in pending.json()["error"]
    failed = desk.post("harbour/merge")
    assert code(failed) == (503, "outside_failure.remote_unreachable")
    away.rename(desk.site.company)
    assert desk.post("harbour/publish").json()["state"] == "published"
    assert git(desk.site.company, "show", "tenant/harbour:app.py") == "offline"


@pytest.mark.parametrize(
    ("rest", "body", "expected"),
    [
        ("nowhere/publish", {}, (404, "not_found.tenant")),
        ("nowhere/merge", {}, (404, "not_found.tenant")),
        ("..%2fetc/publish", {}, (404, "not_found.")),
        ("harbour/publish", {"reason": "x" * 501}, (422, "invalid.request")),
        ("harbour/publish", {"force": True}, (422, "invalid.request")),
        ("publish", {"reason": 5}, (422, "invalid.request")),
    ],
)
def test_bad_requests_publish_nothing(
    desk: Desk, rest: str, body: dict[str, object], expected: tuple[int, str]
) -> None:
    status, found = code(desk.post(rest, **body))
    assert status == expected[0] and found.startswith(expected[1])
    assert desk.get("harbour/publishes").json() == []


def test_each_role_does_what_is_theirs(desk: Desk) -> None:
    made = desk.client.post("/api/v1/tokens", json={"name": "helper", "role": "agent"}, headers=OWN_PAGE)
    agent = {"Authorization": f"Bearer {made.json()['secret']}"}
    desk.client.cookies.clear()
    there = "/api/v1/branches/harbour"
    assert desk.client.get(there, headers=agent).status_code == 200
    for verb, body in (("publish", {}), ("merge", None)):
        refused = desk.client.post(f"{there}/{verb}", json=body, headers=agent)
        assert code(refused) == (403, "denied.scope"), "an agent's work waits for the night, or for its person"
        assert code(desk.client.post(f"{there}/{verb}", json=body, headers=OWN_PAGE))[0] == 401
    person(desk.services, "rita", Role.REVIEWER)
    signed_in(desk.client, "rita")
    assert desk.get("harbour").status_code == 200
    assert code(desk.post("harbour/publish")) == code(desk.post("publish")) == (403, "denied.scope")
    other = interfaces.tenant(desk.services.store, "south")
    person(desk.services, "stranger", Role.MANAGER, other.id)
    signed_in(desk.client, "stranger")
    assert code(desk.get("harbour")) == code(desk.post("harbour/publish")) == (404, "not_found.tenant")
    assert {one["tenant"] for one in desk.post("publish").json()} == {"south"}
