"""/api/v1/branches."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from orchestrator.api.asking import ACCEPTED, LaterDep
from orchestrator.api.deps import Body, ServicesDep, View, require, visible_tenant
from orchestrator.core.access import Principal, Scope
from orchestrator.core.publishes import BranchView, Publish
from orchestrator.core.tenants import TenantState
from orchestrator.errors import OrchestratorError
from orchestrator.store import publishes, tenants

router = APIRouter(prefix="/branches", tags=["branches"])
Reader = Annotated[Principal, require(Scope.BRANCHES_READ)]
Publisher = Annotated[Principal, require(Scope.BRANCHES_PUBLISH)]
Merger = Annotated[Principal, require(Scope.BRANCHES_MERGE)]
TenantName = Annotated[str, Path(max_length=60)]


class PublishBody(Body):
    """Why it is published now, for the record."""

    reason: str = Field("on demand", max_length=500)


class FindingView(View):
    """Why something did not leave the workspace; never holds a secret itself."""

    kind: str
    path: str
    line: int | None
    what: str


class PublishView(View):
    """One publish: the work committed, checked outside the container, and pushed."""

    id: str
    state: str
    step: str
    reason: str
    actor: str
    base_commit: str | None
    commit: str | None
    files_count: int
    findings: list[FindingView]
    error: str
    started_at: datetime
    finished_at: datetime | None
    pushed_at: datetime | None


class BranchState(View):
    """Where a tenant's branch stands. `behind` counts production's commits it lacks, `ahead` its own."""

    tenant: str
    name: str
    head: str | None
    production: str
    ahead: int
    behind: int
    conflicts: list[str]
    last: PublishView | None

    @classmethod
    def of(cls, tenant: str, view: BranchView) -> BranchState:
        return cls(
            tenant=tenant,
            name=view.name,
            head=view.head,
            production=view.production,
            ahead=view.ahead,
            behind=view.behind,
            conflicts=list(view.conflicts),
            last=None if view.last is None else PublishView.model_validate(view.last),
        )


class Published(View):
    """What came of one tenant's publish among many."""

    tenant: str
    publish: PublishView | None
    error_code: str = ""
    error: str = ""

    @classmethod
    def of(cls, tenant: str, result: Publish | OrchestratorError) -> Published:
        if isinstance(result, OrchestratorError):
            return cls(tenant=tenant, publish=None, error_code=result.code, error=str(result))
        return cls(tenant=tenant, publish=PublishView.model_validate(result))


@router.get("/{name}")
def show_branch(name: TenantName, services: ServicesDep, who: Reader) -> BranchState:
    """Where a tenant's branch stands beside production's."""
    tenant = visible_tenant(services, who, name)
    return BranchState.of(tenant.name, services.publish.view(tenant))


@router.get("/{name}/publishes")
def list_publishes(name: TenantName, services: ServicesDep, who: Reader) -> list[PublishView]:
    """Its publishes, the newest first."""
    tenant = visible_tenant(services, who, name)
    return [PublishView.model_validate(one) for one in publishes.history(services.store, tenant.id)]


@router.post("/{name}/publish", response_model=PublishView, responses=ACCEPTED)
def publish_branch(
    name: TenantName, body: PublishBody, services: ServicesDep, who: Publisher, later: LaterDep
) -> object:
    """Commit what is in the workspace, check it, and push the branch."""
    tenant = visible_tenant(services, who, name)
    if later.is_wanted:
        return later("publish", tenant, reason=body.reason)
    return PublishView.model_validate(services.publish.run(tenant, actor=who.actor, reason=body.reason))


@router.post("/publish")
def publish_all(body: PublishBody, services: ServicesDep, who: Publisher) -> list[Published]:
    """Publish every tenant's branch the caller may see; one that fails does not hold up the others."""
    found = tenants.listed(services.store, states=(TenantState.RUNNING, TenantState.STOPPED))
    seen = [one for one in found if who.may_see(one.id)]
    done = services.publish.run_all(seen, actor=who.actor, reason=body.reason)
    return [Published.of(name, result) for name, result in done.items()]


@router.post("/{name}/merge", response_model=BranchState, responses=ACCEPTED)
def merge_production(name: TenantName, services: ServicesDep, who: Merger, later: LaterDep) -> object:
    """Publish, then merge production's newest code into the tenant's branch; conflicts stand in the workspace."""
    tenant = visible_tenant(services, who, name)
    if later.is_wanted:
        return later("merge", tenant)
    return BranchState.of(tenant.name, services.publish.bring_up_to_date(tenant, actor=who.actor))
