"""Rows that refer to each other in a circle, written as one: with their keys taken beforehand.

PostgreSQL checks references at the end of a statement, so one statement of several parts may close a circle even
where no column may be NULL and nothing is deferrable. SQLite defers every reference to the end of the transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from orchestrator.core.changeset.rows import ProvisionalKey, RowChange
from orchestrator.core.changeset.shape import Column, Generated, TableShape
from orchestrator.shadow.errors import CommitConflict
from orchestrator.shadow.production import Scope, is_postgres, table_of

TOGETHER_MAX = 1_000


class Statement:
    """One statement under construction: text, and its parameters by name."""

    def __init__(self, connection: Connection) -> None:
        self._quote = connection.dialect.identifier_preparer.quote
        self.parameters: dict[str, Any] = {}

    def name(self, *parts: str) -> str:
        """Quoted; a colon must not be taken for a parameter."""
        return ".".join(self._quote(part) for part in parts).replace(":", "\\:")

    def table(self, shape: TableShape) -> str:
        return self.name(shape.table.schema, shape.table.name)

    def cell(self, column: Column, text: str | None) -> str:
        """A parameter that goes in as text and becomes the column's type there."""
        known = f"p{len(self.parameters)}"
        self.parameters[known] = text
        return f"CAST(CAST(:{known} AS text) AS {column.cast.replace(':', chr(92) + ':')})"


def take_keys(connection: Connection, shape: TableShape, columns: Sequence[str], taken: dict[str, int]) -> list[str]:
    """The next values production assigns to these columns. `taken` remembers what was taken on SQLite."""
    found: list[str] = []
    for name in columns:
        column = shape.column(name)
        if is_postgres(connection):
            found.append(str(connection.execute(sa.text(_next_value(connection, shape, column))).scalar_one()))
            continue
        table = table_of(shape, postgres=False)
        highest = connection.execute(sa.select(sa.func.coalesce(sa.func.max(table.c[name]), 0))).scalar_one()
        place = f"{shape.table}.{name}"
        taken[place] = max(int(highest), _counted(connection, shape), taken.get(place, 0)) + 1
        found.append(str(taken[place]))
    return found


def _next_value(connection: Connection, shape: TableShape, column: Column) -> str:
    if column.generated is Generated.SEQUENCE and column.default is not None:
        return f"SELECT {column.default.replace(':', chr(92) + ':')}"
    quote = connection.dialect.identifier_preparer.quote
    table = f"{quote(shape.table.schema)}.{quote(shape.table.name)}".replace("'", "''").replace(":", "\\:")
    name = column.name.replace("'", "''").replace(":", "\\:")
    return f"SELECT pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('{table}', '{name}'))"


def _counted(connection: Connection, shape: TableShape) -> int:
    """Where SQLite's AUTOINCREMENT stands: it never gives a key twice, even of a row that is gone."""
    if not connection.execute(sa.text("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'")).first():
        return 0
    query = sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name")
    return int(connection.execute(query, {"name": shape.table.name}).scalar() or 0)


def insert(
    connection: Connection, rows: Sequence[tuple[RowChange, TableShape]], keys: dict[ProvisionalKey, str]
) -> int:
    """All rows in one statement of PostgreSQL, every provisional key known. Returns how many were written."""
    statement = Statement(connection)
    parts: list[str] = []
    for row, shape in rows:
        cells = [
            (shape.column(name), keys[cell] if isinstance(cell, ProvisionalKey) else cell)
            for name, cell in (row.new or {}).items()
            if not shape.column(name).is_computed
        ]
        names = ", ".join(statement.name(column.name) for column, _ in cells)
        values = ", ".join(statement.cell(column, text) for column, text in cells)
        parts.append(f"INSERT INTO {statement.table(shape)} ({names}) OVERRIDING SYSTEM VALUE VALUES ({values})")
    return _run(connection, statement, parts)


def delete(connection: Connection, rows: Sequence[tuple[RowChange, TableShape]], scope: Scope) -> int:
    """The same for rows that go: key, every old cell and the tenant stand in each condition."""
    statement = Statement(connection)
    parts: list[str] = []
    for row, shape in rows:
        conditions = [
            f"CAST({statement.name(name)} AS text) IS NOT DISTINCT FROM "
            f"CAST({statement.cell(shape.column(name), None if cell is None else str(cell))} AS text)"
            for name, cell in (row.old or {}).items()
            if not shape.column(name).is_computed
        ]
        if scope.column is not None and scope.holds(shape):
            statement.parameters["tenant"] = scope.value
            conditions.append(f"{statement.name(scope.column)} = :tenant")
        parts.append(f"DELETE FROM {statement.table(shape)} WHERE {' AND '.join(conditions)}")
    return _run(connection, statement, parts)


def _run(connection: Connection, statement: Statement, parts: Sequence[str]) -> int:
    if len(parts) > TOGETHER_MAX:
        raise CommitConflict(f"{len(parts)} rows refer to each other in one circle; {TOGETHER_MAX} may.")
    chain = ", ".join(f"w{at} AS ({part} RETURNING 1)" for at, part in enumerate(parts))
    counts = " + ".join(f"(SELECT count(*) FROM w{at})" for at in range(len(parts)))
    return int(connection.execute(sa.text(f"WITH {chain} SELECT {counts}"), statement.parameters).scalar_one())
