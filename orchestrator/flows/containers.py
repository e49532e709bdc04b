"""One tenant's containers as the engine sees them, and what they have printed."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.ports.engine import Container, Engine
from orchestrator.core.tenants import Tenant
from orchestrator.errors import NotFound

LINES_MAX = 2_000


class ContainerMissing(NotFound):
    code = "not_found.container"


@dataclass(frozen=True)
class ContainersFlow:
    engine: Engine

    def listed(self, tenant: Tenant) -> list[Container]:
        """By role and name. Raises EngineFailed."""
        return sorted(self.engine.containers(tenant_id=tenant.id), key=lambda one: (one.role, one.name))

    def log(self, tenant: Tenant, name: str, *, lines: int = 200) -> str:
        """The last lines of one of the tenant's containers. Raises ContainerMissing for any other, EngineFailed."""
        if name not in {one.name for one in self.listed(tenant)}:
            raise ContainerMissing(
                f"{tenant.name} has no container {ascii(name)[:80]}.",
                next_step="It may have been replaced by a newer one: go back and choose again.",
            )
        return self.engine.logs(name, lines=min(lines, LINES_MAX))
