"""Signing in, and the check the proxy asks for before every request to a tenant's host.

The browser's way to a tenant: host without a session → console, which knows the person → one-time code → the
host's own session. The console's cookie never reaches a tenant, and API tokens are refused at their hosts: the app
behind it would read them.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import Field

from orchestrator.api import cookies, guards
from orchestrator.api.deps import Body, PrincipalDep, ServicesDep, View, caller_of
from orchestrator.api.problems import as_json, problem_of, reference_of
from orchestrator.core import passes
from orchestrator.core.access import Principal, SignInRequired
from orchestrator.core.tenants import TenantMissing
from orchestrator.errors import InvalidInput, OrchestratorError
from orchestrator.store import tenants
from orchestrator.wiring.services import Services

router = APIRouter(tags=["session"])
doors = APIRouter(include_in_schema=False)
ENTER = "/.orchestrator/enter"
LEAVE = "/.orchestrator/leave"
LOGIN = "/login"


class SignInBody(Body):
    """A user's name and password."""

    name: str = Field(max_length=200)
    password: str = Field(max_length=1000)


class Whoami(View):
    """Who the caller is, what they may do, and which tenants they may see."""

    name: str
    role: str
    scopes: list[str]
    tenants: list[str]

    @classmethod
    def of_principal(cls, principal: Principal, services: Services) -> Whoami:
        seen = [tenant.name for tenant in tenants.listed(services.store) if principal.may_see(tenant.id)]
        return cls(name=principal.name, role=principal.role, scopes=sorted(principal.scopes), tenants=seen)


@router.post("/session", status_code=201)
def sign_in(body: SignInBody, request: Request, response: Response, services: ServicesDep) -> Whoami:
    """Sign in at the console; the answer sets its cookie."""
    principal = begin_session(services, request, response, body.name, body.password)
    return Whoami.of_principal(principal, services)


@router.get("/session")
def whoami(services: ServicesDep, principal: PrincipalDep) -> Whoami:
    """Who the caller is."""
    return Whoami.of_principal(principal, services)


@router.delete("/session", status_code=204)
def sign_out(response: Response, services: ServicesDep, principal: PrincipalDep) -> None:
    """End this session and every tenant host's session that came from it."""
    end_session(services, response, principal)


def begin_session(services: Services, request: Request, response: Response, name: str, password: str) -> Principal:
    """Sign in and set the cookie on `response`; for the API and the login page. Raises SignInRefused."""
    address = request.client.host if request.client else ""
    secret, _ = services.access.sign_in(name, password, address=address, agent=request.headers.get("user-agent", ""))
    cookies.put(response, services.settings, cookies.console_name(services.settings), secret)
    return services.access.by_session(secret)


def end_session(services: Services, response: Response, principal: Principal) -> None:
    services.access.sign_out(principal)
    cookies.drop(response, services.settings, cookies.console_name(services.settings))


@doors.get("/auth/enter")
def enter(
    request: Request,
    services: ServicesDep,
    host: Annotated[str, Query(max_length=300)],
    to: Annotated[str, Query(max_length=4000)] = "/",
) -> Response:
    """At the console: carry the person who is signed in here over to one tenant's host."""
    proxy = services.settings.proxy
    try:
        principal = caller_of(request, services).principal()
    except SignInRequired:
        again = f"/auth/enter?{urlencode({'host': host, 'to': to})}"
        return RedirectResponse(f"{LOGIN}?next={quote(again, safe='')}", 303)
    if not principal.session_id:
        raise InvalidInput("Only a browser's session can be carried over to a tenant's host.")
    hostname = guards.hostname(host)
    code = services.access.give_entry(principal, hostname)
    target = f"{proxy.address(hostname)}{ENTER}?{urlencode({'code': code, 'to': local_path(to)})}"
    return _not_kept(RedirectResponse(target, 303))


