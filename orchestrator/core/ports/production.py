"""Production's database as promoting needs it: look, compare, rehearse, write once.

An implementation is bound to one credential. The one with the right to write is made for the promote flow alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import Key, Row
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.promotion.catalog import Catalog
from orchestrator.core.promotion.findings import Finding
from orchestrator.core.promotion.order import CellName, PromotionOrder
from orchestrator.errors import Conflict, InvalidInput, LimitReached, OutsideFailure


class PromotionConflicted(Conflict):
    """Production moved under the change, or its constraints refuse it. Nothing was written; `findings` says why."""

    code = "conflict.promotion"

    def __init__(self, findings: Sequence[Finding]) -> None:
        first = findings[0].message if findings else "Production refused the change."
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        super().__init__(
            f"{first}{more}",
            effect="Nothing was written.",
            next_step="Look at the conflicts, then rebase the change or withdraw it.",
            findings=[finding.document() for finding in findings[:100]],
        )
        self.findings = tuple(findings)


class MigrationRefused(InvalidInput):
    """A migration file holds a statement that cannot run inside the promote's transaction, or it failed."""

    code = "invalid.migration"


class ProductionBusy(LimitReached):
    """Rows stayed locked, or a time limit or deadlock ended every try."""

    code = "limit_reached.production_busy"


class ProductionUnreachable(OutsideFailure):
    code = "outside_failure.production"


class ProductionRefuses(ProductionUnreachable):
    """It answers and does not let the credential in."""

    code = "outside_failure.production_refuses"


class CredentialTooWeak(OutsideFailure):
    """The credential lacks a right the write needs."""

    code = "outside_failure.promote_credential"


class OutcomeUnknown(OutsideFailure):
    """The connection was lost while the commit's answer was awaited; `transaction_id` tells later."""

    code = "outside_failure.outcome_unknown"

    def __init__(self, transaction_id: str) -> None:
        super().__init__(
            "The connection to production was lost while it was committing.",
            effect="Whether the change was written is not known yet.",
            next_step="It is looked up by its transaction id as soon as production answers.",
            transaction_id=transaction_id,
        )
        self.transaction_id = transaction_id


class TransactionState(StrEnum):
    COMMITTED = "committed"
    ABORTED = "aborted"
    RUNNING = "running"
    UNKNOWN = "unknown"  # too old, or another server


@dataclass(frozen=True)
class Applied:
    """What one transaction did. `inverse` undoes it; `assigned` maps provisional keys to production's."""

    transaction_id: str
    inserted: int
    updated: int
    deleted: int
    unchanged: int
    inverse: Changeset
    assigned: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    side_effects: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    migrations: tuple[str, ...] = ()
    duration_s: float = 0.0

    @property
    def written(self) -> int:
        return self.inserted + self.updated + self.deleted


@dataclass(frozen=True)
class Comparison:
    """The change beside production now. `now` holds the rows found, by the row's id in the changeset."""

    findings: tuple[Finding, ...]
    now: Mapping[str, Row]
    to_write: int
    unchanged: int


@dataclass(frozen=True)
class Rehearsed:
    """What happened when the change was applied and rolled back (or applied to a throw-away copy)."""

    findings: tuple[Finding, ...]
    derived: frozenset[CellName] = frozenset()
    decided: frozenset[CellName] = frozenset()
    side_effects: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    written: int = 0
    duration_s: float = 0.0


@dataclass(frozen=True)
class CredentialFinding:
    """One thing `doctor` says about the promote credential."""

    code: str
    table: str
    message: str
    next_step: str = ""
    fatal: bool = True


class Production(Protocol):
    """Raises ProductionUnreachable when the server cannot be reached, CredentialTooWeak when a right is missing."""

    def catalog(self) -> Catalog: ...

    def read(self, keys: Mapping[TableName, frozenset[Key]]) -> Mapping[TableName, Mapping[Key, Row]]:
        """The rows with these keys as of one moment; tables and rows that are not there are left out."""
        ...

    def compare(self, order: PromotionOrder) -> Comparison:
        """Read-only: every finding, not the first."""
        ...

    def apply(
        self,
        order: PromotionOrder,
        *,
        on_transaction: Callable[[str], None] = ...,
        before_commit: Callable[[Applied], None] = ...,
    ) -> Applied:
        """Write the change in one transaction.

        `on_transaction` is called with the transaction's id before anything is written and must remember it durably;
        `before_commit` once everything is written and verified, with what was done: whatever it raises rolls
        everything back.
        Raises PromotionConflicted, MigrationRefused, ProductionBusy (nothing written) or OutcomeUnknown.
        """
        ...

    def rehearse(self, order: PromotionOrder) -> Rehearsed:
        """Apply in a transaction that is always rolled back, under the order's limits. Sequences move on."""
        ...

    def rehearse_on_copy(self, order: PromotionOrder) -> Rehearsed:
        """Apply to a throw-away copy that may be altered at will, and list every violation."""
        ...

    def transaction_state(self, transaction_id: str) -> TransactionState: ...

    def check_credential(self, tables: Sequence[TableName]) -> list[CredentialFinding]: ...
