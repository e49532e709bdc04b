"""A tenant's own network: a /28 without a host address, with only the sandbox and the proxy on it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

from orchestrator.core.names import TenantNames
from orchestrator.core.ports.engine import Attachment, Engine, NetworkSpec
from orchestrator.core.tenants import Tenant, TenantAddresses, addresses


@dataclass(frozen=True)
class NetworkPart:
    """`plan` is the installation's address plan; `proxy` the proxy container's name, "" when there is none."""

    engine: Engine
    plan: IPv4Network
    instance: str
    proxy: str

    def addresses(self, tenant: Tenant) -> TenantAddresses:
        return addresses(self.plan, tenant.number)

    def ensure(self, tenant: Tenant) -> Attachment:
        """Make the network and put the proxy on it; returns the sandbox's place on it. Raises EngineFailed."""
        name, where = self._name(tenant), self.addresses(tenant)
        self.engine.ensure_network(NetworkSpec(name, str(where.subnet), tenant_id=tenant.id))
        if self.proxy:
            self.engine.attach(name, self.proxy, where.proxy)
        return Attachment(name, where.sandbox)

    def remove(self, tenant: Tenant) -> None:
        """Take every member off and delete it; fine when it is gone already."""
        self.engine.remove_network(self._name(tenant))

    def _name(self, tenant: Tenant) -> str:
        return TenantNames(self.instance, tenant.id, tenant.name).network
