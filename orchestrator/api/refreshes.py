"""/api/v1/refreshes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from orchestrator.api.deps import Body, OnceDep, ServicesDep, View, require, visible_tenant
from orchestrator.api.jobs import JobView
from orchestrator.core.access import Principal, Scope
from orchestrator.core.jobs import Job, actor_arguments
from orchestrator.core.refresh import Refresh, RefreshNotFound
from orchestrator.core.tenants import Tenant, TenantState
from orchestrator.flows.refresh.outlook import Outlook, outlook
from orchestrator.store import jobs, refreshes, tenants
from orchestrator.wiring.schedule import load
from orchestrator.wiring.services import Services

router = APIRouter(prefix="/refreshes", tags=["refreshes"])
Reader = Annotated[Principal, require(Scope.REFRESH_READ)]
Runner = Annotated[Principal, require(Scope.REFRESH_RUN)]
TenantName = Annotated[str, Path(max_length=60)]


class RefreshBody(Body):
    """A refresh of one tenant, to the newest snapshot or the one named; with `undo`, back to the previous database."""

    tenant: str = Field(max_length=60)
    snapshot_id: str | None = Field(None, max_length=40)
    undo: bool = False
    reason: str = Field("on demand", max_length=500)


class FleetBody(Body):
    """A refresh of every running tenant the caller may see."""

    reason: str = Field("on demand", max_length=500)


class PostponeBody(Body):
    """The next scheduled refresh of a tenant is put off, once."""

    tenant: str = Field(max_length=60)
    reason: str = Field("", max_length=500)


class RestoreBody(Body):
    """The rows a refresh saved as a draft are put back into the tenant's database."""

    tenant: str = Field(max_length=60)
    draft_id: str = Field(max_length=40)


class RestoredView(View):
    tenant: str
    draft_id: str
    is_restored: bool


class RefreshView(View):
    """One refresh or undo. `timings` are seconds by step; `gap_s` is how long clients were held back."""

    id: str
    tenant: str
    kind: str
    state: str
    step: str
    requested_by: str
    reason: str
    job_id: str | None
    snapshot_id: str | None
    generation_id: str
    previous_id: str | None
    draft_id: str | None
    carried: str | None
    timings: dict[str, float]
    gap_s: float | None
    ended_sessions: int
    error_code: str | None
    error: str | None
    recovered: bool
    started_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, refresh: Refresh, names: dict[str, str]) -> RefreshView:
        values = {name: getattr(refresh, name) for name in cls.model_fields if name != "tenant"}
        return cls(tenant=names.get(refresh.tenant_id, refresh.tenant_id), **values)


class OutlookView(View):
    """When a tenant's data was and will be refreshed, and what the schedule last decided and why."""

    tenant: str
    snapshot_id: str | None
    data_as_of: datetime | None
    next_due_at: datetime | None
    postponed_by: str | None
    last_due_at: datetime | None
    last_outcome: str | None
    last_reason: str | None
    last_state: str | None
    last_finished_at: datetime | None

    @classmethod
    def of(cls, one: Outlook) -> OutlookView:
        slot, last = one.last_slot, one.last
        return cls(
            tenant=one.tenant_name,
            snapshot_id=one.snapshot_id,
            data_as_of=one.data_as_of,
            next_due_at=one.next_due_at,
            postponed_by=one.postponed.requested_by if one.postponed else None,
            last_due_at=slot.due_at if slot else None,
            last_outcome=slot.outcome if slot else None,
            last_reason=slot.reason if slot else None,
            last_state=last.state.value if last else None,
            last_finished_at=last.finished_at if last else None,
        )


class PostponementView(View):
    """Whether the tenant's next scheduled refresh is put off."""

    tenant: str
    is_postponed: bool
    requested_by: str | None = None
    reason: str | None = None
    at: datetime | None = None


