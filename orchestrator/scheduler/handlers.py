"""Jobs that refresh: from a job's arguments to the flow and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.core.jobs import Handler, JobContext, actor_of
from orchestrator.core.refresh import Refresh, RefreshStep
from orchestrator.core.tenants import Tenant, TenantMissing
from orchestrator.flows.refresh import RefreshFlow

STEPS = [step.value for step in RefreshStep]
WORDS = {
    RefreshStep.PLANNED: "getting ready",
    RefreshStep.SAVING: "saving changes that were not proposed",
    RefreshStep.CLONING: "copying the newest snapshot",
    RefreshStep.STARTING: "starting the new database beside the present one",
    RefreshStep.CHECKING: "checking the new database",
    RefreshStep.SWAPPING: "swapping it in",
    RefreshStep.SETTLING: "putting the earlier database aside",
    RefreshStep.CARRYING: "carrying saved changes over",
    RefreshStep.PRUNING: "tidying up",
    RefreshStep.FINISHED: "done",
}


def refresh_handler(flow: RefreshFlow, tenant_of: Callable[[str], Tenant]) -> Handler:
    """A job of kind `refresh`: its arguments may say `undo` or name a `snapshot_id`."""

    def handle(context: JobContext) -> Mapping[str, Any]:
        job = context.job
        if job.tenant_id is None:
            raise TenantMissing("A refresh needs its tenant.")
        tenant = tenant_of(job.tenant_id)

        def on_step(step: str) -> None:
            if step in STEPS:
                said = WORDS[RefreshStep(step)]
                context.line(said)
                context.progress(STEPS.index(step) / len(STEPS), said)

        if job.arguments.get("undo"):
            return summary(flow.undo(tenant, actor=actor_of(job), reason=job.reason, on_step=_uncancelled(on_step)))
        done = flow.run(
            tenant,
            actor=actor_of(job),
            reason=job.reason,
            snapshot_id=job.arguments.get("snapshot_id"),
            job_id=job.id,
            on_step=_uncancelled(on_step),
        )
        return summary(done)

    return handle


def _uncancelled(on_step: Callable[[str], None]) -> Callable[[str], None]:
    """Past the swap a refresh is finished, never cancelled."""
    is_swapped = False

    def told(step: str) -> None:
        nonlocal is_swapped
        is_swapped = is_swapped or step == "renamed"
        if not is_swapped:
            on_step(step)

    return told


def summary(refresh: Refresh) -> dict[str, Any]:
    """A refresh as JSON values, for a job's result."""
    return {
        "refresh_id": refresh.id,
        "generation_id": refresh.generation_id,
        "snapshot_id": refresh.snapshot_id,
        "gap_s": refresh.gap_s,
        "ended_sessions": refresh.ended_sessions,
        "carried": refresh.carried,
        "timings": dict(refresh.timings),
    }
