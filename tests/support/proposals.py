"""Changesets for tests, by comparing two small databases in full."""

from __future__ import annotations

import psycopg

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.provisional import mark_provisional
from orchestrator.core.changeset.rows import Cell, RowChange, RowKind
from orchestrator.core.changeset.shape import TableName, TableShape
from orchestrator.core.promotion.order import PromotionOrder, WriteLimits
from orchestrator.drivers.postgres.apply.relations import identifier
from orchestrator.drivers.postgres.apply.session import Session, begin, connected, rollback
from orchestrator.drivers.postgres.diff.catalog import read_catalog
from orchestrator.drivers.postgres.diff.shapes import table_shapes

Rows = dict[tuple[Cell, ...], dict[str, Cell]]


def read_all(dsn: str) -> tuple[dict[TableName, TableShape], dict[TableName, Rows]]:
    """Every table's shape and rows, as the server prints them."""
    with connected(dsn, purpose="test") as session:
        begin(session, WriteLimits(), read_only=True)
        try:
            shapes = table_shapes(read_catalog(session.connection))
            return shapes, {name: _rows(session, shape) for name, shape in shapes.items()}
        finally:
            rollback(session)


def _rows(session: Session, shape: TableShape) -> Rows:
    names = [column.name for column in shape.columns if column.generated != "virtual"]
    query = psycopg.sql.SQL("SELECT {} FROM {}").format(
        psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, names)), identifier(shape.table)
    )
    rows: list[dict[str, Cell]] = [dict(zip(names, cells, strict=True)) for cells in session.texts(query)]
    return {tuple(row[name] for name in shape.primary_key): row for row in rows}


def compare_in_full(base_dsn: str, sandbox_dsn: str) -> Changeset:
    """The sandbox's changes since the base; a row is one update only while its key stays."""
    shapes, base = read_all(base_dsn)
    _, sandbox = read_all(sandbox_dsn)
    changes: list[RowChange] = []
    for name, shape in shapes.items():
        if not shape.has_key:
            continue
        old_rows, new_rows = base[name], sandbox.get(name, {})
        for key, old in old_rows.items():
            new = new_rows.get(key)
            if new is None:
                changes.append(RowChange(name, RowKind.DELETE, key, old=old))
            elif new != old:
                changes.append(RowChange(name, RowKind.UPDATE, key, old=old, new=new))
        changes += [
            RowChange(name, RowKind.INSERT, key, new=new) for key, new in new_rows.items() if key not in old_rows
        ]
    return Changeset.build("s1", shapes, mark_provisional(shapes, changes))


def order_for(changeset: Changeset, **fields: object) -> PromotionOrder:
    """An order without a tenant guard on any table."""
    values: dict[str, object] = {"unguarded": frozenset(changeset.shapes), **fields}
    return PromotionOrder("p1", changeset, **values)  # type: ignore[arg-type]
