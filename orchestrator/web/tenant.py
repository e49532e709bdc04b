"""One tenant as whoever runs the installation sees it: what it is made of, what happened to it, and how to end it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from orchestrator.core.access import Scope
from orchestrator.core.names import TenantNames
from orchestrator.core.tenants import Tenant, addresses
from orchestrator.errors import InvalidInput, OrchestratorError
from orchestrator.flows.refresh.outlook import outlook
from orchestrator.store import commands, generations, probes, publishes, refreshes, tenants, users
from orchestrator.web.health import memory_of, swaps
from orchestrator.web.visit import Visit, acting, reading
from orchestrator.wiring.schedule import load

router = APIRouter(prefix="/fleet/{name}", include_in_schema=False)
Reader = Annotated[Visit, reading(Scope.SYSTEM_READ)]
Operator = Annotated[Visit, acting(Scope.TENANTS_OPERATE)]
Admin = Annotated[Visit, acting(Scope.TENANTS_ADMIN)]
HISTORY = 60
LOG_LINES = 400


class ConfirmationWrong(InvalidInput):
    """What was typed is not the tenant's name."""

    code = "invalid.confirmation"


@router.get("")
def show(name: str, visit: Reader) -> Response:
    """What it is, what it uses, its databases and swaps, git, commands, people, and the danger zone."""
    tenant = visit.tenant(name)
    store, settings = visit.services.store, visit.services.settings
    names = TenantNames(settings.instance, tenant.id, tenant.name)
    history = refreshes.history(store, tenant_id=tenant.id, limit=HISTORY)
    with store.connect() as connection:
        made = generations.listed(connection, tenant_id=tenant.id)
    return visit.show(
        "tenant/show.html",
        tenant=tenant,
        names=names,
        host=names.hostname(settings.proxy.domain),
        address=settings.proxy.address(names.hostname(settings.proxy.domain)),
        subnet=addresses(settings.networks.plan, tenant.number).subnet,
        profile=settings.limits.profile(tenant.profile),
        trouble=tenants.trouble(store, tenant.id),
        outlook=outlook(store, load(settings), [tenant])[0],
        generations=made[::-1],
        refreshes=history,
        pictures=[*swaps(history[::-1]), memory_of(visit.services, tenant.id)],
        published=publishes.history(store, tenant.id, limit=5),
        commands=commands.listed(store, tenant_ids=[tenant.id], limit=15),
        steps=tenants.steps(store, tenant.id, limit=30),
        report=probes.latest(store, tenant.id),
        people=[one for one in users.listed(store) if tenant.id in one.tenant_ids],
    )


@router.get("/containers")
def containers(
    name: str,
    visit: Reader,
    log: Annotated[str, Query(max_length=200)] = "",
    lines: Annotated[int, Query(ge=10, le=2000)] = LOG_LINES,
) -> Response:
    """Its containers as the engine sees them now, and what one of them printed."""
    tenant = visit.tenant(name)
    flow = visit.services.containers
    return visit.show(
        "tenant/containers.html",
        tenant=tenant,
        containers=flow.listed(tenant),
        log=log,
        lines=lines,
        printed=flow.log(tenant, log, lines=lines) if log else None,
    )


@router.get("/containers/use")
def use(name: str, visit: Reader) -> Response:
    """What its containers use now: an engine may take a second to tell, so the page fetches it by itself."""
    tenant = visit.tenant(name)
    values: dict[str, Any] = {"tenant": tenant, "usage": visit.services.usage.of(tenant)}
    if visit.is_fragment:
        return visit.piece("tenant/use.html", **values)
    return visit.show("tenant/use_page.html", **values)


@router.get("/boundaries")
def boundaries(name: str, visit: Reader) -> Response:
    """Every boundary as it was last probed, with the evidence."""
    tenant = visit.tenant(name)
    report = probes.latest(visit.services.store, tenant.id)
    return visit.show("tenant/boundaries.html", tenant=tenant, report=report, rows=report.rows() if report else [])


@router.post("/probe")
def probe(name: str, visit: Operator) -> Response:
    """Try every boundary of the running tenant now."""
    return visit.begin("probe", visit.tenant(name), back=f"/fleet/{name}/boundaries")


@router.post("/stop")
def stop(name: str, visit: Operator) -> Response:
    return visit.begin("stop", visit.tenant(name), back=f"/fleet/{name}")


@router.post("/start")
def start(name: str, visit: Operator) -> Response:
    return visit.begin("start", visit.tenant(name), back=f"/fleet/{name}")


@router.post("/remove")
def remove(name: str, visit: Admin) -> Response:
    """For good; the name has to be typed."""
    tenant = visit.tenant(name)
    _confirmed(visit, tenant)
    return visit.begin("remove", tenant, back="/fleet")


def _confirmed(visit: Visit, tenant: Tenant) -> None:
    """Raises ConfirmationWrong unless the tenant's name was typed."""
    if visit.text("confirm", length_max=100) != tenant.name:
        raise ConfirmationWrong(
            f"To remove {tenant.name}, type its name exactly.",
            effect="Nothing was removed.",
            next_step="Go back and type the name into the field beside the button.",
        )


@router.get("/git")
def git(name: str, visit: Reader) -> Response:
    """Its branch beside production's: asks the repository, so it is a page of its own."""
    tenant = visit.tenant(name)
    try:
        branch, problem = visit.services.publish.view(tenant), None
    except OrchestratorError as error:
        branch, problem = None, error
    return visit.show(
        "tenant/git.html",
        tenant=tenant,
        branch=branch,
        problem=problem,
        published=publishes.history(visit.services.store, tenant.id, limit=HISTORY),
    )
