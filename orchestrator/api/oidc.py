"""Signing in through the company's identity provider: there and back again, in the same browser."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from orchestrator.api import cookies
from orchestrator.api.auth import local_path
from orchestrator.api.deps import ServicesDep
from orchestrator.config import Settings
from orchestrator.core import handshake
from orchestrator.core.ports.identity import IdentityProvider, IdentityRefused
from orchestrator.errors import NotFound
from orchestrator.wiring.services import Services

router = APIRouter(include_in_schema=False)
START = "/auth/oidc/start"
CALLBACK = "/auth/oidc/callback"
COOKIE = "orchestrator_handshake"
AGAIN = "Try again from the sign-in page."


class NoProvider(NotFound):
    code = "not_found.identity_provider"


@router.get(START)
def start(services: ServicesDep, next: Annotated[str, Query(max_length=1000)] = "/") -> Response:
    """Send the browser to the provider, with a ticket to come back with."""
    provider, settings = _provider(services), services.settings
    key, seed, wanted = services.access.pass_key, secrets.token_urlsafe(32), local_path(next)
    made = handshake.derive(key, seed, wanted)
    address = provider.start(
        redirect=redirect_address(settings), state=made.state, nonce=made.nonce, verifier=made.verifier
    )
    answer = RedirectResponse(address, 303)
    answer.set_cookie(
        cookie_name(settings),
        handshake.ticket(key, seed, wanted, datetime.now(UTC)),
        max_age=handshake.LIFETIME_S,
        path="/",
        secure=settings.proxy.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.get(CALLBACK)
def callback(
    request: Request,
    services: ServicesDep,
    state: Annotated[str, Query(max_length=200)] = "",
    code: Annotated[str, Query(max_length=4000)] = "",
) -> Response:
    """Back from the provider: a session, when the ticket, the code and the token all hold."""
    provider, settings = _provider(services), services.settings
    given = cookies.taken(request, cookie_name(settings))
    made = handshake.redeem(services.access.pass_key, given, state, datetime.now(UTC))
    if made is None:
        raise IdentityRefused("This sign-in was not begun in this browser, or too long ago.", next_step=AGAIN)
    if not code:
        raise IdentityRefused("The identity provider did not sign you in.", next_step=AGAIN)
    who = provider.finish(code, redirect=redirect_address(settings), nonce=made.nonce, verifier=made.verifier)
    address = request.client.host if request.client else ""
    browser = request.headers.get("user-agent", "")
    secret, _ = services.access.sign_in_foreign(who, settings.oidc.role_groups, address=address, agent=browser)
    answer = RedirectResponse(made.wanted, 303)
    cookies.drop(answer, settings, cookie_name(settings))
    cookies.put(answer, settings, cookies.console_name(settings), secret)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def redirect_address(settings: Settings) -> str:
    """What is registered at the provider."""
    return settings.proxy.address(settings.proxy.console_host) + CALLBACK


def cookie_name(settings: Settings) -> str:
    return f"__Host-{COOKIE}" if settings.proxy.scheme == "https" else COOKIE


def _provider(services: Services) -> IdentityProvider:
    if services.identity is None:
        raise NoProvider("No identity provider is set up here.", next_step="Sign in with a name and a password.")
    return services.identity
