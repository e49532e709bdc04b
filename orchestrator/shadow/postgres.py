"""The sandbox in a scratch PostgreSQL: real types, keys and references, nothing translated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from orchestrator.core.changeset.joining import TextCells
from orchestrator.core.changeset.shape import Column, Generated, TableName, TableShape, TypeKind
from orchestrator.core.changeset.text_form import PINNED_SETTINGS
from orchestrator.core.names import new_id
from orchestrator.shadow.errors import InvalidShadow
from orchestrator.shadow.production import pin, read_rows, stored_columns
from orchestrator.shadow.scratch import ScratchServer


class PostgresSandbox:
    """One database, in a scratch server of its own or in one that is shared; it goes when the sandbox is closed."""

    def __init__(self, shapes: Mapping[TableName, TableShape], server: ScratchServer | None = None) -> None:
        self._shapes = shapes
        self._shared = server is not None
        self._server = server or ScratchServer().start()
        self._database = new_id("shadow_")
        try:
            self._administer(sql.SQL("CREATE DATABASE {} TEMPLATE template0"))
            with psycopg.connect(self._dsn(), autocommit=True) as connection:
                _build(connection, shapes)
        except psycopg.Error as error:
            self._end()
            raise InvalidShadow(
                f"The scratch PostgreSQL cannot hold these tables: {str(error).splitlines()[0]}",
                next_step='Use sandbox="memory", or a PostgreSQL with the extensions they need.',
            ) from error
        except BaseException:
            self._end()
            raise
        self.engine: Engine = sa.create_engine(self._server.url(self._database), poolclass=NullPool)

    def _dsn(self) -> str:
        return self._server.dsn(self._database)

    def _administer(self, statement: sql.SQL) -> None:
        with psycopg.connect(self._server.dsn(), autocommit=True) as connection:
            connection.execute(statement.format(sql.Identifier(self._database)))

    def _end(self) -> None:
        if self._shared:
            self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)"))
        else:
            self._server.close()

    def load(self, shape: TableShape, rows: Iterable[TextCells]) -> int:
        columns = stored_columns(shape)
        query = sql.SQL("COPY {} ({}) FROM STDIN").format(
            _name(shape.table), sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
        )
        count = 0
        with psycopg.connect(self._dsn(), autocommit=True) as connection:
            _pin(connection)
            connection.execute("SET session_replication_role = replica")
            with connection.cursor().copy(query) as copy:
                for cells in rows:
                    copy.write_row(cells)
                    count += 1
        return count

    def ready(self) -> None:
        """After loading: references (existing rows are taken as they are), and sequences behind the rows."""
        with psycopg.connect(self._dsn(), autocommit=True) as connection:
            for shape in self._shapes.values():
                for statement in _references(shape, self._shapes):
                    connection.execute(statement)
                for column in shape.columns:
                    if column.is_assigned:
                        connection.execute(_advance(shape, column))

    def rows(self, shape: TableShape) -> Iterable[TextCells]:
        with self.engine.connect() as connection:
            pin(connection)
            yield from read_rows(connection, shape)

    def parameters(self, given: Any) -> Any:
        """As they are: the driver knows PostgreSQL's types."""
        return given

    def close(self) -> None:
        self.engine.dispose()
        self._end()


def _pin(connection: psycopg.Connection[Any]) -> None:
    for name, value in PINNED_SETTINGS.items():
        connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))


def _build(connection: psycopg.Connection[Any], shapes: Mapping[TableName, TableShape]) -> None:
    for schema in {shape.table.schema for shape in shapes.values()}:
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    _create_types(connection, shapes)
    connection.execute("SET search_path = ''")
    for shape in shapes.values():
        for column in shape.columns:
            if column.sequence is not None and column.generated is Generated.SEQUENCE:
                connection.execute(sql.SQL("CREATE SEQUENCE IF NOT EXISTS {}").format(_name(column.sequence)))
        parts = [_column(column) for column in stored_columns(shape)]
        parts += [
            sql.SQL("CONSTRAINT {} ").format(sql.Identifier(key.name)) + sql.SQL(key.definition)
            for key in shape.unique_keys
            if key.kind in ("primary", "unique")
        ]
        connection.execute(sql.SQL("CREATE TABLE {} ({})").format(_name(shape.table), sql.SQL(", ").join(parts)))
        for column in shape.columns:
            _set_default(connection, shape, column)