@doors.get("/auth/forward")
def forward(request: Request, services: ServicesDep) -> Response:
    """Asked by the proxy: 200 lets the request through, anything else goes back to the visitor.

    The proxy drops what a visitor claims in X-Forwarded-* and X-Tenant-*; the host arrives as the visitor wrote it.
    """
    hostname = guards.hostname(request.headers.get("x-forwarded-host", ""))
    uri = request.headers.get("x-forwarded-uri", "/")
    parts = urlsplit(uri if uri.startswith("/") else "/")
    try:
        if services.access.tenant_name(hostname) is None:
            raise TenantMissing(f"No tenant is at {ascii(hostname)[:100]}.")
        if services.access.is_pass(hostname, request.headers.get(passes.HEADER, "")):
            return Response(status_code=200, headers={"X-Tenant-User": "orchestrator", "X-Tenant-Role": "system"})
        if parts.path == ENTER:
            return _entered(services, hostname, parse_qs(parts.query))
        secret = cookies.taken(request, cookies.host_name(services.settings))
        if parts.path == LEAVE:
            return _left(services)
        if "bearer orc_" in request.headers.get("authorization", "").lower():
            raise InvalidInput(
                "An API token does not belong here: the tenant's app would read it.",
                next_step=f"Use it at {services.settings.proxy.console_host}.",
            )
        principal = services.access.at_host(hostname, secret) if secret else None
    except SignInRequired:
        principal = None
    except OrchestratorError as error:
        return as_json(request, problem_of(error, reference_of(request)))
    if principal is None:
        return _to_the_console(request, services, hostname, uri)
    return Response(status_code=200, headers={"X-Tenant-User": principal.name, "X-Tenant-Role": principal.role.value})


def _entered(services: Services, hostname: str, query: dict[str, list[str]]) -> Response:
    code, to = query.get("code", [""])[0], query.get("to", ["/"])[0]
    try:
        secret = services.access.take_entry(hostname, code)
    except SignInRequired:  # a code used twice (back button): ask the console for a new one
        wanted = urlencode({"host": hostname, "to": local_path(to)})
        console = services.settings.proxy.address(services.settings.proxy.console_host)
        return _not_kept(RedirectResponse(f"{console}/auth/enter?{wanted}", 303))
    # Absolute: the proxy resolves a relative one against the address it asked, which is ours and not the visitor's.
    response = RedirectResponse(services.settings.proxy.address(hostname) + local_path(to), 303)
    cookies.put(response, services.settings, cookies.host_name(services.settings), secret)
    return _not_kept(response)


def _left(services: Services) -> Response:
    proxy = services.settings.proxy
    response = RedirectResponse(proxy.address(proxy.console_host), 303)
    cookies.drop(response, services.settings, cookies.host_name(services.settings))
    return _not_kept(response)


def _to_the_console(request: Request, services: Services, hostname: str, uri: str) -> Response:
    """Browsers are sent to sign in; programs are told."""
    proxy = services.settings.proxy
    wants_page = "text/html" in request.headers.get("accept", "")
    if wants_page and request.headers.get("x-forwarded-method", "GET") in guards.SAFE:
        wanted = urlencode({"host": hostname, "to": local_path(uri)})
        return _not_kept(RedirectResponse(f"{proxy.address(proxy.console_host)}/auth/enter?{wanted}", 303))
    problem = problem_of(
        SignInRequired(
            "You are not signed in at this host.", next_step=f"Open {proxy.address(hostname)} in a browser first."
        ),
        reference_of(request),
    )
    return JSONResponse(problem.document(), 401, media_type="application/problem+json")


def local_path(to: str) -> str:
    """`to` when it is a path on the same host, else `/`: nobody is redirected elsewhere from here."""
    is_path = to.startswith("/") and not to.startswith(("//", "/\\"))
    is_clean = is_path and all(character.isprintable() and character != "\\" for character in to)
    return to if is_clean and not to.startswith(("/.orchestrator", "/auth/forward")) else "/"


def _not_kept(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
