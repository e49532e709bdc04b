"""What the schedule applies to, as remembered now: the installation's own work, and every tenant's."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine

from orchestrator.core.generations import GenerationState
from orchestrator.core.snapshots import SnapshotState
from orchestrator.core.tenants import Tenant, TenantState
from orchestrator.scheduler.ticks import Target
from orchestrator.store import generations, publishes, snapshots, tenants

SETTLED = (TenantState.RUNNING, TenantState.STOPPED)


def remembered(engine: Engine) -> list[Target]:
    """Everything that may come due, with since when it is fresh and what hinders it."""
    with engine.connect() as connection:
        live = generations.listed(connection, states=[GenerationState.LIVE])
        ready = snapshots.listed(connection, state=SnapshotState.READY)
    built = {generation.tenant_id: generation.created_at for generation in live}
    profiles = {snapshot.profile for snapshot in ready}
    published = {tenant_id: one.started_at for tenant_id, one in publishes.latest(engine).items() if not one.error}
    found = [
        Target("snapshot", fresh_since=max((snapshot.started_at for snapshot in ready), default=None)),
        Target("prune"),
        Target("reconcile"),
    ]
    for tenant in tenants.listed(engine, states=SETTLED):
        found.append(_refresh(tenant, built.get(tenant.id), profiles))
        # A tenant launched since the last night has nothing to publish before the next one.
        fresh_since = max(tenant.created_at, published.get(tenant.id, tenant.created_at))
        found.append(Target("publish", tenant.id, tenant.name, fresh_since=fresh_since))
    return found


def _refresh(tenant: Tenant, built_at: datetime | None, profiles: set[str]) -> Target:
    hindrance = None
    if tenant.state is not TenantState.RUNNING:
        hindrance = f"the tenant is {tenant.state.value}"
    elif tenant.snapshot_profile not in profiles:
        hindrance = f"there is no snapshot of the profile {tenant.snapshot_profile}"
    return Target("refresh", tenant.id, tenant.name, fresh_since=built_at, hindrance=hindrance)
