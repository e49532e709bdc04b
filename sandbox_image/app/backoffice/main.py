"""The app: pages, static files, and what they share."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from backoffice.database import Database
from backoffice.pages import Pages


def make_app(database: Database | None = None) -> Starlette:
    pages = Pages(database or Database())

    async def missing(request: Request, failure: Exception) -> Response:
        return pages.not_found()

    routes = [
        Route("/", pages.guarded(pages.dashboard)),
        Route("/reservations", pages.guarded(pages.listing)),
        Route("/reservations/{number:int}", pages.guarded(pages.show), methods=["GET"]),
        Route("/reservations/{number:int}", pages.guarded(pages.save), methods=["POST"]),
        Route("/healthz", pages.guarded(pages.health)),
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
    ]
    return Starlette(routes=routes, exception_handlers={404: missing, HTTPException: _plain})


async def _plain(request: Request, failure: Exception) -> Response:
    assert isinstance(failure, HTTPException)
    return Response(f"{failure.detail}\n", status_code=failure.status_code, media_type="text/plain")


app = make_app()
