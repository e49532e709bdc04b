"""The scheduler of an installation, made from its services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine

from orchestrator.core import webhooks
from orchestrator.core.jobs import Handler, JobContext, actor_of
from orchestrator.core.snapshots import SnapshotStep
from orchestrator.core.tenants import TenantMissing
from orchestrator.errors import OrchestratorError
from orchestrator.flows.snapshot.flow import SnapshotBusy
from orchestrator.scheduler.asked import asked_handlers
from orchestrator.scheduler.handlers import refresh_handler
from orchestrator.scheduler.service import Scheduler
from orchestrator.scheduler.targets import SETTLED, remembered
from orchestrator.store import jobs, publishes, tenants
from orchestrator.wiring.schedule import load
from orchestrator.wiring.services import Services

SNAPSHOT_STEPS = list(SnapshotStep)
PUSHED_AGAIN = "the push failed and is tried again"
ROOM_FOR_PEOPLE = 3  # jobs people ask for that start at once beside `scheduler.jobs_at_once` of the schedule's


def make_scheduler(services: Services) -> Scheduler:
    """Everything the schedule may ask for has a handler; one snapshot and one round of reconciling at a time."""
    settings = services.settings
    by_schedule, by_people = handlers(services), asked_handlers(services)
    return Scheduler(
        services.store,
        load=lambda: load(settings),
        targets=lambda: remembered(services.store),
        handlers={**by_schedule, **by_people},
        each_tick=services.notify.dispatch,
        concurrency=settings.scheduler.jobs_at_once + ROOM_FOR_PEOPLE,
        behind=by_schedule,
        room_left=ROOM_FOR_PEOPLE,
        told_at_once=by_people,
        sample=services.sample.run,
        concurrency_by_kind={
            "snapshot": 1,
            "prune": 1,
            "reconcile": 1,
            webhooks.JOB: 2,  # a receiver that does not answer must not hold up the rest
            # Room is left for the rest however many refreshes come due at once.
            "refresh": max(1, min(settings.refresh.at_once, settings.scheduler.jobs_at_once - 1)),
        },
    )


def handlers(services: Services) -> dict[str, Handler]:
    """What the schedule may ask for, by kind of job."""
    return {
        "refresh": refresh_handler(services.refresh, lambda tenant_id: tenants.get(services.store, tenant_id)),
        "snapshot": lambda context: _snapshot(services, context),
        "prune": lambda context: _prune(services, context),
        "publish": lambda context: _publish(services, context),
        "reconcile": lambda context: _reconcile(services, context),
        webhooks.JOB: lambda context: services.notify.deliver(
            int(context.job.arguments["number"]), str(context.job.arguments["target"])
        ),
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
    keep = int(context.job.arguments.get("keep") or services.settings.snapshots.kept)
    try:
        removed = services.snapshots.prune(keep=keep, actor=actor_of(context.job))
    except SnapshotBusy:
        if "actor" in context.job.arguments:
            raise  # somebody waits for the answer
        context.line("a snapshot is being taken: the next round tidies up")
        removed = []
    for snapshot_id in removed:
        context.line(f"removed the snapshot {snapshot_id}")
    stopped = services.refresh.generations.stop_idle_bases(idle_s=services.settings.reconcile.base_idle)
    given_back = services.refresh.generations.volume.give_back()
    if given_back:
        context.line(f"gave {given_back >> 20} MiB back to the disk below the volume")
    try:
        if services.installation.drivers.repository.tidy():
            context.line("put the repository's packs into one")
    except OrchestratorError as error:  # it is only slower until then
        context.line(f"the repository could not be tidied: {error}")
    return {"snapshots": removed, "bases": stopped}


def _publish(services: Services, context: JobContext) -> Mapping[str, Any]:
    if context.job.tenant_id is None:
        raise TenantMissing("A publish needs its tenant.")
    tenant = tenants.get(services.store, context.job.tenant_id)
    context.say(0.1, "saving the files, checking them, and pushing the branch")
    done = services.publish.run(tenant, actor=actor_of(context.job), reason=context.job.reason or "nightly")
    return {"publish_id": done.id, "state": done.state.value, "commit": done.commit}


def _reconcile(services: Services, context: JobContext) -> Mapping[str, Any]:
    result = services.reconcile.run()
    for action in services.changes.settle():
        context.line(action)
    for tenant_id in pushed_again(services.store):
        context.line(f"{tenant_id}: {PUSHED_AGAIN}")
    for name, actions in sorted(result.done.items()):
        for action in actions:
            context.line(f"{name}: {action}")
    for name, reason in sorted(result.failed.items()):
        context.line(f"{name}: {reason}")
    return {"done": result.done, "failed": result.failed}


def pushed_again(store: Engine) -> list[str]:
    """Ask for the publishes whose push failed and waited long enough; returns the tenants' ids."""
    present = {tenant.id for tenant in tenants.listed(store, states=SETTLED)}
    due = [tenant_id for tenant_id in publishes.due_again(store) if tenant_id in present]
    for tenant_id in due:
        jobs.ask(store, "publish", requested_by="reconcile", tenant_id=tenant_id, reason=PUSHED_AGAIN)
    return due
