"""The reverse proxy: which hostname leads where. Every tenant host is behind the sign-in check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.errors import InvalidInput, OutsideFailure


class RouteFailed(OutsideFailure):
    """The proxy does not serve what was written, or does not answer."""

    code = "outside_failure.route"


class InvalidRoute(InvalidInput):
    code = "invalid.route"


@dataclass(frozen=True)
class Route:
    """`id` names the route's file (a tenant id, or `console`). `url` is the backend; `is_guarded` asks the sign-in
    check before every request."""

    id: str
    hostname: str
    url: str
    is_guarded: bool = True


@dataclass(frozen=True)
class LiveRoute:
    """What the proxy itself says of a route."""

    id: str
    hostname: str
    is_enabled: bool
    error: str


class Proxy(Protocol):
    def publish(self, route: Route) -> None:
        """Write the route atomically; the same route again changes nothing. Raises InvalidRoute."""
        ...

    def withdraw(self, route_id: str) -> None:
        """Take a route away; one that is not there is fine. Do this before its backend stops."""
        ...

    def published(self) -> list[str]:
        """Ids of the routes written, whether or not the proxy runs."""
        ...

    def live(self) -> Sequence[LiveRoute]:
        """The routes the running proxy has loaded. Raises RouteFailed."""
        ...

    def wait(self, route: Route, *, timeout_s: float) -> None:
        """Return when the running proxy serves exactly `route`. Raises RouteFailed after `timeout_s`."""
        ...

    def wait_gone(self, route_id: str, *, timeout_s: float) -> None: ...
