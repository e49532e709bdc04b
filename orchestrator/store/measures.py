"""The measures of refreshes, snapshots, publishes and jobs, read from their records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from sqlalchemy import Engine

from orchestrator.core.generations import Generation, GenerationState
from orchestrator.core.metrics import Family, FamilyKind, Sample
from orchestrator.core.publishes import PublishState
from orchestrator.core.refresh import Refresh, RefreshState
from orchestrator.core.schedule import Schedule, upcoming
from orchestrator.core.snapshots import Snapshot, SnapshotState
from orchestrator.core.tenants import Tenant
from orchestrator.store import generations, jobs, publishes, refreshes, slots, snapshots, tenants


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Iterable[Sample]) -> Family:
    return Family(f"orchestrator_{name}", text, FamilyKind.GAUGE, labels, tuple(samples))


def _counter(name: str, text: str, labels: tuple[str, ...], samples: Iterable[Sample]) -> Family:
    return Family(f"orchestrator_{name}", text, FamilyKind.COUNTER, labels, tuple(samples))


def collect(engine: Engine, schedule: Schedule | None = None) -> list[Family]:
    """Every family, as of now by the database's clock. With `schedule` also when the next refreshes are due."""
    now = slots.now(engine)
    present = tenants.listed(engine)
    with engine.connect() as connection:
        live = generations.listed(connection, states=[GenerationState.LIVE])
        taken = snapshots.listed(connection, limit=1000)
    families = [
        *_of_refreshes(engine, tenants.names(engine)),
        *_of_data(present, live, taken, now),
        *_of_publishes(engine, present),
        _gauge(
            "jobs",
            "Jobs by kind and state",
            ("kind", "state"),
            (Sample(n, {"kind": kind, "state": state}) for (kind, state), n in sorted(jobs.counts(engine).items())),
        ),
    ]
    if schedule is not None:
        families.append(_of_schedule(schedule, present, now))
    return families


def _of_refreshes(engine: Engine, names: dict[str, str]) -> list[Family]:
    last = [(names.get(tenant_id, tenant_id), one) for tenant_id, one in sorted(refreshes.last_done(engine).items())]
    counts: dict[tuple[str, str, str], int] = {}
    failures: dict[str, int] = {}
    for tenant_id, kind, state, step, number in refreshes.totals(engine):
        key = (names.get(tenant_id, tenant_id), kind, state)
        counts[key] = counts.get(key, 0) + number
        if state == RefreshState.FAILED:
            failures[step] = failures.get(step, 0) + number
    return [
        _counter(
            "refreshes",
            "Refreshes and undos by how they ended",
            ("tenant", "kind", "state"),
            (Sample(n, {"tenant": t, "kind": k, "state": s}) for (t, k, s), n in sorted(counts.items())),
        ),
        _counter(
            "refresh_failures",
            "Failed refreshes by the step they failed at",
            ("step",),
            (Sample(n, {"step": step}) for step, n in sorted(failures.items())),
        ),
        _last("refresh_last_success_timestamp_seconds", "When the last refresh succeeded", last, _ended),
        _last("refresh_last_duration_seconds", "How long the last refresh took", last, _duration),
        _last("refresh_last_gap_seconds", "How long its swap held clients back", last, lambda one: one.gap_s or 0.0),
        _last("refresh_last_ended_sessions", "Sessions its swap had to end", last, lambda one: one.ended_sessions),
        _gauge(
            "refresh_last_step_seconds",
            "How long each step of the last refresh took",
            ("tenant", "step"),
            (
                Sample(spent, {"tenant": name, "step": step})
                for name, one in last
                for step, spent in sorted(one.timings.items())
            ),
        ),
    ]


def _last(name: str, text: str, last: list[tuple[str, Refresh]], read: Callable[[Refresh], float]) -> Family:
    return _gauge(name, text, ("tenant",), (Sample(float(read(one)), {"tenant": tenant}) for tenant, one in last))


def _ended(one: Refresh) -> float:
    return (one.finished_at or one.started_at).timestamp()


def _duration(one: Refresh) -> float:
    return ((one.finished_at or one.started_at) - one.started_at).total_seconds()


def _of_data(present: list[Tenant], live: list[Generation], taken: list[Snapshot], now: datetime) -> list[Family]:
    by_id = {snapshot.id: snapshot for snapshot in taken}
    lives = {generation.tenant_id: generation for generation in live}
    ages = []
    for tenant in present:
        generation = lives.get(tenant.id)
        snapshot = by_id.get(generation.snapshot_id) if generation is not None else None
        if snapshot is not None and snapshot.taken_at is not None:
            ages.append(Sample((now - snapshot.taken_at).total_seconds(), {"tenant": tenant.name}))
    newest: dict[str, Snapshot] = {}
    latest: dict[str, Snapshot] = {}
    for snapshot in taken:  # the newest first
        latest.setdefault(snapshot.profile, snapshot)
        if snapshot.state is SnapshotState.READY and snapshot.taken_at is not None:
            newest.setdefault(snapshot.profile, snapshot)
    states: dict[str, int] = {}
    for tenant in present:
        states[tenant.state.value] = states.get(tenant.state.value, 0) + 1
    return [
        _gauge("tenants", "Tenants by state", ("state",), (Sample(n, {"state": s}) for s, n in sorted(states.items()))),
        _gauge("data_age_seconds", "Age of the production data a tenant sees", ("tenant",), ages),
        _gauge(
            "snapshot_age_seconds",
            "Age of the newest good snapshot of a profile",
            ("profile",),
            (
                Sample((now - one.taken_at).total_seconds(), {"profile": profile})
                for profile, one in sorted(newest.items())
                if one.taken_at is not None
            ),
        ),
        _gauge(
            "snapshot_last_failed",
            "1 when the last attempt to take a snapshot of a profile failed",
            ("profile",),
            (
                Sample(float(one.state is SnapshotState.FAILED), {"profile": profile})
                for profile, one in sorted(latest.items())
            ),
        ),
    ]


def _of_publishes(engine: Engine, present: list[Tenant]) -> list[Family]:
    last, pushed = publishes.latest(engine), publishes.last_pushed(engine)
    named = [(tenant.name, tenant.id) for tenant in present]
    arrived = [(name, pushed[tenant_id]) for name, tenant_id in named if tenant_id in pushed]
    failed = [
        Sample(float(last[tenant_id].state in state), {"tenant": name, "how": how})
        for name, tenant_id in named
        if tenant_id in last
        for how, state in (
            ("push", (PublishState.PENDING,)),
            ("scan", (PublishState.REFUSED,)),
            ("error", (PublishState.FAILED,)),
        )
    ]
    return [
        _gauge("publish_last_failed", "1 when a tenant's last publish did not arrive", ("tenant", "how"), failed),
        _gauge(
            "publish_last_success_timestamp_seconds",
            "When a tenant's work last was on the company's remote",
            ("tenant",),
            (Sample(at.timestamp(), {"tenant": name}) for name, at in arrived),
        ),
    ]


def _of_schedule(schedule: Schedule, present: list[Tenant], now: datetime) -> Family:
    coming = (
        (tenant.name, upcoming(schedule, "refresh", now, target=tenant.id, name=tenant.name)) for tenant in present
    )
    return _gauge(
        "refresh_next_timestamp_seconds",
        "When the next refresh is due",
        ("tenant",),
        (Sample(slot.due_at.timestamp(), {"tenant": name}) for name, slot in coming if slot is not None),
    )
