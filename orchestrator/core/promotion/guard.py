"""The rules applied to a changeset: what is left out, what is refused, and who has to agree. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import Cell, RowChange, RowKind
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.promotion.findings import Finding, shown, shown_key
from orchestrator.core.promotion.order import Scope
from orchestrator.core.promotion.rules import PromotionRules, TableRule

# A rule written by the company in Python: it looks at one table's rows and says what is wrong with them.
RowValidator = Callable[[Changeset], Iterable[Finding]]


@dataclass(frozen=True)
class Examined:
    """The changeset without the rows production writes by itself, and everything the rules say about it."""

    changeset: Changeset
    findings: tuple[Finding, ...]
    left_out: Mapping[TableName, int]


def examine(
    changeset: Changeset,
    rules: PromotionRules,
    *,
    scope: str | None,
    masked: Collection[tuple[TableName, str]] = (),
    validators: Sequence[RowValidator] = (),
    closed_tables: bool = True,
) -> Examined:
    """Apply the rules for a tenant whose guard columns must hold `scope`. Every violation is listed.

    With `closed_tables` false, rows of tables without a rule are not reported.
    """
    kept, left_out = _without_derived(changeset, rules)
    findings: list[Finding] = []
    for shape in kept.tables:
        rule = rules.rule(shape.table)
        name = str(shape.table)
        if not shape.has_key:
            findings.append(Finding("no_key", f"{name} has no primary key, so its rows cannot be told apart.", name))
        if rule is None:
            if closed_tables:
                findings.append(Finding("table_closed", f"{name} is not among the tables to promote.", name))
            continue
        findings += _of_table(kept, shape.table, rule, rules, scope, frozenset(masked))
    findings += _over_caps(kept, rules)
    for validator in validators:
        findings += validator(kept)
    return Examined(kept, tuple(findings), left_out)


def _without_derived(changeset: Changeset, rules: PromotionRules) -> tuple[Changeset, dict[TableName, int]]:
    left: Counter[TableName] = Counter()
    rows = []
    for row in changeset.rows:
        rule = rules.rule(row.table)
        if rule is not None and rule.written_by == "production":
            left[row.table] += 1
        else:
            rows.append(row)
    if not left:
        return changeset, {}
    kept = Changeset.build(
        changeset.base_snapshot_id, changeset.shapes, rows, changeset.schema_changes, changeset.notes
    )
    return kept, dict(left)


def _of_table(
    changeset: Changeset,
    table: TableName,
    rule: TableRule,
    rules: PromotionRules,
    scope: str | None,
    masked: frozenset[tuple[TableName, str]],
) -> list[Finding]:
    findings: list[Finding] = []
    primary = changeset.shapes[table].primary_key
    computed = {column.name for column in changeset.shapes[table].columns if column.is_computed}
    guard = rules.guard_of(table)
    if guard is not None and guard not in changeset.shapes[table].column_names:
        return [Finding("no_scope", f"{table} has no column {guard} that could name the tenant.", str(table))]
    if guard is None and not rule.unguarded:
        return [Finding("no_scope", f"No tenant column is set for {table}.", str(table))]
    if guard is not None and scope is None:
        text = f"The tenant has no scope, so nothing of {table} can be promoted."
        return [Finding("no_scope", text, str(table))]

    def find(row: RowChange, code: str, message: str, column: str = "", cell: Cell = None, was: Cell = None) -> None:
        findings.append(
            Finding(
                code,
                message,
                str(table),
                row.id(),
                shown_key(primary, row.key),
                column,
                wanted=shown(cell),
                was=shown(was),
            )
        )

    for row in changeset.rows_of(table):
        if row.kind.value not in rule.operations:
            find(row, "operation_closed", f"{row.kind.value.capitalize()}s of {table} may not be promoted.")
        if guard is not None:
            _check_scope(row, guard, scope, find)
        if row.kind is RowKind.UPDATE:
            for name in sorted(set(row.changed_columns) - computed):
                _check_column(row, name, rule, (table, name) in masked, find)
    return findings


def _check_column(row: RowChange, name: str, rule: TableRule, is_masked: bool, find: Callable[..., None]) -> None:
    old, new = (row.old or {}).get(name), (row.new or {}).get(name)
    if is_masked:
        find(row, "masked_cell", f"{name} is masked in the sandbox.", name, new)
    elif not rule.allows(name):
        find(row, "column_closed", f"{row.table}.{name} may not be promoted.", name, new, old)


def _check_scope(row: RowChange, guard: str, scope: str | None, find: Callable[..., None]) -> None:
    old = (row.old or {}).get(guard, scope) if row.old is not None else scope
    new = (row.new or {}).get(guard, scope) if row.new is not None else scope
    if old != scope or (row.old is None and new != scope):
        find(row, "foreign_scope", "The row belongs to another tenant.", guard, new, old)
    elif new != scope:
        find(row, "scope_moved", "The change would move the row to another tenant.", guard, new, old)


def _over_caps(changeset: Changeset, rules: PromotionRules) -> list[Finding]:
    findings = []
    everywhere = changeset.counts()
    for kind in RowKind:
        cap = rules.caps.of(kind)
        if cap is not None and everywhere[kind] > cap:
            findings.append(Finding("over_cap", f"{everywhere[kind]:,} {kind.value}s; at most {cap:,} are allowed."))
    if rules.caps.total is not None and len(changeset) > rules.caps.total:
        findings.append(Finding("over_cap", f"{len(changeset):,} rows; at most {rules.caps.total:,} are allowed."))
    for shape in changeset.tables:
        rule = rules.rule(shape.table)
        counts = changeset.counts(shape.table)
        for kind in RowKind:
            cap = rule.caps.of(kind) if rule else None
            if cap is not None and counts[kind] > cap:
                text = f"{counts[kind]:,} {kind.value}s of {shape.table}; at most {cap:,} are allowed."
                findings.append(Finding("over_cap", text, str(shape.table)))
    return findings


def scopes(rules: PromotionRules, scope: str | None) -> dict[TableName, Scope]:
    """The guards of every table the rules know: parents of other tenants are refused as well."""
    if scope is None:
        return {}
    found = {}
    for written in rules.tables:
        table = TableName.parse(written)
        guard = rules.guard_of(table)
        if guard is not None:
            found[table] = Scope(guard, scope)
    return found


def unguarded(rules: PromotionRules) -> frozenset[TableName]:
    return frozenset(TableName.parse(written) for written, rule in rules.tables.items() if rule.unguarded)


def session_settings(rules: PromotionRules, scope: str | None) -> dict[str, str]:
    """Settings for production's row-level security; `{scope}` stands for the tenant's value."""
    return {name: value.replace("{scope}", scope or "") for name, value in rules.settings.items()}


def approvals_needed(
    rules: PromotionRules, *, rows: int, risks: Collection[str], has_code: bool, has_migrations: bool
) -> int:
    """How many different people must approve."""
    numbers = [rules.approvals.default]
    if rows > rules.approvals.second_above_rows:
        numbers.append(2)
    numbers += [rules.approvals.risks[risk] for risk in risks if risk in rules.approvals.risks]
    if has_code:
        numbers.append(rules.approvals.code)
    if has_migrations:
        numbers.append(rules.approvals.migrations)
    return max(numbers)


def may_pass_alone(rules: PromotionRules, changeset: Changeset, *, risks: Collection[str], has_code: bool) -> bool:
    """Whether the change is small and safe enough to be approved by the rules themselves."""
    auto = rules.auto_approval
    if not auto.enabled or has_code or risks or changeset.is_empty or len(changeset) > auto.rows_max:
        return False
    tables = {TableName.parse(name) for name in auto.tables}
    return all(row.kind.value in auto.operations and row.table in tables for row in changeset.rows)
