"""The three-way comparison: base snapshot, proposal and production now become writes or findings. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core.changeset.rows import Cell, Key, ProvisionalKey, Row, RowChange, RowKind
from orchestrator.core.changeset.shape import Generated, TableName
from orchestrator.core.promotion.catalog import Catalog, ProductionTable
from orchestrator.core.promotion.findings import Finding, shown, shown_key
from orchestrator.core.promotion.order import CellName, PromotionOrder, Scope

RowsNow = Mapping[TableName, Mapping[Key, Row]]


@dataclass
class RowWrite:
    """One row to write. `cells` may hold provisional keys until they are replaced; `now` is the locked row."""

    id: str
    change: RowChange
    key: Key  # production's current key; the proposed one for inserts
    cells: dict[str, Cell]
    now: Row | None = None

    @property
    def table(self) -> TableName:
        return self.change.table

    @property
    def kind(self) -> RowKind:
        return self.change.kind


@dataclass
class Plan:
    writes: list[RowWrite] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unchanged: int = 0


@dataclass
class Spellings:
    """Compares cells by text, and remembers texts whose spelling production has to settle before they differ.

    Cells are printed by PostgreSQL on both sides under the same settings, so equal text is equal value; a cell that
    was spelled by another version or a person may differ in text alone. Fill `canonical` from `open` and plan again.
    """

    canonical: dict[tuple[TableName, str, str], str] = field(default_factory=dict)
    open: set[tuple[TableName, str, str]] = field(default_factory=set)

    def same(self, table: TableName, column: str, first: Cell, second: Cell) -> bool:
        if first == second:
            return True
        if not isinstance(first, str) or not isinstance(second, str):
            return False
        return self._settle(table, column, first) == self._settle(table, column, second)

    def _settle(self, table: TableName, column: str, text: str) -> str:
        name = (table, column, text)
        if name not in self.canonical:
            self.open.add(name)
            return text
        return self.canonical[name]


def plan_writes(order: PromotionOrder, catalog: Catalog, now: RowsNow, spellings: Spellings) -> Plan:
    """Compare every row of the change with production now.

    Rows that already stand as proposed are counted as unchanged; whatever cannot be written safely is a finding.
    """
    plan = Plan()
    computed = {name: table.shape.computed for name, table in catalog.tables.items()}
    for change in order.changeset.rows:
        table = catalog.tables.get(change.table)
        if table is None:
            continue  # reported as drift
        _Row(order, table, change, plan, spellings, computed[change.table]).compare(
            now.get(change.table, {}).get(change.key)
        )
    return plan


def drift(order: PromotionOrder, catalog: Catalog) -> list[Finding]:
    """Tables whose columns, types or key in production are not those the change was made on."""
    findings = []
    for shape in order.changeset.tables:
        name = str(shape.table)
        table = catalog.tables.get(shape.table)
        if table is None:
            findings.append(Finding("schema_drift", f"{name} does not exist in production.", table=name))
            continue
        for column in shape.columns:
            if column.generated is Generated.VIRTUAL:
                continue
            try:
                there = table.shape.column(column.name)
            except KeyError:
                text = f"{name} has no column {column.name} in production."
                findings.append(Finding("schema_drift", text, table=name, column=column.name))
                continue
            if there.type != column.type or there.generated is not column.generated:
                text = f"{name}.{column.name} is {there.type} in production and {column.type} in the snapshot."
                findings.append(Finding("schema_drift", text, table=name, column=column.name))
        if table.shape.primary_key != shape.primary_key:
            findings.append(Finding("schema_drift", f"{name} has another primary key in production.", table=name))
        if not shape.has_key:
            text = f"{name} has no primary key, so its rows cannot be told apart."
            findings.append(Finding("no_key", text, table=name))
    findings += [
        Finding(
            "schema_drift",
            f"The sandbox changed the schema of {item.table}: {item.detail}.",
            table=str(item.table),
            blocks=not order.migrations,  # schema travels as a migration; its rows are checked after it ran
        )
        for item in order.changeset.schema_changes
        if item.table in order.changeset.shapes
    ]
    return findings


class _Row:
    """One row's comparison; findings and the write go to the plan."""

    def __init__(
        self,
        order: PromotionOrder,
        table: ProductionTable,
        change: RowChange,
        plan: Plan,
        spellings: Spellings,
        computed: frozenset[str],
    ) -> None:
        self.order = order
        self.table = table
        self.change = change
        self.plan = plan
        self.spellings = spellings
        self.id = change.id()
        self.scope = order.scopes.get(change.table)
        self.found_any = False
        self.computed = computed

    def compare(self, now: Row | None) -> None:
        if not self.change.key:
            return  # reported once for the table
        self._guard(now)
        if self.change.kind is RowKind.INSERT:
            self._insert(now)
        elif now is None:
            if self.change.kind is RowKind.DELETE:
                self.plan.unchanged += 1
            else:
                self._find("row_gone", "The row was deleted in production after the snapshot.")
        elif self.change.kind is RowKind.DELETE:
            self._delete(now)
        else:
            self._update(now)

    def _same(self, column: str, first: Cell, second: Cell) -> bool:
        return self.spellings.same(self.change.table, column, first, second)

    def _masked(self, column: str) -> bool:
        return (self.change.table, column) in self.order.masked

    def _find(
        self, code: str, message: str, column: str = "", *, was: Cell = None, wanted: Cell = None, now: Cell = None
    ) -> None:
        self.found_any = True
        self.plan.findings.append(
            Finding(
                code,
                message,
                table=str(self.change.table),
                row=self.id,
                key=shown_key(self.table.shape.primary_key, self.change.key),
                column=column,
                was=shown(was),
                wanted=shown(wanted),
                now=shown(now),
            )
        )

    def _write(self, key: Key, cells: dict[str, Cell], now: Row | None) -> None:
        if not self.found_any:
            self.plan.writes.append(RowWrite(self.id, self.change, key, cells, now))

    def _guard(self, now: Row | None) -> None:
        if self.scope is None:
            if self.change.table not in self.order.unguarded:
                self._find("no_scope", "No tenant guard is set for this table.")
            return
        sides = [self.change.old, now] if self.change.kind is not RowKind.INSERT else [now, self.change.new]
        for side in sides:
            if self._is_outside(side, self.scope, "foreign_scope", "The row belongs to another tenant."):
                return  # once is enough
        if self.change.kind is RowKind.UPDATE:
            text = "The change would move the row to another tenant."
            self._is_outside(self.change.new, self.scope, "scope_moved", text)

    def _is_outside(self, side: Row | None, scope: Scope, code: str, message: str) -> bool:
        if side is None or self._masked(scope.column):
            return False
        cell = side.get(scope.column)
        if self._same(scope.column, cell, scope.value):
            return False
        self._find(code, message, scope.column, wanted=cell)
        return True

    def _update(self, now: Row) -> None:
        old, new = self.change.old or {}, self.change.new or {}
        cells: dict[str, Cell] = {}
        waits_for_trigger = False
        for name in self.change.changed_columns:
            column = self.table.shape.column(name) if name in now else None
            if column is None or column.is_computed or CellName(self.id, name) in self.order.decided:
                continue
            if self._masked(name):
                self._find("masked_cell", f"{name} is masked in the sandbox.", name, wanted=new[name])
            elif now[name] != old[name] and self._same(name, now[name], new[name]):
                continue
            elif not self._same(name, now[name], old[name]):
                text = f"{name} was changed in production after the snapshot."
                self._find("cell_conflict", text, name, was=old[name], wanted=new[name], now=now[name])
            elif column.generated is Generated.IDENTITY_ALWAYS:
                self._find("key_change_refused", f"{name} is always assigned by production.", name, wanted=new[name])
            elif CellName(self.id, name) in self.order.derived:
                waits_for_trigger = True  # nothing is written here, yet the cell must come out as proposed
            else:
                cells[name] = new[name]
        if self.order.strict:
            self._untouched(old, now, skip=frozenset(self.change.changed_columns))
        if cells or waits_for_trigger:
            self._write(self.change.key, cells, now)
        elif not self.found_any:
            self.plan.unchanged += 1

    def _untouched(self, old: Row, now: Row, *, skip: frozenset[str] = frozenset()) -> None:
        for name, cell in old.items():
            if name in skip or name not in now or self._left_alone(name):
                continue
            if not self._same(name, now[name], cell):
                text = f"{name} was changed in production after the snapshot."
                self._find("row_changed", text, name, was=cell, now=now[name])

    def _left_alone(self, name: str) -> bool:
        """Columns whose cells say nothing about whether somebody touched the row."""
        is_decided = CellName(self.id, name) in self.order.decided
        return is_decided or self._masked(name) or name in self.computed

    def _delete(self, now: Row) -> None:
        self._untouched(self.change.old or {}, now)
        self._write(self.change.key, {}, now)

    def _insert(self, now: Row | None) -> None:
        new = self.change.new or {}
        provisional = any(isinstance(cell, ProvisionalKey) for cell in self.change.key)
        if now is not None and not provisional:
            different = [
                name
                for name, cell in new.items()
                if name in now and name not in self.computed and not self._same(name, now[name], cell)
            ]
            if not different:
                if not self.found_any:
                    self.plan.unchanged += 1
                return
            for name in different:
                self._find("row_exists", "Production has this key already.", name, wanted=new[name], now=now[name])
            return
        cells = {
            name: cell
            for name, cell in new.items()
            if name not in self.computed and CellName(self.id, name) not in self.order.left_out
        }
        self._write(self.change.key, cells, None)
