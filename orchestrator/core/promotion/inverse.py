"""The changeset that undoes a promote, from the rows before and after it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import Key, Row, RowChange, RowKind
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.promotion.catalog import Catalog
from orchestrator.core.promotion.planning import RowWrite


def inverse_changeset(
    promotion_id: str,
    writes: Iterable[RowWrite],
    after: Mapping[TableName, Mapping[Key, Row]],
    catalog: Catalog,
    guards: Mapping[TableName, str],
) -> Changeset:
    """Undo `writes`. Keys are production's own, so deleted rows come back under their original ones.

    An update keeps only the cells it changed, its key and the guard's column: what nobody touched is not remembered.
    """
    rows: list[RowChange] = []
    computed = {table.name: table.shape.computed for table in catalog}
    for write in writes:
        shape, left_out = catalog[write.table].shape, computed[write.table]
        if write.kind is RowKind.DELETE:
            before = write.now or {}
            stored = {name: cell for name, cell in before.items() if name not in left_out}
            rows.append(RowChange(write.table, RowKind.INSERT, write.key, new=stored))
            continue
        key = goal_key(write, shape.primary_key)
        row = after[write.table][key]
        if write.kind is RowKind.INSERT:
            rows.append(RowChange(write.table, RowKind.DELETE, key, old=row))
            continue
        before = write.now or {}
        kept = {name for name in row if row[name] != before.get(name) and name not in left_out}
        if not kept:
            continue
        kept |= {*shape.primary_key, *filter(None, [guards.get(write.table)])}
        rows.append(
            RowChange(
                write.table,
                RowKind.UPDATE,
                key,
                old={name: row[name] for name in row if name in kept},
                new={name: before[name] for name in row if name in kept},
            )
        )
    shapes = {table.name: table.shape for table in catalog}
    return Changeset.build(f"promotion:{promotion_id}", shapes, rows)


def goal_key(write: RowWrite, primary_key: tuple[str, ...]) -> Key:
    """The key the row has once written. Provisional keys must have been replaced."""
    return tuple(
        write.cells.get(name, cell) if write.kind is not RowKind.DELETE else cell
        for name, cell in zip(primary_key, write.key, strict=True)
    )
