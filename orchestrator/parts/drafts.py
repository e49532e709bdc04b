"""Unproposed work around a refresh: saved as a draft change, and put back onto the new data when nothing conflicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import Connection, Engine

from orchestrator.core.actors import system
from orchestrator.core.changes import Change, ChangeState, review_digest
from orchestrator.core.changeset.carry import carry, keys_needed
from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.generations import Generation
from orchestrator.core.names import new_id
from orchestrator.core.ports.drafts import CarriedDraft, SavedDraft
from orchestrator.core.ports.production import Production
from orchestrator.core.tenants import Tenant
from orchestrator.errors import Conflict
from orchestrator.parts.differences import Differences
from orchestrator.parts.proposal import Proposals
from orchestrator.store import changes

ACTOR = system("refresh")
OPEN = (ChangeState.DRAFT, ChangeState.SUBMITTED, ChangeState.APPROVED)
READ_MAX = 200
CONFLICTS_SHOWN = 5


class NotADraft(Conflict):
    code = "conflict.not_a_draft"


@dataclass(frozen=True)
class ChangeDrafts:
    """Implements core.ports.drafts.Drafts.

    `at` opens a database by its connection string; `as_tenant` gives that of the tenant's live database with the
    tenant's own rights, so that nothing of the tenant's runs with ours.
    """

    store: Engine
    differences: Differences
    proposals: Proposals
    at: Callable[[str], Production]
    as_tenant: Callable[[Tenant], str]

    def save(self, tenant: Tenant, generation: Generation, *, draft_id: str | None, reason: str) -> SavedDraft | None:
        changeset = self.differences.of(tenant, generation).changeset
        with self.store.begin() as connection:
            kept = self._unproposed(connection, generation, changeset, draft_id)
            if kept.is_empty:
                return None
            digest = review_digest(kept.digest(), None)
            seen = changes.get(connection, draft_id) if draft_id else None
            if seen is not None and seen.state is ChangeState.DRAFT:
                saved = changes.save_rows(connection, seen, kept.without_notes(), digest=digest, checks={})
            else:
                saved = changes.add(
                    connection,
                    tenant_id=tenant.id,
                    tenant_name=tenant.name,
                    title="Saved before the data was refreshed",
                    description=f"Changes nobody had proposed, saved at {reason}.",
                    author=ACTOR,
                    generation_id=generation.id,
                    changeset=kept.without_notes(),
                    digest=digest,
                    code_head=None,
                )
            changes.event(connection, saved, "change.saved", ACTOR, reason=reason, rows=len(kept))
        return SavedDraft(saved.id, len(kept))

    def _unproposed(
        self, connection: Connection, generation: Generation, changeset: Changeset, draft_id: str | None
    ) -> Changeset:
        """Without the rows that a change of the tenant holds exactly so: an open one, or one taken from this very
        generation that production has. Had it come from another, the same row would be work done again."""
        held = set()
        states = (*OPEN, ChangeState.PROMOTED)
        for change in changes.listed(connection, tenant_id=generation.tenant_id, states=states, limit=READ_MAX):
            is_promoted = change.state is ChangeState.PROMOTED
            if change.id == draft_id or (is_promoted and change.generation_id != generation.id):
                continue
            if change.has_rows and change.reverted_at is None:
                held |= set(map(repr, changes.changeset(connection, change.id).rows))
        return changeset.keep([row.id() for row in changeset.rows if repr(row) not in held])

    def carry(self, tenant: Tenant, draft_id: str) -> CarriedDraft:
        """Raises NotADraft; PromotionRefused and the like when the database itself says no."""
        with self.store.connect() as connection:
            change = changes.get(connection, draft_id)
            changeset = changes.changeset(connection, draft_id)
        if change.state is not ChangeState.DRAFT or change.tenant_id != tenant.id:
            raise NotADraft(
                f"{draft_id} is no draft of {tenant.name}.", next_step="`orchestrator change list` shows them."
            )
        snapshot = self.differences.snapshot(self.differences.live(tenant).snapshot_id)
        with self.differences.base(snapshot) as dsn:
            now = self.at(dsn).read(keys_needed(changeset))
        carried = carry(changeset, now, new_base_id=snapshot.id)
        if carried.conflicts:
            shown = "; ".join(dict.fromkeys(str(one) for one in carried.conflicts[:CONFLICTS_SHOWN]))
            return CarriedDraft(False, len(carried.conflicts), shown)
        order = self.proposals.order(new_id("o"), carried.changeset, tenant)
        tables = frozenset(row.table for row in carried.changeset.rows)
        # The tenant's own database: what may be promoted is no question here, and its own rights bound it.
        self.at(self.as_tenant(tenant)).apply(replace(order, scopes={}, unguarded=tables))
        self._close(change, len(carried.changeset))
        return CarriedDraft(True, 0, "")

    def _close(self, change: Change, rows: int) -> None:
        """The rows stand in the sandbox again; the draft of them is of no more use."""
        with self.store.begin() as connection:
            closed = changes.save(
                connection, change, state=ChangeState.WITHDRAWN, reason="put back into the sandbox after the refresh"
            )
            changes.event(connection, closed, "change.carried", ACTOR, rows=rows)
