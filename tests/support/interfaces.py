"""The interfaces on a real control database, with as much of the services as a test names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from starlette.testclient import TestClient

from orchestrator import config
from orchestrator.api.app import create_app
from orchestrator.config import Settings
from orchestrator.core.access import Role, User
from orchestrator.core.tenants import PoolMode, RefreshPolicy, Tenant, TenantState
from orchestrator.drivers.audit.log import FileAuditLog
from orchestrator.flows.access import Access, AccessRules
from orchestrator.store import tenants, users
from orchestrator.wiring.services import Services
from tests.support.cluster import Cluster
from tests.support.stores import control_store

PASSWORD = "correct horse battery"
PASS_KEY = b"k" * 32


def some_services(**fields: Any) -> Services:
    """Services with these fields alone; asking for another one fails."""
    made = object.__new__(Services)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


def settings(tmp_path: Path, **overrides: str) -> Settings:
    environment = {"ORCHESTRATOR_VAR": str(tmp_path), **overrides}
    return config.load(config.PROJECT / "configs", environment=environment)


@contextmanager
def served(cluster: Cluster, tmp_path: Path, **fields: Any) -> Iterator[tuple[TestClient, Services]]:
    """The application in this process, as the console's own page calls it; redirects are not followed."""
    with control_store(cluster) as store:
        chosen = settings(tmp_path)
        audit = FileAuditLog(tmp_path / "audit", tmp_path / "audit.key")
        rules = AccessRules(
            console_host=chosen.proxy.console_host,
            domain=chosen.proxy.domain,
            idle_s=3600,
            absolute_s=7200,
            code_lifetime_s=60,
            token_lifetime_max_s=86_400 * 366,
            failures_max=5,
            failure_window_s=600,
        )
        services = some_services(
            settings=chosen, store=store, audit=audit, access=Access(store, audit, rules, PASS_KEY), **fields
        )
        base = f"http://{chosen.proxy.console_host}"
        client = TestClient(create_app(services), base_url=base, follow_redirects=False, raise_server_exceptions=False)
        yield client, services


def person(services: Services, name: str, role: Role, *tenant_ids: str) -> User:
    return users.add(services.store, name, role, PASSWORD, tenant_ids=tenant_ids)


def signed_in(client: TestClient, name: str) -> None:
    client.cookies.clear()
    answer = client.post("/api/v1/session", json={"name": name, "password": PASSWORD}, headers=OWN_PAGE)
    assert answer.status_code == 201, answer.text


OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}


def tenant(store: Engine, name: str) -> Tenant:
    """A record of a running tenant, with nothing behind it."""
    made = tenants.add(
        store,
        name,
        profile="office",
        image="",
        scope=None,
        snapshot_profile="full",
        refresh_policy=RefreshPolicy.SAVE,
        pool_mode=PoolMode.TRANSACTION,
        tenants_max=100,
    )
    tenants.set_state(store, made.id, TenantState.RUNNING)
    return tenants.get(store, made.id)
