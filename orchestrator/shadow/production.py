"""Production as a shadow sees it: the shapes of its tables and the tenant's rows as cells. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.types import UserDefinedType

from orchestrator.core.changeset.joining import TextCells
from orchestrator.core.changeset.shape import (
    Column,
    ForeignKey,
    Generated,
    KeyKind,
    TableName,
    TableShape,
    UniqueKey,
)
from orchestrator.core.changeset.text_form import PINNED_SETTINGS
from orchestrator.drivers.postgres.diff.catalog import read_catalog
from orchestrator.drivers.postgres.diff.shapes import table_shapes
from orchestrator.shadow.cells import sqlite_cell
from orchestrator.shadow.errors import InvalidShadow

DEFAULT_SCHEMA = "public"


class NamedType(UserDefinedType[str]):
    """A type by its own name, for casts."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        return self.name


@dataclass(frozen=True)
class Scope:
    """Which rows belong to the tenant. `column` None means every row does."""

    column: str | None
    value: Any

    def holds(self, shape: TableShape) -> bool:
        return self.column is not None and self.column in shape.column_names


@dataclass(frozen=True)
class ProductionTables:
    """The cloned tables, all of production's, and every foreign key that points at a cloned one."""

    shapes: Mapping[TableName, TableShape]
    all_shapes: Mapping[TableName, TableShape]
    referring: tuple[tuple[TableName, ForeignKey], ...] = field(default=())


def is_postgres(engine: Engine | Connection) -> bool:
    return engine.dialect.name == "postgresql"


def check_dialect(engine: Engine) -> None:
    """Raises InvalidShadow for a database whose values could not be carried without loss."""
    if engine.dialect.name not in ("postgresql", "sqlite"):
        raise InvalidShadow(
            f"A shadow of {engine.dialect.name} is not supported.",
            next_step="Use PostgreSQL or SQLite, or load the rows into one of them.",
        )


def pin(connection: Connection) -> None:
    """PostgreSQL prints values one way for the rest of this transaction; nothing on other databases."""
    if is_postgres(connection):
        for name, value in PINNED_SETTINGS.items():
            connection.execute(sa.select(sa.func.pg_catalog.set_config(name, value, True)))


def read_tables(connection: Connection, names: Sequence[TableName]) -> ProductionTables:
    """Shapes of the named tables in dependency order. Raises InvalidShadow when one is missing."""
    known = _postgres_shapes(connection) if is_postgres(connection) else _sqlite_shapes(connection)
    missing = [str(name) for name in names if name not in known]
    if missing:
        raise InvalidShadow(f"Production has no table {', '.join(missing)}.", next_step="Check the names.")
    wanted = set(names)
    referring = tuple(
        (shape.table, key) for shape in known.values() for key in shape.foreign_keys if key.references in wanted
    )
    return ProductionTables({name: known[name] for name in in_dependency_order(known, names)}, known, referring)


def in_dependency_order(shapes: Mapping[TableName, TableShape], names: Iterable[TableName]) -> list[TableName]:
    """Parents before children; a cycle keeps the given order."""
    wanted, done, order = list(names), set[TableName](), list[TableName]()

    def visit(name: TableName, path: frozenset[TableName]) -> None:
        if name in done or name in path:
            return
        for key in shapes[name].foreign_keys:
            if key.references in wanted:
                visit(key.references, path | {name})
        done.add(name)
        order.append(name)

    for name in wanted:
        visit(name, frozenset())
    return order


