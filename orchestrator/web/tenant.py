"""One tenant as whoever runs the installation sees it: what it is made of, what happened to it, and how to end it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from orchestrator.core.access import Scope
from orchestrator.core.names import TenantNames
from orchestrator.core.refresh import Refresh
from orchestrator.core.tenants import Tenant, addresses
from orchestrator.errors import InvalidInput, OrchestratorError
from orchestrator.flows.refresh.outlook import outlook
from orchestrator.store import commands, generations, probes, publishes, refreshes, tenants, users
from orchestrator.web import charts
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
        pictures=_pictures(history),
        published=publishes.history(store, tenant.id, limit=5),
        commands=commands.listed(store, tenant_ids=[tenant.id], limit=15),
        steps=tenants.steps(store, tenant.id, limit=30),
        report=probes.latest(store, tenant.id),
        people=[one for one in users.listed(store) if tenant.id in one.tenant_ids],
    )


def _pictures(history: list[Refresh]) -> list[str]:
    """How long refreshes took, and how long each swap held clients back; oldest first."""
    ended = [one for one in history[::-1] if one.finished_at is not None]
    durations = [
        charts.Point(_stamp(one), (one.finished_at - one.started_at).total_seconds(), one.state == "failed")
        for one in ended
        if one.finished_at is not None
    ]
    gaps = [charts.Point(_stamp(one), one.gap_s * 1000) for one in ended if one.gap_s is not None]
    return [
        charts.bars("How long each refresh took", durations, unit=" s"),
        charts.bars("How long each swap held clients back", gaps, unit=" ms"),
    ]


def _stamp(one: Refresh) -> str:
    return one.started_at.strftime("%d %b %H:%M")


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
    values: dict[str, Any] = {
        "tenant": tenant,
        "containers": flow.listed(tenant),
        "usage": visit.services.usage.of(tenant),
        "log": log,
        "lines": lines,
        "printed": flow.log(tenant, log, lines=lines) if log else None,
    }
    return visit.show("tenant/containers.html", **values)


@router.get("/boundaries")
def boundaries(name: str, visit: Reader) -> Response:
    """Every boundary as it was last probed, with the evidence."""
    tenant = visit.tenant(name)
    report = probes.latest(visit.services.store, tenant.id)
    return visit.show("tenant/boundaries.html", tenant=tenant, report=report, rows=report.rows() if report else [])


@router.post("/probe")
def probe(name: str, visit: Operator) -> Response:
    """Try every boundary of the running tenant now."""
    tenant = visit.tenant(name)
    report = visit.services.probe.run(tenant, actor=visit.who.actor)
    broken = sum(row["outcome"] == "broken" for row in report.rows())
    said = f"{broken} of its boundaries did not hold." if broken else "Every boundary that was tried held."
    return visit.go(f"/fleet/{name}/boundaries", said, "bad" if broken else "good")


@router.post("/stop")
def stop(name: str, visit: Operator) -> Response:
    tenant = visit.tenant(name)
    visit.services.tenants.stop(tenant.name, actor=visit.who.actor)
    return visit.go(f"/fleet/{name}", f"{name} is stopped. Its files and data are kept.")


@router.post("/start")
def start(name: str, visit: Operator) -> Response:
    tenant = visit.tenant(name)
    visit.services.tenants.start(tenant.name, actor=visit.who.actor)
    return visit.go(f"/fleet/{name}", f"{name} runs, and its address answers.")


@router.post("/remove")
def remove(name: str, visit: Admin) -> Response:
    """For good; the name has to be typed."""
    tenant = visit.tenant(name)
    _confirmed(visit, tenant)
    visit.services.tenants.remove(tenant.name, actor=visit.who.actor)
    return visit.go("/fleet", f"{name} is removed. Its published branch and its records stay.")


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
