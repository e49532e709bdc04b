"""The two cookies: the console's session, and a tenant host's. Neither is ever good for the other's host."""

from __future__ import annotations

from fastapi import Request, Response

from orchestrator.config import Settings

CONSOLE = "orchestrator_session"
HOST = "orchestrator_tenant"


def console_name(settings: Settings) -> str:
    """With https the browser itself then ties the cookie to this one host (`__Host-`)."""
    return f"__Host-{CONSOLE}" if settings.proxy.scheme == "https" else CONSOLE


def host_name(settings: Settings) -> str:
    return f"__Host-{HOST}" if settings.proxy.scheme == "https" else HOST


def put(response: Response, settings: Settings, name: str, secret: str) -> None:
    """No domain: the cookie stays on the host that set it. Lax: it does not travel with other sites' posts."""
    response.set_cookie(
        name,
        secret,
        max_age=int(settings.sessions.absolute),
        path="/",
        secure=settings.proxy.scheme == "https",
        httponly=True,
        samesite="lax",
    )


def drop(response: Response, settings: Settings, name: str) -> None:
    response.delete_cookie(name, path="/", secure=settings.proxy.scheme == "https", httponly=True, samesite="lax")


def taken(request: Request, name: str) -> str:
    return request.cookies.get(name, "")
