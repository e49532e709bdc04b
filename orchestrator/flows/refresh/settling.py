"""What follows the rename: the old database's last changes saved, the old one stopped and kept, older ones removed.

Run again after a crash it does what is left to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from orchestrator import logs
from orchestrator.core.generations import Generation, GenerationState
from orchestrator.core.ports.differ import TooManyChanges
from orchestrator.core.ports.drafts import Drafts
from orchestrator.core.refresh import Refresh, RefreshStep
from orchestrator.core.tenants import RefreshPolicy, Tenant
from orchestrator.errors import OrchestratorError, OutsideFailure
from orchestrator.flows.refresh.journal import Journal
from orchestrator.parts.generation import Generations
from orchestrator.store import generations as generation_store

LOG = logs.get("refresh")
BREATH_S = 0.15


@dataclass(frozen=True)
class Settling:
    store: Engine
    generations: Generations
    drafts: Drafts
    pinned: Callable[[str], set[str]]
    now: Callable[[], datetime]
    previous_kept: int
    breath_s: float = BREATH_S

    def settle(self, tenant: Tenant, journal: Journal, old: Generation | None, draft_id: str | None) -> Refresh:
        """Finish a refresh whose generation is live by the link."""
        record = journal.refresh
        problem: str | None = None
        if old is not None and tenant.refresh_policy is not RefreshPolicy.DISCARD:
            # Nobody writes to the old one any more: only now is the draft exact.
            draft_id, problem = self.save(tenant, old, journal, draft_id=draft_id)
        with self.store.begin() as connection:
            known = {found.id: found for found in generation_store.listed(connection, tenant_id=tenant.id)}
            if known[record.generation_id].state is not GenerationState.LIVE:
                current = generation_store.live(connection, tenant.id)
                generation_store.swap_states(
                    connection, new=record.generation_id, old=current.id if current else None, now=self.now()
                )
        if old is not None:
            # Clients are signing in to the new database just now; stopping a container would take their processor.
            time.sleep(self.breath_s)
            self._retire(tenant, old.id)
        carried = " ".join(part for part in (self._carry(tenant, journal, draft_id), problem) if part)
        journal.take(RefreshStep.PRUNING)
        self.prune(tenant)
        return journal.finish(carried=carried or None)

    def save(
        self, tenant: Tenant, generation: Generation, journal: Journal, *, draft_id: str | None
    ) -> tuple[str | None, str | None]:
        """Save unproposed changes; returns the draft's id, and what went wrong in words.

        What cannot be saved does not stop the refresh, or a tenant could: it is said in the record, and the old
        generation, kept for an undo, still holds it.
        """
        try:
            saved = self.drafts.save(tenant, generation, draft_id=draft_id, reason=f"refresh {journal.refresh.id}")
        except Exception as error:
            why = _why(error)
            said = (
                f"Unproposed changes could not be saved as a draft: {why} "
                f"They are in the previous database until the next refresh: `orchestrator refresh undo {tenant.name}`."
            )
            LOG.warning("refresh.draft_not_saved", tenant=tenant.name, error=why, exc_info=_unexpected(error))
            journal.take(journal.step, carried=said)
            return draft_id, said
        found = saved.change_id if saved is not None else draft_id
        if found is not None and found != draft_id:
            journal.take(journal.step, draft_id=found)
        return found, None

    def _carry(self, tenant: Tenant, journal: Journal, draft_id: str | None) -> str | None:
        if draft_id is None:
            return None
        if tenant.refresh_policy is not RefreshPolicy.CARRY:
            return f"saved as draft {draft_id}"
        journal.take(RefreshStep.CARRYING)
        try:
            done = self.drafts.carry(tenant, draft_id)
        except Exception as error:
            LOG.warning("refresh.draft_not_carried", tenant=tenant.name, draft_id=draft_id, exc_info=_unexpected(error))
            return f"saved as draft {draft_id}; not carried over: {_why(error)}"
        if done.is_applied:
            return f"carried over from draft {draft_id}"
        return f"saved as draft {draft_id}; not carried over: {done.explanation}"

    def _retire(self, tenant: Tenant, generation_id: str) -> None:
        """Stop the old one; its WAL is short after the checkpoint a fast shutdown makes."""
        try:
            self.generations.stop(tenant, generation_id)
        except OutsideFailure as error:
            LOG.warning("refresh.previous_not_stopped", tenant=tenant.name, error=error.message)

    def prune(self, tenant: Tenant) -> list[str]:
        """Remove previous generations beyond those kept for undo and those something refers to."""
        with self.store.connect() as connection:
            found = generation_store.listed(connection, tenant_id=tenant.id, states=[GenerationState.PREVIOUS])
        pinned = self.pinned(tenant.id)
        newest_first = sorted(
            found, key=lambda generation: generation.retired_at or generation.created_at, reverse=True
        )
        removed = []
        for generation in newest_first[self.previous_kept :]:
            if generation.id not in pinned and self.remove(tenant, generation.id):
                removed.append(generation.id)
        return removed

    def remove(self, tenant: Tenant, generation_id: str) -> bool:
        """Journal, then delete it; what cannot be deleted now stays `removing` and reconcile tries again."""
        with self.store.begin() as connection:
            generation_store.set_state(connection, generation_id, GenerationState.REMOVING, now=self.now())
        try:
            self.generations.remove(tenant, generation_id)
        except (OutsideFailure, OSError) as error:
            LOG.warning("refresh.not_removed", tenant=tenant.name, generation=generation_id, error=str(error))
            return False
        with self.store.begin() as connection:
            generation_store.set_state(connection, generation_id, GenerationState.REMOVED, now=self.now())
        return True


def _why(error: Exception) -> str:
    """In words; an unexpected error's own text may quote data and stays in the log."""
    if isinstance(error, TooManyChanges):
        return "there were too many."
    return error.message if isinstance(error, OrchestratorError) else f"an unexpected {type(error).__name__}."


def _unexpected(error: Exception) -> Exception | None:
    return None if isinstance(error, OrchestratorError) else error
