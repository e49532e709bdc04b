"""Signing in and out, and what belongs to oneself: sessions, tokens, password."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from orchestrator.api.auth import begin_session, end_session, local_path
from orchestrator.api.deps import ServicesDep, caller_of
from orchestrator.core.access import InvalidUser, Role, SessionMissing, SignInRefused, SignInRequired, TooManySignIns
from orchestrator.store import tokens, users
from orchestrator.web.rendering import Renderer, protect
from orchestrator.web.visit import Visit, acting, nobody, reading

router = APIRouter(include_in_schema=False)
DAY_S = 86_400.0
SESSIONS_SHOWN = 50
Reader = Annotated[Visit, reading()]
Actor = Annotated[Visit, acting()]


@router.get("/login")
def login(request: Request, services: ServicesDep, next: Annotated[str, Query(max_length=4000)] = "/") -> Response:
    """The sign-in form; whoever is signed in already goes on."""
    try:
        if caller_of(request, services).principal().session_id:
            return RedirectResponse(local_path(next), 303)
    except SignInRequired:
        pass
    return _form(request, next)


@router.post("/login")
def sign_in(
    request: Request,
    services: ServicesDep,
    name: Annotated[str, Form(max_length=200)],
    password: Annotated[str, Form(max_length=1000)],
    next: Annotated[str, Form(max_length=4000)] = "/",
) -> Response:
    """Sign in and go on to what was wanted."""
    answer = RedirectResponse(local_path(next), 303)
    try:
        begin_session(services, request, answer, name.strip(), password)
    except (SignInRefused, TooManySignIns) as error:
        status = 429 if isinstance(error, TooManySignIns) else 403
        return _form(request, next, name=name, error=error, status=status)
    return answer


def _form(request: Request, wanted: str, *, name: str = "", error: Any = None, status: int = 200) -> Response:
    renderer: Renderer = request.app.state.renderer
    values = {**nobody(), "next": local_path(wanted), "name": name, "error": error}
    values["company"] = bool(renderer.settings.oidc.issuer)
    response = renderer.page("account/login.html", values, status=status)
    # Signing in may lead on to a tenant's host, and browsers hold redirects after a form to this directive too.
    proxy = renderer.settings.proxy
    protect(response, form_action=f"{proxy.address('*.' + proxy.domain)}")
    return response


@router.post("/sign-out")
def sign_out(visit: Actor) -> Response:
    """End this session, and those at tenants' hosts that came from it."""
    answer = RedirectResponse("/login", 303)
    end_session(visit.services, answer, visit.who)
    return answer


@router.get("/account")
def account(visit: Reader) -> Response:
    """Who one is, where one is signed in, and one's tokens."""
    return _account(visit)


def _account(visit: Visit, *, secret: str = "", token_name: str = "") -> Response:
    store = visit.services.store
    user = users.get(store, visit.who.user_id)
    return visit.show(
        "account/show.html",
        user=user,
        sessions=visit.services.access.sessions_of(user)[:SESSIONS_SHOWN],
        tokens=tokens.listed(store, user_id=visit.who.user_id)[:100],
        seen=visit.tenants(),
        secret=secret,
        token_name=token_name,
        address=visit.services.settings.proxy.address(visit.services.settings.proxy.console_host),
    )


@router.post("/account/sessions/{session_id}/end")
def end(session_id: str, visit: Actor) -> Response:
    """End one of one's own sessions."""
    if session_id == visit.who.session_id:
        return sign_out(visit)
    with suppress(SessionMissing):
        user = users.get(visit.services.store, visit.who.user_id)
        visit.services.access.end_sessions(visit.who, user, session_id)
    return visit.go("/account", "That session is ended. Whoever used it has to sign in again.")


@router.post("/account/tokens")
def create_token(visit: Actor) -> Response:
    """A token for an agent or a program; its secret stands on the answer and nowhere else."""
    role = Role.AGENT if visit.text("role") == "agent" else visit.who.role
    chosen = visit.values("tenant", count_max=200)
    try:
        days = float(visit.text("days") or 30)
    except ValueError:
        raise InvalidUser("Say in whole days how long the token lives.", effect="No token was made.") from None
    secret, token = visit.services.access.create_token(
        visit.who,
        users.get(visit.services.store, visit.who.user_id),
        visit.text("name"),
        role=role,
        tenant_ids=[visit.tenant(name).id for name in chosen] if chosen else None,
        lifetime_s=days * DAY_S,
    )
    return _account(visit, secret=secret, token_name=token.name)


@router.post("/account/tokens/{token_id}/revoke")
def revoke_token(token_id: str, visit: Actor) -> Response:
    """It stops working at once."""
    visit.services.access.revoke_token(visit.who, token_id)
    return visit.go("/account", "The token is revoked and works no longer.")


@router.post("/account/password")
def change_password(visit: Actor) -> Response:
    """A new password, after the old one was given again; every session of theirs ends."""
    access, store = visit.services.access, visit.services.store
    user = users.get(store, visit.who.user_id)
    new = visit.text("new", length_max=1000)
    if new != visit.text("again", length_max=1000):
        raise InvalidUser("The two new passwords are not the same.", effect="The password was not changed.")
    try:
        access.sign_in(user.name, visit.text("old", length_max=1000))
    except SignInRefused:
        raise InvalidUser("Your password now is not the one you gave.", effect="It was not changed.") from None
    access.change_user(visit.who.actor, user, password=new)
    return RedirectResponse(f"/login?{urlencode({'next': '/account'})}", 303)
