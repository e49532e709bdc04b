"""A tenant's route: its hostname at the proxy, behind the sign-in check."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.names import TenantNames
from orchestrator.core.ports.proxy import Proxy, Route
from orchestrator.core.tenants import Tenant
from orchestrator.parts.network import NetworkPart

APP_PORT = 8000


@dataclass(frozen=True)
class RoutePart:
    """`domain` is what tenants' names are put in front of: `localhost`."""

    proxy: Proxy
    network: NetworkPart
    domain: str
    patience_s: float = 10.0

    def route(self, tenant: Tenant) -> Route:
        names = TenantNames("", tenant.id, tenant.name)
        backend = f"http://{self.network.addresses(tenant).sandbox}:{APP_PORT}"
        return Route(tenant.id, names.hostname(self.domain), backend)

    def publish(self, tenant: Tenant) -> None:
        """Write the route; `confirm` waits for the proxy."""
        self.proxy.publish(self.route(tenant))

    def confirm(self, tenant: Tenant) -> None:
        """Return when the running proxy serves it. Raises RouteFailed."""
        self.proxy.wait(self.route(tenant), timeout_s=self.patience_s)

    def ensure(self, tenant: Tenant) -> None:
        self.publish(tenant)
        self.confirm(tenant)

    def withdraw(self, tenant: Tenant) -> None:
        """Before its backend stops: a request to a stopped one would hang until its time-out."""
        self.proxy.withdraw(tenant.id)
