"""One job while it runs: what it does now, how far it is, its log, and a way to stop it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from orchestrator.api.jobs import visible_job
from orchestrator.core.access import Scope
from orchestrator.core.jobs import Job, JobState
from orchestrator.core.tenants import Tenant, TenantMissing
from orchestrator.store import jobs, tenants
from orchestrator.web import job_words
from orchestrator.web.visit import Visit, acting, reading

router = APIRouter(prefix="/jobs/{job_id}", include_in_schema=False)
Reader = Annotated[Visit, reading(Scope.JOBS_READ)]
# With `watch`, whoever asked is taken back to where they were as soon as it ended well.
Watching = Annotated[bool, Query()]
LINES_SHOWN = 500
LOOK_S = 0.3
STREAM_S = 60.0  # then the browser asks anew, and whether it may is decided anew
STILL_S = 15.0


@router.get("")
def show(job_id: str, visit: Reader, watch: Watching = False) -> Response:
    """Its state and log; while it is open, the page follows it by itself."""
    job = visible_job(visit.services, visit.who, job_id)
    tenant = _tenant(visit, job)
    if watch and _goes_on(job):
        said, tone = job_words.outcome(job, tenant.name if tenant else None)
        return visit.go(job_words.home(job, tenant.name if tenant else None)[0], said, tone)
    values = _values(visit, job, tenant, watch=watch)
    return visit.show("job/show.html", tenant=tenant, **values)


@router.get("/events")
def events(job_id: str, visit: Reader, watch: Watching = False) -> Response:
    """The same piece of the page whenever something moved, as events, until it ends."""
    visible_job(visit.services, visit.who, job_id)
    stream = _events(visit, job_id, watch=watch)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _events(visit: Visit, job_id: str, *, watch: bool) -> AsyncIterator[str]:
    """Looks in the thread pool and waits on the event loop: a page that is left open costs no thread."""
    last: object = None
    yield "retry: 1000\n\n"
    deadline = time.monotonic() + STREAM_S
    still_at = time.monotonic() + STILL_S
    while time.monotonic() < deadline:
        job, seen, piece = await run_in_threadpool(_look, visit, job_id, last, watch=watch)
        if piece:
            last = seen
            yield "event: progress\n" + "".join(f"data: {line}\n" for line in piece.splitlines()) + "\n"
        elif time.monotonic() > still_at:
            still_at = time.monotonic() + STILL_S
            yield ": still running\n\n"
        if not job.state.is_open:
            yield f"event: end\ndata: {job.state.value}\n\n"
            return
        await anyio.sleep(LOOK_S)


def _look(visit: Visit, job_id: str, last: object, *, watch: bool) -> tuple[Job, object, str]:
    """The job now, what of it can be seen, and the piece of the page if that is not what was seen `last`."""
    job = jobs.get(visit.services.store, job_id)
    lines = jobs.lines(visit.services.store, job_id, limit=LINES_SHOWN)
    seen = (job.state, job.doing, job.progress, job.cancel_requested, job.attempts, len(lines))
    if seen == last:
        return job, seen, ""
    values = _values(visit, job, _tenant(visit, job), watch=watch)
    return job, seen, bytes(visit.piece("job/progress.html", **values).body).decode()


def _goes_on(job: Job) -> bool:
    """Whether its own page has no more to say than the one it belongs to."""
    return job.state is JobState.DONE or (job.state is JobState.FAILED and job.error_code in job_words.SHOWN_ELSEWHERE)


def _tenant(visit: Visit, job: Job) -> Tenant | None:
    try:
        return tenants.get(visit.services.store, job.tenant_id) if job.tenant_id else None
    except TenantMissing:
        return None


def _values(visit: Visit, job: Job, tenant: Tenant | None, *, watch: bool) -> dict[str, Any]:
    name = tenant.name if tenant else None
    address, label = job_words.home(job, name)
    return {
        "job": job,
        "lines": jobs.lines(visit.services.store, job.id, limit=LINES_SHOWN),
        "what": job_words.title(job),
        "name": name,
        "outcome": None if job.state.is_open else job_words.outcome(job, name),
        "home": address,
        "home_label": label,
        "forward": f"/jobs/{job.id}?watch=1" if watch and _goes_on(job) else "",
        "stoppable": job.state is JobState.QUEUED or job.kind in job_words.STOPPABLE,
        "watch": watch,
    }


@router.post("/cancel")
def cancel(job_id: str, visit: Annotated[Visit, acting(Scope.JOBS_WRITE)]) -> Response:
    visible_job(visit.services, visit.who, job_id)
    jobs.cancel(visit.services.store, job_id)
    return visit.go(f"/jobs/{job_id}", "It stops at the next point where nothing is left half done.")
