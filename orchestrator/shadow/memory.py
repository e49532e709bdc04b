"""The sandbox in memory: SQLite holding the tenant's rows of a SQLite or PostgreSQL production."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import StaticPool

from orchestrator.core.changeset.joining import TextCells
from orchestrator.core.changeset.shape import Column, TableName, TableShape, TypeKind
from orchestrator.shadow.cells import Raw, postgres_to_sqlite, sqlite_cell, sqlite_raw, sqlite_to_postgres
from orchestrator.shadow.errors import InvalidShadow
from orchestrator.shadow.production import (
    cell_columns,
    is_broken,
    is_postgres,
    literal,
    raw_values,
    stored_columns,
    table_of,
)
from orchestrator.shadow.values import stored, teach

_LITERAL = re.compile(r"^('(?:[^']|'')*'|-?\d+(?:\.\d+)?|true|false)(?:::.*)?$", re.IGNORECASE)
_NOW = re.compile(r"^(now\(\)|CURRENT_TIMESTAMP)$", re.IGNORECASE)
# Names that give a column the right affinity; decimals get none, so that exact numbers and long texts both stay.
_DECLARED = {"bool": "BOOLEAN", "bytea": "BLOB", "numeric": "DECIMAL_BLOB", "float4": "REAL", "float8": "REAL"}
_DECLARED |= dict.fromkeys(("int2", "int4", "int8", "oid"), "INTEGER")


class MemorySandbox:
    """Unchanged cells keep production's text; only what was written is translated back: nothing is lost on the way."""

    def __init__(self, production: Connection, shapes: Mapping[TableName, TableShape]) -> None:
        self._postgres = is_postgres(production)
        self._shapes = shapes
        self._loaded: dict[TableName, dict[tuple[Raw, ...], tuple[tuple[Raw, ...], TextCells]]] = {}
        names = [shape.table.name for shape in shapes.values()]
        if len(set(names)) != len(names):
            raise InvalidShadow("Two tables of one name in different schemas need a scratch PostgreSQL.")
        self.engine: Engine = sa.create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        if self._postgres:
            teach(self.engine.dialect)
        with self.engine.begin() as connection:
            for shape in shapes.values():
                for statement in self._definition(production, shape):
                    connection.exec_driver_sql(statement)

    def _definition(self, production: Connection, shape: TableShape) -> list[str]:
        if self._postgres:
            return [_create_table(shape, self._shapes)]
        found = production.execute(
            sa.text(
                "SELECT sql FROM sqlite_master WHERE tbl_name = :name AND type IN ('table', 'index') AND sql <> ''"
            ),
            {"name": shape.table.name},
        )
        return [row[0] for row in found]

    def load(self, shape: TableShape, rows: Iterable[TextCells]) -> int:
        """Put production's rows into the sandbox. Returns how many."""
        columns = stored_columns(shape)
        to_raw = postgres_to_sqlite if self._postgres else sqlite_raw
        written = [at for at, column in enumerate(columns) if not self._is_computed(column)]
        kept = self._loaded.setdefault(shape.table, {})
        batch: list[dict[str, Any]] = []
        count = 0
        with self.engine.begin() as connection:
            table = table_of(shape, postgres=False)
            insert = sa.insert(table).values({columns[at].name: sa.bindparam(f"v{at}") for at in written})
            for cells in rows:
                raw = tuple(to_raw(column, cell) for column, cell in zip(columns, cells, strict=True))
                if any(isinstance(value, str) and is_broken(value) for value in raw):
                    connection.execute(sa.insert(table).values({columns[at].name: literal(raw[at]) for at in written}))
                else:
                    batch.append({f"v{at}": raw[at] for at in written})
                if shape.has_key:
                    kept[_key(shape, columns, raw)] = (raw, cells)
                count += 1
                if len(batch) == 500:
                    connection.execute(insert, batch)
                    batch = []
            if batch:
                connection.execute(insert, batch)
        return count

    def _is_computed(self, column: Column) -> bool:
        return column.is_computed and not self._postgres

    def ready(self) -> None:
        """After loading: references are checked from here on, where all their tables are here."""
        complete = all(key.references in self._shapes for shape in self._shapes.values() for key in shape.foreign_keys)
        with self.engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA foreign_keys = {'ON' if complete else 'OFF'}")

    def rows(self, shape: TableShape) -> Iterable[TextCells]:
        """The rows as they are now, in production's cells."""
        columns = stored_columns(shape)
        table = table_of(shape, postgres=False)
        kept = self._loaded.get(shape.table, {})
        query = sa.select(*cell_columns(table, shape, postgres=False)).select_from(table)
        with self.engine.connect() as connection:
            for row in connection.execute(query):
                raw = raw_values(row)
                known = kept.get(_key(shape, columns, raw)) if shape.has_key else None
                yield self._cells(columns, raw, known)

    def _cells(
        self, columns: Sequence[Column], raw: Sequence[Raw], known: tuple[tuple[Raw, ...], TextCells] | None
    ) -> TextCells:
        to_cell = sqlite_to_postgres if self._postgres else sqlite_cell
        if known is None:
            return tuple(to_cell(column, value) for column, value in zip(columns, raw, strict=True))
        return tuple(
            cell if value == before and type(value) is type(before) else to_cell(column, value)
            for column, value, before, cell in zip(columns, raw, *known, strict=True)
        )

    def parameters(self, given: Any) -> Any:
        """Plain parameters of a statement, as this sandbox keeps such values."""
        if not self._postgres or given is None:
            return given
        if isinstance(given, Mapping):
            return {name: stored(value) for name, value in given.items()}
        return [self.parameters(one) for one in given]

    def close(self) -> None:
        self.engine.dispose()


