"""Single guarded writes: key, old cells and the tenant stand in every condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from orchestrator.core.changeset.rows import Cell, ProvisionalKey, Row, RowChange
from orchestrator.core.changeset.shape import Column, TableName, TableShape
from orchestrator.shadow import together
from orchestrator.shadow.cells import sqlite_raw
from orchestrator.shadow.production import NamedType, Scope, is_postgres, literal, stored_columns, table_of
from orchestrator.shadow.together import take_keys


class Stale(Exception):
    """A guarded write met no row, or more than one."""


@dataclass
class Writer:
    """Writes single rows with old cells, key and tenant in every condition."""

    connection: Connection
    scope: Scope
    shapes: Mapping[TableName, TableShape]
    keys: dict[ProvisionalKey, str] = field(default_factory=dict)

    @property
    def _postgres(self) -> bool:
        return is_postgres(self.connection)

    def delete(self, row: RowChange) -> None:
        shape = self.shapes[row.table]
        old = row.old or {}
        stored = [column for column in stored_columns(shape) if not column.is_computed]
        statement = sa.delete(self._table(shape)).where(
            *self._is(shape, {column.name: old[column.name] for column in stored})
        )
        self._one(statement, row)

    def update(self, row: RowChange) -> None:
        shape = self.shapes[row.table]
        old, new = row.old or {}, row.new or {}
        changed = [name for name in row.changed_columns if not shape.column(name).is_computed]
        if not changed:
            return
        known = dict(zip(shape.primary_key, row.key, strict=True)) | {name: old[name] for name in changed}
        statement = (
            sa.update(self._table(shape))
            .where(*self._is(shape, known))
            .values({name: self._value(shape.column(name), new[name]) for name in changed})
        )
        self._one(statement, row)

    def insert(self, row: RowChange) -> None:
        shape = self.shapes[row.table]
        new = row.new or {}
        assigned = [name for name, cell in new.items() if self._is_own(row, name, cell) and cell not in self.keys]
        values = {
            name: self._value(shape.column(name), cell)
            for name, cell in new.items()
            if name not in assigned and not shape.column(name).is_computed
        }
        table = self._table(shape)
        statement = sa.insert(table).values(values)
        if not assigned:
            self._one(statement, row)
            return
        returned = self.connection.execute(statement.returning(*(table.c[name] for name in assigned))).one()
        for name, value in zip(assigned, returned, strict=True):
            cell = new[name]
            if isinstance(cell, ProvisionalKey):
                self.keys[cell] = str(value)

    def insert_group(self, rows: Sequence[RowChange]) -> None:
        """New rows that refer to each other in a circle. Raises Stale."""
        taken: dict[str, int] = {}
        for row in rows:
            own = [name for name, cell in (row.new or {}).items() if self._is_own(row, name, cell)]
            for name, key in zip(own, take_keys(self.connection, self.shapes[row.table], own, taken), strict=True):
                cell = (row.new or {})[name]
                if isinstance(cell, ProvisionalKey):
                    self.keys[cell] = key
        if not self._postgres:
            for row in rows:
                self.insert(row)
        elif together.insert(self.connection, [(row, self.shapes[row.table]) for row in rows], self.keys) != len(rows):
            raise Stale(str(rows[0].table))

    def delete_group(self, rows: Sequence[RowChange]) -> None:
        """Rows that refer to each other in a circle, gone at once. Raises Stale."""
        if not self._postgres:
            for row in rows:
                self.delete(row)
        elif together.delete(self.connection, [(row, self.shapes[row.table]) for row in rows], self.scope) != len(rows):
            raise Stale(str(rows[0].table))

    def _is_own(self, row: RowChange, name: str, cell: Cell) -> bool:
        return isinstance(cell, ProvisionalKey) and (cell.table, cell.column) == (row.table, name)

    def _one(self, statement: sa.Update | sa.Delete | sa.Insert, row: RowChange) -> None:
        if self.connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount != 1:
            raise Stale(str(row.table))

    def _table(self, shape: TableShape) -> sa.TableClause:
        return table_of(shape, postgres=self._postgres)

    def _is(self, shape: TableShape, cells: Row) -> list[sa.ColumnElement[bool]]:
        table = self._table(shape)
        found = [equals(table, shape.column(name), cell, postgres=self._postgres) for name, cell in cells.items()]
        if self.scope.holds(shape) and self.scope.column is not None:
            found.append(table.c[self.scope.column] == self.scope.value)
        return found

    def _value(self, column: Column, cell: Cell) -> sa.ColumnElement[Any]:
        if isinstance(cell, ProvisionalKey):
            if cell not in self.keys:
                raise Stale(f"{cell.table}: new rows refer to each other in a circle")
            cell = self.keys[cell]
        if self._postgres:
            return sa.cast(sa.literal(cell, sa.Text()), NamedType(column.cast))
        return literal(sqlite_raw(column, cell))


def equals(table: sa.TableClause, column: Column, cell: Cell, *, postgres: bool) -> sa.ColumnElement[bool]:
    """Null-safe and exact: text on both sides through the column's own type; on SQLite storage class and bytes."""
    own = table.c[column.name]
    text = cell.text if isinstance(cell, ProvisionalKey) else cell
    if postgres:
        goal = sa.cast(sa.cast(sa.literal(text, sa.Text()), NamedType(column.cast)), sa.Text)
        return sa.cast(own, sa.Text).is_not_distinct_from(goal)
    if text is None:
        return own.is_(None)
    value = literal(sqlite_raw(column, text))
    return sa.and_(sa.func.typeof(own) == sa.func.typeof(value), sa.collate(own, "BINARY") == value)
