"""A change's rows under the rules of the day: what is examined, what production is asked, what was found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.core.changes import Change
from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.risks import Risk, RiskContext, RiskRules, assess
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.ports.code import CodeCheck
from orchestrator.core.ports.production import Comparison, Rehearsed
from orchestrator.core.promotion.findings import Finding, blocking, shown_key
from orchestrator.core.promotion.guard import Examined, RowValidator, examine, scopes, session_settings, unguarded
from orchestrator.core.promotion.order import CellName, Migration, PromotionOrder, WriteLimits
from orchestrator.core.promotion.rules import PromotionRules
from orchestrator.core.rowmodels import REGISTRY, RowModels, validate_all
from orchestrator.core.tenants import Tenant

FINDINGS_KEPT = 200
VIOLATIONS_MAX = 1000


def row_models(models: RowModels = REGISTRY) -> RowValidator:
    """The derived and the company's row models as a validator."""

    def validate(changeset: Changeset) -> Iterable[Finding]:
        for violation in validate_all(changeset, models, limit=VIOLATIONS_MAX):
            yield Finding(
                "row_model",
                f"{violation.message} ({violation.model})",
                table=str(violation.table),
                row=violation.row_id,
                key=shown_key(changeset.shapes[violation.table].primary_key, violation.key),
                column=violation.column,
            )

    return validate


@dataclass(frozen=True)
class Proposals:
    """`rules` reads configs/promotion.yaml anew each time, so that an edit counts from the next step on."""

    rules: Callable[[], PromotionRules]
    validators: Sequence[RowValidator] = field(default_factory=lambda: (row_models(),))
    limits: WriteLimits = field(default_factory=WriteLimits)
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def examine(
        self, changeset: Changeset, tenant: Tenant, masked: Collection[tuple[TableName, str]], *, strangers: bool = True
    ) -> Examined:
        """The rules, the tenant guard and the row models; with `strangers` false, closed tables are not reported."""
        return examine(
            changeset,
            self.rules(),
            scope=tenant.scope,
            masked=masked,
            validators=self.validators,
            closed_tables=strangers,
        )

    def order(
        self,
        order_id: str,
        changeset: Changeset,
        tenant: Tenant,
        *,
        masked: Collection[tuple[TableName, str]] = (),
        derived: Iterable[CellName] = (),
        decided: Iterable[CellName] = (),
        migrations: Sequence[Migration] = (),
    ) -> PromotionOrder:
        """What production is given, under the rules of now."""
        rules = self.rules()
        written_there = {
            CellName(row.id(), column)
            for shape in changeset.tables
            if (rule := rules.rule(shape.table)) is not None and rule.production_writes
            for row in changeset.rows_of(shape.table)
            for column in rule.production_writes
        }
        return PromotionOrder(
            order_id,
            changeset,
            scopes=scopes(rules, tenant.scope),
            unguarded=unguarded(rules),
            masked=frozenset(masked),
            derived=frozenset(derived),
            decided=frozenset(decided) | written_there,
            migrations=tuple(migrations),
            migration_role=rules.migrations.role,
            strict=rules.strict,
            settings=session_settings(rules, tenant.scope),
            limits=self.limits,
        )

    def risks(
        self, changeset: Changeset, masked: Collection[tuple[TableName, str]], base_taken_at: datetime | None
    ) -> tuple[Risk, ...]:
        """Flags for the reviewer. Masked cells are judged by the rules, so that new rows may hold such columns."""
        age: timedelta | None = None if base_taken_at is None else self.now() - base_taken_at
        by_table: dict[TableName, set[str]] = {}
        for table, column in masked:
            by_table.setdefault(table, set()).add(column)
        context = RiskContext(age, {table: frozenset(names) for table, names in by_table.items()})
        return assess(changeset, RiskRules(), context)


def check_document(findings: Sequence[Finding], **more: Any) -> dict[str, Any]:
    """One check as it is stored and shown: what blocks comes first, in the changeset's order."""
    blocks = blocking(findings)
    told = [finding for finding in findings if not finding.blocks]
    return {
        "blocking": len(blocks),
        "told": len(told),
        "findings": [finding.document() for finding in [*blocks, *told][:FINDINGS_KEPT]],
        "left_out_findings": max(0, len(findings) - FINDINGS_KEPT),
        **more,
    }


def comparison_document(comparison: Comparison, at: datetime) -> dict[str, Any]:
    return check_document(
        comparison.findings, to_write=comparison.to_write, unchanged=comparison.unchanged, at=at.isoformat()
    )


def rehearsal_document(rehearsed: Rehearsed, where: str, at: datetime) -> dict[str, Any]:
    return check_document(
        rehearsed.findings,
        where=where,
        derived=sorted(map(list, rehearsed.derived)),
        decided=sorted(map(list, rehearsed.decided)),
        side_effects={name: dict(counts) for name, counts in rehearsed.side_effects.items()},
        written=rehearsed.written,
        duration_s=round(rehearsed.duration_s, 3),
        at=at.isoformat(),
    )


def code_document(check: CodeCheck, at: datetime) -> dict[str, Any]:
    findings = [Finding("code", f"{path} does not merge.", column=path) for path in check.conflicts]
    return check_document(findings, at=at.isoformat()) | check.document()


def cells(change: Change, name: str) -> frozenset[CellName]:
    """`derived` or `decided` cells as the last rehearsal found them."""
    rehearsal = change.checks.get("rehearsal")
    found = rehearsal.get(name, ()) if isinstance(rehearsal, Mapping) else ()
    return frozenset(CellName(row, column) for row, column in found)


def migrations_of(change: Change) -> tuple[Migration, ...]:
    """The SQL files the review saw, in path order."""
    code = change.checks.get("code")
    found = code.get("migrations", ()) if isinstance(code, Mapping) else ()
    return tuple(sorted((Migration(item["path"], item["text"]) for item in found), key=lambda item: item.path))
