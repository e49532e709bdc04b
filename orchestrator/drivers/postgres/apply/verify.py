"""After the write: were the rows written, do they hold what was approved, and what else did the transaction touch?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.core.changeset.rows import Key, Row, RowKind
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.promotion.catalog import Catalog
from orchestrator.core.promotion.findings import Finding, shown, shown_key
from orchestrator.core.promotion.inverse import goal_key
from orchestrator.core.promotion.order import CellName, PromotionOrder
from orchestrator.core.promotion.planning import RowWrite
from orchestrator.drivers.postgres.apply.rows import read_rows
from orchestrator.drivers.postgres.apply.session import Session

# Counters of this transaction; leaves of partitioned tables are counted on their own.
_COUNTERS = """
SELECT s.schemaname, s.relname, s.n_tup_ins, s.n_tup_upd, s.n_tup_del
  FROM pg_catalog.pg_stat_xact_all_tables s
 WHERE s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0 AND s.schemaname !~ '^pg_'
"""
_KINDS = ("inserted", "updated", "deleted")

Counters = Mapping[TableName, tuple[int, int, int]]


@dataclass
class Verified:
    after: dict[TableName, dict[Key, Row]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    overridden: set[CellName] = field(default_factory=set)  # cells that did not come out as proposed


def read_counters(session: Session) -> dict[TableName, tuple[int, int, int]]:
    return {
        TableName(schema or "", name or ""): (int(inserted or 0), int(updated or 0), int(deleted or 0))
        for schema, name, inserted, updated, deleted in session.texts(_COUNTERS)
    }


def verify(session: Session, order: PromotionOrder, catalog: Catalog, writes: Sequence[RowWrite]) -> Verified:
    """Read every touched row again and compare it with what was approved, cell by cell."""
    verified = Verified()
    goals: dict[TableName, dict[Key, RowWrite]] = {}
    gone: dict[TableName, dict[Key, RowWrite]] = {}
    for write in writes:
        primary = catalog[write.table].shape.primary_key
        if write.kind is RowKind.DELETE:
            gone.setdefault(write.table, {})[write.key] = write
        else:
            goals.setdefault(write.table, {})[goal_key(write, primary)] = write
            if write.kind is RowKind.UPDATE and goal_key(write, primary) != write.key:
                gone.setdefault(write.table, {})[write.key] = write
    left = _left_alone(order.decided)
    derived = _left_alone(order.derived)
    for name in {**goals, **gone}:
        asked = [*goals.get(name, {}), *gone.get(name, {})]
        found = read_rows(session, catalog[name], asked)
        verified.after[name] = found
        computed = catalog[name].shape.computed
        for key, write in goals.get(name, {}).items():
            skipped = computed | left.get(write.id, frozenset())
            _compare(catalog, write, found.get(key), verified, skipped, derived.get(write.id, frozenset()))
        for key, write in gone.get(name, {}).items():
            if key in found and key not in goals.get(name, {}):
                verified.findings.append(_finding(catalog, write, "not_written", "The row is still there."))
    return verified


def _left_alone(cells: Iterable[CellName]) -> dict[str, frozenset[str]]:
    """Columns by row."""
    found: dict[str, set[str]] = {}
    for cell in cells:
        found.setdefault(cell.row, set()).add(cell.column)
    return {row: frozenset(columns) for row, columns in found.items()}


def _compare(
    catalog: Catalog,
    write: RowWrite,
    row: Row | None,
    verified: Verified,
    skipped: frozenset[str],
    derived: frozenset[str],
) -> None:
    if row is None:
        verified.findings.append(_finding(catalog, write, "not_written", "A trigger, rule or policy kept it away."))
        return
    proposed = write.change.new or {}
    # A column that neither the change nor production knew before has its default, whatever that is.
    goals = {**(write.now or {}), **write.cells, **{name: proposed.get(name) for name in derived}}
    for name, cell in row.items():
        if name not in goals or cell == goals[name] or name in skipped:
            continue
        verified.overridden.add(CellName(write.id, name))
        verified.findings.append(
            _finding(
                catalog,
                write,
                "trigger_override",
                f"{name} came out otherwise than approved.",
                name,
                shown(goals[name]),
                cell,
            )
        )


def _finding(
    catalog: Catalog,
    write: RowWrite,
    code: str,
    message: str,
    column: str = "",
    wanted: str | None = None,
    now: object = None,
) -> Finding:
    primary = catalog[write.table].shape.primary_key
    return Finding(
        code,
        message,
        table=str(write.table),
        row=write.id,
        key=shown_key(primary, write.key),
        column=column,
        wanted=wanted,
        now=None if now is None else str(now),
    )


def side_effects(
    before: Counters, after: Counters, writes: Iterable[RowWrite], placeholders: Iterable[RowWrite], catalog: Catalog
) -> tuple[dict[str, dict[str, int]], list[Finding]]:
    """Rows the transaction touched beyond the change, by table: triggers, cascades, rules.

    More deletes than approved are a finding that blocks; other extra writes are told. Partitioned tables are left out:
    their leaves count for themselves.
    """
    planned: dict[TableName, Counter[RowKind]] = {}
    for write in writes:
        if write.kind is not RowKind.UPDATE or write.cells:
            planned.setdefault(write.table, Counter())[write.kind] += 1
    for write in placeholders:
        planned.setdefault(write.table, Counter())[RowKind.UPDATE] += 1
    roots = {table.name for table in catalog if table.shape.partitioned}
    effects: dict[str, dict[str, int]] = {}
    findings: list[Finding] = []
    for name, counts in after.items():
        if name in roots or name not in catalog:
            continue
        own = planned.get(name, Counter())
        extra = {
            label: count - earlier - own[kind]
            for label, kind, count, earlier in zip(
                _KINDS,
                (RowKind.INSERT, RowKind.UPDATE, RowKind.DELETE),
                counts,
                before.get(name, (0, 0, 0)),
                strict=True,
            )
        }
        extra = {label: count for label, count in extra.items() if count > 0}
        if not extra:
            continue
        effects[str(name)] = extra
        words = ", ".join(f"{count} {label}" for label, count in extra.items())
        deletes = "deleted" in extra
        findings.append(
            Finding(
                "cascade" if deletes else "side_effect",
                f"Beyond the change, {words} in {name}.",
                table=str(name),
                blocks=deletes,
            )
        )
    return effects, findings
