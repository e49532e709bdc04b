"""Looking at the disk and at what every tenant uses, so that trends and forecasts have something to go by."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine as Store

from orchestrator.core.generations import GenerationState
from orchestrator.core.names import TenantNames
from orchestrator.core.ports.engine import ContainerStats, Engine
from orchestrator.core.ports.volume import Volume
from orchestrator.core.tenants import Tenant, TenantState
from orchestrator.errors import OrchestratorError
from orchestrator.store import generations, samples, tenants

AT_ONCE = 4
DISK_DAYS, USAGE_DAYS = 90, 14


@dataclass(frozen=True)
class SampleFlow:
    store: Store
    engine: Engine
    volume: Volume
    instance: str

    def run(self) -> int:
        """Take one sample of everything; returns how many tenants answered. What does not answer is left out."""
        samples.add_disk(self.store, free_bytes=self.volume.free_bytes(), total_bytes=self.volume.total_bytes())
        running = tenants.listed(self.store, states=[TenantState.RUNNING])
        with self.store.connect() as connection:
            live = {one.tenant_id: one.id for one in generations.listed(connection, states=[GenerationState.LIVE])}
        now = datetime.now(UTC)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="sample") as pool:
            found = list(pool.map(lambda one: self._of(one, live.get(one.id), now), running))
        taken = [one for one in found if one is not None]
        samples.add_usage(self.store, taken)
        samples.prune(self.store, disk_days=DISK_DAYS, usage_days=USAGE_DAYS)
        return len(taken)

    def _of(self, tenant: Tenant, live_id: str | None, now: datetime) -> samples.UsageSample | None:
        names = TenantNames(self.instance, tenant.id, tenant.name)
        wanted = [names.sandbox, *([names.database(live_id)] if live_id else [])]
        parts = [one for one in map(self._stats, wanted) if one is not None]
        if not parts:
            return None
        return samples.UsageSample(
            tenant_id=tenant.id,
            at=now,
            memory_bytes=sum(one.memory_bytes for one in parts),
            limit_bytes=sum(one.memory_limit_bytes for one in parts),
            cpu_seconds=sum(one.cpu_seconds for one in parts),
        )

    def _stats(self, name: str) -> ContainerStats | None:
        try:
            return self.engine.stats(name)
        except OrchestratorError:
            return None
