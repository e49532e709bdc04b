"""Unproposed work around a refresh: saved, carried onto the new data, or kept aside with its conflict named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.core.actors import system
from orchestrator.core.changes import ChangeState
from orchestrator.core.tenants import RefreshPolicy, Tenant
from orchestrator.store import changes
from orchestrator.store.tables.tenants import TENANTS
from tests.support.installation import Running

pytestmark = [pytest.mark.engine, pytest.mark.trip]
ACTOR = system("tests")
FIRST = "(SELECT min(id) FROM hotel.reservations WHERE property_id = 'harbour' AND status = 'confirmed')"


def with_policy(installation: Running, tenant: Tenant, policy: RefreshPolicy) -> None:
    with installation.services.store.begin() as connection:
        connection.execute(TENANTS.update().where(TENANTS.c.id == tenant.id).values(refresh_policy=policy))


def query(installation: Running, tenant: Tenant, statement: str) -> str:
    return installation.run("command", "query", tenant.name, statement, "-o", "json")


def test_work_nobody_proposed_survives_a_refresh(installation: Running, launched: Callable[..., Tenant]) -> None:
    tenant = launched()
    services = installation.services
    note = f"UPDATE hotel.reservations SET notes = 'Two dogs' WHERE id = {FIRST}"
    read = f"SELECT notes FROM hotel.reservations WHERE id = {FIRST}"
    query(installation, tenant, note)

    saved = services.refresh.run(tenant, actor=ACTOR)
    assert saved.draft_id is not None
    assert "Two dogs" not in query(installation, tenant, read)
    with services.store.connect() as connection:
        draft = changes.get(connection, saved.draft_id)
    assert (draft.state, draft.counts.total) == (ChangeState.DRAFT, 1)

    query(installation, tenant, note.replace("Two dogs", "Three cats"))
    with_policy(installation, tenant, RefreshPolicy.CARRY)
    carried = services.refresh.run(tenant, actor=ACTOR)
    assert carried.carried is not None
    assert carried.carried.startswith("carried over"), carried.carried
    assert "Three cats" in query(installation, tenant, read)

    with_policy(installation, tenant, RefreshPolicy.SAVE)
    kept = services.refresh.run(tenant, actor=ACTOR).draft_id
    assert kept is not None and "Three cats" not in query(installation, tenant, read)
    assert installation.json("refresh", "restore", tenant.name, kept)["restored"] is True
    assert "Three cats" in query(installation, tenant, read)
    installation.run("refresh", "restore", tenant.name, kept, expect=5)  # it is no draft any more

    with_policy(installation, tenant, RefreshPolicy.DISCARD)
    assert services.refresh.run(tenant, actor=ACTOR).draft_id is None
    assert "Three cats" not in query(installation, tenant, read)
