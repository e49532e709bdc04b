"""/api/v1/jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field

from orchestrator.api.deps import ServicesDep, View, require, visible_tenant
from orchestrator.core.access import Principal, Scope
from orchestrator.core.jobs import Job, JobNotFound, JobState
from orchestrator.store import jobs, tenants
from orchestrator.wiring.services import Services

router = APIRouter(prefix="/jobs", tags=["jobs"])
Reader = Annotated[Principal, require(Scope.JOBS_READ)]
Writer = Annotated[Principal, require(Scope.JOBS_WRITE)]
JobId = Annotated[str, Path(max_length=40)]


class JobView(View):
    """One job. `progress` runs from 0 to 1."""

    id: str
    kind: str
    tenant: str | None
    state: str
    reason: str
    requested_by: str
    attempts: int
    attempts_max: int
    progress: float
    doing: str
    result: dict[str, Any] | None
    error_code: str | None
    error: str | None
    effect: str
    next_step: str
    not_before: datetime
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, job: Job, names: dict[str, str]) -> JobView:
        values = {name: getattr(job, name) for name in cls.model_fields if name != "tenant"}
        return cls(tenant=names.get(job.tenant_id, job.tenant_id) if job.tenant_id else None, **values)


class LineView(View):
    """One line of a job's log."""

    number: int
    at: datetime
    text: str


class JobQuery(View):
    """What jobs are looked for."""

    tenant: str | None = Field(None, max_length=60)
    kind: str | None = Field(None, max_length=40)
    state: JobState | None = None
    before: datetime | None = None
    limit: int = Field(50, ge=1, le=500)


@router.get("")
def list_jobs(services: ServicesDep, who: Reader, query: Annotated[JobQuery, Query()]) -> list[JobView]:
    """The newest first, of the tenants the caller may see."""
    tenant_id = visible_tenant(services, who, query.tenant).id if query.tenant else None
    found = jobs.find(
        services.store,
        tenant_id=tenant_id,
        kind=query.kind,
        state=query.state,
        before=query.before,
        limit=query.limit,
        tenant_ids=who.tenant_ids,
    )
    names = tenants.names(services.store)
    return [JobView.of(job, names) for job in found]


@router.get("/{job_id}")
def show_job(job_id: JobId, services: ServicesDep, who: Reader) -> JobView:
    """One job as it is now."""
    return JobView.of(visible_job(services, who, job_id), tenants.names(services.store))


@router.get("/{job_id}/lines")
def show_lines(
    job_id: JobId,
    services: ServicesDep,
    who: Reader,
    after: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=2000)] = 500,
) -> list[LineView]:
    """Its log after a line's number, in order."""
    visible_job(services, who, job_id)
    return [LineView.model_validate(line) for line in jobs.lines(services.store, job_id, after=after, limit=limit)]


@router.post("/{job_id}/cancel")
def cancel_job(job_id: JobId, services: ServicesDep, who: Writer) -> JobView:
    """End a waiting job, or ask a running one to stop at its next safe point."""
    visible_job(services, who, job_id)
    return JobView.of(jobs.cancel(services.store, job_id), tenants.names(services.store))


def visible_job(services: Services, who: Principal, job_id: str) -> Job:
    """Raises JobNotFound, also for one of a tenant the caller may not see."""
    job = jobs.get(services.store, job_id)
    if who.tenant_ids is not None and job.tenant_id not in who.tenant_ids:
        raise JobNotFound(f"There is no job {ascii(job_id)[:40]}.")
    return job
