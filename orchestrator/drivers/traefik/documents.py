"""Pure: Traefik's static and dynamic configuration as plain values.

Settings and their reasons were measured on Traefik 3.7: a file with one error keeps the *old* routes while it
runs but leaves none after a restart, so every document is parsed back and checked before it is put in place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import yaml

from orchestrator.core.ports.proxy import InvalidRoute, Route

HOSTNAME = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
ROUTE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
GUARD = "sign-in"
TRANSPORT = "impatient"
SHARED_FILE = "shared"


@dataclass(frozen=True)
class ProxyAddresses:
    """`edge` is the proxy's own address on the edge network; nothing listens on tenants' networks.

    `sign_in_url` answers ForwardAuth; it is reachable from the edge network alone.
    """

    edge: str
    web_port: int
    api_port: int
    sign_in_url: str


def static(addresses: ProxyAddresses, *, directory: str) -> dict[str, Any]:
    """What Traefik reads once, at its start."""
    return {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "entryPoints": {
            "web": {
                "address": f"{addresses.edge}:{addresses.web_port}",
                # `X_Forwarded_For` and its like would reach an app as the real header.
                "http": {"aliasHeadersStrategy": "reject"},
                "transport": {"respondingTimeouts": {"readTimeout": "60s", "idleTimeout": "120s"}},
            },
            "traefik": {"address": f"{addresses.edge}:{addresses.api_port}"},
        },
        "api": {"insecure": True, "dashboard": False},
        "ping": {},
        "providers": {
            "providersThrottleDuration": "50ms",
            "file": {"directory": directory, "watch": True},
        },
        "log": {"level": "INFO", "format": "json"},
    }


def shared(addresses: ProxyAddresses) -> dict[str, Any]:
    """The sign-in check and the transport every route uses."""
    return {
        "http": {
            "middlewares": {
                GUARD: {
                    "forwardAuth": {
                        "address": addresses.sign_in_url,
                        "trustForwardHeader": False,
                        "authResponseHeaders": ["X-Tenant-User", "X-Tenant-Role"],
                    }
                }
            },
            # A stopped backend on a network without hosts would otherwise hang for seconds.
            "serversTransports": {TRANSPORT: {"forwardingTimeouts": {"dialTimeout": "500ms"}}},
        }
    }


def dynamic(route: Route) -> dict[str, Any]:
    """One route. Raises InvalidRoute for anything that could end up as more than one host or backend."""
    address = urlsplit(route.url)
    if not HOSTNAME.fullmatch(route.hostname):
        raise InvalidRoute(f"{ascii(route.hostname)[:100]} is no hostname.")
    if not ROUTE_ID.fullmatch(route.id) or route.id == SHARED_FILE:
        raise InvalidRoute(f"{ascii(route.id)[:100]} cannot name a route.")
    if address.scheme != "http" or not address.hostname or address.path or address.query or address.username:
        raise InvalidRoute(f"{ascii(route.url)[:100]} is no backend: http://ADDRESS:PORT is expected.")
    router: dict[str, Any] = {
        "rule": f"Host(`{route.hostname}`)",
        "service": route.id,
        "entryPoints": ["web"],
    }
    if route.is_guarded:
        router["middlewares"] = [f"{GUARD}@file"]
    balancer = {"servers": [{"url": route.url}], "serversTransport": f"{TRANSPORT}@file", "passHostHeader": True}
    return {"http": {"routers": {route.id: router}, "services": {route.id: {"loadBalancer": balancer}}}}


def text(document: dict[str, Any]) -> str:
    """YAML that parses back to the same values; never empty (an empty file drops every route)."""
    written = "# Written by the orchestrator; changes by hand are overwritten.\n" + yaml.safe_dump(
        document, sort_keys=True, default_flow_style=False, allow_unicode=False
    )
    if not document or yaml.safe_load(written) != document:
        raise InvalidRoute("The proxy's configuration does not survive being written as YAML.")
    return written