class _Through:
    """Lets the catalog reader speak through SQLAlchemy, whatever PostgreSQL driver is below."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.info = self

    @property
    def server_version(self) -> int:
        return int(self._connection.exec_driver_sql("SHOW server_version_num").scalar_one())

    def execute(self, query: bytes, parameters: Sequence[object] | None = None, *, prepare: bool = False) -> Any:
        del prepare
        return self._connection.exec_driver_sql(query.decode(), tuple(parameters) if parameters else None)


def _postgres_shapes(connection: Connection) -> dict[TableName, TableShape]:
    return table_shapes(read_catalog(cast(Any, _Through(connection))))


# SQLite's declared types, by SQLAlchemy's reading of them.
_BASES: tuple[tuple[type[Any], str], ...] = (
    (sa.Boolean, "bool"),
    (sa.Integer, "int8"),
    (sa.Float, "float8"),
    (sa.Numeric, "numeric"),
    (sa.LargeBinary, "bytea"),
    (sa.JSON, "json"),
    (sa.DateTime, "timestamp"),
    (sa.Date, "date"),
    (sa.Time, "time"),
)


def _sqlite_shapes(connection: Connection) -> dict[TableName, TableShape]:
    inspector = sa.inspect(connection)
    return {
        TableName(DEFAULT_SCHEMA, name): _sqlite_shape(inspector, name)
        for name in inspector.get_table_names()
        if not name.startswith("sqlite_")
    }


def _sqlite_shape(inspector: sa.Inspector, name: str) -> TableShape:
    primary = tuple(inspector.get_pk_constraint(name)["constrained_columns"])
    columns = tuple(_sqlite_column(column, primary) for column in inspector.get_columns(name))
    unique = [UniqueKey("primary key", KeyKind.PRIMARY, primary)] if primary else []
    for number, constraint in enumerate(inspector.get_unique_constraints(name), 1):
        unique.append(
            UniqueKey(constraint["name"] or f"unique {number}", KeyKind.UNIQUE, tuple(constraint["column_names"]))
        )
    return TableShape(
        TableName(DEFAULT_SCHEMA, name),
        columns,
        primary,
        tuple(unique),
        tuple(
            _sqlite_reference(inspector, number, key) for number, key in enumerate(inspector.get_foreign_keys(name), 1)
        ),
    )


def _sqlite_column(column: Mapping[str, Any], primary: tuple[str, ...]) -> Column:
    kind = column["type"]
    base = next((base for known, base in _BASES if isinstance(kind, known)), "text")
    typmod = -1
    if base == "text" and getattr(kind, "length", None):
        base, typmod = "varchar", kind.length + 4
    if base == "numeric" and kind.precision is not None:
        typmod = (kind.precision << 16 | (kind.scale or 0)) + 4
    only_key = primary == (column["name"],)
    computed = column.get("computed")
    generated = Generated.NO
    if computed is not None:
        generated = Generated.STORED if computed.get("persisted") else Generated.VIRTUAL
    elif only_key and str(kind).upper() == "INTEGER":  # an alias of the row id: SQLite assigns it
        generated = Generated.IDENTITY_DEFAULT
    return Column(
        column["name"],
        str(kind),
        base=base,
        typmod=typmod,
        nullable=bool(column["nullable"]) and column["name"] not in primary,
        generated=generated,
        default=column.get("default"),
    )


def _sqlite_reference(inspector: sa.Inspector, number: int, key: Mapping[str, Any]) -> ForeignKey:
    target = key["referred_table"]
    columns = key["referred_columns"] or inspector.get_pk_constraint(target)["constrained_columns"]
    options = key.get("options", {})
    return ForeignKey(
        key["name"] or f"reference {number}",
        tuple(key["constrained_columns"]),
        TableName(DEFAULT_SCHEMA, target),
        tuple(columns),
        str(options.get("onupdate", "no action")).lower(),
        str(options.get("ondelete", "no action")).lower(),
    )


def table_of(shape: TableShape, *, postgres: bool) -> sa.TableClause:
    """The table for statements, always the same object. Columns have no type: values travel as cells."""
    return _table(shape.table, shape.column_names, postgres)


@lru_cache(maxsize=1024)
def _table(name: TableName, column_names: tuple[str, ...], postgres: bool) -> sa.TableClause:
    columns: list[sa.ColumnClause[Any]] = [sa.column(column) for column in column_names]
    return sa.table(name.name, *columns, schema=name.schema if postgres else None)


def stored_columns(shape: TableShape) -> tuple[Column, ...]:
    return tuple(column for column in shape.columns if column.generated is not Generated.VIRTUAL)


def cell_columns(table: sa.TableClause, shape: TableShape, *, postgres: bool) -> list[sa.ColumnElement[Any]]:
    """What to select so that `cell_reader` gets values without any driver's interpretation."""
    if postgres:
        return [sa.cast(table.c[column.name], sa.Text).label(f"c{n}") for n, column in enumerate(stored_columns(shape))]
    found: list[sa.ColumnElement[Any]] = []
    for column in stored_columns(shape):
        value = sa.type_coerce(table.c[column.name], sa.types.NullType())
        found.append(sa.func.typeof(value))
        found.append(sa.case((sa.func.typeof(value) == "text", sa.cast(value, NamedType("BLOB"))), else_=value))
    return found


def cell_reader(shape: TableShape, *, postgres: bool) -> Callable[[Sequence[Any]], TextCells]:
    if postgres:
        return lambda row: tuple(row)
    columns = stored_columns(shape)
    return lambda row: tuple(sqlite_cell(column, raw) for column, raw in zip(columns, raw_values(row), strict=True))


def raw_values(row: Sequence[Any]) -> list[Any]:
    """SQLite's own values from pairs of storage class and value; text arrives as bytes and need not be UTF-8."""
    return [
        bytes(value).decode("utf-8", "surrogateescape") if kind == "text" else value
        for kind, value in zip(row[::2], row[1::2], strict=True)
    ]


def is_broken(text: str) -> bool:
    """Holds bytes that are not UTF-8."""
    return not text.isascii() and any("\udc80" <= letter <= "\udcff" for letter in text)


def literal(raw: Any) -> sa.ColumnElement[Any]:
    """A SQLite value for a statement; text that is not UTF-8 goes in as its bytes."""
    if isinstance(raw, str) and is_broken(raw):
        return sa.cast(sa.literal(raw.encode("utf-8", "surrogateescape"), sa.LargeBinary()), NamedType("TEXT"))
    return sa.literal(raw, sa.types.NullType())


def read_rows(
    connection: Connection, shape: TableShape, condition: sa.ColumnElement[bool] | None = None
) -> Iterable[TextCells]:
    """Every row of a table (that meets the condition) as cells of its stored columns."""
    postgres = is_postgres(connection)
    table = table_of(shape, postgres=postgres)
    query = sa.select(*cell_columns(table, shape, postgres=postgres)).select_from(table)
    if condition is not None:
        query = query.where(condition)
    reader = cell_reader(shape, postgres=postgres)
    return (reader(row) for row in connection.execute(query))
