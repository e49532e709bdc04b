"""The watchdog's round: what it ends is told in the audit trail, and a silent database does not stop the round."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest

from orchestrator.core.generations import GenerationState
from orchestrator.core.names import new_id
from orchestrator.core.ports.audit import AuditQuery
from orchestrator.core.snapshots import Snapshot
from orchestrator.core.tenants import PoolMode, RefreshPolicy, Tenant, TenantState
from orchestrator.drivers.postgres.watchdog import PostgresWatchdog
from orchestrator.flows.watch import WatchFlow
from orchestrator.store import generations as generation_store
from orchestrator.store import tenants
from tests.support.snapshot import LIMITS, SnapshotRig, as_tenant

pytestmark = pytest.mark.engine


def running_tenant(rig: SnapshotRig, name: str, snapshot: Snapshot) -> tuple[Tenant, str]:
    tenant = tenants.add(
        rig.control,
        name,
        profile="office",
        image="",
        scope=None,
        snapshot_profile="full",
        refresh_policy=RefreshPolicy.SAVE,
        pool_mode=PoolMode.TRANSACTION,
        tenants_max=100,
    )
    tenants.set_state(rig.control, tenant.id, TenantState.RUNNING)
    generation_id = new_id("g")
    with rig.control.begin() as connection:
        generation_store.add(connection, generation_id, tenant.id, snapshot.id, now=rig.flow.now())
        generation_store.set_state(connection, generation_id, GenerationState.LIVE, now=rig.flow.now())
    return tenants.get(rig.control, tenant.id), generation_id


def test_a_round_ends_what_is_over_and_says_so(clinic_rig: SnapshotRig, clinic_snapshot: Snapshot) -> None:
    rig = clinic_rig
    silent, _ = running_tenant(rig, "silent", clinic_snapshot)
    busy, generation_id = running_tenant(rig, "watched", clinic_snapshot)
    spec = rig.flow.generations.create(busy, clinic_snapshot, generation_id, LIMITS)
    flow = WatchFlow(
        store=rig.control,
        audit=rig.flow.audit,
        generations=rig.flow.generations,
        watchdog=PostgresWatchdog(rig.servers),
        limits=lambda _: replace(LIMITS, statement_timeout_s=0.2),
    )
    try:
        with as_tenant(rig, spec) as connection, ThreadPoolExecutor(1) as pool:
            connection.execute("SET statement_timeout = 0")
            running = pool.submit(connection.execute, "SELECT pg_sleep(300)")
            ended: dict[str, int] = {}
            while not ended:
                assert not running.done()
                ended = flow.run()
            assert ended == {"watched": 1}
            assert isinstance(running.exception(timeout=60), psycopg.errors.QueryCanceled)
        record = rig.flow.audit.search(AuditQuery(action="database.end_session", tenant="watched"))[0]
        assert record.values["details"]["why"] == "too_long"  # type: ignore[index]
    finally:
        for tenant in (silent, busy):
            for one in rig.flow.generations.on_disk(tenant.id):
                rig.flow.generations.remove(tenant, one)
            tenants.set_state(rig.control, tenant.id, TenantState.REMOVED)
        with rig.control.begin() as connection:
            for one in generation_store.listed(connection):
                generation_store.set_state(connection, one.id, GenerationState.REMOVED, now=rig.flow.now())
