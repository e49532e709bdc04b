"""The refresh of one tenant, of all, and its undo. Any failure before the rename leaves the live database alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import Engine

from orchestrator import logs
from orchestrator.core.actors import Actor
from orchestrator.core.audit import AuditEvent, Phase, Result
from orchestrator.core.generations import DatabaseLimits, Generation, GenerationState
from orchestrator.core.names import new_id
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.ports.drafts import CarriedDraft, Drafts
from orchestrator.core.refresh import (
    DraftConflicts,
    NoSnapshot,
    NothingToUndo,
    Postponement,
    Refresh,
    RefreshKind,
    RefreshStep,
    TenantNotRunning,
    check_disk,
)
from orchestrator.core.snapshots import Snapshot
from orchestrator.core.tenants import RefreshPolicy, Tenant, TenantState
from orchestrator.errors import OrchestratorError, OutsideFailure
from orchestrator.flows.refresh.journal import Journal
from orchestrator.flows.refresh.settling import Settling
from orchestrator.parts.generation import Generations
from orchestrator.parts.pool import TenantPools
from orchestrator.store import generations as generation_store
from orchestrator.store import refreshes
from orchestrator.store import snapshots as snapshot_store
from orchestrator.store.session import tenant_lock

LOG = logs.get("refresh")
AT_ONCE = 4


def _nobody(_: str) -> None:
    """Nobody watches the steps."""


@dataclass(frozen=True)
class RefreshFlow:
    """`reload` reads the tenant again under its lock; `limits` are its database's; `pinned` names generations kept."""

    store: Engine
    audit: AuditLog
    generations: Generations
    pools: TenantPools
    drafts: Drafts
    reload: Callable[[str], Tenant]
    limits: Callable[[Tenant], DatabaseLimits]
    pinned: Callable[[str], set[str]] = field(default=lambda _: set())
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    previous_kept: int = 1
    patience_s: float = 20.0  # of a person, while reconcile may just be looking after the tenant
    at: Callable[[str], None] = field(default=_nobody)

    def run(
        self,
        tenant: Tenant,
        *,
        actor: Actor,
        reason: str = "on demand",
        snapshot_id: str | None = None,
        job_id: str | None = None,
        on_step: Callable[[str], None] = _nobody,
        copies: int = 1,
    ) -> Refresh:
        """Rebuild the tenant's database from the newest snapshot of its profile (or `snapshot_id`) and swap it in.

        Raises TenantBusy, TenantNotRunning, NoSnapshot, DiskForecastExceeded, or what failed outside; the record
        says at which step.
        """
        with tenant_lock(self.store, tenant.id):
            tenant = self._running(tenant)
            snapshot, live = self._read(tenant, snapshot_id)
            self._check_disk(snapshot, copies)
            generation_id = new_id("g")
            record = refreshes.begin(
                self.store,
                tenant_id=tenant.id,
                kind=RefreshKind.REFRESH,
                generation_id=generation_id,
                previous_id=live.id if live else None,
                snapshot_id=snapshot.id,
                requested_by=actor.name,
                reason=reason,
                job_id=job_id,
            )
            with self._recorded(tenant, record, actor, on_step) as journal:
                draft_id = self._save(tenant, live, journal)
                with self.store.begin() as connection:
                    generation_store.add(connection, generation_id, tenant.id, snapshot.id, now=self.now())
                try:
                    self._swap_in(tenant, snapshot, generation_id, live, journal)
                except BaseException:
                    self._withdraw(tenant, generation_id)
                    raise
                return self._settling().settle(tenant, journal, live, draft_id)

    def undo(
        self, tenant: Tenant, *, actor: Actor, reason: str = "on demand", on_step: Callable[[str], None] = _nobody
    ) -> Refresh:
        """Make the previous generation live again; what was live is kept, so an undo can be undone.

        Raises TenantBusy, TenantNotRunning, NothingToUndo, or what failed outside.
        """
        with tenant_lock(self.store, tenant.id):
            tenant = self._running(tenant)
            with self.store.connect() as connection:
                live = generation_store.live(connection, tenant.id)
                previous = generation_store.previous(connection, tenant.id)
                if previous is None:
                    raise NothingToUndo(
                        f"No earlier database of {tenant.name} is kept.",
                        effect="The live database is as it was.",
                        next_step="Refresh it to go back to the newest snapshot.",
                    )
                snapshot = snapshot_store.get(connection, previous.snapshot_id)
            record = refreshes.begin(
                self.store,
                tenant_id=tenant.id,
                kind=RefreshKind.UNDO,
                generation_id=previous.id,
                previous_id=live.id if live else None,
                snapshot_id=previous.snapshot_id,
                requested_by=actor.name,
                reason=reason,
            )
            with self._recorded(tenant, record, actor, on_step) as journal:
                draft_id = self._save(tenant, live, journal)
                journal.take(RefreshStep.STARTING)
                try:
                    self.generations.start(tenant, previous.id, self.limits(tenant), image=snapshot.image)
                    self._swap(tenant, previous.id, live, journal)
                except BaseException:
                    if self.pools.live_id(tenant.id) != previous.id:
                        self.generations.stop(tenant, previous.id)
                    raise
                return self._settling().settle(tenant, journal, live, draft_id)

    def run_all(
        self,
        tenants: Iterable[Tenant],
        *,
        actor: Actor,
        reason: str = "on demand",
        at_once: int = AT_ONCE,
        on_done: Callable[[Tenant, Refresh | OrchestratorError], None] = lambda *_: None,
    ) -> dict[str, Refresh | OrchestratorError]:
        """Refresh many, `at_once` at a time; one that fails or is slow does not hold up the others."""

        def one(tenant: Tenant) -> Refresh | OrchestratorError:
            result: Refresh | OrchestratorError
            try:
                result = self.run(tenant, actor=actor, reason=reason, copies=at_once)
            except OrchestratorError as error:
                result = error
            except Exception as error:
                LOG.exception("refresh.crashed", tenant=tenant.name)
                result = OutsideFailure(f"The refresh of {tenant.name} ended with {type(error).__name__}.")
            on_done(tenant, result)
            return result

        wanted = list(tenants)
        with ThreadPoolExecutor(at_once, thread_name_prefix="refresh") as pool:
            return dict(zip((tenant.name for tenant in wanted), pool.map(one, wanted), strict=True))

    def postpone(self, tenant: Tenant, *, actor: Actor, reason: str, in_a_row_max: int) -> Postponement:
        """Put the next scheduled refresh off, once. Raises PostponedAlready or PostponeLimit."""
        postponement = refreshes.postpone(
            self.store, tenant.id, requested_by=actor.name, reason=reason, in_a_row_max=in_a_row_max
        )
        self.audit.append(
            AuditEvent(actor, "refresh.postpone", target=tenant.id, tenant=tenant.name, details={"reason": reason})
        )
        return postponement

    def keep_date(self, tenant: Tenant, *, actor: Actor) -> bool:
        """Take a postponement back; returns whether there was one."""
        self.audit.append(AuditEvent(actor, "refresh.keep_date", target=tenant.id, tenant=tenant.name))
        return refreshes.keep_date(self.store, tenant.id)

    def restore(self, tenant: Tenant, draft_id: str, *, actor: Actor) -> CarriedDraft:
        """Put a saved draft back onto the data of today: all of it, or nothing and its conflicts named.

        Raises TenantBusy, TenantNotRunning, DraftConflicts, or what the database itself refuses.
        """
        event = AuditEvent(actor, "refresh.restore", target=draft_id, tenant=tenant.name, phase=Phase.BEFORE)
        with tenant_lock(self.store, tenant.id, patience_s=self.patience_s):
            tenant = self._running(tenant)
            self.audit.append(event)
            try:
                done = self.drafts.carry(tenant, draft_id)
                if not done.is_applied:
                    raise DraftConflicts(
                        f"{done.conflicts} of its rows cannot be put back: {done.explanation}",
                        effect="Nothing was put back; the draft is kept as it is.",
                        next_step=f"Propose it, or keep only some of its rows: `orchestrator change show {draft_id}`.",
                        conflicts=done.conflicts,
                    )
            except OrchestratorError as error:
                self._note(event, Result.FAILED, {"code": error.code})
                raise
        self._note(event, Result.OK, {})
        return done

    def _running(self, tenant: Tenant) -> Tenant:
        tenant = self.reload(tenant.id)
        if tenant.state is not TenantState.RUNNING:
            raise TenantNotRunning(
                f"{tenant.name} is {tenant.state.value}.",
                effect="Its database was not refreshed.",
                next_step=f"Start it first: `orchestrator tenant start {tenant.name}`.",
            )
        return tenant

    def _read(self, tenant: Tenant, snapshot_id: str | None) -> tuple[Snapshot, Generation | None]:
        with self.store.connect() as connection:
            live = generation_store.live(connection, tenant.id)
            if snapshot_id is not None:
                return snapshot_store.get(connection, snapshot_id), live
            snapshot = snapshot_store.newest(connection, tenant.snapshot_profile)
        if snapshot is None:
            raise NoSnapshot(
                f"There is no snapshot of the profile {tenant.snapshot_profile}.",
                effect="The live database is as it was.",
                next_step="Take one: `orchestrator snapshot take`.",
            )
        return snapshot, live

    def _check_disk(self, snapshot: Snapshot, copies: int) -> None:
        volume = self.generations.volume
        if not volume.is_reflink:
            LOG.warning(
                "refresh.full_copy", effect="every generation is a full copy: slower, and as large as its snapshot"
            )
        check_disk(
            free_bytes=volume.free_bytes(),
            total_bytes=volume.total_bytes(),
            snapshot_bytes=snapshot.manifest.size_bytes if snapshot.manifest else 0,
            is_reflink=volume.is_reflink,
            copies=copies,
        )

    @contextmanager
    def _recorded(
        self, tenant: Tenant, record: Refresh, actor: Actor, on_step: Callable[[str], None]
    ) -> Iterator[Journal]:
        """Audit before and after, and the journal's end when it fails."""
        event = AuditEvent(
            actor,
            "refresh.run" if record.kind is RefreshKind.REFRESH else "refresh.undo",
            target=record.generation_id,
            tenant=tenant.name,
            phase=Phase.BEFORE,
            details={"refresh": record.id, "snapshot": record.snapshot_id, "reason": record.reason},
        )

        def at(step: str) -> None:
            self.at(step)
            on_step(step)

        journal = Journal(self.store, record, at)
        try:
            self.audit.append(event)
            at(RefreshStep.PLANNED)
            yield journal
        except Exception as error:
            code = error.code if isinstance(error, OrchestratorError) else "error"
            said = str(error) if isinstance(error, OrchestratorError) else type(error).__name__
            if self.pools.live_id(tenant.id) != record.generation_id:
                refreshes.fail(self.store, record.id, code=code, message=said)
            LOG.warning("refresh.failed", tenant=tenant.name, step=journal.step, code=code, error=said)
            self._note(event, Result.FAILED, {"code": code, "step": journal.step})
            raise
        LOG.info(
            "refresh.finished",
            tenant=tenant.name,
            kind=record.kind.value,
            timings=journal.timings,
            snapshot=record.snapshot_id,
        )
        self._note(event, Result.OK, {"spent_s": round(sum(journal.timings.values()), 3)})

    def _note(self, event: AuditEvent, result: Result, more: dict[str, object]) -> None:
        details = {**event.details, **more}
        self.audit.append(
            AuditEvent(
                event.actor,
                event.action,
                target=event.target,
                tenant=event.tenant,
                phase=Phase.AFTER,
                result=result,
                details=details,
            )
        )

    def _save(self, tenant: Tenant, live: Generation | None, journal: Journal) -> str | None:
        """Save what nobody proposed yet, before anything else; the exact state is saved again after the swap."""
        if live is None or tenant.refresh_policy is RefreshPolicy.DISCARD:
            return None
        journal.take(RefreshStep.SAVING)
        return self._settling().save(tenant, live, journal, draft_id=None)[0]

    def _swap_in(
        self, tenant: Tenant, snapshot: Snapshot, generation_id: str, live: Generation | None, journal: Journal
    ) -> None:
        limits = self.limits(tenant)
        self.generations.create(tenant, snapshot, generation_id, limits, before=journal.take)
        with self.store.begin() as connection:
            refreshes.unflushed(connection)
            generation_store.set_state(connection, generation_id, GenerationState.CANDIDATE, now=self.now())
        self._swap(tenant, generation_id, live, journal)

    def _swap(self, tenant: Tenant, generation_id: str, live: Generation | None, journal: Journal) -> None:
        limits = self.limits(tenant)
        if not self.pools.is_serving(tenant, limits):
            self.pools.start(tenant, limits)
        journal.take(RefreshStep.SWAPPING)
        swap = self.pools.swap(tenant, limits, old_id=live.id if live else None, new_id=generation_id, at=journal.at)
        journal.take(RefreshStep.SETTLING, gap_s=swap.gap_s, ended_sessions=swap.ended_sessions)

    def _withdraw(self, tenant: Tenant, generation_id: str) -> None:
        """Remove the candidate, unless it is live by now: then reconcile finishes what was begun."""
        if self.pools.live_id(tenant.id) == generation_id:
            return
        self._settling().remove(tenant, generation_id)

    def _settling(self) -> Settling:
        return Settling(
            store=self.store,
            generations=self.generations,
            drafts=self.drafts,
            pinned=self.pinned,
            now=self.now,
            previous_kept=self.previous_kept,
        )
