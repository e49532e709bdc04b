"""Drafts where no change flow is wired yet."""

from __future__ import annotations

from orchestrator.core.generations import Generation
from orchestrator.core.ports.drafts import CarriedDraft, SavedDraft
from orchestrator.core.tenants import Tenant


class NoDrafts:
    """Saves nothing."""

    def save(self, tenant: Tenant, generation: Generation, *, draft_id: str | None, reason: str) -> SavedDraft | None:
        return None

    def carry(self, tenant: Tenant, draft_id: str) -> CarriedDraft:
        return CarriedDraft(False, 0, "no draft was saved")
