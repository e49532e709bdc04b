"""One person looking at one page: who they are, what they may see, and how they are answered."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.datastructures import FormData

from orchestrator.api.asking import ask
from orchestrator.api.deps import PrincipalDep, ServicesDep, visible_tenant
from orchestrator.core.access import Principal, Role, Scope, SignInRequired
from orchestrator.core.changes import ChangeState
from orchestrator.core.tenants import Tenant
from orchestrator.errors import Denied
from orchestrator.store import changes, tenants
from orchestrator.web import flash, navigation
from orchestrator.web.flash import Message
from orchestrator.web.rendering import Renderer
from orchestrator.wiring.services import Services

FIELD = "csrf_token"
HEADER = "x-csrf-token"


class FormExpired(Denied):
    """The form was not made for this session."""

    code = "denied.form_expired"


@dataclass(frozen=True)
class Visit:
    """`form` is what was posted, empty for a page that is only looked at."""

    request: Request
    services: Services
    renderer: Renderer
    who: Principal
    form: FormData

    @property
    def path(self) -> str:
        return self.request.url.path

    @property
    def is_fragment(self) -> bool:
        """Whether the browser asks for a piece of a page it already shows."""
        return self.request.headers.get("hx-request") == "true"

    def tenant(self, name: str) -> Tenant:
        """By name. Raises TenantMissing, also for one they may not see."""
        return visible_tenant(self.services, self.who, name)

    def tenants(self) -> list[Tenant]:
        """Those they may see, by name."""
        return [one for one in tenants.listed(self.services.store) if self.who.may_see(one.id)]

    def text(self, name: str, *, length_max: int = 4000) -> str:
        """One field of the form, trimmed and cut; empty when it is missing."""
        value = self.form.get(name, "")
        return value.replace("\r\n", "\n").strip()[:length_max] if isinstance(value, str) else ""

    def values(self, name: str, *, count_max: int = 20_000) -> list[str]:
        """Every value of a repeated field."""
        return [value for value in self.form.getlist(name)[:count_max] if isinstance(value, str)]

    def is_set(self, name: str) -> bool:
        return bool(self.form.get(name))

    def show(self, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A page. `tenant` among the values makes its pages the navigation."""
        message = flash.take(self.request, self.who.csrf)
        response = self.renderer.page(template, {**self.frame(values.get("tenant"), message), **values}, status=status)
        if message is not None:
            flash.drop(response, secure=self.renderer.secure)
        return response

    def piece(self, template: str, **values: Any) -> HTMLResponse:
        """A fragment for a page that is open already."""
        frame = {"csrf_token": self.who.csrf, "who": self.who, "scopes": Scope}
        return self.renderer.piece(template, {**frame, **values})

    def go(self, path: str, done: str = "", tone: str = "good") -> Response:
        """To another page of ours, which then tells what was `done`."""
        response = RedirectResponse(path, 303)
        if done:
            flash.put(response, self.who.csrf, Message(done, tone), secure=self.renderer.secure)
        return response

    def begin(self, kind: str, tenant: Tenant | None = None, *, reason: str = "", **arguments: object) -> Response:
        """Ask for a job in their name, and go where they watch it; `back` is where they want to be afterwards."""
        job = ask(self.services, self.who, kind, tenant, reason=reason, **arguments)
        return self.go(f"/jobs/{job.id}?watch=1")

    def frame(self, tenant: Tenant | None = None, message: Message | None = None) -> dict[str, Any]:
        """What base.html needs."""
        seen = self.tenants() if self.who.role is Role.MANAGER else []
        own = tenant or (seen[0] if seen else None)
        counts = self._counts()
        is_guest = self.who.role not in (Role.MANAGER, Role.AGENT)
        return {
            "actor": self.who,
            "who": self.who,
            "scopes": Scope,
            "csrf_token": self.who.csrf,
            "navigation": navigation.main_items(self.who, own, self.path, counts),
            "tabs": navigation.guest_items(self.who, tenant, self.path) if tenant and is_guest else [],
            "siblings": [one for one in seen if tenant and one.id != tenant.id],
            "messages": [message] if message else [],
            "path": self.path,
        }

    def _counts(self) -> dict[str, int]:
        if not self.who.has(Scope.CHANGES_REVIEW):
            return {}
        with self.services.store.connect() as connection:
            return {"/reviews": changes.counted(connection).get(ChangeState.SUBMITTED.value, 0)}


def _visit(request: Request, services: ServicesDep, who: PrincipalDep, form: FormData) -> Visit:
    if not who.session_id:
        raise SignInRequired("Pages are for people who are signed in; tokens are for the API.")
    return Visit(request, services, request.app.state.renderer, who, form)


def reading(scope: Scope | None = None) -> Any:
    """A page that changes nothing: `visit: Annotated[Visit, reading(Scope.CHANGES_READ)]`."""

    def visit(request: Request, services: ServicesDep, who: PrincipalDep) -> Visit:
        if scope is not None:
            who.require(scope)
        return _visit(request, services, who, FormData())

    return Depends(visit)


async def posted(request: Request) -> FormData:
    """The form, read in the event loop; the route itself runs in the thread pool."""
    return await request.form()


def acting(scope: Scope | None = None) -> Any:
    """A form that was sent. Raises FormExpired unless it carries this session's own token."""

    def visit(
        request: Request, services: ServicesDep, who: PrincipalDep, form: Annotated[FormData, Depends(posted)]
    ) -> Visit:
        made = _visit(request, services, who, form)
        token = request.headers.get(HEADER) or form.get(FIELD)
        if not isinstance(token, str) or not who.csrf or not hmac.compare_digest(token.encode(), who.csrf.encode()):
            raise FormExpired(
                "This form was made for another sign-in.",
                effect="Nothing was done.",
                next_step="Go back, load the page again and repeat.",
            )
        if scope is not None:
            who.require(scope)
        return made

    return Depends(visit)


def came_from(request: Request) -> str:
    """The page of ours somebody came from, else the start page."""
    parts = urlsplit(request.headers.get("referer", ""))
    is_ours = parts.netloc == request.headers.get("host", "") and parts.path.startswith("/")
    return (parts.path + (f"?{parts.query}" if parts.query else "")) if is_ours else "/"


def nobody() -> dict[str, object]:
    """base.html for whoever is not signed in."""
    return {"actor": None, "csrf_token": "", "navigation": [], "tabs": [], "siblings": [], "messages": [], "path": ""}
