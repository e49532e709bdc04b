"""Refreshes and jobs over the API: asked for as jobs, and invisible to whoever may not see their tenant."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from orchestrator import config
from orchestrator.api.app import create_app
from orchestrator.api.deps import get_principal
from orchestrator.core.access import ROLE_SCOPES, Principal, Role, operator
from orchestrator.core.refresh import RefreshKind
from orchestrator.core.tenants import PoolMode, RefreshPolicy, Tenant, TenantState
from orchestrator.drivers.audit.log import FileAuditLog
from orchestrator.flows.refresh import RefreshFlow
from orchestrator.store import jobs, refreshes, tables, tenants
from orchestrator.store.metadata import METADATA
from orchestrator.store.session import connect
from orchestrator.wiring.services import Services
from tests.support.cluster import Cluster


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Engine]:
    assert tables
    with cluster.database() as name:
        made = connect(cluster.url(name))
        METADATA.create_all(made)
        yield made
        made.dispose()


@dataclasses.dataclass
class Door:
    """The application and who stands before it."""

    client: TestClient
    app: FastAPI
    store: Engine

    def enter(self, who: Principal) -> None:
        self.app.dependency_overrides[get_principal] = lambda: who

    def tenant(self, name: str, state: TenantState = TenantState.RUNNING) -> Tenant:
        made = tenants.add(
            self.store,
            name,
            profile="standard",
            image="",
            scope=None,
            snapshot_profile="full",
            refresh_policy=RefreshPolicy.SAVE,
            pool_mode=PoolMode.TRANSACTION,
            tenants_max=10,
        )
        tenants.set_state(self.store, made.id, state)
        return tenants.get(self.store, made.id)


@pytest.fixture
def door(store: Engine, tmp_path: Path) -> Iterator[Door]:
    flow = RefreshFlow(
        store=store,
        audit=FileAuditLog(tmp_path / "audit", tmp_path / "audit.key"),
        generations=cast(Any, None),
        pools=cast(Any, None),
        drafts=cast(Any, None),
        reload=lambda tenant_id: tenants.get(store, tenant_id),
        limits=cast(Callable[[Tenant], Any], None),
    )
    services = SimpleNamespace(settings=config.load(config.PROJECT / "configs"), store=store, refresh=flow)
    app = create_app(cast(Services, services))
    with TestClient(app) as client:
        made = Door(client, app, store)
        made.enter(operator("tests"))
        yield made


def _manager(*of: Tenant) -> Principal:
    seen = frozenset(tenant.id for tenant in of)
    return Principal("u1", "anna", Role.MANAGER, ROLE_SCOPES[Role.MANAGER], tenant_ids=seen)


def test_a_refresh_is_a_job_and_asking_twice_gives_the_one_that_waits(door: Door) -> None:
    door.tenant("north")
    first = door.client.post("/api/v1/refreshes", json={"tenant": "north", "reason": "fresh figures"})
    assert first.status_code == 202
    job = first.json()
    assert (job["kind"], job["state"], job["tenant"], job["reason"]) == ("refresh", "queued", "north", "fresh figures")
    again = door.client.post("/api/v1/refreshes", json={"tenant": "north"})
    assert again.json()["id"] == job["id"]
    undo = door.client.post("/api/v1/refreshes", json={"tenant": "north", "undo": True})
    assert undo.json()["id"] != job["id"]
    claimed = jobs.claim(door.store, "w", ["refresh"])
    assert claimed is not None and claimed.arguments["actor"]["name"] == "tests"
    jobs.add_line(door.store, claimed.id, "cloning")
    assert door.client.get(f"/api/v1/jobs/{claimed.id}").json()["state"] == "running"
    assert [line["text"] for line in door.client.get(f"/api/v1/jobs/{claimed.id}/lines").json()] == ["cloning"]
    assert door.client.get("/api/v1/jobs", params={"tenant": "north", "state": "queued"}).json()[0]["kind"] == "refresh"


def test_an_idempotency_key_asks_once(door: Door) -> None:
    door.tenant("north")
    headers = {"Idempotency-Key": "k1"}
    first = door.client.post("/api/v1/refreshes", json={"tenant": "north"}, headers=headers)
    jobs.claim(door.store, "w", ["refresh"])
    again = door.client.post("/api/v1/refreshes", json={"tenant": "north"}, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


def test_all_means_every_running_tenant_one_may_see(door: Door) -> None:
    north, _, stopped = door.tenant("north"), door.tenant("south"), door.tenant("west", TenantState.STOPPED)
    assert len(door.client.post("/api/v1/refreshes/all", json={}).json()) == 2
    door.enter(_manager(north, stopped))
    assert [job["tenant"] for job in door.client.post("/api/v1/refreshes/all", json={}).json()] == ["north"]


def test_what_one_may_not_see_does_not_exist(door: Door) -> None:
    north, south = door.tenant("north"), door.tenant("south")
    job = door.client.post("/api/v1/refreshes", json={"tenant": "south"}).json()
    record = refreshes.begin(
        door.store,
        tenant_id=south.id,
        kind=RefreshKind.REFRESH,
        generation_id="g1",
        previous_id=None,
        snapshot_id="s1",
        requested_by="tests",
    )
    shared = jobs.ask(door.store, "snapshot", requested_by="scheduler")
    door.enter(_manager(north))
    for path in (f"/jobs/{job['id']}", f"/jobs/{job['id']}/lines", f"/jobs/{shared.id}", f"/refreshes/{record.id}"):
        assert door.client.get(f"/api/v1{path}").status_code == 404, path
    assert door.client.post(f"/api/v1/jobs/{job['id']}/cancel").status_code == 404
    assert door.client.post("/api/v1/refreshes", json={"tenant": "south"}).status_code == 404
    assert door.client.get("/api/v1/jobs").json() == door.client.get("/api/v1/refreshes").json() == []
    assert [one["tenant"] for one in door.client.get("/api/v1/refreshes/schedule").json()] == ["north"]
    door.enter(operator("tests"))
    assert door.client.get(f"/api/v1/refreshes/{record.id}").json()["tenant"] == "south"
    assert len(door.client.get("/api/v1/refreshes").json()) == 1


def test_the_next_refresh_is_shown_and_may_be_put_off_once(door: Door) -> None:
    north = door.tenant("north")
    (shown,) = door.client.get("/api/v1/refreshes/schedule").json()
    assert shown["next_due_at"] is not None and shown["postponed_by"] is None
    door.enter(_manager(north))
    put_off = door.client.post("/api/v1/refreshes/postponements", json={"tenant": "north", "reason": "closing"})
    assert (put_off.status_code, put_off.json()["requested_by"]) == (201, "anna")
    again = door.client.post("/api/v1/refreshes/postponements", json={"tenant": "north"})
    assert (again.status_code, again.json()["code"]) == (409, "conflict.postponed_already")
    (shown,) = door.client.get("/api/v1/refreshes/schedule").json()
    assert shown["postponed_by"] == "anna"
    assert door.client.delete("/api/v1/refreshes/postponements/north").json()["is_postponed"] is False


def test_cancelling_ends_a_waiting_job_and_measures_are_for_readers_of_the_system(door: Door) -> None:
    north = door.tenant("north")
    job = door.client.post("/api/v1/refreshes", json={"tenant": "north"}).json()
    assert door.client.post(f"/api/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert door.client.post(f"/api/v1/jobs/{job['id']}/cancel").status_code == 409
    answer = door.client.get("/metrics")
    assert answer.status_code == 200 and 'orchestrator_tenants{state="running"} 1.0' in answer.text
    door.enter(_manager(north))
    assert door.client.get("/metrics").status_code == 403


@pytest.mark.parametrize("body", [{}, {"tenant": 7}, {"tenant": "north", "undoo": True}, {"tenant": "x" * 100}])
def test_a_wrong_body_is_refused(door: Door, body: dict[str, Any]) -> None:
    assert door.client.post("/api/v1/refreshes", json=body).status_code == 422
