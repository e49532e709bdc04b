"""The web application: /api/v1, the doors to tenants' hosts, and whatever pages are added."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import APIRouter, FastAPI, Response
from sqlalchemy import text

from orchestrator.api import (
    allowlist,
    approvals,
    audit,
    auth,
    branches,
    changes,
    commands,
    files,
    jobs,
    metrics,
    oidc,
    problems,
    refreshes,
    snapshots,
    tenants,
    users,
    webhooks,
)
from orchestrator.api.deps import ServicesDep
from orchestrator.api.guards import OwnHosts, RequestIds
from orchestrator.wiring.services import Services

PREFIX = "/api/v1"
# One line per noun; a request is held against them in turn, so the one that is asked most comes first.
ROUTERS: Sequence[APIRouter] = (
    commands.router,
    auth.router,
    tenants.router,
    snapshots.router,
    refreshes.router,
    changes.router,
    branches.router,
    files.router,
    approvals.router,
    allowlist.router,
    audit.router,
    jobs.router,
    users.router,
    webhooks.router,
)
health = APIRouter(include_in_schema=False)


def create_app(
    services: Services,
    *,
    add_pages: Callable[[FastAPI], None] | None = None,
    render_problem: problems.Renderer | None = None,
) -> FastAPI:
    """Everything the control plane serves. `add_pages` brings the console, `render_problem` its error page."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = services.settings.api.workers
        yield

    app = FastAPI(
        lifespan=lifespan,
        title="Orchestrator",
        summary="Tenants' sandboxes, databases, commands, changes and branches.",
        version="1",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        max_body_size=services.settings.api.body_bytes_max,
    )
    app.state.services = services
    for router in ROUTERS:
        app.include_router(router, prefix=PREFIX)
    app.include_router(auth.doors)
    app.include_router(oidc.router)
    app.include_router(health)
    app.include_router(metrics.router)
    if add_pages is not None:
        add_pages(app)
    problems.install(app, render_problem)
    app.add_middleware(OwnHosts, settings=services.settings)
    app.add_middleware(RequestIds)
    return app


@health.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@health.get("/readyz")
def readyz(services: ServicesDep, response: Response) -> dict[str, str]:
    """The control database answers too."""
    try:
        with services.store.connect() as connection:
            connection.execute(text("SELECT 1"))
    except Exception:  # whatever it is, we are not ready; the log of the pool says why
        response.status_code = 503
        return {"status": "control database unreachable"}
    return {"status": "ok"}
