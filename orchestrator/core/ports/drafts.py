"""Saving a tenant's unproposed changes around a refresh, and putting them back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.generations import Generation
from orchestrator.core.tenants import Tenant


@dataclass(frozen=True)
class SavedDraft:
    """The draft change that holds what differs between a generation and its snapshot."""

    change_id: str
    rows: int


@dataclass(frozen=True)
class CarriedDraft:
    """What became of a draft on new data: applied as a whole, or not at all with its conflicts named."""

    is_applied: bool
    conflicts: int
    explanation: str


class Drafts(Protocol):
    def save(self, tenant: Tenant, generation: Generation, *, draft_id: str | None, reason: str) -> SavedDraft | None:
        """Save what differs between `generation` (which runs) and its snapshot; None when nothing does.

        With `draft_id` that draft is brought up to date instead of making another one. Raises TooManyChanges
        beyond the bound, DiffFailed or DatabaseBusy when it cannot be told.
        """
        ...

    def carry(self, tenant: Tenant, draft_id: str) -> CarriedDraft:
        """Apply the draft to the tenant's live generation, all of it or nothing. Raises OrchestratorError."""
        ...
