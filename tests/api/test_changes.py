"""Changes over the API: who may see, propose, decide and promote."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from orchestrator import config
from orchestrator.api.app import create_app
from orchestrator.api.deps import get_principal
from orchestrator.core.access import ROLE_SCOPES, Principal, Role
from orchestrator.core.tenants import PoolMode, RefreshPolicy
from orchestrator.store import tenants
from orchestrator.wiring.services import Services
from tests.support.cluster import Cluster
from tests.support.proposing import Company, company_on, ground
from tests.support.stores import control_store

URL = "/api/v1/changes"


@dataclasses.dataclass
class Door:
    """The application over one company, and who stands before it."""

    client: TestClient
    app: FastAPI
    hotel: Company

    def enter(self, role: Role, user_id: str, *, sees: bool = True) -> None:
        visible = frozenset({self.hotel.tenant.id}) if sees else frozenset({"another"})
        token = "token" if role is Role.AGENT else ""
        who = Principal(user_id, user_id, role, ROLE_SCOPES[role], visible, token_id=token)
        self.app.dependency_overrides[get_principal] = lambda: who

    def post(self, path: str, document: Any = None, *, expect: int = 200) -> Any:
        answer = self.client.post(f"{URL}{path}", json={} if document is None else document)
        assert answer.status_code == expect, answer.text
        return answer.json()

    def get(self, path: str, *, expect: int = 200) -> Any:
        answer = self.client.get(f"{URL}{path}")
        assert answer.status_code == expect, answer.text
        return answer.json()


@pytest.fixture
def door(cluster: Cluster, tmp_path: Path) -> Iterator[Door]:
    with control_store(cluster) as store, ground(cluster) as made:
        hotel = company_on(made, store, tmp_path)
        tenant = tenants.add(
            store,
            "north",
            profile="standard",
            image="",
            scope="harbour",
            snapshot_profile="full",
            refresh_policy=RefreshPolicy.SAVE,
            pool_mode=PoolMode.TRANSACTION,
            tenants_max=10,
        )
        hotel.tenant = tenant
        flows = SimpleNamespace(
            changes=hotel.changes,
            review=hotel.review,
            promote=hotel.promote,
            revert=hotel.revert,
            rehearse=hotel.rehearse,
        )
        services = SimpleNamespace(settings=config.load(environment={}), store=store, audit=hotel.audit, changes=flows)
        app = create_app(cast(Services, services))
        with TestClient(app, base_url="http://127.0.0.1:8600") as client:
            yield Door(client, app, hotel)


def test_an_agent_proposes_a_reviewer_decides_and_promotes(door: Door) -> None:
    door.hotel.work("UPDATE rates SET price = 150 WHERE id = 1")
    door.enter(Role.AGENT, "mia")
    assert len(door.get("/diff?tenant=north")["changeset"]["rows"]) == 2
    made = door.post("", {"tenant": "north", "title": "Prices"}, expect=201)
    path = f"/{made['id']}"
    assert (made["state"], made["blocking"], made["updated"]) == ("submitted", 0, 1)
    page = door.get(f"{path}/rows?table=public.rates")
    assert [cell["new"] for cell in page["rows"][0]["cells"] if cell["column"] == "price"] == ["150.00"]
    assert door.get(f"{path}/changeset")["digest"]
    for verb in ("approve", "reject", "promote", "revert"):
        door.post(f"{path}/{verb}", expect=403)

    door.enter(Role.REVIEWER, "mia")
    assert "own" in door.post(f"{path}/approve", expect=403)["detail"]
    door.enter(Role.REVIEWER, "ruth")
    door.post(f"{path}/approve", {"digest": "0" * 64}, expect=409)
    assert door.post(f"{path}/rehearse", {"stage": "production"})["blocking"] == 0
    door.post(f"{path}/comments", {"text": "fine"}, expect=201)
    assert door.post(f"{path}/approve", {"digest": made["digest"]})["state"] == "approved"
    assert door.post(f"{path}/promote", {"digest": made["digest"]})["state"] == "committed"
    assert door.get(path)["state"] == "promoted"
    assert door.post(f"{path}/revert", {"reason": "no"})["state"] == "committed"
    kinds = [event["kind"] for event in door.get(f"{path}/events")]
    assert kinds[:2] == ["change.drafted", "change.submitted"] and kinds[-1] == "change.reverted"
    assert [event["kind"] for event in door.get("/events")][: len(kinds)] == kinds
    assert float(door.hotel.ask("SELECT price FROM rates WHERE id = 1")[0][0]) == 100


def test_whoever_may_not_see_the_tenant_sees_no_change(door: Door) -> None:
    door.hotel.work("UPDATE rates SET price = 150 WHERE id = 1")
    made = door.hotel.submitted()
    door.enter(Role.MANAGER, "eve", sees=False)
    assert door.get("") == []
    door.get(f"/{made.id}", expect=404)
    door.get(f"/{made.id}/rows?table=rates", expect=404)
    door.get("/diff?tenant=north", expect=404)
    door.post(f"/{made.id}/withdraw", expect=404)
    assert door.get("/events") == []


def test_a_blocked_submission_names_every_finding(door: Door) -> None:
    door.hotel.work("UPDATE houses SET name = 'Mine'")
    door.enter(Role.MANAGER, "mia")
    problem = door.post("", {"tenant": "north", "title": "No"}, expect=409)
    assert problem["code"] == "conflict.blocked"
    assert {item["code"] for item in problem["fields"]["findings"]} >= {"table_closed"}, problem
    (draft,) = door.get("?state=draft")
    assert draft["blocking"] >= 2
    door.get("?state=nonsense", expect=422)
    door.get("/unknown", expect=404)
    assert door.get(f"/{draft['id']}/rows?table=..", expect=422)["code"].startswith("invalid")


def test_a_draft_is_renamed_and_lets_go_of_rows(door: Door) -> None:
    door.hotel.work("UPDATE rates SET price = 120 WHERE id <= 3")
    door.enter(Role.MANAGER, "mia")
    made = door.post("", {"tenant": "north", "title": "Dearer", "draft": True, "code": False}, expect=201)
    path = f"/{made['id']}"
    rows = [row["id"] for row in door.get(f"{path}/rows?table=public.rates")["rows"]]

    def edit(document: dict[str, Any], expect: int = 200) -> Any:
        answer = door.client.patch(f"{URL}{path}", json=document)
        assert answer.status_code == expect, answer.text
        return answer.json()

    edited = edit({"title": "A little dearer", "leave_out": rows[:1]})
    assert (edited["title"], edited["description"]) == ("A little dearer", made["description"])
    assert (len(rows), edited["updated"]) == (3, 2)
    refused = edit({"leave_out": ["0000000000000000"]}, expect=422)
    assert "holds no row" in refused["detail"]
    assert edit({"description": "The season begins."})["title"] == "A little dearer"
    door.enter(Role.MANAGER, "sam", sees=False)
    edit({"title": "Mine"}, expect=404)