def _key(shape: TableShape, columns: Sequence[Column], raw: Sequence[Raw]) -> tuple[Raw, ...]:
    names = [column.name for column in columns]
    return tuple(raw[names.index(name)] for name in shape.primary_key)


def _create_table(shape: TableShape, shapes: Mapping[TableName, TableShape]) -> str:
    """SQLite's version of a PostgreSQL table: keys, references among the cloned tables, NOT NULL, plain defaults."""
    single_key = shape.primary_key[0] if len(shape.primary_key) == 1 else None
    parts: list[str] = []
    for column in stored_columns(shape):
        line = f"{_quoted(column.name)} {_declared(column)}"
        if column.name == single_key:
            line += " PRIMARY KEY"
        if not column.nullable and not column.is_assigned:
            line += " NOT NULL"
        parts.append(line + _default(column))
    if shape.primary_key and single_key is None:
        parts.append(f"PRIMARY KEY ({', '.join(map(_quoted, shape.primary_key))})")
    for key in shape.unique_keys:
        if key.is_plain and key.columns and key.columns != shape.primary_key:
            parts.append(f"UNIQUE ({', '.join(map(_quoted, key.columns))})")
    for reference in shape.foreign_keys:
        if reference.references in shapes:
            parts.append(
                f"FOREIGN KEY ({', '.join(map(_quoted, reference.columns))}) REFERENCES "
                f"{_quoted(reference.references.name)} ({', '.join(map(_quoted, reference.referenced_columns))})"
                f" ON UPDATE {reference.on_update} ON DELETE {reference.on_delete} DEFERRABLE INITIALLY DEFERRED"
            )
    return f"CREATE TABLE {_quoted(shape.table.name)} ({', '.join(parts)})"


def _declared(column: Column) -> str:
    return _DECLARED.get(column.base, "TEXT") if column.kind is TypeKind.BUILT_IN else "TEXT"


def _default(column: Column) -> str:
    if column.default is None or column.is_assigned or column.is_computed:
        return ""
    if _NOW.match(column.default):
        return " DEFAULT CURRENT_TIMESTAMP"
    literal = _LITERAL.match(column.default)
    if literal is None:
        return ""
    return f" DEFAULT {({'true': '1', 'false': '0'}).get(literal[1].lower(), literal[1])}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
