"""Setting a tenant's databases right after a crash anywhere: one live generation that answers, nothing left over."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import Engine

from orchestrator import logs
from orchestrator.core.generations import DatabaseLimits, Generation, GenerationState
from orchestrator.core.ports.drafts import Drafts
from orchestrator.core.refresh import Recovery, Refresh, RefreshKind, recovery
from orchestrator.core.tenants import Tenant, TenantState
from orchestrator.errors import OrchestratorError
from orchestrator.flows.refresh.journal import Journal
from orchestrator.flows.refresh.settling import Settling
from orchestrator.parts.generation import Generations
from orchestrator.parts.pool import TenantPools
from orchestrator.store import generations as generation_store
from orchestrator.store import refreshes
from orchestrator.store import snapshots as snapshot_store
from orchestrator.store.session import tenant_lock

LOG = logs.get("refresh")
# While a tenant is launched or removed its own flow owns half-made generations.
OWNED_ELSEWHERE = frozenset({TenantState.LAUNCHING, TenantState.REMOVING, TenantState.REMOVED})
LEFTOVERS = (GenerationState.CREATING, GenerationState.CANDIDATE, GenerationState.REMOVING)


@dataclass(frozen=True)
class RefreshRecovery:
    """What reconcile calls for every tenant."""

    store: Engine
    generations: Generations
    pools: TenantPools
    drafts: Drafts
    reload: Callable[[str], Tenant]
    limits: Callable[[Tenant], DatabaseLimits]
    pinned: Callable[[str], set[str]] = field(default=lambda _: set())
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    previous_kept: int = 1

    def recover(self, tenant: Tenant) -> list[str]:
        """Finish or undo what was interrupted and see to the live database; returns what was done, in words.

        A stopped tenant stays stopped: what was interrupted is finished or undone all the same.

        The lock is taken only when something looks wrong, so that looking never makes a tenant busy for others.
        Raises TenantBusy when an operation on the tenant is under way: then nothing is wrong.
        """
        if self.is_sound(self.reload(tenant.id)):
            return []
        with tenant_lock(self.store, tenant.id):
            tenant = self.reload(tenant.id)
            if tenant.state in OWNED_ELSEWHERE:
                return []
            done: list[str] = []
            open_records = refreshes.unfinished(self.store, tenant.id)
            if open_records and tenant.state is TenantState.RUNNING:
                done += self._let_through(tenant)  # first of all: whichever the link names is right
            for record in open_records:
                done.append(self._resolve(tenant, record))
            done += self._clear(tenant)
            if tenant.state is TenantState.RUNNING:
                done += self._serve(tenant)
            elif open_records:
                self._rest(tenant)
            for action in done:
                LOG.info("refresh.recovered", tenant=tenant.name, action=action)
            return done

    def is_sound(self, tenant: Tenant) -> bool:
        """Whether nothing is left over and a running tenant's live database answers through its pool."""
        if tenant.state in OWNED_ELSEWHERE:
            return True
        known = self._known(tenant)
        if (
            refreshes.unfinished(self.store, tenant.id)
            or any(generation.state in LEFTOVERS for generation in known.values())
            or self.generations.on_disk(tenant.id) - set(known)
        ):
            return False
        live = next((one for one in known.values() if one.state is GenerationState.LIVE), None)
        if live is None or tenant.state is not TenantState.RUNNING:
            return True
        limits = self.limits(tenant)
        return (
            self.pools.live_id(tenant.id) == live.id
            and self.generations.servers.is_ready(self.generations.spec(tenant, live.id, limits))
            and self.pools.is_serving(tenant, limits)
            and not any(
                self.generations.servers.is_ready(self.generations.spec(tenant, one.id, limits))
                for one in known.values()
                if one.state is GenerationState.PREVIOUS
            )
        )

    def _resolve(self, tenant: Tenant, record: Refresh) -> str:
        if recovery(record, self.pools.live_id(tenant.id)) is Recovery.FINISH:
            return self._finish(tenant, record)
        if record.kind is RefreshKind.UNDO:
            self.generations.stop(tenant, record.generation_id)
        else:
            known = self._known(tenant)
            if record.generation_id in known:
                self._settling().remove(tenant, record.generation_id)
        refreshes.fail(
            self.store,
            record.id,
            code="outside_failure.interrupted",
            message=f"It was interrupted while {record.step.value} and undone; the live database is as it was.",
            recovered=True,
        )
        return f"undid the {record.kind.value} {record.id}, interrupted while {record.step.value}"

    def _finish(self, tenant: Tenant, record: Refresh) -> str:
        """The link names the new one: start what is needed for the last look at the old one, then settle."""
        known = self._known(tenant)
        old = known.get(record.previous_id) if record.previous_id else None
        self._start(tenant, known[record.generation_id])
        if old is not None:
            try:
                self._start(tenant, old)
            except OrchestratorError as error:
                LOG.warning("refresh.previous_not_started", tenant=tenant.name, error=error.message)
        journal = Journal(
            self.store, record, lambda _: None, timings=dict(record.timings), recovered=True, _step=record.step
        )
        self._settling().settle(tenant, journal, old, record.draft_id)
        return f"finished the {record.kind.value} {record.id}, interrupted while {record.step.value}"

    def _clear(self, tenant: Tenant) -> list[str]:
        """Half-made generations nobody journals, deletions begun, and files without a record."""
        done: list[str] = []
        known = self._known(tenant)
        for generation in known.values():
            if generation.state in LEFTOVERS and self._settling().remove(tenant, generation.id):
                done.append(f"removed the {generation.state.value} generation {generation.id}")
        for stray in sorted(self.generations.on_disk(tenant.id) - set(known)):
            self.generations.remove(tenant, stray)
            done.append(f"removed the unknown generation {stray}")
        for link in self.generations.places.databases(tenant.id).glob(".live-*"):
            link.unlink(missing_ok=True)
        return done

    def _serve(self, tenant: Tenant) -> list[str]:
        """The live generation runs, the link names it, the pool lets clients through, the previous ones stand still."""
        done: list[str] = []
        with self.store.connect() as connection:
            live = generation_store.live(connection, tenant.id)
        if live is None:
            return done
        if not self.generations.servers.is_ready(self.generations.spec(tenant, live.id, self.limits(tenant))):
            began = time.monotonic()
            self._start(tenant, live)
            done.append(f"started the live database in {time.monotonic() - began:.1f} s")
        if self.pools.live_id(tenant.id) != live.id:
            self.pools.point(tenant.id, live.id)
            done.append("put the live link back")
        done += self._let_through(tenant)
        for generation in self._known(tenant).values():
            if generation.state is GenerationState.PREVIOUS:
                self.generations.stop(tenant, generation.id)
        return done

    def _rest(self, tenant: Tenant) -> None:
        """A stopped tenant's databases were started for a last look at most."""
        for generation in self._known(tenant).values():
            self.generations.stop(tenant, generation.id)

    def _let_through(self, tenant: Tenant) -> list[str]:
        if self.pools.is_serving(tenant, self.limits(tenant)):
            return []
        self.pools.start(tenant, self.limits(tenant))
        return ["let clients through the pool again"]

    def _start(self, tenant: Tenant, generation: Generation) -> None:
        with self.store.connect() as connection:
            image = snapshot_store.get(connection, generation.snapshot_id).image
        self.generations.start(tenant, generation.id, self.limits(tenant), image=image)

    def _known(self, tenant: Tenant) -> dict[str, Generation]:
        with self.store.connect() as connection:
            return {found.id: found for found in generation_store.listed(connection, tenant_id=tenant.id)}

    def _settling(self) -> Settling:
        return Settling(
            store=self.store,
            generations=self.generations,
            drafts=self.drafts,
            pinned=self.pinned,
            now=self.now,
            previous_kept=self.previous_kept,
        )