@router.get("")
def list_refreshes(
    services: ServicesDep,
    who: Reader,
    tenant: Annotated[str | None, Query(max_length=60)] = None,
    before: datetime | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> list[RefreshView]:
    """The history, the newest first, of the tenants the caller may see."""
    tenant_id = visible_tenant(services, who, tenant).id if tenant else None
    found = refreshes.history(
        services.store, tenant_id=tenant_id, before=before, limit=limit, tenant_ids=who.tenant_ids
    )
    names = tenants.names(services.store)
    return [RefreshView.of(one, names) for one in found]


@router.post("", status_code=202, response_model=JobView)
def run_refresh(body: RefreshBody, services: ServicesDep, who: Runner, once: OnceDep) -> object:
    """Ask for a refresh (or an undo); the job says how it goes."""
    tenant = visible_tenant(services, who, body.tenant)
    names = {tenant.id: tenant.name}

    def ask() -> JobView:
        return JobView.of(_ask(services, who, tenant, body.reason, body.snapshot_id, undo=body.undo), names)

    return once(ask, status=202)


@router.post("/all", status_code=202)
def run_all(body: FleetBody, services: ServicesDep, who: Runner) -> list[JobView]:
    """Ask for a refresh of every running tenant the caller may see: one job each, a few at once."""
    found = [one for one in tenants.listed(services.store, states=[TenantState.RUNNING]) if who.may_see(one.id)]
    return [JobView.of(_ask(services, who, one, body.reason), {one.id: one.name}) for one in found]


@router.get("/schedule")
def show_schedule(services: ServicesDep, who: Reader) -> list[OutlookView]:
    """Every tenant's last and next refresh with the reason."""
    found = [one for one in tenants.listed(services.store) if who.may_see(one.id)]
    return [OutlookView.of(one) for one in outlook(services.store, load(services.settings), found)]


@router.post("/postponements", status_code=201)
def postpone(body: PostponeBody, services: ServicesDep, who: Runner) -> PostponementView:
    """Put a tenant's next scheduled refresh off, once."""
    tenant = visible_tenant(services, who, body.tenant)
    done = services.refresh.postpone(
        tenant, actor=who.actor, reason=body.reason, in_a_row_max=load(services.settings).postpone_max
    )
    return PostponementView(
        tenant=tenant.name, is_postponed=True, requested_by=done.requested_by, reason=done.reason, at=done.at
    )


@router.delete("/postponements/{name}")
def keep_date(name: TenantName, services: ServicesDep, who: Runner) -> PostponementView:
    """Take a postponement back."""
    tenant = visible_tenant(services, who, name)
    services.refresh.keep_date(tenant, actor=who.actor)
    return PostponementView(tenant=tenant.name, is_postponed=False)


@router.post("/restores", status_code=201)
def restore(body: RestoreBody, services: ServicesDep, who: Runner) -> RestoredView:
    """Put a saved draft back onto the data of today: all of its rows, or none and a problem that names why."""
    tenant = visible_tenant(services, who, body.tenant)
    done = services.refresh.restore(tenant, body.draft_id, actor=who.actor)
    return RestoredView(tenant=tenant.name, draft_id=body.draft_id, is_restored=done.is_applied)


@router.get("/{refresh_id}")
def show_refresh(refresh_id: Annotated[str, Path(max_length=40)], services: ServicesDep, who: Reader) -> RefreshView:
    """One refresh as journaled."""
    found = refreshes.get(services.store, refresh_id)
    if not who.may_see(found.tenant_id):
        raise RefreshNotFound(f"There is no refresh {ascii(refresh_id)[:40]}.")
    return RefreshView.of(found, tenants.names(services.store))


def _ask(
    services: Services,
    who: Principal,
    tenant: Tenant,
    reason: str,
    snapshot_id: str | None = None,
    *,
    undo: bool = False,
) -> Job:
    arguments: dict[str, object] = {"actor": actor_arguments(who.actor)}
    if undo:
        arguments["undo"] = True
    if snapshot_id is not None:
        arguments["snapshot_id"] = snapshot_id
    return jobs.ask(
        services.store,
        "refresh",
        requested_by=who.name,
        tenant_id=tenant.id,
        arguments=arguments,
        reason=reason,
        priority=50,
    )
