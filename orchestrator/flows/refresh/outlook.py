"""When a tenant's database was and will be refreshed, and why not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from orchestrator.core.generations import GenerationState
from orchestrator.core.refresh import Postponement, Refresh
from orchestrator.core.schedule import Schedule, upcoming
from orchestrator.core.tenants import Tenant
from orchestrator.store import generations, refreshes, slots, snapshots
from orchestrator.store.slots import Decided


@dataclass(frozen=True)
class Outlook:
    """`last_slot` is what the schedule last decided and why; `last` what was last done, for whatever reason."""

    tenant_id: str
    tenant_name: str
    snapshot_id: str | None
    data_as_of: datetime | None
    next_due_at: datetime | None  # None: not scheduled
    postponed: Postponement | None
    last_slot: Decided | None
    last: Refresh | None


def outlook(store: Engine, schedule: Schedule, tenants: Iterable[Tenant]) -> list[Outlook]:
    """For each of `tenants`, as of now; a fixed number of questions however many they are."""
    wanted = list(tenants)
    ids = [tenant.id for tenant in wanted]
    now = slots.now(store)
    with store.connect() as connection:
        live = {one.tenant_id: one for one in generations.listed(connection, states=[GenerationState.LIVE])}
        used = {live[tenant_id].snapshot_id for tenant_id in ids if tenant_id in live}
        made_from = {snapshot_id: snapshots.get(connection, snapshot_id) for snapshot_id in used}
    postponed, last = refreshes.postponements(store, ids), refreshes.newest(store, ids)
    decided = slots.lasts(store, "refresh", ids)
    found = []
    for tenant in wanted:
        snapshot = made_from[live[tenant.id].snapshot_id] if tenant.id in live else None
        coming = upcoming(schedule, "refresh", now, target=tenant.id, name=tenant.name)
        found.append(
            Outlook(
                tenant_id=tenant.id,
                tenant_name=tenant.name,
                snapshot_id=snapshot.id if snapshot else None,
                data_as_of=snapshot.taken_at if snapshot else None,
                next_due_at=coming.due_at if coming else None,
                postponed=postponed.get(tenant.id),
                last_slot=decided.get(tenant.id),
                last=last.get(tenant.id),
            )
        )
    return found
