"""The console's pages, put onto the web application: every noun's router, the style sheet, the error page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import FormData
from starlette.staticfiles import StaticFiles

from orchestrator.api.app import create_app
from orchestrator.api.deps import caller_of
from orchestrator.api.problems import Problem
from orchestrator.core.access import Role
from orchestrator.errors import OrchestratorError
from orchestrator.flows.refresh.outlook import outlook
from orchestrator.web import (
    account,
    activity,
    admin,
    changes,
    commands,
    decisions,
    files,
    job,
    proposal,
    query,
    reviews,
    workspace,
)
from orchestrator.web.rendering import STATIC, Renderer
from orchestrator.web.rows import Changesets
from orchestrator.web.visit import Visit, came_from, nobody, reading
from orchestrator.wiring.schedule import load
from orchestrator.wiring.services import Services

home = APIRouter(include_in_schema=False)
# One line per noun.
ROUTERS: Sequence[APIRouter] = (
    home,
    account.router,
    workspace.router,
    job.router,
    changes.router,
    proposal.router,
    decisions.router,
    reviews.router,
    query.router,
    commands.router,
    activity.router,
    files.router,
    *admin.ROUTERS,
)


class StaticPages(StaticFiles):
    """Addresses carry the files' version, so browsers keep them."""

    def file_response(self, *args: object, **named: object) -> Response:
        response: Response = super().file_response(*args, **named)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "public, max-age=86400"
        return response


def create_console(services: Services) -> FastAPI:
    """The API and the pages on one application."""
    return create_app(services, add_pages=lambda app: mount(app, services), render_problem=problem_page)


def mount(app: FastAPI, services: Services) -> None:
    """Add every page."""
    app.state.renderer = Renderer(services.settings)
    app.state.changesets = Changesets()
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticPages(directory=STATIC), name="static")


@home.get("/")
def start(visit: Annotated[Visit, reading()]) -> Response:
    """Everybody starts where their work is."""
    if visit.who.role is Role.ADMIN:
        return RedirectResponse("/fleet", 303)
    if visit.who.role is Role.REVIEWER:
        return RedirectResponse("/reviews", 303)
    seen = visit.tenants()
    if len(seen) == 1:
        return RedirectResponse(f"/workspaces/{seen[0].name}", 303)
    found = outlook(visit.services.store, load(visit.services.settings), seen)
    shown = [(one, known, workspace.hostname(visit, one)) for one, known in zip(seen, found, strict=True)]
    return visit.show("workspace/choose.html", tenants=shown)


def problem_page(request: Request, problem: Problem) -> Response:
    """Cause, effect, next step and reference; whoever is not signed in is asked to."""
    if problem.code == "denied.sign_in_required":
        if request.headers.get("hx-request") == "true":  # a sign-in form does not belong into a piece of a page
            return Response(status_code=401, headers={"HX-Refresh": "true"})
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        wanted = wanted if request.method == "GET" else came_from(request)
        return RedirectResponse("/login" if wanted == "/" else f"/login?next={quote(wanted, safe='')}", 303)
    renderer: Renderer = request.app.state.renderer
    if request.headers.get("hx-request") == "true":
        return renderer.piece("parts/problem.html", {"problem": problem}, status=problem.status)
    visit = _quiet_visit(request, renderer)
    frame = visit.frame() if visit else nobody()
    values = {"problem": problem, "back": came_from(request)}
    return renderer.page("problem.html", {**frame, **values}, status=problem.status)


def _quiet_visit(request: Request, renderer: Renderer) -> Visit | None:
    """Who is looking at the error, if that can still be told."""
    services: Services = request.app.state.services
    try:
        who = caller_of(request, services).principal()
    except (OrchestratorError, OSError, SQLAlchemyError):
        return None
    return Visit(request, services, renderer, who, FormData()) if who.session_id else None
