"""Taking a promoted change back, under the same guards: what production changed since is never overwritten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine

from orchestrator.core.actors import Actor
from orchestrator.core.changes import ChangeState, ChangeStateConflict, next_state
from orchestrator.core.ports.production import PromotionConflicted
from orchestrator.core.promotions import Promotion, PromotionKind, PromotionState
from orchestrator.core.tenants import Tenant
from orchestrator.errors import Conflict, Denied
from orchestrator.parts.promoting import Promoting, Work
from orchestrator.parts.proposal import Proposals
from orchestrator.store import changes as store
from orchestrator.store import promotions


class NothingToRevert(Conflict):
    """The change wrote no row, so there is nothing to take back."""

    code = "conflict.nothing_to_revert"


class AgentMayNotRevert(Denied):
    code = "denied.agent_revert"


@dataclass(frozen=True)
class RevertFlow:
    store: Engine
    proposals: Proposals
    promoting: Promoting
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def run(self, change_id: str, tenant: Tenant, *, actor: Actor, reason: str = "") -> Promotion:
        """Write the inverse of what the promote did. Deleted rows come back under their own keys.

        Rows and cells production changed since are conflicts: nothing is written then. Code and schema stay; they
        are reverted where they are kept. Raises PromotionConflicted, NothingToRevert, ChangeStateConflict.
        """
        if actor.is_agent:
            raise AgentMayNotRevert("Only people revert changes.", effect="Production was not touched.")
        with self.store.connect() as connection:
            change = store.get(connection, change_id)
            next_state(change.state, "revert", change.id)
            inverse = promotions.inverse(connection, change.promotion_id or "")
        if change.reverted_at is not None:
            raise ChangeStateConflict(f"Change {change.id} has been reverted already.", effect="Nothing was done.")
        if inverse is None or inverse.is_empty:
            raise NothingToRevert(
                f"Change {change.id} wrote no rows.",
                effect="Nothing was done.",
                next_step="Revert its code in the repository.",
            )
        order = self.proposals.order(change.id, inverse, tenant)
        work = Work(change, PromotionKind.REVERT, order, actor, (), None, self._settle)
        try:
            done = self.promoting.run(work)
        except PromotionConflicted as conflict:
            with self.store.begin() as connection:
                findings = [finding.document() for finding in conflict.findings[:20]]
                store.event(connection, change, "change.revert_conflicted", actor, findings=findings)
            raise
        if reason.strip():
            with self.store.begin() as connection:
                store.comment(connection, change_id, actor, reason.strip())
        return done

    def _settle(self, connection: Connection, promotion: Promotion) -> None:
        change = store.get(connection, promotion.change_id, for_update=True)
        if change.reverted_at is not None or change.state is not ChangeState.PROMOTED:
            return
        reverted = store.save(connection, change, reverted_at=self.now())
        store.event(connection, reverted, "change.reverted", promotion.actor, promotion=promotion.id)

    def recover(self) -> dict[str, PromotionState]:
        """Settle reverts that a process that died left open."""
        with self.store.connect() as connection:
            left = [item for item in promotions.open_ones(connection) if item.kind is PromotionKind.REVERT]
        return {item.id: self.promoting.recover(item, self._settle) for item in left}
