"""Snapshots over the API: listed with what became of them, taken as jobs, by whoever may."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
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
from orchestrator.core.masking.rules import parse
from orchestrator.core.snapshots import Manifest, TableReport
from orchestrator.flows.snapshot import Snapshots
from orchestrator.store import jobs, snapshots, tables
from orchestrator.store.metadata import METADATA
from orchestrator.store.session import connect
from orchestrator.wiring.services import Services
from tests.support.cluster import Cluster

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
MANIFEST = Manifest(
    snapshot_id="s-good",
    profile="full",
    source="the mirror",
    taken_at=NOW,
    server_version="18.4",
    major=18,
    encoding="UTF8",
    collation="C.UTF-8",
    origin_lsn="0/3000028",
    system_id="1",
    files=1300,
    size_bytes=5 << 20,
    tables={"a.b": TableReport(3, 3, 2)},
    masked={"a.b.c": "email"},
    canaries=7,
    checksummed_blocks=9,
)


@dataclasses.dataclass
class Door:
    client: TestClient
    app: FastAPI
    store: Engine

    def enter(self, who: Principal) -> None:
        self.app.dependency_overrides[get_principal] = lambda: who


@pytest.fixture
def door(cluster: Cluster, tmp_path: Path) -> Iterator[Door]:
    assert tables
    with cluster.database() as name:
        store = connect(cluster.url(name))
        METADATA.create_all(store)
        nothing = cast(Any, None)
        flow = Snapshots(
            control=store,
            audit=nothing,
            workshop=nothing,
            volume=nothing,
            places=nothing,
            generations=nothing,
            instance="x",
            masking=lambda: parse({"profiles": {"north": {}}}),
            key=lambda: b"",
        )
        with store.begin() as connection:
            snapshots.add(connection, "s-good", profile="full", source="the mirror", image="", now=NOW)
            snapshots.set_ready(connection, "s-good", MANIFEST, now=NOW)
            snapshots.add(connection, "s-bad", profile="north", source="the mirror", image="", now=NOW)
            snapshots.set_failed(connection, "s-bad", code="invalid.x", message="Why it failed.", now=NOW)
        services = SimpleNamespace(settings=config.load(config.PROJECT / "configs"), store=store, snapshots=flow)
        app = create_app(cast(Services, services))
        with TestClient(app) as client:
            made = Door(client, app, store)
            made.enter(operator("tests"))
            yield made
        store.dispose()


def test_good_and_failed_ones_are_listed(door: Door) -> None:
    found = {one["id"]: one for one in door.client.get("/api/v1/snapshots").json()}
    assert (found["s-good"]["state"], found["s-good"]["rows"], found["s-good"]["size_bytes"]) == ("ready", 2, 5 << 20)
    assert (found["s-bad"]["state"], found["s-bad"]["error_message"]) == ("failed", "Why it failed.")
    assert [one["id"] for one in door.client.get("/api/v1/snapshots", params={"profile": "north"}).json()] == ["s-bad"]


def test_one_is_shown_with_its_manifest(door: Door) -> None:
    shown = door.client.get("/api/v1/snapshots/s-good").json()
    assert shown["manifest"]["tables"]["a.b"]["kept_rows"] == 2
    assert Manifest.from_document(shown["manifest"]) == MANIFEST
    missing = door.client.get("/api/v1/snapshots/s-none")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found.snapshot")


def test_taking_one_is_a_job(door: Door) -> None:
    asked = door.client.post("/api/v1/snapshots", json={"profile": "north", "reason": "month's end"})
    assert (asked.status_code, asked.json()["kind"], asked.json()["state"]) == (202, "snapshot", "queued")
    claimed = jobs.claim(door.store, "w", ["snapshot"])
    assert claimed is not None and claimed.arguments["profile"] == "north"


def test_an_unknown_profile_is_refused_at_once(door: Door) -> None:
    refused = door.client.post("/api/v1/snapshots", json={"profile": "south"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid.snapshot_profile")
    assert door.client.post("/api/v1/snapshots", json={"profil": "north"}).status_code == 422


def test_a_manager_may_look_and_not_take(door: Door) -> None:
    door.enter(Principal("u1", "anna", Role.MANAGER, ROLE_SCOPES[Role.MANAGER], tenant_ids=frozenset()))
    assert door.client.get("/api/v1/snapshots").status_code == 200
    assert door.client.post("/api/v1/snapshots", json={}).status_code == 403
    assert door.client.post("/api/v1/snapshots/prune", json={}).status_code == 403
