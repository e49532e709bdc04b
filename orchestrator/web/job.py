"""One job while it runs: what it does now, how far it is, its log, and a way to stop it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response

from orchestrator.api.jobs import visible_job
from orchestrator.core.access import Scope
from orchestrator.core.jobs import Job
from orchestrator.core.tenants import TenantMissing
from orchestrator.store import jobs, tenants
from orchestrator.web.visit import Visit, acting, reading

router = APIRouter(prefix="/jobs/{job_id}", include_in_schema=False)
LINES_SHOWN = 500


@router.get("")
def show(job_id: str, visit: Annotated[Visit, reading(Scope.JOBS_READ)]) -> Response:
    """The page looks again by itself while the job is open."""
    job = visible_job(visit.services, visit.who, job_id)
    values: dict[str, Any] = {
        "job": job,
        "lines": jobs.lines(visit.services.store, job_id, limit=LINES_SHOWN),
        "what": sentence(job),
    }
    if visit.is_fragment:
        return visit.piece("job/progress.html", **values)
    try:
        tenant = tenants.get(visit.services.store, job.tenant_id) if job.tenant_id else None
    except TenantMissing:
        tenant = None
    return visit.show("job/show.html", tenant=tenant, **values)


@router.post("/cancel")
def cancel(job_id: str, visit: Annotated[Visit, acting(Scope.JOBS_WRITE)]) -> Response:
    visible_job(visit.services, visit.who, job_id)
    jobs.cancel(visit.services.store, job_id)
    return visit.go(f"/jobs/{job_id}", "It stops at the next point where nothing is left half done.")


def sentence(job: Job) -> str:
    """What kind of work it is, as people say it."""
    if job.kind == "refresh":
        return "Back to the earlier database" if job.arguments.get("undo") else "Refresh of the data"
    named = {"snapshot": "A new snapshot of production", "publish": "Saving files to git", "prune": "Tidying up"}
    return named.get(job.kind, job.kind.replace("_", " ").capitalize())
