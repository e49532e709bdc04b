"""A visit to a tenant's hostname through the proxy and the sign-in check, as a person's browser would make it."""

from __future__ import annotations

import http.client
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.core import passes
from orchestrator.core.ports.proxy import RouteFailed
from orchestrator.core.tenants import Tenant

POLL_S = 0.02
REQUEST_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Visitor:
    """`path` is what is asked for; every answer below 400 counts as one."""

    address: str
    port: int
    domain: str
    key: bytes
    timeout_s: float
    path: str = "/healthz"

    def visit(self, tenant: Tenant) -> None:
        """Return when the hostname answers. Raises RouteFailed after `timeout_s`, naming the last answer."""
        deadline = time.monotonic() + self.timeout_s
        last = "no answer"
        while time.monotonic() < deadline:
            last = self.ask(tenant)
            if last.isdigit() and int(last) < 400:
                return
            time.sleep(POLL_S)
        raise RouteFailed(
            f"{tenant.name}.{self.domain} did not answer within {self.timeout_s:g} s (last: {last}).",
            next_step=f"`orchestrator tenant show {tenant.name}` has the app's own words.",
        )

    def ask(self, tenant: Tenant) -> str:
        """The status of one request, or what went wrong in a word."""
        hostname = f"{tenant.name}.{self.domain}"
        headers = {"Host": hostname, passes.HEADER: passes.make(self.key, hostname, datetime.now(UTC))}
        connection = http.client.HTTPConnection(self.address, self.port, timeout=REQUEST_TIMEOUT_S)
        try:
            connection.request("GET", self.path, headers=headers)
            return str(connection.getresponse().status)
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        finally:
            connection.close()
