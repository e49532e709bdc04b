"""Writes a changeset to production through SQLAlchemy Core: one transaction, every write guarded, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from orchestrator.core.changeset.carry import Carried, carry, keys_needed
from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import Cell, Key, ProvisionalKey, Row, RowChange, RowKind
from orchestrator.core.changeset.shape import Column, TableName, TableShape
from orchestrator.shadow.cells import sqlite_raw
from orchestrator.shadow.errors import CommitConflict, CommitUncertain
from orchestrator.shadow.ordering import children_first, parents_first, refers_to_itself
from orchestrator.shadow.production import (
    NamedType,
    ProductionTables,
    Scope,
    in_dependency_order,
    is_postgres,
    literal,
    pin,
    read_rows,
    stored_columns,
    table_of,
)
from orchestrator.shadow.writing import Stale, Writer

KEYS_PER_QUERY = 200


@dataclass(frozen=True)
class CommitResult:
    """What was written. `keys` tells which key production gave to each new row."""

    inserted: int
    updated: int
    deleted: int
    already_done: int
    keys: Mapping[ProvisionalKey, Any]


def commit(engine: Engine, tables: ProductionTables, changeset: Changeset, scope: Scope) -> CommitResult:
    """Raises CommitConflict with every row that moved; then, and after any other error, nothing is written."""
    try:
        with engine.connect() as connection:
            if not is_postgres(connection):
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
            pin(connection)
            carried = _check(connection, changeset, scope, lock=is_postgres(connection))
            _refuse_unseen(connection, tables, carried.changeset)
            writer = _write(connection, tables, carried.changeset, scope)
            connection.commit()
    except sa.exc.DBAPIError as error:
        if error.connection_invalidated:
            raise CommitUncertain(
                "The connection to production was lost.",
                effect="It is not known whether the rows were written.",
                next_step="Look at the rows in production before trying again.",
            ) from error
        raise CommitConflict(f"Production refused the rows: {str(error.orig).splitlines()[0]}.") from error
    counts = carried.changeset.counts()
    return CommitResult(
        counts[RowKind.INSERT],
        counts[RowKind.UPDATE],
        counts[RowKind.DELETE],
        len(carried.done),
        dict(writer.keys),
    )


def _check(connection: Connection, changeset: Changeset, scope: Scope, *, lock: bool) -> Carried:
    """Three-way against production now, with the rows locked. Raises CommitConflict with every conflict."""
    now: dict[TableName, dict[Key, Row]] = {}
    for name, keys in sorted(keys_needed(changeset).items()):
        shape = changeset.shapes[name]
        if lock:
            _lock(connection, shape, keys, scope)
        now[name] = _rows_by_key(connection, shape, keys, scope)
    carried = carry(changeset, now, new_base_id=changeset.base_snapshot_id)
    if carried.conflicts:
        raise CommitConflict("Production has moved since the rows were copied.", carried.conflicts)
    return carried


def _lock(connection: Connection, shape: TableShape, keys: Iterable[Key], scope: Scope) -> None:
    table = table_of(shape, postgres=True)
    for condition in _conditions(connection, shape, keys, scope):
        query = sa.select(sa.literal(1)).select_from(table).where(condition)
        connection.execute(query.with_for_update(nowait=True)).all()


def _rows_by_key(connection: Connection, shape: TableShape, keys: Iterable[Key], scope: Scope) -> dict[Key, Row]:
    names = [column.name for column in stored_columns(shape)]
    positions = [names.index(name) for name in shape.primary_key]
    return {
        tuple(cells[position] for position in positions): dict(zip(names, cells, strict=True))
        for condition in _conditions(connection, shape, keys, scope)
        for cells in read_rows(connection, shape, condition)
    }


def _conditions(
    connection: Connection, shape: TableShape, keys: Iterable[Key], scope: Scope
) -> Iterable[sa.ColumnElement[bool]]:
    postgres = is_postgres(connection)
    table = table_of(shape, postgres=postgres)
    ordered = sorted(keys, key=str)
    for start in range(0, len(ordered), KEYS_PER_QUERY):
        one_of = sa.or_(
            *(
                sa.and_(
                    *(
                        _key_equals(table, shape.column(name), cell, postgres=postgres)
                        for name, cell in zip(shape.primary_key, key, strict=True)
                    )
                )
                for key in ordered[start : start + KEYS_PER_QUERY]
            )
        )
        if scope.holds(shape) and scope.column is not None:
            one_of = sa.and_(one_of, table.c[scope.column] == scope.value)
        yield one_of


def _key_equals(table: sa.TableClause, column: Column, cell: Cell, *, postgres: bool) -> sa.ColumnElement[bool]:
    """By the key's own equality, so that its index serves; the cells are compared exactly afterwards."""
    if postgres:
        return table.c[column.name] == sa.cast(sa.literal(str(cell), sa.Text()), NamedType(column.cast))
    return table.c[column.name] == literal(sqlite_raw(column, None if cell is None else str(cell)))