def _create_types(connection: psycopg.Connection[Any], shapes: Mapping[TableName, TableShape]) -> None:
    """Enums under the names the columns use. Raises InvalidShadow for what only a copy of the schema could give."""
    made: set[str] = set()
    for shape in shapes.values():
        for column in shape.columns:
            if column.domain is not None or column.kind in (TypeKind.COMPOSITE, TypeKind.RANGE):
                if column.kind is TypeKind.RANGE and column.cast.startswith('"pg_catalog"'):
                    continue
                raise InvalidShadow(
                    f"{shape.table}.{column.name} has the type {column.type}, which a scratch PostgreSQL lacks.",
                    next_step='Use sandbox="memory".',
                )
            name = column.type.removesuffix("[]")
            if column.labels and name not in made:
                made.add(name)
                parsed = TableName.parse(name)
                connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(parsed.schema)))
                labels = sql.SQL(", ").join(map(sql.Literal, column.labels))
                connection.execute(sql.SQL("CREATE TYPE {} AS ENUM ({})").format(_name(parsed), labels))


def _column(column: Column) -> sql.Composable:
    parts = [sql.Identifier(column.name), sql.SQL(column.type)]
    if column.generated is Generated.IDENTITY_ALWAYS:
        parts.append(sql.SQL("GENERATED ALWAYS AS IDENTITY"))
    elif column.generated is Generated.IDENTITY_DEFAULT:
        parts.append(sql.SQL("GENERATED BY DEFAULT AS IDENTITY"))
    if not column.nullable and not column.is_computed:
        parts.append(sql.SQL("NOT NULL"))
    return sql.SQL(" ").join(parts)


def _set_default(connection: psycopg.Connection[Any], shape: TableShape, column: Column) -> None:
    """A default that calls what is not here is left out: an insert then has to name the column."""
    if column.default is None:
        return
    statement = sql.SQL("ALTER TABLE {} ALTER {} SET DEFAULT {}").format(
        _name(shape.table),
        sql.Identifier(column.name),
        sql.SQL(column.default),
    )
    try:
        connection.execute(statement)
    except (psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedObject, psycopg.errors.UndefinedTable):
        return


def _references(shape: TableShape, shapes: Mapping[TableName, TableShape]) -> Iterable[sql.Composed]:
    for key in shape.foreign_keys:
        if key.references not in shapes:
            continue
        timing = " DEFERRABLE" + (" INITIALLY DEFERRED" if key.initially_deferred else "") if key.deferrable else ""
        yield sql.SQL(
            "ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}) "
            f"MATCH {key.match} ON UPDATE {key.on_update} ON DELETE {key.on_delete}{timing} NOT VALID"
        ).format(
            _name(shape.table),
            sql.Identifier(key.name),
            sql.SQL(", ").join(map(sql.Identifier, key.columns)),
            _name(key.references),
            sql.SQL(", ").join(map(sql.Identifier, key.referenced_columns)),
        )


def _advance(shape: TableShape, column: Column) -> sql.Composed:
    """Set the column's sequence behind the highest copied value."""
    sequence = (
        sql.Literal(_name(column.sequence).as_string())
        if column.generated is Generated.SEQUENCE and column.sequence is not None
        else sql.SQL("pg_get_serial_sequence({}, {})").format(
            sql.Literal(_name(shape.table).as_string()), sql.Literal(column.name)
        )
    )
    if column.base not in ("int2", "int4", "int8"):
        return sql.SQL("SELECT 1").format()  # a text made from a sequence: where it stands cannot be read from the rows
    return sql.SQL("SELECT pg_catalog.setval({}, (SELECT pg_catalog.max({}) FROM {}) + 1, false)").format(
        sequence, sql.Identifier(column.name), _name(shape.table)
    )


def _name(table: TableName) -> sql.Identifier:
    return sql.Identifier(table.schema, table.name)
