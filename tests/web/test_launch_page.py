"""Launching from the console: the form keeps what was typed and says what was wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.core.access import Role
from orchestrator.core.actors import Actor
from orchestrator.core.names import check_tenant_name
from orchestrator.core.tenants import Tenant, TenantState
from orchestrator.flows.launch import LaunchRequest
from orchestrator.store import tenants, users
from tests.support.cluster import Cluster
from tests.support.console import Console, console


class Launch:
    """Checks the name and records the tenant as the flow does, and makes nothing."""

    def __init__(self) -> None:
        self.asked: list[LaunchRequest] = []
        self.house: Any = None

    def reserve(self, request: LaunchRequest) -> Tenant:
        check_tenant_name(request.name)
        self.asked.append(request)
        made: Tenant = self.house.tenant(request.name, TenantState.LAUNCHING)
        return made

    def make(self, tenant: Tenant, *, actor: Actor, progress: Callable[[str], None]) -> Tenant:
        progress("database")
        tenants.set_state(self.house.store, tenant.id, TenantState.RUNNING)
        return tenants.get(self.house.store, tenant.id)


@pytest.fixture
def launches() -> Launch:
    return Launch()


@pytest.fixture
def house(cluster: Cluster, tmp_path: Path, launches: Launch) -> Iterator[Console]:
    masking = SimpleNamespace(profiles={"full": None, "small": None})
    snapshots = SimpleNamespace(masking=lambda: masking, newest=lambda _: None)
    pages = {"launch": launches, "snapshots": snapshots}
    unused = SimpleNamespace(of=lambda _: None)
    with console(cluster, tmp_path, usage=unused, **pages) as made:
        launches.house = made
        yield made


FIELDS = {
    "profile": "office",
    "snapshot_profile": "full",
    "refresh_policy": "carry",
    "pool_mode": "session",
    "scope": "7",
    "image": "",
}


def test_a_launch_gives_the_workspace_to_its_manager(house: Console, launches: Launch) -> None:
    house.sign_in("mia", Role.MANAGER)
    ada = house.sign_in("ada", Role.ADMIN)
    assert "small (no snapshot yet)" in ada.get("/launch").text
    done = ada.post("/launch", name="north", manager="mia", **FIELDS)
    assert done.headers["location"] == "/fleet/north"
    request = launches.asked[0]
    assert (request.scope, request.refresh_policy, request.pool_mode) == ("7", "carry", "session")
    assert users.named(house.store, "mia").tenant_ids == {house_tenant(house, "north")}


def house_tenant(house: Console, name: str) -> str:
    return tenants.named(house.store, name).id


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "No Good <b>"), ("refresh_policy", "sometimes"), ("manager", "nobody-like-that")],
)
def test_what_is_wrong_is_said_on_the_form(house: Console, launches: Launch, field: str, value: str) -> None:
    ada = house.sign_in("ada", Role.ADMIN)
    refused = ada.post("/launch", **{"name": "north", "manager": "", **FIELDS, field: value})
    assert refused.status_code == 422 and 'role="alert"' in refused.text
    assert 'value="7"' in refused.text and "<b>" not in refused.text.split("</h1>")[1].split("Launch it")[0]
    assert launches.asked == []


def test_only_admins_launch(house: Console, launches: Launch) -> None:
    for role in (Role.REVIEWER, Role.MANAGER):
        browser = house.sign_in(role.value, role)
        assert browser.get("/launch").status_code == 403
        assert browser.post("/launch", name="north", **FIELDS).status_code == 403
    assert launches.asked == []
