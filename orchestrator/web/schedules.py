"""What runs when: the rhythm of the installation, and every tenant's next and last refresh with the reason."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from orchestrator.core.access import Scope
from orchestrator.core.schedule import as_rows
from orchestrator.flows.refresh.outlook import outlook
from orchestrator.store import slots
from orchestrator.web.paging import Page
from orchestrator.web.visit import Visit, reading
from orchestrator.wiring.schedule import load

router = APIRouter(prefix="/schedules", include_in_schema=False)
PAGE = 25


@router.get("")
def show(
    visit: Annotated[Visit, reading(Scope.SYSTEM_READ)], page: Annotated[int, Query(ge=1, le=10_000)] = 1
) -> Response:
    """The schedule in force, and what it last decided and why."""
    store, settings = visit.services.store, visit.services.settings
    schedule = load(settings)
    seen = visit.tenants()
    pages = Page(page, len(seen), PAGE, "/schedules")
    return visit.show(
        "schedules/show.html",
        rows=[(row, slots.last(store, str(row["kind"]))) for row in as_rows(schedule, slots.now(store))],
        outlooks=outlook(store, schedule, seen[pages.offset : pages.offset + PAGE]),
        overrides=schedule.tenants,
        page=pages,
        timezone=schedule.timezone,
        file=settings.file("schedule").name,
    )
