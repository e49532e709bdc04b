"""The fleet: every tenant on one page, what needs attention first, with what each uses now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from orchestrator.core.access import Scope
from orchestrator.core.ports.engine import ContainerStats
from orchestrator.core.tenants import TenantState
from orchestrator.web.fleet_rows import FleetRow, fleet
from orchestrator.web.paging import Page
from orchestrator.web.visit import Visit, reading
from orchestrator.wiring.schedule import load

router = APIRouter(prefix="/fleet", include_in_schema=False)
Reader = Annotated[Visit, reading(Scope.SYSTEM_READ)]
PAGE = 50
SAMPLE_MIN_S = 0.5


@dataclass(frozen=True)
class Load:
    """Processors used between two looks, beside how many may be used; `used` is None at the first look."""

    used: float | None
    limit: float


@router.get("")
def show(
    visit: Reader,
    q: Annotated[str, Query(max_length=60)] = "",
    attention: Annotated[str, Query(max_length=5)] = "",
    state: Annotated[str, Query(max_length=20)] = "",
    page: Annotated[int, Query(ge=1, le=10_000)] = 1,
) -> Response:
    """All tenants, or those a name, a state or "needs attention" leaves."""
    every = [row for row in fleet(visit.services.store, load(visit.services.settings)) if _seen(visit, row)]
    rows = [row for row in every if _is_wanted(row, q.strip().lower(), attention, state)]
    pages = Page(page, len(rows), PAGE, "/fleet", {"q": q, "attention": attention, "state": state})
    return visit.show(
        "fleet/list.html",
        rows=rows[pages.offset : pages.offset + PAGE],
        page=pages,
        q=q,
        attention=attention,
        state=state,
        states=[one.value for one in TenantState if one is not TenantState.REMOVED],
        total=len(every),
        running=sum(row.tenant.state is TenantState.RUNNING for row in every),
        troubled=sum(bool(row.attention) for row in every),
    )


def _seen(visit: Visit, row: FleetRow) -> bool:
    return visit.who.may_see(row.tenant.id)


def _is_wanted(row: FleetRow, name: str, attention: str, state: str) -> bool:
    return (
        (not name or name in row.tenant.name)
        and (not attention or bool(row.attention))
        and (not state or row.tenant.state == state)
    )


@router.get("/{name}/usage")
def usage(
    name: str,
    visit: Reader,
    at: Annotated[float, Query(ge=0, allow_inf_nan=False)] = 0.0,
    cpu: Annotated[float, Query(ge=0, allow_inf_nan=False)] = 0.0,
) -> Response:
    """One tenant's live use. `at` and `cpu` are the look before this one, so that processors can be told."""
    tenant = visit.tenant(name)
    found = visit.services.usage.of(tenant)
    now, spent_s = datetime.now(UTC).timestamp(), _cpu_seconds(found.sandbox, found.database)
    limit = found.profile.sandbox.cpus + found.profile.database.cpus
    values: dict[str, Any] = {
        "tenant": tenant,
        "usage": found,
        "load": Load(_rate(now - at, spent_s - cpu) if at else None, limit),
        "at": f"{now:.3f}",
        "cpu": f"{spent_s:.3f}",
    }
    if visit.is_fragment:
        return visit.piece("fleet/usage.html", **values)
    return visit.show("fleet/usage_page.html", **values)


def _cpu_seconds(*parts: ContainerStats | None) -> float:
    return sum(part.cpu_seconds for part in parts if part is not None)


def _rate(spent_s: float, cpu_s: float) -> float | None:
    """Processors in use; None when the looks are too close or a container was started anew in between."""
    return cpu_s / spent_s if spent_s >= SAMPLE_MIN_S and cpu_s >= 0 else None
