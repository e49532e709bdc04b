"""What goes wrong, as HTTP says it: one table from error families to statuses, one document for every failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException

from orchestrator import logs
from orchestrator.core.access import SignInRefused, SignInRequired
from orchestrator.errors import (
    Conflict,
    Denied,
    InvalidInput,
    LimitReached,
    NotFound,
    OrchestratorError,
    OutsideFailure,
)

LOG = logs.get("api")
MEDIA_TYPE = "application/problem+json"
STATUSES: dict[type[OrchestratorError], tuple[int, str]] = {
    SignInRequired: (401, "Sign in first"),
    SignInRefused: (401, "Sign-in refused"),
    InvalidInput: (422, "Not acceptable as it is"),
    Denied: (403, "Not allowed"),
    NotFound: (404, "Not found"),
    Conflict: (409, "Not possible now"),
    LimitReached: (429, "A limit is reached"),
    OutsideFailure: (503, "A part of the installation failed"),
    OrchestratorError: (500, "Failed"),
}
RETRY_AFTER_S = 5


@dataclass(frozen=True)
class Problem:
    """RFC 9457, with what follows from it and what to do; `reference` finds it in the logs."""

    status: int
    title: str
    code: str
    detail: str
    reference: str
    effect: str = ""
    next_step: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {
            "type": f"urn:orchestrator:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "effect": self.effect,
            "next_step": self.next_step,
            "reference": self.reference,
            "fields": self.fields,
        }


Renderer = Callable[[Request, Problem], Response]


def as_json(request: Request, problem: Problem) -> Response:
    del request
    return JSONResponse(problem.document(), problem.status, media_type=MEDIA_TYPE, headers=problem.headers)


def status_of(error: OrchestratorError) -> tuple[int, str]:
    """By the nearest family in the table."""
    return next(STATUSES[family] for family in type(error).__mro__ if family in STATUSES)


def problem_of(error: OrchestratorError, reference: str) -> Problem:
    status, title = status_of(error)
    headers: dict[str, str] = {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="orchestrator"'
    if status in (429, 503):
        headers["Retry-After"] = str(error.fields.get("retry_after_s", RETRY_AFTER_S))
    return Problem(
        status=status,
        title=title,
        code=error.code,
        detail=error.message,
        reference=reference,
        effect=error.effect,
        next_step=error.next_step,
        fields={name: _plain(value) for name, value in error.fields.items()},
        headers=headers,
    )


def reference_of(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))


def install(app: FastAPI, render_pages: Renderer | None = None) -> None:
    """Every failure becomes a problem; `render_pages` shows it to people outside /api."""

    def respond(request: Request, problem: Problem) -> Response:
        is_page = render_pages is not None and not request.url.path.startswith(("/api/", "/auth/forward"))
        # A piece of a page is asked for by a script, which accepts anything.
        wants_page = "text/html" in request.headers.get("accept", "") or request.headers.get("hx-request") == "true"
        if is_page and wants_page and render_pages is not None:
            return render_pages(request, problem)
        return as_json(request, problem)

    def known(request: Request, error: Exception) -> Response:
        if not isinstance(error, OrchestratorError):
            return unexpected(request, error)
        problem = problem_of(error, reference_of(request))
        if problem.status >= 500:
            LOG.warning("request.failed", code=problem.code, reason=str(error), path=request.url.path)
        return respond(request, problem)

    def invalid(request: Request, error: Exception) -> Response:
        found = error.errors() if isinstance(error, RequestValidationError) else []
        shown = [{"where": ".".join(map(str, one["loc"])), "problem": str(one["msg"])} for one in found[:20]]
        detail = "; ".join(f"{one['where']}: {one['problem']}" for one in shown) or "The request is not valid."
        reference = reference_of(request)
        problem = Problem(
            422,
            "Not acceptable as it is",
            "invalid.request",
            detail,
            reference,
            "Nothing was done.",
            "",
            {"errors": shown},
        )
        return respond(request, problem)

    def plain(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        detail = str(error.detail) if isinstance(error, HTTPException) else ""
        code = {404: "not_found.page", 405: "invalid.method", 413: "limit_reached.body"}.get(status, "invalid.request")
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        problem = Problem(status, detail or "Failed", code, detail, reference_of(request), headers=headers)
        return respond(request, problem)

    def unexpected(request: Request, error: Exception) -> Response:
        LOG.error("request.crashed", path=request.url.path, exc_info=error)
        problem = Problem(
            500,
            "Failed",
            "error",
            "Something unexpected went wrong; it was written to the log.",
            reference_of(request),
            next_step="Try again; if it stays, show an admin the reference.",
        )
        return respond(request, problem)

    def unkeepable(request: Request, error: Exception) -> Response:
        """What passed every check and is still no text or number for the database, such as a NUL character."""
        del error  # it quotes the statement
        return respond(request, _unkeepable(reference_of(request)))

    app.add_exception_handler(OrchestratorError, known)
    app.add_exception_handler(DataError, unkeepable)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)
    app.add_exception_handler(Exception, unexpected)


def _unkeepable(reference: str) -> Problem:
    return Problem(
        422,
        "Not acceptable as it is",
        "invalid.value",
        "A value holds a character or a number that cannot be kept.",
        reference,
        "Nothing was done.",
        "Leave out NUL characters and very large numbers.",
    )


def _plain(value: object) -> Any:
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return str(value)
