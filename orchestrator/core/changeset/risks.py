"""What a reviewer should see before anything else. Flags inform; what may be promoted is decided elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import RowChange, RowKind
from orchestrator.core.changeset.shape import TableName

MONEY = r"amount|balance|budget|commission|cost|credit|debit|discount|fee|invoice|margin|pay(ment|out|roll)?|price|rate"
MONEY += r"|refund|revenue|salary|tax|total|wage|iban|account_number"
PERMISSION = r"access|admin|api_key|grant(ed)?|is_staff|is_superuser|password|permission|privilege|role|scope|secret"
PERMISSION += r"|token|two_factor|mfa"


class RiskKind(StrEnum):
    DELETES = "deletes"
    MANY_ROWS = "many_rows"
    MONEY = "money"
    PERMISSIONS = "permissions"
    KEY_CHANGE = "key_change"
    STALE_BASE = "stale_base"
    MASKED_CELLS = "masked_cells"
    NO_KEY = "no_key"
    SCHEMA_DIFFERS = "schema_differs"
    UNREADABLE_TEXT = "unreadable_text"


class Severity(StrEnum):
    NOTICE = "notice"
    WARNING = "warning"
    BLOCKING = "blocking"  # promote will refuse it


@dataclass(frozen=True)
class Risk:
    kind: RiskKind
    severity: Severity
    sentence: str
    table: TableName | None = None
    rows: int = 0


@dataclass(frozen=True)
class RiskRules:
    """When a flag goes up. Patterns match whole words of a column's name, parts divided by underscores."""

    many_rows: int = 1000
    stale_after: timedelta = timedelta(hours=8)
    money: str = MONEY
    permission: str = PERMISSION


@dataclass(frozen=True)
class RiskContext:
    """What the changeset itself does not know."""

    base_age: timedelta | None = None
    masked_columns: Mapping[TableName, frozenset[str]] = field(default_factory=dict)


def assess(
    changeset: Changeset, rules: RiskRules | None = None, context: RiskContext | None = None
) -> tuple[Risk, ...]:
    """Every flag that goes up, the worst first."""
    rules, context = rules or RiskRules(), context or RiskContext()
    found: list[Risk] = []
    for change in changeset.schema_changes:
        found.append(
            Risk(
                RiskKind.SCHEMA_DIFFERS,
                Severity.BLOCKING,
                f"{change.table}: {change.detail}. Schema changes travel with the code, as migrations.",
                change.table,
            )
        )
    if context.base_age is not None and context.base_age > rules.stale_after and not changeset.is_empty:
        hours = context.base_age.total_seconds() / 3600
        found.append(
            Risk(RiskKind.STALE_BASE, Severity.WARNING, f"The base snapshot is {hours:.0f} hours old; rebase first.")
        )
    for shape in changeset.tables:
        found += _of_table(changeset, shape.table, rules, context)
    order = {Severity.BLOCKING: 0, Severity.WARNING: 1, Severity.NOTICE: 2}
    return tuple(sorted(found, key=lambda risk: order[risk.severity]))


def _of_table(changeset: Changeset, table: TableName, rules: RiskRules, context: RiskContext) -> list[Risk]:
    rows = changeset.rows_of(table)
    found: list[Risk] = []

    def flag(kind: RiskKind, severity: Severity, count: int, sentence: str) -> None:
        if count:
            found.append(Risk(kind, severity, f"{table}: {sentence}", table, count))

    if not changeset.shapes[table].has_key:
        flag(RiskKind.NO_KEY, Severity.BLOCKING, len(rows), "it has no primary key, so its rows cannot be promoted.")
    masked = context.masked_columns.get(table, frozenset())
    edited = _writing(rows, masked)
    flag(RiskKind.MASKED_CELLS, Severity.BLOCKING, edited, _said(edited, "writes", "write", "to masked columns."))
    deleted = sum(row.kind is RowKind.DELETE for row in rows)
    flag(RiskKind.DELETES, Severity.WARNING, deleted, _said(deleted, "is", "are", "deleted."))
    many = len(rows) if len(rows) >= rules.many_rows else 0
    flag(RiskKind.MANY_ROWS, Severity.WARNING, many, _said(many, "differs", "differ", "from the snapshot."))
    moved = sum(changeset.changes_key(row) for row in rows)
    flag(
        RiskKind.KEY_CHANGE,
        Severity.WARNING,
        moved,
        _said(moved, "changes its", "change their", "key; references follow."),
    )
    for kind, pattern, what in (
        (RiskKind.MONEY, rules.money, "money"),
        (RiskKind.PERMISSIONS, rules.permission, "permissions"),
    ):
        columns = _named_like(changeset, table, pattern)
        touched = _writing(rows, columns)
        listed = ", ".join(sorted(columns))
        flag(
            kind,
            Severity.WARNING,
            touched,
            _said(touched, "writes", "write", f"columns that look like {what} ({listed})."),
        )
    broken = sum(_has_raw_bytes(row) for row in rows)
    flag(RiskKind.UNREADABLE_TEXT, Severity.NOTICE, broken, _said(broken, "holds", "hold", "bytes that are not UTF-8."))
    return found


def _said(count: int, one: str, more: str, what: str) -> str:
    return f"{count:,} {f'row {one}' if count == 1 else f'rows {more}'} {what}"


def _named_like(changeset: Changeset, table: TableName, pattern: str) -> frozenset[str]:
    word = re.compile(rf"(?:^|_)(?:{pattern})s?(?:_|$)", re.IGNORECASE)
    return frozenset(
        column.name
        for column in changeset.shapes[table].columns
        if word.search(column.name) or (column.base == "money" and pattern == MONEY)
    )


def _writing(rows: tuple[RowChange, ...], columns: frozenset[str]) -> int:
    """Rows that put a value into one of these columns."""
    if not columns:
        return 0
    return sum(row.new is not None and not columns.isdisjoint(row.changed_columns) for row in rows)


def _has_raw_bytes(row: RowChange) -> bool:
    for cell in (row.new or {}).values():
        if isinstance(cell, str) and not cell.isascii() and any("\udc80" <= letter <= "\udcff" for letter in cell):
            return True
    return False
