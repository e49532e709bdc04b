"""What every request passes: a reference id, only our own host names, no posts from other sites' pages."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.config import Settings
from orchestrator.core.names import new_id

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
HEADER = b"x-request-id"
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class RequestIds:
    """Every request has an id of ours, in the log's lines and in the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id = new_id("r")
        scope.setdefault("state", {})["request_id"] = request_id

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [pair for pair in message.get("headers", ()) if pair[0] != HEADER]
                present = {name for name, _ in headers}
                headers.append((HEADER, request_id.encode()))
                headers += [pair for pair in SECURITY_HEADERS if pair[0] not in present]
                message["headers"] = headers
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self.app(scope, receive, with_id)


class OwnHosts:
    """Refuses host names that are not ours (a foreign name pointed at our address), and cross-site posts.

    The cookie alone is no proof that our own page asked: tenants' hosts may be the same site as the console.
    Programs with a bearer token send no cookie and are not asked.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self.app = app
        self._hosts = own_hosts(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        host = hostname(headers.get("host", ""))
        if host not in self._hosts:
            return await _refuse(send, scope, 421, "denied.host", "This host name is not served here.")
        if scope["method"] not in SAFE and not is_own_page(headers):
            return await _refuse(send, scope, 403, "denied.cross_site", "This came from a page of another site.")
        await self.app(scope, receive, send)


def own_hosts(settings: Settings) -> frozenset[str]:
    local = {"127.0.0.1", "localhost", "::1", "testserver"}
    return frozenset(local | {settings.proxy.console_host, settings.networks.edge_gateway})


def hostname(host: str) -> str:
    """The name in a Host header as every server reads it: no port, no case, no dot at the end."""
    bare = host.strip().lower()
    bare = bare[1 : bare.index("]")] if bare.startswith("[") and "]" in bare else bare.split(":", 1)[0]
    return bare.removesuffix(".")


def is_own_page(headers: Headers) -> bool:
    """Whether an unsafe request may be believed: by token, from our own page, or from no page at all."""
    if headers.get("authorization"):
        return True
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    return not headers.get("cookie")


async def _refuse(send: Send, scope: Scope, status: int, code: str, detail: str) -> None:
    document = {
        "type": f"urn:orchestrator:problem:{code}",
        "title": "Not allowed",
        "status": status,
        "detail": detail,
        "code": code,
        "effect": "Nothing was done.",
        "next_step": "",
        "reference": scope.get("state", {}).get("request_id", ""),
        "fields": {},
    }
    headers = [(b"content-type", b"application/problem+json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})
