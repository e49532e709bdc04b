"""/api/v1/tenants."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from orchestrator.api.asking import ACCEPTED, LaterDep, ask
from orchestrator.api.deps import Body, OnceDep, ServicesDep, TenantDep, View, require
from orchestrator.core.access import Principal, Scope
from orchestrator.core.probes import NotProbed, ProbeReport
from orchestrator.core.tenants import PoolMode, RefreshPolicy, Tenant
from orchestrator.flows.launch import LaunchRequest
from orchestrator.store import probes, tenants
from orchestrator.wiring.services import Services

router = APIRouter(prefix="/tenants", tags=["tenants"])
Reader = Annotated[Principal, require(Scope.TENANTS_READ)]
Operator = Annotated[Principal, require(Scope.TENANTS_OPERATE)]
Admin = Annotated[Principal, require(Scope.TENANTS_ADMIN)]


class LaunchBody(Body):
    """What may be chosen at launch; what is left out is the installation's default."""

    name: str = Field(max_length=200, examples=["north-region"])
    profile: str = Field("", max_length=60)
    image: str = Field("", max_length=300)
    scope: str | None = Field(None, max_length=200)
    snapshot_profile: str = Field("", max_length=60)
    refresh_policy: RefreshPolicy | None = Field(None, strict=False)
    pool_mode: PoolMode | None = Field(None, strict=False)


class TenantView(View):
    """One tenant."""

    id: str
    name: str
    state: str
    reason: str
    profile: str
    image: str
    scope: str | None
    snapshot_profile: str
    refresh_policy: str
    pool_mode: str
    address: str
    created_at: datetime

    @classmethod
    def of(cls, tenant: Tenant, services: Services) -> TenantView:
        proxy = services.settings.proxy
        address = proxy.address(f"{tenant.name}.{proxy.domain}")
        values = {name: getattr(tenant, name) for name in cls.model_fields if name != "address"}
        return cls(address=address, **values)


class StepView(View):
    """One journaled step of what was last done to a tenant."""

    operation: str
    step: str
    state: str
    begun_at: datetime
    spent_s: float | None
    error: str | None


class TenantDetail(TenantView):
    """One tenant with its journal."""

    steps: list[StepView]


class BoundaryView(View):
    """One boundary: who holds it, what was tried and what answered."""

    boundary: str
    promise: str
    kind: str
    by: str
    outcome: str
    tried: str
    evidence: str


class ProbesView(View):
    """Every boundary of one tenant, as tried at one moment."""

    at: datetime
    is_sound: bool
    boundaries: list[BoundaryView]

    @classmethod
    def of_report(cls, report: ProbeReport) -> ProbesView:
        return cls(at=report.at, is_sound=report.is_sound, boundaries=[BoundaryView(**row) for row in report.rows()])


@router.get("")
def list_tenants(services: ServicesDep, who: Reader) -> list[TenantView]:
    """Every tenant the caller may see, by name."""
    found = tenants.listed(services.store)
    return [TenantView.of(tenant, services) for tenant in found if who.may_see(tenant.id)]


@router.post("", status_code=201, response_model=TenantView, responses=ACCEPTED)
def launch_tenant(body: LaunchBody, services: ServicesDep, who: Admin, once: OnceDep, later: LaterDep) -> object:
    """Launch a tenant and wait until its hostname answers, or follow the job that launches it."""
    defaults = services.settings.tenants
    request = LaunchRequest(
        name=body.name,
        profile=body.profile,
        image=body.image,
        scope=body.scope,
        snapshot_profile=body.snapshot_profile or defaults.snapshot_profile,
        refresh_policy=body.refresh_policy or RefreshPolicy(defaults.refresh_policy),
        pool_mode=body.pool_mode or PoolMode(defaults.pool_mode),
    )
    if later.is_wanted:
        return later.answer(lambda: ask(services, who, "launch", services.launch.reserve(request)))
    return once(lambda: TenantView.of(services.launch.run(request, actor=who.actor), services))


@router.get("/{name}")
def show_tenant(tenant: TenantDep, services: ServicesDep, who: Reader) -> TenantDetail:
    """One tenant and the steps of what was last done to it."""
    del who
    steps = [StepView.model_validate(step) for step in tenants.steps(services.store, tenant.id, limit=50)]
    return TenantDetail(**TenantView.of(tenant, services).model_dump(), steps=steps)


@router.post("/{name}/probe", response_model=ProbesView, responses=ACCEPTED)
def probe_tenant(tenant: TenantDep, services: ServicesDep, who: Operator, later: LaterDep) -> object:
    """Try every boundary of a running tenant now, and keep what answered."""
    if later.is_wanted:
        return later("probe", tenant)
    return ProbesView.of_report(services.probe.run(tenant, actor=who.actor))


@router.get("/{name}/probe")
def show_probe(tenant: TenantDep, services: ServicesDep, who: Reader) -> ProbesView:
    """What came of the last probe."""
    del who
    report = probes.latest(services.store, tenant.id)
    if report is None:
        raise NotProbed(f"{tenant.name} has not been probed yet.", next_step="Probe it: POST to the same address.")
    return ProbesView.of_report(report)


@router.post("/{name}/stop", response_model=TenantView, responses=ACCEPTED)
def stop_tenant(tenant: TenantDep, services: ServicesDep, who: Operator, later: LaterDep) -> object:
    """Stop its containers; data and files stay."""
    if later.is_wanted:
        return later("stop", tenant)
    return TenantView.of(services.tenants.stop(tenant.name, actor=who.actor), services)


@router.post("/{name}/start", response_model=TenantView, responses=ACCEPTED)
def start_tenant(tenant: TenantDep, services: ServicesDep, who: Operator, later: LaterDep) -> object:
    """Start a stopped tenant and wait until its hostname answers."""
    if later.is_wanted:
        return later("start", tenant)
    return TenantView.of(services.tenants.start(tenant.name, actor=who.actor), services)


@router.delete("/{name}", response_model=TenantView, responses=ACCEPTED)
def remove_tenant(tenant: TenantDep, services: ServicesDep, who: Admin, later: LaterDep) -> object:
    """Delete its containers, databases and workspace; its published branch and the audit trail stay."""
    if later.is_wanted:
        return later("remove", tenant)
    return TenantView.of(services.tenants.remove(tenant.name, actor=who.actor), services)
