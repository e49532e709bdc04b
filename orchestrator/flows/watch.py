"""One round of the watchdog over every running tenant's live database."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Engine

from orchestrator import logs
from orchestrator.core.actors import system
from orchestrator.core.audit import AuditEvent
from orchestrator.core.generations import DatabaseLimits, GenerationState
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.ports.servers import Watchdog, WatchLimits
from orchestrator.core.tenants import Tenant, TenantState
from orchestrator.errors import OutsideFailure
from orchestrator.parts.generation import Generations
from orchestrator.store import generations as generation_store
from orchestrator.store import tenants

LOG = logs.get("watch")
WATCHDOG = system("watchdog")


@dataclass(frozen=True)
class WatchFlow:
    """Ends statements over the tenant's time limit, and writing beyond its size where no quota stops it.

    A database is looked at again when something in it may have come over its time, not in every round.
    """

    store: Engine
    audit: AuditLog
    generations: Generations
    watchdog: Watchdog
    limits: Callable[[Tenant], DatabaseLimits]
    _due: dict[tuple[str, WatchLimits], float] = field(default_factory=dict, repr=False)  # by time.monotonic()

    def run(self) -> dict[str, int]:
        """Returns how many were ended, by tenant. A database that does not answer is reconcile's to care for."""
        with self.store.connect() as connection:
            live = {one.tenant_id: one.id for one in generation_store.listed(connection, states=[GenerationState.LIVE])}
        ended: dict[str, int] = {}
        there = set(live.values())
        for key in [key for key in self._due if key[0] not in there]:
            del self._due[key]
        for tenant in tenants.listed(self.store, states=(TenantState.RUNNING,)):
            if tenant.id in live and (count := self._look(tenant, live[tenant.id])):
                ended[tenant.name] = count
        return ended

    def _look(self, tenant: Tenant, generation_id: str) -> int:
        limits = self.limits(tenant)
        size_bytes = None if self.generations.volume.has_quota else limits.size_bytes
        watched = WatchLimits(limits.statement_timeout_s, size_bytes)
        now = time.monotonic()
        if self._due.get((generation_id, watched), now) > now:
            return 0
        spec = self.generations.spec(tenant, generation_id, limits)
        try:
            found = self.watchdog.look(spec, watched)
        except OutsideFailure as error:
            LOG.debug("watch.unanswered", tenant=tenant.name, reason=str(error))
            return 0
        self._due[generation_id, watched] = now + found.quiet_s
        for one in found.ended:
            details = {"why": one.why, "ran_s": round(one.ran_s, 1), "terminated": one.was_terminated}
            LOG.warning("watch.ended", tenant=tenant.name, **details)
            event = AuditEvent(
                WATCHDOG, "database.end_session", target=generation_id, tenant=tenant.name, details=details
            )
            self.audit.append(event)
        return len(found.ended)
