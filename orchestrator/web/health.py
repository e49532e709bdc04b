"""How the installation is: the schedule, the disk, the snapshots, engine and proxy, alarms, and how it went lately."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Response

from orchestrator.core.access import Scope
from orchestrator.core.refresh import Refresh
from orchestrator.store import commands, refreshes, samples, tenants
from orchestrator.web import charts
from orchestrator.web.charts import Picture, Point
from orchestrator.web.visit import Visit, reading
from orchestrator.wiring import health
from orchestrator.wiring.services import Services

router = APIRouter(prefix="/health", include_in_schema=False)
Reader = Annotated[Visit, reading(Scope.SYSTEM_READ)]
REFRESHES = 120
DAYS = 7
MIB = 2**20


@router.get("")
def show(visit: Reader) -> Response:
    """What the records say; the page asks engine, proxy and machine by itself."""
    found = health.records(visit.services)
    return visit.show(
        "health/show.html",
        found=found,
        names=tenants.names(visit.services.store),
        pictures=[_free(visit.services)],
        ticks_late=found.late_s is not None and found.late_s > health.TICK_LATE_S,
    )


@router.get("/checks")
def checks(visit: Reader) -> Response:
    """Every check of `orchestrator doctor`, the engine and the proxy, made now."""
    values: dict[str, Any] = {"outside": health.outside(visit.services)}
    if visit.is_fragment:
        return visit.piece("health/checks.html", **values)
    return visit.show("health/checks_page.html", **values)


@router.get("/trends")
def trends(visit: Reader) -> Response:
    """Pictures of the last days, for the whole installation."""
    services = visit.services
    history = [one for one in refreshes.history(services.store, limit=REFRESHES) if one.finished_at is not None]
    found = [
        *swaps(history[::-1], names=tenants.names(services.store)),
        _denials(services),
        _memory(services),
    ]
    return visit.show("health/trends.html", pictures=found, days=DAYS)


def swaps(history: list[Refresh], *, names: dict[str, str] | None = None) -> list[Picture]:
    """How long refreshes took, and how long each swap held clients back; the oldest first."""

    def label(one: Refresh) -> str:
        stamp = one.started_at.strftime("%d %b %H:%M")
        return f"{stamp} {names.get(one.tenant_id, one.tenant_id)}" if names is not None else stamp

    ended = [(one, one.finished_at) for one in history if one.finished_at is not None]
    took = [Point(label(one), (end - one.started_at).total_seconds(), one.state == "failed") for one, end in ended]
    gaps = [Point(label(one), one.gap_s * 1000) for one, _ in ended if one.gap_s is not None]
    return [
        charts.picture(
            charts.bars,
            "How long each refresh took",
            took,
            about="From asking to done; people go on working meanwhile. Failed ones are red.",
            head="Refresh",
            unit=" s",
        ),
        charts.picture(
            charts.bars,
            "How long each swap held clients back",
            gaps,
            about="The one moment a refresh is noticed: for this long the app waited for its database.",
            head="Refresh",
            unit=" ms",
        ),
    ]


def memory_of(services: Services, tenant_id: str) -> Picture:
    """One tenant's memory over the last day."""
    found = samples.usage(services.store, tenant_id, since=timedelta(days=1))
    points = [Point(one.at.strftime("%d %b %H:%M"), one.memory_bytes / MIB) for one in found]
    limit = f" It may use {found[-1].limit_bytes / MIB:,.0f} MiB." if found else ""
    return charts.picture(
        charts.line,
        "Memory over the last day",
        points,
        about=f"App and database together, looked at every five minutes.{limit}",
        head="Moment",
        unit=" MiB",
    )


def _denials(services: Services) -> Picture:
    since = datetime.now(UTC) - timedelta(days=DAYS)
    found = commands.denials(services.store, since=since)
    return charts.picture(
        charts.ranked,
        f"Denied commands by rule, last {DAYS} days",
        [Point(rule or "no rule allows it", float(count)) for rule, count in found],
        about="What agents and people wanted and may not. Often denied without a rule: perhaps one is missing.",
        head="Rule",
    )


def _memory(services: Services) -> Picture:
    names = tenants.names(services.store)
    found = samples.newest_usage(services.store, since=timedelta(minutes=20))
    return charts.picture(
        charts.ranked,
        "Memory by tenant now",
        [
            Point(
                names.get(one.tenant_id, one.tenant_id),
                one.memory_bytes / MIB,
                one.memory_bytes > 0.9 * one.limit_bytes > 0,
                one.limit_bytes / MIB,
            )
            for one in found
        ],
        about="App and database together, within the frame of what each may use. Red: more than nine tenths of it.",
        head="Tenant",
        unit=" MiB",
    )


def _free(services: Services) -> Picture:
    found = samples.disk(services.store, since=health.WATCHED)
    step = max(1, len(found) // 200)
    points = [Point(one.at.strftime("%d %b %H:%M"), one.free_bytes / 2**30) for one in found[::step]]
    return charts.picture(
        charts.line,
        "Free disk",
        points,
        about="On the volume of snapshots, databases and workspaces.",
        head="Moment",
        unit=" GiB",
    )
