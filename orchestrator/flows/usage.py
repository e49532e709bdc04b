"""What a tenant uses now, beside what it may use: read from the engine and the volume, never stored."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import Engine as Store

from orchestrator.core.limits import Profile
from orchestrator.core.names import TenantNames
from orchestrator.core.places import Places
from orchestrator.core.ports.engine import ContainerStats, Engine
from orchestrator.core.ports.volume import Volume
from orchestrator.core.tenants import Tenant, TenantState
from orchestrator.errors import OrchestratorError
from orchestrator.store import generations


@dataclass(frozen=True)
class Usage:
    """`sandbox` and `database` are None for what does not run or does not answer; sizes are None when unknown."""

    profile: Profile
    sandbox: ContainerStats | None
    database: ContainerStats | None
    database_bytes: int | None  # of the live generation, blocks shared with its snapshot not counted
    workspace_bytes: int | None

    @property
    def memory_bytes(self) -> int:
        return sum(one.memory_bytes for one in (self.sandbox, self.database) if one is not None)

    @property
    def memory_limit_bytes(self) -> int:
        return self.profile.sandbox.memory + self.profile.database.memory


@dataclass(frozen=True)
class UsageFlow:
    store: Store
    engine: Engine
    volume: Volume
    places: Places
    instance: str
    profile: Callable[[str], Profile]

    def of(self, tenant: Tenant) -> Usage:
        """Asks the engine twice and walks two directories; never raises for a part that is not there."""
        names = TenantNames(self.instance, tenant.id, tenant.name)
        with self.store.connect() as connection:
            live = generations.live(connection, tenant.id)
        runs = tenant.state is TenantState.RUNNING
        data = self.places.generation(tenant.id, live.id) if live else None
        with ThreadPoolExecutor(2, thread_name_prefix="usage") as pool:  # an engine may take a second for each
            sandbox = pool.submit(self._stats, names.sandbox) if runs else None
            database = pool.submit(self._stats, names.database(live.id)) if runs and live else None
        return Usage(
            profile=self.profile(tenant.profile),
            sandbox=sandbox.result() if sandbox else None,
            database=database.result() if database else None,
            database_bytes=self._size(lambda: self.volume.exclusive_bytes(data)) if data else None,
            workspace_bytes=self._size(lambda: self.volume.used_bytes(self.places.workspace(tenant.id))),
        )

    def _stats(self, name: str) -> ContainerStats | None:
        try:
            return self.engine.stats(name)
        except OrchestratorError:
            return None

    def _size(self, measure: Callable[[], int]) -> int | None:
        try:
            return measure()
        except (OrchestratorError, OSError):
            return None
