"""My workspace: is it there, how old is the data, what is used, what waits for me."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Response

from orchestrator.core.access import Scope
from orchestrator.core.approvals import ApprovalState
from orchestrator.core.changes import Change, ChangeState
from orchestrator.core.jobs import Job, JobState
from orchestrator.core.names import TenantNames
from orchestrator.core.schedule import upcoming
from orchestrator.core.tenants import Tenant
from orchestrator.flows.refresh.outlook import outlook
from orchestrator.store import approvals, changes, jobs, publishes, snapshots
from orchestrator.web.visit import Visit, acting, reading
from orchestrator.wiring.schedule import load

router = APIRouter(prefix="/workspaces/{name}", include_in_schema=False)
Reader = Annotated[Visit, reading(Scope.TENANTS_READ)]
Refresher = Annotated[Visit, acting(Scope.REFRESH_RUN)]
Operator = Annotated[Visit, acting(Scope.TENANTS_OPERATE)]
WAITING = (ChangeState.DRAFT, ChangeState.CONFLICTED, ChangeState.SUBMITTED, ChangeState.APPROVED)
OPEN_JOBS = (JobState.RUNNING, JobState.QUEUED)


@router.get("")
def show(name: str, visit: Reader) -> Response:
    """Everything about one workspace at a glance; what changes while somebody watches comes as a piece."""
    tenant = visit.tenant(name)
    services = visit.services
    schedule = load(services.settings)
    live: dict[str, Any] = {
        "tenant": tenant,
        "outlook": outlook(services.store, schedule, [tenant])[0],
        "jobs": open_jobs(visit, tenant),
    }
    if visit.is_fragment:
        return visit.piece("workspace/live.html", is_piece=True, **live)
    with services.store.connect() as connection:
        waiting = changes.listed(connection, tenant_id=tenant.id, states=WAITING, limit=20)
    return visit.show(
        "workspace/show.html",
        address=services.settings.proxy.address(hostname(visit, tenant)),
        host=hostname(visit, tenant),
        postpone_max=schedule.postpone_max,
        mine=[one for one in waiting if one.state in (ChangeState.DRAFT, ChangeState.CONFLICTED)],
        theirs=[one for one in waiting if one.state in (ChangeState.SUBMITTED, ChangeState.APPROVED)],
        asked=approvals.listed(
            services.store, state=ApprovalState.PENDING, tenant_ids=frozenset({tenant.id}), limit=20
        ),
        published=next(iter(publishes.history(services.store, tenant.id, limit=1)), None),
        is_behind=services.publish.is_behind(tenant),
        profile=services.settings.limits.profile(tenant.profile),
        **live,
    )


def hostname(visit: Visit, tenant: Tenant) -> str:
    names = TenantNames(visit.services.settings.instance, tenant.id, tenant.name)
    return names.hostname(visit.services.settings.proxy.domain)


def open_jobs(visit: Visit, tenant: Tenant) -> list[Job]:
    """What is being done or waits for its turn."""
    found: list[Job] = []
    for state in OPEN_JOBS:
        found += jobs.find(visit.services.store, tenant_id=tenant.id, state=state, limit=5)
    return found


@router.get("/usage")
def usage(name: str, visit: Reader) -> Response:
    """What is used beside what may be used: asks the engine, so the page fetches it by itself."""
    tenant = visit.tenant(name)
    values: dict[str, Any] = {"tenant": tenant, "usage": visit.services.usage.of(tenant)}
    if visit.is_fragment:
        return visit.piece("workspace/usage_bars.html", **values)
    return visit.show("workspace/usage.html", **values)


@router.get("/refresh")
def confirm_refresh(name: str, visit: Annotated[Visit, reading(Scope.REFRESH_RUN)]) -> Response:
    """What a refresh does, and what happens to work that is not proposed yet."""
    tenant = visit.tenant(name)
    with visit.services.store.connect() as connection:
        drafts: list[Change] = changes.listed(connection, tenant_id=tenant.id, states=[ChangeState.DRAFT], limit=5)
        newest = snapshots.newest(connection, tenant.snapshot_profile)
    schedule = load(visit.services.settings)
    coming = upcoming(schedule, "snapshot", datetime.now(UTC))
    return visit.show(
        "workspace/refresh.html",
        tenant=tenant,
        outlook=outlook(visit.services.store, schedule, [tenant])[0],
        drafts=drafts,
        newest=newest,
        next_snapshot_at=coming.due_at if coming else None,
    )


@router.post("/refresh")
def refresh(name: str, visit: Refresher) -> Response:
    """Ask for fresh data now; the job tells how it goes."""
    return _ask(visit, visit.tenant(name), undo=False)


@router.post("/refresh/undo")
def undo(name: str, visit: Refresher) -> Response:
    """Back to the database before the last refresh."""
    return _ask(visit, visit.tenant(name), undo=True)


@router.post("/refresh/restore")
def restore(name: str, visit: Refresher) -> Response:
    """Put the rows a refresh saved as a draft back into the data of today: all of them, or none and why."""
    draft_id = visit.text("draft_id", length_max=40)
    visit.services.refresh.restore(visit.tenant(name), draft_id, actor=visit.who.actor)
    return visit.go(f"/workspaces/{name}", "The saved rows are back in your data.")


def _ask(visit: Visit, tenant: Tenant, *, undo: bool) -> Response:
    reason = visit.text("reason", length_max=500) or "on demand"
    return visit.begin("refresh", tenant, reason=reason, undo=undo, back=f"/workspaces/{tenant.name}")


@router.post("/postpone")
def postpone(name: str, visit: Refresher) -> Response:
    """Leave the next scheduled refresh out, once."""
    tenant = visit.tenant(name)
    visit.services.refresh.postpone(
        tenant,
        actor=visit.who.actor,
        reason=visit.text("reason", length_max=500),
        in_a_row_max=load(visit.services.settings).postpone_max,
    )
    return visit.go(f"/workspaces/{name}", "The next refresh is left out. The one after it comes as planned.")


@router.post("/keep-date")
def keep_date(name: str, visit: Refresher) -> Response:
    """Take a postponement back."""
    visit.services.refresh.keep_date(visit.tenant(name), actor=visit.who.actor)
    return visit.go(f"/workspaces/{name}", "The next refresh happens as planned.")


@router.post("/publish")
def publish(name: str, visit: Annotated[Visit, acting(Scope.BRANCHES_PUBLISH)]) -> Response:
    """Save the files to git now instead of tonight."""
    return visit.begin("publish", visit.tenant(name), reason="on demand", back=f"/workspaces/{name}")


@router.post("/update")
def update(name: str, visit: Annotated[Visit, acting(Scope.BRANCHES_MERGE)]) -> Response:
    """Bring production's newest code into this workspace."""
    return visit.begin("merge", visit.tenant(name), back=f"/workspaces/{name}/files")


@router.post("/stop")
def stop(name: str, visit: Operator) -> Response:
    """Pause the app and its database; nothing is lost."""
    return visit.begin("stop", visit.tenant(name), back=f"/workspaces/{name}")


@router.post("/start")
def start(name: str, visit: Operator) -> Response:
    return visit.begin("start", visit.tenant(name), back=f"/workspaces/{name}")
