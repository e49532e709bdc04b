"""What the fleet page knows of every tenant, read with a fixed number of queries however many tenants there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine

from orchestrator.core.generations import GenerationState
from orchestrator.core.jobs import Job, JobState
from orchestrator.core.probes import ProbeReport
from orchestrator.core.publishes import Publish, PublishState
from orchestrator.core.refresh import Refresh, RefreshState
from orchestrator.core.schedule import Schedule, upcoming
from orchestrator.core.snapshots import Snapshot
from orchestrator.core.tenants import Tenant, TenantState
from orchestrator.store import generations, jobs, probes, publishes, refreshes, slots, snapshots, tenants

STALE_PERIODS = 2  # data older than so many refresh periods needs attention
UNSETTLED = timedelta(minutes=10)  # a launch or removal that takes longer does too
RECENT = 500


@dataclass(frozen=True)
class FleetRow:
    """One tenant. `attention` says in words why somebody should look, the gravest first."""

    tenant: Tenant
    data_as_of: datetime | None
    next_refresh_at: datetime | None
    refresh: Refresh | None
    publish: Publish | None
    probe: ProbeReport | None
    job: Job | None
    attention: tuple[str, ...]


@dataclass(frozen=True)
class _Known:
    """What is known of all tenants, by tenant id."""

    lives: Mapping[str, str]  # the snapshot the live generation is made from
    snapshots: Mapping[str, Snapshot]
    refreshes: Mapping[str, Refresh]
    publishes: Mapping[str, Publish]
    probes: Mapping[str, ProbeReport]
    jobs: Mapping[str, Job]


def fleet(store: Engine, schedule: Schedule) -> list[FleetRow]:
    """Every tenant, those that need attention first, then by name."""
    now = slots.now(store)
    known = _known(store)
    rows = [_row(tenant, known, schedule, now) for tenant in tenants.listed(store)]
    return sorted(rows, key=lambda row: (not row.attention, row.tenant.state is not TenantState.FAILED))


def _known(store: Engine) -> _Known:
    with store.connect() as connection:
        lives = {
            one.tenant_id: one.snapshot_id for one in generations.listed(connection, states=[GenerationState.LIVE])
        }
        taken = {one.id: one for one in snapshots.listed(connection, limit=1000)}
    last: dict[str, Refresh] = dict(refreshes.last_done(store))
    for one in refreshes.history(store, limit=RECENT):
        if one.tenant_id not in last or one.started_at > last[one.tenant_id].started_at:
            last[one.tenant_id] = one
    running = jobs.find(store, state=JobState.RUNNING, limit=RECENT)
    return _Known(
        lives=lives,
        snapshots=taken,
        refreshes=last,
        publishes=publishes.latest(store),
        probes=probes.newest(store),
        jobs={job.tenant_id: job for job in running if job.tenant_id},
    )


def _row(tenant: Tenant, known: _Known, schedule: Schedule, now: datetime) -> FleetRow:
    snapshot = known.snapshots.get(known.lives.get(tenant.id, ""))
    coming = upcoming(schedule, "refresh", now, target=tenant.id, name=tenant.name)
    as_of = snapshot.taken_at if snapshot is not None else None
    period_s = schedule.entry("refresh", tenant.name).every or 86_400
    refresh, publish = known.refreshes.get(tenant.id), known.publishes.get(tenant.id)
    probe = known.probes.get(tenant.id)
    reasons = attention(
        tenant,
        now=now,
        data_as_of=as_of,
        stale_after_s=STALE_PERIODS * period_s if coming is not None else None,
        refresh=refresh,
        publish=publish,
        probe=probe,
    )
    return FleetRow(
        tenant=tenant,
        data_as_of=as_of,
        next_refresh_at=coming.due_at if coming is not None else None,
        refresh=refresh,
        publish=publish,
        probe=probe,
        job=known.jobs.get(tenant.id),
        attention=reasons,
    )


def attention(
    tenant: Tenant,
    *,
    now: datetime,
    data_as_of: datetime | None,
    stale_after_s: float | None,
    refresh: Refresh | None,
    publish: Publish | None,
    probe: ProbeReport | None,
) -> tuple[str, ...]:
    """Why somebody should look at this tenant, the gravest first. Pure."""
    found = []
    if probe is not None and not probe.is_sound:
        found.append("A boundary did not hold when it was last probed.")
    if tenant.state is TenantState.FAILED:
        found.append(f"It failed: {tenant.reason or 'the cause is not recorded'}")
    elif tenant.reason:
        found.append(f"Bringing it back failed: {tenant.reason}")
    if tenant.state in (TenantState.LAUNCHING, TenantState.REMOVING) and now - tenant.created_at > UNSETTLED:
        found.append(f"It has been {tenant.state.value} for long.")
    if refresh is not None and refresh.state is RefreshState.FAILED:
        found.append(f"The last refresh failed at “{refresh.step.value}”: {refresh.error or 'no cause is recorded'}")
    if tenant.state is TenantState.RUNNING and data_as_of is not None and stale_after_s is not None:
        age_s = (now - data_as_of).total_seconds()
        if age_s > stale_after_s:
            found.append(f"Its data is {age_s / 3600:.0f} h old.")
    if publish is not None and publish.state in (PublishState.REFUSED, PublishState.FAILED, PublishState.PENDING):
        found.append(f"The last publish is {publish.state.value}: {publish.error or 'no cause is recorded'}")
    return tuple(found)
