"""Everything a reviewer is shown about a change: rules, production now, a rehearsal, the code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.ports.code import CodeCheck, CodeSide
from orchestrator.core.ports.production import Production
from orchestrator.core.promotion.findings import Finding
from orchestrator.core.promotion.guard import Examined
from orchestrator.core.promotion.order import CellName, Migration
from orchestrator.core.tenants import Tenant
from orchestrator.parts.copies import Copies
from orchestrator.parts.differences import Differences
from orchestrator.parts.proposal import (
    Proposals,
    check_document,
    code_document,
    comparison_document,
    rehearsal_document,
)

_PLACE = ("code", "table", "row", "column", "message")


@dataclass(frozen=True)
class Checked:
    """`documents` by check: rules, production, rehearsal, code. A check that cannot be made says so and blocks."""

    documents: Mapping[str, Mapping[str, Any]]
    code: CodeCheck | None

    @property
    def blocking(self) -> int:
        """How many things stand in the way; what several checks say of one cell counts once."""
        found = sum(int(document["blocking"]) for document in self.documents.values())
        return found - (len(self._listed()) - len(self.findings()))

    def findings(self) -> list[Mapping[str, Any]]:
        """Every blocking finding, as stored; the first check that has one says it."""
        named = {tuple(finding.get(name) for name in _PLACE): finding for finding in reversed(self._listed())}
        return list(named.values())[::-1]

    def _listed(self) -> list[Mapping[str, Any]]:
        return [
            finding for document in self.documents.values() for finding in document["findings"] if finding["blocks"]
        ]


@dataclass(frozen=True)
class Checks:
    """`reader` opens production read-only; `at` opens the server behind a connection string (a copy)."""

    differences: Differences
    proposals: Proposals
    reader: Callable[[], Production] | None
    copies: Copies | None
    at: Callable[[str], Production]
    code: CodeSide | None = None
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def examine(self, changeset: Changeset, tenant: Tenant, *, strangers: bool = True) -> Examined:
        """What the rules say, with the masked columns of the changeset's own snapshot."""
        masked = self.differences.masked(changeset.base_snapshot_id)
        return self.proposals.examine(changeset, tenant, masked, strangers=strangers)

    def run(self, changeset: Changeset, tenant: Tenant, code_head: str | None) -> Checked:
        """Every check on exactly these rows and this commit. Raises what fails outside."""
        documents: dict[str, Mapping[str, Any]] = {}
        examined = self.examine(changeset, tenant)
        documents["rules"] = check_document(examined.findings, at=self.now().isoformat())
        code = None
        if code_head is not None and self.code is not None:
            code = self.code.check(tenant.name, code_head)
            documents["code"] = code_document(code, self.now())
        migrations = code.migrations if code else ()
        if not changeset.is_empty or migrations:
            documents["rehearsal"] = self.rehearse(changeset, tenant, migrations)
        if not changeset.is_empty:
            documents["production"] = self.compare(changeset, tenant)
        return Checked(documents, code)

    def compare(self, changeset: Changeset, tenant: Tenant) -> dict[str, Any]:
        """Read-only, beside production as it is now."""
        if self.reader is None:
            return check_document([], skipped="No address of production is configured.", at=self.now().isoformat())
        masked = self.differences.masked(changeset.base_snapshot_id)
        order = self.proposals.order("check", changeset, tenant, masked=masked)
        return comparison_document(self.reader().compare(order), self.now())

    def rehearse(self, changeset: Changeset, tenant: Tenant, migrations: Sequence[Migration] = ()) -> dict[str, Any]:
        """Apply to a throw-away copy of the newest snapshot; production is not touched."""
        if self.copies is None:
            return check_document([], skipped="Rehearsals are switched off.", at=self.now().isoformat())
        snapshot = self.differences.newest(tenant.snapshot_profile)
        if snapshot is None:
            snapshot = self.differences.snapshot(changeset.base_snapshot_id)
        masked = self.differences.masked(changeset.base_snapshot_id)
        order = self.proposals.order("rehearsal", changeset, tenant, masked=masked, migrations=migrations)
        with self.copies.copy(snapshot) as dsn:
            rehearsed = self.at(dsn).rehearse_on_copy(order)
        return rehearsal_document(rehearsed, f"a copy of snapshot {snapshot.id}", self.now())

    def rehearse_on(
        self,
        production: Production,
        changeset: Changeset,
        tenant: Tenant,
        migrations: Sequence[Migration],
        *,
        derived: Sequence[CellName],
        decided: Sequence[CellName],
    ) -> dict[str, Any]:
        """In a transaction of production itself that is always rolled back."""
        masked = self.differences.masked(changeset.base_snapshot_id)
        order = self.proposals.order(
            "rehearsal", changeset, tenant, masked=masked, derived=derived, decided=decided, migrations=migrations
        )
        rehearsed = production.rehearse(order)
        return rehearsal_document(rehearsed, "production, rolled back", self.now())


def failed_check(message: str, at: datetime) -> dict[str, Any]:
    """A check that could not be made stands in the way."""
    return check_document([Finding("database", message)], at=at.isoformat())
