"""An approved change becomes part of production, or production stays as it was and the change says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine

from orchestrator.core.actors import Actor, system
from orchestrator.core.audit import AuditEvent
from orchestrator.core.changes import (
    ApprovalExpired,
    Change,
    ChangeApproval,
    ChangeBlocked,
    ChangeState,
    DigestMismatch,
    check_digest,
    next_state,
    review_digest,
    standing_approvals,
)
from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.ports.code import CodeCheck
from orchestrator.core.ports.production import MigrationRefused, PromotionConflicted
from orchestrator.core.promotion.findings import Finding, blocking
from orchestrator.core.promotion.order import Migration, PromotionOrder
from orchestrator.core.promotions import Promotion, PromotionKind, PromotionState
from orchestrator.core.tenants import Tenant
from orchestrator.errors import Conflict, Denied
from orchestrator.parts.checking import Checks
from orchestrator.parts.promoting import Promoting, Work
from orchestrator.parts.proposal import cells, check_document
from orchestrator.store import changes as store
from orchestrator.store import promotions


class AgentMayNotPromote(Denied):
    code = "denied.agent_promote"


class NothingToDeclare(Conflict):
    code = "conflict.nothing_to_declare"


@dataclass(frozen=True)
class PromoteFlow:
    store: Engine
    audit: AuditLog
    checks: Checks
    promoting: Promoting
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def run(self, change_id: str, tenant: Tenant, *, actor: Actor, digest: str | None = None) -> Promotion:
        """Promote an approved change. Production and branch move together, or neither does.

        Raises ChangeStateConflict, DigestMismatch, ApprovalExpired, ChangeBlocked, PromotionConflicted (the change
        is then conflicted, both values in its findings), PromotionRunning, ProductionBusy, OutcomeUnknown.
        """
        if actor.is_agent:
            raise AgentMayNotPromote("Only people promote changes.", effect="Production was not touched.")
        with self.store.connect() as connection:
            change = store.get(connection, change_id)
            changeset = store.changeset(connection, change_id)
            given = store.approvals(connection, change_id)
            ran = promotions.migrations_run(connection)
        next_state(change.state, "promote", change.id)
        check_digest(change, digest)
        approvers = self._approved(change, given)
        code = self._code(change, tenant)
        migrations = code.migrations if code else ()
        if review_digest(changeset.digest(), change.code_head, migrations) != change.digest:
            raise DigestMismatch(
                f"Change {change.id} does not hold what was approved.",
                effect="Production was not touched.",
                next_step="Check it again; reviewers then decide about what it holds now.",
            )
        self._still_allowed(change, changeset, tenant)
        order = self._order(change, changeset, tenant, _pending(migrations, ran))
        work = Work(change, PromotionKind.PROMOTE, order, actor, approvers, code, self._settle_promoted)
        try:
            return self.promoting.run(work)
        except PromotionConflicted as conflict:
            self._conflicted(change, actor, list(conflict.findings))
            raise

    def _approved(self, change: Change, given: list[ChangeApproval]) -> tuple[str, ...]:
        standing = standing_approvals(change, given, self.now())
        if len(standing) < change.approvals_needed:
            self._lapse(change)
            raise ApprovalExpired(
                f"Change {change.id} has {len(standing)} of {change.approvals_needed} approvals that still stand.",
                effect="Production was not touched; the change waits for approval again.",
                next_step=f"`orchestrator change approve {change.id}` by another person.",
            )
        return tuple(approval.actor.name for approval in standing)

    def _lapse(self, change: Change) -> None:
        expires = self.now() + timedelta(days=self.checks.proposals.rules().expiry.submitted_days)
        with self.store.begin() as connection:
            state = next_state(change.state, "lapse", change.id)
            store.void_approvals(connection, change.id, "expired")
            lapsed = store.save(connection, change, state=state, approved_at=None, expires_at=expires)
            self._tell(connection, lapsed, "change.expired", system("promote"))

    def _code(self, change: Change, tenant: Tenant) -> CodeCheck | None:
        if change.code_head is None or self.checks.code is None:
            return None
        check = self.checks.code.check(tenant.name, change.code_head)
        if not check.is_clean:
            findings = [Finding("code", f"{path} does not merge any more.", column=path) for path in check.conflicts]
            self._conflicted(change, system("promote"), findings)
            raise PromotionConflicted(findings)
        return check

    def _still_allowed(self, change: Change, changeset: Changeset, tenant: Tenant) -> None:
        """The rules of now, not those of the day it was submitted."""
        findings = blocking(self.checks.examine(changeset, tenant).findings)
        if findings:
            raise ChangeBlocked(
                f"The rules do not allow change {change.id} any more: {findings[0].message}",
                effect="Production was not touched.",
                next_step="Reject it, or change configs/promotion.yaml.",
                findings=[finding.document() for finding in findings[:100]],
            )

    def _order(
        self, change: Change, changeset: Changeset, tenant: Tenant, migrations: tuple[Migration, ...]
    ) -> PromotionOrder | None:
        if changeset.is_empty and not migrations:
            return None
        return self.checks.proposals.order(
            change.id,
            changeset,
            tenant,
            masked=self.checks.differences.masked(changeset.base_snapshot_id),
            derived=cells(change, "derived"),
            decided=cells(change, "decided"),
            migrations=migrations,
        )

    def _settle_promoted(self, connection: Connection, promotion: Promotion) -> None:
        change = store.get(connection, promotion.change_id, for_update=True)
        if change.state is ChangeState.PROMOTED:
            return
        promoted = store.save(
            connection,
            change,
            state=ChangeState.PROMOTED,
            promoted_at=self.now(),
            promotion_id=promotion.id,
            expires_at=None,
        )
        data = {"promotion": promotion.id, "inserted": promotion.inserted, "updated": promotion.updated}
        store.event(connection, promoted, "change.promoted", promotion.actor, deleted=promotion.deleted, **data)

    def _conflicted(self, change: Change, actor: Actor, findings: list[Finding]) -> None:
        document = check_document(findings, at=self.now().isoformat())
        with self.store.begin() as connection:
            seen = store.get(connection, change.id, for_update=True)
            if seen.state is not ChangeState.APPROVED:
                return
            store.void_approvals(connection, change.id, "production moved")
            saved = store.save(
                connection,
                seen,
                state=next_state(seen.state, "conflict", seen.id),
                checks={**seen.checks, "promote": document},
                reason=findings[0].message[:1000] if findings else "",
                approved_at=None,
                expires_at=None,
            )
            self._tell(connection, saved, "change.conflicted", actor, findings=document["findings"][:20])

    def recover(self) -> dict[str, PromotionState]:
        """Settle what a process that died left open. Safe to call at any time, by anybody."""
        with self.store.connect() as connection:
            left = [item for item in promotions.open_ones(connection) if item.kind is PromotionKind.PROMOTE]
        return {item.id: self.promoting.recover(item, self._settle_promoted) for item in left}

    def declare(self, change_id: str, *, actor: Actor, is_written: bool, reason: str) -> None:
        """A person says how a promote ended that production itself has forgotten (restored, or too long ago).

        Raises NothingToDeclare, PromotionRunning.
        """
        if actor.is_agent:
            raise AgentMayNotPromote("Only people declare how a promote ended.")
        self.recover()
        with self.store.connect() as connection:
            change = store.get(connection, change_id)
            left = [item for item in promotions.of_change(connection, change_id) if item.is_open]
        left = [item for item in left if item.kind is PromotionKind.PROMOTE]
        if not left:
            raise NothingToDeclare(f"How the promotes of change {change_id} ended is known.")
        words = {"written": is_written, "reason": reason[:500], "promotion": left[0].id}
        self.audit.append(
            AuditEvent(actor, "change.declared", target=change.id, tenant=change.tenant_name, details=words)
        )
        self.promoting.declare(left[0], self._settle_promoted, is_written=is_written)

    def _tell(self, connection: Connection, change: Change, kind: str, actor: Actor, **data: Any) -> None:
        store.event(connection, change, kind, actor, **data)
        details = {"state": change.state.value, "digest": change.digest, **data}
        self.audit.append(AuditEvent(actor, kind, target=change.id, tenant=change.tenant_name, details=details))


def _pending(migrations: tuple[Migration, ...], ran: dict[str, str]) -> tuple[Migration, ...]:
    """Migrations production does not have yet. Raises MigrationRefused for one that was edited after it ran."""
    for item in migrations:
        if item.path in ran and ran[item.path] != item.digest():
            raise MigrationRefused(
                f"{item.path} has been run already, with another content.",
                effect="Production was not touched.",
                next_step="Put the new statements into a new file.",
                path=item.path,
            )
    return tuple(item for item in migrations if item.path not in ran)
