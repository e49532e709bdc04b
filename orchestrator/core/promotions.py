"""A promotion: one try to write a change to production, or to take it back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from orchestrator.core.actors import Actor
from orchestrator.errors import Conflict, NotFound


class PromotionMissing(NotFound):
    code = "not_found.promotion"


class PromotionRunning(Conflict):
    """Another promote of the same change is under way, or has been done."""

    code = "conflict.promotion_running"


class PromotionKind(StrEnum):
    PROMOTE = "promote"
    REVERT = "revert"


class PromotionState(StrEnum):
    RUNNING = "running"
    COMMITTED = "committed"
    FAILED = "failed"  # nothing of it is in production
    UNKNOWN = "unknown"  # the commit's answer was lost; looked up by its transaction id


class PromotionStep(StrEnum):
    """Written before the step is taken, in this order."""

    PLANNED = "planned"
    WRITING = "writing"  # production's transaction is open, its id known
    MERGING = "merging"  # rows are written and verified, not committed; the branch is about to move
    COMMITTING = "committing"
    RECORDING = "recording"


@dataclass(frozen=True)
class Promotion:
    """One row of the promotions table, without its inverse."""

    id: str
    change_id: str
    kind: PromotionKind
    state: PromotionState
    step: PromotionStep
    digest: str
    actor: Actor
    approvers: tuple[str, ...]
    transaction_id: str | None
    code_before: str | None
    code_after: str | None
    migrations: tuple[Mapping[str, str], ...]
    inserted: int
    updated: int
    deleted: int
    unchanged: int
    report: Mapping[str, Any]
    error_code: str | None
    error: str | None
    started_at: datetime
    finished_at: datetime | None
    duration_s: float | None

    @property
    def is_open(self) -> bool:
        return self.state in (PromotionState.RUNNING, PromotionState.UNKNOWN)