def _refuse_unseen(connection: Connection, tables: ProductionTables, changeset: Changeset) -> None:
    """Rows nobody has seen must not change because their parent does. Raises CommitConflict."""
    postgres = is_postgres(connection)
    for name, key in tables.referring:
        leaving = [
            row.old
            for row in changeset.rows_of(key.references)
            if row.old is not None
            and (row.new is None or any(row.new[column] != row.old[column] for column in key.referenced_columns))
        ]
        seen = {row.key for row in changeset.rows_of(name) if row.old is not None}
        for old in leaving:
            found = _referring_keys(
                connection, tables, name, key.columns, [old[c] for c in key.referenced_columns], postgres
            )
            unseen = [child for child in found if child not in seen]
            if unseen:
                raise CommitConflict(
                    f"{len(unseen)} rows of {name} refer to a row of {key.references} that would go or change its key, "
                    "and they are not part of the difference."
                )


def _referring_keys(
    connection: Connection,
    tables: ProductionTables,
    name: TableName,
    columns: Sequence[str],
    cells: Sequence[Cell],
    postgres: bool,
) -> list[Key]:
    shape = tables.all_shapes[name]
    table = table_of(shape, postgres=postgres)
    condition = sa.and_(
        *(
            _key_equals(table, shape.column(column), cell, postgres=postgres)
            for column, cell in zip(columns, cells, strict=True)
        )
    )
    names = [column.name for column in stored_columns(shape)]
    return [
        tuple(row[names.index(column)] for column in shape.primary_key)
        for row in read_rows(connection, shape, condition)
    ]


def _write(connection: Connection, tables: ProductionTables, changeset: Changeset, scope: Scope) -> Writer:
    """Deletes first (they free unique values); where references forbid that order, inserts first."""
    orders: list[Callable[[Writer], None]] = [
        lambda writer: _in_order(writer, tables, changeset, (RowKind.DELETE, RowKind.UPDATE, RowKind.INSERT)),
        lambda writer: _in_order(writer, tables, changeset, (RowKind.INSERT, RowKind.UPDATE, RowKind.DELETE)),
    ]
    for number, write in enumerate(orders, 1):
        writer = Writer(connection, scope, changeset.shapes)
        savepoint = connection.begin_nested()
        try:
            if is_postgres(connection):
                connection.exec_driver_sql("SET CONSTRAINTS ALL DEFERRED")
            write(writer)
            if is_postgres(connection):
                connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
            savepoint.commit()
        except (sa.exc.IntegrityError, Stale) as error:
            savepoint.rollback()
            if number == len(orders):
                if isinstance(error, Stale):
                    raise CommitConflict(f"A guarded write met no row: {error}.") from error
                raise
        else:
            return writer
    raise AssertionError("unreachable")


def _in_order(writer: Writer, tables: ProductionTables, changeset: Changeset, kinds: Sequence[RowKind]) -> None:
    names = in_dependency_order(tables.shapes, [shape.table for shape in changeset.tables])
    late: list[RowChange] = []
    for kind in kinds:
        rows = [row for name in names for row in changeset.rows_of(name) if row.kind is kind]
        if kind is RowKind.INSERT:
            for group in parents_first(rows, changeset.shapes):
                if len(group) > 1 or refers_to_itself(group[0]):
                    writer.insert_group(group)
                else:
                    writer.insert(group[0])
        elif kind is RowKind.UPDATE:
            late += _update_all(writer, rows)
        else:
            for group in children_first(rows, changeset.shapes):
                if len(group) > 1:
                    writer.delete_group(group)
                else:
                    writer.delete(group[0])
    for row in late:
        writer.update(row)


def _update_all(writer: Writer, rows: Iterable[RowChange]) -> list[RowChange]:
    """Rows that refer to new rows not written yet wait until the end."""
    late: list[RowChange] = []
    for row in rows:
        if any(isinstance(cell, ProvisionalKey) and cell not in writer.keys for cell in (row.new or {}).values()):
            late.append(row)
        else:
            writer.update(row)
    return late
