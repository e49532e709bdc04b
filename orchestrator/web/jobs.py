"""Every job: what runs, what waits, what ended how; the page looks again by itself."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Response

from orchestrator.core.access import Scope
from orchestrator.core.jobs import JobState
from orchestrator.store import jobs, tenants
from orchestrator.web.visit import Visit, reading

router = APIRouter(prefix="/jobs", include_in_schema=False)
PAGE = 50
ROUTINE = ("reconcile",)  # every minute, and of interest only when something is wrong


@router.get("")
def listed(
    visit: Annotated[Visit, reading(Scope.SYSTEM_READ)],
    tenant: Annotated[str, Query(max_length=60)] = "",
    kind: Annotated[str, Query(max_length=40)] = "",
    state: Annotated[str, Query(max_length=20)] = "",
    routine: Annotated[str, Query(max_length=5)] = "",
    before: datetime | None = None,
) -> Response:
    """Newest first; `before` pages towards older ones."""
    store = visit.services.store
    is_everything = bool(kind or state or tenant or routine)
    found = jobs.find(
        store,
        tenant_id=visit.tenant(tenant).id if tenant else None,
        kind=kind or None,
        state=JobState(state) if state in set(JobState) else None,
        before=before,
        limit=PAGE + 1,
        tenant_ids=visit.who.tenant_ids,
        without=() if is_everything else ROUTINE,
    )
    chosen = {"tenant": tenant, "kind": kind, "state": state, "routine": routine}
    older = {**chosen, "before": found[PAGE - 1].created_at.isoformat()} if len(found) > PAGE else None
    values = {
        "jobs": found[:PAGE],
        "names": tenants.names(store),
        "chosen": chosen,
        "here": "/jobs?" + urlencode({**chosen, **({"before": before.isoformat()} if before else {})}),
        "older": "/jobs?" + urlencode(older) if older else "",
        "live": before is None,
    }
    if visit.is_fragment:
        return visit.piece("jobs/table.html", **values)
    counts = jobs.counts(store)
    return visit.show(
        "jobs/list.html",
        status=200,
        kinds=sorted({one for one, _ in counts}),
        states=[one.value for one in JobState],
        totals={one.value: sum(n for (_, s), n in counts.items() if s == one) for one in JobState},
        **values,
    )
