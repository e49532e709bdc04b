"""The scheduler of an installation, made from its services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.core.jobs import Handler, JobContext, actor_of
from orchestrator.core.snapshots import SnapshotStep
from orchestrator.core.tenants import TenantMissing
from orchestrator.errors import OrchestratorError
from orchestrator.scheduler.handlers import refresh_handler
from orchestrator.scheduler.service import Scheduler
from orchestrator.scheduler.targets import remembered
from orchestrator.store import tenants
from orchestrator.wiring.schedule import load
from orchestrator.wiring.services import Services

SNAPSHOT_STEPS = list(SnapshotStep)


def make_scheduler(services: Services) -> Scheduler:
    """Everything the schedule may ask for has a handler; one snapshot and one round of reconciling at a time."""
    settings = services.settings
    return Scheduler(
        services.store,
        load=lambda: load(settings),
        targets=lambda: remembered(services.store),
        handlers=handlers(services),
        concurrency=settings.scheduler.jobs_at_once,
        concurrency_by_kind={
            "snapshot": 1,
            "prune": 1,
            "reconcile": 1,
            # Room is left for the rest however many refreshes come due at once.
            "refresh": max(1, min(settings.refresh.at_once, settings.scheduler.jobs_at_once - 1)),
        },
    )


def handlers(services: Services) -> dict[str, Handler]:
    """By kind of job."""
    return {
        "refresh": refresh_handler(services.refresh, lambda tenant_id: tenants.get(services.store, tenant_id)),
        "snapshot": lambda context: _snapshot(services, context),
        "prune": lambda context: _prune(services, context),
        "publish": lambda context: _publish(services, context),
        "reconcile": lambda context: _reconcile(services, context),
    }


def _snapshot(services: Services, context: JobContext) -> Mapping[str, Any]:
    """Of the profile named, else of every profile tenants have."""
    named = context.job.arguments.get("profile")
    wanted = {tenant.snapshot_profile for tenant in tenants.listed(services.store)}
    profiles = [str(named)] if named else sorted(wanted | {services.settings.tenants.snapshot_profile})
    taken: dict[str, str] = {}
    failures: list[OrchestratorError] = []
    for number, profile in enumerate(profiles):

        def on_step(step: SnapshotStep, share: float, text: str, number: int = number, profile: str = profile) -> None:
            done = (number + (SNAPSHOT_STEPS.index(step) + share) / len(SNAPSHOT_STEPS)) / len(profiles)
            context.progress(done, f"{profile}: {step.value} {text}".strip())

        context.line(f"taking a snapshot of the profile {profile}")
        try:
            made = services.snapshots.take(
                services.source(), profile=profile, actor=actor_of(context.job), on_step=on_step
            )
            taken[profile] = made.id
        except OrchestratorError as error:  # one profile's trouble does not keep the others from their data
            context.line(f"{profile}: {error}")
            failures.append(error)
    if failures:
        raise failures[0]
    return {"snapshots": taken}


def _prune(services: Services, context: JobContext) -> Mapping[str, Any]:
    removed = services.snapshots.prune(keep=services.settings.snapshots.kept, actor=actor_of(context.job))
    for snapshot_id in removed:
        context.line(f"removed the snapshot {snapshot_id}")
    stopped = services.refresh.generations.stop_idle_bases(idle_s=services.settings.reconcile.base_idle)
    return {"snapshots": removed, "bases": stopped}


def _publish(services: Services, context: JobContext) -> Mapping[str, Any]:
    if context.job.tenant_id is None:
        raise TenantMissing("A publish needs its tenant.")
    tenant = tenants.get(services.store, context.job.tenant_id)
    done = services.publish.run(tenant, actor=actor_of(context.job), reason=context.job.reason or "nightly")
    return {"publish_id": done.id, "state": done.state.value, "commit": done.commit}


def _reconcile(services: Services, context: JobContext) -> Mapping[str, Any]:
    result = services.reconcile.run()
    for action in services.changes.settle():
        context.line(action)
    for name, actions in sorted(result.done.items()):
        for action in actions:
            context.line(f"{name}: {action}")
    for name, reason in sorted(result.failed.items()):
        context.line(f"{name}: {reason}")
    return {"done": result.done, "failed": result.failed}
