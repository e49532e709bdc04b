"""When a tenant's database was and will be refreshed, and why not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

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
    """For each of `tenants`, as of now."""
    now = slots.now(store)
    found = []
    for tenant in tenants:
        with store.connect() as connection:
            live = generations.live(connection, tenant.id)
            snapshot = snapshots.get(connection, live.snapshot_id) if live is not None else None
        coming = upcoming(schedule, "refresh", now, target=tenant.id, name=tenant.name)
        found.append(
            Outlook(
                tenant_id=tenant.id,
                tenant_name=tenant.name,
                snapshot_id=snapshot.id if snapshot else None,
                data_as_of=snapshot.taken_at if snapshot else None,
                next_due_at=coming.due_at if coming else None,
                postponed=refreshes.postponement(store, tenant.id),
                last_slot=slots.last(store, "refresh", tenant.id),
                last=next(iter(refreshes.history(store, tenant_id=tenant.id, limit=1)), None),
            )
        )
    return found
