"""A real pooler told from a server by the sessions it gives: a control database behind one would lose its locks."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import URL

from orchestrator.core.tenants import PoolMode, Tenant
from orchestrator.store.opening import ControlDatabaseRefused, refuse_shared_sessions
from orchestrator.store.session import connect
from tests.flows.refresh.conftest import newest
from tests.support.refreshing import DataPlane

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


def look(plane: DataPlane, tenant: Tenant) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(plane.dsn(tenant))
    url = URL.create(
        "postgresql+psycopg",
        username=str(parts["user"]),
        password=str(parts["password"]),
        database=str(parts["dbname"]),
        query={"host": str(parts["host"])},
    )
    store = connect(url.render_as_string(hide_password=False), connections_max=2)
    try:
        refuse_shared_sessions(store)
    finally:
        store.dispose()


def test_one_that_shares_sessions_is_refused(plane: DataPlane, tenant: Tenant) -> None:
    with pytest.raises(ControlDatabaseRefused, match="pooler that shares sessions") as refusal:
        look(plane, tenant)
    assert "control.dsn_file" in refusal.value.next_step


def test_one_that_gives_sessions_of_our_own_is_not(plane: DataPlane) -> None:
    tenant = plane.launch(newest(plane), pool_mode=PoolMode.SESSION)
    try:
        look(plane, tenant)
    finally:
        for container in plane.engine.containers(tenant_id=tenant.id):
            plane.engine.remove(container.name)
